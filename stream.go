package weir

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime/debug"

	"github.com/weir-io/weir/internal/backend"
)

// stream is the one implementation of Transport above the backends. Its
// methods only note what is wanted; sync, which the loop calls when the
// callback has returned, compares that with what is so and submits, cancels,
// shuts and closes.
//
//	            ConnectionMade                Close, or the peer's end
//	  made ────────────────────▶ open ─────────────────────────────▶ closing
//	   │                          │                                     │
//	   │ refused                  │ Abort, failure, panic      flushed  │
//	   ▼                          ▼                                     ▼
//	(gone)                       lost ◀─────────────────────────────────┘
//	                              │ every Op idle: the handle is closed
//	                              ▼
//	                        ConnectionLost, from the loop's queue
//
// The read Op is in one of three uses: Read while bytes are wanted; Hangup
// while they are not, so that a reset is noticed; idle for the moment between.
type stream struct {
	// What every message touches comes first: with many connections each line
	// of it comes from far away.
	loop  *Loop
	proto Protocol
	flags flags
	caps  protoCaps
	net   network

	rop  backend.Op
	out  *outbuf // nil while nothing is buffered
	tail []byte  // bytes read and not used

	high, low, tailMax int32
	rh, wh             backend.Handle // the same but for pairs of pipes; None: that direction is not there

	localPort, remotePort uint16
	x                     *extras // what few streams have
	prev, next            *stream // the loop's list
	listener              *Listener
	reason                error
	localIP, remoteIP     netip.Addr
}

// extras hold what few streams have, to keep the others small.
type extras struct {
	localPath, remotePath string
	producer              Producer
	pull                  bool // the producer is a pull producer
	producerPaused        bool
	splice                *splice // where this stream's bytes go
	spliceFrom            *splice // whose bytes come here
	name                  string  // of a stream that has no address
	made                  []byte  // debug: the stack that made it
	carrier               Carrier // what moves the bytes, where no handle does
	feed                  Feed    // its side
	one                   [1][]byte
	buf                   []byte // memory that the protocol supplied
	more                  []byte // delivered while the protocol looked at other bytes
	broken                error  // why the end of the stream is none; nil: it is one
	closeSent, abortSent  bool   // the carrier was told to close
	handed                func() // ConnectionMade of a protocol that came in the midst of a read
}

type flags uint32

// The flags of a stream, each true exactly while the sentence holds.
const (
	fConnected    flags = 1 << iota // ConnectionMade was called, ConnectionLost was not
	fDirty                          // it is in the loop's dirty list
	fQueued                         // it is in the loop's queue
	fPaused                         // the protocol paused reading
	fAutoPaused                     // reading waits for the write buffer: DataReceived filled it, and there is no PauseWriting
	fInData                         // DataReceived is being called
	fOffer                          // the tail is to be offered again without new bytes
	fExchanged                      // SetProtocol was called during the call in progress
	fEOF                            // the peer's end of stream was read
	fEOFDone                        // and handed to the protocol
	fHungUp                         // a hang-up without error was seen: do not wait for it again
	fWritePaused                    // the writer was told to pause and not yet to resume
	fResumeDue                      // ResumeWriting is to be called
	fDrainDue                       // WriteDrained is to be called
	fWriteEOF                       // the end of writing is wanted
	fWriteEOFSent                   // and sent
	fWriteBroken                    // a write failed; what can still be read is delivered before the end
	fClosing                        // Close was called, or follows from the peer's end
	fLost                           // the connection is over; reason is set
	fShut                           // the handles are closed
	fSpliceOut                      // another stream's bytes are spliced into this one
	fReset                          // lost in a way that the peer must not take for a clean end
	fReadLater                      // the read Op's result came at once and waits in the loop
	fCarried                        // a Carrier moves its bytes
	fBlocked                        // the carrier took less than all
	fReadHeld                       // the carrier was told to pause reading
	fFlushing                       // the carrier's Write is being called
	fGone                           // the carrier is closed
	fTold                           // the protocol got PauseWriting and not yet ResumeWriting
	fPauseDue                       // it came while its writer was paused, and is to get PauseWriting
)

type protoCaps uint8

// The optional callbacks of a protocol, looked up when it is attached.
const (
	capEOF protoCaps = 1 << iota
	capPause
	capDrain
	capBuffer
)

func capsOf(p Protocol) (c protoCaps) {
	if _, ok := p.(EOFReceiver); ok {
		c |= capEOF
	}
	if _, ok := p.(WritePauser); ok {
		c |= capPause
	}
	if _, ok := p.(Drainer); ok {
		c |= capDrain
	}
	if _, ok := p.(BufferedProtocol); ok {
		c |= capBuffer
	}
	return c
}

