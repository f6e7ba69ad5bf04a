package netconn_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/netconn"
)

// returns runs f, which must return an error, on a goroutine of its own.
func returns(t *testing.T, what string, f func() error) error {
	t.Helper()
	over := make(chan error, 1)
	go func() { over <- f() }()
	select {
	case err := <-over:
		if err == nil {
			t.Errorf("%s: no error", what)
		}
		return err
	case <-time.After(30 * time.Second):
		t.Fatalf("%s waits for ever", what)
		return nil
	}
}

func isPanic(err error) bool { return errors.As(err, new(*weir.PanicError)) }

// TestWaitersOfPanics: whoever waits for a function that panics, or that ends its
// goroutine, is told (L6).
func TestWaitersOfPanics(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		ctx := context.Background()
		ln := on(t, l, func() (*netconn.Listener, error) { return netconn.Listen(l, "tcp", "127.0.0.1:0") })
		defer ln.Close()
		err := returns(t, "Call of a function that panics", func() error {
			_, err := netconn.Call(ctx, l, func() (int, error) { panic("on purpose") })
			return err
		})
		if !isPanic(err) {
			t.Errorf("Call: %v", err)
		}
		for what, wrap := range map[string]func(weir.Protocol) weir.Protocol{
			"panics":      func(weir.Protocol) weir.Protocol { panic("on purpose") },
			"returns nil": func(weir.Protocol) weir.Protocol { return nil },
		} {
			err := returns(t, "Dial with a Wrap that "+what, func() error {
				d := netconn.Dialer{Loop: l, Wrap: wrap}
				_, err := d.DialContext(ctx, "tcp", ln.Addr().String())
				return err
			})
			if isPanic(err) != (what == "panics") {
				t.Errorf("Wrap that %s: %v", what, err)
			}
		}
	})
}

// TestWaitersOfGoexit: a function that ends the loop's goroutine leaves no one
// waiting, and the loop can be run again (L6).
func TestWaitersOfGoexit(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string, _ func(testing.TB) *weir.Loop) {
		for what, wait := range map[string]func(l *weir.Loop) error{
			"Call": func(l *weir.Loop) error {
				_, err := netconn.Call(context.Background(), l, func() (int, error) { runtime.Goexit(); return 0, nil })
				return err
			},
			"Dialer.Wrap": func(l *weir.Loop) error {
				d := netconn.Dialer{Loop: l, Wrap: func(weir.Protocol) weir.Protocol { runtime.Goexit(); return nil }}
				_, err := d.DialContext(context.Background(), "tcp", "127.0.0.1:1")
				return err
			},
		} {
			l, err := weir.NewLoop(weir.WithBackendName(backend))
			if err != nil {
				t.Skip(err)
			}
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_ = l.Run()
			}()
			if err := returns(t, what, func() error { return wait(l) }); !errors.Is(err, weir.ErrGoexit) {
				t.Errorf("%s: %v", what, err)
			}
			<-gone
			if _, err := l.Post(l.Stop); err != nil {
				t.Error(err)
			}
			if err := l.Run(); err != nil {
				t.Errorf("%s: running again: %v", what, err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestWaitersOfClosedLoop: whoever waits for a call that the loop has not reached when
// it is closed is told, and the loop reports nothing as dropped (L6).
func TestWaitersOfClosedLoop(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string, _ func(testing.TB) *weir.Loop) {
		var reported []error
		l, err := weir.NewLoop(weir.WithBackendName(backend), weir.WithErrorHandler(func(err error) { reported = append(reported, err) }))
		if err != nil {
			t.Skip(err)
		}
		ctx := context.Background()
		c := netconn.New(l)
		ln, err := netconn.Listen(l, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		plain, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		waits := map[string]func() error{
			"Call": func() error {
				_, err := netconn.Call(ctx, l, func() (int, error) { return 1, nil })
				return err
			},
			"Dial": func() error {
				_, err := netconn.Dial(ctx, l, "tcp", plain.Addr().String())
				return err
			},
			"Made":   func() error { return c.Made(ctx) },
			"Read":   func() error { _, err := c.Read(make([]byte, 1)); return err },
			"Write":  func() error { _, err := c.Write(make([]byte, 1<<20)); return err },
			"Accept": func() error { _, err := ln.Accept(); return err },
		}
		errs := map[string]chan error{}
		for what, f := range waits {
			over := make(chan error, 1)
			errs[what] = over
			go func() { over <- f() }()
		}
		if err := l.Turn(0); err != nil { // some are begun
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		for what, over := range errs {
			var err error
			select {
			case err = <-over:
			case <-time.After(30 * time.Second):
				t.Fatalf("%s waits for ever", what)
			}
			if err == nil && (what == "Call" || what == "Dial") {
				continue // the turn was in time for it
			}
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if len(reported) > 0 {
			t.Errorf("reported: %v", reported)
		}
	})
}

// TestDialInHandshakeOfClosedLoop: the end of the loop is reported through a layer that
// has not agreed with its peer (L6).
func TestDialInHandshakeOfClosedLoop(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string, _ func(testing.TB) *weir.Loop) {
		var reported []error
		l, err := weir.NewLoop(weir.WithBackendName(backend), weir.WithErrorHandler(func(err error) { reported = append(reported, err) }))
		if err != nil {
			t.Skip(err)
		}
		plain, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		go func() {
			c, err := plain.Accept() // it stays silent
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Read(make([]byte, 1))
			l.Stop()
			_, _ = c.Read(make([]byte, 1<<10))
		}()
		over := make(chan error, 1)
		go func() {
			d := netconn.Dialer{Loop: l, Wrap: func(top weir.Protocol) weir.Protocol {
				return layer.Client(top, proxy.Connect("example.com:80"))
			}}
			_, err := d.DialContext(context.Background(), "tcp", plain.Addr().String())
			over <- err
		}()
		if err := l.Run(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		returns(t, "Dial", func() error { return <-over })
		if len(reported) > 0 {
			t.Errorf("reported: %v", reported)
		}
	})
}

// TestAcceptAfterShutdown: connections accepted before the loop's graceful end are
// handed out, and then Accept fails (L6).
func TestAcceptAfterShutdown(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string, _ func(testing.TB) *weir.Loop) {
		l, err := weir.NewLoop(weir.WithBackendName(backend))
		if err != nil {
			t.Skip(err)
		}
		ln, err := netconn.Listen(l, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		peer, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		for l.Connections() == 0 { // its backend may accept on another goroutine
			if err := l.Turn(time.Second); err != nil {
				t.Fatal(err)
			}
		}
		l.Shutdown(30 * time.Second)
		ran := make(chan error, 1)
		go func() { ran <- l.Run() }()
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := returns(t, "Accept", func() error { _, err := ln.Accept(); return err }); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		_ = c.Close()
		_ = peer.Close()
		if err := errors.Join(<-ran, l.Close()); err != nil {
			t.Error(err)
		}
	})
}
