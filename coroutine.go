package weir

// What coroutines (iter.Pull) need to know of the loop that they run on. The
// runtime ends the program when a coroutine is resumed on another thread than
// the one it was made on, or with another depth of locks, if either of the two
// was locked; so who resumes one asks first.

// Thread identifies the thread that callbacks run on now, and how it is held:
// equal values mean the same. It is 0 where the loop's goroutine is not locked
// to a thread, and while the loop does not run.
func (l *Loop) Thread() uint64 { return l.thread }

// Switched tells debug mode that the goroutine that calls it is the loop's from
// now on: a coroutine was switched to, or back. Without debug mode it does
// nothing.
func (l *Loop) Switched() {
	if l.debug != nil && l.debug.owner.Load() != 0 {
		l.debug.enter()
	}
}

// holdThread notes the thread, which is locked.
func (l *Loop) holdThread() {
	depth := uint64(1)
	if l.locked {
		depth++
	}
	l.thread = threadID()<<8 | depth
}
