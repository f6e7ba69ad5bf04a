package weir

import (
	"runtime/debug"
)

// stream is the one implementation of Transport: what a transport promises to its
// protocol. Its methods only record what is wanted; sync, which the loop calls when the
// callback has returned, makes the lower half do it.
//
//	       Close, or the peer's end
//	open ───────────────────────────▶ closing ──────┐ all has left
//	 │ │                                 │          ▼
//	 │ │ a write fails                   │         shut ──────────────▶ gone
//	 │ ▼                                 │          ▲   ConnectionLost
//	 │ broken                            │          │
//	 │  │ what had come is delivered     │ Abort,   │ the lower half
//	 │  ▼                                ▼ failure, │ has closed
//	 └─────────────────────────────▶ lost ──────────┘ panic
//
// Only become changes the phase, and never backwards.
type stream struct {
	// The fields that every message touches come first: with many connections each
	// cache line of them is likely to be a miss.
	loop  *Loop
	proto Protocol
	flags flags
	phase phase
	caps  protoCaps
	how   closeHow // how the lower half ends once the stream is lost

	lower lower
	out   *outbuf // nil while nothing is buffered
	tail  []byte  // bytes read and not used

	bounds     *bounds // shared, not to be changed
	x          *extras // for what few streams have; see extra
	prev, next *stream // the loop's list
	listener   *Listener
	tie        *tie // its tenant, and why it was lost; nil: neither
}

var (
	_ Transport        = (*stream)(nil)
	_ Forwarder        = (*stream)(nil)
	_ DescriptorWriter = (*stream)(nil)
	_ Detacher         = (*stream)(nil)
	_ Peered           = (*stream)(nil)
	_ Splicer          = (*stream)(nil)
	_ Handover         = (*stream)(nil)
	_ Unreader         = (*stream)(nil)
	_ Resetter         = (*stream)(nil)
)

// phase is how far a stream has come.
type phase uint8

const (
	phaseOpen    phase = iota // also before ConnectionMade: see fMade
	phaseBroken               // a write failed; what can still be read is delivered before the end
	phaseClosing              // Close was called, or follows from the peer's end
	phaseLost                 // it is over; reason is set
	phaseShut                 // and the lower half has closed
	phaseGone                 // and the protocol has been told
)

// become moves the stream on to p and reports whether it did: a phase that is over
// does not come back.
func (s *stream) become(p phase) bool {
	if p <= s.phase {
		return false
	}
	s.phase = p
	return true
}

// live reports whether the protocol is to be told what happens: ConnectionMade was
// called, and the connection is not lost.
func (s *stream) live() bool { return s.phase < phaseLost && s.flags&fMade != 0 }

// extras holds what few streams need, to keep the others small.
type extras struct {
	producer       Producer
	pull           bool // the producer is a pull producer
	producerPaused bool
	name           string    // of a stream that has no address
	local, remote  string    // paths and zones: see socket.setAddr
	made           []byte    // debug: the stack that made it
	breakDue       bool      // WriteFailed is to be called
	resets         bool      // it ends with a reset, once all has left
	drained        int       // bytes delivered since a write failed
	idle           *idleness // limits of silence
	shared         bool      // input of a terminal that others read too: what is not wanted is left to them
	patience       *Timer    // bounds how long bytes are kept for a reader that paused
	above          *stream   // the stream above that waits for bytes to leave here, and whose marks count them
	more           []byte    // delivered while the protocol was looking at other bytes
	brokeOff       error     // set if the stream broke off; nil for a clean end
	handed         func()    // ConnectionMade of a protocol that was set in the middle of a read
	back           []byte    // given back in the middle of a read
	splice         *splice   // a socket's: where its bytes go
	spliceFrom     *splice   // a socket's: whose bytes come here
	writeEnd       *writeEnd // a socket's: what watches the other handle
	noReader       error     // why only writing has ended: no one reads what is written
	dropped        bool      // something was buffered then
	passing        []passage // a socket's: descriptors that wait for their bytes to be sent
	passes         int       // how many they are
	passLater      bool      // the system takes no more for the moment
	room           bool      // they wait for room in the socket
	short          bool      // a socket's: its SCTP messages are of messageLeast at most
}

type flags uint32

