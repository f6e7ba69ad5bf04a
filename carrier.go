package weir

import (
	"errors"
	"net"
	"runtime/debug"

	"github.com/weir-io/weir/internal/backend"
)

// Carrier moves the bytes of a transport that stands on no socket of the loop's
// own: the lower half of a layer, a foreign connection. What a transport
// promises (kept tails, marks, pauses, producers, half-close, the order of
// callbacks) is the transport's work and not the carrier's.
//
//	    your Protocol
//	         ▲ │
//	     Transport            made by Loop.Carry
//	Feed ▲     │ Carrier
//	     │     ▼
//	 what moves the bytes
//
// The loop calls a carrier on its own goroutine, one call at a time, and the
// carrier calls its Feed there. A carrier that has a method
//
//	Below() Transport
//
// is looked through by As, and lends the transport the addresses of what is
// below unless it has LocalAddr and RemoteAddr methods of its own.
type Carrier interface {
	// Write takes bytes to send, in order, and returns how many it took. It
	// never blocks: if it takes fewer than there are, it calls Feed.Writable
	// later, and is not called before. The pieces are lent until it returns. An
	// error loses the connection with that error.
	Write(bufs [][]byte) (n int, err error)
	// CloseWrite sends the end of the stream after everything that Write took.
	// It is called once, and only where CanCloseWrite reports true. ErrClosed,
	// from it as from Write, says that Feed.Closed is on its way with the reason.
	CloseWrite() error
	// CanCloseWrite reports whether the end of writing can be sent alone.
	CanCloseWrite() bool
	// PauseReading asks for no more bytes until ResumeReading; they alternate,
	// and reading is wanted at the beginning. What Deliver gets all the same is
	// kept.
	PauseReading()
	ResumeReading()
	// Close closes. With abort false everything written was taken; what the
	// carrier holds of it still leaves, and what is delivered meanwhile is
	// dropped. With abort true nothing more needs to leave; it may come after a
	// Close with abort false, and ends that one's patience. The carrier calls
	// Feed.Closed once it is closed, perhaps from inside.
	Close(abort bool)
}

// Feed is a carrier's side of the transport that it carries. Its methods belong
// to the loop's goroutine.
type Feed struct{ s *stream }

// Transport is the transport that is carried. It stays readable after the end.
func (f *Feed) Transport() Transport { return f.s }

// Deliver hands p to the protocol; what the protocol leaves, or does not want
// at present, is kept by the transport. p is lent until Deliver returns. After
// the end, and while the transport closes, p is dropped.
func (f *Feed) Deliver(p []byte) {
	s := f.s
	if s.flags&(fLost|fClosing|fEOF|fConnected) != fConnected || len(p) == 0 {
		return
	}
	if s.flags&fInData != 0 || len(s.x.more) > 0 {
		// From inside the protocol's own call: it comes when that has returned.
		s.keepMore(p)
		return
	}
	for s.caps&capBuffer != 0 && len(s.tail) == 0 && !s.paused() && len(p) > 0 {
		buf := s.carriedBuffer()
		if s.flags&(fLost|fClosing) != 0 {
			return
		}
		s.x.buf = nil
		n := copy(buf, p)
		p = p[n:]
		s.deliver(buf[:n])
		if s.flags&(fLost|fClosing) != 0 {
			return
		}
	}
	if len(p) > 0 {
		s.deliver(p)
	}
	s.touch()
}

// End says that the peer will send no more.
func (f *Feed) End() {
	s := f.s
	if s.flags&(fLost|fEOF|fConnected) != fConnected {
		return
	}
	if s.flags&fWriteBroken != 0 {
		s.lose(s.reason)
		return
	}
	s.flags |= fEOF
	if s.flags&fInData != 0 || len(s.x.more) > 0 || s.paused() || s.flags&fOffer != 0 {
		s.queue()
	} else if s.flags&fClosing == 0 {
		s.endOfStream()
	}
	s.touch()
}

// Break is End where the stream broke off: what was delivered is offered first,
// and then the connection is lost with err. The carrier is told to close with
// abort true.
func (f *Feed) Break(err error) {
	s := f.s
	if s.flags&(fLost|fEOF|fConnected) != fConnected {
		return
	}
	s.x.broken = err
	f.End()
}

