package layer

import (
	"time"

	"github.com/weir-io/weir"
)

// Base is a layer that passes everything through, to be embedded in layers that
// change something. It is a weir.Protocol to the transport below and the
// weir.Carrier of the transport above; a layer overrides the methods in which
// it differs.
//
//	Init ──▶ ConnectionMade ──▶ (agreeing with the peer) ──▶ Ready ──▶ bytes pass
//	                                      │
//	                                      └──▶ Fail: Above.Failed, and the end
//
// A layer that has nothing to agree on with its peer keeps Base's
// ConnectionMade, which calls Ready. All methods belong to the loop's
// goroutine.
type Base struct {
	name  string
	self  Ends
	above Above
	below weir.Transport
	feed  *weir.Feed
	timer *weir.Timer
	stage weir.Stage

	failed  bool        // it failed before it was ready; Above.Failed was called or is queued
	heard   bool        // Heard was called
	blocked bool        // the transport below has asked for a pause
	turn    *weir.Timer // Yield's
	held    bool        // the layer wants no bytes: HoldReading
	paused  bool        // what is above wants no bytes
}

var (
	_ weir.Protocol    = (*Base)(nil)
	_ weir.EOFReceiver = (*Base)(nil)
	_ weir.WriteFailer = (*Base)(nil)
	_ weir.WritePauser = (*Base)(nil)
	_ weir.Carrier     = (*Base)(nil)
	_ weir.Resetter    = (*Base)(nil)
)

// Ends are the two ends of a layer.
type Ends interface {
	weir.Protocol
	weir.Carrier
}

// Init tells the base its layer, the layer's name in errors, and what is above
// it. It returns self.
func (b *Base) Init(self Ends, name string, above Above) weir.Protocol {
	b.name, b.self, b.above, b.stage = name, self, above, weir.StageHandshake
	return self
}

// Below returns the transport below, nil before ConnectionMade.
func (b *Base) Below() weir.Transport { return b.below }

// Upper returns the transport above, nil before Ready.
func (b *Base) Upper() weir.Transport {
	if b.feed == nil {
		return nil
	}
	return b.feed.Transport()
}

// IsReady reports whether Ready was called and the layer had not failed before.
func (b *Base) IsReady() bool { return b.feed != nil }

// SetStage sets the stage that errors before Ready name; the default is
// StageHandshake.
func (b *Base) SetStage(s weir.Stage) { b.stage = s }

// SetDeadline makes the layer fail with ErrTimeout if it is not ready within d;
// 0 means no deadline. It replaces any deadline set before.
func (b *Base) SetDeadline(d time.Duration) {
	if b.feed != nil {
		return
	}
	b.stopTimer()
	if d <= 0 {
		return
	}
	b.timer = b.below.Loop().After(d, func() { b.Fail(ErrTimeout) })
}

// Begin records the transport below. A layer's own ConnectionMade calls it
// first.
func (b *Base) Begin(t weir.Transport) { b.below = t }

// ConnectionMade calls Begin and Ready.
func (b *Base) ConnectionMade(t weir.Transport) {
	b.Begin(t)
	b.Ready()
}

// Ready says that the layer has agreed with its peer: the protocol above is
// made and gets its ConnectionMade. It returns false if the connection was
// refused.
func (b *Base) Ready() bool {
	if b.failed || b.feed != nil {
		return b.feed != nil
	}
	b.stopTimer()
	feed, err := b.below.Loop().Carry(b.self)
	if err != nil {
		b.Fail(err)
		return false
	}
	b.feed = feed
	f := b.above.Make
	b.above = Above{} // do not keep what is above in memory once it is lost
	return feed.Begin(f)
}

func (b *Base) stopTimer() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
}

// Heard records that the peer has sent something that the layer understands. A
// connection that ends before that and before Ready fails with an error that
// also matches ErrNothingCame.
func (b *Base) Heard() { b.heard = true }

// Fail ends the connection with err. Before Ready no connection was ever made:
// what is above learns of the failure through Above.Failed. The transport below
// is aborted.
func (b *Base) Fail(err error) { b.fail(err, true) }

// FailGently is like Fail, but what was written below still leaves, such as an
// answer that says why.
func (b *Base) FailGently(err error) { b.fail(err, false) }

func (b *Base) fail(err error, abort bool) {
	if b.feed != nil {
		b.feed.Fail(b.wrap(err))
		return
	}
	if b.failed {
		return
	}
	b.failed = true
	b.stopTimer()
	if !b.heard {
		err = Unheard(err)
	}
	addr := b.below.RemoteAddr()
	if abort {
		b.below.Abort()
	} else {
		_ = b.below.Close()
	}
	if b.above.Failed == nil {
		return
	}
	e := &weir.AttemptError{Addr: addr, Stage: b.stage, Err: b.wrap(err)}
	tell := func() { b.above.Failed(e) }
	// A closed loop has reported it already, or was closed without doing so.
	_, _ = b.below.Loop().PostOr(tell, tell)
}

func (b *Base) wrap(err error) error {
	if e, ok := err.(*Error); ok || err == nil { //nolint:errorlint // only the outermost counts
		if e != nil {
			return e
		}
		return err
	}
	return &Error{Layer: b.name, Err: err}
}

// Deliver hands bytes to the protocol above. p is lent until it returns.
// Calling it before Ready is a mistake of the layer and has no effect.
func (b *Base) Deliver(p []byte) {
	if b.feed != nil {
		b.feed.Deliver(p)
	}
}

