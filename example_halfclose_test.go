package weir_test

import (
	"fmt"

	"github.com/weir-io/weir"
)

// counter waits until the peer has said everything and answers with how much that was.
type counter struct {
	t     weir.Transport
	bytes int
}

func (c *counter) ConnectionMade(t weir.Transport)    { c.t = t }
func (c *counter) DataReceived(p []byte) (int, error) { c.bytes += len(p); return len(p), nil }
func (c *counter) ConnectionLost(error)               {}

func (c *counter) EOFReceived(int) (keepOpen bool, err error) {
	fmt.Fprintf(c.t, "%d bytes\n", c.bytes)
	return false, nil // what was written is sent, and then the connection ends
}

// speaker says everything, ends its direction, and still hears the answer.
type speaker struct{ l *weir.Loop }

func (a speaker) ConnectionMade(t weir.Transport) {
	fmt.Fprint(t, "to be, or not to be")
	if err := t.WriteEOF(); err != nil {
		panic(err)
	}
}

func (a speaker) DataReceived(p []byte) (int, error) { fmt.Printf("%s", p); return len(p), nil }
func (a speaker) ConnectionLost(err error)           { fmt.Println("lost:", err); a.l.Stop() }

// Each direction of a stream ends by itself: a request may end before its answer
// begins.
func ExampleEOFReceiver() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return new(counter) })
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), speaker{l})
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// 19 bytes
	// lost: <nil>
}
