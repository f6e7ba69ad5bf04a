package weirtest

import (
	"net"
	"time"

	"github.com/weir-io/weir"
)

// directMin is the size from which a Write into an empty buffer is sent at
// once, as far as there is room.
const directMin = 16 << 10

// Write is weir.Transport's: it takes p, unless the transport is closed.
func (r *Recorder) Write(p []byte) (int, error) {
	if err := r.writable(); err != nil {
		r.note("Write %s = %v", quote(p), err)
		return 0, err
	}
	r.note("Write %s", quote(p))
	direct := len(r.out) == 0 && len(p) >= directMin && r.hasRoom()
	r.take(p)
	if direct {
		r.flush()
		// Bytes that never were in the buffer do not drain from it.
		r.drainDue = r.drainDue && len(r.out) > 0
	}
	r.mark()
	return len(p), nil
}

// Writev is weir.Transport's: it takes all of bufs, or nothing.
func (r *Recorder) Writev(bufs [][]byte) (int, error) {
	if err := r.writable(); err != nil {
		r.note("Writev %d pieces = %v", len(bufs), err)
		return 0, err
	}
	n := 0
	for _, p := range bufs {
		r.note("Writev %s", quote(p))
		r.take(p)
		n += len(p)
	}
	r.mark()
	return n, nil
}

func (r *Recorder) writable() error {
	switch {
	case r.over() && (r.producer == nil || r.ending || r.lost):
		return weir.ErrClosed
	case r.eofWritten:
		return weir.ErrWriteAfterEOF
	}
	return nil
}

func (r *Recorder) take(p []byte) {
	r.out = append(r.out, p...)
	r.written = append(r.written, p...)
}

// mark announces that the write buffer is over its high mark, if sending what
// fits is not enough.
func (r *Recorder) mark() {
	if len(r.out) <= r.high {
		return
	}
	if r.overMark {
		if r.pauseDue {
			r.tellPause()
		}
		return
	}
	if r.hasRoom() {
		r.flush()
	}
	if len(r.out) <= r.high {
		return
	}
	r.overMark = true
	r.tellPause()
	if r.producer != nil && r.streaming {
		r.note("PauseProducing")
		r.call("PauseProducing", r.producer.PauseProducing)
	}
}

// tellPause tells the protocol that its writer is paused, if it has the callback.
func (r *Recorder) tellPause() {
	r.pauseDue = false
	if r.pauser != nil && !r.closed {
		r.told = true
		r.note("PauseWriting")
		r.call("PauseWriting", r.pauser.PauseWriting)
	}
}

// WriteEOF is weir.Transport's.
func (r *Recorder) WriteEOF() error {
	r.note("WriteEOF")
	switch {
	case r.eofWritten:
		return nil
	case r.over():
		return weir.ErrClosed
	case r.noHalfClose:
		return weir.ErrNoHalfClose
	}
	r.eofWritten = true
	return nil
}

// CanWriteEOF is weir.Transport's: true unless SetHalfClose said otherwise.
func (r *Recorder) CanWriteEOF() bool { return !r.noHalfClose }

// Close is weir.Transport's. ConnectionLost comes with the next Run that finds
// everything sent.
func (r *Recorder) Close() error {
	r.note("Close")
	if !r.over() {
		r.closed = true
		r.in = nil
	}
	return nil
}

// Abort is weir.Transport's. ConnectionLost comes with the next Run.
func (r *Recorder) Abort() {
	r.note("Abort")
	if !r.lost {
		r.aborted = true
	}
	r.fail(weir.ErrAborted)
}

// Reset is weir.Resetter's: Close, after which the other end sees a reset.
// ConnectionLost comes with the next Run that finds everything sent.
func (r *Recorder) Reset() {
	r.note("Reset")
	if !r.over() {
		r.closed, r.resets = true, true
		r.readingPaused = false // what still arrives is dropped
		r.reason = weir.ErrAborted
		r.in = nil
	}
}

