package utp

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/peer"
	"github.com/weir-io/weir/internal/zone"
)

// Addr is the address of one end of a connection. It can be compared and be a key.
type Addr struct{ at netip.AddrPort }

// Network returns "utp".
func (Addr) Network() string { return "utp" }

// AddrPort is the UDP address.
func (a Addr) AddrPort() netip.AddrPort { return a.at }

// String writes the UDP address, as in 192.0.2.1:7000 or [2001:db8::1]:7000.
func (a Addr) String() string { return a.at.String() }

// packetCap is how many bytes a buffer of the pool has at least.
const packetCap = 1500

// poolMax is how many buffers an endpoint keeps for the next packets.
const poolMax = 1024

// key finds a connection: its peer, and the id that it receives with.
type key struct {
	peer netip.AddrPort
	id   uint16
}

// Endpoint carries connections over one weir.PacketEndpoint, of which it is the
// weir.PacketProtocol: Loop.ListenPacket takes it, or Open does both. Its methods
// belong to the loop's goroutine.
type Endpoint struct {
	cfg   Config
	loop  *weir.Loop
	pe    *weir.PacketEndpoint
	start time.Time
	asked weir.PacketInfo // what answers to the packet that is being handed over leave with

	conns     map[key]*conn
	all       []*conn              // the same, in an order that does not change by chance
	from      map[netip.Prefix]int // how many were accepted from one peer
	half      []*conn              // not confirmed, the oldest first; some are over
	lingering []*conn              // the same of those that linger
	halfN     int
	lingerN   int
	listener  *Listener
	counts    Counts

	passing bool // it closes with its last connection
	paused  bool // the datagrams below have no room
	waits   bool // and a connection has something to send
	closing bool
	lost    bool
	reason  error

	loopEnds   bool // Loop.Shutdown or Loop.Close has begun
	loopCloses bool // Loop.Close has
	dials      int  // connects under way

	bytes   int // that connections keep
	pool    [][]byte
	scratch []byte
	random  io.Reader
	tokens  float64 // resets that may be sent
	tokenAt time.Duration
	next    int // where ResumeWriting begins
}

var (
	_ weir.LoopEnder      = (*Endpoint)(nil)
	_ weir.PacketProtocol = (*Endpoint)(nil)
	_ weir.PacketFailer   = (*Endpoint)(nil)
	_ weir.WritePauser    = (*Endpoint)(nil)
)

// NewEndpoint makes an endpoint for Loop.ListenPacket. Connections can be made once
// EndpointMade was called. The error is a *ConfigError.
func NewEndpoint(cfg Config) (*Endpoint, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Endpoint{cfg: cfg, conns: map[key]*conn{}, from: map[netip.Prefix]int{}, random: cfg.Random, tokens: resetsPerSecond}
	if e.random == nil {
		e.random = rand.Reader
	}
	return e, nil
}

// Open makes an endpoint and the datagram endpoint below it: network is "udp", "udp4" or
// "udp6", and address as for Loop.ListenPacket, whose errors and options it has.
// Connections can be made at once.
func Open(l *weir.Loop, network, address string, cfg Config, opts ...weir.PacketOption) (*Endpoint, error) {
	e, err := NewEndpoint(cfg)
	if err != nil {
		return nil, err
	}
	pe, err := l.ListenPacket(network, address, e, opts...)
	if err != nil {
		return nil, err
	}
	e.attach(pe)
	return e, nil
}

func (e *Endpoint) attach(pe *weir.PacketEndpoint) {
	if e.pe == nil {
		e.pe, e.loop, e.start = pe, pe.Loop(), pe.Loop().Now()
	}
}

// Packets is the datagram endpoint below; nil before EndpointMade.
func (e *Endpoint) Packets() *weir.PacketEndpoint { return e.pe }

// Connections is how many connections there are, those that are being set up and those
// that repeat their last acknowledgements included.
func (e *Endpoint) Connections() int { return len(e.all) }

// Memory is how many bytes connections keep.
func (e *Endpoint) Memory() int { return e.bytes }

// SendTo sends a datagram that is not of this protocol: see PacketEndpoint.SendTo.
func (e *Endpoint) SendTo(p []byte, to weir.PacketAddr) error { return e.pe.SendTo(p, to) }

