package netconn

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/inner"
)

// How many datagrams a PacketConn keeps for its readers, and for the endpoint,
// before it stops taking more: in bytes, and in number.
const (
	packetBytes = 64 << 10
	packetCount = 1024
)

// maxUDP is the largest payload of a UDP datagram over IPv4 and over IPv6, in
// bytes (RFC 768 with RFC 791 and RFC 8200).
const (
	maxUDP4 = 65535 - 20 - 8
	maxUDP6 = 65535 - 8
)

// PacketConn is a datagram endpoint as a net.PacketConn. Its methods are safe
// from any goroutine; those that wait (reads, writes) must not be called on the
// loop's.
//
// Reads take what the loop has received, which is bounded: beyond that,
// datagrams wait in the system's buffer and are lost when that is full, as with
// any socket. Writes wait while too much is queued, and not for the system's answer: a
// datagram that it or the network refuses later is lost without a word, as in the
// network. What is learned from that is told to later calls, where package net would:
//
//   - With weir.WithDontFragment, or a socket option that does the same, a write fails with
//     a *weir.MTUError, which is syscall.EMSGSIZE to errors.Is, if it is longer than what was
//     refused on its way to that address within the last minute.
//   - If a conn has a peer (ConnectPacket), a refusal by that peer's host, such as
//     syscall.ECONNREFUSED, is the error of the next read or write, once.
//
// An endpoint for every address (":53") answers from an address of the system's
// choice, unless its reader takes a weir.PacketInfo along with each datagram
// (ReadPacketInfo) and gives its Local to the answer (WritePacketInfo). On Linux the
// methods of *net.UDPConn that do so by control messages, ReadMsgUDP and WriteMsgUDP, are
// there too, and with ReadBatch and SyscallConn all that QUIC libraries look for.
type PacketConn struct {
	loop   *weir.Loop
	notice *weir.Notifier
	local  weir.PacketAddr
	peer   weir.PacketAddr // that the endpoint is connected to; zero: none

	in    packetInbox
	out   packetOutbox
	paths paths

	// Of the loop's goroutine.
	e      *weir.PacketEndpoint
	full   bool            // the endpoint asked to write no more
	closed bool            // Close was called, or the endpoint is lost
	info   weir.PacketInfo // of the datagram that is being sent
}

var _ net.PacketConn = (*PacketConn)(nil)

type packetInbox struct {
	half
	q       packets
	refused refusal
	paused  bool // the endpoint was told to pause, since q was full
	resume  bool // and is to go on
}

type packetOutbox struct {
	half
	q packets
}

// packets is a queue of datagrams.
type packets struct {
	buf   []byte // their bytes, those that were taken too
	off   int    // where the first begins
	recs  []packetRecord
	first int           // of recs
	mem   *packetMemory // where buf came from, to be used again
	spare sync.Pool     // of *packetMemory
}

type packetRecord struct {
	addr weir.PacketAddr
	n    int
	info weir.PacketInfo
}

// packetMemory is the memory of a queue that is empty.
type packetMemory struct {
	buf  []byte
	recs []packetRecord
}

func (q *packets) empty() bool { return q.first == len(q.recs) }

// roomy reports whether the queue takes another datagram. One that is empty
// takes any.
func (q *packets) roomy() bool {
	return q.empty() || len(q.buf)-q.off < packetBytes && len(q.recs)-q.first < packetCount
}

func (q *packets) put(p []byte, a weir.PacketAddr, info *weir.PacketInfo) {
	if q.buf == nil {
		if m, ok := q.spare.Get().(*packetMemory); ok {
			q.mem, q.buf, q.recs = m, m.buf, m.recs
			*m = packetMemory{}
		}
	}
	// What was taken makes room once it is half of all, so that a byte is moved once at most.
	if len(q.buf)+len(p) > cap(q.buf) && q.off > 0 && q.off >= len(q.buf)/2 {
		q.buf = q.buf[:copy(q.buf, q.buf[q.off:])]
		q.off = 0
	}
	if len(q.recs) == cap(q.recs) && q.first > 0 && q.first >= len(q.recs)/2 {
		n := copy(q.recs, q.recs[q.first:])
		clear(q.recs[n:])
		q.recs, q.first = q.recs[:n], 0
	}
	q.buf = append(q.buf, p...)
	r := packetRecord{addr: a, n: len(p)}
	if info != nil {
		r.info = *info
	}
	q.recs = append(q.recs, r)
}

