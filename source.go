package weir

import (
	"sync/atomic"

	"github.com/weir-io/weir/internal/backend"
)

// Source feeds a loop from something that is not a descriptor: a foreign loop,
// a message queue, a library that polls its own socket.
type Source interface {
	// Attach is called by AddSource, on the loop's goroutine. wake may be called from
	// any goroutine, at any time, even after Detach; it makes the loop call Dispatch
	// soon, once for any number of wakes before it.
	Attach(wake func()) error
	// Dispatch hands over whatever is available. It runs on the loop's goroutine.
	Dispatch()
	// Detach is called by RemoveSource or by the loop's Close; no Dispatch
	// comes after it.
	Detach()
}

type sourceFeed struct {
	loop  *Loop
	s     Source
	gone  atomic.Bool
	woken atomic.Bool
	at    int // in the loop's bag
	of    membership
}

// AddSource attaches a source. A second registration of the same source is
// ErrSourceRegistered, and the first stays. s must be comparable.
func (l *Loop) AddSource(s Source) error {
	if err := l.check("AddSource"); err != nil {
		return err
	}
	if l.state.Load() >= loopClosing {
		return ErrLoopClosed
	}
	if _, here := l.sources[s]; here {
		return ErrSourceRegistered
	}
	f := &sourceFeed{loop: l, s: s}
	l.sources[s] = f
	l.feeds.Add(f, &f.at)
	if err := s.Attach(f.wake); err != nil {
		delete(l.sources, s)
		l.feeds.Remove(&f.at)
		f.gone.Store(true)
		return err
	}
	return nil
}

func (f *sourceFeed) wake() {
	if f.gone.Load() || f.woken.Swap(true) {
		return
	}
	// A closed loop dispatches no more, so there is nothing to do about it.
	_ = f.loop.postInternal(f.dispatch)
}

func (f *sourceFeed) dispatch() {
	f.woken.Store(false)
	if !f.gone.Load() {
		f.s.Dispatch()
	}
}

// RemoveSource detaches a source; ErrClosed if it is not attached.
func (l *Loop) RemoveSource(s Source) error {
	if err := l.check("RemoveSource"); err != nil {
		return err
	}
	f, here := l.sources[s]
	if !here {
		return ErrClosed
	}
	delete(l.sources, s)
	l.feeds.Remove(&f.at)
	f.of.leave()
	f.gone.Store(true)
	defer l.guard("Detach")
	s.Detach()
	return nil
}

// Events are conditions of a watched descriptor.
type Events uint8

// The conditions of a descriptor.
const (
	EventRead  Events = 1 << iota // bytes, a connection or the end can be read
	EventWrite                    // at least one byte can be written
	EventError                    // error or hang-up; always watched for
)

// The backends' conditions have the same values: anything else does not compile.
const _ = -uint(EventRead ^ Events(backend.Readable) | EventWrite ^ Events(backend.Writable) | EventError ^ Events(backend.Failed))

// Watch is a descriptor that the loop watches and its owner reads and writes.
type Watch struct {
	loop    *Loop
	fd      int
	op      backend.Op
	fn      func(Events)
	removed bool
	parked  bool // it waits for its tenant's turn: see dealer
	at      int  // in the loop's bag
	of      membership
}

// Watch calls fn whenever one of the conditions holds, at most once a turn and again
// while it holds. The descriptor stays the caller's: it must be non-blocking, and
// Remove must come before its close. A second watch on one descriptor is
// ErrSourceRegistered, and the first stays. If the descriptor is closed behind the
// loop's back, fn gets EventError and the watch ends.
func (l *Loop) Watch(fd int, events Events, fn func(Events)) (*Watch, error) {
	if err := l.check("Watch"); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing {
		return nil, ErrLoopClosed
	}
	if !l.caps.Descriptors && !l.caps.Adopts {
		return nil, backend.ErrUnsupported
	}
	if _, here := l.watched[fd]; here {
		return nil, ErrSourceRegistered
	}
	h := backend.Handle(fd)
	if !l.caps.Descriptors {
		var err error
		if h, err = l.be.Adopt(fd); err != nil {
			return nil, sysError("watch", err)
		}
	}
	w := &Watch{loop: l, fd: fd, fn: fn}
	w.op = backend.Op{Kind: backend.Ready, Flags: backend.Multi, Events: backend.Events(events), Handle: h, Owner: (*watched)(w)}
	if c, ok := l.submit(&w.op); ok && c.Err != nil {
		w.letGo()
		return nil, sysError("watch", c.Err)
	}
	l.watched[fd] = w
	l.watches.Add(w, &w.at)
	return w, nil
}

// watched is a Watch as the backend sees it.
type watched Watch

var _ backend.Owner = (*watched)(nil)

func (o *watched) OpDone(c *backend.Completion) {
	w := (*Watch)(o)
	if w.removed {
		return
	}
	if c.Err != nil && c.Err != backend.ErrAgain {
		w.forget()
		w.letGo()
		w.loop.report(sysError("watch", c.Err))
		w.call(EventError)
		return
	}
	if c.Err == nil && c.N != 0 {
		w.call(Events(c.N))
	}
	w.arm()
}

// arm goes on watching.
func (w *Watch) arm() {
	if !w.removed && !w.parked && !w.op.Armed() {
		if again, ok := w.loop.submit(&w.op); ok {
			w.loop.early = append(w.loop.early, again)
		}
	}
}

func (w *Watch) call(e Events) {
	defer w.loop.guard("watch")
	w.fn(e)
}

func (w *Watch) forget() {
	w.removed = true
	delete(w.loop.watched, w.fd)
	w.loop.watches.Remove(&w.at)
	w.of.leave()
}

// Remove ends the watch; the kernel no longer knows the descriptor, which may
// be closed at once. Calling it again has no effect.
func (w *Watch) Remove() {
	if w.removed || w.loop.check("Remove") != nil {
		return
	}
	w.forget()
	w.loop.be.Cancel(&w.op)
	w.letGo()
}

// letGo makes the backend forget the descriptor; if it is already closed, that is the
// caller's affair.
func (w *Watch) letGo() { _ = w.loop.be.Shut(w.op.Handle, backend.Forget) }
