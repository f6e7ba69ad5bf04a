package proxy

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/peer"
	"github.com/weir-io/weir/internal/refusal"
	"github.com/weir-io/weir/layer"
)

// wire is the logic of a handshake at the beginning of a stream, without I/O:
// bytes in, bytes and events out. What it does not use stays with the transport
// and is offered again together with what comes next, so a wire may wait for a
// whole message.
type wire interface {
	// start returns what to send first; nil if the peer begins.
	start() ([]byte, error)
	// next reads the bytes that have arrived and uses n of them. With n = 0, no
	// event and no error it needs more. reply is to be sent, even before an
	// error, which ends the handshake. After eventOpen and eventAsked next is
	// not called again.
	next(p []byte) (n int, reply []byte, e event, err error)
}

// event is what a wire found out.
type event uint8

const (
	eventNone    event = iota
	eventBound         // a client's proxy waits for the peer
	eventOpen          // the handshake is over: the rest of the stream is the protocol's
	eventAsked         // a server's peer asked for something, and waits for the answer
	eventGuess         // a server's peer has sent a password: grant says whether it may be checked
	eventRefused       // a client's proxy has refused, and may say why until refusal.Wait is over; the wire is a refuser
)

// refuser is a wire that returns eventRefused.
type refuser interface {
	// refused returns the refusal as far as it has come, nil if there is none.
	// Whatever ends the handshake afterwards, this is the reason.
	refused() error
}

// opening is a layer that speaks only at the beginning of a stream. It is the
// protocol of the transport below until its wire says that the handshake is
// over. Then it gives way to the protocol above, which gets the transport
// below, or an overlay of it, as its own: from then on the layer costs nothing.
//
//	ConnectionMade ──▶ handshake ──▶ open ──▶ SetProtocol(above), ConnectionMade
//	                        │
//	                        └──▶ fail: Above.Failed, and the end
type opening struct {
	name  string
	wire  wire
	above layer.Above
	stage weir.Stage
	limit time.Duration
	// overlay makes the transport above when the handshake is over.
	overlay func(t weir.Transport, e event) weir.Transport
	bound   func() // for eventBound

	guesses *guesses // of a server that asks for passwords; nil: no bound
	peer    netip.Prefix
	guessed bool        // it is the wire's turn
	waits   *weir.Timer // for the turn, or for the text of a refusal; nil: it did not have to wait

	t     weir.Transport
	timer *weir.Timer
	over  bool
	heard bool // the peer has sent something
}

var (
	_ weir.Protocol    = (*opening)(nil)
	_ weir.EOFReceiver = (*opening)(nil)
)

func (o *opening) ConnectionMade(t weir.Transport) {
	o.t = t
	first, err := o.wire.start()
	if err != nil {
		o.fail(err, true)
		return
	}
	o.setTimer()
	if len(first) > 0 {
		_, _ = t.Write(first) // if it is lost, ConnectionLost says why
	}
}

func (o *opening) setTimer() {
	if o.limit > 0 {
		o.timer = o.t.Loop().After(o.limit, func() { o.fail(layer.ErrTimeout, true) })
	}
}

func (o *opening) DataReceived(p []byte) (int, error) {
	o.heard = true
	used := 0
	for !o.over {
		n, reply, e, err := o.wire.next(p[used:])
		used += n
		if e == eventGuess {
			if o.guess() {
				continue
			}
			return used, nil
		}
		if o.guessed && (n > 0 || err != nil) && !errors.Is(err, ErrAuth) {
			o.guessed = false
			o.guesses.right(o.peer)
		}
		if len(reply) > 0 {
			_, _ = o.t.Write(reply)
		}
		switch {
		case err != nil:
			o.fail(err, false)
		case e == eventBound:
			o.stopTimer()
			o.setTimer()
			o.bound()
		case e == eventRefused:
			o.waits = o.t.Loop().After(refusal.Wait, func() { o.fail(layer.ErrTimeout, true) })
		case e != eventNone:
			o.stepAside(e)
		case n == 0:
			return used, nil
		}
	}
	return used, nil
}

// guess reserves a turn for a password. It returns false if the turn comes
// later: nothing more is read until then.
func (o *opening) guess() bool {
	o.peer = peer.Of(o.t.RemoteAddr(), peer.PrefixV6)
	wait, ok := o.guesses.take(o.peer, o.t.Loop().Now())
	o.guessed = ok
	g := o.wire.(interface{ grant(at turn) }) // a wire that asks has this method
	if !ok {
		g.grant(turnDenied)
		return true
	}
	if wait == 0 {
		g.grant(turnOpen)
		return true
	}
	o.t.PauseReading()
	o.waits = o.t.Loop().After(wait, func() {
		g.grant(turnOpen)
		o.t.ResumeReading()
	})
	return false
}