// peek returns the first datagram; its bytes are valid until the next put, its record
// until drop.
func (q *packets) peek() ([]byte, *packetRecord) {
	r := &q.recs[q.first]
	return q.buf[q.off : q.off+r.n], r
}

func (q *packets) drop() {
	q.off += q.recs[q.first].n
	q.recs[q.first] = packetRecord{}
	if q.first++; q.empty() {
		q.clear()
	}
}

// clear empties the queue. Its memory is kept for the next burst; that of a large one only
// until the garbage collector has seen it idle.
func (q *packets) clear() {
	clear(q.recs)
	q.buf, q.off, q.recs, q.first = q.buf[:0], 0, q.recs[:0], 0
	if cap(q.buf) <= smallSize {
		return
	}
	if q.mem == nil {
		q.mem = new(packetMemory)
	}
	*q.mem = packetMemory{q.buf, q.recs}
	q.spare.Put(q.mem)
	q.mem, q.buf, q.recs = nil, nil, nil
}

// ListenPacket is Loop.ListenPacket with a net.PacketConn. It belongs to the
// loop's goroutine, or to anyone while the loop does not run; see Call.
func ListenPacket(l *weir.Loop, network, address string, opts ...weir.PacketOption) (*PacketConn, error) {
	c := newPacketConn(l)
	e, err := l.ListenPacket(network, address, (*packetSide)(c), opts...)
	if err != nil {
		return nil, err
	}
	c.e, c.local = e, e.Local()
	return c, nil
}

func newPacketConn(l *weir.Loop) *PacketConn {
	c := &PacketConn{loop: l}
	c.notice = l.NewNotifier((*packetSide)(c).noticed)
	c.in.changed.L, c.out.changed.L = &c.in.mu, &c.out.mu
	return c
}

// LocalAddr is the endpoint's own address.
func (c *PacketConn) LocalAddr() net.Addr { return c.local.NetAddr() }

// ReadFrom implements net.PacketConn. What of a datagram does not fit into p is
// lost.
func (c *PacketConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.ReadPacket(p)
	if err != nil {
		return n, nil, err
	}
	return n, from.NetAddr(), nil
}

// ReadPacket is ReadFrom without an object for the address.
func (c *PacketConn) ReadPacket(p []byte) (int, weir.PacketAddr, error) {
	return c.ReadPacketInfo(p, nil)
}

// ReadPacketInfo is ReadPacket that also stores in *info what is known of the datagram:
// weir.BackendInfo says what that is.
func (c *PacketConn) ReadPacketInfo(p []byte, info *weir.PacketInfo) (int, weir.PacketAddr, error) {
	in := &c.in
	in.mu.Lock()
	n, _, from, err := in.read(p, info, c.mayRead)
	c.unlockIn()
	if err != nil {
		err = c.opError("read", nil, err)
	}
	return n, from, err
}

// unlockIn unlocks the inbox, and has reading go on if there is room again.
func (c *PacketConn) unlockIn() {
	in := &c.in
	resume := in.paused && !in.resume && in.q.roomy()
	if resume {
		in.resume = true
	}
	in.mu.Unlock()
	if resume {
		_ = c.notice.Notify()
	}
}

// mayRead and mayWrite are debug mode's: see weir.Loop.MayWait.
func (c *PacketConn) mayRead() error  { return c.loop.MayWait("netconn.PacketConn.ReadFrom") }
func (c *PacketConn) mayWrite() error { return c.loop.MayWait("netconn.PacketConn.WriteTo") }

// read takes a datagram, and returns how much of it p holds and how long it was.
func (in *packetInbox) read(p []byte, info *weir.PacketInfo, mayWait func() error) (n, whole int, from weir.PacketAddr, err error) {
	if err := in.await(mayWait); err != nil {
		return 0, 0, weir.PacketAddr{}, err
	}
	data, r := in.q.peek()
	n, whole, from = copy(p, data), len(data), r.addr
	if info != nil {
		*info = r.info
	}
	in.q.drop()
	return n, whole, from, nil
}

