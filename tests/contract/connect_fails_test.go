package contract

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/proxy"
)

// unhearing is a protocol that is not a ConnectFailer.
type unhearing struct{ told }

// closedPort is an address that refuses: tcpmux has disappeared everywhere, and the
// system hands out no port so low.
const closedPort = "127.0.0.1:1"

// failer is a ConnectFailer of a function.
type failer struct {
	told
	failed func(*weir.ConnectError)
}

func (f *failer) ConnectFailed(err *weir.ConnectError) { f.failed(err) }

// TestConnectNeverSilent: a connect or handshake that fails is reported to the
// protocol, or else to the error handler: once, whatever is in between (L8).
func TestConnectNeverSilent(t *testing.T) {
	refused := closedPort
	ended, err := net.Listen("tcp", "127.0.0.1:0") // accepts and closes
	if err != nil {
		t.Fatal(err)
	}
	defer ended.Close()
	go func() {
		for {
			c, err := ended.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	tunnel := func(p weir.Protocol) weir.Protocol { return layer.Client(p, proxy.Connect("example.com:80")) }
	connect := func(addr string, p weir.Protocol) func(*weir.Loop) {
		return func(l *weir.Loop) { l.Connect("tcp", addr, p) }
	}
	line := func([]byte) error { return nil }
	for name, begin := range map[string]func(*weir.Loop){
		"refused":              connect(refused, &unhearing{}),
		"no such network":      func(l *weir.Loop) { l.Connect("ipx", refused, &unhearing{}) },
		"nil protocol":         connect(refused, nil),
		"behind a layer":       connect(refused, tunnel(&unhearing{})),
		"handshake":            connect(ended.Addr().String(), tunnel(&unhearing{})),
		"frames":               connect(refused, frame.Lines(line)),
		"frames above a layer": connect(ended.Addr().String(), tunnel(frame.Lines(line))),
		"redial": func(l *weir.Loop) {
			l.Redial("tcp", refused, weir.Backoff{}, func(*weir.Redialer) weir.Protocol { return &unhearing{} })
		},
		"redial of a handshake": func(l *weir.Loop) {
			l.Redial("tcp", ended.Addr().String(), weir.Backoff{}, func(*weir.Redialer) weir.Protocol { return tunnel(&unhearing{}) })
		},
		"upgrade": func(l *weir.Loop) { // a layer that is put on an open connection
			l.Connect("tcp", ended.Addr().String(), &told{made: func(t weir.Transport) {
				p := tunnel(&unhearing{})
				t.SetProtocol(p)
				p.ConnectionMade(t)
			}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var reported []error
			var l *weir.Loop
			l, err := weir.NewLoop(weir.WithErrorHandler(func(err error) {
				reported = append(reported, err)
				l.Stop()
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			begin(l)
			bound := l.After(patience, l.Stop)
			if err := l.Run(); err != nil {
				t.Fatal(err)
			}
			bound.Stop()
			if len(reported) != 1 || !errors.As(reported[0], new(*weir.ConnectError)) {
				t.Errorf("the error handler got %v", reported)
			}
		})
	}
	for name, make := range map[string]func(f func(*weir.ConnectError)) weir.Protocol{
		"ConnectFailer":   func(f func(*weir.ConnectError)) weir.Protocol { return &failer{failed: f} },
		"above a layer":   func(f func(*weir.ConnectError)) weir.Protocol { return tunnel(&failer{failed: f}) },
		"frame.OnFailed":  func(f func(*weir.ConnectError)) weir.Protocol { return frame.Lines(line, frame.OnFailed(f)) },
		"frames, layered": func(f func(*weir.ConnectError)) weir.Protocol { return tunnel(frame.Lines(line, frame.OnFailed(f))) },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { t.Errorf("reported too: %v", err) }))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			failed := 0
			for _, addr := range []string{refused, ended.Addr().String()} {
				l.Connect("tcp", addr, make(func(*weir.ConnectError) { failed++; l.Stop() }))
				bound := l.After(patience, l.Stop)
				if err := l.Run(); err != nil {
					t.Fatal(err)
				}
				bound.Stop()
				if _, layered := make(nil).(weir.Handshaker); !layered {
					break // the other connection is made
				}
			}
			if failed == 0 {
				t.Error("ConnectFailed was not called")
			}
		})
	}
}

// TestConnectDuringClose: asking again in ConnectFailed while the loop is closed
// ends at once, and a protocol that asks elsewhere is told (L15).
func TestConnectDuringClose(t *testing.T) {
	onEachBackend(t, func(t *testing.T, l *weir.Loop) {
		calls, late := 0, 0
		again := &failer{}
		again.failed = func(err *weir.ConnectError) {
			if !errors.Is(err, weir.ErrLoopClosed) {
				t.Errorf("failed with %v", err)
			}
			calls++
			l.Connect("tcp", "127.0.0.1:1", again)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		up := &lostFunc{lost: func() {
			l.Connect("tcp", ln.Addr().String(), &failer{failed: func(*weir.ConnectError) { late++ }})
		}, made: l.Stop}
		l.Connect("tcp", ln.Addr().String(), up)
		if err := l.Run(); err != nil {
			t.Fatal(err)
		}
		l.Connect("tcp", "127.0.0.1:1", again)
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if calls != 1 || late != 1 {
			t.Errorf("ConnectFailed was called %d times; of a connect in ConnectionLost %d times; want 1 each", calls, late)
		}
		l.Connect("tcp", "127.0.0.1:1", again) // on the closed loop
		if calls != 2 {
			t.Errorf("on a closed loop ConnectFailed was called %d times", calls-1)
		}
	})
}

// lostFunc is a protocol of two functions.
type lostFunc struct {
	weir.NopProtocol
	made, lost func()
}

func (p *lostFunc) ConnectionMade(weir.Transport) { p.made() }
func (p *lostFunc) ConnectionLost(error)          { p.lost() }

// TestRedialDuringClose: Again in ConnectFailed during Close has no effect.
func TestRedialDuringClose(t *testing.T) {
	l := newLoop(t)
	calls := 0
	l.Redial("tcp", "127.0.0.1:1", weir.Backoff{}, func(r *weir.Redialer) weir.Protocol {
		return &failer{failed: func(*weir.ConnectError) {
			calls++
			if _, ok := r.Again(); ok {
				t.Error("there is another attempt")
			}
		}}
	})
	if err := l.Close(); err != nil || calls != 1 {
		t.Errorf("Close: %v after %d calls", err, calls)
	}
}

// panics is a resolver that panics.
type panics struct{}

func (panics) LookupNetIP(*weir.Loop, string, string, func([]netip.Addr, error)) func() {
	panic("on purpose")
}

// TestConnectPanics: a connect whose resolver or filter panics fails (L6).
func TestConnectPanics(t *testing.T) {
	filter := weir.WithAddrFilter(func(netip.AddrPort) error { panic("on purpose") })
	for name, c := range map[string]struct {
		address string
		opts    []weir.ConnectOption
	}{
		"resolver": {"name.example:1", nil},
		"filter":   {"127.0.0.1:1", []weir.ConnectOption{filter}},
	} {
		l, err := weir.NewLoop(weir.WithResolver(panics{}))
		if err != nil {
			t.Fatal(err)
		}
		var failed error
		l.Connect("tcp", c.address, &failer{failed: func(err *weir.ConnectError) { failed = err; l.Stop() }}, c.opts...)
		bound := l.After(patience, l.Stop)
		if err := l.Run(); err != nil {
			t.Fatal(err)
		}
		bound.Stop()
		if !errors.As(failed, new(*weir.PanicError)) {
			t.Errorf("%s: failed with %v", name, failed)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestGoexitKeepsTheRest: a callback that ends the loop's goroutine loses nothing
// that was queued or had happened (L6).
func TestGoexitKeepsTheRest(t *testing.T) {
	onEachBackend(t, func(t *testing.T, l *weir.Loop) {
		var ran []string
		const conns = 8
		got := 0
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			return weir.DataFunc(func(p []byte) (int, error) {
				if got += len(p); got == conns {
					l.Stop()
				}
				if got == 1 {
					runtime.Goexit()
				}
				return len(p), nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		l.Soon(func() { ran = append(ran, "first"); runtime.Goexit() })
		l.Soon(func() { ran = append(ran, "second") })
		once := func(f func() error) {
			over := make(chan struct{})
			go func() {
				defer close(over)
				if err := f(); err != nil {
					t.Error(err)
				}
			}()
			<-over
		}
		once(func() error { return l.Turn(0) })
		once(func() error { return l.Turn(0) })
		if fmt.Sprint(ran) != "[first second]" {
			t.Errorf("ran %v", ran)
		}
		for range conns {
			if _, err := dialTo(t, ln.Addr()).Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		once(l.Run)
		bound := l.After(patience, l.Stop)
		for got < conns && bound.Running() {
			once(l.Run)
		}
		if got != conns {
			t.Errorf("%d of %d connections were heard", got, conns)
		}
	})
}
