package epoll

import (
	"iter"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// The states of an Op.
//
//	idle ──Submit──▶ armed ──Wait──▶ idle
//	                   │
//	                   └─descriptor lost──▶ queued ──Wait──▶ idle
const (
	idle   = iota
	armed  // in its slot
	queued // its last result is in Backend.failed
)

// slot is what is known about one descriptor, in 56 bytes. Its address does not change.
type slot struct {
	fd    int32
	gen   uint32 // counts the owners of the number; events carry it
	mask  uint16 // the events registered, if flags says registered
	flags flags
	errno uint16 // the error that the kernel has reported and forgotten
	class sys.Class
	ready conds

	rd   *backend.Op // Read, Accept, SpliceIn, RecvFrom
	wr   *backend.Op // Write, Connect, SpliceOut, SendTo
	hup  *backend.Op // Hangup
	cond *backend.Op // Ready

	more *extra
}

// extra is what only some handles have: listeners on a path, adopted
// descriptors, raw ones.
type extra struct {
	file    *sys.Bound            // the listener's own
	options []backend.OptionValue // to set on what a Unix listener accepts
	adopted sys.Descriptor
	index   int // in verifier.slots
}

// flags are the facts about a slot.
type flags uint16

const (
	used       flags = 1 << iota // the number is a handle
	registered                   // the kernel knows it, with mask
	edge                         // registered edge-triggered
	always                       // the kernel cannot watch it: it is always ready
	waiting                      // in the queue; true even if its owner has changed since
	inet                         // a TCP or UDP socket
	ipv6                         // of family 6
	foreign                      // from outside: others know its number
	raw                          // foreign and not adopted: only watched
	lost                         // closed behind our back: the number is not ours
	blocks                       // in blocking mode: only Recv and Send may be used
	master                       // a pseudo-terminal's master side
	full                         // the last read of the Op in rd got readSize bytes
	stale                        // its level-triggered hints are from an earlier Wait
)

// conds are the hints of a slot: what the kernel last reported, less what has turned
// out to be over. Level-triggered ones live until the slot is served; edge-triggered
// ones until a call says EAGAIN.
type conds uint8

const (
	canRead conds = 1 << iota
	canWrite
	tail   // a short read does not mean that all was read
	hungUp // both directions are over
	erred  // an error is pending
)

// place returns where an Op of the kind is kept.
func (s *slot) place(k backend.Kind) **backend.Op {
	switch k {
	case backend.Read, backend.Accept, backend.SpliceIn, backend.RecvFrom:
		return &s.rd
	case backend.Write, backend.Connect, backend.SpliceOut, backend.SendTo:
		return &s.wr
	case backend.Hangup:
		return &s.hup
	case backend.Ready:
		return &s.cond
	}
	return nil
}

func (s *slot) err() syscall.Errno { return syscall.Errno(s.errno) }

func (s *slot) places() [4]**backend.Op {
	return [4]**backend.Op{&s.rd, &s.wr, &s.hup, &s.cond}
}

// idle reports whether nothing is armed.
func (s *slot) idle() bool {
	return s.rd == nil && s.wr == nil && s.hup == nil && s.cond == nil
}

// watches reports whether a Ready Op wants to know about e.
func (s *slot) watches(e backend.Events) bool {
	return s.cond != nil && s.cond.Events&e != 0
}

// due reports whether, going by the hints, something that is armed could go on.
func (s *slot) due() bool {
	r := s.ready
	return s.rd != nil && r&canRead != 0 ||
		s.wr != nil && r&canWrite != 0 ||
		s.hup != nil && r&(hungUp|erred) != 0 ||
		s.cond != nil && (r&(hungUp|erred) != 0 ||
			r&canRead != 0 && s.watches(backend.Readable) ||
			r&canWrite != 0 && s.watches(backend.Writable))
}

const pageSize = 146 // slots: just under the allocator's 8 KiB

// table holds the slots by descriptor, in pages so that they stay where they
// are.
type table struct {
	pages []*[pageSize]slot
}

// at returns the slot of a descriptor, or nil if it was never used.
func (t *table) at(fd int32) *slot {
	if fd < 0 || int(fd) >= len(t.pages)*pageSize {
		return nil
	}
	page := t.pages[fd/pageSize]
	if page == nil {
		return nil
	}
	return &page[fd%pageSize]
}

// find returns the slot of a handle, or nil if h is not one.
func (t *table) find(h backend.Handle) *slot {
	if s := t.at(int32(h)); s != nil && s.flags&used != 0 {
		return s
	}
	return nil
}

// grow is at, but makes the slot if needed.
func (t *table) grow(fd int32) *slot {
	i := int(fd / pageSize)
	for len(t.pages) <= i {
		t.pages = append(t.pages, nil)
	}
	if t.pages[i] == nil {
		t.pages[i] = new([pageSize]slot)
	}
	s := &t.pages[i][fd%pageSize]
	s.fd = fd
	return s
}

// all returns every slot that was ever used.
func (t *table) all() iter.Seq[*slot] {
	return func(yield func(*slot) bool) {
		for _, page := range t.pages {
			if page == nil {
				continue
			}
			for i := range page {
				if page[i].gen != 0 && !yield(&page[i]) {
					return
				}
			}
		}
	}
}

// start makes s the slot of a new owner.
func (s *slot) start(class sys.Class, f flags) {
	*s = slot{fd: s.fd, gen: s.gen + 1, class: class, flags: used | f | s.flags&waiting}
	if s.gen == 0 { // wrapped: 0 is the waker's, and means never used
		s.gen = 1
	}
}

// release ends the owner's use of the slot. A place in the queue stays taken: the next
// owner is served there, by hints of its own.
func (s *slot) release() {
	*s = slot{fd: s.fd, gen: s.gen, flags: s.flags & waiting}
}

// queue holds the slots to serve, in two rounds: those that the running round has not
// reached yet, and those that asked again or came since. The kernel is asked between
// rounds, so that a few busy handles do not hide the others.
type queue struct {
	now, next []int32
	head      int // of now
}

// push adds s to the next round, once.
func (q *queue) push(s *slot) {
	if s.flags&waiting == 0 {
		s.flags |= waiting
		q.next = append(q.next, s.fd)
	}
}

// turn starts the next round; the running one must be over.
func (q *queue) turn() {
	q.now, q.next = q.next, q.now[:0]
	q.head = 0
}

// alone reports whether the slot that was popped last is the only one of its round.
func (q *queue) alone() bool { return len(q.now) == 1 }

func (q *queue) over() bool { return q.head == len(q.now) }

func (q *queue) pop() int32 {
	q.head++
	return q.now[q.head-1]
}

func (q *queue) empty() bool { return q.over() && len(q.next) == 0 }
