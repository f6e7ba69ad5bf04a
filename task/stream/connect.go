package stream

import (
	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
)

// Factory makes a weir.Factory that serves each connection with a task of its own in
// sc, named by the peer's address. When serve returns nil the connection is closed,
// after what was written; when it fails, it is aborted, and the scope gets the failure:
// give sc the option task.Independent if one connection's failure must not affect the
// others.
func Factory(sc *task.Scope, serve func(t *task.Task, c *Stream) error) weir.Factory {
	return func(weir.Transport) weir.Protocol {
		c := New(sc.Scheduler())
		c.made = func(c *Stream) {
			name := c.t.RemoteAddr().String()
			if name == "" {
				name = "connection"
			}
			served := sc.Go(name, func(t *task.Task) (err error) {
				whole := false
				defer func() { // also after a panic
					if whole && err == nil {
						_ = c.Close()
					} else {
						c.Abort()
					}
				}()
				err = serve(t, c)
				whole = true
				return err
			})
			if ended, _ := served.Ended(); ended { // the scope had already ended
				c.Abort()
			}
		}
		return c
	}
}

// Dial connects, as weir.Loop.Connect does, and waits for the connection. A
// failure is a *weir.ConnectError. If the wait is cut short the connect is
// stopped.
func Dial(t *task.Task, l *weir.Loop, network, address string, opts ...weir.ConnectOption) (*Stream, error) {
	return DialThrough(t, l, network, address, func(p weir.Protocol) weir.Protocol { return p }, opts...)
}

// DialThrough is Dial through layers: the protocol that below makes of the Stream is
// connected. It must pass ConnectFailed on.
func DialThrough(t *task.Task, l *weir.Loop, network, address string, below func(weir.Protocol) weir.Protocol, opts ...weir.ConnectOption) (*Stream, error) {
	if t.Scope().Canceled() {
		return nil, t.Yield()
	}
	f, p := future.New[*Stream](t.Scheduler())
	c := New(t.Scheduler())
	c.made = func(c *Stream) {
		if !p.Resolve(c) {
			c.Abort()
		}
	}
	c.fail = func(err *weir.ConnectError) { p.Reject(err) }
	connector := l.Connect(network, address, below(c), opts...)
	p.OnCancel(func() {
		connector.Stop()
		p.Reject(future.ErrCanceled)
	})
	return task.Await(t, f)
}
