package proxy

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/weir-io/weir"
)

// AssociationCount counts the datagrams of a UDP association. One that fails after the system
// took it moves from Out or Back to Dropped when the network or the system says so, while the
// association lasts.
type AssociationCount struct {
	Out, Back           int64 // passed on, to destinations and to the client
	BytesOut, BytesBack int64 // of their data; for one that fails later, the mean is taken off: no one says its length
	Dropped             int64 // could not be sent, were refused by the network, or could not be read
	Refused             int64 // fragments, and those that the rules forbid
	Took                time.Duration
}

// The bounds of one association.
const (
	associateHosts = 1024     // destinations that may answer; the first of them is forgotten
	associateNames = 16       // names that are looked up at once
	associateHeld  = 8        // datagrams that wait for one of them
	associateBytes = 64 << 10 // of all that wait
	associateKnown = 256      // names that were found, each with one port
	associateAddrs = 16       // addresses of one that are tried
	// associateFresh is how long a name is not looked up again.
	associateFresh = 5 * time.Second
)

// Associate serves a request for CommandAssociate: datagrams of the client, which come
// to a port of its own, go to where each says, within the rules, and what those
// destinations answer goes back. r is t's, and was not answered yet. The protocol that
// is returned is to be t's. The association lasts as long as t; a port is opened on
// t's local address.
//
//	client ── TCP ───────── open as long as the association ──────┐
//	client ◀─ datagrams ──▶ port on t's address ◀──▶ ports ◀──▶ destinations
//
// Datagrams are taken from the address of the client's connection only, and from one
// port: the one that the client has announced, or that of the first datagram. Answers
// are taken from addresses and ports that the client has sent to. Names are resolved
// here: when the network refuses what is sent to one of a name's addresses, the next datagram
// goes to the next address; one that is refused at once goes there itself. Fragments are refused, as RFC 1928 allows.
func (d *Dialer) Associate(t weir.Transport, r *Request) weir.Protocol {
	r.Hold()
	a := &association{
		d: d, loop: t.Loop(), t: t, r: r, began: t.Loop().Now(),
		known: map[namedPort]*knownName{}, hosts: map[netip.AddrPort]struct{}{},
	}
	if d.Access != nil {
		a.rules = *d.Access
	}
	if a.rules.Own == nil {
		a.rules.Own = a.loop.ListenAddrs
	}
	a.resolver = d.Resolver
	if a.resolver == nil {
		a.resolver = a.loop.Resolver()
	}
	return a
}

// association is the protocol of a client's connection with an association.
type association struct {
	weir.NopProtocol // the client has nothing to say there
	d                *Dialer
	loop             *weir.Loop
	t                weir.Transport
	r                *Request
	rules            Access
	resolver         weir.Resolver
	began            time.Time
	over             bool
	made             bool // the client was told

	in     *weir.PacketEndpoint
	client netip.AddrPort // port 0: not known yet
	out    [2]*weir.PacketEndpoint
	buf    []byte

	hosts   map[netip.AddrPort]struct{} // that may answer
	order   []netip.AddrPort            // the same, in a circle
	turn    int                         // in order
	known   map[namedPort]*knownName
	listed  []*knownName // the same
	pending []*pendingName
	waiting int // bytes of their datagrams
	count   AssociationCount
}

var _ weir.Protocol = (*association)(nil)

// namedPort is where a client sends to by name. Its ports are apart: where one is closed at an
// address, others may be open.
type namedPort struct {
	name string
	port uint16
}

// knownName is the addresses of a name that the rules allow, at least one.
type knownName struct {
	port  uint16
	addrs []netip.Addr
	turn  int // the one that is sent to
	at    time.Time
}

func (k *knownName) current() netip.Addr { return k.addrs[k.turn] }

func (k *knownName) next() { k.turn = (k.turn + 1) % len(k.addrs) }

// pendingName is a name that is looked up, with the datagrams that wait for it.
type pendingName struct {
	to     namedPort
	cancel func()
	held   [][]byte
}

func (a *association) ConnectionMade(weir.Transport) {
	local, ok := addrPortOf(a.t.LocalAddr())
	remote, ok2 := addrPortOf(a.t.RemoteAddr())
	if !ok || !ok2 { // a UNIX socket has no address for datagrams
		a.refuse(ErrCommand)
		return
	}
	a.client = netip.AddrPortFrom(remote.Addr(), 0)
	host, port, err := splitDestination(a.r.Destination())
	if ip, e := netip.ParseAddr(host); err == nil && e == nil && ip.Unmap() == remote.Addr() {
		a.client = netip.AddrPortFrom(remote.Addr(), port) // no one has translated it on the way
	}
	in, err := a.loop.ListenPacket(networkOf(local.Addr()), netip.AddrPortFrom(local.Addr(), 0).String(), (*associationIn)(a))
	if err != nil {
		a.refuse(err)
		return
	}
	a.in, a.made = in, true
	a.r.Accept(in.LocalAddr())
	if a.d.Associated != nil {
		a.d.Associated(a.r, in.LocalAddr())
	}
}

