package endpoint

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/utp"
)

// utpDocs are the options of both ends.
func utpDocs() []OptionDoc {
	return []OptionDoc{
		{Name: "keepalive", Type: Period(24 * time.Hour), Doc: "probe a peer that has been silent for this long; the default is 30s"},
		{Name: "user-timeout", Type: Period(24 * time.Hour), Doc: "give up on a peer that acknowledges nothing for this long; the default is 30s"},
		{Name: "half-close", Type: Period(math.MaxInt64), Doc: "how long the peer may send nothing after our end of writing has reached it; the default is 5m"},
		{Name: "nagle", Type: Flag, Doc: "hold back small pieces while others are on their way (Nagle's algorithm)"},
		{Name: "packet", Type: Number(150, 65507), Doc: "the longest datagram, in bytes; the default is 1472 over IPv4 and 1452 over IPv6"},
	}
}

// utpConfig reads them.
func utpConfig(p *Part) utp.Config {
	return utp.Config{
		KeepAlive: p.Duration("keepalive"),
		Timeout:   p.Duration("user-timeout"),
		HalfClose: p.Duration("half-close"),
		Nagle:     p.Has("nagle"),
		MaxPacket: int(p.Int("packet")),
	}
}

func utpKind() *Kind {
	return &Kind{
		Name:    "utp",
		Role:    Dial,
		Summary: "connect over uTP, a stream over UDP that gives way to other traffic",
		Doc: "The Micro Transport Protocol (BEP 29) with LEDBAT congestion control (RFC 6817): it keeps\n" +
			"the queues on its path short, and gives way to TCP. All connections share a UDP port,\n" +
			"which changes after a pause. All addresses of a name, of both families, are tried in a\n" +
			"race. uTP does not encrypt; utp:host:port+tls does.",
		Arg: Arg{Name: "host:port", Type: HostPort},
		Options: append([]OptionDoc{
			retryDoc(),
			{Name: "connect-timeout", Type: Duration, Doc: "give up an address that does not answer for this long; the default is 30s"},
			familyDoc(),
			{Name: "own-port", Type: Flag, Doc: "use a UDP port for each connection: BitTorrent's peers close a second one from the same port"},
		}, utpDocs()...),
		Example: "utp:seed.example:16881,retry=30s",
		Check: func(p *Part) *Fault {
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			d := "connects over uTP (a stream over UDP) to " + hostPort(p.ArgText())
			if f := p.Value("family"); f != "" {
				d += ", IPv" + f + " only"
			}
			if p.Has("retry") {
				d += ", trying for " + p.Value("retry")
			}
			if p.Has("own-port") {
				d += ", each from a port of its own"
			}
			return d + describeUTP(p)
		},
		Connect: func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
			cfg := utpConfig(p)
			cfg.ConnectTimeout = p.Duration("connect-timeout")
			cfg.Resolver = env.Resolver
			cfg.AddrFilter = env.notItselfUTP
			dialer := env.UTP
			if dialer == nil || p.Has("own-port") {
				dialer = utp.NewDialer(env.Loop)
			}
			c := dialer.Connect("udp"+p.Value("family"), hostPort(p.ArgText()), proto, cfg)
			return func() { c.Stop() }
		},
	}
}

// notItselfUTP refuses the addresses of uTP that are Own.
func (env *Env) notItselfUTP(a netip.AddrPort) error {
	if env.Own == nil {
		return nil
	}
	for _, own := range env.Own() {
		u, ok := own.(utp.Addr)
		at := u.AddrPort()
		if !ok || at.Port() != a.Port() {
			continue
		}
		if at.Addr() == a.Addr() || at.Addr().IsUnspecified() && a.Addr().IsLoopback() || a.Addr().IsUnspecified() {
			return &SelfError{Listener: own}
		}
	}
	return nil
}

// describeUTP says what holds for both ends.
func describeUTP(p *Part) string {
	c := utpConfig(p)
	shown := func(d, other time.Duration) time.Duration {
		if d == 0 {
			return other
		}
		return d
	}
	return fmt.Sprintf(", a silent peer is lost after %v, one that only listens after %v",
		shown(c.Timeout, 30*time.Second), shown(c.HalfClose, 5*time.Minute))
}

func utpListenKind() *Kind {
	return &Kind{
		Name:    "utp-listen",
		Role:    Listen,
		Summary: "accept uTP connections on a UDP port",
		Doc: "A port alone listens on loopback only, over IPv4 and IPv6; :port on every interface. All\n" +
			"connections share the port. Those beyond connections= or per-address= are reset. A\n" +
			"connection counts once its peer has answered, so forged addresses do not count.",
		Arg: Arg{Name: "[host:]port", Type: ListenPort},
		Options: append([]OptionDoc{
			familyDoc(),
			{Name: "connections", Type: Number(1, 65535), Doc: "how many at once; the default is 4096"},
			{Name: "per-address", Type: Bound, Doc: "how many at once from one address; the default is 256"},
		}, utpDocs()...),
		Example: "utp-listen:16881",
		Check: func(p *Part) *Fault {
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			host, port, _ := splitHostPort(p.ArgText())
			d := "listens for uTP on UDP " + hostPort(p.ArgText())
			switch {
			case loopback(p.ArgText()):
				d = fmt.Sprintf("listens for uTP on UDP port %s, loopback only", port)
			case host == "":
				d = fmt.Sprintf("listens for uTP on UDP port %s of every interface", port)
			}
			per := "256"
			if p.Has("per-address") {
				per = p.Value("per-address")
			}
			most := "4096"
			if p.Has("connections") {
				most = p.Value("connections")
			}
			if per == "none" {
				per = "any number"
			}
			return fmt.Sprintf("%s, at most %s connections, %s from one address%s", d, most, per, describeUTP(p))
		},
		Listen: listenUTP,
	}
}

func listenUTP(env *Env, p *Part, f weir.Factory) ([]Listener, error) {
	cfg := utpConfig(p)
	cfg.Connections = int(p.Int("connections"))
	if p.Value("per-address") == "none" {
		cfg.PerAddress = -1
	} else {
		cfg.PerAddress = int(p.Int("per-address"))
	}
	if !loopback(p.ArgText()) {
		ln, err := utp.Listen(env.Loop, "udp"+p.Value("family"), hostPort(p.ArgText()), f, cfg)
		if err != nil {
			return nil, err
		}
		return []Listener{ln}, nil
	}
	_, port, _ := splitHostPort(p.ArgText())
	var err error
	for range portTries {
		var all []Listener
		var absent error
		next := port
		for _, ip := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			if p.Has("family") && p.Value("family") != family(ip) {
				continue
			}
			var ln *utp.Listener
			ln, err = utp.Listen(env.Loop, "udp"+family(ip), net.JoinHostPort(ip.String(), next), f, cfg)
			if noSuchFamily(err) {
				absent, err = err, nil
				continue
			}
			if err != nil {
				break
			}
			all = append(all, ln)
			next = strconv.Itoa(int(ln.Endpoint().Packets().Local().IP.Port()))
		}
		switch {
		case err == nil && len(all) > 0:
			return all, nil
		case err == nil:
			return nil, absent
		}
		for _, ln := range all {
			_ = ln.Close() // it returns nil
		}
		if port != "0" || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
	return nil, err
}
