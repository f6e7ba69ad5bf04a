package weir

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/choice"
	"github.com/weir-io/weir/internal/inner"
	"github.com/weir-io/weir/internal/machine"
	"github.com/weir-io/weir/internal/sys"
)

// Backends lists the names of the backends in order of preference: those that imports
// added (see package driver), then the platform's. WEIR_BACKEND and WithBackendName
// take one of them.
func Backends() []string { return choice.Names() }

// Next says how long a host may wait before it must call Turn even if PollFD
// stays quiet: 0 if callbacks are queued or Stop was called, false if there is
// no timer or the loop is closed.
func (l *Loop) Next() (time.Duration, bool) {
	if l.state.Load() == loopClosed {
		return 0, false
	}
	if len(l.ready) > 0 || len(l.dirty) > 0 || len(l.early) > 0 || l.tenantsBusy() || l.posts.Load() != nil || l.stop.Load() {
		return 0, true
	}
	return l.untilTimer()
}

// PollFD is a descriptor that is readable when a Turn has something to do, or
// -1 where the backend has none or the loop is closed. It must only be watched,
// never read.
//
// After the first call the loop is a guest: posts make the descriptor readable. The
// host then calls Turn(0) when the descriptor is readable and when the time returned by
// Next has passed.
func (l *Loop) PollFD() int {
	if l.state.Load() == loopClosed {
		return -1
	}
	if h, ok := l.be.(backend.Hosted); ok && !l.hosted {
		l.hosted = true
		h.Host(true)
	}
	return l.caps.PollFD
}

// BackendInfo says which backend serves a loop.
type BackendInfo struct {
	Name   string   // "epoll", "epoll-et", "uring", "portable", "sim"
	Probed []string // what was found out when it started, in words
	// Packets says what is told of datagrams.
	Packets PacketFields
}

// Backend says which backend serves the loop. Any goroutine may call it.
func (l *Loop) Backend() BackendInfo {
	return BackendInfo{Name: l.caps.Name, Probed: append([]string(nil), l.caps.Probed...), Packets: packetFields(l.caps.Info, l.caps.Name)}
}

// ErrNoPollFD is returned by Guest if the backend has no descriptor to watch.
var ErrNoPollFD = errors.New("weir: this backend has no descriptor to watch")

// Guest runs the loop inside a host that calls you and cannot watch a descriptor: the
// Win32 message pump, CFRunLoop, a game's main loop. A goroutine waits for something to
// do and then calls post, once, with a turn function that the host must call on the
// thread that the loop belongs to; the goroutine then waits again. stop ends the
// waiting; it may be called from any goroutine, and a turn that was posted before does
// nothing afterwards. A turn that fails ends the waiting, and the error handler gets
// the error.
func (l *Loop) Guest(post func(turn func())) (stop func(), err error) {
	if err := l.check("Guest"); err != nil {
		return nil, err
	}
	fd := l.PollFD()
	if fd < 0 {
		return nil, ErrNoPollFD
	}
	quit, err := sys.NewPollWaiter()
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, ErrNoPollFD
	}
	if err != nil {
		return nil, err
	}
	var once sync.Once
	gone := make(chan struct{})
	// not simulated: the host's thread and this one are real.
	go func() {
		defer quit.Close()
		next := make(chan time.Duration, 1)
		for {
			post(func() {
				select { // not simulated: as above.
				case <-gone:
					return
				default:
				}
				if err := l.Turn(0); err != nil {
					l.report(err)
					once.Do(func() { quit.Quit(); close(gone) })
					return
				}
				d, ok := l.Next()
				if !ok {
					d = -1
				}
				select { // not simulated: as above.
				case next <- d:
				case <-gone:
				}
			})
			var wait time.Duration
			select { // not simulated: as above.
			case wait = <-next:
			case <-gone:
				return
			}
			if !quit.Wait(fd, wait) {
				return
			}
		}
	}()
	return func() { once.Do(func() { quit.Quit(); close(gone) }) }, nil
}

// What coroutines (iter.Pull) need to know about the loop that they run on. The runtime
// ends the program if a coroutine is resumed on a different thread from the one it was
// made on, or at a different depth of thread locks, and either of the two threads was
// locked; so code that resumes a coroutine asks first, and the loop locks once, never
// twice.

// innerLoop is a Loop as packages task, netconn and process see it.
type innerLoop Loop

var _ inner.Loop = (*innerLoop)(nil)

func init() {
	inner.Provide(func(loop any) inner.Loop {
		if l, ok := loop.(interface{ itself() *Loop }); ok {
			return (*innerLoop)(l.itself())
		}
		return nil
	})
}

// itself finds the loop in a value of another package that embeds it.
func (l *Loop) itself() *Loop { return l }

func (l *innerLoop) Thread() uint64 { return l.thread }
func (l *innerLoop) Readied()       { l.readied = true }

func (l *innerLoop) Together(on bool) (was bool) {
	was, l.follows = l.follows, on
	if !on {
		(*Loop)(l).burst()
	}
	return was
}

func (l *innerLoop) Machine() machine.Host {
	if s := (*Loop)(l).simulated(); s != nil {
		return s.Machine()
	}
	return nil
}

func (l *innerLoop) Switched(task string) {
	if l.debug != nil && l.debug.owner.Load() != 0 {
		l.debug.enter()
		l.debug.switched(task)
	}
}

// holdThread locks the goroutine to its thread, and records which thread that is. The
// goroutine that Turn keeps locked is locked already: no other runs on its thread.
func (l *Loop) holdThread() {
	if l.locked == 0 || sys.ThreadID() != l.locked {
		runtime.LockOSThread()
		l.held = true
	}
	l.thread = sys.ThreadID()
}

// letThread undoes holdThread.
func (l *Loop) letThread() {
	l.thread = 0
	if l.held {
		l.held = false
		runtime.UnlockOSThread()
	}
}
