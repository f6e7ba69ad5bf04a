package weir

import "errors"

// Carrier moves the bytes of a transport that is not based on one of the loop's own
// sockets: it is the upper side of a layer, which moves the bytes of the transport above
// it, or a foreign connection. The transport itself, not the carrier, keeps a transport's promises (kept tails, marks, pauses,
// producers, half-close, the order of callbacks).
//
//	    your Protocol
//	         ▲ │
//	     Transport            made by Loop.Carry
//	Feed ▲     │ Carrier
//	     │     ▼
//	 what moves the bytes
//
// The loop calls a carrier on its own goroutine, one call at a time, and the
// carrier calls its Feed there. A carrier that has a method
//
//	Below() Transport
//
// is transparent to As, and its transport takes its addresses from the one below unless
// the carrier has LocalAddr and RemoteAddr methods of its own.
type Carrier interface {
	// Write takes bytes to send, in order, and returns how many it took. It never
	// blocks: if it takes fewer than it is given, the carrier calls Feed.Writable
	// later, and Write is not called again before that. The pieces are lent until it
	// returns. An error loses the connection with that error.
	Write(bufs [][]byte) (n int, err error)
	// CloseWrite sends the end of the stream after everything that Write took. It is
	// called once, and only if CanCloseWrite reports true. ErrClosed, from CloseWrite
	// or from Write, says that a call of Feed.Closed with the reason will follow.
	CloseWrite() error
	// CanCloseWrite reports whether the writing direction can be ended alone.
	CanCloseWrite() bool
	// PauseReading asks for no more bytes until ResumeReading. The two calls alternate,
	// and a transport begins with reading on. Bytes delivered while reading is paused
	// are kept.
	PauseReading()
	ResumeReading()
	// Close closes the carrier. If abort is false, Write has taken everything that was
	// written; the carrier still sends what it holds, and what it delivers meanwhile is
	// dropped. If abort is true, nothing more needs to be sent. Close(true) may follow
	// Close(false): the carrier then stops waiting. It calls Feed.Closed once it is
	// closed, perhaps from inside Close.
	//
	// A carrier that has a Reset method is a Resetter. Reset is called instead of
	// Close(false): everything that Write took is still sent, but the peer must not
	// mistake the end for a clean one. Close(true) may follow it.
	Close(abort bool)
}

// Holder is a Carrier that keeps bytes for a time after Write took them: a delay, a
// rate limit.
type Holder interface {
	// Held is how many bytes the carrier holds now. The carrier calls Feed.Moved when
	// that number has dropped.
	Held() int
}

// Unsender is a Carrier whose bytes no system sends once the loop has ended: a
// connection over datagrams.
type Unsender interface {
	// Unsent is how many bytes the carrier has taken that the peer has not
	// acknowledged. They do not count as Buffered, and do in a CutError.
	Unsent() int
}

// Feed is the carrier's side of the transport that it carries. Its methods belong to
// the loop's goroutine.
//
// Four of them tell of an end, each of a different one:
//
//	End          the peer's direction is over; what was delivered is offered first
//	WriteFailed  our direction is over; what the peer sent is still delivered
//	Fail         both are over, and nothing more is offered
//	Closed       the carrier itself is closed: asked to by Close, or by itself
type Feed struct{ k *carried }

// Transport is the transport that is carried. It can still be read after the end.
func (f *Feed) Transport() Transport { return &f.k.stream }

// Deliver hands p to the protocol; the transport keeps what the protocol leaves or does
// not want now. p is lent until Deliver returns. After the end, and while the transport
// closes, p is dropped.
func (f *Feed) Deliver(p []byte) {
	k := f.k
	if !k.live() || k.phase == phaseClosing || k.flags&fEOF != 0 || len(p) == 0 {
		return
	}
	if k.flags&fInData != 0 || len(k.x.more) > 0 {
		// Called from inside the protocol's own callback: p is delivered when that has
		// returned.
		k.keepMore(p)
		return
	}
	for k.caps&capBuffer != 0 && len(k.tail) == 0 && !k.paused() && len(p) > 0 {
		buf := k.memory()
		if k.phase >= phaseClosing {
			return
		}
		k.buf = nil
		n := copy(buf, p)
		p = p[n:]
		k.deliver(buf[:n])
		if k.phase >= phaseClosing {
			return
		}
	}
	if len(p) > 0 {
		k.deliver(p)
	}
	k.touch()
}