func networkOf(a netip.Addr) string {
	if a.Is4() {
		return "udp4"
	}
	return "udp6"
}

func (a *association) refuse(err error) {
	a.end()
	a.r.Refuse(err)
	if a.d.Failed != nil {
		a.d.Failed(a.r, err)
	}
}

func (a *association) ConnectionLost(error) { a.end() }

// end ends the association, and hears no more.
func (a *association) end() {
	if a.over {
		return
	}
	a.over = true
	for _, e := range [...]*weir.PacketEndpoint{a.in, a.out[0], a.out[1]} {
		if e != nil {
			e.Abort()
		}
	}
	for _, n := range a.pending {
		n.cancel()
		a.count.Dropped += int64(len(n.held))
	}
	if a.made && a.d.Dissociated != nil {
		a.count.Took = a.loop.Now().Sub(a.began)
		a.d.Dissociated(a.r, a.count)
	}
}

// fromClient passes a datagram on that the client has sent.
func (a *association) fromClient(p []byte, from netip.AddrPort) {
	if from.Addr() != a.client.Addr() || a.client.Port() != 0 && from.Port() != a.client.Port() {
		a.count.Refused++
		return
	}
	to, name, data, ok := udpHead(p)
	if !ok {
		if len(p) > 2 && p[2] != 0 {
			a.count.Refused++ // a fragment
		} else {
			a.count.Dropped++
		}
		return
	}
	a.client = from
	if name != nil {
		a.sendToName(string(name), to.Port(), data)
		return
	}
	a.send(to, data)
}

// send sends to a destination, within the rules.
func (a *association) send(to netip.AddrPort, data []byte) { a.sent(a.try(to, data), data) }

// sendKnown sends to the addresses of a name, until one is not refused at once.
func (a *association) sendKnown(k *knownName, port uint16, data []byte) {
	var err error
	for range k.addrs {
		if err = a.try(netip.AddrPortFrom(k.current(), port), data); !addressFails(err) {
			break
		}
		k.next()
	}
	a.sent(err, data)
}

var (
	errForbidden = errors.New("forbidden by the rules")
	errNoSocket  = errors.New("no socket")
)

// try sends to a destination, within the rules.
func (a *association) try(to netip.AddrPort, data []byte) error {
	if a.rules.CheckAddrPort(to) != nil {
		return errForbidden
	}
	e := a.outFor(to.Addr())
	if e == nil {
		return errNoSocket
	}
	if err := e.SendTo(data, weir.PacketAddr{IP: to}); err != nil {
		return err
	}
	a.answers(to)
	return nil
}

// addressFails reports whether an error, of sending to an address or from the network, says that
// another address may do.
func addressFails(err error) bool {
	return slices.ContainsFunc([]error{
		errForbidden, errNoSocket, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN,
		syscall.EAFNOSUPPORT, syscall.EADDRNOTAVAIL, syscall.EACCES, syscall.EPERM, syscall.EINVAL,
	}, func(e error) bool { return errors.Is(err, e) })
}

// sent counts a datagram of the client's.
func (a *association) sent(err error, data []byte) {
	switch {
	case err == nil:
		a.count.Out++
		a.count.BytesOut += int64(len(data))
	case errors.Is(err, errForbidden):
		a.count.Refused++
	default:
		a.count.Dropped++
	}
}

// outFor is the endpoint that sends to an address; nil if there can be none.
func (a *association) outFor(to netip.Addr) *weir.PacketEndpoint {
	i, any := 0, "0.0.0.0:0"
	if to.Is6() {
		i, any = 1, "[::]:0"
	}
	if a.out[i] == nil {
		e, err := a.loop.ListenPacket(networkOf(to), any, (*associationOut)(a))
		if err != nil {
			return nil
		}
		a.out[i] = e
	}
	return a.out[i]
}

// answers lets a destination answer.
func (a *association) answers(to netip.AddrPort) {
	if _, ok := a.hosts[to]; ok {
		return
	}
	if len(a.order) < associateHosts {
		a.order = append(a.order, to)
	} else {
		delete(a.hosts, a.order[a.turn])
		a.order[a.turn] = to
		a.turn = (a.turn + 1) % associateHosts
	}
	a.hosts[to] = struct{}{}
}

