package advice

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer/proxy"
)

// showProxy explains a proxy's refusal: what the proxy was asked for, which could
// not be reached, and what to do; and, for the rules for dial, which rule it was.
func (f *Failure) showProxy(e *endpoint.Endpoint, cause error) {
	var (
		access   *proxy.AccessError
		refused  *proxy.Error
		protocol *proxy.ProtocolError
	)
	isRefused := errors.As(cause, &refused)
	i := proxyOf(e, refused)
	switch {
	case errors.As(cause, &access):
		f.Next = NextForAccess(access)
	case i < 0:
	case isRefused:
		f.Problem = "cannot connect to " + refused.Destination + " through " + through(e, i) + ": " + refused.Error()
		if len(f.Tried) == 1 { // it was the proxy's address, which is reachable
			f.Detail = append(f.Detail, "asked the proxy at "+strings.TrimSuffix(f.Tried[0], " "+cut(Why(cause))))
			f.Tried = nil
		}
		f.Next = nextForProxy(e, e.Layers[i], refused)
	case errors.As(cause, &protocol) && f.Next == "":
		f.Next = "Perhaps what listens there is no " + e.Layers[i].Name.Text + " proxy."
	}
}

// showUntrusted says what to do about a peer that proxy-in does not trust.
func (f *Failure) showUntrusted(err error) {
	var access *proxy.AccessError
	if errors.As(err, &access) && layerOf(err) == "proxy-in" {
		f.Next = fmt.Sprintf("If you trust it to say who its clients are: add ,from=%v to +proxy-in", access.Addr)
	}
}

// proxyOf is the index of the proxy layer that refused, or else of the last one,
// or -1.
func proxyOf(e *endpoint.Endpoint, refused *proxy.Error) int {
	at := -1
	for i, p := range e.Layers {
		if e.Layer(i).Arg.Type != endpoint.HostPort {
			continue
		}
		if at = i; refused != nil && p.Arg != nil && sameDestination(p.ArgText(), refused.Destination) {
			break
		}
	}
	return at
}

// sameDestination compares a host:port as it was written with one in package
// net's notation, which has brackets around IPv6 addresses.
func sameDestination(written, dest string) bool {
	bare := strings.NewReplacer("[", "", "]", "")
	return bare.Replace(written) == bare.Replace(dest)
}

// through is the label of an endpoint up to its layer i.
func through(e *endpoint.Endpoint, i int) string {
	label := e.Label()
	for j := len(e.Layers) - 1; j > i; j-- {
		label = strings.TrimSuffix(label, "+"+e.Layers[j].Name.Text)
	}
	return label
}

func nextForProxy(e *endpoint.Endpoint, p *endpoint.Part, refused *proxy.Error) string {
	name, dest := p.Name.Text, refused.Destination
	switch {
	case errors.Is(refused, proxy.ErrAuth):
		return nextForPassword(p, refused)
	case errors.Is(refused, proxy.ErrNotAllowed):
		return "The proxy does not go to " + dest + " for us: ask who runs it. If it is weir, it said there which rule it was."
	case errors.Is(refused, proxy.ErrCommand):
		return "Perhaps what listens there is no " + name + " proxy, or one that does not connect: ask who runs it."
	case errors.Is(refused, syscall.ECONNREFUSED):
		next := "The proxy could not reach " + dest + ": nothing listens there"
		switch base, _, _ := strings.Cut(e.Text, "+"); {
		case e.Base.Has("retry"):
			return next + ", and nothing came within " + e.Base.Value("retry") + "."
		case slices.ContainsFunc(e.Kind().Options, func(d endpoint.OptionDoc) bool { return d.Name == "retry" }):
			return next + ". To wait for it: add ,retry=30s to " + base
		}
		return next + "."
	case errors.Is(refused, syscall.ETIMEDOUT):
		return "The proxy could not reach " + dest + ": it got no answer there. Check the address, or ask who runs the proxy."
	case errors.Is(refused, syscall.EHOSTUNREACH):
		return "The proxy could not reach " + dest + ": it found no such name, or no way there. Check the name as the proxy sees it."
	case errors.Is(refused, syscall.ENETUNREACH):
		return "The proxy could not reach " + dest + ": it has no way to that network. Ask who runs the proxy."
	}
	return "The proxy could not reach " + dest + ", and says no more: what it logs may."
}

// nextForPassword is the next step if a proxy does not let us in.
func nextForPassword(p *endpoint.Part, refused *proxy.Error) string {
	name := p.Name.Text
	switch {
	case refused.Protocol == "socks4" && p.Has("user"):
		return "The proxy does not take that user: ask who runs it."
	case refused.Protocol == "socks4":
		return "The proxy wants to know who asks: add ,user=NAME to +" + name
	case !p.Has("user"):
		return "The proxy wants a user name and a password: add ,user=NAME,password=env:VAR to +" + name
	case refused.Protocol == "socks5" && refused.Code == 0xff:
		return "The proxy accepts neither a password nor a client without one, and weir knows no other way: ask who runs it."
	}
	if p.Has("empty-password") {
		return "The proxy does not take that user with an empty password: give it one with password=env:VAR."
	}
	return "The proxy does not take that user with that password: check user=" + p.Value("user") + " and what " + p.Value("password") + " holds."
}

// NextForAccess is the next step if --allow and --deny, or the lack of them,
// forbid an address.
func NextForAccess(e *proxy.AccessError) string {
	switch e.Problem {
	case proxy.Denied:
		return fmt.Sprintf("--deny refuses it: take %v out of it if you mean to allow it.", e.Network)
	case proxy.NotListed:
		return fmt.Sprintf("--allow refuses it, because it names only others: add %v to it if you mean to allow it.", e.Addr)
	case proxy.Own:
		return "A proxy that is asked for itself would ask itself again, without end. No option allows it."
	case proxy.Private:
		return fmt.Sprintf("It is refused unless it is named, or the proxy listens on loopback only: add --allow %v if you mean to allow it, and with it everything else that is allowed, such as 0.0.0.0/0,::/0", e.Addr)
	case proxy.Special:
	}
	return fmt.Sprintf("It is refused unless it is named: add --allow %v if you mean to allow it, and with it everything else that is allowed, such as 0.0.0.0/0,::/0", e.Addr)
}

// whyProxy says what a proxy, or a client of one, failed to do; "" for other
// errors.
func whyProxy(err error) string {
	var (
		refused  *proxy.Error
		protocol *proxy.ProtocolError
		access   *proxy.AccessError
	)
	var method *proxy.MethodError
	switch {
	case errors.As(err, &method):
		return method.Error()
	case errors.As(err, &access):
		return access.Error()
	case errors.As(err, &refused):
		return refused.Error()
	case errors.As(err, &protocol):
		return protocol.Problem
	case errors.Is(err, proxy.ErrNotAllowed):
		return "not allowed by the rules"
	case errors.Is(err, proxy.ErrThrottled):
		return "too many wrong passwords have come from its address (guesses=)"
	case errors.Is(err, proxy.ErrAuth):
		return proxy.ErrAuth.Error()
	case errors.Is(err, proxy.ErrCommand):
		return proxy.ErrCommand.Error()
	case errors.Is(err, endpoint.ErrNotAsked):
		return endpoint.ErrNotAsked.Error()
	}
	return ""
}
