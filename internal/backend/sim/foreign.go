package sim

import (
	"fmt"
	"strconv"
	"time"
)

// Foreign is a loop of a host's program that is not weir's, such as a GUI's: it runs what
// is posted to it, in order, and steps of its own in between. The seed decides when each
// comes. It belongs to the world's goroutine.
type Foreign struct {
	h     *Host
	id    int
	own   func() // a step of its own; nil: it has none
	queue []func()
	at    int64 // when it runs the next one
	busy  bool  // it is running one
	over  bool  // its host has crashed
}

// foreignStep is the longest time between two steps of a foreign loop: a frame of 60 Hz.
const foreignStep = 16 * time.Millisecond

// Foreign makes a foreign loop on the host, whose own steps call own, if that is not nil.
func (h *Host) Foreign(own func()) *Foreign {
	f := &Foreign{h: h, id: len(h.w.foreign), own: own}
	h.w.foreign = append(h.w.foreign, f)
	return f
}

// Post has the loop run fn. After a crash of its host it has no effect.
func (f *Foreign) Post(fn func()) {
	if f.over {
		return
	}
	f.queue = append(f.queue, fn)
	if len(f.queue) == 1 {
		f.rest()
	}
}

// rest draws when the next step comes: often at once.
func (f *Foreign) rest() {
	w := f.h.w
	f.at = w.now
	if r := &w.random[forForeign]; r.below(2) == 0 {
		f.at = w.after(r.upTo(foreignStep))
	}
}

func (f *Foreign) name() string { return f.h.name + "/foreign" + strconv.Itoa(f.id) }

// end drops what was posted.
func (f *Foreign) end() bool {
	f.over, f.queue = true, nil
	return true
}

// stepForeign runs one callback of f.
func (w *World) stepForeign(f *Foreign) {
	w.stats.Turns++
	if w.still++; w.still > spinLimit && w.err == nil {
		w.err = fmt.Errorf("%w: %s, at %v", ErrSpin, f.name(), w.Now())
	}
	w.record(ForeignStep, f.h, uint32(f.id), int64(len(f.queue)), 0)
	f.busy = true
	if f.own != nil && w.random[forForeign].below(2) == 0 {
		f.own()
	} else {
		fn := f.queue[0]
		f.queue = append(f.queue[:0], f.queue[1:]...)
		fn()
	}
	f.busy = false
	f.rest()
}
