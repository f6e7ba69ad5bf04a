package layer

import (
	"net"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
)

// ProxyVersion is a version of the PROXY protocol.
type ProxyVersion uint8

// The versions.
const (
	ProxyV1 ProxyVersion = 1
	ProxyV2 ProxyVersion = 2
)

// defaultProxyHeaderTimeout is how long a peer may take to send its header.
const defaultProxyHeaderTimeout = 5 * time.Second

// ProxyIn reads the header of the PROXY protocol, version 1 or 2, with which a
// proxy begins the stream: the transport above has the IP addresses that it says,
// as *net.TCPAddrs, for it is a stream whatever the proxy's client spoke (UDP4,
// UDP6). Where it says others, or none (UNIX, UNSPEC, LOCAL), the transport keeps
// its own, as the protocol tells a receiver to do with a family that it has no
// use for; ProxyHeaderOf has what was said.
// trusted are the peers that may, and must, send one; none are loopback. Those
// that have no IP address are trusted too: who may connect to a UNIX socket is
// said by its file. Others are refused with an *AccessError, and a stream that begins
// with anything else is refused as well. The header has to be there whole within
// timeout; 0 is 5 s, below 0 no bound. The layer steps aside behind the header.
func ProxyIn(trusted []netip.Prefix, timeout time.Duration) Layer {
	if timeout == 0 {
		timeout = defaultProxyHeaderTimeout
	}
	if len(trusted) == 0 {
		trusted = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8), netip.PrefixFrom(netip.IPv6Loopback(), 128)}
	}
	return func(a Above) Above {
		return Above{Failed: a.Failed, Make: func(t weir.Transport) weir.Protocol {
			w := &proxyWire{}
			o := &opening{name: "proxy-in", wire: w, above: a, stage: weir.StageProxy, limit: timeout}
			if peer, ok := addrPortOf(t.RemoteAddr()); ok && !contains(trusted, peer.Addr()) {
				o.wire = &noWire{err: &AccessError{Addr: peer.Addr(), Problem: NotListed}}
			}
			o.overlay = func(t weir.Transport, _ event) weir.Transport {
				top := &proxiedTransport{overlay: overlay{Transport: t}, h: &w.h}
				if src, ok := addrPortOf(w.h.Source); ok && !w.h.Local {
					dst, _ := addrPortOf(w.h.Destination) // a header has both of one family
					top.local, top.remote = net.TCPAddrFromAddrPort(dst), net.TCPAddrFromAddrPort(src)
				}
				return top
			}
			return o
		}}
	}
}

// proxiedTransport is the transport above ProxyIn.
type proxiedTransport struct {
	overlay
	h *ProxyHeader
}

func (t *proxiedTransport) proxyHeader() *ProxyHeader { return t.h }

// ProxyHeaderOf finds the header that a connection began with, through any
// layers on top; nil where there was none.
func ProxyHeaderOf(t weir.Transport) *ProxyHeader {
	if p, ok := weir.As[interface{ proxyHeader() *ProxyHeader }](t); ok {
		return p.proxyHeader()
	}
	return nil
}

// ProxyOut begins the stream with a header of the PROXY protocol, which says
// that the connection is passed on for one from src to dst. Where one of them is
// nil, or none that the version can say, the header says that it is the peer's
// own (UNKNOWN, LOCAL). Nothing is waited for, and the layer steps aside at once.
func ProxyOut(v ProxyVersion, src, dst net.Addr) Layer {
	header := appendProxy2(nil, src, dst)
	if v == ProxyV1 {
		header = appendProxy1(nil, src, dst)
	}
	return func(a Above) Above {
		return Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			return &heading{header: header, above: a}
		}}
	}
}

// heading writes a header and gives its place to the protocol above.
type heading struct {
	header []byte
	above  Above
}

// ConnectionMade implements weir.Protocol.
func (h *heading) ConnectionMade(t weir.Transport) {
	_, _ = t.Write(h.header) // if it is lost, the protocol above hears why
	above := h.above
	h.above = Above{}
	if !handOver(t, t, above, nil) {
		_ = t.Close() // always nil
	}
}

// DataReceived implements weir.Protocol; it cannot be called.
func (h *heading) DataReceived([]byte) (int, error) { return 0, nil }

// ConnectionLost implements weir.Protocol: what is above refused.
func (h *heading) ConnectionLost(error) {}
