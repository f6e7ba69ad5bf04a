package main

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/address"
	"github.com/weir-io/weir/balance"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/relay"
)

// session is one relay of an app, from the first side that is there to the last
// that is gone.
type session struct {
	app        *app
	id         int // from 1, once both sides are there
	relay      *relay.Relay
	connecting [2]*address.Connecting
	ends       [2]*address.Endpoint
	targets    [2]*target // what the sides that connect were given
	lease      *balance.Lease
	since      time.Time
	request    *layer.Request // of a proxy's client; nil: nobody asked
	asked      address.Asked
	incoming   *incoming // where the request is for BIND
}

func (a *app) newSession() *session {
	s := &session{app: a, since: a.loop.Now(), ends: [2]*address.Endpoint{a.p.a, a.p.bs[0]}}
	s.relay = relay.New(relay.Config{
		Connected: s.connected,
		Failed:    s.failed,
		Abandon:   s.abandon,
		Done:      s.done,
	})
	a.open[s] = true
	return s
}

// began reports whether a side is there.
func (s *session) began() bool {
	return s.relay.Transport(relay.A) != nil || s.relay.Transport(relay.B) != nil
}

// connect starts to connect a side that does not listen.
func (s *session) connect(side relay.Side) {
	if !s.app.open[s] {
		return // its peer has gone already
	}
	if s.request != nil && s.request.Command() == layer.ProxyBind {
		s.await(side)
		return
	}
	if e := s.ends[side]; e.Role() == address.Dial {
		if side == relay.B && s.lease == nil {
			s.lease, _ = s.app.pick.lease(s.peer(), nil) // there is one, and none is drained
		}
		t := s.app.pick.target(side, s.lease)
		s.targets[side] = t
		s.ends[side] = t.endpoint
	}
	s.connecting[side] = s.ends[side].ConnectFor(s.app.env, s.asked, s.relay.Protocol(side))
}

// peer is who is on side A; nil where nobody is yet.
func (s *session) peer() net.Addr {
	if t := s.relay.Transport(relay.A); t != nil {
		return t.RemoteAddr()
	}
	return nil
}

// connected is called when both sides are there.
func (s *session) connected() {
	a := s.app
	a.served++
	s.id = a.served
	for _, t := range s.targets {
		if t != nil {
			t.up()
		}
	}
	if s.lease != nil {
		s.lease.Up()
	}
	s.granted()
	names := s.names()
	a.rep.line(dim, "open", fmt.Sprintf("#%d %s -> %s", s.id, names[0], names[1]), "id", s.id, "a", names[0], "b", names[1])
}

// failed is called when the connect of a side came to nothing. Where there is
// another endpoint to try, it is tried.
func (s *session) failed(side relay.Side, err *weir.ConnectError) (again bool) {
	a := s.app
	t := s.targets[side]
	if s.incoming != nil {
		a.rep.fail(slog.LevelWarn, s.incoming.failure(err))
		s.denied(err)
		return false
	}
	if t == nil {
		a.rep.fail(slog.LevelError, connectFailure(s.ends[side], err))
		s.denied(err)
		return false
	}
	s.targets[side] = nil
	if s.request != nil && s.ends[side].Asks() {
		// It says nothing about the endpoint: others ask for other destinations.
		a.rep.fail(slog.LevelWarn, connectFailureTo(s.label(side), s.ends[side], err))
		t.refused++
		s.denied(err)
		return false
	}
	if a.p.many() || len(a.p.bs) > 1 {
		t.down(connectFailure(t.endpoint, err))
	} else {
		a.rep.fail(slog.LevelError, connectFailure(t.endpoint, err))
	}
	if side == relay.B {
		s.lease.Failed(err)
		if next, none := s.app.pick.lease(s.peer(), s.lease); none == nil {
			s.lease = next
			a.loop.Soon(func() { s.connect(side) })
			return true
		}
	}
	t.refused++
	s.denied(err)
	return false
}

// abandon is called when the relay ended before a side was there.
func (s *session) abandon(side relay.Side) {
	if c := s.connecting[side]; c != nil {
		c.Stop()
	}
	if s.incoming != nil {
		s.incoming.stop()
	}
}

// label is what the command line calls a side, and where it goes if that was
// asked for.
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

// names are what the sides are called in a line: where they are, and how the
// command line called that if it was otherwise.
func (s *session) names() (names [2]string) {
	for i := range names {
		e := s.ends[i]
		names[i] = s.label(relay.Side(i))
		t := s.relay.Transport(relay.Side(i))
		if t == nil {
			continue
		}
		addr := t.RemoteAddr()
		if _, ok := addr.(*net.TCPAddr); !ok {
			continue
		}
		switch text := addr.String(); {
		case e.Role() == address.Dial && text != names[i]:
			names[i] += " (" + text + ")"
		default:
			names[i] = text
		}
	}
	return names
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
	a.gone(s, r)
}

// closed says how it went.
func (s *session) closed(r relay.Result) {
	a := s.app
	names := s.names()
	took := a.loop.Now().Sub(s.since)
	by := s.ends[r.By].Label()
	if s.ends[r.By].Role() == address.Listen {
		by = names[r.By] // the peer, not where it came to
	}
	var how string
	switch {
	case r.Local:
		how, by = "cut here", "here"
	case r.Why == nil:
		how = "closed by " + by
	default:
		how = by + ": " + why(r.Why)
	}
	fields := []any{
		"id", s.id, "a", names[0], "b", names[1],
		"bytes_out", r.Bytes[relay.A], "bytes_back", r.Bytes[relay.B],
		"seconds", took.Seconds(), "closed_by", by,
	}
	if r.Why != nil {
		fields = append(fields, reasonFields(r.Why)...)
	}
	a.rep.line(dim, "close", fmt.Sprintf("#%d %s -> %s: %s out, %s back, %s, %s",
		s.id, names[0], names[1], size(r.Bytes[relay.A]), size(r.Bytes[relay.B]), span(took), how), fields...)
}
