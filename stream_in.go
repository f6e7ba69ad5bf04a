package weir

import (
	"errors"

	"github.com/weir-io/weir/internal/chunk"
)

// paused reports whether the protocol gets no bytes now: it, its write buffer, its
// tenant's turn or its tenant's budget holds them back.
func (s *stream) paused() bool {
	return s.flags&(fPaused|fAutoPaused|fParked|fGreedy) != 0 || s.tie != nil && s.tie.held()
}

func (s *stream) PauseReading() {
	if s.loop.check("PauseReading") != nil || s.flags&fPaused != 0 || s.phase >= phaseClosing {
		return
	}
	s.flags |= fPaused
	s.touch()
}

func (s *stream) ResumeReading() {
	if s.loop.check("ResumeReading") != nil || s.flags&fPaused == 0 || s.phase >= phaseClosing {
		return
	}
	s.flags &^= fPaused
	s.readingResumed()
}

// readingResumed offers what was withheld, from the loop's queue.
func (s *stream) readingResumed() {
	s.x.idle.resumed()
	if len(s.tail) > 0 {
		s.flags |= fOffer
	}
	if s.flags&(fOffer|fEOF) != 0 {
		s.queue()
	}
	s.touch()
}

// held reports whether something that was read may not have been shown to the protocol
// yet.
func (s *stream) held() bool {
	return s.paused() || s.flags&fOffer != 0 || len(s.x.more) > 0
}

// wish says what to do with incoming bytes.
func (s *stream) wish() wish {
	switch {
	case s.phase == phaseClosing && s.flags&fEOF == 0 && s.writing():
		// Two ends that both close with a backlog would otherwise wait for each other.
		return wantDrop
	case s.phase >= phaseClosing:
		return wantNone
	case s.flags&(fEOF|fOffer) != 0 || s.paused():
		return wantLater
	}
	return wantBytes
}

// pieceMax is how many bytes one DataReceived gets, if it uses any of them.
const pieceMax = 64 << 10

// deliver offers the tail and p to the protocol and keeps what it leaves.
func (s *stream) deliver(p []byte) {
	if len(p) > 0 {
		s.x.idle.movedThen(DirectionRead)
	}
	kept := len(s.tail) > 0
	if kept {
		s.tail = append(s.tail, p...)
		p = s.tail
	}
	s.flags &^= fOffer
	came := false
	for len(p) > 0 && !s.paused() {
		s.flags &^= fExchanged
		// What was withheld may be much more than one read. It is offered in pieces, so
		// that a protocol that writes as much as it reads meets its marks in between. A
		// protocol that uses nothing of a piece is shown all there is.
		k := min(len(p), pieceMax)
		q := p[:k:k]
		if came && s.caps&capBuffer != 0 {
			// The protocol was set in the middle of this read: its first bytes go into
			// its own memory, as all others will.
			q = s.supplied(q)
			if s.phase >= phaseClosing {
				s.dropTail()
				return
			}
			if s.paused() {
				break
			}
		}
		n, err := s.callData(q)
		if n == 0 && len(q) < len(p) && err == nil && s.phase < phaseClosing && s.flags&fExchanged == 0 && !s.paused() {
			q = p
			n, err = s.callData(q)
		}
		if made := s.x.handed; made != nil {
			s.x.handed = nil
			if err == nil {
				s.callHanded(made)
				came = true
			}
		} else if n < len(q) {
			came = false // what it leaves is kept in the tail, and offered from there
		}
		switch {
		case s.phase >= phaseLost:
			return
		case err != nil:
			if s.phase == phaseBroken && errors.Is(err, ErrClosed) {
				err = s.reason() // the failed write is why
			}
			s.lose(err)
			return
		case n < 0 || n > len(q):
			s.lose(&UsedError{N: n, Len: len(q)})
			return
		case s.phase == phaseClosing:
			s.dropTail()
			return
		}
		p = p[n:]
		if s.x.back != nil {
			p = append(s.x.back, p...)
			s.x.back = nil
			s.dropTail()
			kept, n = false, 0
		}
		if n == 0 && s.flags&fExchanged == 0 {
			break
		}
	}
	s.keep(p, kept)
}

