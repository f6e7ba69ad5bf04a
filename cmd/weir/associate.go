package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer/proxy"
)

// associate serves a proxy's client that sends datagrams, under the rules of dial.
func (a *app) associate(t weir.Transport, r *proxy.Request) weir.Protocol {
	who, client := identityOf(t), t.RemoteAddr().String()
	d := &proxy.Dialer{Access: a.env.Access, Resolver: a.names}
	if ip, ok := ipOf(t.RemoteAddr()); ok {
		d.Resolver = a.names.For(ip)
	}
	d.Associated = func(_ *proxy.Request, at net.Addr) {
		a.rep.line(dim, "open", client+" -> datagrams to "+at.String(), who.fields("a", client, "b", "udp", "at", at.String())...)
	}
	d.Dissociated = func(_ *proxy.Request, c proxy.AssociationCount) {
		a.fleet.served.Add(1)
		text := fmt.Sprintf("%s -> datagrams: %d out, %s, %d back, %s, %s", client, c.Out, size(c.BytesOut), c.Back, size(c.BytesBack), span(c.Took))
		if c.Refused > 0 {
			text += fmt.Sprintf(", %d refused by the rules or as fragments", c.Refused)
		}
		a.rep.line(dim, "closed", text, who.fields("a", client, "b", "udp", "packets_out", c.Out, "packets_back", c.Back,
			"bytes_out", c.BytesOut, "bytes_back", c.BytesBack, "dropped", c.Dropped, "refused", c.Refused, "seconds", c.Took.Seconds())...)
	}
	d.Failed = func(_ *proxy.Request, err error) {
		f := &advice.Failure{Problem: "cannot take the datagrams of " + client + ": " + advice.Why(err)}
		if errors.Is(err, proxy.ErrCommand) {
			f.Next = "UDP ASSOCIATE needs a client that connects over TCP, not over a UNIX socket."
		}
		a.rep.fail(slog.LevelWarn, f)
	}
	return d.Associate(t, r)
}

// checkAssociate finds what keeps a proxy from serving UDP ASSOCIATE.
func (p *plan) checkAssociate() error {
	for _, e := range append([]*endpoint.Endpoint{p.a}, p.bs...) {
		for i, l := range e.Layers {
			if e.Layer(i).Arg.Type != endpoint.HostPort || !l.Has("udp") {
				continue
			}
			other := p.a
			if e == p.a {
				other = p.bs[0]
			}
			if other.Kind().Name != "dial" || len(other.Layers) > 0 || len(p.bs) > 1 {
				return &usageError{problem: "udp lets clients choose where datagrams go, so the other side must be dial alone", hint: "weir 1080+socks5,udp dial", topic: l.Name.Text}
			}
		}
	}
	return nil
}
