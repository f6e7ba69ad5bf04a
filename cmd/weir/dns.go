package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/endpoint"
)

// dnsQuestion is what weir dns is to find out.
type dnsQuestion struct {
	name    string
	qtype   dns.Type // 0: addresses, or the names of an address
	server  netip.AddrPort
	over    *endpoint.Endpoint // the server with the layers on it; nil: none
	verbose bool
	help    bool
}

// dns looks a name up as weir's own connections do, and prints what it finds,
// one record per line.
func (c *command) dns(args []string) int {
	q, err := c.parseDNS(args)
	if err != nil {
		return c.usage(err)
	}
	if q.help {
		return c.help([]string{"dns"})
	}
	l, err := weir.NewLoop(weir.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return c.dnsFailed(err)
	}
	env := &endpoint.Env{Loop: l, Stdin: -1, Stdout: -1, Home: c.home, LookupEnv: c.lookupEnv}
	if q.over != nil {
		if err := q.over.Prepare(env); err != nil {
			return c.dnsFailed(errors.Join(err, l.Close()))
		}
	}
	lines, found := q.ask(env, c.stderr)
	if err := l.Close(); err != nil {
		return c.dnsFailed(err)
	}
	if found != nil {
		return c.dnsFailed(found)
	}
	return c.print(strings.Join(lines, "\n"))
}

func (c *command) dnsFailed(err error) int {
	text := strings.TrimPrefix(err.Error(), "dns: ")
	var e *dns.Error
	if errors.As(err, &e) && errors.Is(err, dns.ErrNotFound) {
		text = e.Name + ": there is no such name"
		switch {
		case e.Type != 0 && !e.NoName:
			text = e.Name + ": the name has no records of type " + e.Type.String()
		case !e.NoName:
			text = e.Name + ": the name has no address"
		}
	}
	fmt.Fprintln(c.stderr, "weir: "+endpoint.Printable(text))
	return exitFailure
}

func (c *command) parseDNS(args []string) (q dnsQuestion, err error) {
	bad := func(problem, hint string) (dnsQuestion, error) {
		return q, &usageError{problem: problem, hint: hint, topic: "dns"}
	}
	const usage = "weir dns NAME [TYPE] [--server ADDR:PORT[+LAYER...]] [-v]"
	var words []string
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		name, value, given := strings.Cut(word, "=")
		switch {
		case word == "-v" || word == "--verbose":
			q.verbose = true
		case word == "-h" || word == "--help":
			q.help = true
			return q, nil
		case name == "--server":
			if !given {
				if len(args) == 0 {
					return bad("--server needs an address", usage)
				}
				value, args = args[0], args[1:]
			}
			base, layers, stacked := strings.Cut(value, "+")
			if q.server, err = serverAddr(base, layers); err != nil {
				return bad(fmt.Sprintf("%q is not the address of a server", base), "write it like 192.0.2.1:53 or [2001:db8::1]:53, or without a port")
			}
			if stacked {
				if q.over, err = c.table.Parse("tcp:" + endpoint.Quote(unbracketed(q.server)) + "+" + layers); err != nil {
					return q, err
				}
			}
		case strings.HasPrefix(word, "-") && word != "-":
			e := &usageError{problem: fmt.Sprintf("unknown flag %s", word), hint: usage, topic: "dns"}
			if near := endpoint.Nearest(name, []string{"--server", "--verbose", "--help"}); near != "" {
				e.hint = fmt.Sprintf("did you mean %s?", near)
			}
			return q, e
		default:
			words = append(words, word)
		}
	}
	switch len(words) {
	case 0:
		return bad("which name?", usage)
	case 1, 2:
	default:
		return bad("one name and one type at a time", usage)
	}
	q.name = words[0]
	if len(words) == 2 {
		if q.qtype, err = dns.ParseType(words[1]); err != nil {
			return bad(strings.TrimPrefix(err.Error(), "dns: "), usage)
		}
	}
	return q, nil
}

// serverAddr parses the address of a server. The default port is that of DNS, or
// of DNS over TLS (RFC 7858) if TLS is the only layer.
func serverAddr(s, layers string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a, nil
	}
	port := uint16(53)
	if name, _, _ := strings.Cut(layers, ","); name == "tls" || name == "tls-client" {
		port = 853
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return netip.AddrPortFrom(a, port), err
}

// unbracketed writes an address and port as endpoints do: the port follows the
// last colon.
func unbracketed(a netip.AddrPort) string { return fmt.Sprintf("%s:%d", a.Addr(), a.Port()) }

// ask runs l until the answer is there. The steps on the way go to log if they
// are asked for.
func (q *dnsQuestion) ask(env *endpoint.Env, log io.Writer) (lines []string, err error) {
	l := env.Loop
	opts := []dns.Option{dns.WithCache(0)}
	if q.server.IsValid() {
		opts = append(opts, dns.WithServers(q.server))
	}
	if q.over != nil {
		opts = append(opts, dns.WithStream(func(_ *weir.Loop, _ netip.AddrPort, p weir.Protocol) func() {
			c := q.over.Connect(env, p)
			return func() { c.Stop() }
		}))
	}
	if q.verbose {
		start := l.Now()
		opts = append(opts, dns.WithSteps(func(s dns.Step) { fmt.Fprintln(log, q.stepLine(s, s.At.Sub(start))) }))
	}
	r := dns.New(opts...)
	addr, parse := netip.ParseAddr(q.name)
	done := func(all []string, e error) {
		lines, err = all, e
		l.Stop()
	}
	records := func(a dns.Answer, e error) {
		var all []string
		for _, rec := range slices.Concat(a.Aliases, a.Records) {
			all = append(all, rec.String())
		}
		done(all, e)
	}
	switch {
	case q.qtype != 0 && parse == nil && q.qtype == dns.PTR:
		r.Lookup(l, dns.ReverseName(addr), dns.PTR, records)
	case q.qtype != 0:
		r.Lookup(l, q.name, q.qtype, records)
	case parse == nil:
		r.LookupAddr(l, addr, done)
	default:
		r.LookupNetIP(l, "ip", q.name, func(addrs []netip.Addr, e error) {
			var all []string
			for _, a := range addrs {
				all = append(all, a.String())
			}
			done(all, e)
		})
	}
	if e := l.Run(); e != nil {
		return nil, e
	}
	return lines, err
}

// stepLine is one step for people: when, about what, and what happened.
func (q *dnsQuestion) stepLine(s dns.Step, at time.Duration) string {
	line := fmt.Sprintf("%8.1f ms  %s", float64(at)/float64(time.Millisecond), s.Name)
	if s.Type != 0 {
		line += " " + s.Type.String()
	}
	if s.Server.IsValid() {
		over := "udp"
		if s.TCP {
			over = "tcp"
			if q.over != nil {
				for _, p := range q.over.Layers {
					over += "+" + p.Name.Text
				}
			}
		}
		line += fmt.Sprintf("  %s %s", over, s.Server)
	}
	return endpoint.Printable(line + "  " + s.What)
}
