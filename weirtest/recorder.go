package weirtest

import (
	"bytes"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// Addr is the address of an end that is not on a network.
type Addr string

// Network returns "memory".
func (Addr) Network() string { return "memory" }

// String returns the address.
func (a Addr) String() string { return string(a) }

const (
	defaultHighMark  = 64 << 10
	defaultTailLimit = 256 << 10
	defaultLimit     = 1 << 20
)

// Recorder is a weir.Transport without a network: it records every call that
// the protocol makes and keeps the promises of a real transport. A test plays
// the network with Connect, Deliver, DeliverEOF, Lose and SetRoom, or calls the
// protocol's methods itself and passes the Recorder as the transport.
//
// What a real transport does later, never from inside a call (sending,
// delivering after ResumeReading, ConnectionLost, asking a producer), happens
// in Run, which the methods that play the network call themselves.
//
// Beyond that it checks the protocol: the bytes of DataReceived are overwritten
// when the call returns, so keeping the slice shows, and changing them while
// they are lent fails the test.
//
// A Recorder belongs to one goroutine.
type Recorder struct {
	tb            testing.TB
	local, remote net.Addr
	loop          *weir.Loop
	sim           *Sim // the world of a loop that was made here
	trace         []string
	depth         int  // calls of the protocol in progress
	running       bool // inside Run
	limit         int  // events that one Run may take

	protocol weir.Protocol
	pauser   weir.WritePauser // nil exactly if the protocol is none; so below
	drainer  weir.Drainer
	eof      weir.EOFReceiver
	buffered weir.BufferedProtocol
	supplied []byte      // what ReadBuffer returned, until it is filled
	report   func(error) // for panics that can no longer lose a connection

	// The incoming direction.
	in            []byte // arrived and not used
	offered       bool   // in was offered and none of it used
	inEOF         bool   // the peer's end has arrived after in
	eofDone       bool   // and the protocol has been told
	rested        bool   // a protocol that was told left unused bytes to the next one
	keeps         bool   // and whether it kept the connection open
	readingPaused bool
	inData        bool // DataReceived is being called
	exchanged     bool // SetProtocol was called during the call in progress
	tailLimit     int
	idle          [weir.DirectionBoth + 1]time.Duration // the limits of SetIdleTimeout

	// The outgoing direction.
	out         []byte // written but not handed to the system
	written     []byte // all that Write took
	sent        int    // how many of all bytes written were handed to the system
	room        int    // how many more bytes the system takes; below 0: all
	high, low   int
	overMark    bool // PauseWriting was due, ResumeWriting is not yet
	told        bool // the protocol got PauseWriting and not yet ResumeWriting
	pauseDue    bool // it came while its writer was paused, and must get PauseWriting
	drainDue    bool // out became empty, WriteDrained was not called yet
	eofWritten  bool
	eofSent     bool
	noHalfClose bool
	producer    weir.Producer
	streaming   bool
	pullDue     bool // the pull producer is to be asked
	stopDue     []weir.Producer

	// The end.
	closed  bool  // Close was called, here or by the end of the peer
	aborted bool  // Abort was called
	resets  bool  // Reset was called
	ending  bool  // ConnectionLost is due with reason
	hard    bool  // the peer sees a reset
	reason  error // of the loss
	lost    bool  // ConnectionLost was called

	// The network, where it is a Pump.
	send func(p []byte) int // how many events it took
	free func() bool        // whether it takes any
}

var (
	_ weir.Transport = (*Recorder)(nil)
	_ weir.IdleTimer = (*Recorder)(nil)
)

// NewRecorder returns a Recorder that is connected, has no protocol yet, and
// sends everything that is written. Misuse by the protocol under test is
// reported to tb.
func NewRecorder(tb testing.TB) *Recorder {
	return &Recorder{
		tb:        tb,
		local:     Addr("here"),
		remote:    Addr("there"),
		room:      -1,
		high:      defaultHighMark,
		low:       defaultHighMark / 4,
		tailLimit: defaultTailLimit,
		limit:     defaultLimit,
	}
}

// SetAddrs sets what LocalAddr and RemoteAddr return.
func (r *Recorder) SetAddrs(local, remote net.Addr) { r.local, r.remote = local, remote }

// SetLoop sets what Loop returns. Otherwise it is a loop of a simulated world,
// made when the protocol first asks for it: see Pass.
func (r *Recorder) SetLoop(l *weir.Loop) { r.loop = l }

// Pass lets the time d pass on the loop that the Recorder made: what the protocol
// has posted runs, and so do its timers that are due. With 0 only what is due now
// runs. If the protocol has not asked for a loop, or has one from SetLoop, which
// its owner turns, Pass does what Run does.
func (r *Recorder) Pass(d time.Duration) {
	r.tb.Helper()
	if r.sim != nil {
		if err := r.sim.RunFor(max(d, 1)); err != nil {
			r.tb.Error("weirtest:", err)
		}
	}
	r.Run()
}

// ownLoop makes the loop that Loop returns if SetLoop has set none.
func (r *Recorder) ownLoop() *weir.Loop {
	r.sim = NewSim(r.tb, 1)
	r.sim.OnStep(func() {
		if r.depth == 0 && !r.running {
			r.Run()
		}
	})
	return r.sim.Host("here").Loop()
}

// SetHalfClose sets whether CanWriteEOF is true; by default it is.
func (r *Recorder) SetHalfClose(can bool) { r.noHalfClose = !can }

// SetTailLimit sets how many unused bytes are kept for the protocol; the
// default is 256 KiB.
func (r *Recorder) SetTailLimit(n int) { r.tailLimit = n }

// SetErrorHandler sets the function that gets a panic in ConnectionLost, which
// can no longer lose a connection; the default fails the test. It is what
// weir.WithErrorHandler is for a loop.
func (r *Recorder) SetErrorHandler(f func(error)) { r.report = f }

// SetLimit sets how many events one Run may take before the test fails because
// it does not come to rest; the default is about a million.
func (r *Recorder) SetLimit(events int) { r.limit = events }

// Connect makes p the protocol, calls its ConnectionMade and runs.
func (r *Recorder) Connect(p weir.Protocol) {
	r.tb.Helper()
	r.connect(p)
	r.Run()
}

func (r *Recorder) connect(p weir.Protocol) {
	r.attach(p)
	r.note("ConnectionMade")
	r.call("ConnectionMade", func() { p.ConnectionMade(r) })
}

// Deliver lets p arrive from the peer and runs. If the protocol has paused
// reading, or the connection is over, the bytes wait or are dropped, as with a
// real transport. p is copied.
func (r *Recorder) Deliver(p []byte) {
	r.tb.Helper()
	r.arrive(p)
	r.Run()
}

// DeliverString is Deliver.
func (r *Recorder) DeliverString(s string) {
	r.tb.Helper()
	r.Deliver([]byte(s))
}

// DeliverEOF lets the peer's end of stream arrive, after the bytes that are
// still waiting, and runs.
func (r *Recorder) DeliverEOF() {
	r.tb.Helper()
	r.arriveEOF()
	r.Run()
}

func (r *Recorder) arrive(p []byte) {
	if r.over() || r.inEOF || len(p) == 0 {
		return
	}
	r.in = append(r.in, p...)
	r.offered = false
}

func (r *Recorder) arriveEOF() {
	if r.over() {
		return
	}
	r.inEOF = true
	// What was left unused is offered once more (behaviour 36).
	r.offered = false
}

// Lose breaks the connection: nothing more arrives or leaves, and
// ConnectionLost gets err.
func (r *Recorder) Lose(err error) {
	r.tb.Helper()
	r.fail(err)
	r.Run()
}

// SetRoom sets how many more bytes the pretended system takes before writes
// stay in the buffer; below 0 there is no limit. Then it runs.
func (r *Recorder) SetRoom(n int) {
	r.tb.Helper()
	r.room = n
	r.Run()
}

// Written returns all the bytes that writes have taken since the last
// TakeWritten, sent or not. The slice belongs to the Recorder and is valid
// until the next write.
func (r *Recorder) Written() []byte { return r.written }

// TakeWritten returns what Written does, and forgets it.
func (r *Recorder) TakeWritten() string {
	s := string(r.written)
	r.written = r.written[:0]
	return s
}

// Sent returns how many of all the bytes written have left the write buffer.
func (r *Recorder) Sent() int { return r.sent }

// EOFWritten reports whether the protocol has ended its writing.
func (r *Recorder) EOFWritten() bool { return r.eofWritten }

// Closed reports whether the transport is closed, aborted or lost, so that Write
// returns ErrClosed.
func (r *Recorder) Closed() bool { return r.over() }

// Aborted reports whether the peer sees a reset because the protocol has called
// Abort, or has called Reset and everything it wrote has left.
func (r *Recorder) Aborted() bool { return r.aborted || r.resets && (r.ending || r.lost) }

// ReadingPaused reports whether the protocol has paused reading.
func (r *Recorder) ReadingPaused() bool { return r.readingPaused }

// Unused returns how many bytes wait for the protocol.
func (r *Recorder) Unused() int { return len(r.in) }

// Lost returns whether the connection is lost, that is, ConnectionLost was
// called, and the reason.
func (r *Recorder) Lost() (lost bool, reason error) {
	if !r.lost {
		return false, nil
	}
	return true, r.reason
}

// Trace returns what happened: a line for each call in either direction, with
// calls made from inside a callback indented under it.
func (r *Recorder) Trace() []string { return slices.Clone(r.trace) }

func (r *Recorder) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	for range r.depth {
		line = "  " + line
	}
	r.trace = append(r.trace, line)
}

