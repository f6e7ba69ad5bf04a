// Package relay joins two streams: whatever arrives from one is written to the
// other, both ways at once, until both have ended.
//
//	          bytes, end of stream, loss
//	A ──────▶ protocol A ─────────────────▶ transport of B ──▶
//	  ◀── transport of A ◀───────────────── protocol B ◀────── B
//	          room to write ───▶ reading
//
// A Relay is a pair of protocols. Either side may be connected first; what it
// sends waits until the other is connected, all but the first piece of it in
// the system's buffers, and if it leaves meanwhile, the relay notices
// (Config.Left). A side that cannot keep up pauses reading from the other, so
// memory stays at one write buffer each way. The end of a stream is passed on
// by itself: the other direction goes on, and no timer runs, so a reply is
// never lost, however late it comes. Bulk moves through the kernel without
// being copied where it can (see weir.Splicer).
//
// When a side fails, what it had sent is still delivered, through whatever
// layers the other side has; then the other side is reset, so that its peer
// does not take the failure for an end of stream. Only this delivery is bounded
// in time: some byte must move within Config.Patience.
package relay

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/weir-io/weir"
)

// Side is one of the two sides of a relay.
type Side uint8

// The sides.
const (
	A Side = iota
	B
)

func (s Side) String() string {
	if s == A {
		return "A"
	}
	return "B"
}

// Other is the opposite side.
func (s Side) Other() Side { return 1 - s }

// Config holds a relay's settings and callbacks. Every function may be nil; all
// are called on the loop's goroutine.
type Config struct {
	// Connected is called once both sides are connected.
	Connected func()
	// Failed is called when connecting a side has failed. It returns true if
	// the side's protocol is being connected again; otherwise the relay ends,
	// and the other side is reset so that its peer does not take this for an
	// end of stream.
	Failed func(s Side, err *weir.ConnectError) (again bool)
	// Abandon is called if the relay ends before a side is connected: the
	// caller can stop connecting it.
	Abandon func(s Side)
	// Left is called when the stream of a side ends before the other side is
	// connected and before anything was sent: its peer has gone, or it only
	// reads. TCP does not say which. Left returns how long, LeftFor for
	// example, the relay goes on waiting for the other side before it ends as
	// if by Abort. With 0 or less, or with a nil Left, there is no bound.
	Left func(s Side) time.Duration
	// Done is called once, last, when both sides are over. A peer on the same
	// loop may learn of its own end before or after that.
	Done func(r Result)
	// Copy turns splicing off.
	Copy bool
	// Patience is how long, once a side has failed, the relay goes on without
	// any byte moving before it gives up delivering the rest; giving up may
	// take up to twice that. 0 means 15 s; a negative value sets no bound.
	Patience time.Duration
}

// LeftFor is what Config.Left should return where connecting is expensive: it
// is long enough for a peer that only reads, and short enough that a peer that
// has given up does not tie up a socket and a name for as long as a connect may
// take.
const LeftFor = 5 * time.Second

// defaultPatience is the default of Config.Patience.
const defaultPatience = 15 * time.Second

// Result says how a relay went.
type Result struct {
	// Bytes[s] is how many bytes came from s and were accepted by the other
	// side.
	Bytes [2]int64
	// Spliced[s] is how many of them the kernel moved.
	Spliced [2]int64
	// Connected is true if both sides were connected.
	Connected bool
	// Local is true if the relay was ended by Abort; By and Why then mean
	// nothing.
	Local bool
	// By is the side that failed, if one did, otherwise the one that ended
	// first.
	By Side
	// Why is the reason: the error of its ConnectionLost or its
	// *weir.ConnectError, or nil for the end of its stream or a clean close.
	Why error
}

// Relay is one pair of streams. It belongs to one loop's goroutine.
type Relay struct {
	c         Config
	sides     [2]side
	spliced   [2]int64
	why       error
	by        Side
	connected bool
	local     bool
	ended     bool // by and why, or local, are set
	done      bool
	hurried   *hurried    // nil before a side has failed
	left      *weir.Timer // for Left; nil: no side has left, or there is no bound
}

// hurried bounds what is left to do once a side has failed.
type hurried struct {
	timer *weir.Timer // for Patience
	seen  int64       // moved() when it was set
}

