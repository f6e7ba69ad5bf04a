package epoll

import (
	"math"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

// generation 0 marks the waker's events: no slot has it.
const wakerGen = 0

func epollCtl(ep, op int, fd int32, mask, gen uint32) syscall.Errno {
	// The kernel's 64 bits of user data are Fd and Pad of the structure.
	e := unix.EpollEvent{Events: mask, Fd: fd, Pad: int32(gen)}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(ep), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}

func (b *Backend) ctl(op int, s *slot, mask uint16) syscall.Errno {
	b.calls.Ctl++
	return epollCtl(b.ep, op, s.fd, s.events(mask), s.gen)
}

// events adds to a mask what does not fit into it.
func (s *slot) events(mask uint16) uint32 {
	m := uint32(mask)
	if s.flags&edge != 0 {
		m |= unix.EPOLLET
	}
	return m
}

func (b *Backend) addWaker(ep int) syscall.Errno {
	return epollCtl(ep, unix.EPOLL_CTL_ADD, int32(b.wake.fd), unix.EPOLLIN|unix.EPOLLET, wakerGen)
}

// need is what the kernel has to watch for, given what is armed.
func (s *slot) need() uint16 {
	var m uint16
	if s.rd != nil || s.watches(backend.Readable) {
		m |= unix.EPOLLIN
	}
	if s.wr != nil || s.watches(backend.Writable) {
		m |= unix.EPOLLOUT
	}
	if s.flags&edge != 0 {
		// Edges cost nothing while nothing changes: once registered, never removed. But
		// a Unix socket has an edge at every read by its peer, so writing is watched
		// only from the first time that it had to wait. EPOLLPRI reports urgent data,
		// before which a read stops short.
		m |= s.mask | unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI
	}
	return m
}

// watch makes sure that the kernel reports what s needs.
func (b *Backend) watch(s *slot) syscall.Errno {
	if s.flags&always != 0 {
		return 0
	}
	need := s.need()
	op := unix.EPOLL_CTL_ADD
	if s.flags&registered != 0 {
		if s.mask&need == need {
			return 0
		}
		op = unix.EPOLL_CTL_MOD
	}
	errno := b.ctl(op, s, need)
	switch errno {
	case 0:
		s.flags |= registered
		s.mask = need
	case unix.EPERM:
		// A plain file, or a device such as /dev/null.
		s.flags |= always
		s.flags &^= edge
		s.ready = canRead | canWrite
		return 0
	case unix.ENOENT:
		// The number now belongs to another file.
		return unix.EBADF
	}
	return errno
}

// narrow drops events that no one waits for from a level-triggered registration.
func (b *Backend) narrow(s *slot, drop uint16) {
	if drop &= s.mask; drop == 0 || s.flags&registered == 0 {
		return
	}
	if errno := b.ctl(unix.EPOLL_CTL_MOD, s, s.mask&^drop); errno != 0 {
		b.lose(s)
		return
	}
	s.mask &^= drop
}

// unwatch removes the registration. An error means that the number no longer belongs to
// the handle. If the file lives on under another number, so does the registration, as
// the next event for it will show.
func (b *Backend) unwatch(s *slot) syscall.Errno {
	if s.flags&registered == 0 {
		return 0
	}
	s.flags &^= registered
	s.mask = 0
	return b.ctl(unix.EPOLL_CTL_DEL, s, 0)
}

// collect asks the kernel for events, and takes wakes. It returns how many
// events came and whether a wake did.
func (b *Backend) collect(timeout time.Duration) (n int, wake bool, err error) {
	if b.pace.due(b) {
		runtime.Gosched()
	}
	if timeout != 0 && !b.wake.sleep() {
		timeout, wake = 0, true
	}
	blocking := timeout != 0
	b.told = false
	n, errno := b.poll(timeout)
	if blocking || b.wake.state.Load() == woken {
		wake = b.wake.rise() || wake
	}
	if errno == unix.EINTR {
		return 0, wake, nil
	}
	if errno != 0 {
		return 0, wake, os.NewSyscallError("epoll_wait", errno)
	}
	for i := range b.events[:n] {
		b.note(&b.events[i])
	}
	if b.zombies.due() {
		b.rebuild()
	}
	return n, wake, nil
}

func (b *Backend) poll(timeout time.Duration) (int, syscall.Errno) {
	b.calls.Wait++
	var (
		n     uintptr
		errno syscall.Errno
	)
	events := uintptr(unsafe.Pointer(&b.events[0])) // part of b, which does not move
	switch {
	case timeout == 0:
		n, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(b.ep), events, eventsPerWait, 0, 0, 0)
	case timeout > 0 && timeout%time.Millisecond != 0 && b.pwait2:
		ts := timespec64{int64(timeout / time.Second), int64(timeout % time.Second)}
		n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(b.ep), events, eventsPerWait,
			uintptr(unsafe.Pointer(&ts)), 0, 0)
	default:
		n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(b.ep), events, eventsPerWait,
			uintptr(milliseconds(timeout)), 0, 0)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// timespec64 is the kernel's structure, the same on every architecture.
