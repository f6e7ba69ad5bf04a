package weir

import (
	"errors"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/chunk"
)

// directMin is the least size of a Write that is tried without a copy.
const directMin = 16 << 10

// writing reports whether bytes wait to be sent or are being sent.
func (s *stream) writing() bool { return s.out != nil && (s.out.n > 0 || s.out.busy()) }

func (s *stream) Buffered() int {
	return s.waiting() + s.lower.count(bytesHeld)
}

// waiting is how many bytes wait in this transport itself.
func (s *stream) waiting() int {
	n := 0
	if s.loop.gather.to == s {
		n = s.loop.gather.n
	}
	if s.out != nil {
		n += s.out.n
	}
	return n
}

// Undelivered is how many bytes were written and are not known to have reached the
// peer's system: those in Buffered, and those that the local system holds (TCP's
// unacknowledged bytes, on Linux). Find it with As.
func (s *stream) Undelivered() int {
	return s.Buffered() + s.lower.count(bytesUnacked)
}

func (s *stream) writable(method string) error {
	switch {
	case s.phase == phaseBroken || s.phase != phaseOpen && !s.producing():
		return ErrClosed
	case s.x.noReader != nil:
		return ErrReaderGone
	case s.flags&fWriteEOF != 0:
		return ErrWriteAfterEOF
	case s.flags&fReadOnly != 0:
		return ErrNotWritable
	}
	return s.loop.check(method)
}

func (s *stream) Write(p []byte) (int, error) {
	if err := s.writable("Write"); err != nil {
		return 0, err
	}
	s.send(p)
	return len(p), nil
}

func (s *stream) send(p []byte) {
	if len(p) == 0 {
		return
	}
	s.x.idle.movedNow(DirectionWrite)
	s.sendGathered()
	if len(p) >= directMin && s.out == nil && s.loop.caps.Inline {
		p = p[s.lower.write(p):]
	}
	if len(p) > 0 {
		s.buffer(p)
	} else {
		s.drainLater() // it was never in the buffer, but it has been sent
	}
	s.overflow()
}

func (s *stream) Writev(bufs [][]byte) (int, error) {
	if err := s.writable("Writev"); err != nil {
		return 0, err
	}
	total := 0
	for _, p := range bufs {
		if len(p) > 0 {
			total += len(p)
			s.x.idle.movedNow(DirectionWrite)
			s.sendGathered()
			s.buffer(p)
		}
	}
	s.overflow()
	return total, nil
}

func (s *stream) buffer(p []byte) {
	if s.out == nil {
		s.out = s.loop.pool.getOut()
	}
	s.out.append(&s.loop.pool, p)
	s.touch()
}

// overflow sends what it can when the high mark is crossed, and tells the
// writer if that was not enough.
func (s *stream) overflow() {
	high := s.highMark()
	if s.backlog() <= high || s.flags&(fWritePaused|fAutoPaused) == fWritePaused|fAutoPaused {
		return
	}
	if s.out != nil {
		s.lower.flush()
	}
	if s.backlog() <= high || s.phase == phaseBroken || s.phase >= phaseLost {
		return
	}
	if s.flags&fInData != 0 && s.caps&capPause == 0 {
		// Our bytes are replies to the peer's: no more of those until these are sent.
		s.flags |= fAutoPaused
		s.touch()
	}
	if s.flags&fWritePaused == 0 {
		s.flags |= fWritePaused
		s.watchBelow()
		s.pauseWriter()
	} else if s.flags&fPauseDue != 0 && s.x.handed == nil {
		s.flags &^= fPauseDue
		s.tellPause()
	}
}

// backlog is what is compared with the marks.
func (s *stream) backlog() int {
	n := s.lower.count(bytesHeld)
	if s.out != nil {
		n += s.out.n
	}
	return n
}

// pauseWriter tells whoever fills the buffer to stop: the producer and the
// protocol.
func (s *stream) pauseWriter() {
	if s.x.producer != nil && !s.x.pull {
		s.x.producerPaused = true
		s.callProducer("PauseProducing", s.x.producer.PauseProducing)
	}
	if s.phase < phaseLost {
		s.tellPause()
	}
}

// tellPause tells the protocol that its writer is paused, if it is a WritePauser.
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

