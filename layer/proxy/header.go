package proxy

import (
	"net"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// HeaderVersion is a version of the PROXY protocol.
type HeaderVersion uint8

// The versions.
const (
	HeaderV1 HeaderVersion = 1
	HeaderV2 HeaderVersion = 2
)

// defaultHeaderTimeout is how long a peer may take to send its header.
const defaultHeaderTimeout = 5 * time.Second

// HeaderIn returns a layer that reads the header of the PROXY protocol, version
// 1 or 2, with which a proxy begins the stream. The transport above has the IP
// addresses in the header, as *net.TCPAddrs, since it is a stream whatever the
// proxy's client spoke (UDP4, UDP6). If the header has other addresses or none
// (UNIX, UNSPEC, LOCAL), the transport keeps its own, as the protocol tells a
// receiver to do with a family that it has no use for; HeaderOf returns what
// the header said. trusted lists the peers that may, and must, send a header;
// an empty list means loopback. Peers without an IP address are trusted too:
// the file of a UNIX socket says who may connect to it. Other peers are refused
// with an *AccessError, and so is a stream that begins with anything else. The
// whole header has to arrive within timeout; 0 means 5 s, and a negative value
// no bound. The layer steps aside after the header.
func HeaderIn(trusted []netip.Prefix, timeout time.Duration) layer.Layer {
	if timeout == 0 {
		timeout = defaultHeaderTimeout
	}
	if len(trusted) == 0 {
		trusted = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8), netip.PrefixFrom(netip.IPv6Loopback(), 128)}
	}
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(t weir.Transport) weir.Protocol {
			w := &headerWire{}
			o := &opening{name: "proxy-in", wire: w, above: a, stage: weir.StageProxy, limit: timeout}
			switch peer, ok := addrPortOf(t.RemoteAddr()); {
			case !ok || contains(trusted, peer.Addr()):
			case peer.Port() == 0 && peer.Addr().IsUnspecified():
				// It was reset before we asked for its address (io_uring).
				o.wire = &noWire{err: layer.ErrEarlyEnd}
			default:
				o.wire = &noWire{err: &AccessError{Addr: peer.Addr(), Problem: NotListed}}
			}
			o.overlay = func(t weir.Transport, _ event) weir.Transport {
				top := &headedTransport{overlay: overlay{Transport: t}, h: &w.h}
				if src, ok := addrPortOf(w.h.Source); ok && !w.h.Local {
					dst, _ := addrPortOf(w.h.Destination) // both addresses in a header are of one family
					top.local, top.remote = net.TCPAddrFromAddrPort(dst), net.TCPAddrFromAddrPort(src)
				}
				return top
			}
			return o
		}}
	}
}

// headedTransport is the transport above HeaderIn.
type headedTransport struct {
	overlay
	h *Header
}

func (t *headedTransport) proxyHeader() *Header { return t.h }

// HeaderOf returns the header that a connection began with, through any layers
// on top, or nil if there was none.
func HeaderOf(t weir.Transport) *Header {
	if p, ok := weir.As[interface{ proxyHeader() *Header }](t); ok {
		return p.proxyHeader()
	}
	return nil
}

// HeaderOut returns a layer that begins the stream with a header of the PROXY
// protocol, which says that this connection carries one from src to dst. If one
// of them is nil, or cannot be expressed in that version, the header says that
// the connection is the sender's own (UNKNOWN, LOCAL). The layer waits for
// nothing and steps aside at once.
func HeaderOut(v HeaderVersion, src, dst net.Addr) layer.Layer {
	header := appendHeader2(nil, src, dst)
	if v == HeaderV1 {
		header = appendHeader1(nil, src, dst)
	}
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			return &heading{header: header, above: a}
		}}
	}
}

// heading writes a header and gives way to the protocol above.
type heading struct {
	weir.NopProtocol
	header []byte
	above  layer.Above
}

var _ weir.Protocol = (*heading)(nil)

func (h *heading) ConnectionMade(t weir.Transport) {
	_, _ = t.Write(h.header) // if it is lost, the protocol above is told why
	above := h.above
	h.above = layer.Above{}
	if !handOver(t, t, above, nil) {
		_ = t.Close() // always nil
	}
}
