//go:build linux

package uring

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// buffers is a ring of provided buffers: memory that receives share and the
// kernel hands out when bytes arrive, so that an idle connection holds none.
//
//	in the ring ──kernel fills──▶ lent to the loop ──▶ retired ──next Wait──▶ in the ring
//
// With incremental consumption a buffer stays in the ring while receives take one piece
// of it after another, in the order of their completions; without it, each receive
// takes a whole buffer.
type buffers struct {
	group       uint16
	incremental bool
	size        int // of each, in bytes
	mem         []byte
	ringMem     []byte
	entries     []bufferEntry
	mask        uint16
	tail        uint16
	used        []int32  // incremental: how much of each buffer was consumed
	retired     []uint16 // lent out to their end; they go back at the next Wait
}

// newBuffers registers count buffers (a power of two) of size bytes with r.
func newBuffers(r *ring, group uint16, count, size int, incremental bool) (*buffers, error) {
	b := &buffers{
		group: group, incremental: incremental, size: size, mask: uint16(count - 1),
		used: make([]int32, count), retired: make([]uint16, 0, count),
	}
	const prot, kind = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	var err error
	if b.ringMem, err = unix.Mmap(-1, 0, count*int(unsafe.Sizeof(bufferEntry{})), prot, kind); err != nil {
		return nil, fmt.Errorf("uring: memory for the buffer ring: %w", err)
	}
	if b.mem, err = unix.Mmap(-1, 0, count*size, prot, kind); err != nil {
		b.free()
		return nil, fmt.Errorf("uring: memory for buffers: %w", err)
	}
	b.entries = unsafe.Slice((*bufferEntry)(unsafe.Pointer(&b.ringMem[0])), count)
	reg := bufferRingReg{addr: uint64(uintptr(unsafe.Pointer(&b.ringMem[0]))), entries: uint32(count), group: group}
	if incremental {
		reg.flags = bufferRingIncremental
	}
	if errno := r.register(registerBufferRing, unsafe.Pointer(&reg), 1); errno != 0 {
		b.free()
		if errno == syscall.EINVAL {
			return nil, fmt.Errorf("uring: the kernel lacks provided buffer rings: %w", syscall.ENOSYS)
		}
		return nil, fmt.Errorf("uring: registering the buffer ring: %w", errno)
	}
	for id := range count {
		b.retired = append(b.retired, uint16(id))
	}
	b.takeBack()
	return b, nil
}

// free unmaps the memory. The kernel must be done with it.
func (b *buffers) free() {
	if b.mem != nil {
		_ = unix.Munmap(b.mem)
	}
	_ = unix.Munmap(b.ringMem)
	b.mem, b.ringMem, b.entries = nil, nil, nil
}

// takeBack returns the retired buffers to the ring.
func (b *buffers) takeBack() {
	if len(b.retired) == 0 {
		return
	}
	for _, id := range b.retired {
		e := &b.entries[b.tail&b.mask]
		e.addr = uint64(uintptr(unsafe.Pointer(&b.mem[int(id)*b.size])))
		e.length = uint32(b.size)
		e.id = id
		b.used[id] = 0
		b.tail++
	}
	b.retired = b.retired[:0]
	// There is no 16-bit atomic store; the tail's neighbor, the first entry's id, is
	// ours and keeps its value.
	var both struct {
		_    [0]uint32 // aligns
		id   uint16
		tail uint16
	}
	both.id, both.tail = b.entries[0].id, b.tail
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&b.entries[0].id)), *(*uint32)(unsafe.Pointer(&both)))
}

// filled returns the n bytes that the completion with these flags brought in, and
// retires its buffer if that was the last of it. It has to see each completion that
// names a buffer, in order, whether anyone wants it or not.
func (b *buffers) filled(flags uint32, n int) []byte {
	id := uint16(flags >> cqeBufferShift)
	start := int(id)*b.size + int(b.used[id])
	if b.incremental && flags&cqeBufferMore != 0 {
		b.used[id] += int32(n)
	} else {
		b.retired = append(b.retired, id)
	}
	return b.mem[start : start+n : start+n]
}