// The defaults of a stream, in bytes.
const (
	defaultHigh = 64 << 10
	defaultTail = 256 << 10
)

// newStream makes a stream over open handles and puts it in the loop's list.
func newStream(l *Loop, rh, wh backend.Handle, n network, c *connConfig) *stream {
	s := &stream{loop: l, rh: rh, wh: wh, net: n, high: defaultHigh, low: defaultHigh / 4, tailMax: defaultTail}
	if c.marks {
		s.high, s.low = c.high, c.low
	}
	if c.tail > 0 {
		s.tailMax = c.tail
	}
	s.rop.Owner = s
	l.conns.add(s)
	if n != netCarried {
		l.conns.n++
	}
	if l.debug != nil {
		s.extra().made = debug.Stack()
	}
	return s
}

func (s *stream) extra() *extras {
	if s.x == nil {
		s.x = &extras{}
	}
	return s.x
}

// begin makes the protocol and connects it. A factory that returns nil or
// panics refuses the connection.
func (s *stream) begin(f Factory) {
	p := s.callFactory(f)
	if p == nil {
		s.refuse()
		return
	}
	s.attach(p)
	s.connected()
}

func (s *stream) callFactory(f Factory) (p Protocol) {
	defer func() {
		if v := recover(); v != nil {
			p = nil
			s.loop.report(&PanicError{Where: "factory", Conn: s.name(), Value: v, Stack: debug.Stack()})
		}
	}()
	return f(s)
}

// refuse closes a stream whose protocol was never made.
func (s *stream) refuse() {
	s.flags |= fLost
	s.closeHandles(backend.CloseFlat)
	s.gone()
}

func (s *stream) attach(p Protocol) {
	s.proto = p
	s.caps = capsOf(p)
}

func (s *stream) connected() {
	s.flags |= fConnected
	s.callMade()
	s.sync()
}

// The guarded calls into the protocol. Each is small so that the deferred
// recover stays cheap.

func (s *stream) guard(where string) {
	if v := recover(); v != nil {
		err := &PanicError{Where: where, Conn: s.name(), Value: v, Stack: debug.Stack()}
		s.panicked(err)
	}
}

// panicked loses the connection; the panic is the reason even if there was
// one before.
func (s *stream) panicked(err *PanicError) {
	s.loop.report(err)
	if s.flags&fLost != 0 {
		if s.flags&fConnected != 0 {
			s.reason = err
		}
		return
	}
	s.lose(err)
}

func (s *stream) callMade() {
	defer s.guard("ConnectionMade")
	s.proto.ConnectionMade(s)
}

func (s *stream) callData(p []byte) (n int, err error) {
	defer s.guard("DataReceived")
	s.flags |= fInData
	n = -1 // so that a panic is no count
	n, err = s.proto.DataReceived(p)
	s.flags &^= fInData
	return n, err
}

func (s *stream) callLost(p Protocol, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.loop.report(&PanicError{Where: "ConnectionLost", Conn: s.name(), Value: v, Stack: debug.Stack()})
		}
	}()
	p.ConnectionLost(err)
}

// SetProtocol implements Transport.
func (s *stream) SetProtocol(p Protocol) {
	if s.loop.check("SetProtocol") != nil || s.flags&fLost != 0 && s.proto == nil {
		return
	}
	wasBuffered := s.caps&capBuffer != 0
	s.attach(p)
	if s.x != nil {
		s.x.buf = nil
	}
	s.flags |= fExchanged
	if s.flags&fInData == 0 && len(s.tail) > 0 {
		s.flags |= fOffer
		s.queue()
	}
	if s.caps&capPause != 0 && s.flags&fAutoPaused != 0 {
		s.flags &^= fAutoPaused
	}
	s.flags &^= fTold | fPauseDue
	if s.flags&fWritePaused != 0 && s.caps&capPause != 0 {
		s.flags |= fPauseDue // not from in here, and not before its ConnectionMade
		s.queue()
	}
	if (wasBuffered || s.caps&capBuffer != 0) && s.flags&fInData == 0 && s.rop.Armed() && s.rop.Kind == backend.Read {
		// The memory it would read into is the old protocol's.
		s.loop.be.Cancel(&s.rop)
	}
	s.touch()
}

// Handover is the ability of a transport to go to a protocol that has not heard
// of it: find it with As. It is for layers that only speak at the beginning of a
// stream and then step aside.
type Handover interface {
	// Handover is SetProtocol, and then calls made, in which p is to get its
	// ConnectionMade. Within a DataReceived made is called when that has
	// returned, without an error, before p gets what it left: so p is not taken
	// for somebody who answers the bytes in progress. A panic in made is one in
	// ConnectionMade.
	Handover(p Protocol, made func())
}

