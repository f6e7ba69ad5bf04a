package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/address"
	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/relay"
)

// app runs a plan.
//
//	running ── Ctrl-C ──▶ draining ── Ctrl-C ──▶ cutting ── all gone, or Ctrl-C ──▶ over
//	    │                     └──────────── all gone ────────────────────────────────▶┤
//	    └───────── what was to be done is done ──────────────────────────────────────▶┘
//
// It belongs to its loop's goroutine.
type app struct {
	c    *command
	p    *plan
	rep  *reporter
	loop *weir.Loop
	env  *address.Env

	names     *dns.Resolver // the loop's
	pick      *picker
	listeners []*address.Listeners
	open      map[*session]bool
	began     time.Time
	total     [2]int64
	served    int
	draining  bool
	cutting   bool
	over      bool
	code      int
	observe   func(*session, relay.Result) // the demo's; nil: none
}

// relay runs a plan to its end and returns the exit code.
func (c *command) relay(p *plan, f flags) int {
	rep := newReporter(c, f)
	a, err := newApp(c, p, f, rep)
	if err != nil {
		rep.fail(slog.LevelError, &failure{problem: "cannot start: " + why(err)})
		return exitFailure
	}
	code := a.run()
	if err := a.loop.Close(); err != nil {
		rep.fail(slog.LevelError, &failure{problem: "while ending: " + why(err)})
		return exitFailure
	}
	return code
}

func newApp(c *command, p *plan, f flags, rep *reporter) (*app, error) {
	a := &app{c: c, p: p, rep: rep, names: dns.New(), open: map[*session]bool{}}
	loop, err := weir.New(weir.WithLogger(rep.logger()), weir.WithErrorHandler(a.trouble), weir.WithResolver(a.names))
	if err != nil {
		return nil, err
	}
	a.loop = loop
	a.env = &address.Env{
		Loop: loop, Stdin: -1, Stdout: -1, Serves: p.many(), Home: c.home, LookupEnv: c.lookupEnv,
		Note:   func(text string) { rep.line(dim, "note", text, "text", text) },
		Access: f.access(),
		Failed: func(t weir.Transport, err *weir.AttemptError) { rep.fail(slog.LevelWarn, refusedFailure(t, err)) },
	}
	a.pick = newPicker(a, f)
	return a, nil
}

// trouble hears what belongs to no connection.
func (a *app) trouble(err error) {
	var (
		accept *weir.AcceptError
		bug    *weir.PanicError
	)
	switch {
	case errors.As(err, &accept):
		a.rep.fail(slog.LevelWarn, &failure{
			problem: fmt.Sprintf("cannot accept on %s for now: %s", accept.Addr, why(accept.Err)),
			next:    "Connections wait; it goes on by itself.",
		})
	case errors.As(err, &bug):
		a.rep.fail(slog.LevelError, &failure{problem: why(err), tried: []string{string(bug.Stack)}})
	default:
		a.rep.fail(slog.LevelWarn, &failure{problem: why(err)})
	}
}

// run opens what the plan says, turns the loop until it is over, and returns
// the exit code.
func (a *app) run() int {
	a.began = a.loop.Now()
	if a.uses("stdio") {
		var err error
		if a.env.Stdin, a.env.Stdout, err = takeStdio(a.c.stdin, a.c.stdout); err != nil {
			a.rep.fail(slog.LevelError, &failure{problem: "cannot use standard input and output: " + why(err)})
			return exitFailure
		}
	}
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		if _, err := a.loop.Signal(sig, func(os.Signal) { a.interrupted() }); err != nil {
			a.trouble(err)
		}
	}
	if !a.begin() {
		return exitFailure
	}
	if a.c.started != nil {
		a.loop.Soon(a.c.started)
	}
	if !a.over {
		if err := a.loop.Run(); err != nil {
			a.rep.fail(slog.LevelError, &failure{problem: "the loop failed: " + why(err)})
			return exitFailure
		}
	}
	return a.code
}

func (a *app) uses(kind string) bool {
	return a.p.a.Kind().Name == kind || a.p.bs[0].Kind().Name == kind
}

// begin opens the listeners, or starts the one relay where there are none.
func (a *app) begin() bool {
	ends := [2]*address.Endpoint{a.p.a, a.p.bs[0]}
	var once *session // the only one, unless any number is served
	if !a.p.many() {
		once = a.newSession()
	}
	for _, e := range append([]*address.Endpoint{a.p.a}, a.p.bs...) {
		if err := e.Prepare(a.env); err != nil {
			a.rep.fail(slog.LevelError, prepareFailure(e, err))
			return false
		}
	}
	for side, e := range ends {
		if e.Role() != address.Listen {
			continue
		}
		l, err := e.Listen(a.env, a.factory(relay.Side(side), once))
		if err != nil {
			a.rep.fail(slog.LevelError, listenFailure(e, err))
			a.closeListeners()
			return false
		}
		a.listeners = append(a.listeners, l)
	}
	if len(a.listeners) > 0 {
		a.ready()
		return true
	}
	once.connect(relay.A)
	once.connect(relay.B)
	return true
}