// The flags of a stream, each true exactly while the sentence holds.
const (
	fMade         flags = 1 << iota // ConnectionMade was called
	fDirty                          // it is in the loop's dirty list
	fQueued                         // it is in the loop's queue
	fPaused                         // the protocol paused reading
	fAutoPaused                     // reading waits for the write buffer: DataReceived filled it, and there is no PauseWriting
	fInData                         // DataReceived is being called
	fOffer                          // the tail is to be offered again without new bytes
	fExchanged                      // SetProtocol was called during the call in progress
	fStale                          // memory from a ReadBuffer before a SetProtocol must not be read into
	fEOF                            // the peer's end of stream was read
	fEOFDone                        // and handed to the protocol
	fWritePaused                    // the writer was told to pause and not yet to resume
	fResumeDue                      // ResumeWriting is to be called
	fDrainDue                       // WriteDrained is to be called
	fWriteEOF                       // the end of writing is wanted
	fWriteEOFSent                   // and sent
	fTold                           // the protocol got PauseWriting and not yet ResumeWriting
	fPauseDue                       // the protocol was set while the writer was paused, and is to get PauseWriting
	fReadOnly                       // nothing can be written
	fParked                         // what was read waits for its tenant's turn: see dealer
	fCounted                        // its tenant counts it as a connection: it stands on no other stream
	fYoung                          // a socket's: it is in the loop's list of young
	fGreedy                         // a Budget holds reading back: the stream keeps more than its part
	fWaits                          // something waited in the write buffer, or was being spliced to the peer, when it was last counted
)

type protoCaps uint8

// The optional callbacks of a protocol, looked up when it is attached.
const (
	capEOF protoCaps = 1 << iota
	capPause
	capDrain
	capBuffer
	capFail
	capDescriptors
	capIdle
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
	if _, ok := p.(WriteFailer); ok {
		c |= capFail
	}
	if _, ok := p.(DescriptorReceiver); ok {
		c |= capDescriptors
	}
	if _, ok := p.(IdleReceiver); ok {
		c |= capIdle
	}
	return c
}

// bounds limits what a stream keeps, in bytes.
type bounds struct {
	high, low int32 // the write marks
	tail      int32 // what the protocol may leave unused
}

// The default bounds.
const (
	defaultHigh = 64 << 10
	defaultTail = 256 << 10
)

// init sets up a stream whose bytes lo moves, with the bounds that c asks for, and
// adds it to the loop's list.
func (s *stream) init(l *Loop, lo lower, c *connConfig) {
	s.loop, s.lower, s.x = l, lo, &l.noExtras
	if s.bounds = c.bounds; s.bounds == nil {
		s.bounds = &l.bounds
	}
	l.conns.add(s)
	switch {
	case c.tenant != nil:
		s.join(c.tenant)
	case l.top.account != nil:
		s.join(&l.top)
	}
	if l.debug != nil {
		s.extra().made = debug.Stack()
	}
}

// extra is s.x for writing. Most streams share an empty one, which is only read.
func (s *stream) extra() *extras {
	if s.x == &s.loop.noExtras {
		s.x = &extras{}
	}
	return s.x
}

// begin makes the protocol and connects it. A factory that returns nil or panics
// refuses the connection, and begin then reports false.
func (s *stream) begin(f Factory) bool {
	p := s.callFactory(f)
	if p == nil {
		s.refuse()
		return false
	}
	s.attach(p)
	s.connected()
	return true
}

// refuse closes a stream whose protocol was never made. If its factory has written
// something, that write may be under way; the rest of it is cut.
func (s *stream) refuse() {
	s.proto = nil // SetProtocol may have been called
	if s.out != nil {
		s.lose(ErrAborted)
		return
	}
	s.become(phaseLost)
	s.how = closeQuiet
	s.shut(s.how)
	s.finish()
}

func (s *stream) attach(p Protocol) {
	s.proto = p
	s.caps = capsOf(p)
}

func (s *stream) connected() {
	s.flags |= fMade
	s.callMade()
	s.sync()
}

// The guarded calls into the protocol. Each is small so that the deferred
// recover stays cheap.

func (s *stream) guard(where string) {
	if v := recover(); v != nil {
		s.panicked(&PanicError{Where: where, Conn: s.name(), Value: v, Stack: debug.Stack()})
	}
}

// panicked loses the connection; the panic is the reason even if there was
// one before.
func (s *stream) panicked(err *PanicError) {
	s.loop.report(err)
	if s.phase < phaseLost {
		s.lose(err)
	} else if s.phase < phaseGone {
		s.setReason(err)
	}
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

func (s *stream) callMade() {
	defer s.guard("ConnectionMade")
	s.proto.ConnectionMade(s)
}

func (s *stream) callHanded(made func()) {
	defer s.guard("ConnectionMade")
	if s.phase < phaseLost {
		made()
	}
}

func (s *stream) callLost(p Protocol, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.loop.report(&PanicError{Where: "ConnectionLost", Conn: s.name(), Value: v, Stack: debug.Stack()})
		}
	}()
	p.ConnectionLost(err)
}

