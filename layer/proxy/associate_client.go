package proxy

import (
	"errors"
	"net"
	"net/netip"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// AssociationConfig says how to reach a proxy, and who hears of what.
type AssociationConfig struct {
	// Connect connects p to the proxy, calls nothing back from inside, and returns how
	// to end that. Layers may stand below p; datagrams do not pass them.
	//
	//	func(l *weir.Loop, p weir.Protocol) func() {
	//		c := l.Connect("tcp", "proxy.example:1080", p)
	//		return func() { c.Stop() }
	//	}
	Connect func(l *weir.Loop, p weir.Protocol) (stop func())
	// Client are options such as WithCredentials and WithTimeout.
	Client []ClientOption
	// Options are for the endpoint that sends to the proxy.
	Options []weir.PacketOption

	// Received hears what came through the proxy; data is lent for the call. from is
	// not valid where the proxy says a name.
	Received func(data []byte, from netip.AddrPort)
	// Trouble hears of each datagram that was taken and could not be sent: weir.ErrClosed
	// where the association was closed first. It may be nil.
	Trouble func(err error)
	// Room is what this association and others that have the same Room may keep together
	// while their proxies are being reached; nil: it shares with none.
	Room *AssociationRoom
	// Lost hears once, last of all, that the association is over: nil after Close. An
	// error is a *weir.ConnectError where it never was, else the one that ended it.
	Lost func(err error)
}

// AssociationRoom bounds what associations of one loop keep together. The zero value is
// ready to use. It belongs to the loop's goroutine.
type AssociationRoom struct{ bytes int }

// Association is a client's UDP association with a SOCKS5 proxy (RFC 1928, 7): it
// sends datagrams to any destination from one port of the proxy's, and receives what
// comes to that port. It lasts as long as its connection to the proxy. Its methods
// belong to the loop's goroutine.
//
//	connecting: datagrams wait ──▶ open ──▶ over
type Association struct {
	c    AssociationConfig
	loop *weir.Loop
	stop func()
	t    weir.Transport // of the connection; nil: it is not there yet
	up   *weir.PacketEndpoint
	at   netip.AddrPort // where the proxy takes datagrams
	held [][]byte       // with what stands in front of them
	kept int            // their bytes
	buf  []byte
	over bool
}

// What waits for a proxy's answer.
const (
	associationHeld  = 8         // datagrams of an association
	associationBytes = 64 << 10  // their bytes, with what stands in front of them
	associationsMost = 256 << 10 // of all associations that share a Room
)

// errAssociateAddr is reported where a proxy's answer does not say where it takes
// datagrams.
var errAssociateAddr = errors.New("the proxy does not say where to send datagrams")

// NewAssociation begins an association. Nothing is called back from inside.
func NewAssociation(l *weir.Loop, c AssociationConfig) *Association {
	if c.Room == nil {
		c.Room = &AssociationRoom{}
	}
	a := &Association{c: c, loop: l}
	opts := append([]ClientOption{}, c.Client...)
	opts = append(opts, func(c *clientConfig) { c.associate = true })
	// The proxy is not told where from: the endpoint's address is not known before it
	// is, nor what a network makes of it on the way.
	p := &associationEnd{a: a}
	a.stop = c.Connect(l, layer.Client(p, remember(p), SOCKS5("0.0.0.0:0", opts...)))
	return a
}

// remember is a layer that is not there: it notes where the proxy is, since the layer
// above it says where the proxy takes datagrams.
func remember(p *associationEnd) layer.Layer {
	return func(above layer.Above) layer.Above {
		return layer.Above{Failed: above.Failed, Make: func(t weir.Transport) weir.Protocol {
			p.proxy = t.RemoteAddr()
			return above.Make(t)
		}}
	}
}

// SendTo sends p, which may be empty, to an address. Before the proxy has answered, 8
// datagrams are kept, and 64 KiB of them, but no more than 256 KiB of all associations
// that share a Room. p may be used again. An error is about this datagram; it is
// weir.ErrSendBufferFull where it was dropped for lack of room, and weir.ErrClosed
// when the association is over.
func (a *Association) SendTo(p []byte, to netip.AddrPort) error {
	if !to.IsValid() || to.Port() == 0 || to.Addr().Zone() != "" {
		return &net.AddrError{Err: "not an address that a proxy can send to", Addr: to.String()}
	}
	return a.send(append(putUDPHead(a.buf[:0], to), p...))
}

// SendToHost is SendTo for a host that may be a name, which the proxy resolves.
func (a *Association) SendToHost(p []byte, host string, port uint16) error {
	if ip, err := netip.ParseAddr(host); err == nil {
		return a.SendTo(p, netip.AddrPortFrom(ip, port))
	}
	if len(host) > 255 || port == 0 || checkName(host) != nil {
		return &net.AddrError{Err: "not a name that a proxy can send to", Addr: joinDestination(host, port)}
	}
	return a.send(append(putAddr5(append(a.buf[:0], 0, 0, 0), host, port), p...))
}

func (a *Association) send(datagram []byte) error {
	a.buf = datagram
	switch {
	case a.over:
		return weir.ErrClosed
	case a.up != nil:
		return a.up.SendTo(datagram, weir.PacketAddr{IP: a.at})
	case len(a.held) == associationHeld, a.kept+len(datagram) > associationBytes, a.c.Room.bytes+len(datagram) > associationsMost:
		return weir.ErrSendBufferFull
	}
	a.held = append(a.held, append([]byte{}, datagram...))
	a.kept += len(datagram)
	a.c.Room.bytes += len(datagram)
	return nil
}

// take takes back what has waited for the proxy.
func (a *Association) take() [][]byte {
	held := a.held
	a.c.Room.bytes -= a.kept
	a.held, a.kept = nil, 0
	return held
}

// Close ends the association. Trouble hears at once of each datagram that still waits for
// the proxy, Lost later.
func (a *Association) Close() { a.end(nil) }

// end ends the association for a reason. What waits for the proxy is told of at once, and
// the end from the loop's queue.
func (a *Association) end(err error) {
	if a.over {
		return
	}
	a.over = true
	a.stop()
	if a.t != nil {
		_ = a.t.Close() // always nil
	}
	if a.up != nil {
		_ = a.up.Close() // nil on its own loop; what it has taken still leaves
	}
	why := err
	if why == nil {
		why = weir.ErrClosed
	}
	for range a.take() {
		if a.c.Trouble != nil {
			a.c.Trouble(why)
		}
	}
	a.loop.Soon(func() {
		if a.c.Lost != nil {
			a.c.Lost(err)
		}
	})
}

// open is called when the proxy has answered.
func (a *Association) open(t weir.Transport, proxy net.Addr) error {
	at, ok := addrPortOf(t.RemoteAddr())
	if ok && at.Addr().IsUnspecified() { // where it is itself
		var host netip.AddrPort
		host, ok = addrPortOf(proxy)
		at = netip.AddrPortFrom(host.Addr(), at.Port())
	}
	if ok && at.Addr().IsLinkLocalUnicast() && at.Addr().Is6() { // on the link that it is reached by
		if host, known := addrPortOf(proxy); known {
			at = netip.AddrPortFrom(at.Addr().WithZone(host.Addr().Zone()), at.Port())
		}
	}
	if !ok || at.Port() == 0 {
		return errAssociateAddr
	}
	any := "0.0.0.0:0"
	if at.Addr().Is6() {
		any = "[::]:0"
	}
	up, err := a.loop.ListenPacket(networkOf(at.Addr()), any, (*associationUp)(a), a.c.Options...)
	if err != nil {
		return err
	}
	a.up, a.at = up, at
	for _, p := range a.take() {
		if err := up.SendTo(p, weir.PacketAddr{IP: at}); err != nil {
			a.trouble(err)
		}
	}
	return nil
}

func (a *Association) trouble(err error) {
	if a.c.Trouble != nil && !a.over {
		a.c.Trouble(err)
	}
}

// associationEnd is the protocol of the connection to the proxy.
type associationEnd struct {
	weir.NopProtocol // the proxy has nothing to say there
	a                *Association
	proxy            net.Addr
}

var (
	_ weir.Protocol      = (*associationEnd)(nil)
	_ weir.ConnectFailer = (*associationEnd)(nil)
)

func (p *associationEnd) ConnectionMade(t weir.Transport) {
	p.a.t = t
	if p.a.over {
		_ = t.Close() // always nil
		return
	}
	if err := p.a.open(t, p.proxy); err != nil {
		p.a.end(err)
	}
}

// ConnectionLost implements weir.Protocol: it ends the association.
func (p *associationEnd) ConnectionLost(err error) {
	if err == nil {
		err = layer.ErrEarlyEnd
	}
	p.a.end(err)
}

func (p *associationEnd) ConnectFailed(err *weir.ConnectError) { p.a.end(err) }

// associationUp is the protocol of the endpoint that sends to the proxy.
type associationUp Association

var (
	_ weir.PacketProtocol = (*associationUp)(nil)
	_ weir.PacketFailer   = (*associationUp)(nil)
)

func (a *associationUp) EndpointMade(*weir.PacketEndpoint) {}

// PacketReceived implements weir.PacketProtocol. What does not come from the proxy, or
// is a fragment, is dropped.
func (a *associationUp) PacketReceived(p []byte, from weir.PacketAddr) {
	if from.IP != a.at || a.over {
		return
	}
	source, name, data, ok := udpHead(p)
	if !ok || a.c.Received == nil {
		return
	}
	if name != nil {
		source = netip.AddrPort{}
	}
	a.c.Received(data, source)
}

func (a *associationUp) PacketFailed(err error, _ weir.PacketAddr) { (*Association)(a).trouble(err) }

func (a *associationUp) EndpointLost(err error) {
	if !a.over {
		(*Association)(a).end(err)
	}
}