// End says that nothing more will come: the peer has ended its writing, or, with err,
// the stream broke off. What was delivered before is offered first. With err the
// connection is then lost with that error, and the carrier's Close(true) is called.
func (f *Feed) End(err error) {
	f.k.ended(err)
	f.k.touch()
}

// Paused reports whether the protocol wants no bytes now but will want some later. It
// changes at once, whereas Carrier.PauseReading is called only when the callback has
// returned.
func (f *Feed) Paused() bool { return f.k.paused() && f.k.phase < phaseClosing }

// Writable says that Write can take more.
func (f *Feed) Writable() {
	f.k.full = false
	f.k.touch()
}

// WriteFailed says that nothing more can be sent, because of err. What was to be sent
// is dropped. What the peer sent before is still delivered, and reading goes on if it
// had stopped only because the write buffer was full. The protocol is told if it is a
// WriteFailer. The connection is lost with err when the carrier calls End or Closed,
// and with Fail's own error if it calls Fail.
func (f *Feed) WriteFailed(err error) {
	switch k := f.k; {
	case !k.live() || k.phase == phaseBroken:
	case k.phase == phaseOpen:
		k.breakWriting(err)
	case !k.closeSent:
		k.lose(err) // not everything was sent; else Closed says how it ended
	}
}

// Waiting is how many bytes Write has not taken yet. Unlike Transport.Buffered it does
// not count what a layer has taken and what waits below it.
func (f *Feed) Waiting() int { return f.k.waiting() }

// Moved says that bytes have left the carrier, which is a Holder: the transport checks
// its marks again. Moved itself makes no callbacks. It is not needed for bytes that
// leave a transport below.
func (f *Feed) Moved() { f.k.moved() }

// Fail loses the connection with err, as an error from Write does: the carrier's
// Close(true) is called.
func (f *Feed) Fail(err error) { f.k.lose(err) }

// Closed says that the carrier is closed, and why: nil for a clean end. The transport
// is lost with that reason, unless it already has one of its own. No method of the
// carrier is called afterwards. Closed also ends a feed whose Begin was never called.
// Calling it again has no effect.
func (f *Feed) Closed(err error) {
	k := f.k
	if k.isGone {
		return
	}
	k.isGone = true
	switch {
	case k.phase >= phaseClosing:
		k.end(err)
	case err == nil && k.live() && (k.flags&fOffer != 0 || k.flags&(fEOF|fEOFDone) == fEOF):
		// What was delivered is still to be offered. The end follows it.
		k.flags |= fEOF
		k.queue()
	case err != nil && !errors.Is(err, ErrLoopClosed) && k.live() && k.held() && k.unread() > 0:
		// As above, what was delivered is still to be offered. The loss follows it.
		if k.phase == phaseOpen {
			k.breakWriting(err)
		}
		if k.phase < phaseLost && k.flags&fEOF == 0 {
			k.extra().brokeOff = k.reason()
			k.flags |= fEOF
		}
		k.queue()
	case k.phase == phaseBroken:
		k.lose(k.reason())
	default:
		k.lose(err)
	}
}

// Carry makes a transport whose bytes c moves. Before Feed.Begin it has no protocol,
// and no method of c is called. Without WithWriteMarks and WithTailLimit, the marks and
// the limit of the transport below apply. A value outside an option's range is an
// *OptionError. If c has no transport below, the error is a *BudgetError where the tenant of
// WithTenant has no room for another connection.
func (l *Loop) Carry(c Carrier, opts ...StreamOption) (*Feed, error) {
	if err := l.check("Carry"); err != nil {
		return nil, err
	}
	if l.state.Load() == loopClosed {
		return nil, ErrLoopClosed
	}
	cfg := configOf(opts)
	if cfg.err != nil {
		return nil, cfg.err
	}
	if err := cfg.forTenant(l); err != nil {
		return nil, err
	}
	if cfg.tenant != nil && !standsOn(c) {
		if err := cfg.tenant.admit(); err != nil {
			return nil, err
		}
	}
	return &newCarried(l, c, cfg).feed, nil
}

// Begin makes the transport's protocol and calls its ConnectionMade. If factory returns
// nil, Begin reports false: the carrier's Close(false) was called, and what the carrier
// does with the feed from then on has no effect.
func (f *Feed) Begin(factory Factory) bool {
	k := f.k
	p := k.callFactory(factory)
	if p == nil {
		k.tellClose(false)
		k.drop()
		return false
	}
	k.attach(p)
	k.flags |= fMade
	k.callMade()
	k.touch()
	return true
}
