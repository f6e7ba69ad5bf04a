package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/sink"
	"github.com/weir-io/weir/utp"
)

// app runs a plan.
//
//	running ── signal ──▶ draining ── signal, or --drain is up ──▶ cutting ──▶ over
//	    │                     └──────────── all gone ────────────────────────────▶┤
//	    └───────── the work is done ─────────────────────────────────────────────▶┘
//
// There is one for each loop, and the first leads: see fleet. It belongs to its loop's
// goroutine.
type app struct {
	c     *command
	p     *plan
	f     flags
	rep   *reporter
	fleet *fleet
	index int // of the loop, from 0
	loop  *weir.Loop
	env   *endpoint.Env

	names     *dns.Resolver      // of all loops
	starter   *executor.Executor // of programs
	children  map[*session]bool  // those whose programs run
	pick      *picker
	trim      *trimmer // of all loops
	notify    *notifier
	listeners []*endpoint.Listeners
	open      map[*session]bool
	began     time.Time
	drainFor  time.Duration
	typed     bool // standard input is a terminal
	draining  bool
	empty     bool // it drains, and has nothing left; the lead's to know
	cutting   bool
	over      bool
	code      int
	observe   func(*session, relay.Result) // the demo's; nil: none
	overload  *overload
}

// How many programs are being started at once, and how many more wait for that.
const (
	startsAtOnce = 4
	startsQueued = 1024
)

// relay runs a plan to its end and returns the exit code.
func (c *command) relay(p *plan, f flags) int {
	rep := newReporter(c, f)
	a, err := newApp(c, p, f, rep)
	if err != nil {
		rep.fail(slog.LevelError, &advice.Failure{Problem: "cannot start: " + advice.Why(err)})
		return exitFailure
	}
	code := a.run()
	err = a.fleet.close() // it may have something to write to a file
	_ = a.starter.Close() // always nil
	if err != nil {
		rep.fail(slog.LevelError, &advice.Failure{Problem: "while ending: " + advice.Why(err)})
		return exitFailure
	}
	return code
}

// newApp makes the apps of a command, on as many loops as the plan can use, and returns the
// one that leads.
func newApp(c *command, p *plan, f flags, rep *reporter) (*app, error) {
	fl := &fleet{of: map[*weir.Loop]*app{}}
	lead := &app{c: c, p: p, f: f, rep: rep, fleet: fl, open: map[*session]bool{}, drainFor: f.drain}
	lead.names = dns.New(dns.WithStale(f.stale), dns.WithSilence(func(_ *weir.Loop, silent []netip.AddrPort) { lead.silence(silent) }))
	n, err := p.loopsOf(f)
	if err != nil {
		return nil, err
	}
	lead.overload = newOverload(lead, n)
	loops, err := fl.open(n, weir.WithBudget(lead.overload.budget), weir.WithLogger(rep.logger()), weir.WithErrorHandler(lead.trouble), weir.WithResolver(lead.names), weir.WithFlushTime(cutTime))
	if err != nil {
		return nil, err
	}
	if n > 1 {
		lead.names.AskOn(loops[0])
	}
	lead.starter = executor.New("blocking", startsAtOnce, startsQueued)
	for i, l := range loops {
		a := lead
		if i > 0 {
			a = &app{c: c, p: p, f: f, rep: rep, fleet: fl, open: map[*session]bool{}, names: lead.names, starter: lead.starter}
		}
		a.loop, a.index = l, i
		fl.apps = append(fl.apps, a)
		fl.of[l] = a
		if i == 0 {
			fl.aim(p)
		}
		a.prepare()
	}
	return lead, nil
}

// prepare makes what each loop has of its own.
func (a *app) prepare() {
	c, p, f, rep := a.c, a.p, a.f, a.rep
	a.env = &endpoint.Env{
		Loop: a.loop, Group: a.fleet.group, Stdin: -1, Stdout: -1, Serves: p.many(), Home: c.home, LookupEnv: c.lookupEnv,
		Note:    func(text string) { rep.line(dim, "note", text, "text", text) },
		Access:  f.access(),
		Own:     a.addrs,
		Stderr:  c.sink,
		Opened:  func(s *sink.Sink) { c.opened = append(c.opened, s) },
		Trouble: rep.trouble,
		Failed: func(t weir.Transport, err *weir.AttemptError) {
			if !errors.Is(err, layer.ErrNothingCame) { // a health check: it only tries to connect
				rep.fail(slog.LevelWarn, advice.Refused(t, err))
			}
		},
		Warn: func(text string) { rep.always(slog.LevelWarn, yellow, "note", text, nil, "text", text) },
		JSON: rep.json != nil,
		UTP:  utp.NewDialer(a.loop),
	}
	if a.fleet.group != nil {
		// The listeners are those of the first loop.
		a.env.Access.Own = func() []net.Addr { return append(a.loop.ListenAddrs(), a.addrs()...) }
	}
	a.env.Executor, a.env.Environ = a.starter, c.environ
	a.pick = newPicker(a, f)
	if lead := a.fleet.lead(); a != lead {
		a.trim = lead.trim
		return
	}
	a.trim = newTrimmer(a.loop, a.starter)
	a.notify = newNotifier(a.loop, c.lookupEnv)
	if f.drains {
		a.notify.extend = true // the service manager's own limit may be shorter
	}
}

