package weir

import (
	"strconv"
	"sync/atomic"
)

// Call is a callback that has been queued to run once.
type Call struct {
	next     *Call
	loop     *Loop
	tenant   *Tenant
	fn       func()
	closed   func() // called instead if the loop, or the tenant, is closed first
	state    atomic.Uint32
	internal bool // the loop's own: also runs during Close
	notice   bool // a Notifier's: queued again and again
}

// The states of a Call.
const (
	callQueued = iota
	callRan
	callCanceled
)

// closedPosts is the head of a closed loop's posts. It is never run.
var closedPosts = &Call{}

// Cancel keeps the callback from running. It reports false if it ran, is
// running, or was canceled. Any goroutine may call it.
func (c *Call) Cancel() bool { return c.state.CompareAndSwap(callQueued, callCanceled) }

func (c *Call) pending() bool {
	return !c.notice && !c.internal && c.state.Load() == callQueued && (c.tenant == nil || !c.tenant.gone.Load())
}

func (c *Call) run() {
	fn := c.fn
	if c.tenant != nil && c.tenant.gone.Load() {
		fn = c.closed
	}
	if fn == nil || !c.state.CompareAndSwap(callQueued, callRan) {
		return
	}
	defer c.loop.guard("callback")
	fn()
}

// Soon queues fn for the next turn, after I/O has been polled. Only the loop's
// goroutine may call it, or any goroutine while the loop does not run.
func (l *Loop) Soon(fn func()) *Call { return l.soon(fn, nil) }

func (l *Loop) soon(fn func(), t *Tenant) *Call {
	c := &Call{loop: l, fn: fn, tenant: t}
	if err := l.check("Soon"); err != nil {
		c.state.Store(callCanceled)
		return c
	}
	l.enqueue(c)
	return c
}

// internalCall queues one of the loop's own functions, which also runs during Close.
func (l *Loop) internalCall(fn func()) {
	l.enqueue(&Call{loop: l, fn: fn, internal: true})
}

// Notifier calls one function on its loop. Any goroutine may request the call, without
// an allocation. It is for goroutines that often have something to tell a loop.
type Notifier struct{ call Call }

// NewNotifier makes a Notifier that calls fn. Any goroutine may call it.
func (l *Loop) NewNotifier(fn func()) *Notifier {
	n := &Notifier{call: Call{loop: l, fn: fn, notice: true}}
	n.call.state.Store(callRan)
	return n
}

// Notify makes the loop call the function soon, and wakes it: once for any number of
// calls before that. The function sees what the caller did before Notify. Any goroutine
// may call it; it never blocks. After the loop's Close it returns ErrLoopClosed. Close
// discards a pending notification; waiters learn of the shutdown elsewhere.
func (n *Notifier) Notify() error {
	if !n.call.state.CompareAndSwap(callRan, callQueued) {
		return nil
	}
	if !n.call.loop.push(&n.call) {
		n.call.state.Store(callRan)
		return ErrLoopClosed
	}
	return nil
}

// Post queues fn from any goroutine and wakes the loop. Posts from one goroutine keep
// their order. It never blocks. After Close it returns ErrLoopClosed; an accepted post
// either runs or is reported by Close as dropped.
func (l *Loop) Post(fn func()) (*Call, error) { return l.post(fn, nil) }

func (l *Loop) post(fn func(), t *Tenant) (*Call, error) {
	c := &Call{loop: l, fn: fn, tenant: t}
	if !l.push(c) {
		return nil, ErrLoopClosed
	}
	return c, nil
}

// PostOr is Post for a callback that someone waits for: if the loop is closed before fn
// has run, Close calls closed instead, on its own goroutine, and does not report the
// callback as dropped. After Close it returns ErrLoopClosed and calls neither. If fn
// panics, fn itself has to tell the waiter.
func (l *Loop) PostOr(fn, closed func()) (*Call, error) {
	c := &Call{loop: l, fn: fn, closed: closed}
	if !l.push(c) {
		return nil, ErrLoopClosed
	}
	return c, nil
}

// drop ends a callback that was still queued when the loop was closed. It reports
// whether no one was told.
func (c *Call) drop() bool {
	if c.closed == nil {
		return c.pending()
	}
	if c.state.CompareAndSwap(callQueued, callRan) {
		defer c.loop.guard("callback of a closed loop")
		c.closed()
	}
	return false
}

// postInternal is Post for the loop's own calls, which also run during Close and which
// Close need not report as dropped. It returns false after Close.
func (l *Loop) postInternal(fn func()) bool {
	return l.push(&Call{loop: l, fn: fn, internal: true})
}

// push hands c to the loop from any goroutine; false after Close.
func (l *Loop) push(c *Call) bool {
	for {
		head := l.posts.Load()
		if head == closedPosts {
			return false
		}
		c.next = head
		if l.posts.CompareAndSwap(head, c) {
			if head == nil {
				// If others were queued before it, the loop has already been woken and
				// has not looked yet.
				l.be.Wake()
			}
			return true
		}
	}
}

// takePosts moves posted calls into the queue, oldest first.
func (l *Loop) takePosts() {
	if l.posts.Load() == nil {
		return
	}
	head := l.posts.Swap(nil)
	var first *Call
	for head != nil {
		next := head.next
		head.next = first
		first, head = head, next
	}
	for first != nil {
		next := first.next
		first.next = nil
		l.enqueue(first)
		first = next
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