func (e *Endpoint) now() time.Duration { return e.loop.Now().Sub(e.start) }

// micros is the clock that packets are stamped with.
func (e *Endpoint) micros() uint32 { return uint32(e.now() / time.Microsecond) }

func (e *Endpoint) local() netip.AddrPort { return e.pe.Local().IP }

// LoopEnds stops listening, and, when the loop closes, ends what is not yet connected. The
// loop calls it.
func (e *Endpoint) LoopEnds(closing bool) {
	e.loopEnds = true
	if e.listener != nil {
		_ = e.listener.Close() // it returns nil
	}
	if !closing {
		return
	}
	e.loopCloses = true
	for i := len(e.all) - 1; i >= 0; i-- {
		if i >= len(e.all) {
			continue
		}
		switch c := e.all[i]; c.phase {
		case open, lingering, gone:
		case synSent:
			c.sendReset()
			c.refuse(weir.ErrLoopClosed)
		case synReceived:
			c.remove()
		}
	}
}

// LoopCloses does what the connections' timers would have done. The loop calls it.
func (e *Endpoint) LoopCloses() {
	now := e.now()
	for i := len(e.all) - 1; i >= 0; i-- {
		if i < len(e.all) && e.all[i].timed <= now {
			e.all[i].due()
		}
	}
}

// Connecting is how many connects have not come to an end.
func (e *Endpoint) Connecting() int { return e.dials }

// free is how many bytes connections may still keep. One may keep no more than are
// free, but always keptAlways: those whose readers take nothing leave room for others.
func (e *Endpoint) free() int { return max(e.cfg.Memory-e.bytes, 0) }

// bufferCap is how many bytes a buffer of the pool has.
func (e *Endpoint) bufferCap() int { return max(packetCap, e.cfg.MaxPacket) }

// take lends an empty buffer for a packet of at most size bytes.
func (e *Endpoint) take(size int) []byte {
	if n := len(e.pool); n > 0 && size <= e.bufferCap() {
		b := e.pool[n-1]
		e.pool = e.pool[:n-1]
		e.bytes += cap(b)
		return b
	}
	b := make([]byte, 0, max(size, e.bufferCap()))
	e.bytes += cap(b)
	return b
}

// give returns a buffer to the pool.
func (e *Endpoint) give(b []byte) {
	e.bytes -= cap(b)
	if len(e.pool) < poolMax && cap(b) == e.bufferCap() {
		e.pool = append(e.pool, b[:0])
	}
}

// draw returns a number that no one can guess.
func (e *Endpoint) draw() uint16 {
	var b [2]byte
	if _, err := io.ReadFull(e.random, b[:]); err != nil {
		_, _ = rand.Read(b[:]) // it does not fail
	}
	return binary.BigEndian.Uint16(b[:])
}

// send stamps a packet and sends it, from the address that local says.
func (e *Endpoint) send(p *packet, pad int, to netip.AddrPort, local *weir.PacketInfo, diff uint32) error {
	if e.lost {
		return weir.ErrClosed
	}
	p.stamp, p.delay = e.micros(), diff
	e.scratch = p.append(e.scratch[:0], pad)
	return e.pe.SendInfo(e.scratch, weir.PacketAddr{IP: to}, local)
}

// EndpointMade takes the datagram endpoint that carries the packets.
func (e *Endpoint) EndpointMade(pe *weir.PacketEndpoint) { e.attach(pe) }

// PacketReceived takes a datagram: a packet of uTP, or one for Config.Other.
func (e *Endpoint) PacketReceived(b []byte, from weir.PacketAddr) {
	var p packet
	if !p.parse(b) || !from.IP.IsValid() {
		if e.cfg.Other != nil {
			e.cfg.Other(b, from)
		}
		return
	}
	e.asked = e.pe.AnswerInfo()
	switch p.kind {
	case kindReset:
		// It has the id that we send with or, of some peers, the one that we receive with.
		for _, id := range [...]uint16{p.id, p.id - 1, p.id + 1} {
			if c := e.conns[key{from.IP, id}]; c != nil && (c.sendID == p.id || c.recvID == p.id) && c.phase < gone && e.resets(c, &p) {
				return
			}
		}
	case kindSyn:
		if c := e.conns[key{from.IP, p.id + 1}]; c != nil {
			c.packetIn(&p)
		} else {
			e.accept(&p, from.IP)
		}
	default:
		if c := e.conns[key{from.IP, p.id}]; c != nil {
			c.packetIn(&p)
		} else {
			e.refuse(&p, from.IP)
		}
	}
}

