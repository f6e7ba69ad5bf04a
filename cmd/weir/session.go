package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/balance"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer/proxy"
	proc "github.com/weir-io/weir/process"
	"github.com/weir-io/weir/relay"
)

// session is one relay of an app, from when the first side is there until the
// last is gone.
type session struct {
	app        *app
	id         int // from 1, once both sides are there
	relay      *relay.Relay
	connecting [2]*endpoint.Connecting
	ends       [2]*endpoint.Endpoint
	targets    [2]*target // of the sides that connect
	lease      *balance.Lease
	tries      []*try // of side B, where it has several targets
	since      time.Time
	request    *proxy.Request  // of a proxy's client; nil: there is none
	asked      *endpoint.Asked // nil: no one was accepted, or both sides are there
	who        *identity       // of the peer that was accepted; nil: it has proved nothing
	child      *proc.Process   // of exec or pty; nil: it does not run yet, or there is none
	exit       *proc.Exit      // the child's; nil: it runs
	grace      *weir.Timer     // after which it is ended; nil: it was not set
	exhausted  bool            // all of tries have failed, and this was reported
	made, cut  bool            // both sides were there; the relay was ended here
	over       bool            // the relay is
	given      bool            // it was given up, and counted as not made, when a drain began
	await      func()          // ends the wait for a peer, if the request is for BIND; nil: there is none
}

func (a *app) newSession() *session {
	s := &session{app: a, since: a.loop.Now(), ends: [2]*endpoint.Endpoint{a.p.a, a.p.bs[0]}}
	s.relay = relay.New(relay.Config{
		Connected: s.connected,
		Failed:    s.failed,
		Abandon:   s.abandon,
		Left:      s.left,
		Done:      s.done,
	})
	a.open[s] = true
	a.trim.move()
	return s
}

// began reports whether a side is there.
func (s *session) began() bool {
	return s.relay.Transport(relay.A) != nil || s.relay.Transport(relay.B) != nil
}

// connect starts to connect a side that does not listen.
func (s *session) connect(side relay.Side) {
	if !s.app.open[s] {
		return // its peer has left already
	}
	if s.request != nil && s.request.Command() == proxy.CommandBind {
		s.waitFor(side)
		return
	}
	if side == relay.B && len(s.app.p.bs) > 1 {
		l, _ := s.app.pick.lease(s.peer(), nil) // there is one, and none is drained
		s.try(l)
		return
	}
	if e := s.ends[side]; e.Role() == endpoint.Dial {
		if side == relay.B && s.lease == nil {
			s.lease, _ = s.app.pick.lease(s.peer(), nil) // there is one, and none is drained
		}
		t := s.app.pick.target(side, s.lease)
		s.targets[side] = t
		s.ends[side] = t.endpoint
	}
	e := s.ends[side]
	s.connecting[side] = e.ConnectFor(s.env(e), s.wants(), s.relay.Protocol(side))
}

// wants is what the accepted side asked for.
func (s *session) wants() endpoint.Asked {
	if s.asked == nil {
		return endpoint.Asked{}
	}
	return *s.asked
}

// env is what an endpoint is connected with for this session: the app's, unless there are
// names to look up or a program to tell of its peer.
func (s *session) env(e *endpoint.Endpoint) *endpoint.Env {
	if e.Kind().Name == "tcp" {
		if _, err := upstream(e); err == nil {
			return s.app.env
		}
	}
	env := *s.app.env
	env.Resolver = s.resolver()
	if e.TakesCommand() {
		env.Child, env.ChildEnv = s.started, s.childEnv()
	}
	return &env
}

// resolver is the app's, with a share for each address that clients come from.
func (s *session) resolver() weir.Resolver {
	if ip, ok := ipOf(s.wants().Source); ok {
		return s.app.names.For(ip)
	}
	return s.app.names
}

// ipOf is the IP address of a peer that has one: over TCP, or over uTP.
func ipOf(a net.Addr) (netip.Addr, bool) {
	if at, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return at.AddrPort().Addr(), true
	}
	return netip.Addr{}, false
}

// peer is the address of side A; nil while it is not connected.
func (s *session) peer() net.Addr {
	if t := s.relay.Transport(relay.A); t != nil {
		return t.RemoteAddr()
	}
	return nil
}

