package weir

import (
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/bag"
)

// Tenant is a context whose callbacks can all be canceled together: a
// framework on a shared loop, a task, a customer. Its Soon, Post, After, At
// and NewTimer are the loop's, tied to it.
type Tenant struct {
	loop   *Loop
	name   string
	gone   atomic.Bool
	timers bag.Bag[*Timer]
}

// NewTenant makes a tenant; name is for logs and error messages.
func (l *Loop) NewTenant(name string) *Tenant {
	return &Tenant{loop: l, name: name}
}

// Name is what NewTenant was given.
func (t *Tenant) Name() string { return t.name }

// Soon is Loop.Soon; after Cancel the callback does not run.
func (t *Tenant) Soon(fn func()) *Call { return t.loop.soon(fn, t) }

// Post is Loop.Post; after Cancel it returns ErrClosed.
func (t *Tenant) Post(fn func()) (*Call, error) {
	if t.gone.Load() {
		return nil, ErrClosed
	}
	return t.loop.post(fn, t)
}

// Cancel drops every callback and stops every timer of the tenant, for good.
// Any goroutine may call it; the memory of timers is released by the loop.
func (t *Tenant) Cancel() {
	if t.gone.Swap(true) {
		return
	}
	// After the loop's end there are no timers to stop.
	_ = t.loop.postInternal(func() {
		t.timers.Each(func(tm *Timer) { tm.Stop() })
	})
}

// NewTimer is Loop.NewTimer; after Cancel the timer cannot be set.
func (t *Tenant) NewTimer(fn func()) *Timer { return t.loop.newTimer(fn, t) }

// After is Loop.After; after Cancel it does nothing.
func (t *Tenant) After(d time.Duration, fn func()) *Timer {
	tm := t.NewTimer(fn)
	tm.Set(d)
	return tm
}

// At is Loop.At; after Cancel it does nothing.
func (t *Tenant) At(at time.Time, fn func()) *Timer {
	tm := t.NewTimer(fn)
	tm.SetAt(at)
	return tm
}
