package weir

import (
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/zone"
)

// PacketProtocol gives meaning to datagrams. Its methods are called on the
// loop's goroutine, one at a time: EndpointMade once, PacketReceived any number
// of times, EndpointLost once and last. It may also be a PacketFailer, a
// TruncatedReceiver, a PacketInfoReceiver, a WritePauser, a Drainer and a LoopEnder.
//
// A panic in PacketReceived, or in one of the optional callbacks, is reported to
// the loop's error handler and ends nothing: the next datagram comes from
// somebody else.
type PacketProtocol interface {
	// EndpointMade hands over the endpoint. A panic here closes it.
	EndpointMade(e *PacketEndpoint)
	// PacketReceived hands over one datagram, which may be empty, and its
	// sender. p is lent until the call returns and must not be changed.
	PacketReceived(p []byte, from PacketAddr)
	// EndpointLost ends the endpoint: nil after Close, ErrAborted after Abort, a
	// typed error for all else. It is never called from inside the method that
	// caused it.
	EndpointLost(err error)
}

// PacketFailer is a PacketProtocol that wants to know what became of datagrams.
type PacketFailer interface {
	// PacketFailed reports that the network refused a datagram sent to an
	// address (ICMP, where the backend can tell: BackendInfo; a *MTUError where one
	// was too long), or that one that was buffered could not be sent. to is the zero
	// PacketAddr where the system does not say whom it is about. The endpoint lives on.
	PacketFailed(err error, to PacketAddr)
}

// TruncatedReceiver is a PacketProtocol that wants the beginnings of datagrams
// that did not fit (WithMaxDatagram). Without it they are dropped, and reported
// to a PacketFailer as ErrTruncated.
type TruncatedReceiver interface {
	// PacketTruncated is PacketReceived for the part of a datagram that fit.
	PacketTruncated(p []byte, from PacketAddr)
}

// LoopEnder is a PacketProtocol on which connections stand, as those of uTP do, and that
// takes part in the end of its loop. Streams of connections that end are the loop's
// business; the LoopEnder moves their bytes until they have ended.
type LoopEnder interface {
	// LoopEnds is called when Loop.Shutdown begins, with closing false, and when
	// Loop.Close begins, with true. An endpoint that is opened after Shutdown has it
	// called from inside ListenPacket. No more connections are to be accepted. If
	// closing, connects under way fail with ErrLoopClosed, and the endpoint goes on
	// reading until the connections have ended, for as long as Close sends what was
	// written (WithFlushTime).
	LoopEnds(closing bool)
	// LoopCloses is called again and again while Close sends what was written, at least
	// every 10 ms. Timers do not fire any more, so the LoopEnder does here what is due by
	// the loop's clock, such as sending again what was lost.
	LoopCloses()
	// Connecting is how many connects are under way. Shutdown waits for them.
	Connecting() int
}

var (
	// ErrTruncated tells of a datagram that was longer than the endpoint takes.
	ErrTruncated = errors.New("weir: datagram longer than the endpoint accepts (WithMaxDatagram)")
	// ErrSendBufferFull is returned for a datagram that was dropped because too
	// many wait to be sent.
	ErrSendBufferFull = errors.New("weir: too many datagrams wait to be sent")
)

// PacketAddr is where a datagram comes from or goes to: IP on UDP, Path on UNIX
// datagram sockets ("@name" for an abstract one, "" for one without a name). It
// can be compared and be a key.
type PacketAddr struct {
	IP   netip.AddrPort
	Path string
}

// equal is ==, faster.
func (a *PacketAddr) equal(b *PacketAddr) bool {
	return a.IP == b.IP && len(a.Path) == len(b.Path) && (a.Path == "" || a.Path == b.Path)
}

func (a PacketAddr) String() string {
	if a.IP.IsValid() {
		return a.IP.String()
	}
	return a.Path
}

