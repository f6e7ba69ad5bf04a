package endpoint

import (
	"net/netip"
	"strconv"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/proxy"
)

// ThroughProxy reports whether the datagrams of an endpoint go through a SOCKS5 proxy.
func (e *Endpoint) ThroughProxy() bool {
	return e.kind.Packets != nil && e.Role() == Dial && len(e.layers) > 0 && e.layers[0].PacketWay
}

// PacketTarget is where the datagrams of an endpoint that sends go in the end,
// "host:port": to what its proxy is asked for, where there is one.
func (e *Endpoint) PacketTarget() string {
	if e.ThroughProxy() {
		return hostPort(e.Layers[0].ArgText())
	}
	return hostPort(e.Base.ArgText())
}

// Associations prepares associations with the proxy that ThroughProxy is about, and
// returns how to make one for the target: a PacketWay, whose datagrams go there. c says
// who hears of what. Errors are those of Prepare.
func (e *Endpoint) Associations(env *Env) (func(c proxy.AssociationConfig) *PacketWay, error) {
	opts, err := proxyClientOptions(env, e.Layers[0], true)
	if err != nil {
		return nil, &LayerError{Layer: e.layers[0].Name, Err: err}
	}
	host, port, _ := splitHostPort(e.Layers[0].ArgText()) // it was checked
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, &LayerError{Layer: e.layers[0].Name, Err: err}
	}
	host = unbracket(host)
	literal, _ := netip.ParseAddr(host)
	network, device := "tcp"+e.Base.Value("family"), e.kind.Packets(e.Base).Options
	var by []weir.ConnectOption
	if e.Base.Has("interface") {
		by = append(by, weir.WithDevice(e.Base.Value("interface")))
	}
	room := &proxy.AssociationRoom{}
	return func(c proxy.AssociationConfig) *PacketWay {
		c.Client, c.Options, c.Room = opts, append(c.Options, device...), room
		c.Connect = func(l *weir.Loop, p weir.Protocol) func() {
			options := append([]weir.ConnectOption{weir.WithConnectTimeout(connectMost)}, by...)
			if env.Resolver != nil {
				options = append(options, weir.WithConnectResolver(env.Resolver))
			}
			k := l.Connect(network, hostPort(e.Base.ArgText()), p, options...)
			return func() { k.Stop() }
		}
		return &PacketWay{proxy.NewAssociation(env.Loop, c), host, netip.AddrPortFrom(literal.Unmap(), uint16(number))}
	}, nil
}

// PacketWay is an association whose datagrams go to one destination. It is a
// relay.PacketPath.
type PacketWay struct {
	a    *proxy.Association
	host string
	to   netip.AddrPort // without an address where host is a name
}

// Send sends p, which is lent for the call.
func (w *PacketWay) Send(p []byte) error {
	if w.to.Addr().IsValid() {
		return w.a.SendTo(p, w.to)
	}
	return w.a.SendToHost(p, w.host, w.to.Port())
}

// Close ends the association.
func (w *PacketWay) Close() { w.a.Close() }

// literalHost reports whether the host of a "host:port" is an address.
func literalHost(text string) bool {
	host, _, _ := splitHostPort(text)
	_, err := netip.ParseAddr(unbracket(host))
	return err == nil
}