type timespec64 struct{ sec, nsec int64 }

// milliseconds rounds up, so that a timer is never early, and clamps: a wait of more
// than 24 days is done in parts.
func milliseconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	ms := d / time.Millisecond
	if d%time.Millisecond != 0 {
		ms++
	}
	return int(min(ms, math.MaxInt32))
}

func probePwait2(ep int) bool {
	var (
		none  timespec64
		event unix.EpollEvent
	)
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(ep), uintptr(unsafe.Pointer(&event)), 1,
		uintptr(unsafe.Pointer(&none)), 0, 0)
	return errno == 0
}

// note stores what an event says in its slot, and queues the slot if there is something
// to do.
func (b *Backend) note(e *unix.EpollEvent) {
	if e.Pad == wakerGen {
		return
	}
	s := b.table.at(e.Fd)
	if s == nil || s.flags&(used|registered) != used|registered || s.gen != uint32(e.Pad) {
		b.zombies.came++
		return
	}
	s.ready |= hints(e.Events)
	// Level-triggered slots are served even with nothing to do: the event has
	// to be stopped.
	if s.flags&edge == 0 || s.due() {
		b.ready.push(s)
	}
}

func hints(events uint32) conds {
	var c conds
	if events&unix.EPOLLIN != 0 {
		c |= canRead
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLPRI) != 0 {
		c |= canRead | tail
	}
	if events&unix.EPOLLOUT != 0 {
		c |= canWrite
	}
	if events&unix.EPOLLHUP != 0 {
		c |= canRead | canWrite | tail | hungUp
	}
	if events&unix.EPOLLERR != 0 {
		c |= canRead | canWrite | tail | erred
	}
	return c
}

// zombies counts what comes for registrations that are over. A child has duplicates of all
// descriptors until its exec, which does not take long and ends by itself; only what is
// reported by Wait after Wait, or adds up, is worth a new set.
type zombies struct {
	came int // events since the last Wait
	all  int // and since the last set
	row  int // Waits without a break that had such events
}

const (
	zombieRow  = 16
	zombieMost = 1024
)

// due reports whether a new set is due.
func (z *zombies) due() bool {
	if z.came == 0 {
		z.row = 0
		return false
	}
	z.all += z.came
	z.row++
	z.came = 0
	return z.row >= zombieRow || z.all >= zombieMost
}

