// Package glib runs a weir loop inside a GLib main loop, and GLib main contexts inside a
// weir loop.
//
// GTK, GStreamer and everything else that is built on GLib has a main loop that owns the
// thread. Attach makes a weir loop a guest there: callbacks of connections and timers run
// between those of widgets, on the same thread, so they may use widgets.
//
//	loop, err := weir.NewLoop()
//	guest, err := glib.Attach(loop)
//	...
//	C.gtk_main()
//	guest.Close()
//	loop.Close()
//
// Source is for the other direction: a library that needs a GLib context, in a program
// whose thread belongs to weir.
package glib

// #cgo pkg-config: glib-2.0
// #include "source.h"
import "C"

import (
	"errors"
	"math"
	"runtime"
	"runtime/cgo"
	"time"
	"unsafe"

	"github.com/weir-io/weir"
)

// DefaultPriority is the priority of a guest: after what GTK does to lay out and redraw
// windows (G_PRIORITY_HIGH_IDLE + 20), before G_PRIORITY_DEFAULT_IDLE. GLib dispatches
// only the most urgent of the sources that are ready. With G_PRIORITY_DEFAULT a
// connection that always has bytes would keep every window from being redrawn.
const DefaultPriority = C.G_PRIORITY_HIGH_IDLE + 30

// turnMost is how long a turn may go on to call back before GLib has its thread again.
const turnMost = 2 * time.Millisecond

// An Option is an option of Attach.
type Option func(*Guest)

// WithContext chooses the GMainContext; the default is GLib's default context.
func WithContext(ctx unsafe.Pointer) Option {
	return func(g *Guest) { g.ctx = (*C.GMainContext)(ctx) }
}

// WithPriority sets the priority, from G_PRIORITY_HIGH (-100) to G_PRIORITY_LOW (300);
// the default is DefaultPriority.
func WithPriority(p int) Option { return func(g *Guest) { g.priority = p } }

// A Guest is a weir loop that runs inside a GLib main context.
type Guest struct {
	loop     *weir.Loop
	ctx      *C.GMainContext
	priority int
	source   *C.GSource
	handle   cgo.Handle
	turning  bool
	closed   bool
	turns    int
}

// Attach makes loop a guest of a context. It is called on the thread that iterates the
// context: all callbacks of the loop run there from then on, and only there may the loop
// be used, except for the methods that any goroutine may call. The goroutine stays locked
// to the thread until Close. A turn is limited to 2 ms, unless the loop has a limit already;
// Loop.SetTurnLimit changes that afterwards, and the limit outlasts the guest.
//
// The loop stays the caller's: Close it after the guest. If it is closed first, or a turn
// fails, the guest ends by itself, and the error of a turn goes to the loop's error
// handler. The error of Attach is weir.ErrNoPollFD if the loop's backend has no
// descriptor that a host can watch.
//
// While a callback of the loop runs a main loop of its own (gtk_dialog_run), the weir loop
// stands still; other sources do not. Idle runs a function outside of the loop's turn.
func Attach(loop *weir.Loop, opts ...Option) (*Guest, error) {
	fd := loop.PollFD()
	if fd < 0 {
		return nil, weir.ErrNoPollFD
	}
	g := &Guest{loop: loop, priority: DefaultPriority}
	for _, o := range opts {
		o(g)
	}
	if g.priority < C.G_PRIORITY_HIGH || g.priority > C.G_PRIORITY_LOW {
		return nil, errPriority
	}
	if loop.TurnLimit() == (weir.TurnLimit{}) {
		if err := loop.SetTurnLimit(weir.TurnLimit{Time: turnMost}); err != nil {
			return nil, err
		}
	}
	runtime.LockOSThread()
	g.handle = cgo.NewHandle(g)
	g.source = C.weir_source_new(C.uintptr_t(g.handle), C.int(fd), C.int(g.priority))
	C.g_source_attach(g.source, g.ctx)
	return g, nil
}

var errPriority = errors.New("glib: a priority is at least -100 (G_PRIORITY_HIGH) and at most 300 (G_PRIORITY_LOW)")

// Close ends the guest: no turn of the loop runs any more, and GLib no longer watches its
// descriptor. It may be called in a callback of the loop, which then ends its turn first.
// Calling it again has no effect.
func (g *Guest) Close() {
	if g.closed {
		return
	}
	g.closed = true
	C.g_source_destroy(g.source)
	C.g_source_unref(g.source)
	g.handle.Delete()
	if !g.turning {
		runtime.UnlockOSThread()
	}
}

// Idle has the context call fn once, soon, and outside of any turn of the loop: there fn
// may run a main loop of its own (gtk_dialog_run) while connections continue.
func (g *Guest) Idle(fn func()) { C.weir_idle(g.ctx, C.uintptr_t(cgo.NewHandle(fn))) }

// Turns is how many turns of the loop have run.
func (g *Guest) Turns() int { return g.turns }

// ended reports whether the loop was closed: its descriptor is no longer its own.
func (g *Guest) ended() bool {
	select {
	case <-g.loop.Closed():
		return true
	default:
		return false
	}
}

// wait is how long GLib may wait, in milliseconds, rounded up; -1 for any time.
func (g *Guest) wait() int {
	if g.ended() {
		return 0 // for the dispatch that ends the guest
	}
	d, ok := g.loop.Next()
	if !ok {
		return -1
	}
	return int(min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

// turn runs one turn and reports whether the source stays. GLib does not dispatch a
// source again while it is being dispatched, whatever main loops run inside.
func (g *Guest) turn() bool {
	if g.ended() {
		g.Close()
		return false
	}
	g.turning = true
	g.turns++
	err := g.loop.Turn(0)
	g.turning = false
	if g.closed {
		runtime.UnlockOSThread()
		return false
	}
	if err != nil {
		if !errors.Is(err, weir.ErrLoopClosed) {
			g.loop.Report(err)
		}
		g.Close()
		return false
	}
	return true
}

//export weirWait
func weirWait(handle C.uintptr_t) C.gint {
	return C.gint(cgo.Handle(handle).Value().(*Guest).wait())
}

//export weirIdle
func weirIdle(handle C.uintptr_t) {
	h := cgo.Handle(handle)
	fn := h.Value().(func())
	h.Delete()
	fn()
}

//export weirTurn
func weirTurn(handle C.uintptr_t) C.gboolean {
	if cgo.Handle(handle).Value().(*Guest).turn() {
		return 1
	}
	return 0
}