// keep stores what the protocol left of p; kept says that p is already in the tail.
func (s *stream) keep(p []byte, kept bool) {
	if len(p) == 0 {
		s.dropTail()
		return
	}
	switch {
	case len(p) > chunk.Size && kept:
		// Moving a long tail to the front each time a piece of it is used would cost
		// the square of its length.
		s.tail = p
	case len(p) > chunk.Size:
		s.tail = append([]byte(nil), p...)
	case kept && cap(s.tail) == chunk.Size:
		s.tail = append(s.tail[:0], p...)
	default:
		s.tail = append(s.loop.pool.Get()[:0], p...)
	}
	if len(p) > int(s.bounds.tail) && !s.paused() {
		s.lose(&TailError{Unused: len(p), Limit: int(s.bounds.tail)})
	}
}

// keepMore keeps bytes that come while the protocol looks at others.
func (s *stream) keepMore(p []byte) {
	s.x.more = append(s.x.more, p...)
	s.queue()
}

func (s *stream) dropTail() {
	if s.tail != nil && s.flags&fInData == 0 {
		s.loop.pool.Put(s.tail)
		s.tail = nil
	} else if s.tail != nil {
		s.tail = nil // the protocol is looking at it
	}
}

// ended is called by the lower half when nothing more will come: at the peer's end of
// stream, or, with err, if the stream broke off.
func (s *stream) ended(err error) {
	if !s.live() || s.flags&fEOF != 0 {
		return
	}
	if err != nil {
		s.extra().brokeOff = err
	}
	s.flags |= fEOF
	s.x.idle.movedThen(DirectionRead)
	switch {
	case s.flags&fInData != 0 || s.held():
		s.queue()
	case s.phase < phaseClosing:
		s.endOfStream()
	}
}

// endOfStream offers the tail once more and then hands over the end.
func (s *stream) endOfStream() {
	if len(s.tail) > 0 {
		s.deliver(nil)
		if s.phase >= phaseClosing || s.paused() {
			return
		}
	}
	if s.x.brokeOff != nil {
		s.lose(s.x.brokeOff)
		return
	}
	if s.phase == phaseBroken {
		s.lose(s.reason())
		return
	}
	s.flags |= fEOFDone
	unused := len(s.tail)
	keep := false
	for s.caps&capEOF != 0 {
		var err error
		s.flags &^= fExchanged
		keep, err = s.callEOF(unused)
		switch {
		case s.phase >= phaseClosing:
			return
		case err != nil:
			s.lose(err)
			return
		case s.flags&fEOFDone == 0:
			return // bytes were given back: they are offered, and then the end
		case s.flags&fExchanged == 0 || unused == 0:
		default:
			// What was left goes to the new protocol, and then the end.
			s.flags &^= fEOFDone
			s.deliver(nil)
			if s.phase >= phaseClosing {
				return
			}
			if s.paused() {
				return // ResumeReading comes here again
			}
			s.flags |= fEOFDone
			unused = len(s.tail)
			if s.caps&capEOF != 0 {
				continue
			}
		}
		break
	}
	if keep {
		s.dropTail()
		return
	}
	var reason error
	if unused > 0 {
		reason = &UnusedError{Unused: unused}
	}
	s.closeWith(reason)
}

func (s *stream) callEOF(unused int) (keep bool, err error) {
	defer s.guard("EOFReceived")
	return s.proto.(EOFReceiver).EOFReceived(unused)
}

func (s *stream) callData(p []byte) (n int, err error) {
	defer s.guard("DataReceived")
	s.flags |= fInData
	n = -1 // so that a panic leaves no valid count
	n, err = s.proto.DataReceived(p)
	s.flags &^= fInData
	return n, err
}

// supplied copies as much of p as fits into the memory that the protocol supplies. That
// may cause the connection to be lost or closed.
func (s *stream) supplied(p []byte) []byte {
	buf := s.callReadBuffer()
	if len(buf) == 0 {
		s.lose(ErrNoBuffer) // no effect if it is already lost
	}
	return buf[:copy(buf, p)]
}

func (s *stream) callReadBuffer() []byte {
	defer s.guard("ReadBuffer")
	return s.proto.(BufferedProtocol).ReadBuffer()
}
