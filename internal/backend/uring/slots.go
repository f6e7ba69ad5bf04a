//go:build linux

package uring

import (
	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// States of an Op, in Op.State; 0 is idle.
//
//	queued ──next Wait──▶ flying ──last completion──▶ idle
//	  │  ▲                  │ │
//	  │  └── to be retried ─┘ └──Cancel──▶ canceling ──last completion──▶ idle
//	  └──Cancel──▶ idle
//
// A quiet write that was sent whole has no completion: it goes from flying to
// settled, and from there to idle when Wait reports it.
const (
	queued uint32 = iota + 1
	flying
	canceling
	settled
)

// slot ties what the kernel was given to the Op that it is for. Its index and
// generation are the user_data of the submission, so that a completion finds its Op,
// and one that comes too late finds none.
type slot struct {
	op  *backend.Op
	aux *aux
	gen uint32
	// batch is the last Wait that reported a result of op with More; in a free slot it
	// is the next free one.
	batch uint32
	// polling is true while the submission is a poll that precedes the
	// operation proper.
	polling bool
	// patient is true while that poll stays armed and reports changes only: an earlier
	// one ended at once, to no avail.
	patient bool
	// parked is true for a Hangup that counts as flying although the kernel has refused
	// it: one on a file or device that the kernel cannot wait for, which has no one at
	// its other end.
	parked bool
	// quiet is true while the submission skips the completion of a success.
	quiet bool
	// lost is true once op's descriptor was found to belong to something else.
	lost bool
	// refused is true for an Op that was never armed and only has to be reported.
	refused bool
	// accepts is true for an orphan whose completions are connections.
	accepts bool
	// orphan is true if op has had its last result and was released while the kernel
	// still holds the submission.
	orphan bool
}

// aux is the memory that a submission refers to besides its bytes: on the heap, where
// nothing moves, and referred to by the slot until the last completion.
type aux struct {
	hdr  unix.Msghdr
	iov  []unix.Iovec
	addr sys.Sockaddr
	slab []byte // what a read without a buffer of its own fills
	some [8]unix.Iovec
}

const noSlot = ^uint32(0)

// slots is the table of slots, in blocks, which stay where they are.
type slots struct {
	blocks []*[blockSize]slot
	n      uint32 // slots that were ever used
	free   uint32
	spare  []*aux
}

const blockSize = 128

// at returns slot i, which must have been used before.
func (t *slots) at(i uint32) *slot { return &t.blocks[i/blockSize][i%blockSize] }

// take makes a slot for op.
func (t *slots) take(op *backend.Op) (uint32, *slot) {
	i := t.free
	if i == noSlot {
		i = t.n
		if i/blockSize == uint32(len(t.blocks)) {
			t.blocks = append(t.blocks, new([blockSize]slot))
		}
		t.n++
		t.at(i).gen = 1
	} else {
		t.free = t.at(i).batch
	}
	s := t.at(i)
	s.op, s.batch = op, 0
	return i, s
}

// drop frees slot i. Completions that still come for it find another
// generation.
func (t *slots) drop(i uint32) {
	s := t.at(i)
	if s.aux != nil {
		t.keepAux(s.aux)
	}
	gen := s.gen + 1
	if gen == 0 {
		gen = 1 // 0 marks the submissions that belong to no slot
	}
	*s = slot{gen: gen, batch: t.free}
	t.free = i
}

// aux returns the slot's aux, making one if needed.
func (t *slots) aux(s *slot) *aux {
	if s.aux == nil {
		s.aux = t.newAux()
	}
	return s.aux
}

func (t *slots) newAux() *aux {
	if n := len(t.spare); n > 0 {
		a := t.spare[n-1]
		t.spare = t.spare[:n-1]
		return a
	}
	a := new(aux)
	a.iov = a.some[:0]
	return a
}

// keepAux keeps a for another use, without what it refers to.
func (t *slots) keepAux(a *aux) {
	const keep = 64
	if len(t.spare) >= keep {
		return
	}
	a.hdr, a.slab = unix.Msghdr{}, nil
	clear(a.iov)
	if cap(a.iov) > 4*len(a.some) {
		a.iov = a.some[:0]
	}
	a.iov = a.iov[:0]
	t.spare = append(t.spare, a)
}

// data is the user_data of slot i.
func (t *slots) data(i uint32) uint64 { return uint64(t.at(i).gen)<<32 | uint64(i) }

// abandon releases slot i's Op; a later completion frees the slot.
func (t *slots) abandon(i uint32) {
	s := t.at(i)
	s.op, s.orphan = nil, true
}

// bury frees the slot with that user_data if it is an orphan.
func (t *slots) bury(data uint64) {
	i := uint32(data)
	if i < t.n && t.at(i).gen == uint32(data>>32) && t.at(i).orphan {
		t.drop(i)
	}
}

// accepting reports whether a completion with that user_data, whose Op was released,
// brings a connection.
func (t *slots) accepting(data uint64) bool {
	i := uint32(data)
	if i >= t.n {
		return false
	}
	s := t.at(i)
	return s.gen == uint32(data>>32) && s.accepts
}

// find returns the slot with that user_data, or nil if it is gone.
func (t *slots) find(data uint64) (uint32, *slot) {
	i := uint32(data)
	if i >= t.n {
		return noSlot, nil
	}
	if s := t.at(i); s.gen == uint32(data>>32) && s.op != nil {
		return i, s
	}
	return noSlot, nil
}
