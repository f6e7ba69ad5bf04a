package main

import (
	"fmt"
	"strings"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/relay"
)

// policyError is a command line that is understood but refused.
type policyError struct {
	problem, hint string
}

func (e *policyError) Error() string {
	return "weir: " + endpoint.Printable(e.problem) + "\n  " + endpoint.Printable(e.hint)
}

// checkProxies finds what is wrong with the proxies of a plan.
func (p *plan) checkProxies() error {
	ends := append([]*endpoint.Endpoint{p.a}, p.bs...)
	asks, answers := -1, false
	for i, e := range ends {
		if e.Asks() && asks < 0 {
			asks = i
		}
		answers = answers || e.Answers()
		if word := e.OpenProxy(); word != "" {
			return &policyError{
				problem: fmt.Sprintf("%s would be a %s proxy that anyone can use", e.Label(), word),
				hint:    "Listen on loopback (a port alone), or add authentication: ,users=file:PATH or ,user=NAME,password=env:NAME",
			}
		}
	}
	if asks >= 0 && !answers {
		return &usageError{
			problem: ends[asks].Text + " connects to where the other side asks, but the other side cannot ask",
			hint:    "a proxy layer on what listens can: weir 1080+socks5 dial",
			topic:   "socks5",
		}
	}
	if err := p.checkBind(); err != nil {
		return err
	}
	if err := p.checkAssociate(); err != nil {
		return err
	}
	if asks < 0 && answers {
		for i, e := range ends {
			if e.Answers() {
				other := ends[(i+1)%2] // of the first two: only A and a single B can listen
				return &usageError{
					problem: fmt.Sprintf("the clients of %s ask where to go, but %s is a fixed destination: all of them would end up there", e.Text, other.Text),
					hint:    "to go where they ask write dial: weir " + e.Text + " dial",
					topic:   "dial",
				}
			}
		}
	}
	if (len(p.f.allow) > 0 || len(p.f.deny) > 0) && !p.dials() {
		return &usageError{problem: "--allow and --deny apply only to dial, which is not used here", hint: "weir 1080+socks5 dial --allow 10.0.0.0/8", topic: "dial"}
	}
	return nil
}

func (p *plan) dials() bool {
	for _, e := range append([]*endpoint.Endpoint{p.a}, p.bs...) {
		if e.Kind().Name == "dial" {
			return true
		}
	}
	return false
}

// addNetworks reads the networks of --allow and --deny.
func addNetworks(to *[]string, value string) error {
	for s := range strings.SplitSeq(value, ",") {
		if _, err := endpoint.ParseNetwork(s); err != nil {
			return fmt.Errorf("bad network %q: an address such as 10.1.2.3 or a network such as 10.0.0.0/8", s)
		}
		*to = append(*to, s)
	}
	return nil
}

// access are the rules of --allow and --deny.
func (f *flags) access() *proxy.Access {
	rules := &proxy.Access{} // Own is the loop's listeners, as package endpoint has it
	for _, s := range f.allow {
		n, _ := endpoint.ParseNetwork(s) // it was checked
		rules.Allow = append(rules.Allow, n)
	}
	for _, s := range f.deny {
		n, _ := endpoint.ParseNetwork(s)
		rules.Deny = append(rules.Deny, n)
	}
	return rules
}

// accepted notes what the accepted peer asked for; t is its transport.
func (s *session) accepted(t weir.Transport) {
	s.who = identityOf(t)
	s.asked = &endpoint.Asked{Source: t.RemoteAddr(), Destination: t.LocalAddr()}
	if r := proxy.RequestOf(t); r != nil {
		r.Hold()
		s.request, s.asked.To = r, r.Destination()
	}
}

// granted answers the request when the other side is connected.
func (s *session) granted() {
	if s.request == nil {
		return
	}
	for side, e := range s.ends {
		if e.Role() != endpoint.Listen {
			s.request.Connected(s.relay.Transport(relay.Side(side)))
		}
	}
}

// denied answers the request if no connection can be made.
func (s *session) denied(err error) {
	if s.request != nil {
		s.request.Refuse(err)
	}
}