// quiet reports whether there will be nothing to do when the bytes asked for are sent:
// nothing else is buffered, and nothing waits for the buffer to empty.
func (s *stream) quiet() bool {
	return s.out.asked == s.out.n && s.caps&capDrain == 0 && s.phase == phaseOpen &&
		s.flags&(fWriteEOF|fWritePaused|fResumeDue) == 0 &&
		s.x.producer == nil && s.x.spliceFrom == nil && s.x.above == nil
}

// sent is called by the lower half when it has sent n bytes of the buffer.
func (s *stream) sent(n int) {
	o := s.out
	o.sent(&s.loop.pool, n)
	if n > 0 {
		s.x.idle.movedThen(DirectionWrite)
	}
	if n > 0 && s.tie != nil {
		s.tie.moved = s.loop.now
	}
	if s.flags&fWritePaused != 0 && s.backlog() <= int(s.bounds.low) {
		s.flags |= fResumeDue
		s.queue()
	}
	if o.n == 0 {
		o.release(&s.loop.pool)
		s.out = nil
		s.drainLater()
	}
	if s.x.above != nil {
		s.x.above.moved()
	}
}

// moved is called when bytes that count here have left a stream below, or a carrier
// that holds some. It calls no protocol.
func (s *stream) moved() {
	if s.phase >= phaseLost {
		return
	}
	if s.flags&(fWritePaused|fDrainDue) != 0 {
		n := s.Buffered()
		if s.flags&fWritePaused != 0 && n <= int(s.bounds.low) {
			s.flags |= fResumeDue
			s.queue()
		}
		if s.flags&fDrainDue != 0 && n == 0 {
			s.queue()
		}
	}
	if s.x.above != nil {
		s.x.above.moved()
	}
}

// watchBelow makes the streams below a layer's stream report when bytes leave them.
func (s *stream) watchBelow() {
	for u := s.below(); u != nil; s, u = u, u.below() {
		u.extra().above = s
		u.touch() // a write in flight is no longer quiet
	}
}

// unwatchBelow ends that once nothing waits any more.
func (s *stream) unwatchBelow() {
	for u := s.below(); u != nil && u.x.above == s && !s.counts(); s, u = u, u.below() {
		u.extra().above = nil
	}
}

// counts reports whether the stream, or one that watches it, waits for bytes to leave.
func (s *stream) counts() bool {
	const waits = fWritePaused | fDrainDue
	return s.flags&waits != 0 || s.x.above != nil && s.x.above.flags&waits != 0
}

// drainLater queues what is due when everything written has been sent.
func (s *stream) drainLater() {
	if s.caps&capDrain != 0 || s.x.producer != nil && s.x.pull {
		s.flags |= fDrainDue
		s.queue()
	}
}

// breakWriting drops what was to be written and lets reading find the end. While
// reading is paused the protocol is told, from the loop's queue.
func (s *stream) breakWriting(reason error) {
	switch {
	case s.phase >= phaseLost:
		return
	case s.flags&fEOF != 0 && !s.held():
		s.lose(reason) // there is nothing left to be read
		return
	case s.phase == phaseOpen && errors.Is(reason, ErrReaderGone):
		s.endWriting(reason)
		return
	}
	s.setReason(reason)
	s.flags &^= fAutoPaused | fWritePaused | fResumeDue | fDrainDue
	if s.become(phaseBroken) {
		s.extra().breakDue = true
		s.queue()
	}
	if s.loop.gather.to == s {
		s.loop.gather.drop()
	}
	s.dropOut()
	s.touch()
}

// endWriting ends writing, because no one reads what is written, and nothing else: what
// comes is delivered to its end, however late.
func (s *stream) endWriting(reason error) {
	if s.phase >= phaseClosing || s.x.noReader != nil {
		return
	}
	x := s.extra()
	x.noReader, x.dropped, x.breakDue = reason, s.waiting() > 0, true
	s.flags &^= fDrainDue
	s.flags |= fWriteEOF
	if s.loop.gather.to == s {
		s.loop.gather.drop()
	}
	s.dropUnwanted()
	s.queue()
	s.touch()
}

// dropUnwanted drops what no one would read, and lets a writer that waits go on: it finds
// out when it writes.
func (s *stream) dropUnwanted() {
	s.dropOut()
	if s.out == nil && s.flags&fWritePaused != 0 {
		s.flags |= fResumeDue
		s.queue()
	}
}

// patienceTime is how long a protocol that has paused reading, and has no WriteFailed,
// can keep a connection whose peer is gone.
const patienceTime = 5 * time.Second