// NetAddr is the address as package net has it.
func (a PacketAddr) NetAddr() net.Addr {
	if a.IP.IsValid() {
		return net.UDPAddrFromAddrPort(a.IP)
	}
	return &net.UnixAddr{Net: "unixgram", Name: a.Path}
}

// PacketFunc is the PacketProtocol that does nothing but receive.
type PacketFunc func(e *PacketEndpoint, p []byte, from PacketAddr)

// packetFunc ties a PacketFunc to its endpoint.
type packetFunc struct {
	f PacketFunc
	e *PacketEndpoint
}

// Protocol makes a PacketProtocol of f, for one endpoint.
func (f PacketFunc) Protocol() PacketProtocol { return &packetFunc{f: f} }

func (p *packetFunc) EndpointMade(e *PacketEndpoint)              { p.e = e }
func (p *packetFunc) PacketReceived(data []byte, from PacketAddr) { p.f(p.e, data, from) }
func (p *packetFunc) EndpointLost(error)                          {}

// PacketEndpoint sends and receives datagrams: with anyone if ListenPacket
// made it, with one peer if ConnectPacket did. Its methods belong to the loop's goroutine.
//
//	open ──Close──▶ closing: what is buffered is sent ──▶ lost
//	  └────────────────── Abort, failure ────────────────▶
type PacketEndpoint struct {
	loop  *Loop
	h     backend.Handle
	netw  string
	addr  backend.Addr
	peer  PacketAddr // that it is connected to
	v6    bool
	dual  bool
	proto PacketProtocol // nil once lost
	feed  *PacketFeed    // of a carrier that moves the datagrams; nil: h does
	sock  packetSocket

	failer  PacketFailer
	cutter  TruncatedReceiver
	knower  PacketInfoReceiver
	pauser  WritePauser
	drainer Drainer
	ender   LoopEnder

	rd packetReader
	wr packetWriter

	at        int // in the loop's bag
	of        membership
	connected bool // to peer
	made      bool
	closing   bool
	lost      bool
	reason    error
}

// How an endpoint backs off from errors that are about no peer in particular.
const (
	packetErrors = 16 // in a row that are taken one by one
	packetRetry  = 100 * time.Millisecond
)

// ListenPacket opens an endpoint for datagrams, as net.ListenPacket names them:
// "udp", "udp4" or "udp6" with "host:port" (an empty host is every interface,
// port 0 picks a free one; for "udp" an empty host is both families), or
// "unixgram" with a path or "@name". The host must be a literal address or in
// the hosts file. Sending is possible at once; EndpointMade comes in the next
// turn, and datagrams after it. The address is not shared with other sockets
// unless WithReuseAddr or WithReusePort ask for it. Errors are *net.OpError.
func (l *Loop) ListenPacket(netw, address string, p PacketProtocol, opts ...PacketOption) (*PacketEndpoint, error) {
	return l.openPacket("ListenPacket", netw, address, packetSpec, p, configOf(opts))
}

// ConnectPacket opens an endpoint for datagrams to and from one peer: "udp", "udp4" or
// "udp6" with "host:port", or "unixgram" with the peer's path or "@name". The host must be
// a literal address or in the hosts file. It is ListenPacket's endpoint, with differences:
// it sends to its Peer only, as Send does without being told where; the system drops what
// others send to it; LocalAddr is the address that the system chose for the way to the
// peer, or WithLocalAddr did; and a refusal by the peer's host is told to a PacketFailer
// on every backend. Connecting sends nothing, so a UDP peer need not be there. A UNIX peer
// must be, and needs an address to answer to: on Linux the endpoint has an abstract name of the
// system's choice, on other systems it has none. Once a UNIX peer is gone, sending fails
// with ECONNREFUSED and then ENOTCONN, and another endpoint has to be connected.
func (l *Loop) ConnectPacket(netw, address string, p PacketProtocol, opts ...ConnectPacketOption) (*PacketEndpoint, error) {
	return l.openPacket("ConnectPacket", netw, address, connectedSpec, p, configOf(opts))
}