// A direction counts as bulk and is spliced after bulkAfter bytes, at a read of
// at least bulkRead. Small messages gain nothing from a pipe in between.
const (
	bulkAfter = 128 << 10
	bulkRead  = 16 << 10
)

// New makes a relay that waits for both sides.
func New(c Config) *Relay {
	r := &Relay{c: c}
	for s := range r.sides {
		r.sides[s] = side{r: r, id: Side(s), bulkAt: bulkAfter}
	}
	return r
}

// Protocol returns the protocol to connect as side s, once.
func (r *Relay) Protocol(s Side) weir.Protocol { return &r.sides[s] }

// Transport returns the transport of side s, nil while it is not connected. It
// remains available after the end, for its addresses.
func (r *Relay) Transport(s Side) weir.Transport { return r.sides[s].t }

// Bytes returns how many bytes have come from each side so far and were
// accepted by the other; what the kernel moves is counted once it has moved.
func (r *Relay) Bytes() [2]int64 { return [2]int64{r.sides[A].bytes, r.sides[B].bytes} }

// EndInput stops reading from side s: the other side gets what came before, and
// then the end of the stream, as if s had ended it. The other direction goes
// on. It has no effect on a side that is not connected.
func (r *Relay) EndInput(s Side) {
	d := &r.sides[s]
	if d.state != open || d.closing || d.unread {
		return
	}
	d.unread = true
	d.flow()
	if !d.splicing {
		d.passEnd()
	}
}

// Abort ends the relay at once: what was not sent is dropped.
func (r *Relay) Abort() {
	if r.done {
		return
	}
	if !r.ended {
		r.ended, r.local = true, true
	}
	for i := range r.sides {
		s := &r.sides[i]
		switch s.state {
		case waiting:
			s.abandon()
		case open:
			s.closing = true
			s.t.Abort()
		case over:
		}
	}
	r.finish()
}

// end records which side ended, and why. A failure overrides an earlier end of
// stream: the other direction was still going on.
func (r *Relay) end(s Side, why error) {
	if !r.ended || !r.local && r.why == nil && why != nil {
		r.ended = true
		r.by, r.why = s, why
	}
}

// hurry bounds how long the rest may take, now that a side has failed.
func (r *Relay) hurry(l *weir.Loop) {
	d := r.c.Patience
	if d == 0 {
		d = defaultPatience
	}
	if r.hurried != nil || d < 0 || l == nil {
		return
	}
	h := &hurried{seen: r.moved()}
	r.hurried = h
	h.timer = l.NewTimer(func() {
		if now := r.moved(); now != h.seen {
			h.seen = now
			h.timer.Set(d)
			return
		}
		for i := range r.sides {
			if s := &r.sides[i]; s.state == open {
				s.t.Abort()
			}
		}
	})
	h.timer.Set(d)
}

// leave bounds the wait for the other side, now that the stream of s has ended. The
// first side that leaves sets the bound.
func (r *Relay) leave(s *side) {
	if r.c.Left == nil {
		return
	}
	if d := r.c.Left(s.id); d > 0 && r.left == nil && !r.done {
		r.left = s.t.Loop().After(d, r.Abort)
	}
}

// stay lifts the bound that leave set.
func (r *Relay) stay() {
	if r.left != nil {
		r.left.Stop()
	}
}

// moved is a number that changes when bytes move.
func (r *Relay) moved() int64 {
	n := int64(0)
	for i := range r.sides {
		s := &r.sides[i]
		n += s.bytes
		if s.state != open {
			continue
		}
		if u, ok := weir.As[interface{ Undelivered() int }](s.t); ok {
			n -= int64(u.Undelivered())
		} else {
			n -= int64(s.t.Buffered())
		}
	}
	return n
}

func (r *Relay) finish() {
	for i := range r.sides {
		if r.done || r.sides[i].state != over || r.sides[i].splicing {
			return
		}
	}
	r.done = true
	r.stay()
	if r.hurried != nil {
		r.hurried.timer.Stop()
	}
	if r.c.Done != nil {
		r.c.Done(Result{Bytes: r.Bytes(), Spliced: r.spliced, Connected: r.connected, Local: r.local, By: r.by, Why: r.why})
	}
}

