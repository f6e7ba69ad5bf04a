package utp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/timeout"
)

// phase is how far a connection has come. Only become changes it, and never backwards.
//
//	synSent ──────┐
//	              ├──▶ open ──▶ lingering ──▶ gone
//	synReceived ──┘      └──────────────────▶
type phase uint8

const (
	synSent     phase = iota // a SYN is on its way, and answers are awaited
	synReceived              // a SYN was answered; nothing has shown that its sender is where it says
	open                     // a transport stands on it
	lingering                // the transport is lost; acknowledgements that were lost are repeated
	gone
)

// never is a deadline that is not set.
const never = time.Duration(1<<63 - 1)

// conn is one connection: the weir.Carrier of its transport.
type conn struct {
	ep     *Endpoint
	cfg    *Config // the endpoint's, or its own
	peer   netip.AddrPort
	local  weir.PacketInfo // where its packets leave from, if the endpoint has several addresses
	recvID uint16          // of what comes
	sendID uint16          // of what leaves
	phase  phase
	was    phase // the one before
	at     int   // in the endpoint's list
	feed   *weir.Feed
	dial   *Dial     // while it connects
	ln     *Listener // whose it is; nil: it was dialed
	timer  *weir.Timer
	timed  time.Duration // what the timer is set to

	sender
	receiver

	heard     time.Duration // when a packet last came
	begun     time.Duration
	refused   error         // what ICMP has said since
	ackAt     time.Duration // when an acknowledgement that waits must leave
	keepAt    time.Duration
	keepTries int
	halfAt    time.Duration // until when the peer may stay silent after our end
	goneAt    time.Duration // lingering: until when
	replyDiff uint32        // the delay of the last packet that came, for the peer

	closing bool // Close(false) was called
	resets  bool // Reset was
	ended   bool // Feed.End was called
}

var (
	_ weir.Carrier  = (*conn)(nil)
	_ weir.Unsender = (*conn)(nil)
	_ weir.Resetter = (*conn)(nil)
)

func (c *conn) become(p phase) bool {
	if p <= c.phase {
		return false
	}
	if c.phase == synSent {
		c.ep.dials--
	}
	c.was, c.phase = c.phase, p
	return true
}

// LocalAddr is the endpoint's, with the address that the peer knows where the endpoint
// has several.
func (c *conn) LocalAddr() net.Addr {
	a := c.ep.local()
	if c.local.Local.IsValid() {
		a = netip.AddrPortFrom(c.local.Local, a.Port())
	}
	return Addr{a}
}

// RemoteAddr is the peer's.
func (c *conn) RemoteAddr() net.Addr { return Addr{c.peer} }