// silence reports that no name server answers or, with nil, that one does again.
// One loop asks for all.
func (a *app) silence(silent []netip.AddrPort) {
	if len(silent) == 0 {
		a.rep.line(green, "note", "the name servers answer again", "text", "the name servers answer again")
		return
	}
	var all []string
	for _, s := range silent {
		all = append(all, s.String())
	}
	f := &advice.Failure{Problem: "the name servers do not answer: " + strings.Join(all, ", "), Next: "They are those of /etc/resolv.conf. Until one answers, a lookup takes at most 2 s."}
	if a.f.stale > 0 {
		f.Also = "Addresses that expired in the last " + span(a.f.stale) + " are still used."
	}
	a.rep.fail(slog.LevelWarn, f)
}

// addrs are the addresses that the command listens on.
func (a *app) addrs() []net.Addr { return a.fleet.addrs }

// trouble gets failures that belong to no connection.
func (a *app) trouble(err error) {
	var (
		accept  *weir.AcceptError
		refused *weir.AdmissionError
		bug     *weir.PanicError
	)
	switch {
	case errors.As(err, &refused):
		a.rep.fail(slog.LevelWarn, advice.Crowded(refused))
	case errors.As(err, &accept):
		a.rep.fail(slog.LevelWarn, &advice.Failure{
			Problem: fmt.Sprintf("cannot accept on %s for now: %s", accept.Addr, advice.Why(accept.Err)),
			Next:    "New connections are queued; weir retries by itself.",
		})
	case errors.As(err, &bug):
		a.rep.fail(slog.LevelError, &advice.Failure{Problem: advice.Why(err), Tried: []string{string(bug.Stack)}})
	default:
		a.rep.fail(slog.LevelWarn, &advice.Failure{Problem: advice.Why(err)})
	}
}

// run opens what the plan lists, turns the loop until it is over, and returns
// the exit code.
func (a *app) run() int {
	a.began = a.loop.Now()
	// Before the terminal is raw: a signal is not to leave it so.
	if err := hear(a.loop, a.interrupted, a.show); err != nil {
		a.trouble(err)
	}
	if a.uses("stdio") {
		a.typed = isTerminal(a.c.stdin)
		var err error
		if a.env.Stdin, a.env.Stdout, err = takeStdio(a.c.stdin, a.c.stdout); err != nil {
			a.rep.fail(slog.LevelError, &advice.Failure{Problem: "cannot use standard input and output: " + advice.Why(err)})
			return exitFailure
		}
		if restore := a.raw(); restore != nil {
			defer restore()
		}
	}
	if !a.begin() {
		return exitFailure
	}
	if a.c.started != nil {
		a.loop.Soon(a.c.started)
	}
	if !a.over {
		if err := a.fleet.run(); err != nil {
			a.rep.fail(slog.LevelError, &advice.Failure{Problem: "the loop failed: " + advice.Why(err)})
			return exitFailure
		}
	}
	return a.code
}

func (a *app) uses(kind string) bool {
	return a.p.a.Kind().Name == kind || a.p.bs[0].Kind().Name == kind
}

// begin opens the listeners, or starts the only relay if there are none.
func (a *app) begin() bool {
	ends := [2]*endpoint.Endpoint{a.p.a, a.p.bs[0]}
	var once *session // the only session, unless any number is served
	if !a.p.many() {
		once = a.newSession()
	}
	for _, e := range append([]*endpoint.Endpoint{a.p.a}, a.p.bs...) {
		if err := e.Prepare(a.env); err != nil {
			a.rep.fail(slog.LevelError, advice.Prepare(e, err))
			return false
		}
	}
	for side, e := range ends {
		if e.Role() != endpoint.Listen {
			continue
		}
		var l *endpoint.Listeners
		err := whenFree(func() (err error) {
			l, err = e.Listen(a.env, a.factory(relay.Side(side), once))
			return err
		}, func() { <-time.After(addressPause) })
		if err != nil {
			a.rep.fail(slog.LevelError, advice.Listen(e, err))
			a.closeListeners()
			return false
		}
		a.listeners = append(a.listeners, l)
		a.fleet.addrs = append(a.fleet.addrs, l.Addrs()...)
	}
	local := a.localProxy()
	for _, a := range a.fleet.apps {
		a.env.Access.Private = local
	}
	if len(a.listeners) > 0 {
		a.ready()
		return true
	}
	once.connect(relay.A)
	once.connect(relay.B)
	return true
}

