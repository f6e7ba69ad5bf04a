package layer_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/layer"
)

// A connection that begins in the clear and goes on in TLS, as in SMTP.
// Whatever a peer sends after the line that agrees on TLS already goes to TLS.
func ExampleStart() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	serverTLS, clientTLS := fitting()
	failed := func(err *weir.AttemptError) { fmt.Println(err) }

	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
		return frame.Lines(func(line []byte) error {
			fmt.Fprintf(t, "ready\n")
			layer.Start(t, layer.Above{Make: shout, Failed: failed}, layer.TLSServer(serverTLS))
			return nil
		})
	})
	if err != nil {
		panic(err)
	}

	var clear weir.Transport
	l.Connect("tcp", ln.Addr().String(), frame.Lines(
		func(line []byte) error {
			fmt.Printf("in the clear: %s\n", line)
			secured := func(weir.Transport) weir.Protocol { return say(l, "a secret") }
			layer.Start(clear, layer.Above{Make: secured, Failed: failed}, layer.TLS(clientTLS))
			return nil
		},
		frame.OnMade(func(t weir.Transport) {
			clear = t
			fmt.Fprintln(t, "STARTTLS")
		}),
	))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// in the clear: ready
	// a secret!
}