// await waits until there is a datagram.
func (in *packetInbox) await(mayWait func() error) error {
	for {
		if err := in.ended(); err != nil {
			return err
		}
		if err := in.refused.take(); err != nil {
			return err
		}
		if !in.q.empty() {
			return nil
		}
		if in.err != nil {
			return in.err
		}
		if err := mayWait(); err != nil {
			return err
		}
		in.wait()
	}
}

// WriteTo implements net.PacketConn. to is a *net.UDPAddr or, on "unixgram", a
// *net.UnixAddr.
func (c *PacketConn) WriteTo(p []byte, to net.Addr) (int, error) {
	var a weir.PacketAddr
	switch to := to.(type) {
	case *net.UDPAddr:
		a.IP = to.AddrPort()
	case *net.UnixAddr:
		a.Path = to.Name
	default:
		return 0, c.opError("write", to, &net.AddrError{Err: "neither a UDP nor a UNIX address", Addr: addrString(to)})
	}
	return c.WritePacket(p, a)
}

func addrString(a net.Addr) string {
	if a == nil {
		return "<nil>"
	}
	return a.String()
}

// WritePacket is WriteTo without an object for the address.
func (c *PacketConn) WritePacket(p []byte, to weir.PacketAddr) (int, error) {
	return c.WritePacketInfo(p, to, nil)
}

// WritePacketInfo is WritePacket with what else is asked for, as SendInfo of a
// weir.PacketEndpoint has it: from which address the datagram leaves, by which
// interface, with which traffic class. What the system refuses of that is lost, as the
// datagram is.
func (c *PacketConn) WritePacketInfo(p []byte, to weir.PacketAddr, info *weir.PacketInfo) (int, error) {
	return c.write(p, max(1, len(p)), to, info)
}

// write sends p as datagrams of size bytes, of which the last may be shorter.
func (c *PacketConn) write(p []byte, size int, to weir.PacketAddr, info *weir.PacketInfo) (int, error) {
	if c.connected() && c.isPeer(to) {
		to = c.peer // as the endpoint spells it
	}
	err := c.fits(p[:min(size, len(p))], to)
	if err == nil {
		err = c.in.refused.take()
	}
	if err == nil {
		c.out.mu.Lock()
		err = c.out.write(p, size, to, info, c.mayWrite, func() { _ = c.notice.Notify() })
		c.out.mu.Unlock()
	}
	if err != nil {
		return 0, c.opError("write", to.NetAddr(), err)
	}
	_ = c.notice.Notify()
	return len(p), nil
}

func (out *packetOutbox) write(p []byte, size int, to weir.PacketAddr, info *weir.PacketInfo, mayWait func() error, notify func()) error {
	for {
		if err := out.ended(); err != nil {
			return err
		}
		if out.err != nil {
			return out.err
		}
		if out.q.roomy() {
			out.q.put(p[:min(size, len(p))], to, info)
			for rest := p[min(size, len(p)):]; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				out.q.put(rest[:min(size, len(rest))], to, info)
			}
			return nil
		}
		if err := mayWait(); err != nil {
			return err
		}
		notify()
		out.wait()
	}
}

// fits reports what could never be sent.
func (c *PacketConn) fits(p []byte, to weir.PacketAddr) error {
	local, ip := c.local.IP.Addr(), to.IP.Addr()
	switch {
	case c.connected() && to != c.peer:
		return net.ErrWriteToConnected
	case !local.IsValid() && to.Path == "", local.IsValid() && (!to.IP.IsValid() || to.IP.Port() == 0):
		return &net.AddrError{Err: "not an address that can be sent to", Addr: to.String()}
	case !local.IsValid():
		return nil
	case local.Is4() && !ip.Unmap().Is4(), ip.Unmap().Is4() && !local.Is4() && local != netip.IPv6Unspecified():
		return &net.AddrError{Err: "of another family than the endpoint", Addr: to.String()}
	case ip.Unmap().Is4() && len(p) > maxUDP4, len(p) > maxUDP6:
		return syscall.EMSGSIZE
	}
	return c.paths.fits(len(p), ip)
}

// Close implements net.PacketConn. What was written is still sent; calls in
// progress and later ones fail with net.ErrClosed. It does not wait.
func (c *PacketConn) Close() error {
	c.in.mu.Lock()
	first := c.in.close()
	c.in.q.clear()
	c.in.mu.Unlock()
	c.out.mu.Lock()
	c.out.close()
	c.out.mu.Unlock()
	if !first {
		return c.opError("close", nil, net.ErrClosed)
	}
	_ = c.notice.Notify()
	return nil
}