// Paused reports whether the protocol wants no bytes at present, but some later.
// It says so at once, where Carrier.PauseReading is called when the callback has
// returned.
func (f *Feed) Paused() bool { return f.s.paused() && f.s.flags&(fClosing|fLost) == 0 }

// Writable says that Write can take more.
func (f *Feed) Writable() {
	f.s.flags &^= fBlocked
	f.s.touch()
}

// WriteFailed says that nothing more can be sent, because of err. What was to be
// sent is dropped; what the peer had sent before is still delivered, and wanted
// even where reading had only stopped for a full write buffer. The connection is
// lost with err when the carrier calls End or Closed, and with Fail's own reason.
func (f *Feed) WriteFailed(err error) {
	if s := f.s; s.flags&(fLost|fWriteBroken|fConnected) == fConnected {
		s.breakWriting(err)
	}
}

// Fail loses the connection with err, as an error from Write does: the carrier
// is told to close with abort true.
func (f *Feed) Fail(err error) { f.s.lose(err) }

// Closed says that the carrier is closed, and why: nil for a clean end. The
// transport is lost with that reason, if it has none of its own. Nothing of the
// carrier is called afterwards. Again is nothing.
func (f *Feed) Closed(err error) {
	s := f.s
	if s.flags&fGone != 0 {
		return
	}
	s.flags |= fGone
	switch {
	case s.flags&fLost != 0:
	case s.flags&fClosing != 0:
		if s.reason == nil {
			s.reason = err
		}
		if s.writing() && s.reason == nil {
			s.reason = ErrClosed // the carrier went before it had everything
		}
		s.flags |= fLost
		s.dropTail()
		if s.out != nil {
			s.out.release(&s.loop.pool)
			s.out = nil
		}
	case err == nil && s.flags&fConnected != 0 && (s.flags&fOffer != 0 || s.flags&(fEOF|fEOFDone) == fEOF):
		// What was delivered is still to be offered. The end follows it.
		s.flags |= fEOF
		s.queue()
		return
	case s.flags&fWriteBroken != 0:
		s.lose(s.reason)
	default:
		s.lose(err)
	}
	s.tryShut()
}

// PauseReading and ResumeReading of the transport, as the carrier last heard.
func (s *stream) syncCarrier() {
	want := s.flags&fClosing != 0 || !s.paused() && s.flags&fOffer == 0
	switch {
	case s.flags&(fEOF|fGone) != 0:
	case !want && s.flags&fReadHeld == 0:
		s.flags |= fReadHeld
		s.callCarrier("PauseReading", s.x.carrier.PauseReading)
	case want && s.flags&fReadHeld != 0:
		s.flags &^= fReadHeld
		s.callCarrier("ResumeReading", s.x.carrier.ResumeReading)
	}
	if want && s.caps&capBuffer != 0 && s.flags&(fClosing|fEOF|fGone) == 0 {
		s.carriedBuffer()
	}
}

// carriedBuffer is the memory that the protocol supplies for the next bytes.
func (s *stream) carriedBuffer() []byte {
	if s.x.buf == nil && s.flags&fLost == 0 {
		buf := s.callReadBuffer()
		if len(buf) == 0 {
			s.lose(errNoBuffer)
		} else {
			s.x.buf = buf
		}
	}
	return s.x.buf
}

// flushCarrier gives the carrier what is buffered, as far as it takes it.
func (s *stream) flushCarrier() {
	for s.out != nil && s.out.n > 0 && s.flags&(fLost|fWriteBroken|fBlocked|fGone|fFlushing) == 0 {
		o := s.out
		s.flags |= fFlushing
		n, err := s.callCarrierWrite(o.chunks)
		s.flags &^= fFlushing
		if s.flags&fLost != 0 {
			s.tryShut()
			return
		}
		if errors.Is(err, ErrClosed) {
			// What is below is lost already, and Feed.Closed will say why.
			s.flags |= fBlocked
			return
		}
		if err != nil {
			s.lose(err)
			return
		}
		if n < o.n {
			s.flags |= fBlocked
		}
		s.writeDone(&backend.Completion{N: n})
	}
}

