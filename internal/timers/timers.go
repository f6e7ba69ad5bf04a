// Package timers keeps deadlines: a heap of timers that live inside the
// objects they serve, so that setting one allocates nothing.
//
//	                 key                 Timer (in its owner)
//	heap  ┌────────────────────┐        ┌────────────────────┐
//	  0   │ when  seq   timer ─┼───────▶│ when, seq   true   │
//	 1–4  │ ...                │◀───────┼ pos         key    │
//	5–20  │ ...                │        │ placed      in heap│
//	      └────────────────────┘        └────────────────────┘
//
// The heap is 4-ary and holds the keys themselves, so a comparison touches no
// timer. Times are nanoseconds on whatever clock the caller uses. Equal
// deadlines come out in the order they were set.
//
// A timer that is set to a later time is not moved: its true key is written into it,
// and the heap learns it when the old place comes to the top. The key in the heap is
// thus never later than the true one, and the order that comes out is exactly that of
// the true keys. An idle timeout that every message pushes back costs a few stores.
//
// A Heap and its timers belong to one goroutine.
package timers

// Owner is what a timer serves. The heap never calls it; the code that pops a timer does.
type Owner interface {
	// Due says that t, which is no longer in the heap, has come due.
	Due(t *Timer)
}

// Timer is a deadline. It is embedded in the object that it serves and must not be
// copied while it is pending. Its zero value is ready to be set.
type Timer struct {
	// Owner leads back to the object that the timer serves. The user sets it.
	Owner Owner

	when   int64
	seq    uint64
	placed int64 // the deadline the heap knows; at most when
	pos    int32 // index in the heap plus one; 0 exactly when not pending
}

// When returns the deadline that was last set, in nanoseconds.
func (t *Timer) When() int64 { return t.when }

// Pending reports whether t is set: in a heap, and neither removed nor popped.
func (t *Timer) Pending() bool { return t.pos != 0 }

// key is a place in the heap.
type key struct {
	when  int64
	seq   uint64
	timer *Timer
}

func (a *key) before(b *key) bool {
	return a.when < b.when || a.when == b.when && a.seq < b.seq
}

// Heap holds pending timers. Its zero value is empty and ready.
type Heap struct {
	keys []key
	seq  uint64
}

const (
	arity = 4
	// minCap is how many keys a heap keeps room for once it has held that many; above
	// it, room that is three quarters empty is halved.
	minCap = 1024
)

// Len returns how many timers are pending.
func (h *Heap) Len() int { return len(h.keys) }

// Set makes t due at when, whether or not it is pending in h. Among timers with the
// same deadline it counts as the latest. t must not be pending in another heap.
func (h *Heap) Set(t *Timer, when int64) {
	h.seq++
	t.when, t.seq = when, h.seq
	if t.pos == 0 {
		t.placed = when
		i := len(h.keys)
		h.keys = append(h.keys, key{})
		h.up(i, key{when, t.seq, t})
		return
	}
	if when >= t.placed {
		return
	}
	t.placed = when
	h.up(int(t.pos-1), key{when, t.seq, t})
}

// Remove takes t out of h and reports whether it was pending.
func (h *Heap) Remove(t *Timer) bool {
	if t.pos == 0 {
		return false
	}
	i := int(t.pos - 1)
	t.pos = 0
	last := len(h.keys) - 1
	k := h.keys[last]
	h.keys[last] = key{}
	h.keys = h.keys[:last]
	if i != last {
		if i > 0 && k.before(&h.keys[(i-1)/arity]) {
			h.up(i, k)
		} else {
			h.down(i, k)
		}
	}
	h.shrink()
	return true
}

// Clear takes out every timer.
func (h *Heap) Clear() {
	for i := range h.keys {
		h.keys[i].timer.pos = 0
	}
	h.keys = nil
}

// Min returns the earliest deadline; false when nothing is pending.
func (h *Heap) Min() (when int64, ok bool) {
	if !h.settle() {
		return 0, false
	}
	return h.keys[0].when, true
}

// Pop takes out and returns the first timer that is due at now (its deadline is
// now or earlier); nil when none is.
func (h *Heap) Pop(now int64) *Timer {
	// A top that is not yet due by its key in the heap is not due by its true key either.
	if len(h.keys) == 0 || h.keys[0].when > now {
		return nil
	}
	if !h.settle() || h.keys[0].when > now {
		return nil
	}
	t := h.keys[0].timer
	h.Remove(t)
	return t
}

// settle makes the top of the heap a timer in its true place; false when the
// heap is empty.
func (h *Heap) settle() bool {
	if len(h.keys) == 0 {
		return false
	}
	for {
		top := &h.keys[0]
		t := top.timer
		if top.seq == t.seq {
			return true
		}
		t.placed = t.when
		h.down(0, key{t.when, t.seq, t})
	}
}

// up puts k at i or above, where it belongs.
func (h *Heap) up(i int, k key) {
	keys := h.keys
	for i > 0 {
		parent := (i - 1) / arity
		if !k.before(&keys[parent]) {
			break
		}
		keys[i] = keys[parent]
		keys[i].timer.pos = int32(i + 1)
		i = parent
	}
	keys[i] = k
	k.timer.pos = int32(i + 1)
}

// down puts k at i or below, where it belongs.
func (h *Heap) down(i int, k key) {
	keys := h.keys
	for {
		first := i*arity + 1
		if first >= len(keys) {
			break
		}
		least := first
		for c := first + 1; c < min(first+arity, len(keys)); c++ {
			if keys[c].before(&keys[least]) {
				least = c
			}
		}
		if !keys[least].before(&k) {
			break
		}
		keys[i] = keys[least]
		keys[i].timer.pos = int32(i + 1)
		i = least
	}
	keys[i] = k
	k.timer.pos = int32(i + 1)
}

func (h *Heap) shrink() {
	if c := cap(h.keys); c > minCap && len(h.keys) < c/4 {
		keys := make([]key, len(h.keys), max(c/2, minCap))
		copy(keys, h.keys)
		h.keys = keys
	}
}
