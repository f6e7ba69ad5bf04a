package weir

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
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
func (l *Loop) AddSource(s Source) error { return l.addSource(s, nil) }

func (l *Loop) addSource(s Source, t *Tenant) error {
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
	f.of.join(t, f) // first: a wake reads it, on any goroutine
	if err := s.Attach(f.wake); err != nil {
		if !f.gone.Swap(true) { // Attach may have removed it
			delete(l.sources, s)
			l.feeds.Remove(&f.at)
			f.of.leave()
		}
		return err
	}
	return nil
}

func (f *sourceFeed) wake() {
	if f.gone.Load() || f.woken.Swap(true) {
		return
	}
	// A closed loop dispatches no more, so there is nothing to do about it. The tenant does
	// not change.
	_ = f.loop.push(&Call{loop: f.loop, tenant: f.of.tenant, fn: f.dispatch, internal: true})
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

// Watch is a descriptor that the loop watches and its owner reads and writes. Its methods
// belong to the loop's goroutine.
//
//	         Stop
//	watching ⇄ stopped     Remove, or the descriptor was closed: over
//	         Start
type Watch struct {
	loop    *Loop
	fd      int
	op      backend.Op
	events  Events // what is watched for; the Op may have others until it is armed again
	fn      func(Events)
	err     error // why it ended by itself
	lacks   error // why Start has no handle for it: the Op is about to end
	removed bool  // it is over
	stopped bool
	parked  bool // it waits for its tenant's turn: see dealer
	at      int  // in the loop's bag
	of      membership
}

// WatchError says why a Watch ended without Remove.
type WatchError struct {
	FD  int   // the number of the descriptor
	Err error // syscall.EBADF if it was closed while it was watched
}

func (e *WatchError) Error() string {
	if errors.Is(e.Err, syscall.EBADF) {
		return "weir: the watch of descriptor " + strconv.Itoa(e.FD) +
			" ended: the descriptor was closed, or given to another file, while it was watched; call Remove or Stop first"
	}
	return "weir: the watch of descriptor " + strconv.Itoa(e.FD) + " ended: " + e.Err.Error()
}

func (e *WatchError) Unwrap() error { return e.Err }

// Watch calls fn whenever one of the conditions holds, at most once a turn and again
// while it holds. The descriptor stays the caller's: it must be non-blocking, and
// Remove or Stop must come before its close. A second watch on one descriptor is
// ErrSourceRegistered, and the first stays, stopped or not. If the descriptor is closed
// behind the loop's back, even while a duplicate keeps its file open, the watch ends:
// the error handler gets a *WatchError, Err returns it, and fn gets EventError.
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
	w := &Watch{loop: l, fd: fd, events: events, fn: fn}
	w.op = backend.Op{Kind: backend.Ready, Flags: backend.Multi, Handle: h, Owner: (*watched)(w)}
	w.arm()
	l.watched[fd] = w
	l.watches.Add(w, &w.at)
	return w, nil
}

// arm submits the Op, with the events that are wanted now. As it is Multi, an error comes
// with a later Wait.
func (w *Watch) arm() {
	if w.removed || w.stopped || w.parked || w.op.Armed() {
		return
	}
	w.op.Events = backend.Events(w.events)
	if c, ok := w.loop.submit(&w.op); ok {
		w.loop.later(c)
	}
}

// sync brings the Op in line with what is wanted. If its last result is still to come,
// OpDone goes on from there.
func (w *Watch) sync() {
	switch {
	case w.op.Armed() && !w.stopped && w.op.Events == backend.Events(w.events):
		return
	case w.op.Armed():
		w.loop.be.Cancel(&w.op)
	}
	w.arm()
}

// SetEvents changes what is watched for; 0 leaves EventError. fn gets no more of the
// conditions that it no longer names, not even those that hold already. It may be called
// by fn itself. After the end of the watch it has no effect.
func (w *Watch) SetEvents(events Events) {
	if w.loop.check("SetEvents") != nil || w.removed {
		return
	}
	w.events = events
	w.sync()
}

// Events is what is watched for while the watch is not stopped.
func (w *Watch) Events() Events { return w.events }

// Stop ends the calls of fn until Start. The kernel no longer watches the descriptor, so
// nothing of it wakes the loop, not even an error; but the registration stays: another
// watch of it is ErrSourceRegistered. Calling it again has no effect.
func (w *Watch) Stop() {
	if w.loop.check("Stop") != nil || w.removed || w.stopped {
		return
	}
	w.stopped = true
	w.sync()
	if !w.loop.caps.Descriptors {
		// The backend's duplicate would keep open what its owner closes.
		if w.letGo() == nil {
			w.op.Handle = backend.None
		}
	}
}

