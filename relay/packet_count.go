package relay

import (
	"errors"
	"syscall"
	"time"

	"github.com/weir-io/weir"
)

// PacketCount counts datagrams by Side: those that A's peers sent, and those that B, the
// target, answered. Of each side's
//
//	Received = Packets + Lost.Sum()
//
// once no flow has datagrams that wait for a name: those have been received only. A
// datagram that fails after the system took it moves from Packets to Lost when the network
// or the system says so, also after its flow has ended: then in Packets.Total alone.
type PacketCount struct {
	Received [2]int64
	Packets  [2]int64 // passed on
	Bytes    [2]int64 // of those; for one that fails later, the mean is taken off: no one says its length
	Lost     [2]PacketLoss
	Took     time.Duration
}

// PacketLoss counts the datagrams of a side that did not get to the other one, as far as
// the relay knows, by the reason.
type PacketLoss struct {
	NoFlow   int64 // their peer is new, and there was no descriptor for its flow
	NoRoom   int64 // too many wait: to be sent, for a name, or for a proxy
	NoTarget int64 // no address of the target is known
	Refused  int64 // by the network (ICMP), or there is no way to the address
	TooLong  int64 // for a link on the way, or for the endpoint
	Ended    int64 // their flow ended before they were sent
	Unread   int64 // came faster than they were taken: the system dropped them, for a full receive buffer
	Failed   int64 // all else
}

// Sum is how many there are in all.
func (l PacketLoss) Sum() int64 {
	return l.NoFlow + l.NoRoom + l.NoTarget + l.Refused + l.TooLong + l.Ended + l.Unread + l.Failed
}

// reason is where a PacketLoss counts one of its reasons.
type reason func(*PacketLoss) *int64

// The reasons.
func noFlow(l *PacketLoss) *int64   { return &l.NoFlow }
func noRoom(l *PacketLoss) *int64   { return &l.NoRoom }
func noTarget(l *PacketLoss) *int64 { return &l.NoTarget }
func refused(l *PacketLoss) *int64  { return &l.Refused }
func tooLong(l *PacketLoss) *int64  { return &l.TooLong }
func ended(l *PacketLoss) *int64    { return &l.Ended }
func unread(l *PacketLoss) *int64   { return &l.Unread }
func failed(l *PacketLoss) *int64   { return &l.Failed }

// reasonOf is the reason that an error stands for.
func reasonOf(err error) reason {
	switch {
	case errors.Is(err, weir.ErrSendBufferFull) || isAny(err, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN):
		return noRoom
	case errors.Is(err, syscall.EMSGSIZE):
		return tooLong
	case addressFails(err):
		return refused
	case errors.Is(err, weir.ErrClosed):
		return ended
	}
	return failed
}

// Add adds what another one has counted.
func (l *PacketLoss) Add(o PacketLoss) {
	l.NoFlow += o.NoFlow
	l.NoRoom += o.NoRoom
	l.NoTarget += o.NoTarget
	l.Refused += o.Refused
	l.TooLong += o.TooLong
	l.Ended += o.Ended
	l.Unread += o.Unread
	l.Failed += o.Failed
}

// Dropped is how many datagrams were lost, of both sides.
func (c PacketCount) Dropped() int64 { return c.Lost[A].Sum() + c.Lost[B].Sum() }

// Add adds what another one has counted, but for Took.
func (c *PacketCount) Add(o PacketCount) {
	for s := range c.Packets {
		c.Received[s] += o.Received[s]
		c.Packets[s] += o.Packets[s]
		c.Bytes[s] += o.Bytes[s]
		c.Lost[s].Add(o.Lost[s])
	}
}

// tally is a PacketCount as a flow keeps it: most flows lose nothing.
type tally struct {
	received, packets, bytes [2]int64
	losses                   *[2]PacketLoss // nil: none
}

// lost is where the losses of a side are counted.
func (t *tally) lost(s Side) *PacketLoss {
	if t.losses == nil {
		t.losses = new([2]PacketLoss)
	}
	return &t.losses[s]
}

func (t *tally) count() PacketCount {
	c := PacketCount{Received: t.received, Packets: t.packets, Bytes: t.bytes}
	if t.losses != nil {
		c.Lost = *t.losses
	}
	return c
}

func (t *tally) add(o *tally) {
	for s := range t.packets {
		t.received[s] += o.received[s]
		t.packets[s] += o.packets[s]
		t.bytes[s] += o.bytes[s]
		if o.losses != nil {
			t.lost(Side(s)).Add(o.losses[s])
		}
	}
}

// recall takes back that a datagram was passed on. It reports false if none was: a
// layer had made two of one, or the network has refused one twice.
func (t *tally) recall(s Side) bool {
	if t.packets[s] == 0 {
		return false
	}
	t.bytes[s] -= t.bytes[s] / t.packets[s]
	t.packets[s]--
	return true
}

// lose counts datagrams of a side as lost, in t, and has Dropped hear of them. It calls no one.
func (p *Packets) lose(t *tally, s Side, why reason, n int) {
	*why(t.lost(s)) += int64(n)
	if p.config.Dropped == nil || p.closed {
		return
	}
	*why(&p.dropping[s]) += int64(n)
	if !p.period.Running() {
		p.period.Set(0)
	}
}

// beUnread counts datagrams that a side sent and the system dropped, and has Full hear of them.
func (p *Packets) beUnread(t *tally, s Side, n int) {
	t.received[s] += int64(n)
	*unread(t.lost(s)) += int64(n)
	p.short.Unread += int64(n)
	p.soon()
}

// noFlow counts a datagram of a new peer for which there was no flow, and has Full hear of it.
func (p *Packets) noFlow(t *tally, err error) {
	*noFlow(t.lost(A))++
	p.short.Refused++
	p.beShort(err)
}

// recallIn counts a datagram as lost that was passed on, if t has one.
func (p *Packets) recallIn(t *tally, s Side, err error) bool {
	if !t.recall(s) {
		return false
	}
	p.lose(t, s, reasonOf(err), 1)
	return true
}
