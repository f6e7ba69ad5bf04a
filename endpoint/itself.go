package endpoint

import (
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/weir-io/weir/layer/proxy"
)

// SelfError reports a connect that would reach one of Env.Own. Each connection
// through it would make another one, until no descriptor is left.
type SelfError struct {
	Listener net.Addr // that it would reach
}

func (e *SelfError) Error() string {
	return "it leads to itself: " + e.Listener.String() + " is where this process listens"
}

// notItself refuses the addresses in Own. It sees the addresses that a name
// stands for, when they are connected to.
func (env *Env) notItself(a netip.AddrPort) error {
	if env.Own == nil {
		return nil
	}
	if own := proxy.Reached(a, env.Own()); own != nil {
		return &SelfError{Listener: own}
	}
	return nil
}

// ownPath returns the address in Own that a connection to a UNIX socket would
// reach, following links, or nil if there is none.
func (env *Env) ownPath(path string) net.Addr {
	if env.Own == nil {
		return nil
	}
	var st os.FileInfo
	for _, l := range env.Own() {
		if l.Network() != "unix" {
			continue
		}
		own := l.String()
		if own == path {
			return l
		}
		if strings.HasPrefix(own, "@") || strings.HasPrefix(path, "@") {
			continue
		}
		if st == nil {
			var err error
			if st, err = os.Stat(path); err != nil {
				return nil // the connect says why
			}
		}
		if other, err := os.Stat(own); err == nil && os.SameFile(st, other) {
			return l
		}
	}
	return nil
}

// LeadsTo reports whether connections to e are certain to reach listener, as
// far as that can be told without looking at names, links or interfaces; the
// rest is found out when a connection is made (SelfError).
func (e *Endpoint) LeadsTo(listener *Endpoint) bool {
	if e.Role() != Dial || listener.Role() != Listen || e.Base.Arg == nil || listener.Base.Arg == nil {
		return false
	}
	to, at := e.Base.ArgText(), listener.Base.ArgText()
	switch e.kind.Name + " " + listener.kind.Name {
	case "unix unix-listen":
		return to == at
	case "tcp tcp-listen", "udp udp-listen", "utp utp-listen", "sctp sctp-listen":
	default:
		return false
	}
	if listener.Base.Has("device") || listener.Base.Has("family") && listener.Base.Value("family") != e.Base.Value("family") {
		return false
	}
	host, port, ok := splitHostPort(to)
	atHost, atPort, given := splitHostPort(at)
	if !given {
		atHost, atPort = "localhost", at
	}
	if !ok || port != atPort {
		return false
	}
	local := strings.EqualFold(unbracket(host), "localhost")
	ip, err := netip.ParseAddr(unbracket(host))
	if err == nil {
		ip = ip.Unmap()
		local = ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback()
	}
	atIP, atErr := netip.ParseAddr(unbracket(atHost))
	switch {
	case atHost == "":
		return local || err == nil && (ip.IsLoopback() || ip.IsUnspecified())
	case strings.EqualFold(atHost, "localhost"):
		return local || err == nil && ip.IsUnspecified()
	case atErr == nil && err == nil:
		return ip == atIP.Unmap()
	}
	return false
}
