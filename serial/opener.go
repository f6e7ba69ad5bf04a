package serial

import (
	"errors"
	"sync"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/internal/sys"
)

// errOpenStuck is why a device that is away is not back: the driver has not finished
// opening it.
var errOpenStuck = errors.New("the driver has not finished opening the line")

// opening is a line that was opened, and what was done with it at once, or why it could not
// be opened.
type opening struct {
	fd       int
	was      sys.SerialState
	set      sys.SerialSettings // what it was set to
	broke    time.Duration      // how long the break that has begun is to last; 0: none has
	unbroken error              // why the break of Config could not begin; nil: it has, or there is none
	lines    int                // the lines that were raised, if linesErr is nil
	linesErr error
	err      error
}

// openNow opens a line, sets it, and begins what Config begins with. It blocks for as long
// as the driver does, and may run on any goroutine.
func (c *Config) openNow(path string) *opening {
	o := &opening{fd: -1, set: *c.settings()}
	if o.fd, o.was, o.err = c.open(path, &o.set); o.err != nil {
		return o
	}
	if c.Break > 0 {
		if o.unbroken = c.setBreak(o.fd, true); o.unbroken == nil {
			o.broke = c.Break
		}
	}
	if c.LinesChanged != nil {
		o.lines, o.linesErr = c.lines(o.fd)
	}
	return o
}

// discard closes a line that no one has used. It blocks as openNow does.
func (c *Config) discard(o *opening) {
	if o.err == nil {
		c.close(o.fd, c.ending(o.was, true, o.broke > 0))
	}
}

// ending is what a line is closed with.
func (c *Config) ending(was sys.SerialState, drop, broken bool) sys.SerialEnd {
	e := sys.SerialEnd{Drop: drop, Wait: c.CloseWait, Break: broken, Exclusive: !c.Shared, Was: was}
	if c.Shared {
		e.Was = sys.SerialState{} // others have set it too
	}
	return e
}

// opener opens a line on a goroutine of its own. It is a weir.Source: the goroutine wakes
// the loop, and the end of the loop is heard of.
type opener struct {
	loop  *weir.Loop
	cfg   Config
	wake  func()
	then  func(*opening) // nil: it was called, or no one wants the line any more
	ended chan struct{}  // closed once the goroutine keeps no line open

	mu       sync.Mutex
	got      *opening
	unwanted bool
}

var _ weir.Source = (*opener)(nil)

// openLine has a goroutine open a line. then is called on the loop's goroutine with what
// came of it, or with nil when the loop ends, unless giveUp comes first. The error is the
// loop's.
func openLine(l *weir.Loop, path string, c Config, then func(*opening)) (*opener, error) {
	o := &opener{loop: l, cfg: c, then: then, ended: make(chan struct{})}
	if err := l.AddSource(o); err != nil {
		return nil, err
	}
	go func() {
		got := o.cfg.openNow(path)
		o.mu.Lock()
		o.got = got
		unwanted := o.unwanted
		o.mu.Unlock()
		if unwanted {
			o.discard(got)
			return
		}
		o.wake()
	}()
	return o, nil
}

// discard closes a line that no one wants, on a goroutine that may block.
func (o *opener) discard(got *opening) {
	o.cfg.discard(got)
	close(o.ended)
	o.wake()
}

// giveUp says that no one wants the line: it is closed once it is open.
func (o *opener) giveUp() {
	if o.then == nil {
		return // it was handed over, or given up already
	}
	o.then = nil
	o.mu.Lock()
	got := o.got
	o.unwanted = true
	o.mu.Unlock()
	if got != nil {
		go o.discard(got)
	}
}

// Attach implements weir.Source.
func (o *opener) Attach(wake func()) error {
	o.wake = wake
	return nil
}

// Dispatch implements weir.Source: the line is open, or closed again.
func (o *opener) Dispatch() {
	then := o.then
	if o.then = nil; then != nil {
		close(o.ended) // the line is the loop's
	}
	select {
	case <-o.ended:
		_ = o.loop.RemoveSource(o) // it is there until the loop ends
	default: // it is being closed, of which another wake tells
	}
	if then != nil {
		o.mu.Lock()
		got := o.got
		o.mu.Unlock()
		then(got)
	}
}

// Detach implements weir.Source: all is over, or the loop ends. What is being opened, or
// closed again, is then waited for, though not for long: the process may be about to end,
// and the line is to be left as it was.
func (o *opener) Detach() {
	select {
	case <-o.ended:
		return
	default:
	}
	then := o.then
	o.giveUp()
	select {
	case <-o.ended:
	case <-time.After(closeAtLast):
	}
	if then != nil {
		then(nil)
	}
}

// Start is Open on a goroutine of its own, which may block in the driver for as long as
// that likes; the loop goes on. The future has the Port once the protocol's ConnectionMade was
// called, and fails as Open does, once what was opened is closed again. s must be made of a
// *weir.Loop or a *weir.Tenant; of a tenant, the line belongs to it. Canceling the future, or
// closing the tenant, while the line is being opened fails it at once, and the goroutine closes
// the line when the driver lets it; until then it stays. A future that is canceled later, by f or
// in ConnectionMade, fails once the line is closed. Start belongs to the loop's goroutine.
func Start(s *future.Scheduler, path string, c Config, f weir.Factory, opts ...weir.StreamOption) *future.Future[*Port] {
	done, promise := future.New[*Port](s)
	l, t, ok := loopOf(s)
	if !ok {
		promise.Reject(errors.New("serial: the scheduler was not made of a *weir.Loop or a *weir.Tenant: use future.On"))
		return done
	}
	c, err := c.withDefaults()
	if err == nil && t != nil {
		err = t.Closed()
	}
	if err != nil {
		promise.Reject(err)
		return done
	}
	p := &Port{loop: l, tenant: t, path: path, cfg: c, fd: -1}
	p.closed = func() {
		err := p.reason
		if err == nil {
			err = weir.ErrClosed // f refused it
		}
		promise.Reject(err) // it has no effect on a future that has the Port
	}
	leave := func() {}
	o, err := openLine(l, path, c, func(o *opening) {
		leave()
		switch {
		case o == nil:
			promise.Reject(weir.ErrLoopClosed)
		case o.err != nil:
			promise.Reject(o.err)
		case p.begin(o, f, opts) != nil: // closed rejects, once the line is closed
		case done.Canceling(): // by f, or in ConnectionMade
			p.end(future.ErrCanceled)
		default:
			promise.Resolve(p)
		}
	})
	if err != nil {
		promise.Reject(err)
		return done
	}
	if t != nil {
		leave = t.OnClose(func(err error) {
			o.giveUp()
			promise.Reject(err)
		})
	}
	promise.OnCancel(func() {
		leave()
		if o.then == nil {
			return // begin runs, or has failed: the line is closed first
		}
		o.giveUp()
		promise.Reject(future.ErrCanceled)
	})
	return done
}

// loopOf is the loop that s is made of, and its tenant, if it is made of one.
func loopOf(s *future.Scheduler) (l *weir.Loop, t *weir.Tenant, ok bool) {
	switch x := s.Loop().(type) {
	case *weir.Loop:
		return x, nil, true
	case *weir.Tenant:
		return x.Loop(), x, true
	}
	return nil, nil, false
}
