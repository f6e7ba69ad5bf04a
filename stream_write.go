package weir

import (
	"github.com/weir-io/weir/internal/backend"
)

// outbuf is a stream's write buffer: chunks of the loop's pool, sent in order.
// It exists only while something is buffered.
type outbuf struct {
	op     backend.Op
	chunks [][]byte // what is not yet sent, in order
	vec    [][]byte // what op was given: the same memory
	n      int      // bytes in chunks
	asked  int      // bytes in vec
	next   *outbuf  // the pool's list
}

// vecMax is how many pieces one write takes.
const vecMax = 64

// directMin is the size from which a Write is tried without a copy.
const directMin = 16 << 10

func (o *outbuf) append(pool *chunkPool, p []byte) {
	o.n += len(p)
	for len(p) > 0 {
		last := len(o.chunks) - 1
		if last < 0 || len(o.chunks[last]) == cap(o.chunks[last]) {
			o.chunks = append(o.chunks, pool.get()[:0])
			last++
		}
		c := o.chunks[last]
		k := copy(c[len(c):cap(c)], p)
		o.chunks[last] = c[:len(c)+k]
		p = p[k:]
	}
}

// sent takes n bytes off the front.
func (o *outbuf) sent(pool *chunkPool, n int) {
	o.n -= n
	done := 0
	for n > 0 {
		c := o.chunks[done]
		if n < len(c) {
			o.chunks[done] = c[n:]
			break
		}
		n -= len(c)
		pool.put(c)
		o.chunks[done] = nil
		done++
	}
	o.chunks = o.chunks[:copy(o.chunks, o.chunks[done:])]
}

func (o *outbuf) release(pool *chunkPool) {
	for i, c := range o.chunks {
		pool.put(c)
		o.chunks[i] = nil
	}
	clear(o.vec[:cap(o.vec)])
	o.chunks, o.vec, o.n = o.chunks[:0], o.vec[:0], 0
	pool.putOut(o)
}

// writing reports whether bytes wait to be sent or are being sent.
func (s *stream) writing() bool { return s.out != nil && (s.out.n > 0 || s.out.op.Armed()) }

// Buffered implements Transport.
func (s *stream) Buffered() int {
	n := 0
	if s.loop.gather.to == s {
		n = s.loop.gather.n
	}
	if s.out != nil {
		n += s.out.n
	}
	return n
}

func (s *stream) writable(method string) error {
	switch {
	case s.flags&(fClosing|fLost) != 0 && !s.producing():
		return ErrClosed
	case s.flags&(fLost|fWriteBroken) != 0:
		return ErrClosed
	case s.flags&fWriteEOF != 0:
		return ErrWriteAfterEOF
	case s.wh == backend.None && s.flags&fCarried == 0:
		return ErrNotWritable
	}
	return s.loop.check(method)
}

// producing reports whether Close waits for a producer, which may still write.
func (s *stream) producing() bool {
	return s.flags&fLost == 0 && s.x != nil && s.x.producer != nil
}

// Write implements Transport.
func (s *stream) Write(p []byte) (int, error) {
	if err := s.writable("Write"); err != nil {
		return 0, err
	}
	s.write(p)
	return len(p), nil
}

func (s *stream) write(p []byte) {
	if len(p) == 0 {
		return
	}
	s.settle()
	if len(p) >= directMin && s.out == nil && s.loop.caps.Inline && s.flags&fSpliceOut == 0 {
		if s.flags&fCarried != 0 {
			p = p[s.directCarrier(p):]
		} else {
			s.loop.one[0] = p
			p = p[s.direct(s.loop.one[:]):]
			s.loop.one[0] = nil
		}
	}
	if len(p) > 0 {
		s.buffer(p)
		s.overflow()
	} else {
		s.drainLater() // it never was in the buffer, but it has left all the same
	}
}

// Writev implements Transport.
func (s *stream) Writev(bufs [][]byte) (int, error) {
	if err := s.writable("Writev"); err != nil {
		return 0, err
	}
	total := 0
	for _, p := range bufs {
		if len(p) > 0 {
			total += len(p)
			s.settle()
			s.buffer(p)
		}
	}
	s.overflow()
	return total, nil
}

