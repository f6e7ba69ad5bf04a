package contract

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// onEachBackend runs f on a loop of each backend.
func onEachBackend(t *testing.T, f func(t *testing.T, l *weir.Loop)) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithBackendName(name))
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			f(t, l)
		})
	}
}

// told is a protocol of functions that notes its end.
type told struct {
	t    weir.Transport
	made func(weir.Transport)
	data func([]byte) (int, error)
	lost []error
}

func (p *told) ConnectionMade(t weir.Transport) {
	if p.t = t; p.made != nil {
		p.made(t)
	}
}

func (p *told) DataReceived(b []byte) (int, error) {
	if p.data != nil {
		return p.data(b)
	}
	return len(b), nil
}

func (p *told) ConnectionLost(err error) { p.lost = append(p.lost, err) }

// readAll reads c to its end after begin is closed, and reports how that went.
func readAll(c net.Conn, begin <-chan struct{}) <-chan error {
	res := make(chan error, 1)
	go func() {
		<-begin
		defer c.Close()
		n, err := io.Copy(io.Discard, c)
		if err == nil && n != backlogSize {
			err = io.ErrUnexpectedEOF
		}
		res <- err
	}()
	return res
}

const backlogSize = 8 << 20

func dialTo(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(addr.Network(), addr.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestCloseFlushes: what was written before the loop's Close reaches the peer,
// with and without a Transport.Close (L2, R78).
func TestCloseFlushes(t *testing.T) {
	onEachBackend(t, func(t *testing.T, l *weir.Loop) {
		for _, closed := range []bool{true, false} {
			l := l
			if !closed {
				var err error
				if l, err = weir.NewLoop(weir.WithBackendName(l.Backend().Name)); err != nil {
					t.Fatal(err)
				}
			}
			begin := make(chan struct{})
			p := &told{made: func(tr weir.Transport) {
				_, _ = tr.Write(make([]byte, backlogSize))
				if closed {
					_ = tr.Close()
				}
				l.Stop()
			}}
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return p })
			if err != nil {
				t.Fatal(err)
			}
			got := readAll(dialTo(t, ln.Addr()), begin)
			if err := l.Run(); err != nil {
				t.Fatal(err)
			}
			close(begin)
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if err := <-got; err != nil {
				t.Errorf("closed %v: %v", closed, err)
			}
			if want := map[bool]error{true: nil, false: weir.ErrLoopClosed}[closed]; len(p.lost) != 1 || p.lost[0] != want { //nolint:errorlint // the very one
				t.Errorf("closed %v: ConnectionLost %v, want %v", closed, p.lost, want)
			}
		}
	})
}

// TestCloseSaysWhatItCut: the loop waits within the bound for a peer that does
// not read, and then counts and resets it (L2).
func TestCloseSaysWhatItCut(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithFlushTime(time.Millisecond))
			if err != nil {
				t.Skip(err)
			}
			p := &told{made: func(tr weir.Transport) { _, _ = tr.Write(make([]byte, 32<<20)); l.Stop() }}
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return p })
			if err != nil {
				t.Fatal(err)
			}
			c := dialTo(t, ln.Addr())
			if err := l.Run(); err != nil {
				t.Fatal(err)
			}
			err = l.Close()
			var cut *weir.CutError
			if !errors.As(err, &cut) || cut.Connections != 1 || cut.Bytes == 0 || !errors.Is(err, weir.ErrLoopClosed) {
				t.Errorf("Close: %v", err)
			}
			if n, err := io.Copy(io.Discard, c); err == nil {
				t.Errorf("the peer read %d bytes and then an end as if all had come", n)
			}
		})
	}
}