// openPacket opens an endpoint for a method, with the socket that spec makes of the
// arguments.
func (l *Loop) openPacket(method, netw, address string, spec func(netw, address string, c *connConfig) (*backend.Spec, error), p PacketProtocol, c *connConfig) (*PacketEndpoint, error) {
	if err := l.check(method); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing {
		return nil, ErrLoopClosed
	}
	_, infos := p.(PacketInfoReceiver)
	if m, ok := p.(MaybePacketInfoReceiver); ok {
		infos = m.TakesPacketInfo()
	}
	err := c.err
	if err == nil {
		err = c.forTenant(l)
	}
	var s *backend.Spec
	if err == nil {
		s, err = spec(netw, address, c)
	}
	var e *PacketEndpoint
	if err == nil {
		e, err = l.newPacket(netw, s, c, infos)
	}
	if err != nil {
		op, call := "listen", "bind"
		if method == "ConnectPacket" {
			op, call = "dial", "connect"
		}
		return nil, &net.OpError{Op: op, Net: netw, Addr: textAddr{netw, address}, Err: sysError(call, err)}
	}
	e.attach(p)
	l.endpoints.Add(e, &e.at)
	e.of.joinPackets(c.tenant, e)
	l.internalCall(e.begin)
	return e, nil
}

// attach gives the endpoint its protocol.
func (e *PacketEndpoint) attach(p PacketProtocol) {
	e.proto = p
	e.failer, _ = p.(PacketFailer)
	e.cutter, _ = p.(TruncatedReceiver)
	e.knower, _ = p.(PacketInfoReceiver)
	e.pauser, _ = p.(WritePauser)
	e.drainer, _ = p.(Drainer)
	e.ender, _ = p.(LoopEnder)
	if e.loop.ending != nil {
		e.loopEnds(false)
	}
}

// loopEnds tells a LoopEnder.
func (e *PacketEndpoint) loopEnds(closing bool) {
	if e.ender != nil && !e.lost {
		defer e.guard("LoopEnds")
		e.ender.LoopEnds(closing)
	}
}

// loopCloses lets a LoopEnder do what its timers would have done.
func (e *PacketEndpoint) loopCloses() {
	if e.ender != nil && !e.lost {
		defer e.guard("LoopCloses")
		e.ender.LoopCloses()
	}
}

// connecting asks a LoopEnder.
func (e *PacketEndpoint) connecting() int {
	if e.ender == nil || e.lost {
		return 0
	}
	defer e.guard("Connecting")
	return e.ender.Connecting()
}