// resets hands a reset to a connection if it can be meant for it.
func (e *Endpoint) resets(c *conn, p *packet) bool {
	if c.phase == synSent && p.ack != c.synSeq || c.phase != synSent && !c.plausible(p) {
		e.counts.Implausible++
		return false
	}
	c.packetIn(p)
	return true
}

// refuse answers a packet of no connection with a reset.
func (e *Endpoint) refuse(p *packet, to netip.AddrPort) {
	now := e.now()
	e.tokens = min(e.tokens+(now-e.tokenAt).Seconds()*resetsPerSecond, resetsPerSecond)
	e.tokenAt = now
	if e.tokens < 1 {
		e.counts.Unanswered++
		return
	}
	e.tokens--
	_ = e.send(&packet{kind: kindReset, id: p.id, seq: seq(e.draw()), ack: p.seq}, 0, to, &e.asked, 0)
}

// origin is what counts as one peer.
func origin(a netip.Addr) netip.Prefix { return peer.Prefix(a, peer.PrefixV6) }

// accept answers a SYN.
func (e *Endpoint) accept(p *packet, from netip.AddrPort) {
	ln := e.listener
	if ln == nil || e.closing || len(p.data) > 0 {
		e.refuse(p, from)
		return
	}
	if e.halfN >= e.cfg.HalfOpen {
		if c := e.dropOldest(&e.half, synReceived); c != nil {
			e.counts.Forgotten++
			ln.refusals.add(ln, c.peer.Addr(), ErrUnconfirmed)
		}
	}
	of := origin(from.Addr())
	var limit *LimitError
	switch {
	case e.busy() >= e.cfg.Connections:
		limit = &LimitError{Limit: e.cfg.Connections}
	case e.cfg.PerAddress > 0 && e.from[of] >= e.cfg.PerAddress:
		limit = &LimitError{Limit: e.cfg.PerAddress, Addr: of}
	}
	if limit != nil {
		e.counts.Refused++
		ln.refused++
		ln.refusals.add(ln, from.Addr(), limit)
		e.refuse(p, from)
		return
	}
	c := &conn{ep: e, cfg: &e.cfg, peer: from, local: e.asked, recvID: p.id + 1, sendID: p.id, phase: synReceived, ln: ln, timed: never}
	c.ackAt, c.keepAt, c.halfAt = never, never, never
	c.begun, c.heard = e.now(), e.now()
	c.initSender(seq(e.draw()))
	c.first, c.synSeq = c.una, p.seq
	c.ackNr = p.seq
	c.replyDiff = max(e.micros()-p.stamp, 1)
	e.add(c)
	e.from[of]++
	c.sendSynAck()
	if e.cfg.EarlyAccept {
		c.rtoAt = never
		e.open(c)
		return
	}
	e.half = append(e.half, c)
	e.halfN++
	c.rtoAt = e.now() + c.rto()
	c.arm()
}

// confirmed makes the transport of a connection whose peer has answered.
func (e *Endpoint) confirmed(c *conn) {
	e.halfN--
	c.rtoAt, c.backoff = never, 0
	e.open(c)
	e.trim(&e.half, synReceived)
}

func (e *Endpoint) open(c *conn) {
	ln := c.ln
	ln.conns++
	ln.accepted++
	if err := c.begin(ln.factory); err != nil {
		ln.accepted--
		ln.refused++
		e.counts.Refused++
		ln.refusals.add(ln, c.peer.Addr(), err)
	}
}

// dropOldest ends the first of a queue that is still in a phase, and returns it.
func (e *Endpoint) dropOldest(q *[]*conn, ph phase) *conn {
	for len(*q) > 0 {
		c := (*q)[0]
		(*q)[0] = nil
		*q = (*q)[1:]
		if c.phase == ph {
			c.remove()
			return c
		}
	}
	return nil
}