// Handover implements Handover.
func (s *stream) Handover(p Protocol, made func()) {
	s.SetProtocol(p)
	if s.flags&fInData == 0 {
		s.callHanded(made)
		return
	}
	s.extra().handed = made
}

func (s *stream) callHanded(made func()) {
	defer s.guard("ConnectionMade")
	if s.flags&fLost == 0 {
		made()
	}
}

// Protocol implements Transport.
func (s *stream) Protocol() Protocol { return s.proto }

// Loop implements Transport.
func (s *stream) Loop() *Loop { return s.loop }

// touch makes the loop call sync when the callback has returned.
func (s *stream) touch() {
	if s.flags&(fDirty|fShut) == 0 {
		s.flags |= fDirty
		s.loop.dirty = append(s.loop.dirty, s)
	}
}

// queue makes the loop call run in the next turn.
func (s *stream) queue() {
	if s.flags&fQueued == 0 {
		s.flags |= fQueued
		s.loop.enqueue(s)
	}
}

// run calls, from the loop's queue, what must not be called from inside the
// method that caused it.
func (s *stream) run() {
	s.flags &^= fQueued
	if s.flags&fShut != 0 {
		s.finish()
		return
	}
	if s.flags&fLost != 0 {
		return // the last Op's result queues it again
	}
	s.runWriting()
	if s.x != nil && len(s.x.more) > 0 && s.flags&(fLost|fClosing) == 0 {
		p := s.x.more
		s.x.more = nil
		s.deliver(p)
	}
	if s.flags&(fLost|fClosing) == 0 && s.flags&fOffer != 0 && !s.paused() {
		s.flags &^= fOffer
		s.deliver(nil)
	}
	if s.flags&(fLost|fClosing|fEOF|fEOFDone) == fEOF && !s.paused() {
		s.endOfStream()
	}
	if s.flags&(fGone|fEOFDone|fLost) == fGone|fEOFDone {
		s.lose(nil)
	}
	s.sync()
}

// sync makes what is so follow what is wanted.
func (s *stream) sync() {
	if s.flags&fLost != 0 {
		s.tryShut()
		return
	}
	if s.flags&fConnected == 0 {
		return
	}
	s.flush()
	s.sendEOF()
	if s.flags&fLost != 0 {
		return
	}
	if s.flags&(fEOFDone|fWriteEOFSent|fClosing) == fEOFDone|fWriteEOFSent {
		s.close(nil) // both directions are over: nothing can happen any more
	}
	s.syncReading()
	if s.flags&fClosing != 0 {
		s.tryClose()
	}
}

// OpDone implements backend.Owner.
func (s *stream) OpDone(c *backend.Completion) {
	switch {
	case c.Op == &s.rop:
		s.readDone(c)
	case s.out != nil && c.Op == &s.out.op:
		s.writeDone(c)
	}
	s.sync()
}

// lose ends the connection. The first reason stays, but for a panic's.
func (s *stream) lose(err error) {
	if s.flags&fLost != 0 {
		return
	}
	s.flags |= fLost
	s.reason = err
	if err != ErrLoopClosed || s.Buffered() > 0 {
		s.flags |= fReset
	}
	if s.loop.gather.to == s {
		s.loop.gather.drop()
	}
	s.dropTail()
	if s.rop.Armed() {
		s.loop.be.Cancel(&s.rop)
	}
	if s.out != nil && s.flags&fFlushing == 0 {
		if s.out.op.Armed() {
			s.loop.be.Cancel(&s.out.op)
		}
		if !s.out.op.Armed() {
			s.out.release(&s.loop.pool)
			s.out = nil
		}
	}
	if s.x != nil && s.x.splice != nil {
		s.x.splice.lost(s)
	}
	if s.x != nil && s.x.spliceFrom != nil {
		s.x.spliceFrom.lost(s)
	}
	s.tryShut()
}

// tryShut closes the handles once no Op needs them, and queues ConnectionLost.
func (s *stream) tryShut() {
	if s.flags&fShut != 0 || s.rop.Armed() && planted != "close-in-flight" || s.flags&fFlushing != 0 {
		return
	}
	if s.flags&(fCarried|fGone) == fCarried {
		s.closeCarrier(s.reason != nil || s.flags&fReset != 0)
		return // Feed.Closed calls it again
	}
	if s.out != nil {
		if s.out.op.Armed() {
			return
		}
		s.out.release(&s.loop.pool)
		s.out = nil
	}
	if s.x != nil && (s.x.splice != nil || s.x.spliceFrom != nil) {
		return // its end calls sync again
	}
	how := backend.CloseFlat
	if s.flags&fReset != 0 && !s.net.pipe() {
		how = backend.CloseReset
	}
	s.closeHandles(how)
	s.queue()
}