// rebuild makes a new epoll set of what is registered and puts it in the place of the
// old one: the only way to get rid of a registration whose number is gone.
func (b *Backend) rebuild() {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return // no descriptor is free: the next Wait tries again
	}
	defer sys.Close(ep)
	if b.addWaker(ep) != 0 {
		return
	}
	for s := range b.table.all() {
		if s.flags&registered == 0 {
			continue
		}
		b.calls.Ctl++
		if errno := epollCtl(ep, unix.EPOLL_CTL_ADD, s.fd, s.events(s.mask), s.gen); errno != 0 {
			b.lose(s)
		}
	}
	// The host's set takes the new file as long as it can refuse; the old one leaves it by
	// being closed.
	if b.host >= 0 && epollCtl(b.host, unix.EPOLL_CTL_ADD, int32(ep), unix.EPOLLIN, 0) != 0 {
		return
	}
	// The number stays: without a set of its own, a host is watching it.
	if err := unix.Dup3(ep, b.ep, unix.O_CLOEXEC); err == nil {
		b.zombies = zombies{}
	}
	if b.hosted {
		b.tell()
	}
}

// lose ends everything on a handle whose descriptor was closed behind our
// back: every armed Op gets EBADF. The slot stays until its owner closes it,
// which then touches no descriptor.
func (b *Backend) lose(s *slot) {
	s.flags |= lost
	s.flags &^= registered
	for _, p := range s.places() {
		if *p != nil {
			b.fail(*p, unix.EBADF)
			*p = nil
		}
	}
}

// pace yields to the runtime's scheduler about every 4 ms of running. Its monitor takes
// the processor away, at every system call, from a goroutine that has been on it for 10
// ms without yielding once; each call then costs a hand-over.
type pace struct {
	waits   uint32
	yielded time.Duration
}

func (p *pace) due(b *Backend) bool {
	p.waits++
	if p.waits%16 != 0 { // spares the clock
		return false
	}
	now := b.Now()
	if now-p.yielded < 4*time.Millisecond {
		return false
	}
	p.yielded = now
	return true
}

// verifier finds descriptors from outside that were closed without notice: the kernel
// drops their registrations silently, so their owners would wait for ever. After
// activity, and before a long sleep, it asks the kernel about each once.
type verifier struct {
	slots []*slot
	next  int // the one to ask about next
	left  int // how many since the last activity
	at    time.Duration
}

const (
	verifyEvery = 100 * time.Millisecond
	verifyBatch = 64
)

// add puts s under watch; s.more must be set.
func (v *verifier) add(s *slot) {
	s.more.index = len(v.slots)
	v.slots = append(v.slots, s)
}

func (v *verifier) remove(s *slot) {
	last := v.slots[len(v.slots)-1]
	v.slots[s.more.index] = last
	last.more.index = s.more.index
	v.slots[len(v.slots)-1] = nil
	v.slots = v.slots[:len(v.slots)-1]
}

// touched records that the program has run, and may have closed something.
func (v *verifier) touched() { v.left = len(v.slots) }

// check asks about some descriptors if it is time to, and returns the longest
// time to sleep before it is called again.
func (v *verifier) check(b *Backend, timeout time.Duration) time.Duration {
	if v.left == 0 {
		return timeout
	}
	now := b.Now()
	if wait := v.at + verifyEvery - now; v.at != 0 && wait > 0 {
		return shorter(timeout, wait)
	}
	v.at = now
	for range min(v.left, len(v.slots), verifyBatch) {
		v.left--
		v.next = (v.next + 1) % len(v.slots)
		b.verifySlot(v.slots[v.next])
	}
	v.left = min(v.left, len(v.slots))
	if v.left > 0 {
		return shorter(timeout, verifyEvery)
	}
	return timeout
}

func shorter(timeout, limit time.Duration) time.Duration {
	if timeout < 0 || timeout > limit {
		return limit
	}
	return timeout
}

// verifySlot adds s to the set once more: the kernel refuses exactly if the number is
// still what was registered, and nothing else changes.
func (b *Backend) verifySlot(s *slot) {
	if s.flags&registered == 0 {
		return
	}
	switch b.ctl(unix.EPOLL_CTL_ADD, s, s.mask) {
	case unix.EEXIST:
	case 0:
		b.ctl(unix.EPOLL_CTL_DEL, s, 0)
		b.lose(s)
	default:
		b.lose(s)
	}
}
