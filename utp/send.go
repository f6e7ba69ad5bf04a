package utp

import (
	"errors"
	"syscall"
	"time"
)

const (
	// packetsMax is how many packets may be in flight or wait to be sent, and how far
	// ahead of a missing one packets are kept.
	packetsMax = 1024
	// unsentMax is how many bytes a connection accepts beyond its window.
	unsentMax = 64 << 10
	// rtoFirst, rtoMin and rtoMax bound the time after which a packet counts as lost.
	rtoFirst = time.Second
	rtoMin   = 500 * time.Millisecond // BEP 29
	rtoMax   = 60 * time.Second       // RFC 6298, section 2.5
	// lostAfter is how many later packets must have arrived before one counts as lost.
	lostAfter = 3
	// refusedTries is how many timeouts end a connection whose packets are refused.
	refusedTries = 3
	// idleAfter is the silence after which the window begins again.
	idleAfter = 10 * time.Second

	// mtuLeast4 and mtuLeast6 are the bytes of a datagram that every path carries, mtuMost4
	// and mtuMost6 those that Ethernet does.
	mtuLeast4, mtuMost4 = 576 - 28, 1500 - 28
	mtuLeast6, mtuMost6 = 1280 - 48, 1500 - 48
	// mtuNear ends the search for the path's MTU.
	mtuNear = 16
	// mtuAgain is how long after its end it begins again.
	mtuAgain = 10 * time.Minute
)

// outPacket is a packet that is in flight or waits to be sent.
type outPacket struct {
	data   []byte // memory of the endpoint's pool
	kind   kind
	acked  bool // the peer has it, and packets before it are missing
	lost   bool // it is to be sent again
	probe  bool // it carries padding that probes the MTU
	sends  int
	sentAt time.Duration
	serial uint64 // which transmission of the connection it was last
}

// sender is the sending direction of a connection.
//
//	 una          nxt         end
//	  │ in flight  │ waiting   │
//	──┴────────────┴───────────┴──▶ seq
type sender struct {
	out           []outPacket // a ring of a power of two, by seq
	una, nxt, end seq
	synSeq        seq // of the SYN that began the connection
	first         seq // of our first packet after it, as an acceptor
	synAt         time.Duration
	synTries      int

	inflight int // bytes
	queued   int // bytes in flight and waiting
	lostN    int // packets that are to be sent again
	window   int // the peer's
	serial   uint64
	full     bool // Write took less than all
	fin      bool // a FIN is queued
	finSeq   seq
	recover  seq // losses before it have halved the window
	dups     int

	congestion  ledbat
	srtt, rvar  time.Duration
	backoff     int
	rtoAt       time.Duration
	probeAt     time.Duration // of a window that is shut
	probes      int
	progress    time.Duration // when something was last acknowledged, or an answer told of a shut window
	lastSend    time.Duration
	mss         int // bytes of data in a packet
	mtuFloor    int // bytes of a datagram that arrived
	mtuCeil     int // that may arrive
	mtuProbing  bool
	mtuNext     time.Duration
	sackScratch [sackMax]byte
}

func (c *conn) initSender(s seq) {
	c.una, c.nxt, c.end = s, s, s
	c.rtoAt, c.probeAt = never, never
	c.window = 1 << 16
	c.mtuFloor, c.mtuCeil = mtuLeast4, mtuMost4
	if !c.peer.Addr().Unmap().Is4() {
		c.mtuFloor, c.mtuCeil = mtuLeast6, mtuMost6
	}
	if m := c.cfg.MaxPacket; m > 0 {
		c.mtuCeil = m
		c.mtuFloor = min(c.mtuFloor, m)
	}
	c.mss = c.mtuFloor - headerSize
	c.congestion.init(c.mss, c.cfg.SendWindow)
	c.recover = s - 1
}

func (c *conn) slot(s seq) *outPacket { return &c.out[int(s)&(len(c.out)-1)] }

// grow makes room for one more packet.
func (c *conn) grow() {
	n := int(uint16(c.end - c.una))
	if n < len(c.out) {
		return
	}
	out := make([]outPacket, max(16, 2*len(c.out)))
	for s := c.una; s != c.end; s++ {
		out[int(s)&(len(out)-1)] = *c.slot(s)
	}
	c.out = out
}