// closeHandles closes what is still open, once.
func (s *stream) closeHandles(how backend.How) {
	if s.flags&fShut != 0 {
		return
	}
	s.captureLocal()
	s.flags |= fShut
	if s.rh != backend.None {
		s.loop.shutHandle(s.rh, how)
	}
	if s.wh != backend.None && s.wh != s.rh {
		s.loop.shutHandle(s.wh, how)
	}
	s.rh, s.wh = backend.None, backend.None
}

// shutHandle closes a handle of the loop's. An error can only mean that
// somebody closed the descriptor behind our back, which its owner must hear.
func (l *Loop) shutHandle(h backend.Handle, how backend.How) {
	if err := l.be.Shut(h, how); err != nil {
		l.report(os.NewSyscallError("close", err))
	}
}

// finish is the end: ConnectionLost, last of all callbacks.
func (s *stream) finish() {
	if s.flags&fConnected == 0 {
		return
	}
	p := s.proto
	s.stopProducer()
	s.proto = nil
	if s.x != nil {
		s.x.buf, s.x.more = nil, nil
	}
	s.gone()
	s.flags &^= fConnected
	if p == nil {
		return // SetProtocol was given none
	}
	s.callLost(p, s.reason)
	if planted == "lost-twice" && s.flags&fReset != 0 && !errors.Is(s.reason, ErrAborted) {
		s.callLost(p, s.reason)
	}
}

// gone takes the stream out of the loop's books.
func (s *stream) gone() {
	if (planted != "closed-stays" || s.flags&fWriteEOFSent == 0) && s.loop.conns.remove(s) && s.flags&fCarried == 0 {
		s.loop.conns.n--
	}
	ln := s.listener
	if ln == nil {
		return
	}
	if g := ln.config.group; g != nil {
		g.left(s.loop)
	}
	if ln.loop == s.loop {
		ln.connGone()
	} else {
		ln.goneElsewhere()
	}
}

// fail turns a system's error into the reason of a loss.
func (s *stream) opError(op string, err error) error {
	var done *net.OpError
	if errors.As(err, &done) {
		return err
	}
	return &net.OpError{Op: op, Net: s.net.String(), Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: sysError(op, err)}
}

// Abort implements Transport.
func (s *stream) Abort() {
	if s.loop.check("Abort") != nil {
		return
	}
	s.lose(ErrAborted)
}

// Close implements Transport.
func (s *stream) Close() error {
	if err := s.loop.check("Close"); err != nil {
		return err
	}
	s.close(nil)
	return nil
}

// close flushes and ends; reason is what ConnectionLost gets if nothing fails.
func (s *stream) close(reason error) {
	if s.flags&(fClosing|fLost) != 0 {
		return
	}
	if planted == "close-after-half" && s.flags&fWriteEOFSent != 0 && reason == nil && s.flags&fEOF == 0 {
		return
	}
	if s.flags&fWriteBroken != 0 {
		s.lose(s.reason) // not everything was delivered
		return
	}
	s.flags |= fClosing
	s.reason = reason
	s.dropTail()
	s.touch()
}

// tryClose goes on with closing as far as it can: flushed, no producer, no
// read in flight; then it lingers or closes.
func (s *stream) tryClose() {
	if s.writing() && planted != "close-drops-backlog" || s.x != nil && s.x.producer != nil || s.rop.Armed() || s.flags&fSpliceOut != 0 {
		return
	}
	if s.x != nil && s.x.splice != nil {
		s.x.splice.end(ErrClosed)
	}
	if s.x != nil && s.x.spliceFrom != nil {
		s.x.spliceFrom.end(ErrClosed)
	}
	if s.x != nil && (s.x.splice != nil || s.x.spliceFrom != nil) {
		return // its end calls sync again
	}
	if s.flags&(fCarried|fGone) == fCarried {
		s.closeCarrier(false)
		return // Feed.Closed goes on
	}
	s.flags |= fLost
	if s.out != nil {
		s.out.release(&s.loop.pool)
		s.out = nil
	}
	if s.mustLinger() {
		h := s.rh
		s.captureLocal()
		s.rh, s.wh = backend.None, backend.None
		s.flags |= fShut
		linger(s.loop, h, s.flags&fWriteEOFSent != 0)
	} else {
		s.closeHandles(backend.CloseFlat)
	}
	s.queue()
}

// streamList is an intrusive list. Its number counts connections: the streams
// of layers are not among them.
type streamList struct {
	first *stream
	n     int
}

func (l *streamList) add(s *stream) {
	if s.next = l.first; s.next != nil {
		s.next.prev = s
	}
	l.first = s
}

func (l *streamList) remove(s *stream) bool {
	if s.prev != nil {
		s.prev.next = s.next
	} else if l.first == s {
		l.first = s.next
	} else {
		return false
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
	return true
}