func (s *stream) SetProtocol(p Protocol) {
	if s.loop.check("SetProtocol") != nil || s.phase >= phaseLost && s.proto == nil {
		return
	}
	buffered := s.caps&capBuffer != 0
	s.attach(p)
	s.flags |= fExchanged
	if buffered || s.caps&capBuffer != 0 {
		s.flags |= fStale
	}
	if s.flags&fInData == 0 {
		if s.flags&fPaused != 0 && s.phase < phaseClosing {
			// It was the old protocol's pause. The new one decides for itself.
			s.flags &^= fPaused
			s.readingResumed()
		}
		if len(s.tail) > 0 {
			s.flags |= fOffer
			s.queue()
		}
	}
	if s.caps&capPause != 0 && s.flags&fAutoPaused != 0 {
		s.flags &^= fAutoPaused
	}
	s.flags &^= fTold | fPauseDue
	if s.flags&fWritePaused != 0 && s.caps&capPause != 0 {
		s.flags |= fPauseDue // not from inside this call, and not before its ConnectionMade
		s.queue()
	}
	s.touch()
}

// Handover is the ability of a transport to be handed to a protocol that has not seen
// it before: find it with As. It is for layers that only act at the beginning of a
// stream and then step aside.
type Handover interface {
	// Handover calls SetProtocol and then made, which should call p's ConnectionMade. A
	// pause of reading ends. Inside a DataReceived, made is called after the
	// DataReceived has returned without an error, and before p gets the bytes that were
	// left, so that what p writes does not count as a reply to the bytes in progress. A
	// panic in made counts as one in ConnectionMade.
	Handover(p Protocol, made func())
}

func (s *stream) Handover(p Protocol, made func()) {
	s.SetProtocol(p)
	s.ResumeReading()
	if s.flags&fInData == 0 {
		s.callHanded(made)
		return
	}
	s.extra().handed = made
}

// Unreader is the ability of a transport to take back bytes that its protocol has used
// but that are meant for another one: find it with As.
type Unreader interface {
	// Unread puts a copy of p ahead of everything that comes next. The copy is offered
	// to the protocol in the next turn, or, inside a DataReceived that also calls
	// SetProtocol, to the new protocol when that DataReceived has returned. If the end
	// of the stream was already reported, it is reported again after p. Only the loop's
	// goroutine may call it. After Close and Abort it does nothing.
	Unread(p []byte)
}

func (s *stream) Unread(p []byte) {
	if s.loop.check("Unread") != nil || len(p) == 0 || s.phase >= phaseClosing {
		return
	}
	if s.flags&fInData != 0 {
		x := s.extra()
		x.back = append(append([]byte(nil), p...), x.back...)
		return
	}
	all := append(append(make([]byte, 0, len(p)+len(s.tail)), p...), s.tail...)
	s.dropTail()
	s.tail = all
	s.flags |= fOffer
	s.flags &^= fEOFDone
	s.queue()
}

func (s *stream) Protocol() Protocol { return s.proto }

func (s *stream) Loop() *Loop { return s.loop }