// queue copies bytes into packets and returns how many it took.
func (c *conn) queue(bufs [][]byte) (n int) {
	for _, p := range bufs {
		for len(p) > 0 {
			room := int(c.congestion.window) + unsentMax - c.queued
			if room <= 0 {
				c.full = true
				return n
			}
			var q *outPacket
			if c.end != c.nxt {
				q = c.slot(c.end - 1)
			}
			if q == nil || q.kind != kindData || len(q.data) >= c.mss {
				if int(uint16(c.end-c.una)) >= packetsMax-1 || c.queued >= c.ep.free() && c.end != c.una {
					c.full = true
					return n
				}
				c.grow()
				q = c.slot(c.end)
				*q = outPacket{kind: kindData, data: c.ep.take(c.mtuTop())}
				c.end++
			}
			k := min(c.mss-len(q.data), len(p), cap(q.data)-len(q.data))
			q.data = append(q.data, p[:k]...)
			p = p[k:]
			n += k
			c.queued += k
		}
	}
	return n
}

// queueFin queues the end of the stream.
func (c *conn) queueFin() {
	if c.fin {
		return
	}
	c.fin = true
	c.grow()
	*c.slot(c.end) = outPacket{kind: kindFin}
	c.finSeq = c.end
	c.end++
}

// dropOut gives back what is queued.
func (c *conn) dropOut() {
	for s := c.una; s != c.end && len(c.out) > 0; s++ {
		if q := c.slot(s); q.data != nil {
			c.ep.give(q.data)
			q.data = nil
		}
	}
	c.out = nil
}

// pump sends what may be sent: what was lost, then what waits.
func (c *conn) pump(now time.Duration) {
	if c.ep.paused {
		c.ep.waits = true
		return
	}
	for s := c.una; c.lostN > 0 && s != c.nxt; s++ {
		q := c.slot(s)
		if !q.lost {
			continue
		}
		if c.inflight > 0 && c.inflight+len(q.data) > int(c.congestion.window) {
			return
		}
		c.lostN--
		q.lost = false
		c.transmit(s, q, now)
		if c.ep.paused {
			c.ep.waits = true // ResumeWriting goes on
			return
		}
	}
	if c.nxt != c.end && c.inflight == 0 && c.lastSend > 0 && now-c.lastSend > idleAfter {
		c.congestion.idle(c.mss)
	}
	for c.nxt != c.end {
		q := c.slot(c.nxt)
		if !c.maySend(q) {
			break
		}
		c.transmit(c.nxt, q, now)
		c.nxt++
		if c.ep.paused {
			c.ep.waits = true
			break
		}
	}
	// A window that is shut opens by an acknowledgement that can be lost.
	if c.nxt != c.end && c.inflight == 0 && c.lostN == 0 && !c.ep.paused {
		if c.probeAt == never {
			c.probeAt = now + c.probePause()
		}
	} else {
		c.probeAt, c.probes = never, 0
	}
}

// maySend reports whether a packet that waits may be sent.
func (c *conn) maySend(q *outPacket) bool {
	n := len(q.data)
	if q.kind == kindFin {
		return true
	}
	if c.inflight+n > c.window {
		return false
	}
	if c.inflight > 0 && c.inflight+n > int(c.congestion.window) {
		return false
	}
	if c.cfg.Nagle && n < c.mss && c.inflight > 0 && c.nxt+1 == c.end {
		return false
	}
	return true
}

// transmit sends a packet, for the first time or again.
func (c *conn) transmit(s seq, q *outPacket, now time.Duration) {
	pad := 0
	if q.sends == 0 && !c.mtuProbing && now >= c.mtuNext && q.kind == kindData && len(q.data) == c.mss {
		if c.mtuCeil-c.mtuFloor >= mtuNear {
			pad = (c.mtuFloor+c.mtuCeil+1)/2 - headerSize - len(q.data)
			if pad < 2 {
				pad = 0
			}
			c.mtuProbing, q.probe = pad > 0, pad > 0
		}
	}
	c.serial++
	q.serial, q.sentAt = c.serial, now
	q.sends++
	c.inflight += len(q.data)
	c.lastSend = now
	if c.una == s && q.sends == 1 {
		c.progress = now
	}
	if c.rtoAt == never {
		c.rtoAt = now + c.rto()
	}
	err := c.send(&packet{kind: q.kind, id: c.sendID, seq: s, data: q.data}, pad)
	if err != nil && q.probe && errors.Is(err, syscall.EMSGSIZE) {
		c.lose(q)
	}
}

// send builds a packet and sends it. An error is as good as a loss.
func (c *conn) send(p *packet, pad int) error {
	p.ack = c.ackNr
	p.window = uint32(c.room())
	if p.kind != kindReset {
		c.ackAt, c.unacked = never, 0
		c.told = int(p.window)
	}
	return c.ep.send(p, pad, c.peer, &c.local, c.replyDiff)
}