// PauseReading is weir.Transport's.
func (r *Recorder) PauseReading() {
	r.note("PauseReading")
	if !r.over() {
		r.readingPaused = true
	}
}

// ResumeReading is weir.Transport's. What waits comes with the next Run.
func (r *Recorder) ResumeReading() {
	r.note("ResumeReading")
	if !r.over() && r.readingPaused {
		r.readingPaused = false
		r.offered = false
	}
}

// SetWriteMarks is weir.Transport's.
func (r *Recorder) SetWriteMarks(high, low int) error {
	r.note("SetWriteMarks %d %d", high, low)
	if low < 0 || low > high {
		return weir.ErrBadMarks
	}
	r.high, r.low = high, low
	r.mark()
	return nil
}

// WriteMarks is weir.Transport's.
func (r *Recorder) WriteMarks() (high, low int) { return r.high, r.low }

// Room is weir.Transport's.
func (r *Recorder) Room() int {
	if r.overMark || r.writable() != nil {
		return 0
	}
	return max(r.high-len(r.out), 0)
}

// Buffered is weir.Transport's: bytes that were written and had no room yet, or
// were written since the last Run.
func (r *Recorder) Buffered() int { return len(r.out) }

// SetIdleTimeout implements weir.IdleTimer: it notes the limit. A test calls the protocol's
// ConnectionIdle itself.
func (r *Recorder) SetIdleTimeout(d weir.Direction, after time.Duration) error {
	r.note("SetIdleTimeout %v %v", d, after)
	if r.over() {
		return weir.ErrClosed
	}
	if d > weir.DirectionBoth || after < 0 {
		return &weir.OptionError{Option: "SetIdleTimeout", Value: after.String(), Range: "0 or above, of a direction"}
	}
	r.idle[d] = after
	return nil
}

// IdleTimeout is the limit that SetIdleTimeout was given; 0: none.
func (r *Recorder) IdleTimeout(d weir.Direction) time.Duration { return r.idle[d] }

// RegisterProducer is weir.Transport's. A pull producer is asked for its first
// piece, and a producer that comes too late is told to stop, by the next Run.
func (r *Recorder) RegisterProducer(p weir.Producer) error {
	r.note("RegisterProducer")
	switch {
	case r.producer != nil:
		return weir.ErrProducerRegistered
	case r.over():
		r.stopDue = append(r.stopDue, p)
		return nil
	}
	r.producer, r.streaming = p, p.Streaming()
	switch {
	case !r.streaming:
		r.pullDue = true
	case r.overMark:
		r.note("PauseProducing")
		r.call("PauseProducing", p.PauseProducing)
	}
	return nil
}

// UnregisterProducer is weir.Transport's.
func (r *Recorder) UnregisterProducer() {
	r.note("UnregisterProducer")
	r.producer, r.pullDue = nil, false
}

// SetProtocol is weir.Transport's: what waits goes to p.
func (r *Recorder) SetProtocol(p weir.Protocol) {
	r.note("SetProtocol %T", p)
	if r.ending || r.lost {
		return
	}
	r.attach(p)
	r.exchanged = true
	r.offered = false
	if !r.inData {
		r.readingPaused = false // a pause ends with the protocol that asked for it
	}
	r.told, r.pauseDue = false, r.overMark
}

// Protocol is weir.Transport's: nil before Connect or SetProtocol, and when the
// connection is lost.
func (r *Recorder) Protocol() weir.Protocol { return r.protocol }

// LocalAddr is weir.Transport's.
func (r *Recorder) LocalAddr() net.Addr { return r.local }

// RemoteAddr is weir.Transport's.
func (r *Recorder) RemoteAddr() net.Addr { return r.remote }

// Loop is weir.Transport's: what SetLoop set, or a loop of the Recorder's own.
func (r *Recorder) Loop() *weir.Loop {
	if r.loop == nil {
		r.loop = r.ownLoop()
	}
	return r.loop
}
