//go:build linux

package uring

import "syscall"

// Host tells the backend whether a foreign loop watches Caps.PollFD and calls Wait with
// timeout 0 when it is readable. With a host, submissions are passed on at once, with a
// system call each time, and wakes and results that are due without the kernel make the
// descriptor readable at any time, not only while a Wait is in progress. It belongs to
// the loop's goroutine and thread.
//
// The descriptor is an eventfd and not the ring: a poll(2) that is waiting on a ring
// with deferred task work is not always woken when there is some, although a poll that
// begins then sees it (seen with Linux 6.18).
func (b *Backend) Host(on bool) {
	if b.closed || b.hosted == on {
		return
	}
	b.hosted = on
	b.waker.watched(on)
	if !on {
		b.ring.unsignal()
	}
	b.tell()
}

// tell makes sure that a host learns that the next Wait has something to do.
func (b *Backend) tell() {
	if !b.hosted {
		return
	}
	if quiet, err := b.passOn(); err != nil {
		b.failed = err
	} else if quiet {
		return
	}
	b.waker.tell()
}

// passOn gives the kernel what is queued, and reports whether everything left to do
// will make the host's descriptor readable by itself.
func (b *Backend) passOn() (bool, error) {
	if err := b.enable(); err != nil {
		return false, err
	}
	switch errno := b.ring.signal(b.waker.host); errno {
	case 0:
	case syscall.EEXIST: // another thread's ring
		return false, b.move()
	default: // no memory for it now
		return false, nil
	}
	if !b.fill() {
		return false, nil
	}
	if _, err := b.enter(false, false, 0); err != nil {
		return false, err
	}
	return !b.moved && len(b.ended)+len(b.later) == 0 && b.available() == 0 && !b.ring.hidden(), nil
}
