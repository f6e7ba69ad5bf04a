package weir

import (
	"errors"
	"math"
	"runtime/debug"

	"github.com/weir-io/weir/internal/backend"
)

// PacketCarrier moves the datagrams of an endpoint that is not one of the loop's own
// sockets: it is the upper side of a layer, or a foreign source. The endpoint itself,
// not the carrier, keeps an endpoint's promises (marks, the bounds on what waits,
// ErrTruncated, the order of callbacks, one EndpointLost).
//
//	    your PacketProtocol
//	         ▲ │
//	    PacketEndpoint            made by Loop.CarryPackets
//	PacketFeed ▲ │ PacketCarrier
//	           │ ▼
//	 what moves the datagrams
//
// The loop calls a carrier on its own goroutine, one call at a time, and the carrier
// calls its PacketFeed there. A panic in a carrier is reported to the loop's error
// handler. A carrier that has a method
//
//	Below() *PacketEndpoint
//
// gives its endpoint the address, the groups and the marks of the endpoint below. One
// that keeps datagrams for a time is a Holder, and one that can say from where a
// datagram leaves is a PacketInfoCarrier.
type PacketCarrier interface {
	// SendTo takes a datagram, which is lent until it returns. If taken is false, the
	// endpoint keeps the datagram, and SendTo is not called again before the carrier
	// has called PacketFeed.Writable. An error is about this datagram, which is
	// dropped; it counts only if taken is true.
	SendTo(p []byte, to PacketAddr) (taken bool, err error)
	// PauseReading asks for no more datagrams until ResumeReading. The two calls
	// alternate, and an endpoint begins with reading on. What is delivered nevertheless
	// is kept, up to the bounds of what waits to be sent, and dropped beyond them.
	PauseReading()
	ResumeReading()
	// Close closes the carrier. With abort false, SendTo has taken everything; the
	// carrier still sends what it holds, and then calls PacketFeed.Closed, perhaps from
	// inside Close. What it delivers meanwhile is dropped. With abort true nothing more
	// is sent. Close(true) may follow Close(false).
	Close(abort bool)
}

// PacketInfoCarrier is a PacketCarrier that also takes the PacketInfo of a datagram to send.
// On an endpoint of another carrier, SendInfo with a PacketInfo that is not zero fails
// with errors.ErrUnsupported.
type PacketInfoCarrier interface {
	PacketCarrier
	// SendInfo is called instead of SendTo, always: *info is zero if nothing is asked
	// for. It is lent until the call returns.
	SendInfo(p []byte, to PacketAddr, info *PacketInfo) (taken bool, err error)
}

// PacketFeed is a carrier's side of the endpoint that it carries. Its methods belong to
// the loop's goroutine.
type PacketFeed struct {
	e     *PacketEndpoint
	c     PacketCarrier
	asker PacketInfoCarrier // the same; nil: it is none
	below *PacketEndpoint   // nil: nothing of weir's is below
	info  PacketInfo        // of the datagram that asker takes

	held      []heldPacket // delivered while the protocol could not take them
	heldBytes int
	inside    bool // a datagram is being delivered
	dropped   uint64

	full     bool // the carrier did not take the last datagram
	draining bool // what waits is being handed over
	owes     bool // something was taken since WriteDrained
	paused   bool // the carrier was told to pause
	closed   bool // it was told to close
	aborted  bool // with abort
	gone     bool // it is closed
}

// CarryPackets makes an endpoint whose datagrams c moves, for p. It can be sent from at
// once; p's EndpointMade comes with PacketFeed.Begin. A value outside
// an option's range is an *OptionError.
func (l *Loop) CarryPackets(c PacketCarrier, p PacketProtocol, opts ...CarryPacketsOption) (*PacketFeed, error) {
	if err := l.check("CarryPackets"); err != nil {
		return nil, err
	}
	if l.state.Load() == loopClosed {
		return nil, ErrLoopClosed
	}
	cfg := configOf(opts)
	if cfg.err != nil {
		return nil, cfg.err
	}
	if err := cfg.forTenant(l); err != nil {
		return nil, err
	}
	e := &PacketEndpoint{loop: l, netw: "packets"}
	e.rd.e, e.wr.e = e, e
	e.wr.high, e.wr.low = 64<<10, 16<<10
	e.feed = &PacketFeed{e: e, c: c}
	e.feed.asker, _ = c.(PacketInfoCarrier)
	if e.rd.most = cfg.maxDatagram; e.rd.most == 0 {
		e.rd.most = math.MaxInt
	}
	if b, ok := c.(interface{ Below() *PacketEndpoint }); ok && b.Below() != nil {
		u := b.Below()
		e.feed.below = u
		e.netw, e.addr, e.peer, e.connected, e.v6, e.dual = u.netw, u.addr, u.peer, u.connected, u.v6, u.dual
		e.wr.high, e.wr.low = u.wr.high, u.wr.low
	}
	if cfg.marks {
		e.wr.high, e.wr.low = int(cfg.high), int(cfg.low)
	}
	e.attach(p)
	l.endpoints.Add(e, &e.at)
	if t := cfg.tenant; t != nil {
		e.of.joinPackets(t, e)
	} else if u := e.feed.below; u != nil {
		e.of.joinPackets(u.of.tenant, e)
	}
	return e.feed, nil
}