// TestShutdown: a loop that is shut down accepts the connections in the queue
// and serves all connections until they end; then Run returns (R78).
func TestShutdown(t *testing.T) {
	onEachBackend(t, func(t *testing.T, l *weir.Loop) {
		var made []*told
		f := func(weir.Transport) weir.Protocol {
			p := &told{}
			p.data = func(b []byte) (int, error) {
				if bytes.Equal(b, []byte("?")) {
					_, _ = p.t.Write([]byte("!"))
					_ = p.t.Close()
				}
				return len(b), nil
			}
			made = append(made, p)
			return p
		}
		ln, err := l.Listen("tcp", "127.0.0.1:0", f)
		if err != nil {
			t.Fatal(err)
		}
		const conns = 300 // more than one turn takes
		var clients []net.Conn
		for range conns {
			clients = append(clients, dialTo(t, ln.Addr()))
		}
		ended := l.Shutdown(patience)
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				_, _ = c.Write([]byte("?"))
				if b, err := io.ReadAll(c); string(b) != "!" || err != nil {
					t.Errorf("client: %q, %v", b, err)
				}
				c.Close()
			})
		}
		if err := l.Run(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
		default:
			t.Error("Run has returned and the channel is open")
		}
		wg.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if len(made) != conns {
			t.Errorf("%d connections were accepted of %d that were made", len(made), conns)
		}
		if _, err := net.DialTimeout("tcp", ln.Addr().String(), patience); err == nil {
			t.Error("it listens still")
		}
	})
}

// TestShutdownCuts: at the deadline the remaining connections are cut and counted (R78).
func TestShutdownCuts(t *testing.T) {
	onEachBackend(t, func(t *testing.T, l *weir.Loop) {
		p := &told{made: func(weir.Transport) { l.Shutdown(time.Hour); l.Shutdown(time.Millisecond) }}
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return p })
		if err != nil {
			t.Fatal(err)
		}
		dialTo(t, ln.Addr())
		if err := l.Run(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return nil }); !errors.Is(err, weir.ErrLoopClosed) {
			t.Errorf("Listen on a loop that ends: %v", err)
		}
		err = l.Close()
		var cut *weir.CutError
		if !errors.As(err, &cut) || *cut != (weir.CutError{}) && (cut.Connections != 1 || cut.Bytes != 0) {
			t.Errorf("Close: %v", err)
		}
		if len(p.lost) != 1 || !errors.Is(p.lost[0], weir.ErrLoopClosed) {
			t.Errorf("lost %v", p.lost)
		}
	})
}

// TestShutdownHosted: a host that calls Turn learns of the end from the channel.
func TestShutdownHosted(t *testing.T) {
	l := newLoop(t)
	ended := l.Shutdown(0)
	for open := true; open; {
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
			open = false
		default:
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-l.Shutdown(time.Hour) // a closed loop has ended
}

// TestShutdownSim: in the simulator, with short writes and late results, the
// whole of a long answer arrives at a slow reader before Run returns.
func TestShutdownSim(t *testing.T) {
	for seed := range uint64(40) {
		s := weirtest.NewSim(t, seed+1, weirtest.WithFaults(weirtest.Faults{CutWrite: 0.3, CutWire: 0.3, LateCancel: 0.3, NoInline: seed%2 == 0}))
		server, client := s.Host("server"), s.Host("client")
		const size = 200_000
		p := &told{made: func(tr weir.Transport) {
			_, _ = tr.Write(make([]byte, size))
			_ = tr.Close()
			server.Loop().Shutdown(time.Minute)
		}}
		if _, err := server.Loop().Listen("tcp", server.Addr(1), func(weir.Transport) weir.Protocol { return p }); err != nil {
			t.Fatal(err)
		}
		n := 0
		c := &told{data: func(b []byte) (int, error) { n += len(b); return len(b), nil }}
		client.Loop().Connect("tcp", server.Addr(1), c)
		ended := server.Loop().Shutdown
		s.Until("the client has all", func() bool { return len(c.lost) == 1 })
		if n != size || c.lost[0] != nil {
			t.Errorf("seed %d: %d bytes of %d, %v", seed+1, n, size, c.lost)
		}
		over := ended(time.Minute)
		s.Until("the server's loop ended", func() bool {
			select {
			case <-over:
				return true
			default:
				return false
			}
		})
	}
}

// TestListenerShutdown: a listener's connections continue until its deadline,
// are listed, and those that remain are aborted and counted.
func TestListenerShutdown(t *testing.T) {
	onEachBackend(t, func(t *testing.T, l *weir.Loop) {
		var served []*told
		var ln *weir.Listener
		var cut error
		listed := 0
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			p := &told{}
			if served = append(served, p); len(served) == 2 {
				ln.Shutdown(time.Millisecond, func(err error) { cut = err; l.Stop() })
				ln.Each(func(weir.Transport) { listed++ })
			}
			return p
		})
		if err != nil {
			t.Fatal(err)
		}
		a, b := dialTo(t, ln.Addr()), dialTo(t, ln.Addr())
		if err := l.Run(); err != nil {
			t.Fatal(err)
		}
		var c *weir.CutError
		if !errors.As(cut, &c) || c.Connections != 2 || !errors.Is(cut, weir.ErrAborted) {
			t.Errorf("done with %v", cut)
		}
		if listed != 2 || ln.Conns() != 0 {
			t.Errorf("%d were listed, %d are left", listed, ln.Conns())
		}
		for _, c := range []net.Conn{a, b} {
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("an aborted connection ends with %v", err)
			}
		}
	})
}