// Start undoes Stop: fn is called if a condition holds already, though not from inside
// Start. If the descriptor was closed meanwhile, the watch ends as Loop.Watch says; a
// number that was given to another file meanwhile is watched as that file. Without a Stop
// before, and after the end of the watch, it has no effect.
func (w *Watch) Start() {
	if w.loop.check("Start") != nil || w.removed || !w.stopped {
		return
	}
	w.stopped, w.lacks = false, nil
	if w.op.Handle == backend.None && !w.loop.caps.Descriptors {
		// Without a handle the Op ends with an error, as one for a closed descriptor does.
		if h, err := w.loop.be.Adopt(w.fd); err != nil {
			w.lacks = err
		} else {
			w.op.Handle = h
		}
	}
	w.sync()
}

// Err is why the watch ended by itself, a *WatchError; nil while it has not.
func (w *Watch) Err() error { return w.err }

// watched is a Watch as the backend sees it.
type watched Watch

var _ backend.Owner = (*watched)(nil)

func (o *watched) OpDone(c *backend.Completion) {
	w := (*Watch)(o)
	switch {
	case w.removed:
		return
	case c.Err == nil:
		// A result may be older than the last SetEvents or Stop.
		if e := Events(c.N) & (w.events | EventError); e != 0 && !w.stopped {
			w.call(e)
		}
	case c.Err == backend.ErrAgain, c.Err == backend.ErrCanceled, errors.Is(c.Err, syscall.ECANCELED):
	case w.stopped:
		// Start finds out.
	default:
		err := c.Err
		if w.lacks != nil {
			err = w.lacks
		}
		w.err = &WatchError{FD: w.fd, Err: err}
		w.forget()
		_ = w.letGo()
		w.loop.report(w.err)
		w.call(EventError)
		return
	}
	w.arm()
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
	_ = w.letGo()
}

// letGo makes the backend forget the descriptor; if it is already closed, that is the
// caller's affair, and if its number has become a connection, that stays.
func (w *Watch) letGo() error {
	if w.op.Handle == backend.None {
		return nil
	}
	return w.loop.be.Shut(w.op.Handle, backend.Unwatch)
}

// SignalHandler is a callback for a signal.
type SignalHandler struct {
	loop *Loop
	fn   func(os.Signal)
	ch   chan os.Signal
	quit chan struct{}
	once sync.Once
	gone bool
	at   int // in the loop's bag
	of   membership
}

// Signal calls fn as a loop callback each time the process gets sig. Several handlers,
// on one loop or on many, each get every signal. Signals of one kind that come before
// fn has run may be combined into one call, as the system combines them. A signal that
// cannot be caught is an error. A goroutine waits for the signal until Remove.
func (l *Loop) Signal(sig os.Signal, fn func(os.Signal)) (*SignalHandler, error) {
	return l.signal(sig, fn, nil)
}

func (l *Loop) signal(sig os.Signal, fn func(os.Signal), t *Tenant) (*SignalHandler, error) {
	if err := l.check("Signal"); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing {
		return nil, ErrLoopClosed
	}
	if sig == nil || !sys.Catchable(sig) {
		return nil, fmt.Errorf("weir: signal %v cannot be caught", sig)
	}
	h := &SignalHandler{loop: l, fn: fn, ch: make(chan os.Signal, 8), quit: make(chan struct{})}
	l.signals.Add(h, &h.at)
	h.of.join(t, h) // before the goroutine, which reads it
	signal.Notify(h.ch, sig)
	// not simulated: signals come from the system.
	go h.wait()
	return h, nil
}

// wait turns signals into posts.
func (h *SignalHandler) wait() {
	for {
		// not simulated: as above.
		select {
		case sig := <-h.ch:
			if _, err := h.loop.post(func() { h.call(sig) }, h.of.tenant); err != nil {
				return
			}
		case <-h.quit:
			return
		}
	}
}

func (h *SignalHandler) call(sig os.Signal) {
	if !h.gone {
		defer h.loop.guard("signal")
		h.fn(sig)
	}
}

// Remove ends the handler; removing the last one for a signal restores the signal's
// former disposition. Calling it again has no effect.
func (h *SignalHandler) Remove() {
	if h.gone || h.loop.check("Remove") != nil {
		return
	}
	h.gone = true
	h.of.leave()
	h.loop.signals.Remove(&h.at)
	signal.Stop(h.ch)
	h.once.Do(func() { close(h.quit) })
}