func (s *stream) buffer(p []byte) {
	if s.out == nil {
		s.out = s.loop.pool.getOut(s)
	}
	s.out.append(&s.loop.pool, p)
	s.touch()
}

// direct tries to send vec from where it lies and returns how many bytes left.
func (s *stream) direct(vec [][]byte) int {
	o := s.loop.pool.getOut(s)
	o.vec = append(o.vec[:0], vec...)
	o.op.Kind, o.op.Flags, o.op.Handle, o.op.Vec = backend.Write, backend.Now, s.wh, o.vec
	c, inline := s.loop.submit(&o.op)
	if !inline {
		// Caps.Inline promises a Now op an answer; take a backend that breaks
		// the promise for one that cannot send.
		s.loop.be.Cancel(&o.op)
	}
	o.release(&s.loop.pool)
	if !inline || c.Err != nil {
		return 0 // an error comes back, and is handled, at the next flush
	}
	return c.N
}

// overflow sends what it can when the high mark is crossed, and tells the
// writer if that was not enough.
func (s *stream) overflow() {
	if s.out == nil || s.out.n <= int(s.high) || s.flags&(fWritePaused|fAutoPaused) == fWritePaused|fAutoPaused || planted == "writer-never-pauses" {
		return
	}
	s.flush()
	if s.out == nil || s.out.n <= int(s.high) || s.flags&fLost != 0 {
		return
	}
	if (s.flags&fInData != 0 || planted == "writers-stop-reading") && s.caps&capPause == 0 {
		// The peer's bytes make ours: no more of them until these have left.
		s.flags |= fAutoPaused
		s.touch()
	}
	if s.flags&fWritePaused == 0 {
		s.flags |= fWritePaused
		s.pauseWriter()
	} else if s.flags&fPauseDue != 0 && (s.x == nil || s.x.handed == nil) {
		s.flags &^= fPauseDue
		s.tellPause()
	}
}

// pauseWriter tells whoever fills the buffer to stop: the producer and the
// protocol.
func (s *stream) pauseWriter() {
	if s.x != nil && s.x.producer != nil && !s.x.pull {
		s.x.producerPaused = true
		s.callProducer("PauseProducing", s.x.producer.PauseProducing)
	}
	if s.flags&fLost != 0 {
		return
	}
	s.tellPause()
}

// tellPause tells the protocol that its writer is paused, if it can hear it.
func (s *stream) tellPause() {
	if s.caps&capPause != 0 {
		s.flags |= fTold
		s.callPauseWriting()
	}
}

func (s *stream) callPauseWriting() {
	defer s.guard("PauseWriting")
	s.proto.(WritePauser).PauseWriting()
}

func (s *stream) callResumeWriting() {
	defer s.guard("ResumeWriting")
	s.proto.(WritePauser).ResumeWriting()
}

func (s *stream) callDrained() {
	defer s.guard("WriteDrained")
	s.proto.(Drainer).WriteDrained()
}

// flush sends what is buffered, as far as the system takes it.
func (s *stream) flush() {
	if s.flags&fCarried != 0 {
		s.flushCarrier()
		return
	}
	if s.out != nil && s.out.op.Flags&backend.Quiet != 0 && s.out.op.Armed() && !s.quiet() {
		s.out.op.Flags &^= backend.Quiet
	}
	for s.out != nil && s.out.n > 0 && !s.out.op.Armed() && s.flags&(fLost|fWriteBroken|fSpliceOut) == 0 {
		o := s.out
		o.vec = append(o.vec[:0], o.chunks[:min(len(o.chunks), vecMax)]...)
		o.op.Kind, o.op.Flags, o.op.Handle, o.op.Vec = backend.Write, 0, s.wh, o.vec
		o.asked = o.n
		if len(o.chunks) > vecMax {
			o.asked = 0
		}
		if s.quiet() {
			o.op.Flags = backend.Quiet
		}
		c, ok := s.loop.submit(&o.op)
		if !ok {
			return
		}
		s.writeDone(&c)
	}
}

