package weir

import (
	"errors"
	"fmt"
	"time"
)

// Close ends the loop: every connection gets ConnectionLost(ErrLoopClosed), every
// connect fails with it, listeners, sources and signal handlers are removed and the
// backend is released. What was written before, to an open connection or to one whose
// Close is not finished, is still sent, for at most five seconds (WithFlushTime); after
// a Shutdown, which had its own time, Close does not wait. Close returns a *CutError
// that counts what it cut. Accepted posts that have not run are reported to the error
// handler as one *DroppedError. Close returns ErrLoopRunning while the loop runs. If
// something that was open did not end, it returns an error that counts such cases.
// Calling it again has no effect.
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
	for _, w := range l.waiters {
		w.Stop()
	}
	l.waiters = nil
	l.requeue()
	l.dealNoMore()
	cut, err := l.shutdown()
	for len(l.pressure.accounts) > 0 {
		l.pressure.accounts[0].close()
	}
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
		switch c, ok := r.(*Call); {
		case !ok:
		case c.internal:
			c.run()
		case c.drop():
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

// Closed returns a channel that is closed when Close has finished: no callback runs
// afterwards. It is for goroutines that wait for the loop to do something. Any
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
	l.top.loopCloses()
	l.endpoints.Each(func(e *PacketEndpoint) {
		connects += e.connecting()
		e.loopEnds(true)
	})
	l.flushOut(l.flush)
	cut = l.toCut(connects)
	// From the bottom up: a layer that is told of a clean end below does not reset what
	// the system still has to send.
	for s := l.conns.first; s != nil; s = s.next {
		if s.Unwrap() == nil {
			s.lose(ErrLoopClosed)
		}
	}
	// After the connections that stand on them, which tell their peers.
	l.endpoints.Each(func(e *PacketEndpoint) { e.lose(ErrLoopClosed) })
	l.lingerers.Each((*lingerer).end)
	// ConnectionLost callbacks may open more connections, which are ended too. Posts
	// from other goroutines may never cease, so the number of rounds is bounded.
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

// DroppedError tells the error handler of callbacks that were accepted but never ran,
// because the loop was closed.
type DroppedError struct{ Callbacks int }

func (e *DroppedError) Error() string {
	return "weir: loop closed with " + itoa(e.Callbacks) + " callbacks queued"
}

// Unwrap returns ErrLoopClosed.
func (e *DroppedError) Unwrap() error { return ErrLoopClosed }
