package contract

import (
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// onRealLoops runs a test on each backend of this machine.
func onRealLoops(t *testing.T, f func(t *testing.T, l *weir.Loop)) {
	t.Helper()
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			skipRefused(t, name)
			// A loop that is turned from one thread after another must move.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			l := newLoop(t, weir.WithBackendName(name), weir.WithLogger(discard()))
			defer l.Close()
			f(t, l)
		})
	}
}

// dial makes n connections from outside of the loop.
func dial(t *testing.T, addr net.Addr, n int) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range n {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		all = append(all, c)
	}
	return all
}

func TestServer(t *testing.T) {
	quiet := func(weir.Transport) weir.Protocol { return &lastWords{lost: func(error) {}} }
	t.Run("71 no protocol is made after Close", func(t *testing.T) {
		onRealLoops(t, func(t *testing.T, l *weir.Loop) {
			made := 0
			var ln *weir.Listener
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
				if made++; made == 3 {
					_ = ln.Close()
				}
				return quiet(t)
			})
			if err != nil {
				t.Fatal(err)
			}
			conns := dial(t, ln.Addr(), 10) // all wait to be accepted
			turns(t, l, "three", func() bool { return made >= 3 })
			for range 10 {
				if err := l.Turn(time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			if made != 3 || ln.Conns() != 3 {
				t.Errorf("%d protocols made, %d connections", made, ln.Conns())
			}
			for i, c := range conns[3:] { // and none is left hanging
				if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("connection %d, which no one serves: %v", 3+i, err)
				}
			}
		})
	})
	t.Run("72 waiting for a server", func(t *testing.T) {
		onRealLoops(t, func(t *testing.T, l *weir.Loop) {
			for _, closeFirst := range []bool{true, false} {
				ln, err := l.Listen("tcp", "127.0.0.1:0", quiet)
				if err != nil {
					t.Fatal(err)
				}
				done := 0
				ln.OnDone(func() { done++ })
				conns := dial(t, ln.Addr(), 2)
				turns(t, l, "two connections", func() bool { return ln.Conns() == 2 })
				hangUp := func() {
					for _, c := range conns {
						c.Close()
					}
					turns(t, l, "none left", func() bool { return ln.Conns() == 0 })
				}
				if closeFirst {
					_ = ln.Close()
				} else {
					hangUp()
				}
				for range 5 {
					if err := l.Turn(time.Millisecond); err != nil {
						t.Fatal(err)
					}
				}
				if done != 0 {
					t.Error("done too early")
				}
				if closeFirst {
					hangUp()
				} else {
					_ = ln.Close()
				}
				turns(t, l, "the end", func() bool { return done > 0 })
				ln.OnDone(func() { done++ })
				turns(t, l, "the end again", func() bool { return done > 1 })
				if done != 2 {
					t.Errorf("done %d times", done)
				}
			}
		})
	})
	t.Run("74 a refused connection leaks nothing", func(t *testing.T) {
		onRealLoops(t, func(t *testing.T, l *weir.Loop) {
			refused := 0
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { refused++; return nil })
			if err != nil {
				t.Fatal(err)
			}
			var before *weirtest.Snapshot
			for i := range 20 {
				if i == 1 { // whatever a backend creates once exists now
					before = weirtest.TakeSnapshot()
				}
				conns := dial(t, ln.Addr(), 10)
				turns(t, l, "refusals", func() bool { return refused == 10*(i+1) })
				for _, c := range conns {
					if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
						t.Fatal(err)
					}
					if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatalf("Read: %d, %v", n, err)
					}
					c.Close()
				}
			}
			turns(t, l, "none left", func() bool { return ln.Conns() == 0 && l.Connections() == 0 })
			var left []string
			defer func() {
				if t.Failed() {
					t.Log(left)
				}
			}()
			turns(t, l, "no descriptor left", func() bool { left = before.Leaks(0); return len(left) == 0 })
		})
	})
	t.Run("75 a burst is accepted in bites", func(t *testing.T) {
		onRealLoops(t, func(t *testing.T, l *weir.Loop) {
			const burst = 600
			made := 0
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { made++; return quiet(t) })
			if err != nil {
				t.Fatal(err)
			}
			dial(t, ln.Addr(), burst)
			most, last := 0, 0
			var watch func()
			watch = func() {
				most = max(most, made-last)
				last = made
				if made < burst {
					l.Soon(watch)
				}
			}
			watch()
			turns(t, l, "the burst", func() bool { return made == burst && last == burst })
			if most > 256 {
				t.Errorf("%d connections accepted in one turn", most)
			}
		})
	})
}

// TestAcceptShortage is behaviour 73, on the simulator, which can produce a
// shortage.
func TestAcceptShortage(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		t.Run("73 "+errno.Error(), func(t *testing.T) {
			s := weirtest.NewSim(t, 1)
			server, client := s.Host("server"), s.Host("client")
			made := 0
			ln, err := server.Loop().Listen("tcp", ":7000", func(weir.Transport) weir.Protocol {
				made++
				return &lastWords{lost: func(error) {}}
			})
			if err != nil {
				t.Fatal(err)
			}
			// While the shortage lasts every accept fails.
			short := true
			fail := func() {
				if short {
					server.Fail(weirtest.AcceptCall, 1, errno)
				}
			}
			calls := s.Calls(weirtest.AcceptCall)
			fail()
			s.OnStep(func() {
				if now := s.Calls(weirtest.AcceptCall); now != calls {
					calls = now
					fail()
				}
			})
			client.Loop().Connect("tcp", "server:7000", &lastWords{lost: func(error) {}})
			tries := calls
			if err := s.RunFor(25 * time.Second); err != nil {
				t.Fatal(err)
			}
			if made != 0 {
				t.Fatal("accepted in spite of the shortage")
			}
			if n := calls - tries; n < 10 || n > 1000 {
				t.Errorf("%d tries in 25 s (G9: no spin, but recovery within a second)", n)
			}
			reports := 0
			for _, err := range s.Failures {
				var a *weir.AcceptError
				if errors.As(err, &a) && errors.Is(err, errno) {
					reports++
				}
			}
			if reports < 1 || reports > 4 {
				t.Errorf("reported %d times in 25 s: %v", reports, s.Failures)
			}
			short = false
			if err := s.RunFor(time.Second); err != nil {
				t.Fatal(err)
			}
			if made != 1 {
				t.Errorf("not recovered a second after the shortage: %d made", made)
			}
			_ = ln.Close()
		})
	}
	for _, errno := range []syscall.Errno{syscall.ECONNABORTED, syscall.EPERM, syscall.EPROTO} {
		t.Run("73 "+errno.Error()+" concerns one connection", func(t *testing.T) {
			s := weirtest.NewSim(t, 1)
			server, client := s.Host("server"), s.Host("client")
			made := 0
			if _, err := server.Loop().Listen("tcp", ":7000", func(weir.Transport) weir.Protocol {
				made++
				return &lastWords{lost: func(error) {}}
			}); err != nil {
				t.Fatal(err)
			}
			server.Fail(weirtest.AcceptCall, 1, errno)
			client.Loop().Connect("tcp", "server:7000", &lastWords{lost: func(error) {}})
			s.Until("the connection", func() bool { return made == 1 })
			if s.Now() > 50*time.Millisecond {
				t.Errorf("it took %v: the listener backed off from what concerns one connection", s.Now())
			}
			if len(s.Failures) != 0 {
				t.Errorf("reported: %v", s.Failures)
			}
		})
	}
}