// quote shows bytes in a line of a trace.
func quote(p []byte) string {
	const most = 80
	if len(p) <= most {
		return fmt.Sprintf("%q", p)
	}
	return fmt.Sprintf("%q... %d bytes", p[:most], len(p))
}

// Run lets everything happen that can happen without the network: what was
// written leaves, what arrived is delivered, a connection that is ending ends.
// It fails the test if that does not come to rest.
func (r *Recorder) Run() {
	if r.running || r.depth > 0 {
		return
	}
	r.tb.Helper()
	r.running = true
	defer func() { r.running = false }()
	for range r.limit {
		e := r.next()
		if e == nothing {
			return
		}
		r.happen(e)
	}
	r.tb.Fatalf("weirtest: the protocol did not come to rest in %d events; the last were:\n%s", r.limit, r.tail())
}

// tail is the end of the trace, for messages.
func (r *Recorder) tail() string {
	return indent(r.trace[max(0, len(r.trace)-20):])
}

func indent(lines []string) string {
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString("\t")
		b.WriteString(l)
		b.WriteString("\n")
	}
	return b.String()
}

// event is something that can happen without the network.
type event uint8

const (
	nothing event = iota
	losing
	flushing
	resuming
	pausing
	draining
	pulling
	shutting
	stopping
	ceasing
	supplying
	delivering
	endOfStream
)