// DeliverMany hands pieces to the protocol above, as Feed.DeliverMany does.
// Before Ready it has no effect.
func (b *Base) DeliverMany(pieces [][]byte) {
	if b.feed != nil {
		b.feed.DeliverMany(pieces)
	}
}

// End hands the peer's end of stream to the protocol above. If err is not nil,
// the stream broke off: End ends the transport above with err, after what was
// delivered. Before Ready, err fails the layer.
func (b *Base) End(err error) {
	switch {
	case b.feed != nil:
		b.feed.End(b.wrap(err))
	case err != nil:
		b.Fail(err)
	}
}

// Lost ends the transport above because its carrier is gone: err is the reason,
// nil for a clean end.
func (b *Base) Lost(err error) {
	if b.turn != nil {
		b.turn.Stop()
	}
	if b.feed != nil {
		b.feed.Closed(err)
		return
	}
	if err == nil {
		err = ErrEarlyEnd
	}
	b.Fail(err)
}

// Blocked reports whether the transport below has asked for a pause. While it
// has, a layer's own Write takes nothing, unless it must.
func (b *Base) Blocked() bool { return b.blocked }

// Writable says that the layer's own Write can take more. While the transport
// below asks for a pause it has no effect: ResumeWriting says so later.
func (b *Base) Writable() {
	if b.feed != nil && !b.blocked {
		b.feed.Writable()
	}
}

// HoldReading stops reading from the transport below on the layer's own
// account, until ReleaseReading. What is above may pause reading as well: it
// goes on when neither holds it. Calling it again has no effect.
func (b *Base) HoldReading() {
	b.held = true
	b.below.PauseReading()
}

// ReleaseReading undoes HoldReading.
func (b *Base) ReleaseReading() {
	if b.held = false; !b.paused {
		b.below.ResumeReading()
	}
}

// Paused reports whether what is above wants no bytes at present. A layer that
// holds bytes keeps them meanwhile.
func (b *Base) Paused() bool { return b.paused || b.feed != nil && b.feed.Paused() }

// Yield is for a DataReceived that returns without using everything although it
// could: the rest is offered again in the next turn, or when what is above
// wants it.
func (b *Base) Yield() {
	if b.feed == nil {
		return
	}
	b.HoldReading()
	if b.turn == nil {
		b.turn = b.below.Loop().NewTimer(func() { b.ReleaseReading() })
	}
	b.turn.Set(0)
}

// DataReceived implements weir.Protocol: everything goes up.
func (b *Base) DataReceived(p []byte) (int, error) {
	b.Deliver(p)
	return len(p), nil
}

// EOFReceived implements weir.EOFReceiver: the end goes up; before Ready it
// fails the layer.
func (b *Base) EOFReceived(int) (bool, error) {
	if b.feed == nil {
		b.Fail(ErrEarlyEnd)
		return false, nil
	}
	b.End(nil)
	return true, nil
}

// ConnectionLost calls Lost.
func (b *Base) ConnectionLost(err error) { b.Lost(err) }

// WriteFailed implements weir.WriteFailer: what is above is told at once, and
// told of the end when what the peer had sent has been delivered. A layer that
// holds reading until bytes have left must release it here. Before Ready only
// the end is reported.
func (b *Base) WriteFailed(err error) {
	if b.feed != nil {
		b.feed.WriteFailed(err)
	}
}

// Moved says that bytes have left the layer, if it is a weir.Holder.
func (b *Base) Moved() {
	if b.feed != nil {
		b.feed.Moved()
	}
}

// Waiting returns how many bytes were written to the transport above and Write
// has not taken yet.
func (b *Base) Waiting() int {
	if b.feed == nil {
		return 0
	}
	return b.feed.Waiting()
}

// PauseWriting notes that the transport below has enough: see Blocked.
func (b *Base) PauseWriting() { b.blocked = true }

// ResumeWriting lets what is above write again.
func (b *Base) ResumeWriting() {
	b.blocked = false
	if b.feed != nil {
		b.feed.Writable()
	}
}

// Write implements weir.Carrier: everything goes down, unless the transport
// below has asked for a pause.
func (b *Base) Write(bufs [][]byte) (int, error) {
	if b.blocked {
		return 0, nil
	}
	if len(bufs) == 1 {
		return b.below.Write(bufs[0])
	}
	return b.below.Writev(bufs)
}

// CanCloseWrite reports whether the transport below can end one direction alone.
func (b *Base) CanCloseWrite() bool { return b.below.CanWriteEOF() }

// CloseWrite ends the writing of the transport below.
func (b *Base) CloseWrite() error { return b.below.WriteEOF() }

// PauseReading pauses the transport below on behalf of what is above.
func (b *Base) PauseReading() {
	b.paused = true
	b.below.PauseReading()
}

// ResumeReading undoes PauseReading, unless HoldReading holds it too.
func (b *Base) ResumeReading() {
	if b.paused = false; !b.held {
		b.below.ResumeReading()
	}
}

// Reset implements weir.Resetter: everything that Write took still leaves, and
// the end is reported as a failure. A layer that says goodbye to its peer, or
// holds bytes that Close would send, has its own Reset.
func (b *Base) Reset() {
	if r, ok := weir.As[weir.Resetter](b.below); ok {
		r.Reset()
	} else {
		b.below.Abort()
	}
}

// Close closes the transport below, or aborts it.
func (b *Base) Close(abort bool) {
	if abort {
		b.below.Abort()
	} else {
		_ = b.below.Close()
	}
}
