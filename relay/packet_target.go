package relay

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/zone"
)

// packetTarget is where datagrams go: a name with its addresses, or an address.
type packetTarget struct {
	p       *Packets
	at      int // in PacketConfig.Targets
	text    string
	host    string
	port    uint16
	literal bool

	addrs   []netip.AddrPort // in the order that the resolver has them
	wides   []netip.AddrPort // of those: the ones that others answer for
	best    netip.AddrPort   // of those: the one that answered last; not valid: none
	looked  time.Time        // when the last lookup ended
	cancel  func()           // ends the lookup under way; nil: there is none
	waiters []*PacketFlow    // that have datagrams for when it ends
	ended   int              // of those: flows that are over, at most
}

// lookEvery is how often a name is looked up at most. The resolver has a cache of its
// own, so that a server is only asked when the answer's time is over.
const lookEvery = time.Second

func newPacketTarget(p *Packets, text string) (*packetTarget, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, &net.AddrError{Err: "not a port to send to", Addr: text}
	}
	t := &packetTarget{p: p, at: len(p.targets), text: text, host: host, port: uint16(n)}
	if a, err := netip.ParseAddr(host); err == nil {
		t.literal = true
		t.addrs = []netip.AddrPort{netip.AddrPortFrom(zone.Named(a.Unmap()), t.port)}
		if allow := p.config.Allow; allow != nil {
			if err := allow(t.addrs[0]); err != nil {
				return nil, err
			}
		}
		t.widen()
	}
	return t, nil
}

// count is how many addresses are known.
func (t *packetTarget) count() int { return len(t.addrs) }

// first is the address that a new flow tries first; not valid if none is known.
func (t *packetTarget) first() netip.AddrPort {
	switch {
	case t.best.IsValid():
		return t.best
	case len(t.addrs) > 0:
		return t.addrs[0]
	}
	return netip.AddrPort{}
}

// after is the address that is tried after a, in turn.
func (t *packetTarget) after(a netip.AddrPort) netip.AddrPort {
	if len(t.addrs) == 0 {
		return netip.AddrPort{}
	}
	if a == t.best {
		t.best = netip.AddrPort{} // it does not do now
	}
	return t.addrs[(slices.Index(t.addrs, a)+1)%len(t.addrs)]
}

// look looks the name up again, unless that is under way or was just done. It
// reports whether a lookup is under way. now: do not wait for a flow that begins.
func (t *packetTarget) look(now bool) bool {
	switch {
	case t.literal || t.p.config.Path != nil || t.p.closed:
		return false
	case t.cancel != nil:
		return true
	case !t.looked.IsZero() && t.p.loop.Now().Sub(t.looked) < lookEvery:
		return false
	case !now && len(t.addrs) == 0:
		return false // the datagram does it
	}
	t.cancel = func() {}
	network := t.p.config.Network
	if t.p.config.Networks != nil {
		network = t.p.config.Networks[t.at]
	}
	family := "ip" + strings.TrimPrefix(network, "udp")
	t.cancel = t.p.config.Resolver.LookupNetIP(t.p.loop, family, t.host, t.found)
	return true
}

// found has the result of a lookup. If it failed, the addresses known before stay in use.
func (t *packetTarget) found(all []netip.Addr, err error) {
	t.cancel = nil
	t.looked = t.p.loop.Now()
	var addrs []netip.AddrPort
	for _, a := range all {
		to := netip.AddrPortFrom(zone.Named(a.Unmap()), t.port)
		if allow := t.p.config.Allow; allow != nil {
			if e := allow(to); e != nil {
				err = e
				continue
			}
		}
		if !slices.Contains(addrs, to) {
			addrs = append(addrs, to)
		}
	}
	switch {
	case len(addrs) > 0:
		t.addrs = addrs
		t.widen()
		if !slices.Contains(addrs, t.best) {
			t.best = netip.AddrPort{}
		}
	case err != nil:
		t.p.trouble(err, weir.PacketAddr{})
	}
	waiters := t.waiters
	t.waiters, t.ended = nil, 0
	for _, f := range waiters {
		f.release(t.first().IsValid())
	}
}

// stop ends the lookup under way.
func (t *packetTarget) stop() {
	if t.cancel != nil {
		t.cancel()
		t.cancel = nil
	}
	t.waiters, t.ended = nil, 0
}

// gaveUp notes that a flow that waits is over. Those of a flood of forged addresses would
// pile up until the lookup ends.
func (t *packetTarget) gaveUp() {
	if t.ended++; t.ended > 16+len(t.waiters)/2 {
		t.waiters = slices.DeleteFunc(t.waiters, func(f *PacketFlow) bool { return f.over })
		t.ended = 0
	}
}

// widen finds the addresses that others answer for: groups, broadcasts and the
// unspecified one.
func (t *packetTarget) widen() {
	t.wides = nil
	for _, a := range t.addrs {
		if ip := a.Addr(); ip.IsMulticast() || ip.IsUnspecified() || isBroadcast(ip) {
			t.wides = append(t.wides, a)
		}
	}
}

// wide reports whether answers to an address come from others.
func (t *packetTarget) wide(a netip.AddrPort) bool { return slices.Contains(t.wides, a) }

// answersFor reports whether an answer to a, which is wide, may come from another
// address. To an unspecified address is to this machine.
func (t *packetTarget) answersFor(a, from netip.AddrPort) bool {
	return !a.Addr().IsUnspecified() || from.Port() == a.Port()
}

// isBroadcast reports whether an address is the broadcast one of this machine's
// networks, or of the one that it is in.
func isBroadcast(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	if a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return true
	}
	if b := a.As4(); b[3]&1 == 0 {
		return false
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, i := range all {
		n, ok := i.(*net.IPNet)
		if !ok || n.IP.To4() == nil || len(n.Mask) != 4 || n.Mask[3] == 0xff {
			continue
		}
		own, b := n.IP.To4(), a.As4()
		last := true
		for k := range b {
			last = last && b[k] == own[k]|^n.Mask[k]
		}
		if last {
			return true
		}
	}
	return false
}
