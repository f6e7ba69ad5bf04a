//go:build windows

package iocp

import (
	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
)

// A slot is what the system knows of one operation in flight: it is named by the address of
// ov, and everything in it stays in place until the operation's packet has come, whatever
// becomes of the Op, the handle and the socket meanwhile. The table keeps it and what it
// points to reachable, and Go's heap moves nothing. A runtime.Pinner would say the same, but
// it ends the program if a loop that was never closed is collected.
//
//	free ──take──▶ flying ──packet──▶ free
//	                 │                 ▲
//	                 └─leave─▶ orphan ─┘   (its packet is no one's result)
type slot struct {
	ov   windows.Overlapped // first: a packet's address of it is the slot's
	none windows.WSABuf     // the empty buffer of a probe
	kind backend.Kind
	h    *handle // nil: free, or an orphan
	aux  *aux    // nil for a probe
	next *slot   // of the free ones
	used bool    // flying or an orphan
}

// aux is what operations need besides; a probe, which every idle connection has, needs
// nothing of it.
type aux struct {
	bufs     [sendPieces]windows.WSABuf
	n        int // of bufs
	poll     pollInfo
	addr     sockaddr
	accepted windows.Handle // AcceptEx: the socket that becomes the connection
	names    [2 * acceptRoom]byte
	got      uint32
	data     []byte // a datagram that waits
	next     *aux
}

const (
	sendPieces = 16        // of a send in flight
	sendMost   = 128 << 10 // bytes of it
	slotPage   = 64        // slots are made in pages, which stay where they are
	auxKept    = 64        // unused ones that are kept
)

// slots are the slots of a backend: as many as there were ever in flight at once.
type slots struct {
	free  *slot
	pages []*[slotPage]slot
	spare *aux
	kept  int // in spare
}

func (t *slots) take(h *handle, kind backend.Kind, more bool) *slot {
	if t.free == nil {
		page := new([slotPage]slot)
		t.pages = append(t.pages, page)
		for i := range page {
			page[i].next = t.free
			t.free = &page[i]
		}
	}
	sl := t.free
	t.free = sl.next
	*sl = slot{kind: kind, h: h, used: true}
	if !more {
		return sl
	}
	if a := t.spare; a != nil {
		t.spare, a.next = a.next, nil
		t.kept--
		sl.aux = a
	} else {
		sl.aux = &aux{}
	}
	sl.aux.accepted = windows.InvalidHandle
	return sl
}

// drop makes sl free: its packet has come, or none will.
func (t *slots) drop(sl *slot) {
	if a := sl.aux; a != nil {
		clear(a.bufs[:a.n])
		a.n = 0
		if cap(a.data) > 4<<10 {
			a.data = nil
		}
		if t.kept < auxKept {
			a.next, t.spare = t.spare, a
			t.kept++
		}
	}
	*sl = slot{next: t.free}
	t.free = sl
}

// point makes the pieces of vec, up to sendMost bytes, what sl sends, and keeps them in
// place until then.
func (a *aux) point(vec [][]byte) {
	left := sendMost
	for _, p := range vec {
		if len(p) == 0 {
			continue
		}
		if a.n == len(a.bufs) || left == 0 {
			return
		}
		p = p[:min(len(p), left)]
		left -= len(p)
		a.bufs[a.n] = windows.WSABuf{Len: uint32(len(p)), Buf: &p[0]}
		a.n++
	}
}

// keep makes a copy of vec what sl sends, as one piece.
func (a *aux) keep(vec [][]byte) {
	a.data = a.data[:0]
	for _, p := range vec {
		a.data = append(a.data, p...)
	}
	a.bufs[0] = windows.WSABuf{Len: uint32(len(a.data))}
	a.n = 1
	if len(a.data) > 0 {
		a.bufs[0].Buf = &a.data[0]
	}
}