// busy is how many connections count towards Config.Connections.
func (e *Endpoint) busy() int { return len(e.all) - e.lingerN }

// lingers notes a connection that repeats acknowledgements.
func (e *Endpoint) lingers(c *conn) {
	e.transportGone(c)
	e.uncount(c)
	if e.lingerN >= lingerers {
		e.dropOldest(&e.lingering, lingering)
		e.counts.Lingerers++
	}
	e.lingerN++
	e.lingering = append(e.lingering, c)
	e.trim(&e.lingering, lingering)
	e.checkClosed()
}

// trim drops what is over from the front of a queue.
func (e *Endpoint) trim(q *[]*conn, ph phase) {
	for len(*q) > 0 && (*q)[0].phase != ph {
		(*q)[0] = nil
		*q = (*q)[1:]
	}
}

func (e *Endpoint) add(c *conn) {
	c.at = len(e.all)
	e.all = append(e.all, c)
	e.conns[key{c.peer, c.recvID}] = c
}

// forget removes a connection.
func (e *Endpoint) forget(c *conn) {
	switch c.was {
	case synSent, gone:
	case synReceived:
		e.halfN--
		e.trim(&e.half, synReceived)
	case lingering:
		e.lingerN--
		e.trim(&e.lingering, lingering)
	case open:
		e.transportGone(c)
	}
	delete(e.conns, key{c.peer, c.recvID})
	last := len(e.all) - 1
	moved := e.all[last]
	e.all[c.at], moved.at = moved, c.at
	e.all[last] = nil
	e.all = e.all[:last]
	if c.was != lingering {
		e.uncount(c)
	}
	e.checkClosed()
}

// uncount takes a connection out of those of its peer's address.
func (e *Endpoint) uncount(c *conn) {
	if c.ln == nil {
		return
	}
	o := origin(c.peer.Addr())
	if e.from[o]--; e.from[o] <= 0 {
		delete(e.from, o)
	}
}

// transportGone tells the listener.
func (e *Endpoint) transportGone(c *conn) {
	if c.ln != nil {
		c.ln.conns--
		c.ln.checkDone()
	}
}

// soon calls f from the loop's queue. It does so while the loop closes, too.
func soon(l *weir.Loop, f func()) { _ = l.NewNotifier(f).Notify() }

// Dial is a connect in progress. Its methods belong to the loop's goroutine.
type Dial struct {
	c      *conn
	to     netip.AddrPort
	onMade func(c *conn)
	onFail func(err error)
	over   bool
}

// Dial connects p to a peer. p gets ConnectionMade once the peer has answered, or, if
// it is a weir.ConnectFailer, ConnectFailed; never from inside.
func (e *Endpoint) Dial(to netip.AddrPort, p weir.Protocol) *Dial {
	fail := func(err error) {
		e.loop.TellConnectFailed(p, &weir.ConnectError{
			Network: "utp", Address: to.String(), Stage: weir.StageConnect,
			Attempts: []*weir.AttemptError{{Addr: Addr{to}, Stage: weir.StageConnect, Err: err}},
		})
	}
	return e.dial(to, &e.cfg, func(c *conn) {
		if err := c.begin(func(weir.Transport) weir.Protocol { return p }); err != nil {
			fail(c.fails("dial", err))
		}
	}, fail)
}

// Stop ends the connect: nothing is called back. It reports false if it was over.
func (d *Dial) Stop() bool {
	if d.over {
		return false
	}
	d.over = true
	if d.c != nil {
		d.c.sendReset()
		d.c.remove()
	}
	return true
}

func (d *Dial) made(c *conn) {
	made := d.onMade
	d.over, d.onMade, d.onFail, d.c = true, nil, nil, nil
	made(c)
}

func (d *Dial) failed(err error) {
	if d.over {
		return
	}
	fail := d.onFail
	d.over, d.onMade, d.onFail, d.c = true, nil, nil, nil
	fail(err)
}

// ErrTooMany is the error of a connect that would have exceeded
// Config.Connections.
var ErrTooMany = errors.New("utp: the endpoint has as many connections as Config.Connections allows")

