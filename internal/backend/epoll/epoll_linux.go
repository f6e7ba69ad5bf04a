// Package epoll drives a loop by Linux's epoll, level-triggered or edge-triggered. The
// contract above it speaks of completions; this package makes them out of readiness, by
// trying again when a descriptor is ready:
//
//	Submit ──▶ slot ──▶ epoll_ctl, the first time only
//	             │
//	Wait ──▶ epoll_wait ──▶ hints in slots ──▶ queue ──▶ read, accept, send
//	                                             ▲           │
//	                      still ready, or no room └───────────┴──▶ results
//
// Some facts about epoll that shape the code:
//
// A registration belongs to an open file, not to a number. Closing a number while a
// duplicate lives on (in a child, in another process that was sent it) leaves a
// registration behind that no one can remove and that reports for ever. So a handle that
// others may know, and one that is given up, is removed before it is closed; events carry
// the generation of the slot they were registered for; and if events keep coming for a
// generation that is over, the whole set is rebuilt (zombies). A socket that was opened or
// accepted here has no duplicate, except for a moment in a child that has not reached its
// exec: it is closed without a call to remove it.
//
// TCP connections are registered for edges in both styles: what a connect, an end of
// stream or a pause changes then needs no call.
//
// Errors and hang-ups are reported whether asked for or not. While nothing is armed, a
// level-triggered registration would report them without end, so it is removed, and
// added again by the next Submit.
//
// Interest is left alone until it does harm: events that are no longer wanted are
// dropped when one of them arrives, so an exchange of messages, or a pause that is over
// before anything arrives, costs no epoll_ctl.
package epoll

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	arenaSize = 256 << 10 // bytes lent per Wait
	readSize  = 64 << 10  // bytes per read, at most
	bulkSize  = 128 << 10 // the same if bytes keep coming and no one else waits
	// acceptsPerWait bounds what one listener takes per Wait, so that a burst of
	// connections does not starve the existing ones.
	acceptsPerWait = 16
	// datagramsPerWait bounds what one socket takes per Wait, and messagesPerWait
	// what all do.
	datagramsPerWait = 32
	messagesPerWait  = 128
	peersPerWait     = 64 // of what listeners accept, and of errors with a peer
	eventsPerWait    = 512
)

// Backend is one epoll instance with its table of handles.
type Backend struct {
	ep    int
	host  int // a set that has only ep in it, for a host to watch; -1: none
	edge  bool
	start time.Time
	wake  waker

	table table
	ready queue
	// failed holds the results that are known without asking the kernel: of
	// Ops that could not be armed or whose descriptor was lost.
	failed []failure

	// The Wait in progress: what it has handed out, and where it puts results.
	out []backend.Completion
	n   int
	// carried is true while the round being served began in an earlier Wait.
	carried bool

	arena  []byte
	lent   int // bytes of the arena that are lent out
	peers  [peersPerWait]backend.Addr
	npeers int

	events   [eventsPerWait]unix.EpollEvent
	sockaddr sys.Sockaddr
	vector   sys.Vector
	inbox    *sys.Inbox  // nil until a datagram socket is read
	outbox   *sys.Outbox // nil until many are sent
	errors   sys.ErrorReader

	pwait2  bool // epoll_pwait2 exists: timeouts can be finer than milliseconds
	hosted  bool
	asked   bool // it was hosted before: what the host watches does not change any more
	told    bool // hosted: the descriptor was made readable for what is queued
	zombies zombies
	pace    pace
	verify  verifier

	calls Calls
}

// Calls counts system calls by kind, for tests and diagnostics.
type Calls struct {
	Wait, Ctl, Read, Write, Accept, Connect, Splice, Wake uint64
	Shut, Close, Name, Option                             uint64
}

// New makes a level-triggered backend, or an edge-triggered one. It fails if
// the process is out of descriptors.
func New(edge bool) (*Backend, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		sys.Close(ep)
		return nil, os.NewSyscallError("eventfd", err)
	}
	b := &Backend{ep: ep, host: -1, edge: edge, start: time.Now(), arena: make([]byte, arenaSize)}
	b.wake.fd = event
	if errno := b.addWaker(ep); errno != 0 {
		sys.Close(event)
		sys.Close(ep)
		return nil, os.NewSyscallError("epoll_ctl", errno)
	}
	b.pwait2 = probePwait2(ep)
	return b, nil
}

// Now is the time since the backend was made, read afresh by every call. A value kept
// from the last Wait would lie in the past after a long callback, and a timer set from
// it would be early; a caller that wants one time per turn keeps it itself.
func (b *Backend) Now() time.Duration { return time.Since(b.start) }

// Wall is the wall clock when the backend was made.
func (b *Backend) Wall() time.Time { return b.start }

