package weir

import (
	"fmt"
	"reflect"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/gid"
)

// debugger checks how a loop is called; see WithDebug.
type debugger struct {
	loop  *Loop
	slow  time.Duration
	owner atomic.Uint64 // the goroutine that runs the loop; 0 while none does

	// Belongs to the loop's goroutine, or to the coroutine it has switched to.
	task string // the running task; "" if none
	ran  string // the last task that ran in this callback
}

func newDebugger(l *Loop, slow time.Duration) *debugger { return &debugger{loop: l, slow: slow} }

func (d *debugger) enter() { d.owner.Store(gid.ID()) }
func (d *debugger) leave() { d.owner.Store(0) }

// switched records which task runs.
func (d *debugger) switched(task string) {
	if d.task = task; task != "" {
		d.ran = task
	}
}

// WaitError is a misuse that debug mode finds: a call that waits for the loop was made
// on the loop's own goroutine, and would never return.
type WaitError struct {
	Call  string
	Task  string // the task that made it; "" if a callback did
	Stack []byte
}

func (e *WaitError) Error() string {
	where := "in a callback"
	if e.Task != "" {
		where = "in task " + e.Task
	}
	return "weir: " + e.Call + " called on the loop's goroutine, " + where + ": it waits for the loop, which waits for it (use another goroutine)"
}

// MayWait is for functions that block their goroutine until the loop has done
// something, as netconn's do: they ask before they wait. In debug mode, on the loop's
// own goroutine, it logs and returns a *WaitError; otherwise it returns nil. Any
// goroutine may call it.
func (l *Loop) MayWait(call string) error {
	if l.debug == nil || l.debug.owner.Load() != gid.ID() {
		return nil
	}
	stack := make([]byte, 8<<10)
	err := &WaitError{Call: call, Task: l.debug.task, Stack: stack[:runtime.Stack(stack, false)]}
	l.log.Error(err.Error(), "stack", string(err.Stack))
	return err
}

// GoroutineError is a misuse that debug mode finds: a method of the loop's goroutine
// was called from another.
type GoroutineError struct {
	Method       string
	Caller, Loop uint64 // goroutine numbers
	Stack        []byte // of the caller
}

func (e *GoroutineError) Error() string {
	return fmt.Sprintf("weir: %s called from goroutine %d; it belongs to the loop's, goroutine %d (use Post)", e.Method, e.Caller, e.Loop)
}

// check is called by every method that belongs to the loop's goroutine.
func (l *Loop) check(method string) error {
	if l.debug == nil {
		return nil
	}
	return l.debug.check(method)
}

func (d *debugger) check(method string) error {
	owner := d.owner.Load()
	id := gid.ID()
	if owner == 0 || owner == id {
		return nil
	}
	stack := make([]byte, 8<<10)
	err := &GoroutineError{Method: method, Caller: id, Loop: owner, Stack: stack[:runtime.Stack(stack, false)]}
	d.loop.log.Error(err.Error(), "stack", string(err.Stack))
	return err
}

// SlowError reports a callback that held up the loop.
type SlowError struct {
	What string
	Took time.Duration
}

func (e *SlowError) Error() string {
	return fmt.Sprintf("weir: %s took %v", e.What, e.Took)
}

// timed runs a callback and reports it if it was slow.
func (d *debugger) timed(who any, f func()) {
	start := d.loop.be.Now()
	d.ran = ""
	f()
	if took := d.loop.be.Now() - start; took > d.slow {
		what := describe(who)
		if d.ran != "" {
			what += ", in which task " + d.ran + " ran"
		}
		d.loop.report(&SlowError{What: what, Took: took})
	}
}

// describe says where a callback came from.
func describe(who any) string {
	switch w := who.(type) {
	case *socket:
		return describe(&w.stream)
	case *stream:
		if w.proto != nil {
			return fmt.Sprintf("callback of %T on %s", w.proto, w.name())
		}
		return "callback of " + w.name()
	case *Call:
		return "callback " + funcName(w.fn)
	case *Timer:
		return "timer " + funcName(w.fn)
	case *accepting:
		return "accepting on " + (*Listener)(w).Addr().String()
	case *packetReader:
		return w.e.describe()
	case *packetWriter:
		return w.e.describe()
	case *attempt:
		return fmt.Sprintf("connecting %T to %s %s", w.c.proto, w.c.network, w.c.address)
	case *splice:
		return "splice from " + w.src.name() + " to " + w.dst.name()
	case *lingerer:
		return "ending a connection that was closed"
	case *watched:
		return "watch of descriptor " + itoa(w.fd)
	}
	return fmt.Sprintf("%T", who)
}

func (e *PacketEndpoint) describe() string {
	return fmt.Sprintf("callback of %T on %s %s", e.proto, e.netw, e.LocalAddr())
}

// UnclosedError reports a transport that was open when its loop was closed.
type UnclosedError struct {
	Conn  string
	Stack []byte // where it was made
}

func (e *UnclosedError) Error() string {
	return fmt.Sprintf("weir: %s was never closed; made at\n%s", e.Conn, e.Stack)
}

// unclosed reports what is open at Close.
func (d *debugger) unclosed() {
	for s := d.loop.conns.first; s != nil; s = s.next {
		if s.phase < phaseClosing {
			d.loop.report(&UnclosedError{Conn: s.name(), Stack: s.extra().made})
		}
	}
}

// funcName names a function for logs and error messages.
func funcName(f func()) string {
	pc := reflect.ValueOf(f).Pointer()
	fn := runtime.FuncForPC(pc)
	if fn == nil {
		return "func"
	}
	file, line := fn.FileLine(pc)
	return fn.Name() + " (" + file + ":" + itoa(line) + ")"
}