// touch makes the loop call sync when the callback has returned.
func (s *stream) touch() {
	if s.flags&fDirty == 0 && s.phase < phaseShut {
		s.flags |= fDirty
		s.loop.dirty = append(s.loop.dirty, s)
		s.loop.stir()
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
	if s.phase >= phaseLost {
		s.finish()
		return
	}
	s.runWriting()
	if s.x.breakDue {
		s.x.breakDue = false
		s.tellBroken()
	}
	if len(s.x.more) > 0 && s.phase < phaseClosing {
		p := s.x.more
		s.x.more = nil
		s.deliver(p)
	}
	s.runReading()
	s.sync()
}

// runReading offers what was withheld.
func (s *stream) runReading() {
	if s.phase < phaseClosing && s.flags&fOffer != 0 && !s.paused() {
		s.flags &^= fOffer
		s.deliver(nil)
	}
	if s.phase < phaseClosing && s.flags&(fEOF|fEOFDone) == fEOF && !s.paused() {
		s.endOfStream()
	}
}

// sync makes the lower half do what is wanted.
func (s *stream) sync() {
	switch {
	case s.phase >= phaseLost:
		s.shut(s.how)
		return
	case s.flags&fMade == 0:
		return
	}
	if s.out != nil {
		s.lower.flush()
	}
	s.sendEOF()
	if s.phase < phaseClosing && s.flags&fEOFDone != 0 && (s.flags&fWriteEOFSent != 0 || s.deserted()) {
		s.closeWith(nil) // both directions are over: nothing can happen any more
	}
	if s.phase < phaseLost {
		s.lower.want(s.wish())
	}
	if s.phase == phaseClosing {
		s.tryClose()
	}
	if s.tie != nil {
		s.recount()
	}
}

func (s *stream) Reset() {
	if s.loop.check("Reset") != nil || s.phase >= phaseClosing {
		return
	}
	s.extra().resets = true
	s.closeWith(ErrAborted)
}

func (s *stream) Abort() {
	if s.loop.check("Abort") != nil {
		return
	}
	s.lose(ErrAborted)
}

// reason is why the connection is lost, or will be; nil for a clean end.
func (s *stream) reason() error {
	if s.tie == nil {
		return nil
	}
	return s.tie.why
}

// setReason sets reason. Only connections that fail have memory for it.
func (s *stream) setReason(err error) {
	if s.tie != nil {
		s.tie.why = err
	} else if err != nil {
		s.tie = &tie{why: err}
	}
}

// lose ends the connection. The first reason stays, unless a panic replaces it.
func (s *stream) lose(err error) {
	if s.phase >= phaseLost {
		return
	}
	s.how = closeCut
	if (err == ErrLoopClosed || isTenantEnd(err)) && s.Buffered() == 0 {
		s.how = closeQuiet
	}
	s.become(phaseLost)
	s.setReason(err)
	if s.loop.gather.to == s {
		s.loop.gather.drop()
	}
	s.dropTail()
	if s.x.patience != nil {
		s.x.patience.Stop()
	}
	s.shut(s.how)
	s.dropOut()
}

// shut makes the lower half close, if it has not yet.
func (s *stream) shut(how closeHow) {
	if s.phase < phaseShut {
		s.lower.close(how)
	}
}

// dropOut gives back the write buffer, unless the lower half is using it.
func (s *stream) dropOut() {
	s.dropPassing()
	if s.out != nil && !s.out.busy() {
		s.out.release(&s.loop.pool)
		s.out = nil
	}
}

// closed is called by the lower half when it has closed. err is what went wrong, if
// anything did.
func (s *stream) closed(err error) {
	if s.phase == phaseClosing {
		if s.reason() == nil {
			s.setReason(err)
		}
		if s.writing() && s.reason() == nil {
			s.setReason(ErrClosed) // it closed before it had everything
		}
	}
	if !s.become(phaseShut) {
		return
	}
	s.dropTail()
	s.dropOut()
	s.queue()
}

// finish is the end: ConnectionLost, last of all callbacks.
func (s *stream) finish() {
	if s.phase != phaseShut {
		return
	}
	s.stopProducer()
	s.become(phaseGone)
	p := s.proto
	s.proto = nil
	if s.x.more != nil {
		s.x.more = nil
	}
	s.gone()
	if p == nil {
		return // it was refused, or SetProtocol was given nil
	}
	s.callLost(p, s.reason())
}

// gone removes the stream from what the loop and its listener count.
func (s *stream) gone() {
	s.endIdle()
	if s.loop.conns.remove(s) && !s.carries() {
		s.loop.conns.n--
	}
	if s.tie != nil {
		s.leave()
	}
	ln := s.listener
	if ln == nil {
		return
	}
	if g := ln.config.group; g != nil {
		g.left(s.loop)
	}
	if k, ok := s.lower.(*socket); ok {
		ln.left(k.remoteIP())
	}
	if ln.loop == s.loop {
		ln.connGone()
	} else {
		ln.goneElsewhere()
	}
}

func (s *stream) Close() error {
	if err := s.loop.check("Close"); err != nil {
		return err
	}
	s.closeWith(nil)
	return nil
}

// closeWith flushes and ends; reason is what ConnectionLost gets if nothing fails.
func (s *stream) closeWith(reason error) {
	switch {
	case s.phase >= phaseClosing:
	case s.phase == phaseBroken:
		s.lose(s.reason()) // not everything was delivered
	default:
		if reason == nil && s.x.dropped {
			reason = s.x.noReader
		}
		s.become(phaseClosing)
		s.setReason(reason)
		s.dropTail()
		s.touch()
	}
}

// tryClose makes the lower half close once everything has been handed to it.
func (s *stream) tryClose() {
	if s.writing() || s.x.producer != nil {
		return
	}
	if s.x.resets {
		s.lower.close(closeReset)
	} else {
		s.lower.close(closeFlushed)
	}
}

// streamList is an intrusive list. n counts connections: the streams of layers are not
// among them.
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