// next says what comes next.
func (r *Recorder) next() event {
	switch {
	case len(r.stopDue) > 0:
		return stopping
	case r.lost:
		return nothing
	case r.ending:
		return losing
	case len(r.out) > 0 && r.hasRoom():
		return flushing
	case r.overMark && len(r.out) <= r.low:
		return resuming
	case r.pauseDue:
		return pausing
	case r.drainDue && len(r.out) == 0:
		return draining
	case r.pullDue && len(r.out) == 0:
		return pulling
	case r.eofWritten && !r.eofSent && len(r.out) == 0:
		return shutting
	case (r.closed || r.eofDone && r.eofSent) && len(r.out) == 0 && r.producer == nil:
		return ceasing // even if both directions are over
	case r.closed || r.protocol == nil || r.holding():
		return nothing
	case r.buffered != nil && r.supplied == nil && !r.inEOF:
		return supplying
	case len(r.in) > 0 && !r.offered:
		return delivering
	case r.inEOF && !r.eofDone:
		return endOfStream
	}
	return nothing
}

// holding reports whether the protocol gets nothing now: it has paused, or it
// writes too much and cannot be told.
func (r *Recorder) holding() bool {
	return r.readingPaused || r.overMark && r.pauser == nil
}

// wants reports whether bytes may arrive now.
func (r *Recorder) wants() bool {
	return !r.over() && !r.inEOF && r.protocol != nil && !r.holding() && (len(r.in) == 0 || r.offered)
}

func (r *Recorder) over() bool { return r.closed || r.ending || r.lost }

func (r *Recorder) happen(e event) {
	switch e {
	case nothing:
	case losing:
		r.lose()
	case flushing:
		r.flush()
	case resuming:
		r.overMark, r.pauseDue = false, false
		if r.told && !r.closed {
			r.told = false
			r.note("ResumeWriting")
			r.call("ResumeWriting", r.pauser.ResumeWriting)
		}
		if r.producer != nil && r.streaming {
			r.note("ResumeProducing")
			r.call("ResumeProducing", r.producer.ResumeProducing)
		}
	case pausing:
		r.tellPause()
	case draining:
		r.drainDue = false
		if r.drainer != nil && !r.closed {
			r.note("WriteDrained")
			r.call("WriteDrained", r.drainer.WriteDrained)
		}
	case pulling:
		r.pullDue = false
		r.note("ResumeProducing")
		r.call("ResumeProducing", r.producer.ResumeProducing)
	case stopping:
		p := r.stopDue[0]
		r.stopDue = r.stopDue[1:]
		r.note("StopProducing")
		r.call("StopProducing", p.StopProducing)
	case shutting:
		r.eofSent = true
	case ceasing:
		r.ending = true
		r.hard = r.resets
	case supplying:
		r.supply()
	case delivering:
		r.deliver()
	case endOfStream:
		r.endOfStream()
	}
}

func (r *Recorder) hasRoom() bool {
	if r.free != nil {
		return r.free()
	}
	return r.room != 0
}

