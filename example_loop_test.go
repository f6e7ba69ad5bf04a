package weir_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
)

// Work that blocks gets its own goroutine, which posts the result: a posted function
// runs on the loop, where it may use everything.
func ExampleLoop_Post() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	go func() {
		sum := 0
		for n := range 101 {
			sum += n
		}
		// It fails once the loop is closed, when no one wants the sum any more.
		_, _ = l.Post(func() {
			fmt.Println("the sum is", sum)
			l.Stop()
		})
	}()
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: the sum is 5050
}

// Timers fire in the order in which they are due.
func ExampleLoop_After() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	l.After(2*time.Millisecond, func() {
		fmt.Println("second")
		l.Stop()
	})
	l.After(time.Millisecond, func() { fmt.Println("first") })
	never := l.After(time.Hour, func() { fmt.Println("never") })
	fmt.Println("stopped:", never.Stop())
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// stopped: true
	// first
	// second
}

// A timer can be used again and again, and a repeating one stays in phase.
func ExampleTimer_Repeat() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	var ticker *weir.Timer
	ticks := 0
	ticker = l.NewTimer(func() {
		ticks++
		fmt.Println("tick", ticks)
		if ticks == 3 {
			ticker.Stop()
			l.Stop()
		}
	})
	ticker.Repeat(time.Millisecond)
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// tick 1
	// tick 2
	// tick 3
}

// An endpoint that answers each datagram, and one that asks.
func ExampleLoop_ListenPacket() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	echo := weir.PacketFunc(func(e *weir.PacketEndpoint, p []byte, from weir.PacketAddr) {
		_ = e.SendTo(p, from) // an error is about this datagram only, and datagrams get lost
	})
	server, err := l.ListenPacket("udp", "127.0.0.1:0", echo.Protocol())
	if err != nil {
		panic(err)
	}
	hear := weir.PacketFunc(func(_ *weir.PacketEndpoint, p []byte, from weir.PacketAddr) {
		fmt.Printf("%q from the server: %v\n", p, from == server.Local())
		l.Stop()
	})
	client, err := l.ListenPacket("udp", "127.0.0.1:0", hear.Protocol())
	if err != nil {
		panic(err)
	}
	if err := client.SendTo([]byte("anybody there?"), server.Local()); err != nil {
		panic(err)
	}
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: "anybody there?" from the server: true
}

// Several loops share a listener. Each connection lives on one of them, so its
// protocol needs no lock.
func ExampleGroup() {
	g, err := weir.NewGroup(2)
	if err != nil {
		panic(err)
	}
	defer g.Close()
	ln, err := g.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
		return weir.DataFunc(t.Write)
	})
	if err != nil {
		panic(err)
	}
	g.Loops()[0].Connect("tcp", ln.Addr().String(), frame.Lines(
		func(line []byte) error {
			fmt.Printf("%s\n", line)
			g.Stop()
			return nil
		},
		frame.OnMade(func(t weir.Transport) { fmt.Fprintln(t, "hello") }),
	))
	if err := g.Run(); err != nil {
		panic(err)
	}
	// Output: hello
}

// A backend is chosen by name, by WEIR_BACKEND, or by the platform.
func ExampleWithBackendName() {
	l, err := weir.NewLoop(weir.WithBackendName("portable"))
	if err != nil {
		panic(err)
	}
	defer l.Close()
	fmt.Println(l.Backend().Name)
	// Output: portable
}

// A customer's connections share a loop with others', end together, and cannot have more
// than their part of it.
func ExampleTenant() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	shop := l.NewTenant("shop")
	if err := errors.Join(
		shop.SetShare(3), // three times the time of one with 1, when the loop is busy
		shop.SetLimits(weir.TenantLimits{Buffered: 8 << 20, Connections: 1000}),
	); err != nil {
		panic(err)
	}

	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
		return weir.DataFunc(t.Write)
	}, weir.WithTenant(shop))
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), &customer{shop: shop, loop: l}, weir.WithTenant(shop))
	if err := l.Run(); err != nil {
		panic(err)
	}
	fmt.Println(shop.Stats().Connections, "connections left")
	// Output:
	// 2 connections
	// weir: tenant shop is closed: bankrupt
	// 0 connections left
}

type customer struct {
	weir.NopProtocol
	shop *weir.Tenant
	loop *weir.Loop
}

func (c *customer) ConnectionMade(t weir.Transport) { _, _ = t.Write([]byte("hello")) }

func (c *customer) DataReceived(p []byte) (int, error) {
	fmt.Println(c.shop.Stats().Connections, "connections")
	c.shop.Close(errors.New("bankrupt")) // the listener, its connection and this one
	return len(p), nil
}

func (c *customer) ConnectionLost(err error) {
	fmt.Println(err)
	c.loop.Soon(func() { c.loop.Soon(c.loop.Stop) })
}

// A loop inside another one that only runs functions, as a GUI's does. Its turns are short,
// so that the other loop's own functions come in between.
func ExampleLoop_Guest() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	host := make(chan func(), 16) // what the host is to run, one after another
	if err := l.SetTurnLimit(weir.TurnLimit{Time: 2 * time.Millisecond}); err != nil {
		panic(err)
	}
	stop, err := l.Guest(func(turn func()) { host <- turn })
	if err != nil {
		panic(err)
	}
	done := false
	l.After(time.Millisecond, func() {
		fmt.Println("a timer of the loop's")
		host <- func() { fmt.Println("a function of the host's") }
		host <- func() { done = true }
	})
	for !done {
		(<-host)()
	}
	stop()
	// Output:
	// a timer of the loop's
	// a function of the host's
}

// pinger sends a keep-alive when nothing was written for a while, and gives up a peer
// that is silent for longer.
type pinger struct {
	weir.NopProtocol
	t weir.Transport
}

func (p *pinger) ConnectionMade(t weir.Transport) {
	p.t = t
	idle, ok := weir.As[weir.IdleTimer](t)
	if !ok {
		panic("not a transport of a loop's")
	}
	_ = idle.SetIdleTimeout(weir.DirectionWrite, 20*time.Millisecond)
	_ = idle.SetIdleTimeout(weir.DirectionRead, 50*time.Millisecond)
}

func (p *pinger) ConnectionIdle(d weir.Direction) {
	if d == weir.DirectionWrite {
		fmt.Fprintln(p.t, "alive")
		return
	}
	fmt.Println("the peer is silent")
	p.t.Abort()
}

// Keep-alives and a limit for silence, by one timer.
func ExampleIdleTimer() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	pings := 0
	if _, _, err := l.SocketPair(
		func(weir.Transport) weir.Protocol { return &pinger{} },
		func(weir.Transport) weir.Protocol { return &listens{l: l, pings: &pings} },
	); err != nil {
		panic(err)
	}
	if err := l.Run(); err != nil {
		panic(err)
	}
	fmt.Println("keep-alives came:", pings > 0)
	// Output:
	// the peer is silent
	// keep-alives came: true
}

// listens counts lines and says nothing.
type listens struct {
	weir.NopProtocol
	l     *weir.Loop
	pings *int
}

func (p *listens) DataReceived(b []byte) (int, error) {
	*p.pings++
	return len(b), nil
}

func (p *listens) ConnectionLost(error) { p.l.Stop() }
