package weir_test

import (
	"fmt"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
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

// A connect that is awaited together with another, whichever is first.
func ExampleLoop_ConnectFuture() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	if err != nil {
		panic(err)
	}
	s := future.On(l)
	first := future.FirstSuccess(s,
		l.ConnectFuture(s, "tcp", "127.0.0.1:1", weir.NopProtocol{}), // refuses
		l.ConnectFuture(s, "tcp", ln.Addr().String(), weir.NopProtocol{}),
	)
	first.OnDone(func(t weir.Transport, err error) {
		fmt.Println("connected to the second:", err == nil && t.RemoteAddr().String() == ln.Addr().String())
		l.Stop()
	})
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// connected to the second: true
}

// The options of an open socket, as below any number of layers.
func ExampleTuner() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	if err != nil {
		panic(err)
	}
	s := future.On(l)
	l.ConnectFuture(s, "tcp", ln.Addr().String(), weir.NopProtocol{}).OnDone(func(t weir.Transport, err error) {
		defer l.Stop()
		tuner, ok := weir.As[weir.Tuner](t)
		if err != nil || !ok {
			panic(err)
		}
		fmt.Println(tuner.SetKeepAlive(time.Minute))
		fmt.Println(tuner.SetDSCP(99))
	})
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// <nil>
	// weir: SetDSCP(99): the value must be from 0 to 63
}
