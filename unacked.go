package weir

import (
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// unacked finds peers that have vanished while bytes are on their way to them. TCP's
// keep-alive probes idle connections only; if something waits for an acknowledgment,
// the system keeps trying for a quarter of an hour. The system's own bound
// (WithUserTimeout) also gives up on a peer whose window is shut, even though that peer
// answers every probe. So, from time to time, the loop checks the connections that have
// written something since:
//
//	a write ──▶ in list ──every unackedEvery──▶ all acknowledged: out of the list
//	                 ▲                     ├──▶ probed without an answer for as long
//	                 │                     │    as keep-alive would take: lost, ETIMEDOUT
//	                 └─────────────────────┘
//
// An idle connection costs nothing, a busy one a system call each time.
type unacked struct {
	list  []unackedStream
	gone  int // how many in list have been lost meanwhile
	timer *Timer
	off   bool // the backend cannot tell
}

type unackedStream struct {
	k     *socket
	since time.Duration // when the silence began, at the earliest
}

const unackedEvery = 5 * time.Second

// wrote records that bytes of k have been handed to the system.
func (k *socket) wrote() {
	if k.watched || k.net != netTCP || k.loop.unacked.off {
		return
	}
	u := &k.loop.unacked
	k.watched = true
	u.list = append(u.list, unackedStream{k, k.loop.now})
	if u.timer == nil {
		u.timer = k.loop.NewTimer(k.loop.sweepUnacked)
	}
	if !u.timer.Running() {
		u.timer.Set(unackedEvery)
	}
}

// unwatched records that a stream in the list is lost. The lost ones are taken out once
// there are many.
func (u *unacked) unwatched() {
	if u.gone++; u.gone > 64 && u.gone > len(u.list)/2 {
		u.keep(func(e *unackedStream) bool { return e.k.phase < phaseLost })
	}
}

func (u *unacked) keep(f func(*unackedStream) bool) {
	kept := u.list[:0]
	for i := range u.list {
		e := &u.list[i]
		if f(e) {
			kept = append(kept, *e)
		} else {
			e.k.watched = false
		}
	}
	clear(u.list[len(kept):])
	if u.list, u.gone = kept, 0; len(kept) == 0 {
		u.list = nil
	}
}

func (l *Loop) sweepUnacked() {
	u := &l.unacked
	var lost []*socket
	u.keep(func(e *unackedStream) bool {
		if e.k.phase >= phaseLost {
			return false
		}
		stays, gone := l.lookUnacked(e)
		if gone {
			lost = append(lost, e.k)
		}
		return stays
	})
	if len(u.list) > 0 {
		u.timer.Set(unackedEvery)
	}
	for _, k := range lost {
		k.lose(k.opError("write", syscall.ETIMEDOUT))
	}
}

// lookUnacked reports whether e stays in the list and, if not, whether its peer is
// considered gone.
func (l *Loop) lookUnacked(e *unackedStream) (stays, gone bool) {
	h := e.k.wh
	if h == backend.None {
		return false, false
	}
	if n, err := l.be.GetOption(h, backend.UnsentBytes); err != nil || n == 0 {
		return false, false
	}
	ms, err := l.be.GetOption(h, backend.Unanswered)
	if err != nil {
		l.unacked.off = l.unacked.off || err == backend.ErrUnsupported
		return false, false
	}
	silent := time.Duration(ms) * time.Millisecond
	if silent == 0 {
		e.since = l.now
		return true, false
	}
	e.since = max(e.since, l.now-silent)
	if l.now-e.since < unackedEvery {
		return true, false
	}
	s, err := l.be.GetOption(h, backend.Patience)
	if err != nil || s == 0 {
		return err == nil, false
	}
	return l.now-e.since < time.Duration(s)*time.Second, l.now-e.since >= time.Duration(s)*time.Second
}
