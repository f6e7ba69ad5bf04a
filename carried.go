package weir

import (
	"errors"
	"net"
	"runtime/debug"
)

// carried is the lower half whose bytes a Carrier moves. The carrier is foreign code:
// each call to it is guarded.
type carried struct {
	stream
	rare extras // what stream.x points to

	carrier Carrier
	feed    Feed
	buf     []byte // memory that the protocol supplied
	one     [1][]byte

	full                 bool // the carrier took less than it was given
	isPaused             bool // it was told to pause reading
	isWriting            bool // its Write is being called
	closeSent, abortSent bool // it was told to close
	isGone               bool // it is closed
}

var _ lower = (*carried)(nil)

// newCarried makes a stream whose bytes c moves. It has the bounds of the stream below,
// unless the options set others.
func newCarried(l *Loop, c Carrier, cfg *connConfig) *carried {
	k := &carried{carrier: c}
	k.feed.k = k
	k.init(l, k, cfg)
	k.rare.made = k.x.made
	k.x = &k.rare
	if u, ok := As[*stream](k.Unwrap()); ok {
		k.bounds = u.bounds
		if cfg.bounds != nil {
			k.bounds = cfg.boundsOver(u.bounds)
		}
		if t := u.tenant(); t != nil && cfg.tenant == nil {
			k.leave() // init may have made it the loop's own
			k.join(t)
		}
	}
	return k
}

// carries reports whether a carrier moves the bytes.
func (s *stream) carries() bool {
	_, ok := s.lower.(*carried)
	return ok
}

// want implements lower: it tells the carrier of changes.
func (k *carried) want(w wish) {
	if k.isGone {
		switch {
		case k.phase == phaseClosing:
			k.end(nil)
		case k.flags&fEOFDone != 0 && !k.x.breakDue:
			k.lose(k.reason())
		}
		return
	}
	hold := w == wantLater
	switch {
	case k.flags&fEOF != 0:
	case hold && !k.isPaused:
		k.isPaused = true
		k.call("PauseReading", k.carrier.PauseReading)
	case !hold && k.isPaused:
		k.isPaused = false
		k.call("ResumeReading", k.carrier.ResumeReading)
	}
	if w == wantBytes && k.caps&capBuffer != 0 && k.flags&fEOF == 0 && k.phase < phaseClosing {
		k.memory()
	}
}

// memory returns the memory that the protocol supplies for the next bytes.
func (k *carried) memory() []byte {
	if k.flags&fStale != 0 {
		k.flags &^= fStale
		k.buf = nil
	}
	if k.buf == nil && k.phase < phaseLost {
		if buf := k.callReadBuffer(); len(buf) > 0 {
			k.buf = buf
		} else {
			k.lose(ErrNoBuffer)
		}
	}
	return k.buf
}

func (k *carried) flush() {
	for k.out != nil && k.out.n > 0 && k.phase != phaseBroken && k.phase < phaseLost && !k.full && !k.isGone && !k.isWriting {
		o, had := k.out, k.out.n // Write may add more
		o.lent = true
		n, err := k.callWrite(o.chunks)
		o.lent = false
		switch {
		case k.phase >= phaseLost:
			k.shut(k.how)
			k.dropOut()
			return
		case k.phase == phaseBroken:
			k.dropOut() // writing failed meanwhile
			return
		case k.x.noReader != nil:
			k.dropUnwanted()
			return
		case errors.Is(err, ErrClosed):
			// The transport below is lost already: Feed.Closed or Feed.WriteFailed will
			// say why.
			k.full = true
			return
		case err != nil:
			k.lose(err)
			return
		}
		k.full = n < had
		k.sent(n)
	}
}

func (k *carried) write(p []byte) int {
	if k.full || k.isGone || k.isWriting || k.one[0] != nil {
		return 0
	}
	k.one[0] = p
	n, err := k.callWrite(k.one[:])
	k.one[0] = nil
	switch {
	case k.phase >= phaseLost:
		k.touch() // closing waited for this
		return len(p)
	case errors.Is(err, ErrClosed):
		k.full = true
		return 0
	case err != nil:
		k.lose(err)
		return len(p)
	}
	k.full = k.full || n < len(p)
	return n
}

func (k *carried) callWrite(bufs [][]byte) (n int, err error) {
	k.isWriting = true
	defer func() { k.isWriting = false }()
	defer k.guard("a layer's Write")
	return k.carrier.Write(bufs)
}

func (k *carried) canCloseWrite() bool { return k.carrier.CanCloseWrite() }

func (k *carried) closeWrite() bool {
	if !k.isGone {
		k.callCloseWrite()
	}
	return true
}