// sendToName sends to a name, once it is resolved.
func (a *association) sendToName(name string, port uint16, data []byte) {
	if ip, err := netip.ParseAddr(name); err == nil {
		a.send(netip.AddrPortFrom(ip.Unmap().WithZone(""), port), data)
		return
	}
	to := namedPort{name, port}
	if k := a.known[to]; k != nil && a.loop.Now().Sub(k.at) < associateFresh {
		a.sendKnown(k, port, data)
		return
	}
	var n *pendingName
	if i := slices.IndexFunc(a.pending, func(n *pendingName) bool { return n.to == to }); i >= 0 {
		n = a.pending[i]
	}
	switch {
	case n == nil && (len(a.pending) == associateNames || checkName(name) != nil), n != nil && len(n.held) == associateHeld, a.waiting+len(data) > associateBytes:
		a.count.Dropped++
		return
	case n == nil:
		n = &pendingName{to: to, cancel: func() {}}
		a.pending = append(a.pending, n)
		n.cancel = a.resolver.LookupNetIP(a.loop, "ip", name, func(all []netip.Addr, _ error) { a.found(n, all) })
	}
	a.waiting += len(data)
	n.held = append(n.held, append([]byte{}, data...))
}

// found has the addresses of a name: those that the rules allow are used, the one first that
// was used before.
func (a *association) found(n *pendingName, all []netip.Addr) {
	if a.over {
		return
	}
	a.pending = slices.DeleteFunc(a.pending, func(o *pendingName) bool { return o == n })
	for _, data := range n.held {
		a.waiting -= len(data)
	}
	k := &knownName{port: n.to.port, at: a.loop.Now()}
	for _, ip := range all {
		if ip = ip.Unmap(); a.rules.Check(ip) == nil && len(k.addrs) < associateAddrs {
			k.addrs = append(k.addrs, ip)
		}
	}
	if len(k.addrs) == 0 {
		if len(all) > 0 {
			a.count.Refused += int64(len(n.held))
		} else {
			a.count.Dropped += int64(len(n.held))
		}
		return
	}
	if old := a.known[n.to]; old != nil {
		k.turn = max(0, slices.Index(k.addrs, old.current()))
		*old = *k
		k = old
	} else {
		if len(a.known) >= associateKnown {
			clear(a.known)
			a.listed = nil
		}
		a.known[n.to] = k
		a.listed = append(a.listed, k)
	}
	for _, data := range n.held {
		a.sendKnown(k, n.to.port, data)
	}
}

// refused has names that send to an address go on to their next one.
func (a *association) refused(to netip.AddrPort) {
	for _, k := range a.listed {
		if k.port == to.Port() && k.current() == to.Addr() {
			k.next()
		}
	}
}

// failed counts a datagram that failed after it was counted in packets and bytes as passed on,
// or one that came and was too long to be taken. It counts none where a destination's host
// refuses one twice.
func (a *association) failed(packets, bytes *int64, err error, to weir.PacketAddr) {
	switch {
	case errors.Is(err, weir.ErrTruncated):
		a.count.Dropped++
	case to != (weir.PacketAddr{}) && *packets > 0:
		*bytes -= *bytes / *packets
		*packets--
		a.count.Dropped++
	}
}

// associationIn is the protocol of the endpoint that the client sends to.
type associationIn association

var (
	_ weir.PacketProtocol = (*associationIn)(nil)
	_ weir.PacketFailer   = (*associationIn)(nil)
)

func (a *associationIn) EndpointMade(*weir.PacketEndpoint) {}

func (a *associationIn) PacketReceived(p []byte, from weir.PacketAddr) {
	(*association)(a).fromClient(p, from.IP)
}

func (a *associationIn) PacketFailed(err error, to weir.PacketAddr) {
	(*association)(a).failed(&a.count.Back, &a.count.BytesBack, err, to)
}

func (a *associationIn) EndpointLost(err error) {
	if !a.over {
		(*association)(a).end()
		a.t.Abort()
	}
}

// associationOut is the protocol of the endpoints that send to destinations.
type associationOut association

var (
	_ weir.PacketProtocol = (*associationOut)(nil)
	_ weir.PacketFailer   = (*associationOut)(nil)
)

func (a *associationOut) EndpointMade(*weir.PacketEndpoint) {}

func (a *associationOut) PacketReceived(p []byte, from weir.PacketAddr) {
	if _, ok := a.hosts[from.IP]; !ok || a.over {
		a.count.Refused++
		return
	}
	a.buf = append(putUDPHead(a.buf[:0], from.IP), p...)
	if err := a.in.SendTo(a.buf, weir.PacketAddr{IP: a.client}); err != nil {
		a.count.Dropped++
		return
	}
	a.count.Back++
	a.count.BytesBack += int64(len(p))
}

func (a *associationOut) PacketFailed(err error, to weir.PacketAddr) {
	(*association)(a).failed(&a.count.Out, &a.count.BytesOut, err, to)
	if to.IP.IsValid() && addressFails(err) {
		(*association)(a).refused(to.IP)
	}
}

func (a *associationOut) EndpointLost(error) {
	if !a.over {
		(*association)(a).end()
		a.t.Abort()
	}
}
