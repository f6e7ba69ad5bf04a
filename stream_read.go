package weir

import (
	"errors"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// errNoBuffer is the reason when ReadBuffer returned an empty slice.
var errNoBuffer = errors.New("weir: ReadBuffer returned no memory")

func (s *stream) paused() bool { return s.flags&(fPaused|fAutoPaused) != 0 }

// PauseReading implements Transport.
func (s *stream) PauseReading() {
	if s.loop.check("PauseReading") != nil || s.flags&(fPaused|fClosing|fLost) != 0 {
		return
	}
	s.flags |= fPaused
	s.touch()
}

// ResumeReading implements Transport.
func (s *stream) ResumeReading() {
	if s.loop.check("ResumeReading") != nil || s.flags&fPaused == 0 || s.flags&(fClosing|fLost) != 0 {
		return
	}
	s.flags &^= fPaused
	s.readingResumed()
}

// readingResumed offers what was withheld, from the loop's queue.
func (s *stream) readingResumed() {
	if len(s.tail) > 0 {
		s.flags |= fOffer
	}
	if s.flags&(fOffer|fEOF) != 0 {
		s.queue()
	}
	s.touch()
}

// syncReading arms the read Op, or stops it, as reading is wanted.
func (s *stream) syncReading() {
	if s.flags&fReadLater != 0 {
		return
	}
	if s.flags&fCarried != 0 {
		s.syncCarrier()
		return
	}
	if s.rh == backend.None {
		s.watchWriteEnd()
		return
	}
	if s.x != nil && s.x.splice != nil && s.flags&fClosing == 0 {
		s.x.splice.step()
		return
	}
	if s.flags&fWriteBroken != 0 {
		s.drainBroken()
		return
	}
	if s.flags&(fClosing|fEOF) == 0 && !s.paused() && s.flags&fOffer == 0 {
		s.armRead()
		return
	}
	if s.flags&(fClosing|fEOF) == fClosing && s.writing() && s.rh == s.wh {
		s.discard()
		return
	}
	if s.rop.Armed() && s.rop.Kind == backend.Read {
		s.loop.be.Cancel(&s.rop)
	}
	if !s.rop.Armed() && s.flags&(fClosing|fHungUp) == 0 && !s.net.pipe() {
		// Neither reading nor, perhaps, writing: still notice a reset.
		s.arm(backend.Hangup, 0, nil)
	} else if s.rop.Armed() && s.flags&fClosing != 0 {
		s.loop.be.Cancel(&s.rop)
	}
}

// discard reads and drops what the peer still sends while a backlog is flushed:
// two ends that both close with one would otherwise wait for each other.
func (s *stream) discard() {
	if s.rop.Armed() && (s.rop.Kind != backend.Read || s.rop.Buf != nil) {
		s.loop.be.Cancel(&s.rop)
	}
	if !s.rop.Armed() {
		s.arm(backend.Read, backend.Multi, nil)
	}
}

func (s *stream) armRead() {
	if s.rop.Armed() {
		if s.rop.Kind == backend.Read && (s.rop.Buf == nil) == (s.caps&capBuffer == 0) {
			return
		}
		// It waits for something else, or would read into memory that is not the
		// protocol's: that one came in the midst of a read.
		if !s.loop.be.Cancel(&s.rop) {
			return // its last result calls sync again
		}
	}
	if s.caps&capBuffer == 0 {
		s.arm(backend.Read, backend.Multi, nil)
		return
	}
	buf := s.callReadBuffer()
	if s.flags&fLost != 0 {
		return
	}
	if len(buf) == 0 {
		s.lose(errNoBuffer)
		return
	}
	s.arm(backend.Read, 0, buf)
}

// supplied copies as much of p as goes into the memory that the protocol
// supplies. The connection may be lost or closed for it.
func (s *stream) supplied(p []byte) []byte {
	buf := s.callReadBuffer()
	if len(buf) == 0 {
		s.lose(errNoBuffer) // unless it is lost
	}
	return buf[:copy(buf, p)]
}

func (s *stream) callReadBuffer() []byte {
	defer s.guard("ReadBuffer")
	return s.proto.(BufferedProtocol).ReadBuffer()
}

// arm submits the read Op. A result at once is handled as if it came later.
func (s *stream) arm(k backend.Kind, f backend.Flags, buf []byte) {
	s.rop.Kind, s.rop.Flags, s.rop.Handle, s.rop.Buf = k, f, s.rh, buf
	if s.rh == backend.None {
		s.rop.Handle = s.wh
	}
	if c, ok := s.loop.submit(&s.rop); ok {
		s.flags |= fReadLater
		s.rop.Due, c.Last = true, true
		s.loop.early = append(s.loop.early, c)
	}
}

// watchWriteEnd notices the reader of a pipe going away.
func (s *stream) watchWriteEnd() {
	if s.flags&(fClosing|fHungUp) != 0 {
		if s.rop.Armed() {
			s.loop.be.Cancel(&s.rop)
		}
		return
	}
	if !s.rop.Armed() {
		s.arm(backend.Hangup, 0, nil)
	}
}

// readDone takes a result of the read Op.
func (s *stream) readDone(c *backend.Completion) {
	s.flags &^= fReadLater
	if s.flags&fLost != 0 {
		return
	}
	op := "read"
	if s.rh == backend.None {
		op = "write"
	}
	switch {
	case c.Err == backend.ErrAgain && s.flags&fWriteBroken != 0:
		s.lose(s.reason)
	case c.Err == backend.ErrAgain, c.Err == backend.ErrCanceled, errors.Is(c.Err, syscall.ECANCELED):
		// Nothing happened; sync submits it again if it is still wanted.
	case s.flags&fClosing != 0:
		if c.Err != nil && s.writing() {
			s.lose(s.opError(op, c.Err))
		} else if c.Err != nil || c.N == 0 && c.Op.Kind == backend.Read {
			s.flags |= fEOF // nothing more can come: no need to linger
		}
	case s.flags&fWriteBroken != 0 && (c.Err != nil || c.N == 0):
		if s.net == netTCP && errors.Is(s.reason, syscall.EPIPE) {
			// A write failed before the end of the stream was read: TCP was reset.
			// The system tells once, and a hang-up that was cancelled took it.
			s.reason = s.opError("write", syscall.ECONNRESET)
		}
		s.lose(s.reason)
	case c.Err != nil && c.Op.Kind == backend.Hangup:
		s.hungUp(s.opError(op, c.Err))
	case c.Err != nil:
		s.lose(s.opError(op, c.Err))
	case c.Op.Kind == backend.Hangup:
		s.flags |= fHungUp
	case c.N == 0:
		s.flags |= fEOF
		if !s.paused() && s.flags&fOffer == 0 {
			s.endOfStream()
		}
	default:
		s.deliver(c.Buf)
	}
}

// hungUp takes a failure that came while reading was paused. What the peer had
// sent before is still there, for when reading goes on; but a protocol that
// waits for its writes to drain would wait for ever.
func (s *stream) hungUp(err error) {
	if s.rh != s.wh || s.flags&fEOF != 0 || s.flags&(fPaused|fWritePaused) == fPaused|fWritePaused {
		s.lose(err)
		return
	}
	s.breakWriting(err)
}

// pieceMax is how many bytes one DataReceived gets, if it uses any of them.
const pieceMax = 64 << 10

// deliver offers the tail and p to the protocol and keeps what it leaves.
func (s *stream) deliver(p []byte) {
	kept := len(s.tail) > 0
	if kept {
		if planted == "tail-forgets" && len(p) > 0 {
			s.tail = s.tail[1:]
		}
		s.tail = append(s.tail, p...)
		p = s.tail
	}
	s.flags &^= fOffer
	came := false
	for len(p) > 0 && (!s.paused() || planted == "pause-ignored") {
		s.flags &^= fExchanged
		// What was withheld may be much more than one read. It is offered in
		// pieces, so that a protocol that writes as much as it reads meets its
		// marks in between; one that declines a piece sees all there is.
		k := min(len(p), pieceMax)
		q := p[:k:k]
		if came && s.caps&capBuffer != 0 {
			// The protocol came in the midst of this read: its first bytes go
			// where all others will.
			if q = s.supplied(q); s.flags&fClosing != 0 {
				s.dropTail()
				return
			} else if s.flags&fLost != 0 {
				return
			} else if s.paused() {
				break
			}
		}
		n, err := s.callData(q)
		if n == 0 && len(q) < len(p) && err == nil && s.flags&(fLost|fClosing|fExchanged) == 0 && !s.paused() {
			q = p
			n, err = s.callData(q)
		}
		if s.x != nil && s.x.handed != nil {
			made := s.x.handed
			s.x.handed = nil
			if err == nil {
				s.callHanded(made)
				came = true
			}
		} else if n < len(q) {
			came = false // what it leaves is kept, and offered from there
		}
		switch {
		case s.flags&fLost != 0 && planted == "lost-in-callback" && n > 0 && n < len(p):
		case s.flags&fLost != 0:
			return
		case err != nil:
			s.lose(err)
			return
		case n < 0 || n > len(q):
			s.lose(&UsedError{N: n, Len: len(q)})
			return
		case s.flags&fClosing != 0:
			s.dropTail()
			return
		}
		p = p[n:]
		if n == 0 && s.flags&fExchanged == 0 {
			break
		}
	}
	s.keep(p, kept)
}

// keep stores what the protocol left of p, which lies in the tail if kept.
func (s *stream) keep(p []byte, kept bool) {
	if len(p) == 0 {
		s.dropTail()
		return
	}
	switch {
	case len(p) > chunkSize && kept:
		// Moving a long tail to the front for each piece of it that is used would
		// cost the square of its length.
		s.tail = p
	case len(p) > chunkSize:
		s.tail = append([]byte(nil), p...)
	case kept && cap(s.tail) == chunkSize:
		s.tail = append(s.tail[:0], p...)
	default:
		s.tail = append(s.loop.pool.get()[:0], p...)
	}
	if len(p) > int(s.tailMax) && !s.paused() {
		s.lose(&TailError{Unused: len(p), Limit: int(s.tailMax)})
	}
}

// keepMore keeps bytes that come while the protocol looks at others.
func (s *stream) keepMore(p []byte) {
	s.x.more = append(s.x.more, p...)
	s.queue()
}

func (s *stream) dropTail() {
	if s.tail != nil && s.flags&fInData == 0 {
		s.loop.pool.put(s.tail)
		s.tail = nil
	} else if s.tail != nil {
		s.tail = nil // the protocol is looking at it
	}
}

// endOfStream offers the tail once more and then hands over the end.
func (s *stream) endOfStream() {
	if planted == "end-drops-tail" {
		s.dropTail()
	}
	if len(s.tail) > 0 {
		s.deliver(nil)
		if s.flags&(fLost|fClosing) != 0 || s.paused() {
			return
		}
	}
	if s.x != nil && s.x.broken != nil {
		s.lose(s.x.broken)
		return
	}
	s.flags |= fEOFDone
	unused := len(s.tail)
	if s.caps&capEOF != 0 {
		keep, err := s.callEOF(unused)
		switch {
		case s.flags&(fLost|fClosing) != 0:
			return
		case err != nil:
			s.lose(err)
			return
		case keep:
			s.dropTail()
			if planted == "half-close-ends" {
				s.lose(nil)
			}
			return
		}
	}
	var reason error
	if unused > 0 {
		reason = &UnusedError{Unused: unused}
	}
	s.close(reason)
}

func (s *stream) callEOF(unused int) (keep bool, err error) {
	defer s.guard("EOFReceived")
	return s.proto.(EOFReceiver).EOFReceived(unused)
}

// drainMax bounds what is read after a write failed.
const drainMax = 64

// drainBroken delivers what had arrived before the write failed, and then
// loses the connection.
func (s *stream) drainBroken() {
	if s.rop.Armed() {
		s.loop.be.Cancel(&s.rop)
		if s.rop.Armed() {
			return
		}
	}
	for range drainMax {
		if s.flags&(fEOF|fClosing) != 0 {
			break
		}
		if s.paused() || s.flags&fOffer != 0 {
			return // goes on when reading does
		}
		s.rop.Kind, s.rop.Flags, s.rop.Handle, s.rop.Buf = backend.Read, backend.Now, s.rh, s.loop.pool.get()
		buf := s.rop.Buf
		c, ok := s.loop.submit(&s.rop)
		if !ok {
			return // its result calls sync again
		}
		s.readDone(&c)
		s.loop.pool.put(buf)
		if s.flags&fLost != 0 {
			return
		}
	}
	s.lose(s.reason)
}
