package weirtest_test

import (
	"fmt"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/weirtest"
)

// tb is the *testing.T that a test has and an Example lacks.
var tb = new(testing.T)

// greeter answers each line with a greeting.
func greeter(t weir.Transport) weir.Protocol {
	return frame.Lines(func(name []byte) error {
		if string(name) == "bye" {
			return t.Close()
		}
		_, err := fmt.Fprintf(t, "hello %s\n", name)
		return err
	})
}

func ExampleRecorder() {
	r := weirtest.NewRecorder(tb)
	r.Connect(greeter(r))
	r.DeliverString("Ann\nB")
	r.DeliverString("ob\nbye\nCid\n")
	for _, call := range r.Trace() {
		fmt.Println(call)
	}
	// Output:
	// ConnectionMade
	// DataReceived "Ann\nB"
	//   Write "hello Ann\n"
	// used 4 of 5, error <nil>
	// DataReceived "B"
	// used 0 of 1, error <nil>
	// DataReceived "Bob\nbye\nCid\n"
	//   Write "hello Bob\n"
	// used 4 of 12, error <nil>
	// DataReceived "bye\nCid\n"
	//   Close
	// used 4 of 8, error <nil>
	// ConnectionLost <nil>
}

// caller sends its lines and ends its writing.
type caller struct{ lines string }

func (c *caller) ConnectionMade(t weir.Transport) {
	_, _ = t.Write([]byte(c.lines))
	_ = t.WriteEOF()
}

func (c *caller) DataReceived(p []byte) (int, error) {
	fmt.Printf("the caller hears %q\n", p)
	return len(p), nil
}

func (c *caller) ConnectionLost(err error) { fmt.Println("the caller is done:", err) }

func ExamplePump() {
	var p *weirtest.Pump
	server := frame.Lines(func(line []byte) error {
		_, err := fmt.Fprintf(p.B, "%s!", line)
		return err
	})
	p = weirtest.NewPump(tb, &caller{"one\ntwo\n"}, server, weirtest.Pieces(2, 3, 2))
	a, b := p.Finish()
	fmt.Println("reasons:", a, b)
	// Output:
	// the caller hears "one!two!"
	// the caller is done: <nil>
	// reasons: <nil> <nil>
}