// directCarrier offers p to the carrier from where it lies.
func (s *stream) directCarrier(p []byte) int {
	if s.flags&(fBlocked|fGone|fFlushing) != 0 || s.x.one[0] != nil {
		return 0
	}
	s.x.one[0] = p
	s.flags |= fFlushing
	n, err := s.callCarrierWrite(s.x.one[:])
	s.flags &^= fFlushing
	s.x.one[0] = nil
	if s.flags&fLost != 0 {
		return len(p)
	}
	if errors.Is(err, ErrClosed) {
		s.flags |= fBlocked
		return 0
	}
	if err != nil {
		s.lose(err)
		return len(p)
	}
	if n < len(p) {
		s.flags |= fBlocked
	}
	return n
}

func (s *stream) callCarrierWrite(bufs [][]byte) (n int, err error) {
	defer s.guard("a layer's Write")
	return s.x.carrier.Write(bufs)
}

func (s *stream) callCarrier(where string, f func()) {
	defer s.guard("a layer's " + where)
	f()
}

// closeCarrier tells the carrier to close, once each way.
func (s *stream) closeCarrier(abort bool) {
	if s.x.closeSent && (!abort || s.x.abortSent) {
		return
	}
	s.x.closeSent = true
	s.x.abortSent = abort
	s.callCarrierClose(abort)
}

func (s *stream) callCarrierClose(abort bool) {
	defer func() {
		if v := recover(); v != nil {
			// There is nobody left to close it.
			s.flags |= fGone
			s.panicked(&PanicError{Where: "a layer's Close", Conn: s.name(), Value: v, Stack: debug.Stack()})
		}
	}()
	s.x.carrier.Close(abort)
}

// Unwrap returns the transport below, where the stream is a layer's.
func (s *stream) Unwrap() Transport {
	if s.x != nil && s.x.carrier != nil {
		if b, ok := s.x.carrier.(interface{ Below() Transport }); ok {
			return b.Below()
		}
	}
	return nil
}

// carrier is what As looks at between a layer's transport and the one below.
func (s *stream) ability() any {
	if s.x != nil && s.x.carrier != nil {
		return s.x.carrier
	}
	return nil
}

// carriedAddr is the address that a carrier lends.
func (s *stream) carriedAddr(remote bool) net.Addr {
	type addressed interface {
		LocalAddr() net.Addr
		RemoteAddr() net.Addr
	}
	a, ok := s.x.carrier.(addressed)
	if !ok {
		below := s.Unwrap()
		if below == nil {
			return &FileAddr{Net: "conn", Name: "conn"}
		}
		a = below
	}
	if remote {
		return a.RemoteAddr()
	}
	return a.LocalAddr()
}

// Carry makes a transport whose bytes c moves. It has no protocol before
// Feed.Begin, and nothing of c is called before. Only WithWriteMarks and
// WithTailLimit among the options mean something here; without them those of
// the transport below hold.
func (l *Loop) Carry(c Carrier, opts ...Option) (*Feed, error) {
	if err := l.check("Carry"); err != nil {
		return nil, err
	}
	if l.state.Load() == loopClosed {
		return nil, ErrLoopClosed
	}
	s := newStream(l, backend.None, backend.None, netCarried, configOf(nil))
	s.flags |= fCarried
	s.extra().carrier = c
	if u, ok := As[*stream](s.Unwrap()); ok {
		s.high, s.low, s.tailMax = u.high, u.low, u.tailMax
	}
	cfg := configOf(opts)
	if cfg.marks {
		s.high, s.low = cfg.high, cfg.low
	}
	if cfg.tail > 0 {
		s.tailMax = cfg.tail
	}
	s.x.feed.s = s
	return &s.x.feed, nil
}

// Begin makes the transport's protocol and calls its ConnectionMade. Where f
// returns nil it reports false: the carrier was told to close with abort false,
// and what it does with the feed from then on has no effect.
func (f *Feed) Begin(factory Factory) bool {
	s := f.s
	p := s.callFactory(factory)
	if p == nil {
		s.closeCarrier(false)
		s.flags |= fLost | fGone | fShut
		s.gone()
		return false
	}
	s.attach(p)
	s.flags |= fConnected
	s.callMade()
	s.touch()
	return true
}

// Drop ends a feed that never began.
func (f *Feed) Drop() {
	if s := f.s; s.flags&(fConnected|fShut) == 0 {
		s.flags |= fLost | fGone | fShut
		s.gone()
	}
}

func (s *stream) callCarrierCloseWrite() {
	defer s.guard("a layer's CloseWrite")
	if err := s.x.carrier.CloseWrite(); err != nil && !errors.Is(err, ErrClosed) {
		s.lose(err)
	}
}