// tellBroken tells the protocol of a write that failed, if the connection has not been
// lost because of it.
func (s *stream) tellBroken() {
	s.stopProducer()
	if s.phase >= phaseLost {
		return
	}
	if s.caps&capFail != 0 {
		s.callWriteFailed()
		return
	}
	if s.flags&fPaused == 0 || s.x.noReader != nil {
		return // what is left is being delivered
	}
	if s.flags&fTold != 0 || s.unread() == 0 {
		s.lose(s.reason())
		return
	}
	seen := s.x.drained
	var look func()
	look = func() {
		if s.phase >= phaseLost {
			return
		}
		if s.flags&fPaused != 0 && seen == s.x.drained {
			s.lose(s.reason())
			return
		}
		seen = s.x.drained
		s.x.patience = s.loop.After(patienceTime, look)
	}
	s.x.patience = s.loop.After(patienceTime, look)
}

func (s *stream) callWriteFailed() {
	defer s.guard("WriteFailed")
	reason := s.reason()
	if s.x.noReader != nil {
		reason = s.x.noReader
	}
	s.proto.(WriteFailer).WriteFailed(reason)
}

// unread is how many bytes are still to be read. It may be inexact, but it is 0 only if
// there are none.
func (s *stream) unread() int {
	return len(s.tail) + len(s.x.more) + s.lower.count(bytesUnread)
}

// runWriting calls what is due on the writing side.
func (s *stream) runWriting() {
	if s.flags&fResumeDue != 0 {
		s.flags &^= fResumeDue
		if s.Buffered() <= int(s.bounds.low) && s.flags&fWritePaused != 0 {
			s.flags &^= fWritePaused
			s.resumeWriter()
		}
	}
	if s.flags&fPauseDue != 0 {
		s.flags &^= fPauseDue
		if s.phase < phaseClosing && s.flags&fWritePaused != 0 {
			s.tellPause()
		}
	}
	if s.phase < phaseLost && s.flags&fDrainDue != 0 {
		if s.out == nil && s.lower.count(bytesHeld) > 0 {
			s.watchBelow()
			return // moved queues it again
		}
		s.flags &^= fDrainDue
		if s.out == nil {
			s.drained()
		}
	}
	s.unwatchBelow()
}

// resumeWriter undoes pauseWriter.
func (s *stream) resumeWriter() {
	if s.flags&fAutoPaused != 0 {
		s.flags &^= fAutoPaused
		s.readingResumed()
	} else if s.flags&fTold != 0 && s.phase != phaseClosing {
		s.flags &^= fTold
		s.callResumeWriting()
	}
	if s.phase < phaseLost && s.x.producerPaused && s.x.producer != nil && s.flags&fWritePaused == 0 {
		s.x.producerPaused = false
		s.callProducer("ResumeProducing", s.x.producer.ResumeProducing)
	}
}

func (s *stream) drained() {
	if s.caps&capDrain != 0 && s.phase < phaseClosing {
		s.callDrained()
	}
	if s.phase < phaseLost && s.out == nil && s.x.producer != nil && s.x.pull {
		s.callProducer("ResumeProducing", s.x.producer.ResumeProducing)
	}
}

func (s *stream) SetWriteMarks(high, low int) error {
	if err := s.loop.check("SetWriteMarks"); err != nil {
		return err
	}
	if low < 0 || high < low || high > 1<<30 {
		return ErrBadMarks
	}
	s.bounds = &bounds{high: int32(high), low: int32(low), tail: s.bounds.tail}
	if s.phase < phaseLost && s.flags&fWritePaused != 0 && s.Buffered() <= low {
		s.flags |= fResumeDue
		s.queue()
	}
	s.overflow()
	return nil
}

func (s *stream) WriteMarks() (high, low int) { return int(s.bounds.high), int(s.bounds.low) }

func (s *stream) Room() int {
	if s.flags&fWritePaused != 0 || s.writable("Room") != nil {
		return 0
	}
	return max(s.highMark()-s.Buffered(), 0)
}

func (s *stream) WriteEOF() error {
	if err := s.loop.check("WriteEOF"); err != nil {
		return err
	}
	switch {
	case s.flags&fWriteEOF != 0:
		return nil
	case s.phase != phaseOpen:
		return ErrClosed
	case !s.CanWriteEOF():
		return ErrNoHalfClose
	}
	s.flags |= fWriteEOF
	s.touch()
	return nil
}

