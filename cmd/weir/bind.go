package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/relay"
)

// waitFor waits for the peer of BIND as a side, under the rules and the timeout of dial.
func (s *session) waitFor(side relay.Side) {
	d := &proxy.Dialer{
		Access:   s.app.env.Access,
		Resolver: s.resolver(),
		Bind:     bindAddr(s.ends[side.Other()]),
		Timeout:  s.ends[side].Base.Duration("timeout"),
		Waits: func(r *proxy.Request, at net.Addr) {
			text := fmt.Sprintf("a client of the proxy waits on %s for %s", at, r.Destination())
			s.app.rep.line(dim, "note", text, "text", text)
		},
		Turned: func(_ *proxy.Request, peer net.Addr, err error) {
			s.app.rep.fail(slog.LevelWarn, &advice.Failure{Problem: "no connection with " + peer.String() + ": " + advice.Why(err)})
		},
	}
	s.await = d.Await(s.app.loop, s.request, s.relay.Protocol(side))
}

// noPeer explains why no peer of BIND came.
func (s *session) noPeer(err *weir.ConnectError) *advice.Failure {
	dest := s.request.Destination()
	f := &advice.Failure{Problem: "cannot wait for " + dest + " (BIND): " + advice.Why(err.Err)}
	var access *proxy.AccessError
	switch {
	case errors.As(err.Err, &access):
		f.Next = advice.NextForAccess(access)
	case errors.Is(err.Err, os.ErrDeadlineExceeded):
		f.Problem = "no connection came from " + dest + ", for which a client of the proxy waited (BIND)"
		f.Next = "To wait longer: add ,timeout=5m to dial"
	}
	return f
}

// bindAddr is the address on which the proxy of an endpoint serves BIND; not
// valid if it does not.
func bindAddr(e *endpoint.Endpoint) (a netip.Addr) {
	for i, p := range e.Layers {
		if e.Role() == endpoint.Listen && e.Layer(i).Arg.Type == endpoint.HostPort {
			a = p.IP("bind") // clients ask the last one
		}
	}
	return a
}

// checkBind finds what keeps a proxy from serving BIND.
func (p *plan) checkBind() error {
	for _, e := range append([]*endpoint.Endpoint{p.a}, p.bs...) {
		for i, l := range e.Layers {
			if e.Layer(i).Arg.Type != endpoint.HostPort || !l.Has("bind") {
				continue
			}
			if bindAddr(e) != l.IP("bind") {
				return &usageError{problem: "bind is on a proxy with another proxy inside it, and clients ask the inner one", hint: "put it on the last one", topic: l.Name.Text}
			}
			other := p.a
			if e == p.a {
				other = p.bs[0]
			}
			if other.Kind().Name != "dial" || len(other.Layers) > 0 || len(p.bs) > 1 {
				return &usageError{problem: "bind lets clients wait for connections, so the other side must be dial alone", hint: "weir 1080+socks5,bind=127.0.0.1 dial", topic: l.Name.Text}
			}
		}
	}
	return nil
}
