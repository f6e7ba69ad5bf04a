package task

import "errors"

var (
	errNotStarted = errors.New("task: ended without saying that it had started")
	// ErrNotLocked is returned by Unlock, Notify and Cond.Wait if the lock is not held.
	ErrNotLocked = errors.New("task: the lock is not held")
)

// waitList holds tasks that wait for the same thing, first come, first served.
type waitList struct {
	first, last *Task
	n           int
}

func (l *waitList) add(t *Task) {
	t.list, t.prev = l, l.last
	if l.last != nil {
		l.last.next = t
	} else {
		l.first = t
	}
	l.last = t
	l.n++
}

func (l *waitList) remove(t *Task) {
	if t.list != l {
		return
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		l.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		l.last = t.prev
	}
	t.list, t.prev, t.next = nil, nil, nil
	l.n--
}

// pop takes the first task out; nil if there is none.
func (l *waitList) pop() *Task {
	t := l.first
	if t != nil {
		l.remove(t)
	}
	return t
}

// Lock is held by one task at a time; waiting tasks get it in order. The zero value is
// unlocked. It is needed only around waits: between two waits a task runs alone anyway.
type Lock struct {
	Name    string // for the tree
	held    bool
	waiting waitList
}

var _ Waitable = (*Lock)(nil)

// Lock waits for the lock. If it returns nil the task holds the lock, even if a
// cancellation came in the same turn: what was handed over is not lost (behaviour 82).
func (l *Lock) Lock(t *Task) error {
	if !l.held && !t.Scope().Canceled() {
		l.held = true
		return nil
	}
	l.waiting.add(t)
	return t.Park(l)
}

// TryLock takes the lock if it is free.
func (l *Lock) TryLock() bool {
	if l.held {
		return false
	}
	l.held = true
	return true
}

// Unlock hands the lock to the next task that waits. A task other than the holder may
// unlock it. If no one holds the lock the error is ErrNotLocked.
func (l *Lock) Unlock() error {
	if !l.held {
		return ErrNotLocked
	}
	if t := l.waiting.pop(); t != nil {
		t.Wake(nil) // and it stays held
	} else {
		l.held = false
	}
	return nil
}

// Held reports whether someone holds the lock.
func (l *Lock) Held() bool { return l.held }

// Abandon takes t out of those that wait.
func (l *Lock) Abandon(t *Task) { l.waiting.remove(t) }

// WaitingFor names the lock.
func (l *Lock) WaitingFor() string { return named("a lock", l.Name) }

func named(what, name string) string {
	if name == "" {
		return what
	}
	return what + " (" + name + ")"
}

// Semaphore has a number of places. NewSemaphore makes one.
type Semaphore struct {
	Name    string // for the tree
	free    int
	waiting waitList
}

var _ Waitable = (*Semaphore)(nil)

// NewSemaphore makes a Semaphore with n places.
func NewSemaphore(n int) *Semaphore { return &Semaphore{free: n} }

// Acquire waits for a place; see Lock.Lock.
func (s *Semaphore) Acquire(t *Task) error {
	if s.free > 0 && s.waiting.n == 0 && !t.Scope().Canceled() {
		s.free--
		return nil
	}
	s.waiting.add(t)
	return t.Park(s)
}

// TryAcquire takes a place if one is free.
func (s *Semaphore) TryAcquire() bool {
	if s.free <= 0 {
		return false
	}
	s.free--
	return true
}

// Release gives a place back, or adds one: to the next task that waits, if any.
func (s *Semaphore) Release() {
	if t := s.waiting.pop(); t != nil {
		t.Wake(nil)
	} else {
		s.free++
	}
}

// Free is how many places are free.
func (s *Semaphore) Free() int { return s.free }

// Abandon takes t out of those that wait.
func (s *Semaphore) Abandon(t *Task) { s.waiting.remove(t) }

// WaitingFor names the semaphore.
func (s *Semaphore) WaitingFor() string { return named("a semaphore", s.Name) }

// Event is set or not; tasks wait until it is set. The zero value is not set.
type Event struct {
	Name    string // for the tree
	set     bool
	waiting waitList
}

var _ Waitable = (*Event)(nil)

// Set sets the event and lets every task that waits for it go on.
func (e *Event) Set() {
	e.set = true
	for t := e.waiting.pop(); t != nil; t = e.waiting.pop() {
		t.Wake(nil)
	}
}

// Clear makes the event not set. Tasks that Set has released go on.
func (e *Event) Clear() { e.set = false }

// IsSet reports whether the event is set.
func (e *Event) IsSet() bool { return e.set }

// Wait waits until the event is set.
func (e *Event) Wait(t *Task) error {
	if e.set && !t.Scope().Canceled() {
		return nil
	}
	e.waiting.add(t)
	return t.Park(e)
}

// Abandon takes t out of those that wait.
func (e *Event) Abandon(t *Task) { e.waiting.remove(t) }

// WaitingFor names the event.
func (e *Event) WaitingFor() string { return named("an event", e.Name) }

// Cond lets tasks that hold L wait for a change of what L protects.
type Cond struct {
	Name    string // for the tree
	L       *Lock
	waiting waitList
}

var _ Waitable = (*Cond)(nil)

// Wait gives up L, waits for Notify, and holds L again when it returns, with or without
// an error.
func (c *Cond) Wait(t *Task) error {
	if !c.L.held {
		return ErrNotLocked
	}
	c.waiting.add(t)
	if t.Scope().Canceled() {
		return t.Park(c)
	}
	if err := c.L.Unlock(); err != nil {
		return err
	}
	err := t.Park(c)
	if !c.L.TryLock() {
		c.L.waiting.add(t)
		t.deaf = true
		t.hold(c.L)
		t.deaf = false
		t.waitErr = nil
	}
	return err
}

// Notify lets n of the waiting tasks go on, in order; if n is below 0, all of them.
func (c *Cond) Notify(n int) {
	for t := c.waiting.first; t != nil && n != 0; t = c.waiting.first {
		c.waiting.remove(t)
		t.Wake(nil)
		n--
	}
}

// Abandon takes t out of those that wait.
func (c *Cond) Abandon(t *Task) { c.waiting.remove(t) }

// WaitingFor names the condition.
func (c *Cond) WaitingFor() string { return named("a condition", c.Name) }