func (e *Endpoint) dial(to netip.AddrPort, cfg *Config, made func(*conn), failed func(error)) *Dial {
	to = netip.AddrPortFrom(zone.Named(to.Addr().Unmap()), to.Port())
	d := &Dial{to: to, onMade: made, onFail: failed}
	var err error
	switch {
	case e.loopCloses:
		err = weir.ErrLoopClosed
	case e.lost || e.closing:
		err = weir.ErrClosed
	case e.busy() >= e.cfg.Connections:
		err = ErrTooMany
	}
	id, free := uint16(0), false
	for range 64 {
		id = e.draw()
		if e.conns[key{to, id}] == nil && e.conns[key{to, id + 1}] == nil && e.conns[key{to, id - 1}] == nil {
			free = true
			break
		}
	}
	if err == nil && !free {
		err = ErrTooMany
	}
	if err != nil {
		soon(e.loop, func() { d.failed(err) })
		return d
	}
	c := &conn{ep: e, cfg: cfg, peer: to, recvID: id, sendID: id + 1, phase: synSent, dial: d, timed: never}
	c.ackAt, c.keepAt, c.halfAt = never, never, never
	c.begun = e.now()
	c.synSeq = seq(e.draw())
	c.initSender(c.synSeq + 1)
	d.c = c
	e.add(c)
	e.dials++
	if err := c.sendSyn(c.begun); err != nil && !errors.Is(err, weir.ErrSendBufferFull) && !errors.Is(err, syscall.ENOBUFS) {
		soon(e.loop, func() {
			if c.phase == synSent {
				c.refuse(underlying(err))
			}
		})
	}
	c.arm()
	return d
}

// PacketFailed tells the connections with to that a packet could not be delivered.
func (e *Endpoint) PacketFailed(err error, to weir.PacketAddr) {
	for i := len(e.all) - 1; i >= 0; i-- {
		if i < len(e.all) && e.all[i].peer == to.IP {
			e.all[i].icmp(err)
		}
	}
}

// PauseWriting stops sending until the datagram endpoint has room.
func (e *Endpoint) PauseWriting() { e.paused = true }

// ResumeWriting goes on with sending.
func (e *Endpoint) ResumeWriting() {
	e.paused = false
	if !e.waits {
		return
	}
	e.waits = false
	now := e.now()
	n := len(e.all)
	for i := range n {
		if len(e.all) == 0 {
			return
		}
		at := (e.next + i) % len(e.all)
		c := e.all[at]
		if c.phase != open {
			continue
		}
		c.pump(now)
		c.arm()
		if e.paused {
			e.next, e.waits = at, true
			return
		}
	}
}

// Close stops accepting connections and closes the datagram endpoint once the last has ended.
func (e *Endpoint) Close() {
	e.closing = true
	e.checkClosed()
}

// Abort ends every connection, with a reset, and closes the datagrams.
func (e *Endpoint) Abort() {
	e.closing = true
	e.endAll(weir.ErrAborted, true)
	e.checkClosed()
}

func (e *Endpoint) checkClosed() {
	if e.passing && len(e.all) == 0 {
		e.closing = true
	}
	if e.closing && !e.lost && len(e.all) == 0 && e.pe != nil {
		_ = e.pe.Close() // it returns nil
	}
}

// endAll ends every connection.
func (e *Endpoint) endAll(err error, tell bool) {
	for len(e.all) > 0 {
		c := e.all[len(e.all)-1]
		if tell && (c.phase == open || c.phase == synSent) {
			c.sendReset()
		}
		switch c.phase {
		case synSent:
			c.refuse(err)
		case open:
			c.finish(err)
		default:
			c.remove()
		}
	}
}

// EndpointLost implements weir.PacketProtocol: connections on it are lost too.
func (e *Endpoint) EndpointLost(err error) {
	e.lost = true
	if err == nil {
		err = weir.ErrClosed
	}
	e.reason = err
	e.endAll(err, false)
	if e.listener != nil {
		e.listener.closed = true
		e.listener.refusals.end(e.listener)
		e.listener.checkDone()
	}
}
