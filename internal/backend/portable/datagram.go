package portable

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// packets serves a datagram socket. One goroutine, which starts with the first
// RecvFrom, receives into a bounded queue; sending is done by the loop, and
// package net keeps it from waiting for longer than sendMax.
type packets struct {
	b    *Backend
	e    *entry
	conn net.PacketConn
	udp  *net.UDPConn // conn, where it is one
	unix *net.UnixConn
	also func() // removes the file of a Unix socket; may be nil

	tells   bool    // udp was asked for a PacketInfo
	control control // of the goroutine that receives
	ask     control // of the loop

	gather []byte
	peers  []lentPeer
	lent   int // of peers
	used   int // Backend.waits when they were lent

	mu      sync.Mutex
	room    sync.Cond
	queue   []datagram // from head on
	head    int
	mem     []byte // of the queue; used again when that is empty
	started bool
	closed  bool
}

// lentPeer is what is lent of a datagram beside its bytes.
type lentPeer struct {
	addr backend.Addr
	info backend.PacketInfo
}

// datagram is one that was received, or an error.
type datagram struct {
	from   netip.AddrPort
	path   string
	off, n int
	err    error
	info   backend.PacketInfo
}

const (
	queueBytes   = 256 << 10
	queuePackets = 256
	packetSize   = 64 << 10
	sendMax      = time.Millisecond // how long a send may hold up the loop
	sendRetry    = time.Millisecond // when one that could not be sent is tried again
)

// openPacket makes a datagram socket.
func (b *Backend) openPacket(spec *backend.Spec) (backend.Handle, error) {
	for _, o := range spec.Options {
		switch o.Option { //nolint:exhaustive // these only
		case backend.DontFragment, backend.MulticastHops, backend.MulticastLoop:
			if !linuxOptions {
				return backend.None, backend.ErrUnsupported
			}
		}
	}
	e := &entry{spec: spec}
	p := &packets{b: b, e: e}
	p.room.L = &p.mu
	conn, err := makePacket(spec)
	if err != nil {
		return backend.None, errno(err)
	}
	p.conn = conn
	switch c := conn.(type) {
	case *net.UDPConn:
		p.udp = c
		p.tells = infos&spec.Info != 0
	case *net.UnixConn:
		p.unix = c
		if err := widen(spec); err != nil {
			_ = c.Close()
			_ = os.Remove(spec.Local.Path)
			return backend.None, errno(err)
		}
		if isFile(spec.Local.Path) {
			p.also = ownFile(spec.Local.Path)
		}
	}
	e.pkt = p
	e.local = addrOf(conn.LocalAddr())
	return b.add(e), nil
}

// makePacket makes the socket, bound or connected.
func makePacket(spec *backend.Spec) (net.PacketConn, error) {
	prepare := func(_, _ string, rc syscall.RawConn) error { return preparePacket(rc, spec) }
	name, address := packetNetwork(spec)
	if spec.Peer.Family == backend.FamilyNone {
		config := net.ListenConfig{Control: prepare}
		return config.ListenPacket(context.Background(), name, address)
	}
	dialer, to := net.Dialer{Control: prepare}, spec.Peer.Path
	switch {
	case spec.Family == backend.Inet:
		to = spec.Peer.IP.String()
		if spec.Bind {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(spec.Local.IP)
		}
	case spec.Bind && spec.Local.Path != "":
		dialer.LocalAddr = &net.UnixAddr{Net: name, Name: spec.Local.Path}
	}
	conn, err := dialer.Dial(name, to) // it never waits
	if err != nil {
		return nil, err
	}
	return conn.(net.PacketConn), nil // both kinds are
}

// packetNetwork is package net's name for spec's family, and what to bind to.
// Package net has no sockets that are not bound: they get a port of the
// system's choice at once.
func packetNetwork(spec *backend.Spec) (name, address string) {
	if spec.Family == backend.Unix {
		return "unixgram", spec.Local.Path
	}
	any := netip.IPv6Unspecified()
	switch {
	case !spec.IPv6:
		name, any = "udp4", netip.IPv4Unspecified()
	case spec.Dual:
		name = "udp"
	default:
		name = "udp6"
	}
	at := spec.Local.IP
	if !spec.Bind || !at.Addr().IsValid() {
		at = netip.AddrPortFrom(any, at.Port())
	}
	return name, at.String()
}