// newPacket opens the socket, and makes its endpoint.
func (l *Loop) newPacket(netw string, spec *backend.Spec, c *connConfig, infos bool) (*PacketEndpoint, error) {
	connected := spec.Peer.Family != backend.FamilyNone
	spec.Coalesce = true
	if infos {
		spec.Info = backend.InfoLocal | backend.InfoTraffic | backend.InfoDropped
	} else if ip := spec.Local.IP.Addr(); spec.Family == backend.Inet && !connected && (!ip.IsValid() || ip.IsUnspecified()) {
		spec.Info = backend.InfoLocal // for answers
	}
	if spec.Family == backend.Inet {
		spec.Info |= backend.InfoDropped & l.caps.Info
	}
	if c.packetTimes {
		spec.Info |= backend.InfoTime
	}
	h, err := l.openLocal(spec)
	if err != nil {
		return nil, err
	}
	e := &PacketEndpoint{loop: l, h: h, netw: netw, v6: spec.IPv6, dual: spec.Dual}
	if connected {
		e.peer, e.connected = packetAddr(&spec.Peer), true
	}
	e.rd.e, e.wr.e = e, e
	e.rd.op = backend.Op{Kind: backend.RecvFrom, Flags: backend.Multi, Handle: h, Owner: &e.rd}
	if e.rd.most = c.maxDatagram; e.rd.most == 0 {
		e.rd.most = 64 << 10
	}
	e.wr.op = backend.Op{Kind: backend.SendTo, Handle: h, Owner: &e.wr}
	e.wr.flushing = Call{loop: l, fn: e.wr.flush, internal: true}
	e.wr.flushing.state.Store(callRan)
	e.wr.high, e.wr.low = 64<<10, 16<<10
	if c.marks {
		e.wr.high, e.wr.low = int(c.high), int(c.low)
	}
	if c, ok := l.be.(backend.Controller); ok {
		if e.sock.of, err = c.Socket(h); err != nil {
			l.shutHandle(h, backend.CloseFlat)
			return nil, err
		}
	}
	e.addr = spec.Local
	if spec.Local.Family != backend.Inet || spec.Local.IP.Port() == 0 { // the system knows more
		if a, err := l.be.Name(h, false); err == nil {
			e.addr = a
		}
	}
	for _, g := range c.groups {
		if err := e.group(g, netip.Addr{}, c.groupDevice, true); err != nil {
			l.shutHandle(h, backend.CloseFlat)
			return nil, err
		}
	}
	if c.groupSender != "" {
		m, ok := l.be.(backend.Multicaster)
		err := errors.ErrUnsupported
		if ok {
			err = sysError("setsockopt", m.GroupDevice(h, c.groupSender))
		}
		if err != nil {
			l.shutHandle(h, backend.CloseFlat)
			return nil, err
		}
	}
	return e, nil
}

// JoinGroup puts the endpoint into a multicast group on a network device, or on
// one of the system's choice for "". What it sends to groups then goes out there.
// errors.ErrUnsupported where the backend has no groups (portable on other systems than
// Linux).
func (e *PacketEndpoint) JoinGroup(group netip.Addr, device string) error {
	return e.changeGroup("JoinGroup", group, netip.Addr{}, device, true)
}

// LeaveGroup undoes JoinGroup.
func (e *PacketEndpoint) LeaveGroup(group netip.Addr, device string) error {
	return e.changeGroup("LeaveGroup", group, netip.Addr{}, device, false)
}

// JoinSource is JoinGroup for what one source sends to the group (source-specific
// multicast, RFC 4607). It may be called for several sources, but not for a group that the
// endpoint is in as a whole (EINVAL).
func (e *PacketEndpoint) JoinSource(group, source netip.Addr, device string) error {
	return e.changeSource("JoinSource", group, source, device, true)
}

// LeaveSource undoes JoinSource.
func (e *PacketEndpoint) LeaveSource(group, source netip.Addr, device string) error {
	return e.changeSource("LeaveSource", group, source, device, false)
}

func (e *PacketEndpoint) changeSource(method string, group, source netip.Addr, device string, join bool) error {
	if !source.IsValid() {
		return &net.AddrError{Err: "not the address of a multicast source", Addr: source.String()}
	}
	return e.changeGroup(method, group, source, device, join)
}

func (e *PacketEndpoint) changeGroup(method string, group, source netip.Addr, device string, join bool) error {
	if err := e.loop.check(method); err != nil {
		return err
	}
	if e.ended() {
		return ErrClosed
	}
	return e.group(group, source, device, join)
}

func (e *PacketEndpoint) group(group, source netip.Addr, device string, join bool) error {
	if e.feed != nil {
		if e.feed.below == nil {
			return errors.ErrUnsupported
		}
		return e.feed.below.group(group, source, device, join)
	}
	m, ok := e.loop.be.(backend.Multicaster)
	if !ok {
		return errors.ErrUnsupported
	}
	return sysError("setsockopt", m.Group(e.h, group, source, device, join))
}