func (r *Recorder) flush() {
	n := len(r.out)
	switch {
	case r.send != nil:
		n = r.send(r.out)
	case r.room >= 0:
		n = min(n, r.room)
		r.room -= n
	}
	r.out = r.out[:copy(r.out, r.out[n:])]
	r.sent += n
	if len(r.out) == 0 {
		r.drainDue = true
		r.pullDue = r.producer != nil && !r.streaming
	}
}

// supply asks the protocol for the memory to read into next.
func (r *Recorder) supply() {
	r.note("ReadBuffer")
	r.call("ReadBuffer", func() { r.supplied = r.buffered.ReadBuffer() })
	if len(r.supplied) == 0 && !r.over() {
		r.fail(weir.ErrNoBuffer)
	}
}

func (r *Recorder) deliver() {
	before := r.in
	lent, supplied := slices.Clone(r.in), r.supplied != nil
	if supplied {
		lent = r.supplied[:copy(r.supplied, r.in)]
		r.supplied = nil
	}
	r.note("DataReceived %s", quote(lent))
	var (
		n   int
		err error
	)
	r.inData = true
	ok := r.call("DataReceived", func() { n, err = r.protocol.DataReceived(lent) })
	r.inData = false
	if !ok {
		return
	}
	if !supplied {
		if !bytes.Equal(lent, before[:len(lent)]) {
			r.tb.Errorf("weirtest: DataReceived changed the bytes it was lent; before: %s", quote(before[:len(lent)]))
		}
		for i := range lent {
			lent[i] = 0xdb
		}
	}
	if n != len(lent) || err != nil {
		r.note("used %d of %d, error %v", n, len(lent), err)
	}
	switch {
	case r.ending || r.lost:
		return
	case err != nil:
		r.fail(err)
		return
	case n < 0 || n > len(lent):
		r.fail(&weir.UsedError{N: n, Len: len(lent)})
		return
	case r.closed:
		return
	}
	r.in = r.in[n:]
	r.offered = n == 0
	if n == 0 && len(r.in) > r.tailLimit {
		r.fail(&weir.TailError{Unused: len(r.in), Limit: r.tailLimit})
	}
}

func (r *Recorder) endOfStream() {
	unused := len(r.in)
	if r.eof != nil {
		var (
			keep bool
			err  error
		)
		r.note("EOFReceived %d unused", unused)
		r.exchanged = false
		if !r.call("EOFReceived", func() { keep, err = r.eof.EOFReceived(unused) }) || r.over() {
			return
		}
		if err != nil {
			r.note("error %v", err)
			r.fail(err)
			return
		}
		if r.exchanged && unused > 0 {
			// What was left goes to the new protocol, and the end after it.
			r.rested = true
			r.keeps = keep
			return
		}
		r.in = nil
		if r.eofDone = true; keep {
			return
		}
	} else {
		r.note("end of stream, %d unused", unused)
		r.in = nil
		if r.eofDone = true; r.rested && r.keeps {
			return
		}
	}
	if unused > 0 {
		r.reason = &weir.UnusedError{Unused: unused}
	}
	r.closed = true
}

// fail ends the connection for a reason other than Close, and keeps the first.
func (r *Recorder) fail(err error) {
	if r.ending || r.lost {
		return
	}
	r.ending, r.hard, r.reason = true, true, err
	r.in, r.out = nil, nil
}

func (r *Recorder) lose() {
	r.lost = true
	r.in, r.out = nil, nil
	if p := r.producer; p != nil {
		r.producer = nil
		r.note("StopProducing")
		r.call("StopProducing", p.StopProducing)
	}
	p := r.protocol
	r.attach(nil)
	r.note("ConnectionLost %v", r.reason)
	if p != nil {
		r.call("ConnectionLost", func() { p.ConnectionLost(r.reason) })
	}
}

// call calls the protocol; false if it panicked, which loses the connection.
func (r *Recorder) call(where string, fn func()) (ok bool) {
	r.depth++
	defer func() {
		r.depth--
		if v := recover(); v != nil {
			r.note("panic: %v", v)
			perr := &weir.PanicError{Where: where, Conn: r.remote.String(), Value: v, Stack: debug.Stack()}
			if r.lost {
				if r.report == nil {
					r.tb.Errorf("weirtest: %v\n%s", perr, perr.Stack)
				} else {
					r.report(perr)
				}
				return
			}
			// A panic takes precedence over an earlier abort (behaviour 22).
			r.ending = false
			r.fail(perr)
		}
	}()
	fn()
	return true
}

func (r *Recorder) attach(p weir.Protocol) {
	r.protocol = p
	r.pauser, _ = p.(weir.WritePauser)
	r.drainer, _ = p.(weir.Drainer)
	r.eof, _ = p.(weir.EOFReceiver)
	r.buffered, _ = p.(weir.BufferedProtocol)
	r.supplied = nil
}