// start makes sure that somebody receives.
func (p *packets) start() {
	if p.started {
		return
	}
	p.started = true
	p.b.waiting.Go(p.run)
}

// run receives until the socket is closed.
func (p *packets) run() {
	buf := make([]byte, packetSize)
	for {
		var d datagram
		p.receive(buf, &d)
		p.mu.Lock()
		for len(p.queue)-p.head >= queuePackets || len(p.mem) > 0 && len(p.mem)+d.n > queueBytes {
			if p.closed {
				break
			}
			p.room.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		d.off = len(p.mem)
		p.mem = append(p.mem, buf[:d.n]...)
		p.queue = append(p.queue, d)
		p.mu.Unlock()
		p.b.notify(p.e)
		if d.err != nil && (errors.Is(d.err, net.ErrClosed) || errors.Is(d.err, os.ErrClosed)) {
			return
		}
	}
}

func (p *packets) receive(buf []byte, d *datagram) {
	switch {
	case p.tells:
		d.n, d.from, d.err = receiveInfo(p.udp, buf, &p.control, &d.info)
	case p.udp != nil:
		d.n, d.from, d.err = p.udp.ReadFromUDPAddrPort(buf)
	case p.unix != nil:
		var a *net.UnixAddr
		if d.n, a, d.err = p.unix.ReadFromUnix(buf); a != nil && a.Name != "@" {
			d.path = a.Name
		}
	}
}

func (p *packets) close() {
	p.mu.Lock()
	p.closed = true
	p.room.Broadcast()
	p.mu.Unlock()
	_ = p.conn.Close()
	if p.also != nil {
		p.also()
	}
}

// tryPacket makes one attempt at op on a datagram socket, as try does.
func (b *Backend) tryPacket(e *entry, op *backend.Op, c *backend.Completion) bool {
	p := e.pkt
	if p == nil {
		c.Err = errNotDatagram
		return true
	}
	switch op.Kind {
	case backend.RecvFrom:
		if op.Buf != nil && len(op.Buf) == 0 {
			c.Err = errInvalid
			return true
		}
		return p.take(op, c)
	case backend.SendTo:
		return p.send(op, c)
	default:
		c.Err = backend.ErrUnsupported
		return true
	}
}

// take hands out the datagram that waits longest.
func (p *packets) take(op *backend.Op, c *backend.Completion) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start()
	if p.head == len(p.queue) {
		return false
	}
	d := &p.queue[p.head]
	p.head++
	if d.err != nil && d.n == 0 {
		c.Err = errno(d.err)
		if p.e.spec.Peer.Family != backend.FamilyNone && isRefusal(c.Err) {
			lent := p.lend()
			lent.addr = p.e.spec.Peer
			c.Peer = &lent.addr
		}
	} else {
		p.hand(d, op, c)
	}
	if p.head == len(p.queue) {
		p.queue, p.head, p.mem = p.queue[:0], 0, p.mem[:0]
		p.room.Signal()
	}
	return true
}

func (p *packets) hand(d *datagram, op *backend.Op, c *backend.Completion) {
	data := p.mem[d.off : d.off+d.n]
	switch {
	case op.Buf != nil:
		c.N = copy(op.Buf, data)
		c.Buf = op.Buf[:c.N:c.N]
	default:
		limit := packetSize
		if op.Max > 0 {
			limit = int(op.Max)
		}
		c.N = min(len(data), limit)
		c.Buf = p.b.lent.copy(data[:c.N])
	}
	c.Truncated = c.N < len(data)
	lent := p.lend()
	c.Peer = &lent.addr
	if p.unix != nil {
		lent.addr = backend.Addr{Family: backend.Unix, Path: d.path}
	} else {
		lent.addr = backend.Addr{Family: backend.Inet, IP: unmap(d.from)}
	}
	if p.tells {
		lent.info = d.info
		c.Info = &lent.info
	}
}