// packetSpec turns an address into a datagram socket to open.
func packetSpec(netw, address string, c *connConfig) (*backend.Spec, error) {
	stream := map[string]string{"udp": "tcp", "udp4": "tcp4", "udp6": "tcp6", "unixgram": "unix"}[netw]
	if stream == "" {
		return nil, net.UnknownNetworkError(netw)
	}
	spec, err := listenSpec(stream, address, c)
	if err != nil {
		return nil, err
	}
	spec.Backlog = 0
	packetOptions(spec, c)
	return spec, nil
}

// connectedSpec turns the address of a peer into a datagram socket to open.
func connectedSpec(netw, address string, c *connConfig) (*backend.Spec, error) {
	spec := &backend.Spec{ReusePort: c.reusePort}
	if netw == "unixgram" {
		if address == "" {
			return nil, &net.AddrError{Err: "a UNIX socket needs a path or @name", Addr: address}
		}
		spec.Family, spec.Bind = backend.Unix, true
		spec.Local.Family = backend.Unix // a name of the system's choice
		spec.Peer = backend.Addr{Family: backend.Unix, Path: address}
		packetOptions(spec, c)
		return spec, nil
	}
	stream := map[string]string{"udp": "tcp", "udp4": "tcp4", "udp6": "tcp6"}[netw]
	if stream == "" {
		return nil, net.UnknownNetworkError(netw)
	}
	host, port, err := splitHostPort(stream, address)
	if err != nil {
		return nil, err
	}
	if host == "" || port == 0 {
		return nil, &net.AddrError{Err: "not an address to send to", Addr: address}
	}
	ip, err := listenIP(stream, host)
	switch {
	case err != nil:
		return nil, err
	case ip.IsUnspecified():
		return nil, &net.AddrError{Err: "not an address to connect to", Addr: address}
	}
	spec.Family, spec.IPv6, spec.Device = backend.Inet, !ip.Is4(), c.device
	spec.Peer = backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(zone.Named(ip), port)}
	if c.local.IsValid() {
		if c.local.Addr().Unmap().Is4() != ip.Is4() {
			return nil, &net.AddrError{Err: "the local address is of another family than the peer's", Addr: c.local.String()}
		}
		spec.Bind, spec.Local = true, backend.Addr{Family: backend.Inet, IP: unmap(c.local)}
	}
	packetOptions(spec, c)
	return spec, nil
}

// packetOptions sets what is asked for of a datagram socket.
func packetOptions(spec *backend.Spec, c *connConfig) {
	spec.Datagram, spec.ReuseAddr, spec.Options = true, c.reuseAddr, nil
	for _, o := range [...]backend.OptionValue{
		{Option: backend.SendBuffer, Value: c.sndbuf},
		{Option: backend.ReceiveBuffer, Value: c.rcvbuf},
		{Option: backend.Broadcast, Value: c.broadcast},
		{Option: backend.DontFragment, Value: c.noFragments},
	} {
		if o.Value > 0 {
			spec.Options = append(spec.Options, o)
		}
	}
	if c.groupHops > 0 {
		spec.Options = append(spec.Options, backend.OptionValue{Option: backend.MulticastHops, Value: c.groupHops - 1})
	}
	if c.groupLoop > 0 {
		spec.Options = append(spec.Options, backend.OptionValue{Option: backend.MulticastLoop, Value: c.groupLoop - 1})
	}
}

// LocalAddr is where the endpoint is; with port 0 asked for, the port that was
// picked. It stays readable after the close.
func (e *PacketEndpoint) LocalAddr() net.Addr { return packetAddr(&e.addr).NetAddr() }

// Local is LocalAddr as a PacketAddr.
func (e *PacketEndpoint) Local() PacketAddr { return packetAddr(&e.addr) }

// Peer is what the endpoint is connected to (ConnectPacket), also through layers; zero
// if it is to none. It stays readable after the close.
func (e *PacketEndpoint) Peer() PacketAddr { return e.peer }

// Loop is the loop that serves the endpoint.
func (e *PacketEndpoint) Loop() *Loop { return e.loop }

