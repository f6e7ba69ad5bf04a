package weir_test

import (
	"fmt"
	"time"

	"github.com/weir-io/weir"
)

// patient is a client that tries again until it is answered.
type patient struct {
	r *weir.Redialer
	l *weir.Loop
}

func (p patient) ConnectionMade(t weir.Transport) { fmt.Fprint(t, "hello") }

func (p patient) DataReceived(b []byte) (int, error) {
	fmt.Println("answered on attempt", p.r.Attempt())
	p.l.Stop()
	return len(b), nil
}

func (p patient) ConnectionLost(error) { p.again() }

func (p patient) ConnectFailed(*weir.ConnectError) { p.again() }

func (p patient) again() {
	if wait, ok := p.r.Again(); ok {
		fmt.Println("again in", wait)
	}
}

// A server that refuses two connections before it serves one.
func ExampleLoop_Redial() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	conns := 0
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
		if conns++; conns < 3 {
			return nil
		}
		return weir.DataFunc(t.Write)
	})
	if err != nil {
		panic(err)
	}
	// Without jitter, so that the example can say how long the waits are.
	backoff := weir.Backoff{First: time.Millisecond, Jitter: -1}
	l.Redial("tcp", ln.Addr().String(), backoff, func(r *weir.Redialer) weir.Protocol { return patient{r, l} })
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// again in 1ms
	// again in 2ms
	// answered on attempt 3
}