// lend returns memory for what comes along with a datagram, which lasts until the next Wait.
func (p *packets) lend() *lentPeer {
	if p.used != p.b.waits {
		p.used, p.lent = p.b.waits, 0
	}
	if p.lent == len(p.peers) {
		// What is out stays with its borrowers.
		p.peers, p.lent = make([]lentPeer, 64), 0
	}
	p.lent++
	return &p.peers[p.lent-1]
}

// send sends a datagram, the first where there are many. It returns false where
// that has to wait.
func (p *packets) send(op *backend.Op, c *backend.Completion) bool {
	buf, to := op.Vec, op.Addr
	var (
		data []byte
		info *backend.Packet
	)
	switch {
	case op.Packets != nil:
		info = &(*op.Packets)[0]
		data, to = info.First(), &info.To
		if info.Info == (backend.PacketInfo{}) {
			info = nil
		}
	case len(buf) == 1:
		data = buf[0]
	default:
		p.gather = p.gather[:0]
		for _, piece := range buf {
			p.gather = append(p.gather, piece...)
		}
		data = p.gather
	}
	if to == nil || to.Family != p.e.spec.Family {
		c.Err = errInvalid
		return true
	}
	// Sending hardly ever waits, but nothing else says so beforehand.
	if err := p.conn.SetWriteDeadline(time.Now().Add(sendMax)); err != nil {
		c.Err = errno(err)
		return true
	}
	var err error
	switch {
	case p.e.spec.Peer.Family != backend.FamilyNone:
		c.N, err = p.sendToPeer(data, info)
	case p.udp == nil:
		c.N, err = p.unix.WriteToUnix(data, &net.UnixAddr{Net: "unixgram", Name: to.Path})
	case info != nil:
		c.N, err = sendInfo(p.udp, info, &p.ask)
	default:
		c.N, err = p.udp.WriteToUDPAddrPort(data, to.IP)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		time.AfterFunc(sendRetry, func() { p.b.notify(p.e) })
		return false
	}
	c.Err = errno(err)
	if err == nil && op.Packets != nil {
		c.N = 1
	}
	return true
}

// sendToPeer sends on a connected socket. A refusal of an earlier datagram, which the
// system tells whoever calls first, is left to RecvFrom.
func (p *packets) sendToPeer(data []byte, info *backend.Packet) (int, error) {
	send := func() (int, error) { return p.udp.Write(data) }
	switch {
	case p.udp == nil:
		send = func() (int, error) { return p.unix.Write(data) }
	case info != nil:
		send = func() (int, error) { return sendInfo(p.udp, info, &p.ask) }
	}
	n, err := send()
	if p.udp == nil || !isRefusal(errno(err)) {
		return n, err
	}
	p.mu.Lock()
	if len(p.queue)-p.head < queuePackets {
		p.queue = append(p.queue, datagram{err: err, off: len(p.mem)})
	}
	p.mu.Unlock()
	p.b.notify(p.e)
	return send()
}

// isRefusal reports whether an error is what a host says of a datagram for a port where
// no one is.
func isRefusal(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// Source returns the address from which something would be sent; see
// backend.Router.
func (b *Backend) Source(to netip.Addr) (netip.Addr, bool) {
	const discard = 9 // any port will do: connecting a datagram socket sends nothing
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, discard)))
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), true
}

// Socket gives access to a datagram handle's socket; see backend.Controller.
func (b *Backend) Socket(h backend.Handle) (backend.Socket, error) {
	e := b.entry(h)
	if e == nil || e.pkt == nil {
		return nil, errNotDatagram
	}
	return packetSocket{e.pkt.conn}, nil
}

// packetSocket is a datagram socket as a backend.Socket.
type packetSocket struct{ conn net.PacketConn }

var _ backend.Socket = packetSocket{}

func (s packetSocket) Control(f func(fd uintptr)) error {
	rc := rawOf(s.conn)
	if rc == nil {
		return backend.ErrUnsupported
	}
	return rc.Control(f)
}

func (s packetSocket) SetOption(o backend.Option, value int) error {
	return errno(setOption(s.conn, o, value))
}