func (c *conn) sendState() {
	_ = c.send(&packet{kind: kindState, id: c.sendID, seq: c.nxt, sack: c.sacks(c.sackScratch[:0])}, 0)
}

func (c *conn) sendReset() {
	_ = c.send(&packet{kind: kindReset, id: c.sendID, seq: c.nxt}, 0)
}

func (c *conn) sendSyn(now time.Duration) error {
	c.synAt = now
	c.synTries++
	c.rtoAt = now + min(c.patience(c.rto()), max(c.begun+c.cfg.ConnectTimeout-now, 0))
	return c.send(&packet{kind: kindSyn, id: c.recvID, seq: c.synSeq}, 0)
}

func (c *conn) sendSynAck() {
	_ = c.ep.send(&packet{kind: kindState, id: c.sendID, seq: c.first, ack: c.synSeq, window: uint32(c.room())}, 0, c.peer, &c.local, c.replyDiff)
}

// rto is the time after which a packet sent now counts as lost (RFC 6298).
func (c *conn) rto() time.Duration {
	d := rtoFirst
	if c.srtt > 0 {
		d = max(c.srtt+4*c.rvar, rtoMin)
	}
	return min(d<<min(c.backoff, 10), rtoMax)
}

// roundTrip notes a round trip (RFC 6298, section 2).
func (c *conn) roundTrip(d time.Duration) {
	d = max(d, time.Microsecond)
	if c.srtt == 0 {
		c.srtt, c.rvar = d, d/2
		return
	}
	c.rvar += ((c.srtt - d).Abs() - c.rvar) / 4
	c.srtt += (d - c.srtt) / 8
}

// ackIn handles what a packet acknowledges.
func (c *conn) ackIn(p *packet, now time.Duration) {
	n := uint16(p.ack - (c.una - 1))
	if n > uint16(c.nxt-c.una) {
		return // it is old
	}
	told := c.window
	c.window = int(min(p.window, 1<<30))
	if c.shut() {
		c.progress = now // it answers: a window that is shut is no silence
	}
	before := c.inflight
	bytes, rtt := 0, time.Duration(0)
	if n > 0 {
		c.dups = 0
		for ; c.una != p.ack+1; c.una++ {
			q := c.slot(c.una)
			if !q.acked {
				bytes += c.arrived(q, now, &rtt)
			}
			c.queued -= len(q.data)
			if q.data != nil {
				c.ep.give(q.data)
			}
			*q = outPacket{}
		}
	} else if p.kind == kindState && c.una != c.nxt && c.window == told && len(p.sack) == 0 {
		if c.dups++; c.dups == lostAfter {
			if q := c.slot(c.una); !q.acked && !q.lost {
				c.missing(c.una, q)
			}
		}
	}
	if len(p.sack) > 0 && c.una != c.nxt {
		bytes += c.sackIn(p, now, &rtt)
	}
	full := before+2*c.mss >= int(c.congestion.window)
	c.congestion.acked(bytes, c.mss, p.delay, rtt, now, full)
	if n > 0 || bytes > 0 {
		c.progress, c.backoff = now, 0
		c.rtoAt = never
		if c.una != c.nxt {
			c.rtoAt = now + c.rto()
		}
		if c.fin && c.una == c.end {
			c.halfAt = now + c.cfg.HalfClose
		}
	}
	if c.full && !c.fin && c.queued < int(c.congestion.window)+unsentMax/2 && int(uint16(c.end-c.una)) < packetsMax/2 && (c.queued < c.ep.free() || c.una == c.end) {
		c.full = false
		c.feed.Writable()
	}
}

// arrived notes that a packet has reached the peer and returns its bytes.
func (c *conn) arrived(q *outPacket, now time.Duration, rtt *time.Duration) int {
	if q.lost {
		q.lost = false
		c.lostN--
	} else {
		c.inflight -= len(q.data)
	}
	if q.sends == 1 { // Karn: of one that was sent again nothing is known
		d := max(now-q.sentAt, time.Microsecond)
		c.roundTrip(d)
		if *rtt == 0 || d < *rtt {
			*rtt = d
		}
	}
	if q.probe {
		q.probe, c.mtuProbing = false, false
		c.mtuFloor = max(c.mtuFloor, min((c.mtuFloor+c.mtuCeil+1)/2, c.mtuCeil))
		c.mss = c.mtuFloor - headerSize
		c.searched(now)
	}
	return len(q.data)
}

// searched ends the search for the MTU if it has come near enough.
func (c *conn) searched(now time.Duration) {
	if c.mtuCeil-c.mtuFloor < mtuNear {
		c.mtuNext = now + mtuAgain
		c.mtuCeil = c.mtuTop()
	}
}

