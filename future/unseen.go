package future

import "runtime"

// UnseenError is a failure that no one looked at.
type UnseenError struct{ Err error }

func (e *UnseenError) Error() string {
	return "future: no one looked at this failure: " + e.Err.Error()
}

// Unwrap returns the failure.
func (e *UnseenError) Unwrap() error { return e.Err }

// unseen stands for a failed future until someone looks. It does not refer to the
// future, so that the collector can find out that no one will.
type unseen struct {
	s          *Scheduler
	err        error
	prev, next *unseen
	listed     bool
	cleanup    runtime.Cleanup
	watched    bool // cleanup is set
}

// unseenList holds the failures in the order of settling.
type unseenList struct{ first, last *unseen }

func (l *unseenList) add(u *unseen) {
	u.listed = true
	u.prev = l.last
	if l.last != nil {
		l.last.next = u
	} else {
		l.first = u
	}
	l.last = u
}

func (l *unseenList) remove(u *unseen) {
	if !u.listed {
		return
	}
	u.listed = false
	if u.prev != nil {
		u.prev.next = u.next
	} else {
		l.first = u.next
	}
	if u.next != nil {
		u.next.prev = u.prev
	} else {
		l.last = u.prev
	}
	u.prev, u.next = nil, nil
}

// watchUnseen records that f has failed and no one knows.
func (f *Future[T]) watchUnseen() {
	u := &unseen{s: f.s, err: f.err}
	f.unseen = u
	f.s.unseen.add(u)
	if !f.s.atCloseOnly {
		u.watched = true
		u.cleanup = runtime.AddCleanup(f, (*unseen).collected, u)
	}
}

// collected runs on a goroutine of the runtime.
func (u *unseen) collected() {
	// A closed loop takes no posts; Scheduler.Close reports the failure then.
	_ = u.s.post(func() { u.s.reportUnseen(u) })
}

func (s *Scheduler) reportUnseen(u *unseen) {
	if !u.listed {
		return
	}
	s.unseen.remove(u)
	s.report(&UnseenError{u.err})
}

// look records that someone knows of the failure, or will.
func (f *Future[T]) look() {
	f.flags |= fSeen
	if u := f.unseen; u != nil {
		f.unseen = nil
		f.s.unseen.remove(u)
		if u.watched {
			u.cleanup.Stop()
		}
	}
}
