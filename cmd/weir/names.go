package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/endpoint"
)

// answersNames reports whether the plan answers questions for names.
func (p *plan) answersNames() bool { return p.a.Kind().Name == "dns-listen" }

// checkNames finds what is wrong with a plan of dns-listen or resolver.
func (p *plan) checkNames() error {
	b := p.bs[0]
	const hint = "weir dns-listen:5353 resolver, or udp:9.9.9.9:53 or 9.9.9.9:853+tls instead of resolver"
	switch {
	case !p.answersNames():
		return &usageError{problem: "dns-listen goes first, and resolver only goes with it", hint: hint, topic: "dns-listen"}
	case len(p.a.Layers) > 0 || len(b.Layers) > 0 && b.Kind().Packets != nil:
		return &usageError{problem: "dns-listen takes no layers, and neither does the udp endpoint that it asks", hint: hint, topic: "dns-listen"}
	case len(p.bs) > 1:
		return &usageError{problem: "dns-listen takes one other side", hint: hint, topic: "dns-listen"}
	case b.Kind().Name == "resolver":
		return nil
	case b.Kind().Name != "udp" && b.Kind().Name != "tcp":
		return &usageError{problem: fmt.Sprintf("dns-listen cannot ask %s for names", b.Label()), hint: hint, topic: "dns-listen"}
	}
	if _, err := upstream(b); err != nil {
		return &usageError{problem: fmt.Sprintf("%s is not the address of a name server: a name would have to be looked up first", b.Label()), hint: hint, topic: "dns-listen"}
	}
	return nil
}

// upstream is the name server that an endpoint leads to.
func upstream(e *endpoint.Endpoint) (netip.AddrPort, error) {
	text := e.Base.ArgText()
	i := strings.LastIndexByte(text, ':')
	port, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, err := netip.ParseAddr(strings.Trim(text[:max(i, 0)], "[]"))
	return netip.AddrPortFrom(a, uint16(port)), err
}

// nameApp answers questions for names until it is told to end. It belongs to its
// loop's goroutine.
type nameApp struct {
	rep     *reporter
	began   time.Time
	loop    *weir.Loop
	servers []*dns.Server
	notify  *notifier
	code    int
}

// serveNames runs a plan of dns-listen to its end and returns the exit code.
func (c *command) serveNames(p *plan, f flags) int {
	a := &nameApp{rep: newReporter(c, f)}
	l, err := weir.NewLoop(weir.WithLogger(a.rep.logger()), weir.WithErrorHandler(func(err error) {
		a.rep.fail(slog.LevelWarn, &advice.Failure{Problem: advice.Why(err)})
	}))
	if err != nil {
		return a.fail("cannot start: " + advice.Why(err))
	}
	a.loop = l
	a.notify = newNotifier(l, c.lookupEnv)
	a.code = a.run(c, p, f)
	if err := l.Close(); err != nil {
		return a.fail("while ending: " + advice.Why(err))
	}
	return a.code
}

func (a *nameApp) fail(problem string) int {
	a.rep.fail(slog.LevelError, &advice.Failure{Problem: problem})
	return exitFailure
}

// resolver is what answers: with the servers of the other side.
func (a *nameApp) resolver(c *command, b *endpoint.Endpoint, f flags) (*dns.Resolver, error) {
	opts := []dns.Option{dns.WithStale(f.stale)}
	if b.Kind().Name == "resolver" {
		return dns.New(opts...), nil
	}
	to, err := upstream(b)
	if err != nil {
		return nil, err
	}
	opts = append(opts, dns.WithServers(to))
	if b.Kind().Name == "tcp" {
		env := &endpoint.Env{Loop: a.loop, Stdin: -1, Stdout: -1, Home: c.home, LookupEnv: c.lookupEnv}
		if err := b.Prepare(env); err != nil {
			return nil, err
		}
		opts = append(opts, dns.WithStream(func(_ *weir.Loop, _ netip.AddrPort, p weir.Protocol) func() {
			k := b.Connect(env, p)
			return func() { k.Stop() }
		}))
	}
	return dns.New(opts...), nil
}

func (a *nameApp) run(c *command, p *plan, f flags) int {
	r, err := a.resolver(c, p.bs[0], f)
	if err != nil {
		return a.fail("cannot ask " + p.bs[0].Label() + ": " + advice.Why(err))
	}
	if err := hear(a.loop, a.loop.Stop, a.show); err != nil {
		a.rep.fail(slog.LevelWarn, &advice.Failure{Problem: advice.Why(err)})
	}
	a.began = a.loop.Now()
	spec := p.a.Kind().Packets(p.a.Base)
	var names []string
	for i, at := range spec.Addresses {
		if i > 0 && len(a.servers) > 0 { // the port that the first one got
			host, _, _ := net.SplitHostPort(at)
			at = net.JoinHostPort(host, strconv.Itoa(int(a.servers[0].Addr().Port())))
		}
		s, err := dns.NewServer(a.loop, spec.Network, at, dns.ServerConfig{Resolver: r, Lost: a.lost})
		absent := errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
		if err != nil && absent && (len(a.servers) > 0 || i+1 < len(spec.Addresses)) {
			continue // a machine without the family
		}
		if err != nil {
			a.rep.fail(slog.LevelError, advice.Listen(p.a, err))
			return exitFailure
		}
		a.servers = append(a.servers, s)
		names = append(names, s.Addr().String())
	}
	text := strings.Join(names, ", ")
	a.notify.ready(text)
	a.rep.line(green, "ready", text+" -> "+p.bs[0].Label(), "a", text, "b", p.bs[0].Label(), "listening", names, "backend", a.loop.Backend().Name)
	if c.started != nil {
		a.loop.Soon(c.started)
	}
	if err := a.loop.Run(); err != nil {
		return a.fail("the loop failed: " + advice.Why(err))
	}
	a.notify.stopping(0)
	if !f.quiet {
		a.say("done")
	}
	for _, s := range a.servers {
		s.Close()
	}
	return a.code
}

// lost is called when one of the endpoints is gone.
func (a *nameApp) lost(err error) {
	a.code = a.fail("cannot continue to listen: " + advice.Why(err))
	a.loop.Stop()
}

// show says what is going on: SIGQUIT asks for it.
func (a *nameApp) show() { a.say("serving") }

func (a *nameApp) say(what string) {
	var n dns.ServerCount
	for _, s := range a.servers {
		c := s.Count()
		n.Questions += c.Questions
		n.Failed += c.Failed
		n.Connections += c.Connections
		n.Refused += c.Refused
		n.Busy += c.Busy
		n.Bad += c.Bad
	}
	took := a.loop.Now().Sub(a.began)
	a.rep.always(slog.LevelInfo, green, what, fmt.Sprintf("%s, %d failed, %s, %d refused to other networks, %d too many, %d not served, %s",
		advice.Count(n.Questions, "question"), n.Failed, advice.Count(n.Connections, "TCP connection"), n.Refused, n.Busy, n.Bad, span(took)), nil,
		"questions", n.Questions, "failed", n.Failed, "connections", n.Connections, "refused", n.Refused, "busy", n.Busy, "bad", n.Bad, "seconds", took.Seconds())
}