func (k *carried) callCloseWrite() {
	defer k.guard("a layer's CloseWrite")
	if err := k.carrier.CloseWrite(); err != nil && !errors.Is(err, ErrClosed) {
		k.lose(err)
	}
}

// close implements lower: the carrier is told, once each way.
func (k *carried) close(how closeHow) {
	switch {
	case k.isGone:
		k.end(nil)
	case how >= closeQuiet:
		if !k.isWriting {
			k.tellClose(true)
		}
	case how == closeReset && !k.closeSent:
		k.tellReset()
	case how == closeFlushed:
		k.tellClose(false)
	}
}

// end ends a stream whose carrier is closed, unless its Write is still running.
func (k *carried) end(err error) {
	if !k.isWriting {
		k.buf = nil
		k.closed(err)
		return
	}
	if k.phase == phaseClosing && k.reason() == nil {
		k.setReason(err)
	}
	k.touch()
}

// drop ends a stream whose factory refused it: no one is told.
func (k *carried) drop() {
	k.isGone = true
	k.become(phaseGone)
	k.gone()
}

// tellClose tells the carrier to close.
func (k *carried) tellClose(abort bool) {
	if k.closeSent && (!abort || k.abortSent) {
		return
	}
	k.closeSent, k.abortSent = true, abort
	k.callClose(abort)
}

func (k *carried) callClose(abort bool) {
	defer func() {
		if v := recover(); v != nil {
			// Nothing is left that could close it.
			k.isGone = true
			k.panicked(&PanicError{Where: "a layer's Close", Conn: k.name(), Value: v, Stack: debug.Stack()})
			k.end(nil)
		}
	}()
	k.carrier.Close(abort)
}

// tellReset tells the carrier to end with a failure, after the bytes that it was given.
// A carrier that is not a Resetter drops those and closes.
func (k *carried) tellReset() {
	r, ok := k.carrier.(Resetter)
	if !ok {
		k.tellClose(true)
		return
	}
	k.closeSent = true
	k.call("Reset", r.Reset)
}

func (k *carried) call(where string, f func()) {
	defer k.guard("a layer's " + where)
	f()
}

func (k *carried) count(what measure) int {
	if what == bytesHeld {
		return k.heldBelow()
	}
	u, ok := As[*stream](k.Unwrap())
	switch {
	case ok && what == bytesUnread:
		return u.unread()
	case ok:
		return u.lower.count(what)
	case what == bytesUnread:
		return 1 // cannot be known
	}
	return 0
}

// heldBelow is how many of the bytes that the carrier has taken wait in it or below it.
func (k *carried) heldBelow() int {
	n := k.heldHere()
	if t := k.Unwrap(); t != nil && !k.isGone && k.phase < phaseShut {
		n += t.Buffered()
	}
	return n
}

// heldHere is how many of them wait in the carrier itself.
func (k *carried) heldHere() int {
	if h, ok := k.carrier.(Holder); ok && !k.isGone && k.phase < phaseShut {
		return h.Held()
	}
	return 0
}

// unsent is how many bytes would be lost with an Unsender.
func (k *carried) unsent() int {
	if u, ok := k.carrier.(Unsender); ok && !k.isGone && k.phase < phaseShut {
		return u.Unsent()
	}
	return 0
}

// addr implements lower: the address that a carrier lends.
func (k *carried) addr(remote bool) net.Addr {
	type addressed interface {
		LocalAddr() net.Addr
		RemoteAddr() net.Addr
	}
	a, ok := k.carrier.(addressed)
	if !ok {
		below := k.Unwrap()
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

// standsAlone reports whether the stream has no stream below it: it is a socket, or its
// carrier moves the bytes without one.
func (s *stream) standsAlone() bool {
	k, ok := s.lower.(*carried)
	return !ok || !standsOn(k.carrier)
}

// standsOn reports whether a carrier moves its bytes through another stream.
func standsOn(c Carrier) bool {
	b, ok := c.(interface{ Below() Transport })
	if !ok {
		return false
	}
	_, ok = As[*stream](b.Below())
	return ok
}

// Unwrap returns the transport below, if the stream is a layer's; else nil.
func (s *stream) Unwrap() Transport {
	if k, ok := s.lower.(*carried); ok {
		if b, ok := k.carrier.(interface{ Below() Transport }); ok {
			return b.Below()
		}
	}
	return nil
}

// below is the stream in which this one's bytes wait after a layer has taken them.
func (s *stream) below() *stream {
	if k, ok := s.lower.(*carried); ok && !k.isGone {
		if u, ok := As[*stream](s.Unwrap()); ok {
			return u
		}
	}
	return nil
}

// ability is the value that As examines between a layer's transport and the one below.
func (s *stream) ability() any {
	if k, ok := s.lower.(*carried); ok {
		return k.carrier
	}
	return nil
}