// Caps says what was found.
func (b *Backend) Caps() backend.Caps {
	name := "epoll"
	if b.edge {
		name = "epoll-et"
	}
	pollFD := b.ep
	if b.host >= 0 {
		pollFD = b.host
	}
	return backend.Caps{
		Name:        name,
		Inline:      true,
		PollFD:      pollFD,
		Descriptors: true,
		Splice:      true,
		PeerErrors:  true,
		Info:        backend.InfoLocal | backend.InfoTraffic | backend.InfoDropped | backend.InfoTime,
		Probed:      []string{fmt.Sprintf("epoll_pwait2: %t", b.pwait2)},
	}
}

// Calls returns how many system calls have been made so far. It belongs to the loop's
// goroutine.
func (b *Backend) Calls() Calls {
	c := b.calls
	c.Wake = b.wake.writes.Load()
	return c
}

// Host tells the backend whether a foreign loop watches Caps.PollFD and calls Wait with
// timeout 0 when it is readable. From then on wakes, and results that are due without
// an event from the kernel, make the descriptor readable at any time, not only while a
// Wait is in progress. It belongs to the loop's goroutine.
//
// The host gets a set of its own with this one in it: where it watches through a set too,
// it would lose this one when rebuild replaces its file.
func (b *Backend) Host(on bool) {
	if on && !b.asked {
		b.asked = true
		b.openHost()
	}
	b.hosted = on
	b.wake.host(on)
	if b.pending() {
		b.tell()
	}
}

// openHost makes the set for the host. Without a free descriptor the host watches ep.
func (b *Backend) openHost() {
	if b.ep < 0 {
		return
	}
	host, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return
	}
	if epollCtl(host, unix.EPOLL_CTL_ADD, int32(b.ep), unix.EPOLLIN, 0) != 0 {
		sys.Close(host)
		return
	}
	b.host = host
}

// Close closes every handle that is still open, and the backend. Armed Ops get no more
// results.
func (b *Backend) Close() error {
	if b.ep < 0 {
		return nil
	}
	for s := range b.table.all() {
		if s.flags&used != 0 {
			b.abandon(s)
			if s.flags&(raw|lost) == 0 {
				b.closeSlot(s, false)
			}
		}
	}
	b.wake.close()
	sys.Close(b.ep)
	b.ep = -1
	if b.host >= 0 {
		sys.Close(b.host)
		b.host = -1
	}
	b.table = table{}
	b.ready = queue{}
	b.failed = nil
	return nil
}

// abandon makes the Ops of s idle without a result.
func (b *Backend) abandon(s *slot) {
	for _, p := range s.places() {
		if *p != nil {
			(*p).State = idle
			*p = nil
		}
	}
}

// waker is the part of a Backend that other goroutines touch.
type waker struct {
	state  atomic.Uint32
	hosted atomic.Bool
	writes atomic.Uint64

	mu     sync.Mutex // held while fd is used, so that close cannot free its number during a write
	fd     int
	closed bool
}

// The states of a waker. Only the step away from asleep writes to the
// descriptor: at most once per sleep, and never while the loop is awake.
const (
	awake  = iota
	woken  // a wake came that no Wait has taken yet
	asleep // a Wait is about to block, or a host watches the descriptor
)

// Wake makes a Wait in progress, or else the next one, return at once.
func (b *Backend) Wake() { b.wake.wake() }

func (w *waker) wake() {
	if w.state.Load() == woken {
		return
	}
	if w.state.Swap(woken) == asleep {
		w.writes.Add(1)
		w.write()
	}
}

func (w *waker) write() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		// The descriptor is watched for edges and never read: every write is an edge. A
		// write fails only when the counter is near its end.
		if _, errno := sys.Write(w.fd, one[:]); errno == unix.EAGAIN {
			sys.Read(w.fd, one[:])
			sys.Write(w.fd, one[:])
		}
	}
}

// sleep is called before blocking. It returns false if a wake is due, and takes
// it.
func (w *waker) sleep() bool {
	if w.state.CompareAndSwap(awake, asleep) || w.state.CompareAndSwap(asleep, asleep) {
		return true
	}
	w.rise()
	return false
}

// rise is called after blocking, or instead. It takes the wake that is due and
// returns whether there was one.
func (w *waker) rise() bool {
	next := uint32(awake)
	if w.hosted.Load() {
		next = asleep
	}
	return w.state.Swap(next) == woken
}

func (w *waker) host(on bool) {
	w.hosted.Store(on)
	if !on {
		w.state.CompareAndSwap(asleep, awake)
		return
	}
	// A wake that came unwatched is made visible.
	if !w.state.CompareAndSwap(awake, asleep) && w.state.Load() == woken {
		w.write()
	}
}

func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		sys.Close(w.fd)
	}
}
