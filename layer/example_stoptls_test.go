package layer_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/layer"
)

// leaver agrees when its peer ends TLS: the close_notify is an end of stream,
// after which the connection goes on in the clear.
type leaver struct {
	*frame.Decoder
	t weir.Transport
}

func (s *leaver) EOFReceived(int) (keepOpen bool, err error) {
	var clear weir.Transport
	below := frame.Lines(
		func(line []byte) error {
			_, err := fmt.Fprintf(clear, "%s, in the clear\n", line)
			return err
		},
		frame.OnMade(func(t weir.Transport) { clear = t }),
	)
	return true, layer.StopTLS(s.t, below)
}

// A client that leaves TLS once it has sent its secret, as with FTP's CCC.
func ExampleStopTLS() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	serverTLS, clientTLS := fitting()
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(func(t weir.Transport) weir.Protocol {
		return &leaver{t: t, Decoder: frame.Lines(func(line []byte) error {
			_, err := fmt.Fprintf(t, "%s, in TLS\n", line)
			return err
		})}
	}, layer.TLSServer(serverTLS)))
	if err != nil {
		panic(err)
	}

	var secured weir.Transport
	client := frame.Lines(
		func(answer []byte) error {
			fmt.Printf("%s\n", answer)
			return layer.StopTLS(secured, say(l, "anything"))
		},
		frame.OnMade(func(t weir.Transport) {
			secured = t
			fmt.Fprintln(t, "a secret")
		}),
	)
	l.Connect("tcp", ln.Addr().String(), layer.Client(client, layer.TLS(clientTLS)))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// a secret, in TLS
	// anything, in the clear
}
