package sim

import (
	"slices"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// Event is something that happens, as the hooks see it.
type Event struct {
	At     time.Duration
	What   What
	Host   string         // whose socket it is
	Socket uint32         // which one, by the trace's numbers
	Handle backend.Handle // its handle, or None
	Local  backend.Addr   // its addresses
	Remote backend.Addr
	Kind   backend.Kind // of a Result's Op
	N      uint64       // Arrival, Ack: bytes since the beginning
	End    bool         // Arrival: the end comes with it
}

func (w *World) describe(what What, s *socket) Event {
	e := Event{At: w.Now(), What: what, Handle: backend.None}
	if s != nil {
		e.Host, e.Socket, e.Handle, e.Local, e.Remote = s.host.name, s.id, s.h, s.local, s.remote
	}
	return e
}

// Hold keeps events back until they are released, so that a test decides the
// order. Results that are held stay with the backend: their Ops are armed and can
// be canceled.
type Hold struct {
	w      *World
	match  func(Event) bool
	events []held
}

// held is an event of the wire, or the result in a place.
type held struct {
	ev    event
	s     *socket
	place int // -1 for an event
	gen   uint32
	about Event
}

// Hold holds what match returns true for when it would happen: events of the
// wire and Results. What follows a held Arrival in the same direction of a
// connection is held with it. match must not touch the world.
func (w *World) Hold(match func(Event) bool) *Hold {
	h := &Hold{w: w, match: match}
	w.holds = append(w.holds, h)
	return h
}

// Held lists what is held, in the order it would have happened.
func (h *Hold) Held() []Event {
	h.prune()
	out := make([]Event, len(h.events))
	for i := range h.events {
		out[i] = h.events[i].about
	}
	return out
}

// prune drops what no longer counts.
func (h *Hold) prune() {
	h.events = slices.DeleteFunc(h.events, func(k held) bool {
		if k.place >= 0 {
			return k.s.opGen[k.place] != k.gen
		}
		if k.ev.current() {
			return false
		}
		h.w.discount(&k.ev)
		return true
	})
}

// Release lets the i-th of Held happen now; false if there is none. Of a
// connection's direction the later includes the earlier, as with TCP.
func (h *Hold) Release(i int) bool {
	h.prune()
	if i < 0 || i >= len(h.events) {
		return false
	}
	k := h.events[i]
	h.events = slices.Delete(h.events, i, i+1)
	h.w.let(k)
	return true
}

// ReleaseAll lets everything happen that is held, in order; what comes is held
// again.
func (h *Hold) ReleaseAll() {
	for h.Release(0) {
	}
}

// End releases all and holds no more.
func (h *Hold) End() {
	h.w.holds = slices.DeleteFunc(h.w.holds, func(x *Hold) bool { return x == h })
	h.ReleaseAll()
}

func (w *World) let(k held) {
	if k.place >= 0 {
		k.s.held &^= 1 << k.place
		// Holds that match it still must not take it again.
		k.s.passed |= 1 << k.place
		k.s.kick()
		return
	}
	w.discount(&k.ev)
	w.fire(&k.ev)
}

// holdEvent gives ev to the first Hold that wants it.
func (w *World) holdEvent(ev *event) bool {
	e := w.describe(kindWhats[ev.kind], ev.s)
	switch {
	case ev.kind == evDatagram || ev.kind == evUnreachable:
		w.describePacket(&e, ev)
	case ev.s == nil:
		return false
	default:
		e.N, e.End = ev.pos, ev.fin
	}
	for _, h := range w.holds {
		if h.follows(ev) || h.match(e) {
			h.events = append(h.events, held{ev: *ev, s: ev.s, place: -1, about: e})
			return true
		}
	}
	return false
}

// follows reports whether ev comes behind an Arrival that h holds.
func (h *Hold) follows(ev *event) bool {
	if ev.kind != evArrive && ev.kind != evEstablish {
		return false
	}
	return slices.ContainsFunc(h.events, func(k held) bool {
		return k.place < 0 && k.s == ev.s && (k.ev.kind == evArrive || k.ev.kind == evEstablish) && k.ev.current()
	})
}

// holdResult gives the result in a place to the first Hold that wants it.
func (w *World) holdResult(s *socket, p int) bool {
	bit := uint8(1) << p
	if s.passed&bit != 0 {
		s.passed &^= bit
		return false
	}
	e := w.describe(Result, s)
	e.Kind = s.ops[p].Kind
	for _, h := range w.holds {
		if h.match(e) {
			s.held |= bit
			h.events = append(h.events, held{s: s, place: p, gen: s.opGen[p], about: e})
			return true
		}
	}
	return false
}

// ChooseResult lets f choose, of several handles that have results in one Wait,
// whose are next; nil ends that. An Event tells the handle and the first of its
// Ops that is due.
func (w *World) ChooseResult(f func([]Event) int) { w.pickResult = f }

func (b *Backend) pickByHand(n int) int {
	all := make([]Event, n)
	for i := range all {
		s := b.ready.at(i)
		all[i] = b.w.describe(Result, s)
		for p := range s.ops {
			if s.ops[p] != nil && s.due(p) {
				all[i].Kind = s.ops[p].Kind
				break
			}
		}
	}
	return min(max(b.w.pickResult(all), 0), n-1)
}

// ChooseLoop lets f choose which loop gets the next turn, of those that have
// something to do; nil ends that. A loop is named by its host and the number of
// its backend: "a/0".
func (w *World) ChooseLoop(f func(names []string) int) { w.pickLoop = f }

// rule changes one call.
type rule struct {
	what  What
	host  *Host // nil: any
	left  int
	err   error
	short int
}

// Fail makes the nth call of a kind from now on fail with err; 1 is the next. A
// call of an Op is counted when it would have had a result: a failed ReadCall
// leaves the bytes where they are, a failed AcceptCall the connection, and a
// close closes though it fails.
func (w *World) Fail(call What, nth int, err error) {
	w.rules = append(w.rules, &rule{what: call, left: nth, err: err})
}

// Fail is World.Fail for the calls of one host.
func (h *Host) Fail(call What, nth int, err error) {
	h.w.rules = append(h.w.rules, &rule{what: call, host: h, left: nth, err: err})
}

// Short makes the nth ReadCall or WriteCall from now on take at most n bytes.
func (w *World) Short(call What, nth, n int) {
	w.rules = append(w.rules, &rule{what: call, left: nth, short: n})
}

// Short is World.Short for the calls of one host.
func (h *Host) Short(call What, nth, n int) {
	h.w.rules = append(h.w.rules, &rule{what: call, host: h, left: nth, short: n})
}

// Calls is how many calls of a kind there have been, to fail each of them once.
func (w *World) Calls(call What) int {
	if call >= whats {
		return 0
	}
	return w.calls[call]
}

// intercept counts a call and applies the rules to it.
func (w *World) intercept(call What, h *Host, short *int) error {
	w.calls[call]++
	if len(w.rules) == 0 {
		return nil
	}
	var err error
	w.rules = slices.DeleteFunc(w.rules, func(r *rule) bool {
		if r.what != call || r.host != nil && r.host != h {
			return false
		}
		if r.left--; r.left > 0 {
			return false
		}
		if r.err != nil {
			err = r.err
		}
		if r.short > 0 && short != nil {
			*short = r.short
		}
		return true
	})
	return err
}