// quiet reports whether nothing is to be done when what was asked for is sent:
// nothing else is buffered and nobody waits for the buffer to empty.
func (s *stream) quiet() bool {
	return s.out.asked == s.out.n && s.caps&capDrain == 0 &&
		s.flags&(fClosing|fWriteEOF|fWritePaused|fResumeDue|fWriteBroken) == 0 &&
		(s.x == nil || s.x.producer == nil && s.x.spliceFrom == nil)
}

// writeDone takes a result of the write Op.
func (s *stream) writeDone(c *backend.Completion) {
	o := s.out
	if s.flags&fLost != 0 {
		return
	}
	switch c.Err {
	case nil:
		if planted == "short-write-is-whole" && s.flags&fClosing != 0 {
			c.N = o.n
		}
		o.sent(&s.loop.pool, c.N)
	case backend.ErrAgain, backend.ErrCanceled:
	default:
		s.writeFailed(c.Err)
		return
	}
	if s.flags&fWritePaused != 0 && o.n <= int(s.low) {
		s.flags |= fResumeDue
		s.queue()
	}
	if o.n == 0 {
		o.release(&s.loop.pool)
		s.out = nil
		if s.x != nil && s.x.spliceFrom != nil {
			s.x.spliceFrom.src.touch()
		}
		s.drainLater()
	}
}

// drainLater queues what is due when everything written has left.
func (s *stream) drainLater() {
	if s.caps&capDrain != 0 || s.x != nil && s.x.producer != nil && s.x.pull {
		s.flags |= fDrainDue
		s.queue()
	}
}

// writeFailed ends the connection, but not before what the peer had sent is
// delivered: a server that answers early and closes makes our write fail
// while its answer is still to be read.
func (s *stream) writeFailed(err error) {
	reason := s.opError("write", err)
	if s.flags&fWriteBroken != 0 {
		reason = s.reason // the hang-up's, which took the system's only word of a reset
	}
	if s.rh != s.wh || s.paused() || s.flags&(fClosing|fEOF) != 0 {
		s.lose(reason)
		return
	}
	s.breakWriting(reason)
}

// breakWriting drops what was to be written and leaves reading to find the end.
func (s *stream) breakWriting(reason error) {
	s.flags |= fWriteBroken
	s.flags &^= fAutoPaused
	s.reason = reason
	if s.out != nil && !s.out.op.Armed() {
		s.out.release(&s.loop.pool)
		s.out = nil
	}
	s.touch()
}

// runWriting calls what is due on the writing side.
func (s *stream) runWriting() {
	if s.flags&fResumeDue != 0 {
		s.flags &^= fResumeDue
		if s.Buffered() <= int(s.low) && s.flags&fWritePaused != 0 {
			s.flags &^= fWritePaused
			s.resumeWriter()
			if planted == "resume-twice" && s.flags&(fLost|fWritePaused) == 0 && s.caps&capPause != 0 {
				s.flags |= fTold
				s.resumeWriter()
			}
		}
	}
	if s.flags&fPauseDue != 0 {
		s.flags &^= fPauseDue
		if s.flags&(fLost|fClosing|fWritePaused) == fWritePaused {
			s.tellPause()
		}
	}
	if s.flags&fLost == 0 && s.flags&fDrainDue != 0 {
		s.flags &^= fDrainDue
		if s.out == nil {
			s.drained()
		}
	}
}

// resumeWriter undoes pauseWriter.
func (s *stream) resumeWriter() {
	if s.flags&fAutoPaused != 0 {
		s.flags &^= fAutoPaused
		s.readingResumed()
	} else if s.flags&fTold != 0 && s.flags&fClosing == 0 {
		s.flags &^= fTold
		s.callResumeWriting()
	}
	if s.flags&fLost == 0 && s.x != nil && s.x.producer != nil && s.x.producerPaused && s.flags&fWritePaused == 0 {
		s.x.producerPaused = false
		s.callProducer("ResumeProducing", s.x.producer.ResumeProducing)
	}
}