type state uint8

const (
	waiting state = iota // not connected yet
	open
	over // lost, or never to be connected
)

// side is the protocol of one side.
type side struct {
	r       *Relay
	t       weir.Transport
	forward weir.Forwarder // of t; nil if it has none
	bytes   int64          // that came from here and were accepted by the other side
	bulkAt  int64          // when to try a splice

	// The small fields are together: every idle relay has two of these.
	id       Side
	state    state
	splicing bool
	paused   bool // reading is paused
	full     bool // its write buffer is above the mark: do not read the other side
	failed   bool // its peer takes no more: what the other side sends is dropped
	unread   bool // EndInput was called: do not read
	early    bool // something came before the other side was connected: do not read on
	eof      bool // its stream ended before that
	ended    bool // its stream has ended
	closing  bool // it was closed or aborted here
	reset    bool // abort it once its buffer is empty
}

var (
	_ weir.Protocol      = (*side)(nil)
	_ weir.ConnectFailer = (*side)(nil)
	_ weir.WritePauser   = (*side)(nil)
	_ weir.WriteFailer   = (*side)(nil)
	_ weir.Drainer       = (*side)(nil)
	_ weir.EOFReceiver   = (*side)(nil)
)

func (s *side) other() *side { return &s.r.sides[s.id.Other()] }

// flow pauses or resumes reading, as the state of both sides requires.
func (s *side) flow() {
	if s.state != open || s.closing && !s.reset {
		return
	}
	o := s.other()
	// What a peer still sends to a side that only empties its buffer is read
	// and dropped: the peer may not read any more until its own bytes have
	// left.
	waits := o.state == waiting && s.early
	if pause := !s.reset && (waits || o.full && !o.failed || s.unread); pause != s.paused {
		s.paused = pause
		if pause {
			s.t.PauseReading()
		} else {
			s.t.ResumeReading()
		}
	}
}

func (s *side) ConnectionMade(t weir.Transport) {
	if s.state != waiting {
		// The relay ended while this was being connected.
		t.SetProtocol(weir.NopProtocol{})
		t.Abort()
		return
	}
	s.t = t
	s.forward, _ = t.(weir.Forwarder)
	s.state = open
	s.flow()
	if o := s.other(); o.state == open {
		s.r.stay()
		s.r.connected = true
		if s.r.c.Connected != nil {
			s.r.c.Connected()
		}
		o.flow()
		if o.eof && o.state == open && !o.unread {
			o.passEnd()
		}
	}
}

func (s *side) ConnectFailed(err *weir.ConnectError) {
	if s.state != waiting {
		return
	}
	if s.r.c.Failed != nil && s.r.c.Failed(s.id, err) {
		return
	}
	s.r.end(s.id, err)
	s.state = over
	s.other().endWith(err)
	s.r.finish()
}

func (s *side) DataReceived(p []byte) (int, error) {
	o := s.other()
	if o.state == waiting {
		s.early = true
		s.flow()
		return 0, nil
	}
	if o.state == over || o.closing || o.failed {
		return len(p), nil // there is no one to take them
	}
	var n int
	var err error
	if o.forward != nil {
		n, err = o.forward.Forward(p)
	} else {
		n, err = o.t.Write(p)
	}
	switch {
	case errors.Is(err, weir.ErrNotWritable):
		return 0, err
	case errors.Is(err, weir.ErrReaderGone):
		o.failed = true // WriteFailed follows
		return len(p), nil
	case err != nil:
		// The other side is about to be lost, and the reason will follow. What
		// it had sent is still being delivered, perhaps to a peer that does not
		// read any more until its own bytes have left.
		o.failed = true
		s.r.hurry(s.t.Loop())
		return len(p), nil
	}
	s.bytes += int64(n)
	if s.bytes >= s.bulkAt && len(p) >= bulkRead {
		s.splice()
	}
	return n, nil
}

// splice hands this direction over to the kernel.
func (s *side) splice() {
	s.bulkAt += s.bytes + bulkAfter // if it ends early, do not try again too soon
	if s.splicing || s.r.c.Copy {
		return
	}
	sp, ok := s.t.(weir.Splicer)
	if !ok {
		return
	}
	if err := sp.SpliceTo(s.other().t, s.spliced); err == nil {
		s.splicing = true
	}
}