// connected is called when both sides are there.
func (s *session) connected() {
	a := s.app
	s.id = int(a.fleet.served.Add(1))
	for _, t := range s.targets {
		if t != nil {
			t.up(a.loop.Now())
		}
	}
	if s.lease != nil {
		s.lease.Up()
	}
	s.granted()
	// What was only there to connect is not kept for as long as the connection lasts.
	s.connecting, s.tries, s.asked = [2]*endpoint.Connecting{}, nil, nil
	if s.who != nil && s.who.user == "" && s.who.certificate == "" {
		s.who = nil
	}
	if a.notify != nil {
		a.notify.ready("connected") // where nothing listens
	}
	if !a.rep.takes("open") {
		return
	}
	names := s.names()
	arrow := s.arrow(names)
	if key := a.escapeKey(); key != "" {
		arrow += ", " + key + " ends it"
	}
	fields := s.who.fields("id", s.id, "a", names[0], "b", names[1])
	if a.fleet.group != nil {
		fields = append(fields, "loop", a.index)
	}
	a.rep.put(slog.LevelInfo, dim, "open", arrow, nil, fields...)
}

// failed is called when the connect of a side has failed. It is not tried again
// here: tries do that if there are several endpoints, and retry= if it is
// given.
func (s *session) failed(side relay.Side, err *weir.ConnectError) (again bool) {
	a := s.app
	t := s.targets[side]
	switch {
	case s.exhausted:
	case s.await != nil:
		a.rep.fail(slog.LevelWarn, s.noPeer(err))
	case t == nil:
		a.rep.fail(slog.LevelError, advice.Connect(s.ends[side], err))
	case s.asksFor(t):
		a.rep.fail(slog.LevelWarn, advice.ConnectTo(s.label(side), t.endpoint, err))
		t.refused.Add(1)
	default:
		if a.p.many() {
			t.down(a.loop.Now(), advice.Connect(t.endpoint, err))
		} else {
			a.rep.fail(slog.LevelError, advice.Connect(t.endpoint, err))
		}
		if side == relay.B {
			s.lease.Failed(err)
		}
		t.refused.Add(1)
	}
	s.targets[side] = nil
	s.denied(err)
	return false
}

// asksFor reports whether a failure says nothing about the target itself: it
// goes where the client asks to go, and other clients ask for other
// destinations.
func (s *session) asksFor(t *target) bool {
	return s.request != nil && t.endpoint.Asks()
}

// left is called when a side ends its stream before the other is there. A client
// that has done so is given a while, unless retry= asks for patience.
func (s *session) left(side relay.Side) time.Duration {
	if s.ends[side].Role() != endpoint.Listen || s.ends[side.Other()].Base.Has("retry") {
		return 0
	}
	return relay.LeftFor
}

// abandon is called when the relay ended before a side was there.
func (s *session) abandon(side relay.Side) {
	if c := s.connecting[side]; c != nil {
		c.Stop()
	}
	if s.await != nil {
		s.await()
	}
	for _, y := range s.tries {
		y.giveUp(false)
	}
}

// label is what the command line calls a side, and its destination if a client
// asked for one.
func (s *session) label(side relay.Side) string {
	e := s.ends[side]
	switch {
	case s.request == nil || !e.Asks():
		return e.Label()
	case e.Kind().Name == "dial":
		return s.request.Destination()
	}
	return e.Label() + " to " + s.request.Destination()
}

// names are what the sides are called in a line: their addresses, and what the
// command line called them if that differs.
func (s *session) names() (names [2]string) {
	for i := range names {
		e := s.ends[i]
		names[i] = s.label(relay.Side(i))
		t := s.relay.Transport(relay.Side(i))
		if t == nil {
			continue
		}
		addr := t.RemoteAddr()
		if _, ok := ipOf(addr); !ok {
			continue
		}
		switch text := addr.String(); {
		case e.Role() == endpoint.Dial && text != strings.TrimPrefix(names[i], addr.Network()+":"):
			names[i] += " (" + text + ")"
		default:
			names[i] = text
		}
	}
	return names
}

// arrow is the connection in a line, with the identity that its peer has proved.
func (s *session) arrow(names [2]string) string {
	for i, e := range s.ends {
		if e.Role() == endpoint.Listen {
			names[i] += s.who.String()
		}
	}
	return fmt.Sprintf("#%d %s -> %s", s.id, names[0], names[1])
}

