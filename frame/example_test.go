package frame_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
)

// A server and a client that exchange messages of arbitrary bytes, each preceded by its
// length.
func ExamplePrefixed() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	send := func(t weir.Transport, text string) error {
		b, err := frame.AppendPrefixed(nil, frame.Uint16BE, []byte(text))
		if err != nil {
			return err // its length does not fit into two bytes
		}
		_, err = t.Write(b)
		return err
	}
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
		return frame.Prefixed(frame.Uint16BE, func(name []byte) error {
			return send(t, "hello "+string(name)) // an error loses the connection
		}, frame.WithLimit(100))
	})
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), frame.Prefixed(frame.Uint16BE,
		func(reply []byte) error {
			fmt.Printf("%s\n", reply)
			l.Stop()
			return nil
		},
		frame.OnMade(func(t weir.Transport) { _ = send(t, "world") }),
	))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: hello world
}

// A Decoder needs no transport: any bytes can be fed to it, one frame per call.
func ExampleLines() {
	d := frame.Lines(func(line []byte) error {
		fmt.Printf("%q\n", line)
		return nil
	})
	rest := []byte("one\r\ntwo\nthr")
	for {
		n, err := d.DataReceived(rest)
		if err != nil {
			panic(err)
		}
		if n == 0 {
			break
		}
		rest = rest[n:]
	}
	fmt.Printf("kept for later: %q\n", rest)
	// Output:
	// "one"
	// "two"
	// kept for later: "thr"
}

// A line says how many bytes follow, which the Decoder does not interpret.
func ExampleDecoder_Raw() {
	var d *frame.Decoder
	d = frame.Lines(func(line []byte) error {
		var left int
		if _, err := fmt.Sscanf(string(line), "DATA %d", &left); err != nil {
			fmt.Printf("line %q\n", line)
			return nil
		}
		d.Raw(func(p []byte) (int, error) {
			n := min(left, len(p))
			fmt.Printf("data %q\n", p[:n])
			if left -= n; left == 0 {
				d.Framed()
			}
			return n, nil
		})
		return nil
	})
	for rest := []byte("DATA 4\na\nb\nQUIT\n"); len(rest) > 0; {
		n, err := d.DataReceived(rest)
		if err != nil {
			panic(err)
		}
		rest = rest[n:]
	}
	// Output:
	// data "a\nb\n"
	// line "QUIT"
}
