package weir_test

import (
	"fmt"

	"github.com/weir-io/weir"
)

// greeting is a client's protocol: it says one thing, and closes once that has come
// back.
type greeting struct {
	text string
	t    weir.Transport
}

func (g *greeting) ConnectionMade(t weir.Transport) {
	g.t = t
	fmt.Fprint(t, g.text)
}

func (g *greeting) DataReceived(p []byte) (int, error) {
	if len(p) < len(g.text) {
		return 0, nil // the transport keeps it, and offers it again with what comes next
	}
	fmt.Printf("heard %q\n", p)
	return len(p), g.t.Close()
}

func (g *greeting) ConnectionLost(err error) {
	fmt.Println("lost:", err) // nil is a clean end
	g.t.Loop().Stop()
}

// An echo server and its client, on one loop. A program that only serves needs nothing
// but ListenAndServe.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
		return weir.DataFunc(t.Write)
	})
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), &greeting{text: "hello"})
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// heard "hello"
	// lost: <nil>
}