// Endpoint is the endpoint that is carried. It stays readable after the end.
func (f *PacketFeed) Endpoint() *PacketEndpoint { return f.e }

// Begin calls EndpointMade, once, unless the endpoint has ended. Nothing is delivered
// before.
func (f *PacketFeed) Begin() {
	if !f.e.made {
		f.e.begin()
	}
}

// Deliver hands a datagram to the protocol. p is lent until Deliver returns. Before
// Begin and after the end it is dropped.
func (f *PacketFeed) Deliver(p []byte, from PacketAddr) { f.DeliverInfo(p, from, nil) }

// DeliverInfo is Deliver for a datagram of which more is known: a protocol that is a
// PacketInfoReceiver gets a copy of *info, and an answer that the protocol sends inside
// the callback leaves from info.Local. A nil info is what Deliver says.
func (f *PacketFeed) DeliverInfo(p []byte, from PacketAddr, info *PacketInfo) {
	h := heldPacket{data: p, from: from}
	switch {
	case info != nil:
		h.info = *info
	case f.e.knower != nil:
		h.info = f.e.infoOf(nil)
	}
	f.deliver(&h)
}

// DeliverTruncated is Deliver for the beginning of a datagram that was longer.
func (f *PacketFeed) DeliverTruncated(p []byte, from PacketAddr) {
	f.deliver(&heldPacket{data: p, from: from, truncated: true})
}

func (f *PacketFeed) deliver(p *heldPacket) {
	e := f.e
	if !e.made || e.ended() {
		return
	}
	if most := e.rd.most; len(p.data) > most {
		p.data, p.truncated = p.data[:most:most], true
	}
	if !e.rd.paused && !f.inside && len(f.held) == 0 {
		f.handOver(p)
		return
	}
	if f.heldBytes+len(p.data) > max(limitMarks*e.wr.high, 1) || len(f.held) >= limitMarks*packetsHigh {
		f.dropped++
		return
	}
	kept := *p
	kept.data = append([]byte(nil), p.data...)
	f.held = append(f.held, kept)
	f.heldBytes += len(kept.data)
	if !e.rd.paused && len(f.held) == 1 {
		e.loop.internalCall(f.resume) // delivered from inside the protocol's own call
	}
}

// handOver calls the protocol.
func (f *PacketFeed) handOver(p *heldPacket) {
	f.inside = true
	defer func() { f.inside = false }()
	f.e.rd.deliver(p)
}

// Dropped is how many datagrams were delivered while the protocol had paused reading,
// past the bounds, and so dropped.
func (f *PacketFeed) Dropped() uint64 { return f.dropped }

// Failed tells the protocol, if it is a PacketFailer, of a datagram that could not
// be sent.
func (f *PacketFeed) Failed(err error, to PacketAddr) { f.e.failed(err, to) }

// Paused reports whether the protocol wants no datagrams at present.
func (f *PacketFeed) Paused() bool { return f.e.rd.paused && !f.e.ended() }

// Writable says that SendTo can take more: what waits is handed over.
func (f *PacketFeed) Writable() {
	e := f.e
	w := &e.wr
	f.full = false
	if f.draining || e.lost || w.idle() {
		return
	}
	f.draining = true
	for !e.lost && !w.idle() {
		q, n := w.queue[w.head], w.queue[w.head].first()
		taken, err := f.send(w.mem[q.off:n:n], q.to, &q.info)
		if e.lost || !taken {
			break
		}
		w.pop(1)
		if err != nil {
			e.failed(err, q.to)
		}
	}
	f.draining = false
	if !e.lost {
		w.eased()
	}
}

