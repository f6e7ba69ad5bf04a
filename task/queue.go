package task

import "errors"

// ErrQueueClosed is returned by Put on a closed Queue, and by Get once the remaining
// values have been taken.
var ErrQueueClosed = errors.New("task: the queue is closed")

// Queue passes values from tasks (and callbacks) to tasks, in order, and holds a
// bounded number that no one has taken yet. NewQueue makes one. Canceled waits lose
// nothing: a value is put or it is not, is taken or stays (behaviour 82).
type Queue[T any] struct {
	Name   string // shown in the tree
	buf    []T    // a ring
	head   int
	n      int
	most   int
	closed bool

	putters exchange[T]
	getters exchange[T]
}

// exchange holds the tasks that wait on one side of a Queue.
type exchange[T any] struct {
	q           *Queue[T]
	what        string
	first, last *place[T]
	free        *place[T]
}

// place is one waiting task, with the value that is put or taken.
type place[T any] struct {
	x          *exchange[T]
	t          *Task
	v          T
	prev, next *place[T]
}

var _ Waitable = (*place[int])(nil)

// NewQueue makes a Queue that holds at most n values; with 0, Put waits until
// its value is taken.
func NewQueue[T any](n int) *Queue[T] {
	q := &Queue[T]{most: max(n, 0)}
	q.putters = exchange[T]{q: q, what: "room in a queue"}
	q.getters = exchange[T]{q: q, what: "a queue"}
	return q
}

func (x *exchange[T]) add(t *Task) *place[T] {
	p := x.free
	if p == nil {
		p = &place[T]{x: x}
	} else {
		x.free, p.next = p.next, nil
	}
	p.t = t
	p.prev = x.last
	if x.last != nil {
		x.last.next = p
	} else {
		x.first = p
	}
	x.last = p
	return p
}

// remove takes p out of the line; the task that waits at it keeps it until release.
func (x *exchange[T]) remove(p *place[T]) {
	if p.t == nil {
		return
	}
	p.t = nil
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		x.first = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		x.last = p.prev
	}
	p.prev, p.next = nil, nil
}

func (x *exchange[T]) release(p *place[T]) {
	var zero T
	p.v = zero
	p.next = x.free
	x.free = p
}

func (p *place[T]) Abandon(*Task) { p.x.remove(p) }

func (p *place[T]) WaitingFor() string { return named(p.x.what, p.x.q.Name) }

// Len is how many values can be taken without waiting.
func (q *Queue[T]) Len() int { return q.n }

// Cap is how many values the queue holds at most.
func (q *Queue[T]) Cap() int { return q.most }

// TryPut puts v if there is room for it, or a task waits for it.
func (q *Queue[T]) TryPut(v T) bool {
	if q.closed {
		return false
	}
	if p := q.getters.first; p != nil {
		t := p.t
		q.getters.remove(p)
		p.v = v
		t.Wake(nil)
		return true
	}
	if q.n >= q.most {
		return false
	}
	q.push(v)
	return true
}

// Put waits until there is room for v. If it returns an error, v was not put.
func (q *Queue[T]) Put(t *Task, v T) error {
	if q.closed {
		return ErrQueueClosed
	}
	if q.putters.first == nil && !t.Scope().Canceled() && q.TryPut(v) {
		return nil
	}
	p := q.putters.add(t)
	p.v = v
	err := t.Park(p)
	q.putters.release(p)
	return err
}

// TryGet takes the next value if there is one.
func (q *Queue[T]) TryGet() (v T, ok bool) {
	p := q.putters.first
	switch {
	case q.n > 0:
		v = q.pop()
		if p != nil {
			q.push(q.admit(p))
		}
		return v, true
	case p != nil:
		return q.admit(p), true
	}
	return v, false
}

// admit lets the task that waits at p go on and returns the value.
func (q *Queue[T]) admit(p *place[T]) T {
	t, v := p.t, p.v
	q.putters.remove(p)
	t.Wake(nil)
	return v
}

// Get waits for the next value.
func (q *Queue[T]) Get(t *Task) (v T, err error) {
	if !t.Scope().Canceled() {
		if v, ok := q.TryGet(); ok {
			return v, nil
		}
		if q.closed {
			return v, ErrQueueClosed
		}
	}
	p := q.getters.add(t)
	err = t.Park(p)
	v = p.v
	q.getters.release(p)
	return v, err
}

// Close lets no more in: Put fails, even one that is waiting; what is in the queue can
// still be taken, and then Get fails. Calling it again has no effect.
func (q *Queue[T]) Close() {
	q.closed = true
	for _, x := range []*exchange[T]{&q.putters, &q.getters} {
		for p := x.first; p != nil; p = x.first {
			t := p.t
			x.remove(p)
			t.Wake(ErrQueueClosed)
		}
	}
}

func (q *Queue[T]) push(v T) {
	if q.n == len(q.buf) {
		grown := make([]T, min(max(4, 2*q.n), q.most))
		for i := range q.n {
			grown[i] = q.buf[(q.head+i)%len(q.buf)]
		}
		q.buf, q.head = grown, 0
	}
	q.buf[(q.head+q.n)%len(q.buf)] = v
	q.n++
}

func (q *Queue[T]) pop() T {
	var zero T
	v := q.buf[q.head]
	q.buf[q.head] = zero
	q.head = (q.head + 1) % len(q.buf)
	q.n--
	return v
}