func (c *conn) mtuTop() int {
	switch m := c.cfg.MaxPacket; {
	case m > 0:
		return m
	case c.peer.Addr().Unmap().Is4():
		return mtuMost4
	default:
		return mtuMost6
	}
}

// sackIn handles a selective acknowledgement and returns the bytes that are new in it.
func (c *conn) sackIn(p *packet, now time.Duration, rtt *time.Duration) (bytes int) {
	count := int(uint16(c.nxt - c.una))
	fresh := false
	for i := range 8 * len(p.sack) {
		if p.sack[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		s := p.ack + 2 + seq(i)
		if int(uint16(s-c.una)) >= count {
			continue // never sent, or acknowledged already
		}
		if q := c.slot(s); !q.acked {
			bytes += c.arrived(q, now, rtt)
			q.acked = true
			fresh = true
		}
	}
	if fresh {
		c.findLost()
	}
	return bytes
}

// findLost finds the packets of which at least lostAfter that were sent later have
// arrived.
func (c *conn) findLost() {
	var top [lostAfter]uint64 // the latest transmissions that arrived, the largest first
	for s := c.nxt - 1; s != c.una-1; s-- {
		q := c.slot(s)
		switch {
		case q.acked:
			for i, v := 0, q.serial; i < len(top); i++ {
				if v > top[i] {
					v, top[i] = top[i], v
				}
			}
		case !q.lost && q.serial < top[lostAfter-1]:
			c.missing(s, q)
		}
	}
}

// missing marks a packet to be sent again, and makes the window smaller, once for all that was
// in flight then.
func (c *conn) missing(s seq, q *outPacket) {
	probe := q.probe
	c.lose(q)
	if !probe && !c.recover.after(s) && c.recover != s {
		c.recover = c.nxt - 1
		c.congestion.lost(c.mss)
	}
}

// lose marks a packet that is to be sent again.
func (c *conn) lose(q *outPacket) {
	q.lost = true
	c.lostN++
	c.inflight -= len(q.data)
	if q.probe {
		c.mtuCeil = (c.mtuFloor+c.mtuCeil+1)/2 - 1
		q.probe, c.mtuProbing = false, false
		c.searched(c.ep.now())
	}
}

// tooBig handles the network's report that a datagram was too large.
func (c *conn) tooBig() {
	for s := c.una; s != c.nxt; s++ {
		if q := c.slot(s); q.probe && !q.acked && !q.lost {
			c.lose(q)
		}
	}
	if c.phase == open {
		c.pump(c.ep.now())
		c.arm()
	}
}

// timeout handles packets that were not acknowledged in time. It reports false if the
// connection ended.
func (c *conn) timeout(now time.Duration) bool {
	if now-c.progress >= c.cfg.Timeout || c.refused != nil && c.backoff >= refusedTries {
		if c.onlyEndLeft() {
			c.finish(nil)
		} else {
			c.finish(c.fails("write", c.silence()))
		}
		return false
	}
	for s := c.una; s != c.nxt; s++ {
		if q := c.slot(s); !q.acked && !q.lost {
			c.lose(q)
		}
	}
	c.backoff++
	c.dups = 0
	c.recover = c.nxt - 1
	if c.window > 0 {
		c.congestion.timedOut(c.mss)
	}
	c.rtoAt = now + min(c.patience(c.rto()), max(c.progress+c.cfg.Timeout-now, time.Millisecond))
	c.pump(now)
	return c.phase == open
}

// probePause is how long a window that is shut is left alone.
func (c *conn) probePause() time.Duration {
	d := max(c.srtt+4*c.rvar, rtoMin)
	return c.patience(min(d<<min(c.probes, 10), rtoMax))
}

// shut reports whether the peer has no room for the next packet.
func (c *conn) shut() bool {
	return c.una != c.end && c.window < len(c.slot(c.una).data)
}

// patience is d, or less where the peer's window is shut: its answers to several probes
// may be lost before it counts as silent.
func (c *conn) patience(d time.Duration) time.Duration {
	if c.shut() {
		return min(d, c.cfg.Timeout/4)
	}
	return d
}

// probe sends one packet into a window that is shut.
func (c *conn) probe(now time.Duration) {
	c.probeAt = never
	if c.nxt == c.end || c.inflight > 0 || c.ep.paused {
		return
	}
	probes := c.probes + 1
	c.transmit(c.nxt, c.slot(c.nxt), now)
	c.nxt++
	c.probes = probes
}
