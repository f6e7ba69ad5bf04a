package weir_test

import (
	"fmt"

	"github.com/weir-io/weir"
)

// countdown is a pull producer: it writes one piece each time the last one has left,
// however fast or slow the peer is.
type countdown struct {
	t    weir.Transport
	next int
}

func (c *countdown) ResumeProducing() {
	if c.next == 0 {
		c.t.UnregisterProducer() // the Close below waits for this
		return
	}
	fmt.Fprint(c.t, c.next, " ")
	c.next--
}

func (c *countdown) PauseProducing() {} // for push producers only
func (c *countdown) StopProducing()  {} // the peer is gone: nothing to give back here
func (c *countdown) Streaming() bool { return false }

// teller writes what its producer makes, and then closes.
type teller struct{ weir.DataFunc }

func (teller) ConnectionMade(t weir.Transport) {
	if err := t.RegisterProducer(&countdown{t, 5}); err != nil {
		panic(err)
	}
	_ = t.Close()
}

// listener prints everything it was told, once there is no more.
type listener struct {
	l    *weir.Loop
	told []byte
}

func (h *listener) ConnectionMade(weir.Transport) {}

func (h *listener) DataReceived(p []byte) (int, error) {
	h.told = append(h.told, p...)
	return len(p), nil
}

func (h *listener) ConnectionLost(err error) {
	fmt.Printf("%slost: %v\n", h.told, err)
	h.l.Stop()
}

// Output that is too much to write at once is produced at the peer's pace.
func ExampleProducer() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return teller{} })
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), &listener{l: l})
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: 5 4 3 2 1 lost: <nil>
}
