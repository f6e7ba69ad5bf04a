package netconn

import (
	"context"
	"net"

	"github.com/weir-io/weir"
)

// Call runs f on l's goroutine and waits for its result, or for ctx to end:
// then f may still run, unless it had not begun. It must not be called on the
// loop's goroutine. If the loop is closed before f ran, only ctx ends the wait.
func Call[T any](ctx context.Context, l *weir.Loop, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	call, err := l.Post(func() {
		v, err := f()
		done <- result{v, err}
	})
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

// Dial is Loop.Connect with a Conn for the connection, from any goroutine but
// the loop's. When ctx ends first the connect is stopped. Errors are
// *net.OpError around a *weir.ConnectError or ctx's.
func Dial(ctx context.Context, l *weir.Loop, network, address string, opts ...weir.Option) (net.Conn, error) {
	return (&Dialer{Loop: l, Options: opts}).DialContext(ctx, network, address)
}

// Dialer connects again and again in the same way. Its DialContext fits
// wherever a library takes one, such as http.Transport. The fields must not be
// changed once it is used.
type Dialer struct {
	Loop    *weir.Loop
	Options []weir.Option // of Loop.Connect
	// Wrap, if set, puts layers between the socket and the Conn: top is the
	// Conn's protocol, and what it returns is connected. It runs on the loop's
	// goroutine.
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
	c := newConn(d.Loop, &d.pools)
	var connecting *weir.Connector
	_, err := d.Loop.Post(func() {
		p := c.Protocol()
		if d.Wrap != nil {
			p = d.Wrap(p)
		}
		connecting = d.Loop.Connect(network, address, p, d.Options...)
	})
	if err != nil {
		return nil, err
	}
	err = c.Made(ctx)
	if err == nil {
		return c, nil
	}
	// Whatever becomes of the connect, nobody wants it any more. The post comes
	// after the one that began it.
	c.Abort()
	_, _ = d.Loop.Post(func() { connecting.Stop() })
	return nil, err
}

// target is an address as the caller wrote it.
type target struct{ network, address string }

func (t target) Network() string { return t.network }
func (t target) String() string  { return t.address }
