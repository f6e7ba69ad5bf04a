//go:build linux

package uring

// Host tells the backend that somebody else's loop watches Caps.PollFD and
// calls Wait with timeout 0 when it is readable. From then on what is submitted
// is passed on at once, with a system call each time, and wakes and results
// that are due without the kernel's doing make the descriptor readable at any
// time, not only while a Wait is in progress. It belongs to the loop's
// goroutine and thread.
func (b *Backend) Host(on bool) {
	if b.closed {
		return
	}
	b.hosted = on
	b.waker.host(on)
	b.tell()
}

// tell sees to it that a host hears of what the next Wait has to do.
func (b *Backend) tell() {
	if !b.hosted {
		return
	}
	if b.enable() == nil && b.fill() {
		if _, err := b.enter(false, false, 0); err == nil && !b.moved && len(b.ended)+len(b.later) == 0 && b.spilled == len(b.spill) {
			return
		}
	}
	b.waker.write()
}
