package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/weir-io/weir"
)

// defaultBindTime is how long we wait for the peer of a client that asked for
// BIND: as long as a client of this package waits.
const defaultBindTime = 60 * time.Second

// waiting is the wait for the one connection that a client asked for with BIND
// (RFC 1928, 4).
//
//	(name) ──▶ listening: the client is told where ──▶ the peer came: it is told who
//	   │           │
//	   └───────────┴─ failed: the rules forbid the host, its name or a port could not
//	                  be had, or no one came in time; or stopped
type waiting struct {
	d       *Dialer
	loop    *weir.Loop
	request *Request
	rules   *Access
	p       weir.Protocol
	peers   []netip.Addr // the hosts that may come; none: any that the rules allow
	over    bool
	stop    func() // ends what is in progress
}

// Await waits, on a port of Bind, for the one connection that a request for
// CommandBind asks for, and gives it to p. Only the host that the client named
// may connect, within the rules; Turned is told of others. The client is told
// the address that we wait at. If no one connects, or the rules forbid the
// host, p is told as by weir.Loop.Connect. stop ends the wait; p is not told of
// that.
func (d *Dialer) Await(l *weir.Loop, r *Request, p weir.Protocol) (stop func()) {
	w := &waiting{d: d, loop: l, request: r, rules: d.Access, p: p}
	if w.rules == nil {
		w.rules = &Access{}
	}
	call := l.Soon(w.begin)
	w.stop = func() { call.Cancel() }
	return w.end
}

func (w *waiting) end() {
	w.over = true
	w.stop()
}

func (w *waiting) begin() {
	w.stop = func() {}
	host, _, err := net.SplitHostPort(w.request.Destination())
	if err != nil {
		w.fail(weir.StageName, err)
		return
	}
	if a, err := netip.ParseAddr(host); err == nil {
		w.listen([]netip.Addr{a})
		return
	}
	r := w.d.Resolver
	if r == nil {
		r = w.loop.Resolver()
	}
	w.stop = r.LookupNetIP(w.loop, "ip", host, func(addrs []netip.Addr, err error) {
		if err != nil {
			w.fail(weir.StageName, err)
			return
		}
		w.listen(addrs)
	})
}

// listen opens the port for one of peers; an unspecified address stands for
// anyone the rules allow.
func (w *waiting) listen(peers []netip.Addr) {
	w.stop = func() {}
	for _, a := range peers {
		if a.IsUnspecified() {
			w.peers = nil
			break
		}
		if err := w.rules.Check(a); err != nil {
			w.fail(weir.StageSocket, err)
			return
		}
		w.peers = append(w.peers, a.Unmap())
	}
	ln, err := w.loop.Listen("tcp", net.JoinHostPort(w.d.Bind.String(), "0"), w.came)
	if err != nil {
		w.fail(weir.StageSocket, err)
		return
	}
	w.stop = func() { _ = ln.Close() } // always nil
	if limit := w.d.limit(defaultBindTime); limit > 0 {
		timer := w.loop.After(limit, func() { w.fail(weir.StageSocket, os.ErrDeadlineExceeded) })
		w.stop = func() {
			timer.Stop()
			_ = ln.Close()
		}
	}
	w.request.Bound(ln.Addr())
	if w.d.Waits != nil {
		w.d.Waits(w.request, ln.Addr())
	}
}

// came is the factory of the port: the first connection from a host that is
// waited for is the one.
func (w *waiting) came(t weir.Transport) weir.Protocol {
	from, ok := t.RemoteAddr().(*net.TCPAddr)
	if !ok || w.over {
		return nil
	}
	peer := from.AddrPort().Addr().Unmap().WithZone("")
	err := w.rules.Check(peer)
	if err == nil && len(w.peers) > 0 && !slices.Contains(w.peers, peer) {
		err = errors.New("a client of the proxy waits there for " + w.request.Destination())
	}
	if err != nil {
		if w.d.Turned != nil {
			w.d.Turned(w.request, from, err)
		}
		return nil
	}
	w.end()
	return w.p
}

// fail ends the wait, and tells p, and so the client, why.
func (w *waiting) fail(stage weir.Stage, err error) {
	if w.over {
		return
	}
	w.end()
	w.loop.TellConnectFailed(w.p, &weir.ConnectError{Network: "tcp", Address: w.request.Destination(), Stage: stage, Err: err})
}
