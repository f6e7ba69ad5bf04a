package sim

import (
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// What the weather brings, in the trace.
const (
	weatherPartition = iota + 1
	weatherCrash
	weatherShortage
	weatherWall
	weatherStall
	weatherLoopStall
)

// weatherEvery is how many events lie between two draws of the weather. It is
// drawn by events, not by time, so that a world at rest stays at rest.
const weatherEvery = 64

// weather draws what befalls hosts, loops and clocks.
func (w *World) weather() {
	f, r := &w.faults, &w.random[forWeather]
	if len(w.hosts) > 1 && r.chance(f.Partition) {
		a := w.hosts[r.below(len(w.hosts))]
		b := w.hosts[r.below(len(w.hosts))]
		d := r.upTo(5 * time.Minute)
		if a != b && !w.cuts[link(a, b)] {
			w.Partition(a, b)
			w.queue.push(w.after(d), event{kind: evHeal, pos: link(a, b)})
		}
	}
	if r.chance(f.Crash) {
		h := w.hosts[r.below(len(w.hosts))]
		d := r.upTo(time.Minute)
		if h.OnCrash != nil && !h.down {
			// Not now: some loop of the host may be in the middle of its turn.
			w.crashing = append(w.crashing, crash{h, d})
		}
	}
	if r.chance(f.Shortage) {
		h := w.hosts[r.below(len(w.hosts))]
		d := r.upTo(5 * time.Second)
		h.shortage = w.after(d)
		w.record(Weather, h, 0, weatherShortage, int64(d))
	}
	if r.chance(f.WallJump) {
		d := r.upTo(20*365*24*time.Hour) - 10*365*24*time.Hour
		w.JumpWall(d)
	}
	if r.chance(f.Stall) {
		d := time.Hour
		for range r.below(6) {
			d /= 10
		}
		w.Stall(r.upTo(d))
	}
	if r.chance(f.LoopStall) && len(w.backends) > 0 {
		b := w.backends[r.below(len(w.backends))]
		d := r.upTo(2 * time.Second)
		b.stalled = w.after(d)
		w.record(Weather, b.host, uint32(b.id), weatherLoopStall, int64(d))
	}
}

// crash is a drawn crash that has yet to come.
type crash struct {
	h *Host
	d time.Duration
}

func (w *World) crash() {
	for _, c := range w.crashing {
		if !c.h.down {
			c.h.Crash()
			w.queue.push(w.after(c.d), event{kind: evRestart, pos: uint64(c.h.index)})
		}
	}
	w.crashing = w.crashing[:0]
}

// JumpWall moves the wall clock, and nothing else.
func (w *World) JumpWall(d time.Duration) {
	w.wall = w.wall.Add(d)
	w.record(Weather, nil, 0, weatherWall, int64(d))
}

// Stall makes everything stand still for d when time passes next, as a
// suspended machine does: the clock goes on, and what was due meanwhile is late.
func (w *World) Stall(d time.Duration) {
	w.stall += d
	w.record(Weather, nil, 0, weatherStall, int64(d))
}

// unseen starts the patience of those who probe a peer that can no longer
// answer. Probing a peer that does changes nothing, so no event is spent on it.
func (w *World) unseen() {
	for _, h := range w.hosts {
		for s := h.first; s != nil; s = s.next {
			w.probe(s)
		}
	}
}

// The defaults of a connection's patience.
const (
	keepAliveProbes = 9
)

func (w *World) probe(s *socket) {
	if s.kind != tcp || s.state != open || s.opts.keepAlive == 0 || s.closed || !w.cut(s) {
		return
	}
	patience := time.Duration(s.opts.keepAlive) * time.Second * (1 + keepAliveProbes)
	w.push(w.after(patience), event{kind: evKeepAlive, s: s, gen: s.gen})
}

func (w *World) probed(s *socket) {
	switch {
	case s.state != open:
	case w.cut(s) && s.out.retrying:
		w.probe(s) // what is on its way is retried instead, and for longer
	case w.cut(s):
		s.die(syscall.ETIMEDOUT)
	case s.peer.gone:
		s.die(syscall.ECONNRESET)
	}
}

// fate is what is in store for a connection; both ends share it.
type fate struct {
	kind  fateKind
	after uint64 // bytes in one direction
	shut  time.Duration
	met   bool
}

type fateKind uint8

const (
	fateRefused fateKind = iota + 1
	fateQueue            // reset while it waits to be accepted, or right after
	fateOpen             // reset after some bytes
	fateHalf             // reset when the first end has arrived
	fateClosing          // reset when a side has closed
	fateSilent           // nothing passes any more, after some bytes
	fateSlow             // the reader's window shuts after some bytes, again and again
	fatePaused           // reset when bytes wait for a reader that does not ask for them
)

func (w *World) drawFate() *fate {
	f, r := &w.faults, &w.random[forFates]
	bytes := func() uint64 { return uint64(1) << r.below(20) >> 1 }
	switch {
	case r.chance(f.Reset):
		return &fate{kind: fateRefused + fateKind(r.below(5)), after: bytes()}
	case r.chance(f.Silence):
		return &fate{kind: fateSilent, after: bytes()}
	case r.chance(f.Slow):
		d := time.Minute
		for range r.below(5) {
			d /= 10
		}
		return &fate{kind: fateSlow, after: bytes(), shut: 1 + r.upTo(d)}
	case r.chance(f.ResetPaused):
		return &fate{kind: fatePaused}
	}
	return nil
}

// meet is called when bytes or the end of s have reached its peer.
func (w *World) meet(s *socket) {
	ft := s.fate
	f := &s.out
	switch ft.kind {
	case fateRefused:
		// Met when it tried to connect.
	case fateQueue:
		if s.state == open && s.peer.state == open {
			w.resetBoth(s)
		}
	case fateOpen:
		if f.arrived > ft.after {
			w.resetBoth(s)
		}
	case fateHalf:
		if f.finArrived {
			w.resetBoth(s)
		}
	case fateClosing:
		if s.closed || s.peer.closed {
			w.resetBoth(s)
		}
	case fatePaused:
		if p := s.peer; s.state == open && p.state == open && !p.closed && p.ops[placeOf(backend.Read)] == nil && p.unread() > 0 {
			w.resetBoth(s)
		}
	case fateSilent:
		if f.arrived > ft.after && !ft.met {
			ft.met = true
			w.record(Doomed, s.host, s.id, int64(ft.kind), 0)
			w.probe(s)
			w.probe(s.peer)
		}
	case fateSlow:
		if f.arrived > ft.after && f.shutUntil <= w.now {
			ft.after = f.arrived + ft.after + 1
			f.shutUntil = w.after(ft.shut)
			w.push(f.shutUntil, event{kind: evWindow, s: s, gen: s.gen})
			w.record(Doomed, s.host, s.id, int64(ft.kind), int64(ft.shut))
		}
	}
}

// resetBoth is what a box in the middle does: both ends get a reset.
func (w *World) resetBoth(s *socket) {
	if s.fate.met {
		return
	}
	s.fate.met = true
	w.record(Doomed, s.host, s.id, int64(s.fate.kind), 0)
	for _, e := range [...]*socket{s, s.peer} {
		w.push(w.now, event{kind: evReset, s: e, gen: e.gen})
	}
}

var acceptErrors = [...]syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
	syscall.ECONNABORTED, syscall.EPERM, syscall.EPROTO,
}

// acceptError draws what goes wrong with an accept; 0 for nothing. What only
// concerns one connection ends that one.
func (w *World) acceptError(l *listener) syscall.Errno {
	r := &w.random[forAccept]
	if !r.chance(w.faults.AcceptError) {
		return 0
	}
	i := r.below(len(acceptErrors))
	if i >= 4 {
		s := l.pop()
		w.sendReset(s)
		w.shutDown(s)
	}
	return acceptErrors[i]
}

// callError draws a shortage that a call meets with that chance; 0 for none.
func (w *World) callError(chance float64, of ...syscall.Errno) syscall.Errno {
	r := &w.random[forCalls]
	if !r.chance(chance) {
		return 0
	}
	return of[r.below(len(of))]
}

func (w *World) openError() syscall.Errno {
	r := &w.random[forOpen]
	if !r.chance(w.faults.OpenError) {
		return 0
	}
	return acceptErrors[r.below(4)]
}
