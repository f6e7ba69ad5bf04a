package netconn

import (
	"context"
	"errors"
	"net"
	"runtime/debug"

	"github.com/weir-io/weir"
)

// Call runs f on l's goroutine and waits for its result, or for ctx to end; an f that
// has begun by then goes on. It must not be called on the loop's goroutine. If the loop
// is closed before f has run the error is weir.ErrLoopClosed; if f panics, a
// *weir.PanicError, which only the caller gets; if f calls runtime.Goexit,
// weir.ErrGoexit.
func Call[T any](ctx context.Context, l *weir.Loop, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	if err := l.MayWait("netconn.Call"); err != nil {
		var none T
		return none, err
	}
	done := make(chan result, 1)
	call, err := l.PostOr(func() {
		r := result{err: weir.ErrGoexit}
		defer func() {
			if v := recover(); v != nil {
				r.err = &weir.PanicError{Where: "a function of netconn.Call", Value: v, Stack: debug.Stack()}
				if ctx.Err() != nil {
					l.Report(r.err) // no one waits for it
				}
			}
			done <- r
		}()
		r.value, r.err = f()
	}, func() { done <- result{err: weir.ErrLoopClosed} })
	if err != nil {
		var none T
		return none, err
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		call.Cancel()
		var none T
		return none, context.Cause(ctx)
	}
}

// Dial is Loop.Connect with a Conn for the connection, from any goroutine but the
// loop's. If ctx ends first the connect is stopped. Errors are *net.OpError, wrapping a
// *weir.ConnectError or ctx's error.
func Dial(ctx context.Context, l *weir.Loop, network, address string, opts ...weir.ConnectOption) (net.Conn, error) {
	return (&Dialer{Loop: l, Options: opts}).DialContext(ctx, network, address)
}

// Dialer makes connections repeatedly, in the same way. Its DialContext fits wherever a
// library takes one, such as http.Transport. The fields must not be changed once it is
// used.
type Dialer struct {
	Loop    *weir.Loop
	Options []weir.ConnectOption // for Loop.Connect
	// Wrap, if set, puts layers between the socket and the Conn: top is the Conn's
	// protocol, and the protocol that Wrap returns is connected. It runs on the loop's
	// goroutine. If it panics or returns nil the dial fails.
	Wrap func(top weir.Protocol) weir.Protocol

	pools pools
}

// DialContext is Dial.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: target{network, address}, Err: err}
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, network, address string) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := d.Loop.MayWait("netconn.Dial"); err != nil {
		return nil, err
	}
	c := newConn(d.Loop, &d.pools)
	var connecting *weir.Connector
	_, err := d.Loop.PostOr(func() {
		err := weir.ErrGoexit
		defer func() {
			if v := recover(); v != nil {
				err = &weir.PanicError{Where: "Dialer.Wrap", Value: v, Stack: debug.Stack()}
			}
			if err != nil {
				(*loopSide)(c).never(err)
			}
		}()
		p := c.Protocol()
		if d.Wrap != nil {
			p = d.Wrap(p)
		}
		if p == nil {
			err = errNilWrap
			return
		}
		connecting = d.Loop.Connect(network, address, p, d.Options...)
		err = nil
	}, func() { (*loopSide)(c).never(weir.ErrLoopClosed) })
	if err != nil {
		return nil, err
	}
	err = c.Made(ctx)
	if err == nil {
		return c, nil
	}
	// Whatever comes of the connect, its result is no longer wanted. This post comes
	// after the one that began it; a closed loop has already ended it.
	c.Abort()
	stop := func() {
		if connecting != nil {
			connecting.Stop()
		}
	}
	_, _ = d.Loop.PostOr(stop, func() {})
	return nil, err
}

var errNilWrap = errors.New("netconn: Dialer.Wrap returned nil")

// target is an address as the caller wrote it.
type target struct{ network, address string }

func (t target) Network() string { return t.network }
func (t target) String() string  { return t.address }