// identity is who a peer has proved to be; its text was chosen by the peer, or by
// the signer of its certificate.
type identity struct {
	user        string // of a proxy, with the right password unless none was asked for
	certificate string // the subject of its certificate, which was verified
	tlsVersion  string // "TLS 1.3"; "" without TLS
	serverName  string // which server it asked for by TLS (SNI)
}

// identityOf is the identity of an accepted peer, from its topmost transport; nil if it has
// proved nothing.
func identityOf(t weir.Transport) *identity {
	var who identity
	if r := proxy.RequestOf(t); r != nil {
		who.user = r.User()
	}
	if c, ok := weir.As[interface{ ConnectionState() tls.ConnectionState }](t); ok {
		state := c.ConnectionState()
		who.tlsVersion, who.serverName = tls.VersionName(state.Version), state.ServerName
		if chain := state.PeerCertificates; len(chain) > 0 {
			who.certificate = chain[0].Subject.String()
			if who.certificate == "" {
				who.certificate = strings.Join(slices.Concat(chain[0].DNSNames, chain[0].EmailAddresses), ",")
			}
		}
	}
	if who == (identity{}) {
		return nil
	}
	return &who
}

// longestIdentity is how many bytes of a name are printed.
const longestIdentity = 200

// String is appended to a peer's address.
func (w *identity) String() string {
	if w == nil {
		return ""
	}
	s := ""
	if w.user != "" {
		s += fmt.Sprintf(" (user %.*q)", longestIdentity, w.user)
	}
	if w.certificate != "" {
		s += fmt.Sprintf(" (certificate %.*q)", longestIdentity, w.certificate)
	}
	return s
}

// fields adds the identity to the fields of a line.
func (w *identity) fields(more ...any) []any {
	if w == nil {
		return more
	}
	if w.user != "" {
		more = append(more, "user", endpoint.Printable(w.user[:min(len(w.user), longestIdentity)]))
	}
	if w.certificate != "" {
		more = append(more, "certificate", endpoint.Printable(w.certificate[:min(len(w.certificate), longestIdentity)]))
	}
	return more
}

// done is called when both sides are over.
func (s *session) done(r relay.Result) {
	a := s.app
	if s.lease != nil {
		s.lease.Release()
	}
	if !a.p.many() && (r.Why != nil || r.Local && !a.draining) {
		a.code = exitFailure
	}
	if r.Connected {
		s.closed(r)
	}
	s.over, s.made, s.cut = true, r.Connected, r.Local || errors.Is(r.Why, endpoint.ErrEscaped)
	s.endChild()
	s.takeCode()
	a.gone(s, r)
}

// closed reports how it went.
func (s *session) closed(r relay.Result) {
	a := s.app
	if !a.rep.takes("close") {
		return
	}
	names := s.names()
	took := a.loop.Now().Sub(s.since)
	by := s.ends[r.By].Label()
	if s.ends[r.By].Role() == endpoint.Listen {
		by = names[r.By] // the peer's address, not ours
	}
	if s.ends[r.By].TakesCommand() && errors.Is(r.Why, syscall.EPIPE) {
		r.Why = nil // a program that exits lets go of its input as of its output
	}
	var how string
	switch {
	case r.Local:
		how, by = "cut here", "here"
	case r.Why == nil:
		how = "closed by " + by
	case errors.Is(r.Why, endpoint.ErrEscaped):
		how = "ended by the escape key"
	default:
		how = by + ": " + advice.Why(r.Why)
	}
	fields := s.who.fields(
		"id", s.id, "a", names[0], "b", names[1],
		"bytes_out", r.Bytes[relay.A], "bytes_back", r.Bytes[relay.B],
		"seconds", took.Seconds(), "closed_by", by,
	)
	if r.Why != nil {
		fields = append(fields, advice.Reason(r.Why)...)
	}
	a.rep.put(slog.LevelInfo, dim, "close", fmt.Sprintf("%s: %s out, %s back, %s, %s",
		s.arrow(names), size(r.Bytes[relay.A]), size(r.Bytes[relay.B]), span(took), how), nil, fields...)
}