// SetReadBuffer sets how many bytes of datagrams the system keeps, as
// weir.PacketEndpoint's SetReadBuffer does.
func (c *PacketConn) SetReadBuffer(bytes int) error { return c.setError(c.e.SetReadBuffer(bytes)) }

// SetWriteBuffer sets how many bytes of datagrams the system takes before they have
// left, as weir.PacketEndpoint's SetWriteBuffer does.
func (c *PacketConn) SetWriteBuffer(bytes int) error { return c.setError(c.e.SetWriteBuffer(bytes)) }

func (c *PacketConn) setError(err error) error {
	if err != nil {
		err = c.opError("set", nil, err)
	}
	return err
}

// SetDeadline sets both deadlines; the zero time is none. A call that waits fails with
// os.ErrDeadlineExceeded at that time.
func (c *PacketConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline of reads.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.in.half, t) }

// SetWriteDeadline sets the deadline of writes.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.out.half, t) }

func (c *PacketConn) setDeadline(h *half, t time.Time) error {
	return c.setError(h.setDeadline(t))
}

func (c *PacketConn) opError(op string, to net.Addr, err error) error {
	local := c.LocalAddr()
	if to == nil {
		to = c.RemoteAddr()
	}
	return &net.OpError{Op: op, Net: local.Network(), Source: local, Addr: to, Err: err}
}

// packetSide is a PacketConn as the loop sees it. All its methods run on the
// loop's goroutine.
type packetSide PacketConn

var (
	_ weir.WritePauser        = (*packetSide)(nil)
	_ weir.PacketInfoReceiver = (*packetSide)(nil)
	_ weir.PacketFailer       = (*packetSide)(nil)
	_ weir.PacketProtocol     = (*packetSide)(nil)
)

func (c *packetSide) EndpointMade(*weir.PacketEndpoint) { c.noticed() }

func (c *packetSide) PacketReceived(p []byte, from weir.PacketAddr) {
	c.PacketInfoReceived(p, from, nil)
}

func (c *packetSide) PacketInfoReceived(p []byte, from weir.PacketAddr, info *weir.PacketInfo) {
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return
	}
	in.q.put(p, from, info)
	if in.waiters > 0 {
		in.wake()
		inner.Of(c.loop).Readied()
	}
	if !in.q.roomy() {
		in.paused = true
		c.e.PauseReading()
	}
}

func (c *packetSide) EndpointLost(err error) {
	c.closed = true
	if err == nil {
		err = net.ErrClosed
	}
	c.in.stop(err)
	c.out.stop(err)
}

func (c *packetSide) PauseWriting() { c.full = true }

func (c *packetSide) ResumeWriting() {
	c.full = false
	c.flush()
}

// noticed does what goroutines asked for since it last ran.
func (c *packetSide) noticed() {
	if c.e == nil || c.closed {
		return
	}
	c.in.mu.Lock()
	resume := c.in.resume
	if resume {
		c.in.resume, c.in.paused = false, false
	}
	c.in.mu.Unlock()
	if resume {
		c.e.ResumeReading()
	}
	c.flush()
}

// flush hands datagrams to the endpoint, unless that has enough, and closes it
// when that was asked for.
func (c *packetSide) flush() {
	loop := inner.Of(c.loop)
	was := loop.Together(true)
	c.hand(loop)
	loop.Together(was)
}

// hand hands datagrams to the endpoint, which sends them when it has all of them.
func (c *packetSide) hand(loop inner.Loop) {
	out := &c.out
	out.mu.Lock()
	defer out.mu.Unlock()
	for !out.q.empty() && (!c.full || out.closed) {
		p, r := out.q.peek()
		c.info = r.info
		// The endpoint copies what it cannot send, and calls no one but
		// PauseWriting. A datagram that it refuses is lost.
		if err := c.e.SendInfo(p, r.addr, &c.info); err != nil {
			c.failed(err, r.addr)
		}
		out.q.drop()
	}
	if out.waiters > 0 && out.q.roomy() {
		out.wake()
		loop.Readied()
	}
	if out.closed && !c.closed {
		c.closed = true
		_ = c.e.Close()
	}
}