func (s *stream) drained() {
	if s.caps&capDrain != 0 && s.flags&fClosing == 0 {
		s.callDrained()
	}
	if s.flags&fLost == 0 && s.out == nil && s.x != nil && s.x.producer != nil && s.x.pull {
		s.callProducer("ResumeProducing", s.x.producer.ResumeProducing)
	}
}

// SetWriteMarks implements Transport.
func (s *stream) SetWriteMarks(high, low int) error {
	if err := s.loop.check("SetWriteMarks"); err != nil {
		return err
	}
	if low < 0 || high < low || high > 1<<30 {
		return ErrBadMarks
	}
	s.high, s.low = int32(high), int32(low)
	if s.flags&(fLost|fWritePaused) == fWritePaused && s.Buffered() <= low {
		s.flags |= fResumeDue
		s.queue()
	}
	s.overflow()
	return nil
}

// WriteEOF implements Transport.
func (s *stream) WriteEOF() error {
	if err := s.loop.check("WriteEOF"); err != nil {
		return err
	}
	switch {
	case s.flags&fWriteEOF != 0:
		return nil
	case s.flags&(fClosing|fLost|fWriteBroken) != 0:
		return ErrClosed
	case !s.CanWriteEOF():
		return ErrNoHalfClose
	}
	s.flags |= fWriteEOF
	s.touch()
	return nil
}

// CanWriteEOF implements Transport.
func (s *stream) CanWriteEOF() bool {
	if s.flags&fCarried != 0 {
		return s.x.carrier.CanCloseWrite()
	}
	if s.wh == backend.None && s.flags&fShut == 0 {
		return s.flags&fWriteEOFSent != 0
	}
	return s.net != netTTY
}

// sendEOF sends the end of writing once everything before it has left.
func (s *stream) sendEOF() {
	if s.flags&(fWriteEOF|fWriteEOFSent|fLost|fWriteBroken|fSpliceOut) != fWriteEOF || s.writing() && planted != "end-overtakes" {
		return
	}
	s.flags |= fWriteEOFSent
	if s.flags&fCarried != 0 {
		if s.flags&fGone == 0 {
			s.callCarrierCloseWrite()
		}
		return
	}
	if s.rh != s.wh {
		if s.rh == backend.None {
			s.close(nil) // a write-only pipe has nothing left to do
			return
		}
		s.loop.shutHandle(s.wh, backend.CloseFlat)
		s.wh = backend.None
		return
	}
	if err := s.loop.be.Shut(s.wh, backend.ShutWrite); err != nil && s.flags&fEOF == 0 {
		// The peer's reset came first. Reading tells, once; if nobody reads, the
		// hang-up does.
		s.flags &^= fHungUp
	}
}

// RegisterProducer implements Transport.
func (s *stream) RegisterProducer(p Producer) error {
	if err := s.loop.check("RegisterProducer"); err != nil {
		return err
	}
	if s.x != nil && s.x.producer != nil {
		return ErrProducerRegistered
	}
	if s.flags&(fClosing|fLost|fWriteBroken) != 0 {
		s.loop.internalCall(func() { s.callProducer("StopProducing", p.StopProducing) })
		return nil
	}
	x := s.extra()
	x.producer, x.pull = p, !p.Streaming()
	if x.pull {
		s.flags |= fDrainDue
		s.queue()
	} else if s.flags&fWritePaused != 0 {
		x.producerPaused = true
		s.callProducer("PauseProducing", p.PauseProducing)
	}
	return nil
}

// UnregisterProducer implements Transport.
func (s *stream) UnregisterProducer() {
	if s.loop.check("UnregisterProducer") != nil || s.x == nil || s.x.producer == nil {
		return
	}
	s.x.producer, s.x.producerPaused = nil, false
	s.touch()
}

func (s *stream) callProducer(where string, f func()) {
	defer s.guard(where)
	f()
}

// stopProducer tells a producer that is still registered at the end.
func (s *stream) stopProducer() {
	if s.x == nil || s.x.producer == nil {
		return
	}
	p := s.x.producer
	s.x.producer = nil
	s.callProducer("StopProducing", p.StopProducing)
}
