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

// of is the reason that an error stands for.
func (l *PacketLoss) of(err error) *int64 {
	switch {
	case errors.Is(err, weir.ErrSendBufferFull) || isAny(err, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN):
		return &l.NoRoom
	case errors.Is(err, syscall.EMSGSIZE):
		return &l.TooLong
	case addressFails(err):
		return &l.Refused
	case errors.Is(err, weir.ErrClosed):
		return &l.Ended
	}
	return &l.Failed
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

// unread counts datagrams that a side sent and the system dropped.
func (t *tally) unread(s Side, n int64) {
	t.received[s] += n
	t.lost(s).Unread += n
}

// recall counts a datagram that was passed on as lost. It reports false if none was: a
// layer had made two of one, or the network has refused one twice.
func (t *tally) recall(s Side, err error) bool {
	if t.packets[s] == 0 {
		return false
	}
	t.bytes[s] -= t.bytes[s] / t.packets[s]
	t.packets[s]--
	*t.lost(s).of(err)++
	return true
}
