package utp

import "time"

const (
	// ackDelay is how long an acknowledgement waits for something to travel with.
	ackDelay = 100 * time.Millisecond
	// ackEvery is how many packets are acknowledged at once.
	ackEvery = 2
	// keptAlways is how many bytes a connection may keep even if the endpoint has no
	// memory left.
	keptAlways = 4 * packetCap
)

// inPacket is a packet that came before one that is missing.
type inPacket struct {
	data []byte // memory of the endpoint's pool
	fin  bool
	here bool
}

// receiver is the receiving direction of a connection.
type receiver struct {
	ackNr   seq // everything up to it has come
	in      []inPacket
	early   int    // packets in it
	earlyN  int    // and their bytes
	kept    []byte // in order, for a reader that has paused
	paused  bool
	peerFin bool // the FIN has come, and all before it
	unacked int  // packets that are not acknowledged yet
	told    int  // the window that the peer was told last
}

// room is the window that the peer is told.
func (c *conn) room() int {
	return max(min(c.cfg.ReceiveWindow, max(c.ep.free(), keptAlways))-len(c.kept)-c.earlyN, 0)
}

// crowded reports whether it keeps as much as it may.
func (c *conn) crowded() bool {
	return len(c.kept)+c.earlyN >= min(c.cfg.ReceiveWindow, max(c.ep.free(), keptAlways))
}

// dataIn handles a packet that has bytes, or is the end.
func (c *conn) dataIn(p *packet, now time.Duration) {
	ahead := uint16(p.seq - c.ackNr)
	switch {
	case ahead == 0 || ahead > 1<<15 || c.peerFin:
		c.ackNow() // it has come already, and the acknowledgement was lost
		return
	case ahead > packetsMax:
		c.ep.counts.BeyondWindow++
		return
	case len(p.data) > 0 && (ahead > 1 || c.blocked()) && c.crowded():
		c.ep.counts.BeyondWindow++
		c.ackNow() // it ignores the window, or probes it
		return
	case ahead > 1:
		c.keepEarly(p)
		c.ackNow()
		return
	}
	c.ackNr++
	c.take(p.data, p.kind == kindFin)
	filled := c.early > 0
	for c.phase == open && c.early > 0 && !c.peerFin {
		q := &c.in[int(c.ackNr+1)&(packetsMax-1)]
		if !q.here {
			break
		}
		data, fin := q.data, q.fin
		*q = inPacket{}
		c.early--
		c.earlyN -= len(data)
		c.ackNr++
		c.take(data, fin)
		if data != nil {
			c.ep.give(data)
		}
	}
	if c.phase != open {
		return
	}
	if c.unacked++; c.unacked >= ackEvery || filled || c.peerFin {
		c.ackNow()
	} else if c.ackAt == never {
		c.ackAt = now + ackDelay
	}
}

// keepEarly keeps a packet that came before one that is missing.
func (c *conn) keepEarly(p *packet) {
	if len(c.kept)+c.early*packetCap >= c.ep.free() {
		c.ep.counts.BeyondWindow++
		return
	}
	if c.in == nil {
		c.in = make([]inPacket, packetsMax)
	}
	q := &c.in[int(p.seq)&(packetsMax-1)]
	if q.here {
		return
	}
	*q = inPacket{here: true, fin: p.kind == kindFin}
	if len(p.data) > 0 {
		q.data = append(c.ep.take(len(p.data)), p.data...)
	}
	c.early++
	c.earlyN += len(p.data)
}

// blocked reports whether the reader takes nothing.
func (c *conn) blocked() bool { return c.paused || c.feed.Paused() || len(c.kept) > 0 }

// take hands over bytes that are next in order.
func (c *conn) take(p []byte, fin bool) {
	if len(p) > 0 {
		c.halfAt = c.ep.now() + c.cfg.HalfClose
		if c.blocked() {
			c.keepBytes(p)
		} else {
			c.feed.Deliver(p)
		}
	}
	if fin {
		c.peerFin = true
		c.dropIn()
	}
	c.endIfDue()
}

func (c *conn) keepBytes(p []byte) {
	c.ep.bytes += len(p)
	c.kept = append(c.kept, p...)
}

// endIfDue reports the end once everything before it was handed over.
func (c *conn) endIfDue() {
	if c.phase == open && c.peerFin && !c.ended && len(c.kept) == 0 {
		c.ended = true
		c.feed.End(nil)
	}
}

// drain hands over what was kept, and tells the peer of the room.
func (c *conn) drain() {
	if len(c.kept) > 0 && !c.feed.Paused() {
		kept := c.kept
		c.kept = nil
		c.ep.bytes -= len(kept)
		c.feed.Deliver(kept) // it keeps what the protocol leaves
	}
	c.endIfDue()
	if c.phase == open && c.told < c.cfg.ReceiveWindow/2 && c.room() > c.told {
		c.sendState()
	}
}

// dropIn forgets the packets that are early.
func (c *conn) dropIn() {
	for i := range c.in {
		if d := c.in[i].data; d != nil {
			c.ep.give(d)
		}
	}
	c.in, c.early, c.earlyN = nil, 0, 0
	if c.phase >= lingering {
		c.ep.bytes -= len(c.kept)
		c.kept = nil
	}
}

func (c *conn) ackNow() { c.sendState() }

// flushAck sends an acknowledgement that waits.
func (c *conn) flushAck() {
	if c.ackAt != never {
		c.sendState()
	}
}

// sacks appends the selective acknowledgement of what came early.
func (c *conn) sacks(b []byte) []byte {
	if c.early == 0 {
		return nil
	}
	left := c.early
	for i := 0; left > 0 && i < 8*sackMax; i++ {
		if i%32 == 0 {
			b = append(b, 0, 0, 0, 0)
		}
		if c.in[int(c.ackNr+2+seq(i))&(packetsMax-1)].here {
			b[i/8] |= 1 << (i % 8)
			left--
		}
	}
	return b
}