// spliced takes the result of a splice. A failure reaches ConnectionLost of the
// side that failed, and an end of stream reaches its EOFReceived.
func (s *side) spliced(n int64, _ error) {
	s.splicing = false
	s.bytes += n
	s.r.spliced[s.id] += n
	s.r.finish()
}

func (s *side) PauseWriting() {
	s.full = true
	s.other().flow()
}

func (s *side) ResumeWriting() {
	s.full = false
	s.other().flow()
}

// WriteFailed implements weir.WriteFailer: this side's peer takes no more. What
// it had sent is still delivered.
func (s *side) WriteFailed(err error) {
	if s.state != open || s.closing {
		return
	}
	o := s.other()
	if s.failed = true; errors.Is(err, weir.ErrReaderGone) {
		o.flow() // its own direction goes on for as long as it likes
		return
	}
	s.r.end(s.id, err)
	if o.state == waiting {
		s.t.Abort() // there is no one to deliver it to
		return
	}
	o.flow()
	s.r.hurry(s.t.Loop())
}

func (s *side) WriteDrained() {
	if s.reset {
		s.t.Abort()
	}
}

func (s *side) EOFReceived(int) (keepOpen bool, err error) {
	s.ended = true
	s.r.end(s.id, nil)
	if s.other().state == waiting {
		s.eof = true
		s.r.leave(s)
	}
	return !s.unread && !s.passEnd() || writable(s.t), nil
}

// passEnd passes on the end of this side's stream. It reports false if the
// other side is about to be lost, which ends this one.
func (s *side) passEnd() bool {
	o := s.other()
	if o.state != open || o.closing {
		return true
	}
	switch {
	case !writable(o.t):
	case o.t.CanWriteEOF():
		return o.t.WriteEOF() == nil
	case keepsReply(o.t) && !keepsReply(s.t):
		// It ends when its peer ends it, with the whole reply delivered. If
		// this side's peer has closed both directions, no one waits for a
		// reply.
	default:
		o.closing = true
		_ = o.t.Close() // always nil
	}
	return true
}

// keepsReply reports whether a transport that cannot end one direction alone
// has a peer that ends the connection by itself, as a WebSocket's does.
func keepsReply(t weir.Transport) bool {
	k, ok := weir.As[interface{ KeepsReply() bool }](t)
	return ok && k.KeepsReply()
}

// writable reports whether a transport can be written to at all: a pipe may not
// be.
func writable(t weir.Transport) bool {
	_, err := t.Write(nil)
	return !errors.Is(err, weir.ErrNotWritable)
}

func (s *side) ConnectionLost(err error) {
	if s.state != open {
		return
	}
	if !s.closing || err != nil && !errors.Is(err, weir.ErrAborted) && !errors.Is(err, weir.ErrLoopClosed) {
		s.r.end(s.id, err) // if it was closing, not everything has left
	}
	s.state = over
	if s.ended && readerGone(err) {
		// All that it sent was passed on, and so was its end. To the other
		// side, this peer merely reads no more, which it learns when it writes.
		err = nil
	}
	s.other().endWith(err)
	s.r.finish()
}

// readerGone reports whether a side was lost because no one reads from the pipe
// that it writes to.
func readerGone(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Net == "pipe" && errors.Is(err, syscall.EPIPE)
}

// endWith ends a side because the other one is over, with err.
func (s *side) endWith(err error) {
	switch {
	case s.state == waiting:
		s.abandon()
	case s.state == over || s.closing:
	case err == nil:
		s.closing = true
		_ = s.t.Close() // always nil
	default:
		// What was received is delivered first; then comes a reset, so that the
		// peer does not take a failure for the end of the stream.
		s.closing = true
		s.r.hurry(s.t.Loop())
		if t, ok := weir.As[weir.Resetter](s.t); ok {
			t.Reset()
			return
		}
		s.reset = true
		if s.t.Buffered() == 0 {
			s.t.Abort()
			return
		}
		s.flow()
	}
}

func (s *side) abandon() {
	s.state = over
	if s.r.c.Abandon != nil {
		s.r.c.Abandon(s.id)
	}
}
