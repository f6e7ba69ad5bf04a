// Package gtest is GLib for the tests of package glib, which cannot use cgo themselves.
package gtest

// #cgo pkg-config: glib-2.0
// #include "gtest.h"
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// Redraw is the priority at which GTK redraws windows.
const Redraw = C.G_PRIORITY_HIGH_IDLE + 20

// A Context is a GMainContext.
type Context struct{ p *C.GMainContext }

// New makes a context.
func New() Context { return Context{C.g_main_context_new()} }

// From is a context that package glib made.
func From(p unsafe.Pointer) Context { return Context{(*C.GMainContext)(p)} }

// Pointer is what package glib takes.
func (c Context) Pointer() unsafe.Pointer { return unsafe.Pointer(c.p) }

// Free gives the context up.
func (c Context) Free() { C.g_main_context_unref(c.p) }

// Acquire and Release are the ownership of a thread that iterates the context.
func (c Context) Acquire() bool { return C.g_main_context_acquire(c.p) != 0 }

// Release undoes Acquire.
func (c Context) Release() { C.g_main_context_release(c.p) }

// Iterate is one iteration; it may wait.
func (c Context) Iterate() { C.g_main_context_iteration(c.p, 1) }

// Until iterates until done.
func (c Context) Until(done func() bool) {
	for !done() {
		c.Iterate()
	}
}

// Idle calls fn whenever nothing more urgent is ready, as long as it returns true.
func (c Context) Idle(priority int, fn func() bool) { c.add(C.kind_idle, 0, priority, fn) }

// Timeout calls fn each ms milliseconds, as long as it returns true.
func (c Context) Timeout(ms int, fn func() bool) { c.add(C.kind_timeout, ms, 0, fn) }

// FD calls fn while a descriptor is readable, as long as it returns true.
func (c Context) FD(fd int, fn func() bool) { c.add(C.kind_fd, fd, 0, fn) }

func (c Context) add(kind, arg, priority int, fn func() bool) {
	C.gtest_add(c.p, C.int(kind), C.int(arg), C.int(priority), C.uintptr_t(cgo.NewHandle(fn)))
}

//export gtestCall
func gtestCall(handle C.uintptr_t) C.gboolean {
	h := cgo.Handle(handle)
	if h.Value().(func() bool)() {
		return 1
	}
	h.Delete()
	return 0
}
