package stream

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/task"
)

// Packets is an endpoint for datagrams as coroutines use it. Reads belong to
// the task that makes them, one at a time; everything else to the loop's
// goroutine.
type Packets struct {
	e      *weir.PacketEndpoint
	kept   []packet // datagrams that no one has read yet
	bytes  int      // their size, plus packetCost for each
	holds  bool     // we have paused reading
	closed bool
	lost   bool
	reason error

	reader *task.Task
	dst    []byte // the reader's
	got    packet // what the reader gets: the data is in dst
	n      int

	blocked bool
	room    task.Event
	gone    task.Event
}

// packet is a datagram, or a failure that came between two.
type packet struct {
	data []byte
	from weir.PacketAddr
	err  error
}

// packetCost is what a kept datagram counts in addition to its bytes.
const packetCost = 64

// PacketError reports a datagram that the network refused. The endpoint stays usable.
type PacketError struct {
	To  weir.PacketAddr // zero if the system does not say
	Err error
}

func (e *PacketError) Error() string { return fmt.Sprintf("datagram to %v: %v", e.To, e.Err) }

// Unwrap returns the cause.
func (e *PacketError) Unwrap() error { return e.Err }

// ListenPacket opens an endpoint, as weir.Loop.ListenPacket does. Datagrams that no one
// reads are kept, up to 64 KiB, and then reading is paused.
func ListenPacket(l *weir.Loop, network, address string, opts ...weir.PacketOption) (*Packets, error) {
	c := &Packets{}
	e, err := l.ListenPacket(network, address, (*packetProtocol)(c), opts...)
	if err != nil {
		return nil, err
	}
	c.e = e
	return c, nil
}

// Endpoint is the endpoint itself: its addresses, its marks.
func (c *Packets) Endpoint() *weir.PacketEndpoint { return c.e }

// SendTo sends p as one datagram, as weir.PacketEndpoint.SendTo does: it never waits.
func (c *Packets) SendTo(p []byte, to weir.PacketAddr) error { return c.e.SendTo(p, to) }

// Drain waits while too much is waiting to be sent.
func (c *Packets) Drain(t *task.Task) error {
	if c.blocked {
		c.room.Name = "room to send datagrams"
		if err := c.room.Wait(t); err != nil {
			return err
		}
	}
	if c.lost {
		return c.ended()
	}
	return nil
}

// ReadFrom waits for a datagram, which may be empty, and moves it into p. If it is
// longer than p, or than the endpoint takes, as much as fits comes with
// weir.ErrTruncated; if one of ours was refused, the error is a *PacketError. Reading
// can go on after both. After Close the error is weir.ErrClosed. A read that is cut
// short loses no datagram.
func (c *Packets) ReadFrom(t *task.Task, p []byte) (n int, from weir.PacketAddr, err error) {
	if c.reader != nil {
		return 0, from, ErrBusy
	}
	if t.Scope().Canceled() {
		return 0, from, t.Yield()
	}
	if c.closed || c.lost && len(c.kept) == 0 {
		return 0, from, c.ended()
	}
	if len(c.kept) > 0 {
		k := c.kept[0]
		c.kept[0] = packet{}
		if c.kept = c.kept[1:]; len(c.kept) == 0 {
			c.kept = nil
		}
		c.bytes -= len(k.data) + packetCost
		if c.holds && c.bytes <= keepMost/4 {
			c.holds = false
			c.e.ResumeReading()
		}
		n, err := fit(p, k)
		return n, k.from, err
	}
	c.reader, c.dst, c.got, c.n = t, p, packet{}, -1
	err = t.Park((*packetProtocol)(c))
	c.reader, c.dst = nil, nil
	switch {
	case err != nil:
		return 0, from, err
	case c.n < 0:
		return 0, from, c.ended()
	}
	return c.n, c.got.from, c.got.err
}

// fit moves a datagram into p.
func fit(p []byte, k packet) (int, error) {
	n := copy(p, k.data)
	if k.err == nil && n < len(k.data) {
		return n, weir.ErrTruncated
	}
	return n, k.err
}

// Close sends what is buffered, then closes.
func (c *Packets) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	err := c.e.Close()
	if c.reader != nil {
		c.reader.Wake(nil)
	}
	return err
}

// Closed waits until the endpoint is gone and returns the reason, which is nil after
// Close.
func (c *Packets) Closed(t *task.Task) error {
	c.gone.Name = "the end of the endpoint"
	if err := c.gone.Wait(t); err != nil {
		return err
	}
	return c.reason
}

func (c *Packets) ended() error {
	if c.lost && c.reason != nil && !c.closed {
		return c.reason
	}
	return weir.ErrClosed
}

// arrive gives a datagram to the reader, or keeps it.
func (c *Packets) arrive(k packet) {
	if c.closed {
		return
	}
	if t := c.reader; t != nil && c.n < 0 && t.Waiting() {
		c.n, k.err = fit(c.dst, k)
		k.data = nil
		c.got = k
		t.Resume(nil)
		return
	}
	k.data = append([]byte(nil), k.data...)
	c.kept = append(c.kept, k)
	if c.bytes += len(k.data) + packetCost; c.bytes > keepMost && !c.holds {
		c.holds = true
		c.e.PauseReading()
	}
}

// packetProtocol is Packets as the endpoint sees it.
type packetProtocol Packets

var (
	_ weir.PacketProtocol    = (*packetProtocol)(nil)
	_ weir.TruncatedReceiver = (*packetProtocol)(nil)
	_ weir.PacketFailer      = (*packetProtocol)(nil)
	_ weir.WritePauser       = (*packetProtocol)(nil)
	_ task.Waitable          = (*packetProtocol)(nil)
)

func (p *packetProtocol) EndpointMade(e *weir.PacketEndpoint) { p.e = e }

func (p *packetProtocol) PacketReceived(b []byte, from weir.PacketAddr) {
	(*Packets)(p).arrive(packet{data: b, from: from})
}

func (p *packetProtocol) PacketTruncated(b []byte, from weir.PacketAddr) {
	(*Packets)(p).arrive(packet{data: b, from: from, err: weir.ErrTruncated})
}

func (p *packetProtocol) PacketFailed(err error, to weir.PacketAddr) {
	(*Packets)(p).arrive(packet{err: &PacketError{to, err}})
}

func (p *packetProtocol) PauseWriting() {
	p.blocked = true
	p.room.Clear()
}

func (p *packetProtocol) ResumeWriting() {
	p.blocked = false
	p.room.Set()
}

func (p *packetProtocol) EndpointLost(err error) {
	p.lost, p.reason = true, err
	p.blocked = false
	p.room.Set()
	p.gone.Set()
	if p.reader != nil {
		p.reader.Resume(nil)
	}
}

func (p *packetProtocol) Abandon(*task.Task) {}

func (p *packetProtocol) WaitingFor() string { return "datagrams on " + p.e.LocalAddr().String() }