// TestListenerAbort: Abort ends every connection, and OnDone follows.
func TestListenerAbort(t *testing.T) {
	onEachBackend(t, func(t *testing.T, l *weir.Loop) {
		p := &told{}
		var ln *weir.Listener
		p.made = func(weir.Transport) { ln.Abort(); ln.OnDone(l.Stop) }
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return p })
		if err != nil {
			t.Fatal(err)
		}
		dialTo(t, ln.Addr())
		if err := l.Run(); err != nil {
			t.Fatal(err)
		}
		if len(p.lost) != 1 || !errors.Is(p.lost[0], weir.ErrAborted) {
			t.Errorf("lost %v", p.lost)
		}
	})
}

// TestListenNoFactory: a nil factory is refused where it is passed.
func TestListenNoFactory(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	if _, err := l.Listen("tcp", "127.0.0.1:0", nil); err == nil {
		t.Error("Listen took a nil factory")
	}
}

// TestGroupShutdown: connections on every loop of a group end, and then Run
// returns; those that do not are counted in one error.
func TestGroupShutdown(t *testing.T) {
	for _, cuts := range []bool{false, true} {
		g, err := weir.NewGroup(3)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := g.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
			return weir.DataFunc(func(p []byte) (int, error) {
				_, _ = t.Write(p)
				if !cuts {
					_ = t.Close()
				}
				return len(p), nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		ran := make(chan error, 1)
		var wg sync.WaitGroup
		var clients []net.Conn
		for range 9 {
			clients = append(clients, dialTo(t, ln.Addr()))
		}
		if cuts {
			go func() { ran <- g.Run() }()
			for _, c := range clients {
				_, _ = c.Write([]byte("x"))
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Error(err)
				}
			}
			g.Shutdown(time.Millisecond)
		} else {
			g.Shutdown(patience)
			go func() { ran <- g.Run() }()
			for _, c := range clients {
				wg.Go(func() {
					_, _ = c.Write([]byte("x"))
					if b, err := io.ReadAll(c); string(b) != "x" || err != nil {
						t.Errorf("client: %q, %v", b, err)
					}
				})
			}
			wg.Wait()
			for _, c := range clients {
				c.Close()
			}
		}
		if err := <-ran; err != nil {
			t.Error(err)
		}
		err = g.Close()
		var cut *weir.CutError
		if cuts && (!errors.As(err, &cut) || cut.Connections != 9) || !cuts && err != nil {
			t.Errorf("cuts %v: Close: %v", cuts, err)
		}
	}
}