// The address of a killed weir may stay in use for some milliseconds: the kernel
// ends an io_uring, and the sockets that it holds, only after the process.
const (
	addressPause = 20 * time.Millisecond
	addressTries = 25
)

// whenFree calls listen, which runs before the loop does, until the address is free
// or patience runs out.
func whenFree(listen func() error, pause func()) (err error) {
	for range addressTries {
		if err = listen(); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		pause()
	}
	return err
}

// factory makes the protocols of the connections that a listener on a side
// accepts: any number of sessions, or only the peers of one.
func (a *app) factory(side relay.Side, once *session) weir.Factory {
	if once == nil {
		return func(t weir.Transport) weir.Protocol {
			a := a.fleet.on(t)
			if a.draining {
				return nil
			}
			if r := proxy.RequestOf(t); r != nil && r.Command() == proxy.CommandAssociate {
				return a.associate(t, r)
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
		for i, e := range [2]*endpoint.Endpoint{a.p.a, a.p.bs[0]} {
			if relay.Side(i) == side {
				_ = a.listenerOf(side).Close() // always nil; one peer is all it waits for
			} else if e.Role() != endpoint.Listen {
				a.loop.Soon(func() { once.connect(side.Other()) })
			}
		}
		return once.relay.Protocol(side)
	}
}

// localProxy reports whether the proxies among the listeners can be reached from
// this machine only: their clients reach its private addresses without them.
func (a *app) localProxy() bool {
	i := 0
	for _, e := range [2]*endpoint.Endpoint{a.p.a, a.p.bs[0]} {
		if e.Role() != endpoint.Listen {
			continue
		}
		if e.Answers() && !proxy.LocalOnly(a.listeners[i].Addrs()) {
			return false
		}
		i++
	}
	return true
}

// listenerOf is the listener of a side that has one.
func (a *app) listenerOf(side relay.Side) *endpoint.Listeners {
	if side == relay.B && len(a.listeners) == 2 {
		return a.listeners[1]
	}
	return a.listeners[0]
}

// ready reports what is open and where it leads.
func (a *app) ready() {
	var names [2]string
	var addrs []string
	i := 0
	for side, e := range [2]*endpoint.Endpoint{a.p.a, a.p.bs[0]} {
		if e.Role() != endpoint.Listen {
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
	a.notify.ready(names[relay.A] + " -> " + names[relay.B])
	bounds := a.overload.announce()
	a.rep.line(green, "ready", names[relay.A]+" -> "+names[relay.B],
		append([]any{"a", names[relay.A], "b", names[relay.B], "listening", addrs, "backend", a.loop.Backend().Name, "loops", len(a.fleet.apps)}, bounds...)...)
}

func (a *app) closeListeners() {
	for _, l := range a.listeners {
		_ = l.Close() // always nil
	}
}

// gone is called when a session is over.
func (a *app) gone(s *session, r relay.Result) {
	delete(a.open, s)
	a.trim.move()
	a.fleet.count(r)
	if a.observe != nil {
		a.observe(s, r)
	}
	a.allGone()
}

// allGone ends the command if nothing is open, no program runs, and nothing more is to
// come.
func (a *app) allGone() {
	if len(a.open) > 0 || len(a.children) > 0 || a.p.many() && !a.draining {
		return
	}
	a.fleet.empty(a)
}

// finish reports how it went and stops the loops. The lead calls it.
func (a *app) finish() {
	if a.over {
		return
	}
	a.over = true
	a.notify.stopping(0)
	a.closeListeners()
	a.pick.stop()
	a.overload.stop()
	if a.p.many() {
		took := a.loop.Now().Sub(a.began)
		served, out, back := int(a.fleet.served.Load()), a.fleet.bytes(relay.A), a.fleet.bytes(relay.B)
		a.rep.line(green, "done", fmt.Sprintf("%s, %s out, %s back, %s", advice.Connections(served), size(out), size(back), span(took)),
			"connections", served, "bytes_out", out, "bytes_back", back, "seconds", took.Seconds())
	}
	a.fleet.stop()
}
