package layer_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// rot13 is a layer of our own. It embeds Base, which passes everything through,
// and overrides the methods that handle bytes. weirtest.TestLayers checks that
// a layer keeps everything that a stream promises.
type rot13 struct{ layer.Base }

// newROT13 is the Layer: given what goes above the layer, it returns what goes
// above the transport below.
func newROT13(a layer.Above) layer.Above {
	return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
		r := &rot13{}
		return r.Init(r, "rot13", a)
	}}
}

// DataReceived hands up what came from below. p is lent, and must not be changed.
func (r *rot13) DataReceived(p []byte) (int, error) {
	r.Deliver(rotated(p))
	return len(p), nil
}

// Write sends down what came from above, which is lent too.
func (r *rot13) Write(bufs [][]byte) (int, error) {
	if r.Blocked() {
		return 0, nil // it is offered again when the transport below has room
	}
	turned := make([][]byte, len(bufs))
	for i, b := range bufs {
		turned[i] = rotated(b)
	}
	return r.Base.Write(turned)
}

func rotated(p []byte) []byte {
	out := make([]byte, len(p))
	for i, c := range p {
		switch {
		case 'a' <= c && c <= 'z':
			c = 'a' + (c-'a'+13)%26
		case 'A' <= c && c <= 'Z':
			c = 'A' + (c-'A'+13)%26
		}
		out[i] = c
	}
	return out
}

func ExampleBase() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	onWire := layer.Observe(func(e layer.Traffic) {
		if e.What == layer.Sent {
			fmt.Printf("on the wire: %q\n", e.Data)
		}
	})
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(shout, newROT13))
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), layer.Client(say(l, "Hello"), onWire, newROT13))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// on the wire: "Uryyb\n"
	// Hello!
}