func packetAddr(a *backend.Addr) PacketAddr {
	if a.Family == backend.Unix {
		return PacketAddr{Path: a.Path}
	}
	return PacketAddr{IP: unmap(a.IP)}
}

func (e *PacketEndpoint) name() string { return e.netw + " " + e.Local().String() }

func (e *PacketEndpoint) begin() {
	if e.lost {
		return
	}
	e.made = true
	if v := e.call("EndpointMade", func() { e.proto.EndpointMade(e) }); v != nil {
		e.lose(v)
		return
	}
	e.rd.arm()
}

// call runs a callback and returns its panic, if any.
func (e *PacketEndpoint) call(where string, f func()) (err *PanicError) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Where: where, Conn: e.name(), Value: v, Stack: debug.Stack()}
		}
	}()
	f()
	return nil
}

// guard reports a panic in a callback; it is deferred around it.
func (e *PacketEndpoint) guard(where string) {
	if v := recover(); v != nil {
		e.loop.report(&PanicError{Where: where, Conn: e.name(), Value: v, Stack: debug.Stack()})
	}
}

// PauseReading stops PacketReceived. Datagrams wait in the system's buffer as
// far as there is room, and are lost beyond. ResumeReading lets it go on, never
// from inside. Calling it again has no effect.
func (e *PacketEndpoint) PauseReading() {
	if e.loop.check("PauseReading") != nil || e.rd.paused || e.ended() {
		return
	}
	e.rd.paused = true
	if e.feed != nil {
		e.feed.pause()
		return
	}
	e.loop.be.Cancel(&e.rd.op)
}

// ResumeReading undoes PauseReading.
func (e *PacketEndpoint) ResumeReading() {
	if e.loop.check("ResumeReading") != nil || !e.rd.paused || e.ended() {
		return
	}
	e.rd.paused = false
	e.loop.internalCall(e.rd.resume)
}

// Close sends what is buffered, then closes. No PacketReceived comes after it;
// one EndpointLost does. It returns nil, except for a misuse that WithDebug finds.
func (e *PacketEndpoint) Close() error {
	if err := e.loop.check("Close"); err != nil {
		return err
	}
	if e.ended() {
		return nil
	}
	e.closing = true
	e.rd.stop()
	if e.wr.idle() {
		e.flushed()
	}
	return nil
}

// flushed ends an endpoint that was closed and has sent everything.
func (e *PacketEndpoint) flushed() {
	if e.feed != nil {
		e.feed.close(false) // and Closed ends it
		return
	}
	e.lose(nil)
}

// Abort drops what is buffered and closes.
func (e *PacketEndpoint) Abort() {
	if e.loop.check("Abort") == nil {
		e.lose(ErrAborted)
	}
}

func (e *PacketEndpoint) ended() bool { return e.closing || e.lost }

// lose ends the endpoint. Its handle is closed at once, so that its address is
// free; EndpointLost comes from the queue.
func (e *PacketEndpoint) lose(err error) {
	if e.lost {
		return
	}
	e.wr.last()
	if e.lost {
		return
	}
	e.lost, e.reason = true, err
	e.rd.stop()
	e.wr.drop()
	if e.feed != nil {
		e.feed.close(true)
	} else {
		e.sock.shut(func() { e.loop.shutHandle(e.h, backend.CloseFlat) })
	}
	e.loop.internalCall(func() {
		e.loop.endpoints.Remove(&e.at)
		e.of.leavePackets()
		p := e.proto
		e.proto, e.failer, e.cutter, e.knower, e.pauser, e.drainer, e.ender = nil, nil, nil, nil, nil, nil, nil
		defer e.guard("EndpointLost")
		p.EndpointLost(e.reason)
	})
}

// failed tells of a datagram that came to nothing.
func (e *PacketEndpoint) failed(err error, to PacketAddr) {
	if e.failer == nil || e.lost {
		return
	}
	defer e.guard("PacketFailed")
	e.failer.PacketFailed(err, to)
}
