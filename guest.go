package weir

import (
	"errors"
	"sync"
	"time"
)

// ErrNoPollFD is returned by Guest where the backend has no descriptor to
// watch.
var ErrNoPollFD = errors.New("weir: this backend has no descriptor to watch")

// Guest runs the loop inside a host that calls you and cannot watch a
// descriptor: the Win32 message pump, CFRunLoop, a game's main loop. A goroutine
// waits for something to do and then calls post, once, with a turn that the host
// must call on the thread that the loop belongs to; the goroutine then waits
// again. stop ends the waiting; it may be called from any goroutine, and a turn
// that was posted before does nothing afterwards. Failures of a turn end the
// waiting and go to the error handler.
func (l *Loop) Guest(post func(turn func())) (stop func(), err error) {
	if err := l.check("Guest"); err != nil {
		return nil, err
	}
	fd := l.PollFD()
	if fd < 0 {
		return nil, ErrNoPollFD
	}
	quit, cancel, err := newQuitter()
	if err != nil {
		return nil, err
	}
	var once sync.Once
	gone := make(chan struct{})
	// not simulated: the host's thread and this one are real.
	go func() {
		defer quit.close()
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
					once.Do(func() { cancel(); close(gone) })
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
			if !quit.wait(fd, wait) {
				return
			}
		}
	}()
	return func() { once.Do(func() { cancel(); close(gone) }) }, nil
}