// factory makes the protocol of what a listener on a side accepts: any number
// of sessions, or only the peers of one.
func (a *app) factory(side relay.Side, once *session) weir.Factory {
	if once == nil {
		return func(t weir.Transport) weir.Protocol {
			if a.draining {
				return nil
			}
			s := a.newSession()
			s.accepted(t)
			a.loop.Soon(func() { s.connect(side.Other()) })
			return s.relay.Protocol(side)
		}
	}
	taken := false
	return func(t weir.Transport) weir.Protocol {
		if taken || a.draining {
			return nil
		}
		taken = true
		once.accepted(t)
		for i, e := range [2]*address.Endpoint{a.p.a, a.p.bs[0]} {
			if relay.Side(i) == side {
				_ = a.listenerOf(side).Close() // always nil; one peer is all it waits for
			} else if e.Role() != address.Listen {
				a.loop.Soon(func() { once.connect(side.Other()) })
			}
		}
		return once.relay.Protocol(side)
	}
}

// listenerOf is the listener of a side that has one.
func (a *app) listenerOf(side relay.Side) *address.Listeners {
	if side == relay.B && len(a.listeners) == 2 {
		return a.listeners[1]
	}
	return a.listeners[0]
}

// ready says what is open and where it leads.
func (a *app) ready() {
	var names [2]string
	var addrs []string
	i := 0
	for side, e := range [2]*address.Endpoint{a.p.a, a.p.bs[0]} {
		if e.Role() != address.Listen {
			names[side] = e.Label()
			continue
		}
		var own []string
		for _, addr := range a.listeners[i].Addrs() {
			text := addr.String()
			if addr.Network() == "unix" {
				text = e.Label()
			}
			own = append(own, text)
		}
		i++
		addrs = append(addrs, own...)
		names[side] = strings.Join(own, ", ")
	}
	if len(a.p.bs) > 1 {
		var labels []string
		for _, b := range a.p.bs {
			labels = append(labels, b.Label())
		}
		names[relay.B] = strings.Join(labels, " | ")
	}
	a.rep.line(green, "ready", names[relay.A]+" -> "+names[relay.B],
		"a", names[relay.A], "b", names[relay.B], "listening", addrs, "backend", a.loop.Backend().Name)
}

// interrupted is Ctrl-C: the first stops accepting and drains, the second cuts
// what is open and quits when that is gone, which is at once unless a layer holds
// on to it; the third does not wait for that.
func (a *app) interrupted() {
	if a.over {
		return
	}
	if a.draining {
		n := len(a.open)
		if n > 0 {
			a.code = exitFailure
		}
		if n == 0 || a.cutting {
			a.finish()
			return
		}
		a.cutting = true
		a.rep.line(yellow, "quitting", connections(n)+" cut", "cut", n)
		for s := range a.open {
			s.relay.Abort()
		}
		return
	}
	a.draining = true
	a.closeListeners()
	a.pick.stop()
	for s := range a.open {
		if !s.began() {
			s.relay.Abort() // nobody is on it yet
		}
	}
	if n := len(a.open); n > 0 {
		a.rep.line(yellow, "draining", connections(n)+" open; Ctrl-C again cuts", "open", n)
		return
	}
	a.finish()
}

func (a *app) closeListeners() {
	for _, l := range a.listeners {
		_ = l.Close() // always nil
	}
}

// gone is called when a session is over.
func (a *app) gone(s *session, r relay.Result) {
	delete(a.open, s)
	for i, n := range r.Bytes {
		a.total[i] += n
	}
	if a.observe != nil {
		a.observe(s, r)
	}
	if len(a.open) > 0 || a.p.many() && !a.draining {
		return
	}
	a.finish()
}

// finish says how it went and stops the loop.
func (a *app) finish() {
	if a.over {
		return
	}
	a.over = true
	a.closeListeners()
	a.pick.stop()
	if a.p.many() {
		took := a.loop.Now().Sub(a.began)
		a.rep.line(green, "done", fmt.Sprintf("%s, %s out, %s back, %s",
			connections(a.served), size(a.total[relay.A]), size(a.total[relay.B]), span(took)),
			"connections", a.served, "bytes_out", a.total[relay.A], "bytes_back", a.total[relay.B], "seconds", took.Seconds())
	}
	a.loop.Stop()
}
