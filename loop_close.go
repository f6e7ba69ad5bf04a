package weir

import (
	"errors"
	"fmt"
	"time"
)

// Close ends the loop: every connection gets ConnectionLost(ErrLoopClosed),
// every connect fails with it, listeners, sources and signal handlers are
// removed and the backend is released. What was written before, to an open
// connection or to one whose Close is not through, still leaves, for at most five
// seconds (WithFlushTime); after a Shutdown, which had its own time, Close does not
// wait. What it cuts is the *CutError that it returns. Posts that were accepted
// and had not run are reported to the error handler as one *DroppedError. It
// returns ErrLoopRunning while the loop runs, and an error that counts them if
// some of what was open did not end; calling it again has no effect.
func (l *Loop) Close() error {
	if !l.state.CompareAndSwap(loopIdle, loopClosing) {
		if l.state.Load() == loopClosed {
			return nil
		}
		return ErrLoopRunning
	}
	if l.caps.Thread {
		l.holdThread()
		if l.thread == l.locked {
			l.held = true // Turn's lock ends with the loop
		}
		l.locked = 0
		defer l.letThread()
	}
	if l.debug != nil {
		l.debug.enter()
		defer l.debug.leave()
		l.debug.unclosed()
	}
	cut, err := l.shutdown()
	switch {
	case cut != nil && err != nil:
		err = errors.Join(cut, err)
	case cut != nil:
		err = cut
	}
	l.state.Store(loopClosed)
	l.tellEnded()
	dropped := l.dropped
	for c := l.posts.Swap(closedPosts); c != nil; c = c.next {
		if c.internal {
			c.run()
		} else if c.drop() {
			dropped++
		}
	}
	for _, r := range l.ready {
		if c, ok := r.(*Call); ok && c.drop() {
			dropped++
		}
	}
	l.ready = nil
	l.closePipes()
	l.timers.Clear()
	if dropped > 0 {
		l.report(&DroppedError{Callbacks: dropped})
	}
	if closed := l.be.Close(); closed != nil {
		err = errors.Join(err, closed)
	}
	close(l.closed)
	return err
}

// Closed returns a channel that is closed when Close is through: no callback runs
// afterwards. It is for goroutines that wait for something that the loop does. Any
// goroutine may call it.
func (l *Loop) Closed() <-chan struct{} { return l.closed }

// shutdown ends what is open and turns the loop until all of it is gone.
func (l *Loop) shutdown() (cut *CutError, err error) {
	l.signals.Each((*SignalHandler).Remove)
	l.feeds.Each(func(f *sourceFeed) { _ = l.RemoveSource(f.s) })
	l.watches.Each((*Watch).Remove)
	l.listeners.Each(func(ln *Listener) { _ = ln.Close() })
	connects := l.attempts.Len()
	l.attempts.Each(func(c *Connector) { c.fail(ErrLoopClosed) })
	l.flushOut(l.flush)
	cut = l.toCut(connects)
	l.endpoints.Each(func(e *PacketEndpoint) { e.lose(ErrLoopClosed) })
	// From the bottom: a layer that is told of a clean end below does not reset
	// what the system has still to send.
	for s := l.conns.first; s != nil; s = s.next {
		if s.Unwrap() == nil {
			s.lose(ErrLoopClosed)
		}
	}
	l.lingerers.Each((*lingerer).end)
	// Callbacks of the lost may open more: those are ended too. Posts of other
	// goroutines have no end, so only some rounds are for them.
	for rounds, last := 0, 0; rounds < 1000; rounds++ {
		l.runOwn()
		for s := l.conns.first; s != nil; s = s.next {
			s.lose(ErrLoopClosed)
		}
		l.lingerers.Each((*lingerer).end)
		open := l.conns.first != nil || l.listeners.Len()+l.endpoints.Len()+l.lingerers.Len()+l.attempts.Len() > 0
		if open {
			last = rounds
		} else if !l.ownQueued() || rounds > last+10 {
			return cut, nil
		}
		wait := 10 * time.Millisecond
		if l.ownQueued() {
			wait = 0
		}
		n, err := l.be.Wait(wait, l.done)
		if err != nil {
			return cut, err
		}
		l.deliver(l.done[:n])
	}
	return cut, fmt.Errorf("weir: closing the loop: %d connections, %d listeners, %d datagram endpoints and %d connects did not end",
		l.conns.n, l.listeners.Len(), l.endpoints.Len(), l.attempts.Len())
}

// DroppedError tells the error handler of callbacks that were accepted and
// never ran, because the loop was closed.
type DroppedError struct{ Callbacks int }

func (e *DroppedError) Error() string {
	return "weir: loop closed with " + itoa(e.Callbacks) + " callbacks queued"
}

// Unwrap returns ErrLoopClosed.
func (e *DroppedError) Unwrap() error { return ErrLoopClosed }