// Drained says that nothing waits any more in the carrier or below it: a protocol that
// is a Drainer is told, if nothing waits in the endpoint either.
func (f *PacketFeed) Drained() {
	if e := f.e; f.owes && e.wr.idle() && !e.ended() && e.drainer != nil && f.buffered() == 0 {
		f.owes = false
		defer e.guard("WriteDrained")
		e.drainer.WriteDrained()
	}
}

// Fail loses the endpoint with err: the carrier's Close(true) is called.
func (f *PacketFeed) Fail(err error) { f.e.lose(err) }

// Closed says that the carrier is closed, and why: nil for a clean end. The endpoint is
// lost with that reason, unless it has one already. No method of the carrier is called
// afterwards. Calling it again has no effect.
func (f *PacketFeed) Closed(err error) {
	if !f.gone {
		f.gone = true
		f.e.lose(err)
	}
}

// sendTo is the endpoint's SendTo, or SendInfo if explicit. Either has seen that the
// endpoint is open.
func (f *PacketFeed) sendTo(p []byte, to PacketAddr, info *backend.PacketInfo, explicit bool) error {
	e := f.e
	if u := e.bottom(); u != nil { // else the carrier knows
		if err := u.fits(p, to); err != nil {
			return e.sendError(err, to, len(p))
		}
	}
	if explicit && f.asker == nil && info != nil {
		return e.sendError(errors.ErrUnsupported, to, len(p))
	}
	w := &e.wr
	if w.idle() {
		if taken, err := f.send(p, to, info); taken {
			return err
		}
	} else if w.bytes+len(p) > max(limitMarks*w.high, 1) || w.waiting() >= limitMarks*packetsHigh {
		return ErrSendBufferFull
	}
	if e.ended() {
		return ErrClosed // the carrier ended it
	}
	w.push(p, nil, to, info)
	w.crossed()
	return nil
}

// send has the carrier take a datagram.
func (f *PacketFeed) send(p []byte, to PacketAddr, info *backend.PacketInfo) (taken bool, err error) {
	if f.full || f.gone {
		return false, nil
	}
	defer func() {
		if v := recover(); v != nil {
			e := &PanicError{Where: "a layer's SendTo", Conn: f.e.name(), Value: v, Stack: debug.Stack()}
			f.e.loop.report(e)
			taken, err = true, e
		}
	}()
	if f.asker == nil {
		taken, err = f.c.SendTo(p, to)
	} else {
		outer := f.info // of a datagram whose SendInfo has led here
		f.info = PacketInfo{}
		if info != nil {
			f.info = PacketInfo{
				Local: info.Local, Interface: int(info.Interface), Traffic: info.Traffic, HasTraffic: info.HasTraffic,
			}
		}
		taken, err = f.asker.SendInfo(p, to, &f.info)
		f.info = outer
	}
	f.full = !taken
	f.owes = f.owes || taken
	return taken, err
}

// pause tells the carrier that the protocol wants nothing; resume hands out what was
// kept meanwhile, and tells the carrier that more is wanted.
func (f *PacketFeed) pause() {
	if !f.paused && !f.gone {
		f.paused = true
		defer f.e.guard("a layer's PauseReading")
		f.c.PauseReading()
	}
}

func (f *PacketFeed) resume() {
	for !f.e.rd.paused && !f.e.ended() && len(f.held) > 0 {
		p := f.held[0]
		f.held = f.held[1:]
		f.heldBytes -= len(p.data)
		f.handOver(&p)
	}
	if len(f.held) == 0 || f.e.ended() {
		f.held, f.heldBytes = nil, 0
	}
	if f.paused && !f.gone && !f.e.rd.paused && !f.e.ended() {
		f.paused = false
		defer f.e.guard("a layer's ResumeReading")
		f.c.ResumeReading()
	}
}

// close tells the carrier to close, once each way.
func (f *PacketFeed) close(abort bool) {
	if f.gone || f.closed && (!abort || f.aborted) {
		return
	}
	f.closed, f.aborted = true, abort
	defer func() {
		if v := recover(); v != nil {
			f.gone = true // nothing is left that could close it
			f.e.loop.report(&PanicError{Where: "a layer's Close", Conn: f.e.name(), Value: v, Stack: debug.Stack()})
			f.e.lose(nil)
		}
	}()
	f.c.Close(abort)
}

// buffered is how many bytes the carrier has taken that wait in it or below it.
func (f *PacketFeed) buffered() int {
	n := 0
	if h, ok := f.c.(Holder); ok && !f.gone {
		n = h.Held()
	}
	if f.below != nil {
		n += f.below.Buffered()
	}
	return n
}
