package weir

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

// debugger checks a loop's callers; see WithDebug.
type debugger struct {
	loop  *Loop
	slow  time.Duration
	owner atomic.Uint64 // the goroutine that runs the loop; 0 while none does
}

func newDebugger(l *Loop, slow time.Duration) *debugger { return &debugger{loop: l, slow: slow} }

func (d *debugger) enter() { d.owner.Store(goroutineID()) }
func (d *debugger) leave() { d.owner.Store(0) }

// goroutineID reads the number from the header of a stack trace, which is the
// one place where the runtime shows it.
func goroutineID() uint64 {
	var buf [64]byte
	f := bytes.Fields(buf[:runtime.Stack(buf[:], false)])
	if len(f) < 2 {
		return 0
	}
	id, _ := strconv.ParseUint(string(f[1]), 10, 64)
	return id
}

// GoroutineError is the misuse that debug mode finds: a method of the loop's
// goroutine was called from another.
type GoroutineError struct {
	Method       string
	Caller, Loop uint64 // goroutine numbers
	Stack        []byte // the caller's
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
	id := goroutineID()
	if owner == 0 || owner == id {
		return nil
	}
	stack := make([]byte, 8<<10)
	err := &GoroutineError{Method: method, Caller: id, Loop: owner, Stack: stack[:runtime.Stack(stack, false)]}
	d.loop.log.Error(err.Error(), "stack", string(err.Stack))
	return err
}

// SlowError tells of a callback that held up the loop.
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
	f()
	if took := d.loop.be.Now() - start; took > d.slow {
		d.loop.report(&SlowError{What: describe(who), Took: took})
	}
}

// describe says where a callback came from.
func describe(who any) string {
	switch w := who.(type) {
	case *stream:
		if w.proto != nil {
			return fmt.Sprintf("callback of %T on %s", w.proto, w.name())
		}
		return "callback of " + w.name()
	case *Call:
		return "callback " + funcName(w.fn)
	case *Timer:
		return "timer " + funcName(w.fn)
	case *Listener:
		return "accepting on " + w.Addr().String()
	case *Watch:
		return "watch of descriptor " + itoa(w.fd)
	}
	return fmt.Sprintf("%T", who)
}

// UnclosedError tells of a transport that was open when its loop was closed.
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
		if s.flags&(fLost|fClosing) == 0 {
			d.loop.report(&UnclosedError{Conn: s.name(), Stack: s.extra().made})
		}
	}
}
