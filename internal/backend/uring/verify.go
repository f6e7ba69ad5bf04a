//go:build linux

package uring

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// verifier finds descriptors from outside that were closed without notice. io_uring
// keeps their files open for the Ops armed on them, so their owners would wait for
// ever, and the number may come to name something else. After activity, and before a
// long sleep, it asks about each once.
type verifier struct {
	list []identity
	at   map[backend.Handle]int // index in list
	next int                    // the one to ask about next
	left int                    // how many since the last activity
	last time.Duration
}

// identity is what a descriptor referred to when it came.
type identity struct {
	h        backend.Handle
	dev, ino uint64
}

const (
	verifyEvery = 100 * time.Millisecond
	verifyBatch = 64
)

func identify(h backend.Handle) (identity, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(h), &st)
	return identity{h, uint64(st.Dev), st.Ino}, err //nolint:unconvert // narrower on mips
}

// isOpen reports whether the process has a descriptor of that number.
func isOpen(h backend.Handle) bool {
	if h < 0 {
		return false
	}
	_, err := identify(h)
	return err == nil
}

// add puts h under watch from now on.
func (v *verifier) add(h backend.Handle) error {
	id, err := identify(h)
	if err != nil {
		return err
	}
	if v.at == nil {
		v.at = make(map[backend.Handle]int)
	}
	v.at[h] = len(v.list)
	v.list = append(v.list, id)
	return nil
}

func (v *verifier) remove(h backend.Handle) {
	i, ok := v.at[h]
	if !ok {
		return
	}
	delete(v.at, h)
	last := len(v.list) - 1
	if i != last {
		v.list[i] = v.list[last]
		v.at[v.list[i].h] = i
	}
	v.list = v.list[:last]
}

// same reports whether the i-th descriptor is still what it was.
func (v *verifier) same(i int) bool {
	now, err := identify(v.list[i].h)
	return err == nil && now == v.list[i]
}

// verify asks about some descriptors if it is time to, ends the Ops armed on those that
// are gone, and returns the longest time to sleep before it is called again.
func (b *Backend) verify(timeout time.Duration) time.Duration {
	v := &b.verifier
	if v.left == 0 {
		return timeout
	}
	if wait := v.last + verifyEvery - b.clock; v.last != 0 && wait > 0 {
		return shorter(timeout, wait)
	}
	v.last = b.Now()
	for range min(v.left, len(v.list), verifyBatch) {
		v.left--
		v.next = (v.next + 1) % len(v.list)
		b.stats.Calls++
		if !v.same(v.next) {
			b.lose(v.list[v.next].h)
			if len(v.list) == 0 {
				break
			}
		}
	}
	v.left = min(v.left, len(v.list))
	if v.left > 0 {
		return shorter(timeout, verifyEvery)
	}
	return timeout
}

func shorter(timeout, limit time.Duration) time.Duration {
	if timeout < 0 || timeout > limit {
		return limit
	}
	return timeout
}

// lose gives up a handle whose number is no longer ours: the Ops armed on it end with
// EBADF, and the number is not closed.
func (b *Backend) lose(h backend.Handle) {
	b.verifier.remove(h)
	for i := range b.slots.n {
		s := b.slots.at(i)
		if s.op == nil || s.op.Handle != h || s.refused {
			continue
		}
		switch {
		case s.op.State == queued, s.parked:
			b.end(s.op, syscall.EBADF)
		case s.op.State == flying, s.op.State == canceling:
			s.lost = true
			b.Cancel(s.op)
		}
	}
	if b.class(h) != notOpen {
		d := b.detail(h)
		delete(b.details, h)
		b.handles[h].class = notOpen
		b.handles[h].busy &^= detailed
		if d != nil {
			d.file.Remove()
		}
	}
}