func (s *stream) CanWriteEOF() bool { return s.lower.canCloseWrite() }

// sendEOF sends the end of writing once everything before it has been sent.
func (s *stream) sendEOF() {
	if s.flags&(fWriteEOF|fWriteEOFSent) != fWriteEOF || s.phase == phaseBroken || s.phase >= phaseLost || s.writing() {
		return
	}
	if s.lower.closeWrite() {
		s.flags |= fWriteEOFSent
	}
}

// producing reports whether Close waits for a producer, which may still write.
func (s *stream) producing() bool {
	return s.phase < phaseLost && s.x.producer != nil
}

func (s *stream) RegisterProducer(p Producer) error {
	if err := s.loop.check("RegisterProducer"); err != nil {
		return err
	}
	if s.x.producer != nil {
		return ErrProducerRegistered
	}
	if s.phase != phaseOpen {
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

func (s *stream) UnregisterProducer() {
	if s.loop.check("UnregisterProducer") != nil || s.x.producer == nil {
		return
	}
	s.x.producer, s.x.producerPaused = nil, false
	s.touch()
}

func (s *stream) callProducer(where string, f func()) {
	defer s.guard(where)
	f()
}

// stopProducer tells a producer that is still registered at the end of the stream.
func (s *stream) stopProducer() {
	if s.x.producer == nil {
		return
	}
	p := s.x.producer
	s.x.producer = nil
	s.callProducer("StopProducing", p.StopProducing)
}

// outbuf is a stream's write buffer: chunks from the loop's pool, sent in order. It
// exists only while something is buffered.
type outbuf struct {
	op     backend.Op
	chunks [][]byte // what is not yet sent, in order
	vec    [][]byte // the pieces that op was given: the same memory
	n      int      // bytes in chunks
	asked  int      // bytes in vec
	lent   bool     // a Carrier's Write has chunks
	next   *outbuf  // the pool's list
}

// busy reports whether the lower half is using it.
func (o *outbuf) busy() bool { return o.lent || o.op.Armed() }

// vecMax is how many pieces one write takes.
const vecMax = 64

func (o *outbuf) append(pool *outPool, p []byte) {
	o.n += len(p)
	for len(p) > 0 {
		last := len(o.chunks) - 1
		if last < 0 || len(o.chunks[last]) == cap(o.chunks[last]) {
			o.chunks = append(o.chunks, pool.Get()[:0])
			last++
		}
		c := o.chunks[last]
		k := copy(c[len(c):cap(c)], p)
		o.chunks[last] = c[:len(c)+k]
		p = p[k:]
	}
}

// limit shortens vec to n bytes.
func (o *outbuf) limit(n int) {
	for i, p := range o.vec {
		if n <= len(p) {
			o.vec[i] = p[:n]
			o.vec = o.vec[:i+1]
			o.asked = 0 // not all there is
			return
		}
		n -= len(p)
	}
}

// sent takes n bytes off the front.
func (o *outbuf) sent(pool *outPool, n int) {
	o.n -= n
	done := 0
	for n > 0 {
		c := o.chunks[done]
		if n < len(c) {
			o.chunks[done] = c[n:]
			break
		}
		n -= len(c)
		pool.Put(c)
		o.chunks[done] = nil
		done++
	}
	o.chunks = o.chunks[:copy(o.chunks, o.chunks[done:])]
}

func (o *outbuf) release(pool *outPool) {
	for i, c := range o.chunks {
		pool.Put(c)
		o.chunks[i] = nil
	}
	clear(o.vec[:cap(o.vec)])
	o.chunks, o.vec, o.n = o.chunks[:0], o.vec[:0], 0
	pool.putOut(o)
}

// outsKept is how many free write buffers a loop keeps at most.
const outsKept = 1024

// outPool holds a loop's free buffers: chunks for bytes, and the heads of write
// buffers.
type outPool struct {
	chunk.Pool
	outs *outbuf
	nout int
}

func (p *outPool) getOut() *outbuf {
	o := p.outs
	if o == nil {
		return &outbuf{}
	}
	p.outs, o.next = o.next, nil
	p.nout--
	return o
}

func (p *outPool) putOut(o *outbuf) {
	o.op.Owner = nil
	o.op.Vec = nil
	if p.nout >= outsKept {
		return
	}
	o.next, p.outs = p.outs, o
	p.nout++
}