// fails makes the error of a connection that fails.
func (c *conn) fails(op string, err error) error {
	return &net.OpError{Op: op, Net: "utp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// ErrSilent is the reason when a connection is lost because the peer sent nothing for
// Config.HalfClose after our own end had reached it. It is a timeout.
var ErrSilent error = timeout.New("the peer neither sent anything nor ended its direction after ours had ended")

// begin makes the transport and its protocol. If there can be no transport, for example
// because the tenant has as many connections as it may, the peer gets a reset, and f is not
// called.
func (c *conn) begin(f weir.Factory) error {
	c.become(open)
	now := c.ep.now()
	c.keepAt = now + c.keepAlive()
	feed, err := c.ep.loop.Carry(c, c.cfg.Options...)
	if err != nil {
		c.sendReset()
		c.remove()
		return err
	}
	c.feed = feed
	feed.Begin(f)
	if c.phase == open {
		c.arm()
	}
	return nil
}

// silence is the reason for giving up a peer that does not answer.
func (c *conn) silence() error {
	if c.refused != nil {
		return c.refused
	}
	return os.NewSyscallError("recvfrom", syscall.ETIMEDOUT)
}

// packetIn handles a packet that has the connection's address and id.
func (c *conn) packetIn(p *packet) {
	now := c.ep.now()
	if c.phase == synSent {
		c.answerToSyn(p, now)
		return
	}
	if p.kind == kindSyn {
		// Ours was lost, or the answer to it. It is given again for as long as the peer
		// cannot have anything newer.
		if c.ln != nil && p.seq == c.synSeq {
			c.sendSynAck()
		}
		return
	}
	if !c.plausible(p) {
		c.ep.counts.Implausible++
		return
	}
	since := now - c.heard
	c.heard, c.keepTries, c.refused = now, 0, nil
	c.keepAt = now + c.keepAlive()
	if p.kind == kindReset {
		if c.phase == synReceived {
			// It has seen our answer, so it is where it says, and had a connection. What
			// it sent before the reset was overtaken.
			c.ep.confirmed(c)
		}
		c.resetByPeer()
		return
	}
	c.replyDiff = c.ep.micros() - p.stamp
	if c.replyDiff == 0 {
		c.replyDiff = 1
	}
	c.congestion.heard(c.replyDiff, now)
	if c.phase == synReceived {
		c.ep.confirmed(c)
		if c.phase != open {
			return
		}
	}
	if c.phase == lingering {
		c.whileLingering(p, now, since)
		return
	}
	c.ackIn(p, now)
	if c.ln == nil && p.kind == kindState && p.ack == c.synSeq && p.seq == c.ackNr+1 && c.nxt == c.synSeq+1 {
		c.sendState() // it has not seen that we are where we said, and answers the SYN again
	}
	if c.phase == open && (p.kind == kindData || p.kind == kindFin) {
		c.dataIn(p, now)
	}
	if c.phase == open {
		c.pump(now)
	}
	if c.phase == open {
		c.maybeDone()
	}
	if c.phase == open {
		c.arm()
	}
}

// plausible reports whether a packet can be the peer's: what it acknowledges was sent,
// and not long ago (RFC 5961 has the same for TCP). Someone who cannot see our packets has to
// guess the id and this.
func (c *conn) plausible(p *packet) bool {
	back := uint16(c.nxt - 1 - p.ack)
	most := uint16(c.nxt-c.una) + 1 // one more: a keep-alive of others acknowledges one less
	if p.kind == kindReset {
		// It answers one of our packets with that packet's number, or says how far the
		// peer has read.
		return uint16(c.nxt-p.ack) <= most+1
	}
	if c.phase == synReceived {
		return back <= 1 // this shows that its address is genuine
	}
	// Others may come late.
	return back <= most+packetsMax
}

// answerToSyn handles what comes while a SYN is unanswered.
func (c *conn) answerToSyn(p *packet, now time.Duration) {
	if p.ack != c.synSeq {
		c.ep.counts.Implausible++
		return
	}
	switch p.kind {
	case kindData, kindFin, kindSyn, kinds: // no answers
	case kindReset:
		c.refuse(syscall.ECONNREFUSED)
	case kindState:
		c.heard = now
		c.local = c.ep.asked // it is the address that the peer knows
		c.ackNr = p.seq - 1
		c.una, c.nxt, c.end = c.synSeq+1, c.synSeq+1, c.synSeq+1
		c.window = int(min(p.window, 1<<30))
		c.replyDiff = max(c.ep.micros()-p.stamp, 1)
		if c.synTries == 1 {
			c.roundTrip(now - c.synAt)
		}
		c.backoff, c.rtoAt = 0, never
		c.progress = now
		d := c.dial
		c.dial = nil
		d.made(c)
		if c.phase == open && c.nxt == c.synSeq+1 {
			c.sendState() // it shows the peer that we are where we said
		}
	}
}

// refuse ends a connect that has failed.
func (c *conn) refuse(err error) {
	d := c.dial
	c.dial = nil
	c.remove()
	d.failed(c.fails("dial", err))
}

// resetByPeer handles a reset.
func (c *conn) resetByPeer() {
	switch {
	case c.phase == gone:
	case c.phase == lingering:
		c.remove()
	case c.onlyEndLeft():
		c.finish(nil)
	default:
		c.finish(c.fails("read", os.NewSyscallError("recvfrom", syscall.ECONNRESET)))
	}
}

// onlyEndLeft reports whether the peer has ended and has acknowledged everything but our
// own end. If it has gone then, the connection had a clean end: TCP would not tell either.
func (c *conn) onlyEndLeft() bool {
	return c.ended && c.closing && c.una+1 == c.end && c.finSeq == c.una
}

// whileLingering repeats what the peer has missed.
func (c *conn) whileLingering(p *packet, now, since time.Duration) {
	// Its timeouts double, and its next four tries come within 30 times the last.
	c.goneAt = max(c.goneAt, now+min(max(30*since, lingerLeast), lingerMost))
	switch p.kind {
	case kindState, kindReset, kindSyn, kinds: // nothing to acknowledge
	case kindData:
		if p.seq.after(c.ackNr) {
			c.sendReset()
			c.remove()
			return
		}
		c.sendState()
	case kindFin:
		if p.seq == c.ackNr+1 {
			c.ackNr++
		}
		c.sendState()
	}
}

func (c *conn) Write(bufs [][]byte) (int, error) {
	if c.phase != open {
		return 0, weir.ErrClosed
	}
	n := c.queue(bufs)
	c.pump(c.ep.now())
	if c.phase == open {
		c.arm()
	}
	return n, nil
}

func (c *conn) CanCloseWrite() bool { return true }

func (c *conn) CloseWrite() error {
	if c.phase != open {
		return weir.ErrClosed
	}
	c.queueFin()
	c.pump(c.ep.now())
	if c.phase == open {
		c.arm()
	}
	return nil
}

func (c *conn) PauseReading() { c.paused = true }

func (c *conn) ResumeReading() {
	c.paused = false
	if c.phase != open {
		return
	}
	c.drain()
	if c.phase == open {
		c.arm()
	}
}

func (c *conn) Close(abort bool) {
	switch {
	case c.phase >= lingering:
		return
	case abort:
		c.sendReset()
		c.finish(nil)
		return
	}
	c.closing = true
	c.queueFin()
	c.pump(c.ep.now())
	c.maybeDone()
	if c.phase == open {
		c.arm()
	}
}

func (c *conn) Unsent() int {
	if c.phase != open {
		return 0
	}
	return c.queued
}

func (c *conn) Reset() {
	if c.phase != open {
		return
	}
	c.resets = true
	c.maybeDone()
	if c.phase == open {
		c.arm()
	}
}

// maybeDone ends a connection that was to close when all has arrived.
func (c *conn) maybeDone() {
	switch {
	case c.una != c.end:
	case c.resets:
		c.sendReset()
		c.finish(nil)
	case c.closing:
		c.linger()
	}
}

// linger ends the transport; the peer may still ask again for what it has missed.
func (c *conn) linger() {
	if !c.become(lingering) {
		return
	}
	c.flushAck()
	c.release()
	c.goneAt = c.ep.now() + lingerLeast
	c.ep.lingers(c)
	c.arm()
	feed := c.feed
	c.feed = nil // and with it the protocol
	feed.Closed(nil)
}

// finish ends the connection and its transport.
func (c *conn) finish(err error) {
	if c.phase >= lingering {
		return
	}
	feed := c.feed
	c.feed = nil
	if err != nil && len(c.kept) > 0 {
		kept := c.kept
		c.kept = nil
		c.ep.bytes -= len(kept)
		c.remove()
		feed.Deliver(kept) // it keeps what is not wanted yet
	} else {
		c.remove()
	}
	if feed != nil {
		feed.Closed(err)
	}
}

// remove forgets the connection.
func (c *conn) remove() {
	if !c.become(gone) {
		return
	}
	c.release()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.ep.forget(c)
}

// release gives back its memory.
func (c *conn) release() {
	c.dropOut()
	c.dropIn()
}

// icmp handles what the network says of a datagram that was sent to the peer.
// A connect fails. An established connection does not: such a message is easily
// forged, and mostly about a moment (RFC 5927). The connection is lost with it
// if the peer stays silent, after a few timeouts rather than after Config.Timeout.
func (c *conn) icmp(err error) {
	switch {
	case errors.Is(err, syscall.EMSGSIZE):
		c.tooBig()
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
		// It did not leave: that is as good as lost.
	case c.phase == synSent:
		c.refuse(underlying(err))
	case c.phase == open && c.onlyEndLeft() && errors.Is(err, syscall.ECONNREFUSED):
		c.finish(nil)
	default:
		c.refused = underlying(err)
	}
}

// underlying is the error inside the OpError of the datagram.
func underlying(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// arm sets the timer to the earliest deadline. One that is set to an earlier moment
// is left alone: it fires, finds nothing due and is set again.
func (c *conn) arm() {
	at := never
	switch c.phase {
	case gone:
		return
	case lingering:
		at = c.goneAt
	case synSent, synReceived:
		at = c.rtoAt
	case open:
		at = min(c.ackAt, c.rtoAt, c.probeAt, c.keepAt)
		if c.fin && c.una == c.end && !c.ended {
			at = min(at, c.halfAt)
		}
	}
	if at == never || at >= c.timed && c.timed != never {
		return
	}
	if c.timer == nil {
		c.timer = c.ep.loop.NewTimer(c.due)
	}
	c.timed = at
	c.timer.Set(at - c.ep.now())
}

// due does what is due.
func (c *conn) due() {
	c.timed = never
	now := c.ep.now()
	switch c.phase {
	case gone:
	case lingering:
		if now >= c.goneAt {
			c.remove()
			return
		}
	case synSent:
		if now >= c.rtoAt {
			if now-c.begun >= c.cfg.ConnectTimeout {
				c.refuse(syscall.ETIMEDOUT)
				return
			}
			c.backoff++
			_ = c.sendSyn(now) // it is sent again
		}
	case synReceived:
		if now >= c.rtoAt {
			if c.backoff++; c.backoff > synAckTries {
				c.remove()
				return
			}
			c.sendSynAck()
			c.rtoAt = now + c.rto()
		}
	case open:
		c.dueOpen(now)
	}
	c.arm()
}

func (c *conn) dueOpen(now time.Duration) {
	if now >= c.rtoAt && !c.timeout(now) {
		return
	}
	if now >= c.probeAt {
		c.probe(now)
	}
	if c.phase == open && now >= c.keepAt && !c.keep(now) {
		return
	}
	if c.phase == open && c.fin && c.una == c.end && !c.ended && now >= c.halfAt {
		if c.blocked() {
			c.halfAt = now + c.cfg.HalfClose // it cannot send
			return
		}
		c.sendReset()
		c.finish(c.fails("read", ErrSilent))
		return
	}
	if c.phase == open && now >= c.ackAt {
		c.sendState()
	}
}

func (c *conn) keepAlive() time.Duration {
	if c.cfg.KeepAlive < 0 {
		return never / 2 // now is added to it
	}
	return c.cfg.KeepAlive
}

// keep probes a silent peer: a packet that it has already
// makes it answer. It reports false if the connection ended.
func (c *conn) keep(now time.Duration) bool {
	if c.una != c.nxt {
		c.keepAt = now + c.keepAlive() // what is in flight probes already
		return true
	}
	if c.keepTries++; c.keepTries > keepTries {
		c.finish(c.fails("read", c.silence()))
		return false
	}
	one := [1]byte{}
	_ = c.send(&packet{kind: kindData, id: c.sendID, seq: c.nxt - 1, data: one[:]}, 0)
	c.keepAt = now + keepPause
	return true
}
