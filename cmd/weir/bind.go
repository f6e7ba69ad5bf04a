package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/address"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/relay"
)

// bindWait is how long the peer of a client that asked for BIND is waited for,
// where dial has no timeout: as long as a client of weir's waits.
const bindWait = 60 * time.Second

// incoming is a session's wait for the one connection that a client of its proxy
// asked for with BIND (RFC 1928, 4).
//
//	(name) ──▶ listening: the client hears where ──▶ the peer came: it hears who
//	   │           │
//	   └───────────┴─ refused: by the rules, for want of a name or a port, or for
//	                  nobody came in time; stopped: the session is over
//
// It belongs to the loop's goroutine.
type incoming struct {
	s     *session
	side  relay.Side
	peers []netip.Addr // who is waited for; none: whoever the rules allow
	stop  func()       // ends what is going on
}

// await waits for the peer of BIND as a side.
func (s *session) await(side relay.Side) {
	w := &incoming{s: s, side: side, stop: func() {}}
	s.incoming = w
	host, _, err := net.SplitHostPort(s.request.Destination())
	if err != nil {
		w.fail(err)
		return
	}
	if a, err := netip.ParseAddr(host); err == nil {
		w.listen([]netip.Addr{a})
		return
	}
	w.stop = s.app.names.LookupNetIP(s.app.loop, "ip", host, func(addrs []netip.Addr, err error) {
		if err != nil {
			w.fail(err)
			return
		}
		w.listen(addrs)
	})
}

// listen opens the port for one of peers; an unspecified address is whoever may.
func (w *incoming) listen(peers []netip.Addr) {
	s := w.s
	for _, a := range peers {
		if a.IsUnspecified() {
			w.peers = nil
			break
		}
		if err := s.app.env.Access.Check(a); err != nil {
			w.fail(err)
			return
		}
		w.peers = append(w.peers, a.Unmap())
	}
	at := net.JoinHostPort(bindAddr(s.ends[w.side.Other()]).String(), "0")
	ln, err := s.app.loop.Listen("tcp", at, w.came)
	if err != nil {
		w.fail(err)
		return
	}
	limit := bindWait
	if d := s.ends[w.side].Base.Duration("timeout"); d > 0 {
		limit = d
	}
	timer := s.app.loop.After(limit, func() { w.fail(os.ErrDeadlineExceeded) })
	w.stop = func() {
		timer.Stop()
		_ = ln.Close() // always nil
	}
	s.request.Bound(ln.Addr())
	text := fmt.Sprintf("a client of the proxy waits on %s for %s", ln.Addr(), s.request.Destination())
	s.app.rep.line(dim, "note", text, "text", text)
}

// came is the factory of the port: the first who is meant is the connection.
func (w *incoming) came(t weir.Transport) weir.Protocol {
	tcp, ok := t.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	peer := tcp.AddrPort().Addr().Unmap().WithZone("")
	err := w.s.app.env.Access.Check(peer)
	if err == nil && len(w.peers) > 0 && !slices.Contains(w.peers, peer) {
		err = errors.New("a client of the proxy waits there for " + w.s.request.Destination())
	}
	if err != nil {
		w.s.app.rep.fail(slog.LevelWarn, &failure{problem: "no connection with " + tcp.String() + ": " + why(err)})
		return nil
	}
	w.stop()
	return w.s.relay.Protocol(w.side)
}

// fail ends the wait, and the session, whose client hears why.
func (w *incoming) fail(err error) {
	w.stop()
	e := &weir.ConnectError{Network: "tcp", Address: w.s.request.Destination(), Stage: weir.StageSocket, Err: err}
	if f, ok := w.s.relay.Protocol(w.side).(weir.ConnectFailer); ok {
		f.ConnectFailed(e)
	}
}

// failure explains a wait that came to nothing.
func (w *incoming) failure(err *weir.ConnectError) *failure {
	dest := w.s.request.Destination()
	f := &failure{problem: "cannot wait for " + dest + " (BIND): " + why(err.Err)}
	var access *layer.AccessError
	switch {
	case errors.As(err.Err, &access):
		f.next = nextForAccess(access)
	case errors.Is(err.Err, os.ErrDeadlineExceeded):
		f.problem = "nobody came from " + dest + ", for whom a client of the proxy waited (BIND)"
		f.next = "To wait longer: add ,timeout=5m to dial"
	}
	return f
}

// bindAddr is the address that the proxy of an endpoint serves BIND on; not valid
// where it does not.
func bindAddr(e *address.Endpoint) (a netip.Addr) {
	for i, p := range e.Layers {
		if e.Role() == address.Listen && e.Layer(i).Arg.Type == address.HostPort {
			a = p.IP("bind") // clients ask the last one
		}
	}
	return a
}

// checkBind finds what keeps a proxy from serving BIND.
func (p *plan) checkBind() error {
	for _, e := range append([]*address.Endpoint{p.a}, p.bs...) {
		for i, l := range e.Layers {
			if e.Layer(i).Arg.Type != address.HostPort || !l.Has("bind") {
				continue
			}
			if bindAddr(e) != l.IP("bind") {
				return &usageError{problem: "bind stands on a proxy with another proxy in it, which is the one that clients ask", hint: "put it on the last one", topic: l.Name.Text}
			}
			other := p.a
			if e == p.a {
				other = p.bs[0]
			}
			if other.Kind().Name != "dial" || len(other.Layers) > 0 || len(p.bs) > 1 {
				return &usageError{problem: "bind lets clients wait for connections, and the other side is not dial alone", hint: "weir 1080+socks5,bind=127.0.0.1 dial", topic: l.Name.Text}
			}
		}
	}
	return nil
}
