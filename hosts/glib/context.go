package glib

// #cgo pkg-config: glib-2.0
// #include <glib.h>
import "C"

import (
	"errors"
	"runtime"
	"time"
	"unsafe"

	"github.com/weir-io/weir"
)

// ErrBusy is returned by AddSource if another thread iterates the context.
var ErrBusy = errors.New("glib: another thread has acquired this main context: it cannot run in a weir loop too")

// roundsMost is how many rounds of a context one turn of the loop runs.
const roundsMost = 16

// Source runs a GLib main context inside a weir loop: a weir.Source for Loop.AddSource.
// Whatever is attached to the context (timeouts, idle functions, sockets, D-Bus) is
// dispatched on the loop's goroutine, which stays locked to its thread from AddSource to
// RemoveSource and owns the context for as long. Nothing polls: the context's descriptors are watched, and a timer of the
// loop stands for its earliest timeout.
//
// What other threads attach to the context wakes the loop. What the loop's own callbacks
// attach does so only in a context of NewContext; with any other, call Wake afterwards.
// (A GLib context is not woken for its owner, who is about to look anyway.)
//
// Loop.RemoveSource, or the loop's Close, releases the context, which stays the caller's.
type Source struct {
	loop    *weir.Loop
	ctx     *C.GMainContext
	wake    func()
	fds     []C.GPollFD // what the context wants to have polled
	n       C.gint      // how many of them
	most    C.gint      // the priority that it will dispatch
	watches map[C.gint]*contextWatch
	timer   *weir.Timer
	rounds  int
	gone    bool
}

type contextWatch struct {
	events weir.Events
	watch  *weir.Watch
	seen   bool
}

// NewSource makes a source of a context; nil is GLib's default context. The context must
// outlive it.
func NewSource(loop *weir.Loop, ctx unsafe.Pointer) *Source {
	return &Source{loop: loop, ctx: (*C.GMainContext)(ctx), watches: map[C.gint]*contextWatch{}}
}

// NewContext makes a GMainContext for a Source, with G_MAIN_CONTEXT_FLAGS_OWNERLESS_POLLING.
// The caller gives it up with g_main_context_unref.
func NewContext() unsafe.Pointer {
	return unsafe.Pointer(C.g_main_context_new_with_flags(C.G_MAIN_CONTEXT_FLAGS_OWNERLESS_POLLING))
}

// Wake has the loop look at the context again, soon. Any goroutine may call it once the
// source was added.
func (s *Source) Wake() { s.wake() }

// Rounds is how many rounds of query, poll, check and dispatch have been made.
func (s *Source) Rounds() int { return s.rounds }

// Attach is for Loop.AddSource.
func (s *Source) Attach(wake func()) error {
	runtime.LockOSThread()
	if C.g_main_context_acquire(s.ctx) == 0 {
		runtime.UnlockOSThread()
		return ErrBusy
	}
	s.wake = wake
	s.timer = s.loop.NewTimer(wake)
	wake()
	return nil
}

// Detach is for Loop.RemoveSource.
func (s *Source) Detach() {
	for _, w := range s.watches {
		if w.watch != nil {
			w.watch.Remove()
		}
	}
	clear(s.watches)
	s.timer.Stop()
	C.g_main_context_release(s.ctx)
	runtime.UnlockOSThread()
	s.gone = true
}

// Dispatch is for the loop: it runs rounds until nothing is ready, at most roundsMost.
func (s *Source) Dispatch() {
	for range roundsMost {
		s.rounds++
		wait := s.query()
		if n := C.g_poll(s.polled(), C.guint(s.n), 0); n < 0 {
			// Interrupted: no descriptor is known to be ready.
			for i := range s.fds {
				s.fds[i].revents = 0
			}
		}
		ready := C.g_main_context_check(s.ctx, s.most, s.polled(), s.n) != 0
		if ready {
			C.g_main_context_dispatch(s.ctx)
			if s.gone {
				return // a callback removed the source
			}
			continue
		}
		if wait != 0 {
			s.watch(wait)
			return
		}
	}
	s.wake()
}

func (s *Source) polled() *C.GPollFD { return unsafe.SliceData(s.fds) }

// query asks what to wait for, and for how long: in milliseconds, -1 for any time.
func (s *Source) query() C.gint {
	C.g_main_context_prepare(s.ctx, &s.most)
	for {
		var wait C.gint
		s.n = C.g_main_context_query(s.ctx, s.most, &wait, s.polled(), C.gint(len(s.fds)))
		if int(s.n) <= len(s.fds) {
			return wait
		}
		s.fds = make([]C.GPollFD, s.n+8)
	}
}

// watch has the loop watch what the context polls.
func (s *Source) watch(wait C.gint) {
	for _, w := range s.watches {
		w.seen = false
	}
	always := false
	for i := 0; i < int(s.n); i++ {
		p := s.fds[i]
		w := s.watches[p.fd]
		if w == nil {
			w = &contextWatch{}
			s.watches[p.fd] = w
		}
		e := events(p.events)
		if w.seen {
			e |= w.events // two sources of one descriptor
		}
		w.seen = true
		if w.watch != nil && w.events == e && w.watch.Err() == nil {
			// The number may be another file's by now: Start looks again.
			w.watch.Stop()
			w.watch.Start()
			continue
		}
		if w.watch != nil {
			w.watch.Remove()
		}
		w.events = e
		var err error
		w.watch, err = s.loop.Watch(int(p.fd), e, func(weir.Events) { s.wake() })
		if err != nil {
			// A regular file is always ready, and GLib asks for that in vain too.
			w.watch = nil
			always = true
		}
	}
	for fd, w := range s.watches {
		if !w.seen {
			if w.watch != nil {
				w.watch.Remove()
			}
			delete(s.watches, fd)
		}
	}
	switch {
	case always:
		s.wake()
	case wait < 0:
		s.timer.Stop()
	default:
		s.timer.Set(time.Duration(wait) * time.Millisecond)
	}
}

func events(e C.gushort) weir.Events {
	var r weir.Events
	if e&(C.G_IO_IN|C.G_IO_PRI) != 0 {
		r |= weir.EventRead
	}
	if e&C.G_IO_OUT != 0 {
		r |= weir.EventWrite
	}
	return r | weir.EventError
}