// stepAside gives the transport to the protocol above.
func (o *opening) stepAside(e event) {
	o.over = true
	o.stopTimer()
	above, t := o.above, o.t
	o.above = layer.Above{}
	top := t
	if o.overlay != nil {
		top = o.overlay(t, e)
	}
	s, served := top.(*servedTransport)
	switch {
	case served && !handOver(t, top, above, s.r.settle):
		s.r.Refuse(ErrNotAllowed)
	case !served && !handOver(t, top, above, nil):
		_ = t.Close() // always nil
	}
}

// handOver makes the protocol above for the transport top, which is t or an
// overlay of it, and gives it t's stream; then, if not nil, is called after its
// ConnectionMade. It returns false if the factory refuses to make a protocol.
func handOver(t, top weir.Transport, above layer.Above, then func()) bool {
	p := above.Make(top)
	if p == nil {
		return false
	}
	made := func() {
		p.ConnectionMade(top)
		if then != nil {
			then()
		}
	}
	if h, ok := weir.As[weir.Handover](t); ok {
		h.Handover(p, made)
	} else {
		t.SetProtocol(p)
		made()
	}
	return true
}

func (o *opening) stopTimer() {
	for _, timer := range []*weir.Timer{o.timer, o.waits} {
		if timer != nil {
			timer.Stop()
		}
	}
	o.timer, o.waits = nil, nil
}

// fail ends a connection that was never established. What was written still
// leaves, unless abort is true.
func (o *opening) fail(err error, abort bool) {
	if o.over {
		return
	}
	o.over = true
	o.stopTimer()
	t, failed := o.t, o.above.Failed
	if !o.heard {
		err = layer.Unheard(err)
	}
	if r, ok := o.wire.(refuser); ok {
		if refused := r.refused(); refused != nil {
			err = refused
		}
	}
	e := &weir.AttemptError{Addr: t.RemoteAddr(), Stage: o.stage, Err: &layer.Error{Layer: o.name, Err: err}}
	o.above = layer.Above{}
	if abort {
		t.Abort()
	} else {
		closeSoon(t)
	}
	if failed != nil {
		tell := func() { failed(e) }
		// A closed loop has reported it already, or was closed without doing
		// so.
		_, _ = t.Loop().PostOr(tell, tell)
	}
}

// farewell is how long a refusal may take to leave.
const farewell = 5 * time.Second

// closeSoon closes a transport on which a refusal was written, whether its peer
// reads the refusal or not.
func closeSoon(t weir.Transport) {
	_ = t.Close() // always nil
	if t.Buffered() > 0 {
		t.Loop().After(farewell, t.Abort)
	}
}

func (o *opening) EOFReceived(int) (bool, error) {
	o.fail(layer.ErrEarlyEnd, true)
	return false, nil
}

func (o *opening) ConnectionLost(err error) {
	if err == nil {
		err = layer.ErrEarlyEnd
	}
	o.fail(err, true)
}

// overlay is a transport with different addresses from the one below, which
// does everything else.
type overlay struct {
	weir.Transport
	local, remote net.Addr // nil: those of the transport below
}

var (
	_ weir.Transport = (*overlay)(nil)
	_ weir.Splicer   = (*overlay)(nil)
)

// Unwrap returns the transport below, for weir.As.
func (o *overlay) Unwrap() weir.Transport { return o.Transport }

func (o *overlay) LocalAddr() net.Addr {
	if o.local != nil {
		return o.local
	}
	return o.Transport.LocalAddr()
}

func (o *overlay) RemoteAddr() net.Addr {
	if o.remote != nil {
		return o.remote
	}
	return o.Transport.RemoteAddr()
}

// SpliceTo implements weir.Splicer if the transport below does, since the bytes
// are the same.
func (o *overlay) SpliceTo(dst weir.Transport, done func(n int64, err error)) error {
	if s, ok := o.Transport.(weir.Splicer); ok {
		return s.SpliceTo(dst, done)
	}
	return weir.ErrNoSplice
}

// HostAddr is an address by name, which someone else resolves.
type HostAddr struct {
	Net  string // "tcp"
	Host string // "host:port"
}

var _ net.Addr = (*HostAddr)(nil)

// Network is the network of the connection: "tcp".
func (a *HostAddr) Network() string { return a.Net }

func (a *HostAddr) String() string { return a.Host }
