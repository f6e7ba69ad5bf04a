package weir_test

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
)

// adder answers each line, a number, with the sum so far. It keeps no buffer of its
// own: whatever it does not use is offered again.
type adder struct {
	t   weir.Transport
	sum int
}

func (a *adder) ConnectionMade(t weir.Transport) { a.t = t }

func (a *adder) DataReceived(p []byte) (int, error) {
	line, _, whole := bytes.Cut(p, []byte("\n"))
	if !whole {
		return 0, nil
	}
	n, err := strconv.Atoi(string(line))
	if err != nil {
		return 0, err // loses this connection, and no other
	}
	a.sum += n
	fmt.Fprintln(a.t, a.sum)
	return len(line) + 1, nil // the next line is offered at once
}

func (a *adder) ConnectionLost(err error) {}

// A line protocol written by hand. Package frame has one ready-made, which the client
// here uses.
func ExampleProtocol() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return new(adder) })
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), frame.Lines(
		func(line []byte) error {
			fmt.Printf("%s\n", line)
			if string(line) == "42" {
				l.Stop()
			}
			return nil
		},
		frame.OnMade(func(t weir.Transport) { fmt.Fprint(t, "20\n2", "1\n1\n") }),
	))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// 20
	// 41
	// 42
}
