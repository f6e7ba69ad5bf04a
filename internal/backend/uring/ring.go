//go:build linux

package uring

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is one io_uring: a queue of submissions, a queue of completions and the
// calls that pass the kernel's side of them. It knows nothing of Ops.
//
// The kernel reads the entries between sqHead and sqTail and writes those
// between cqHead and cqTail; each side moves one end of each queue.
type ring struct {
	fd       int
	flags    uint32 // of setup, as granted
	features uint32

	mem, sqeMem []byte

	sqHead, sqTail, sqFlags *uint32
	sqMask, sqSize          uint32
	sqes                    []sqe
	tail                    uint32 // entries filled in, shown to the kernel by enter

	cqHead, cqTail *uint32
	cqMask, cqSize uint32
	cqes           []cqe

	// The argument of a wait, here because the kernel reads it by address.
	arg eventsArg
	ts  timespec

	enters  uint64
	signals bool // signal was called
}

// newRing sets up a ring of at least entries submissions and completions completions,
// or reports why the system refuses to.
func newRing(entries, completions, flags uint32) (*ring, error) {
	p := params{flags: flags | setupCQSize | setupClamp, cqEntries: completions}
	fd, _, errno := syscall.RawSyscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("uring: io_uring_setup: %w", errno)
	}
	r := &ring{fd: int(fd), flags: p.flags, features: p.features}
	const needed = featSingleMmap | featNoDrop | featRWCurPos | featFastPoll | featExtArg
	if p.features&needed != needed {
		r.close()
		return nil, fmt.Errorf("uring: the kernel's io_uring lacks features (has %#x, needs %#x): %w", p.features, needed, syscall.ENOSYS)
	}
	if err := r.mmap(&p); err != nil {
		r.close()
		return nil, fmt.Errorf("uring: mapping the queues: %w", err)
	}
	return r, nil
}

func (r *ring) mmap(p *params) error {
	size := max(p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(cqe{})), p.sq.array+p.sqEntries*4)
	const prot, kind = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	var err error
	if r.mem, err = unix.Mmap(r.fd, offRing, int(size), prot, kind); err != nil {
		return err
	}
	if r.sqeMem, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), prot, kind); err != nil {
		return err
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[off])) }
	r.sqHead, r.sqTail, r.sqFlags = word(p.sq.head), word(p.sq.tail), word(p.sq.flags)
	r.sqMask, r.sqSize = *word(p.sq.ringMask), p.sqEntries
	r.cqHead, r.cqTail = word(p.cq.head), word(p.cq.tail)
	r.cqMask, r.cqSize = *word(p.cq.ringMask), p.cqEntries
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.mem[p.cq.cqes])), p.cqEntries)
	if p.flags&setupNoSQArray == 0 {
		// The array lets entries be submitted out of order; ours never are.
		array := unsafe.Slice(word(p.sq.array), p.sqEntries)
		for i := range array {
			array[i] = uint32(i)
		}
	}
	return nil
}

// close gives everything back. The kernel ends what is in flight some time later, on
// its own: memory that it was given must outlive that.
func (r *ring) close() {
	r.unmap()
	_ = unix.Close(r.fd)
	r.fd = -1
}

func (r *ring) unmap() {
	if r.sqeMem != nil {
		_ = unix.Munmap(r.sqeMem)
	}
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
	}
	r.sqeMem, r.mem = nil, nil
}

// next returns a cleared entry to fill in, or nil when the queue is full.
func (r *ring) next() *sqe {
	if r.tail-atomic.LoadUint32(r.sqHead) >= r.sqSize {
		return nil
	}
	e := &r.sqes[r.tail&r.sqMask]
	*e = sqe{}
	r.tail++
	return e
}

// taken reports whether the kernel has taken the entry that was filled in when
// tail was at.
func (r *ring) taken(at uint32) bool { return int32(atomic.LoadUint32(r.sqHead)-at) > 0 }

// unsubmitted is how many filled entries the kernel has not taken.
func (r *ring) unsubmitted() uint32 { return r.tail - atomic.LoadUint32(r.sqHead) }

// ready is how many completions can be taken without a system call.
func (r *ring) ready() uint32 { return atomic.LoadUint32(r.cqTail) - *r.cqHead }

// peek returns the i-th completion that is ready.
func (r *ring) peek(i uint32) *cqe { return &r.cqes[(*r.cqHead+i)&r.cqMask] }

// drop removes n completions.
func (r *ring) drop(n uint32) { atomic.StoreUint32(r.cqHead, *r.cqHead+n) }

// pendingWork reports whether entering the kernel without waiting could bring
// completions. It is also true if the kernel cannot tell.
func (r *ring) pendingWork() bool {
	return r.flags&setupTaskrunFlag == 0 || r.hidden()
}

// hidden reports whether the kernel says that it has completions to collect.
func (r *ring) hidden() bool { return atomic.LoadUint32(r.sqFlags)&(sqCQOverflow|sqTaskrun) != 0 }

// overflown reports whether completions wait outside the queue.
func (r *ring) overflown() bool { return atomic.LoadUint32(r.sqFlags)&sqCQOverflow != 0 }

// enter submits what was filled in and, if collect is set, makes the kernel post
// completions. If wait is set too, it waits for one: for at most timeout, or for ever
// if that is negative. In either case it enters as a system call that may block: the
// runtime can then run the garbage collector and other goroutines.
func (r *ring) enter(collect, wait bool, timeout time.Duration) syscall.Errno {
	n := r.unsubmitted()
	atomic.StoreUint32(r.sqTail, r.tail)
	var flags, atLeast, arg, size uintptr
	if collect {
		flags |= enterGetEvents
	}
	if wait {
		atLeast = 1
		if timeout >= 0 {
			r.ts = timespec{sec: int64(timeout / time.Second), nsec: int64(timeout % time.Second)}
			r.arg.ts = uint64(uintptr(unsafe.Pointer(&r.ts)))
			flags |= enterExtArg
			arg, size = uintptr(unsafe.Pointer(&r.arg)), unsafe.Sizeof(r.arg)
		}
	}
	r.enters++
	_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), atLeast, flags, arg, size)
	return errno
}

// register is io_uring_register.
func (r *ring) register(call uintptr, arg unsafe.Pointer, n uintptr) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), call, uintptr(arg), n, 0, 0)
	return errno
}

// signal makes the ring write to an eventfd when it has something to collect. Calling
// it again has no effect.
func (r *ring) signal(fd int) syscall.Errno {
	if r.signals {
		return 0
	}
	n := int32(fd)
	errno := r.register(registerEventfd, unsafe.Pointer(&n), 1)
	r.signals = errno == 0
	return errno
}

// unsignal undoes signal.
func (r *ring) unsignal() {
	if r.signals {
		r.register(unregisterEventfd, nil, 0)
		r.signals = false
	}
}

// enable starts a ring that was set up disabled and makes the calling thread
// its only issuer.
func (r *ring) enable() syscall.Errno {
	return r.register(registerEnableRings, nil, 0)
}
