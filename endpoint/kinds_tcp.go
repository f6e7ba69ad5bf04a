package endpoint

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
)

func familyDoc() OptionDoc {
	return OptionDoc{Name: "family", Type: Choice("4", "6"), Doc: "use IPv4 or IPv6 only"}
}

func keepAliveDoc() OptionDoc {
	return OptionDoc{Name: "keepalive", Type: Period(32767 * time.Second), Doc: "idle time and interval of TCP keep-alive probes, in whole seconds; the default is 15s"}
}

func userTimeoutDoc() OptionDoc {
	return OptionDoc{Name: "user-timeout", Type: Period(math.MaxInt32 * time.Millisecond), Doc: "give up on a peer that acknowledges or accepts nothing for this long, even if it only pauses (Linux)"}
}

func nagleDoc() OptionDoc {
	return OptionDoc{Name: "nagle", Type: Flag, Doc: "let TCP hold back small pieces (Nagle's algorithm)"}
}

func deviceDoc() OptionDoc {
	return OptionDoc{Name: "device", Type: Text, Doc: "use this network device only (Linux)"}
}

func dscpDoc() OptionDoc {
	return OptionDoc{Name: "dscp", Type: Number(0, 63), Doc: "the DSCP of packets that are sent (RFC 2474)"}
}

func markDoc() OptionDoc {
	return OptionDoc{Name: "mark", Type: Number(1, math.MaxUint32), Doc: "mark packets for routing rules and firewalls (Linux, needs CAP_NET_ADMIN)"}
}

func fastOpenDoc() OptionDoc {
	return OptionDoc{Name: "fastopen", Type: Flag, Doc: "send data with the first segment: TCP Fast Open (RFC 7413)"}
}

func multipathDoc() OptionDoc {
	return OptionDoc{Name: "multipath", Type: Flag, Doc: "use Multipath TCP (RFC 8684), or TCP where it is not available"}
}

func retryDoc() OptionDoc {
	return OptionDoc{Name: "retry", Type: Duration, Doc: "keep trying for this long before giving up"}
}

func timeoutDoc() OptionDoc {
	return OptionDoc{Name: "timeout", Type: Duration, Doc: "give up an attempt that takes longer in total: name, addresses and layers"}
}

func tcpKind() *Kind {
	return &Kind{
		Name:    "tcp",
		Role:    Dial,
		Summary: "connect to a TCP port",
		Doc: "host:port alone is short for tcp:host:port. The port stands after the last colon,\n" +
			"so tcp:::1:8080 needs no brackets; a scope is written fe80::1%25eth0. All addresses\n" +
			"of a name, of both families, are tried in a race (RFC 8305).",
		Arg: Arg{Name: "host:port", Type: HostPort},
		Options: []OptionDoc{
			retryDoc(),
			timeoutDoc(),
			{Name: "name-timeout", Type: Duration, Doc: "give up if looking up the name takes longer"},
			{Name: "connect-timeout", Type: Duration, Doc: "give up an address that takes longer to answer, and try the next; the default is 30s, if timeout is not set either"},
			familyDoc(),
			{Name: "bind", Type: IP, Doc: "the local address to connect from"},
			{Name: "sequential", Type: Flag, Doc: "try addresses one after another", Conflicts: []string{"headstart"}},
			{Name: "headstart", Type: Duration, Doc: "how long to try an address before the next joins; the default is 250ms"},
			keepAliveDoc(), userTimeoutDoc(),
			nagleDoc(),
			deviceDoc(), dscpDoc(), markDoc(), fastOpenDoc(), multipathDoc(),
		},
		Example: "localhost:3000,retry=30s",
		Check: func(p *Part) *Fault {
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			d := "connects to TCP " + hostPort(p.ArgText())
			switch p.Value("family") {
			case "4":
				d += ", IPv4 only"
			case "6":
				d += ", IPv6 only"
			}
			if p.Has("bind") {
				d += ", from " + p.Value("bind")
			}
			if p.Has("retry") {
				d += ", trying for " + p.Value("retry")
			}
			return d
		},
		Connect: connectTCP,
	}
}

// checkFamilies compares the address families of everything on the part that
// has one.
func checkFamilies(p *Part, host string) *Fault {
	want := p.Value("family")
	from := "family=" + want
	if a, err := netip.ParseAddr(host); err == nil {
		if f := family(a); want != "" && want != f {
			return &Fault{Token: p.Arg, Problem: fmt.Sprintf("%s is an IPv%s address, but family=%s was given", host, f, want)}
		} else if want == "" {
			want, from = f, host
		}
	}
	for _, o := range p.Options {
		if name := o.Key.Text; name != "bind" && name != "also" {
			continue
		}
		a, _ := netip.ParseAddr(o.Value.Text) // the option's type has checked it
		if want != "" && family(a) != want {
			return &Fault{Token: o.Value, Problem: fmt.Sprintf("%s=%s and %s are of different families", o.Key.Text, o.Value.Text, from)}
		}
	}
	return nil
}

func family(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "4"
	}
	return "6"
}

// fastOpenQueue bounds the connections that wait with data but have not proved
// their address yet.
const fastOpenQueue = 256

func tcpOptions(p *Part) []weir.TCPOption {
	var opts []weir.TCPOption
	if p.Has("keepalive") {
		opts = append(opts, weir.WithKeepAlive(p.Duration("keepalive")))
	}
	if p.Has("user-timeout") {
		opts = append(opts, weir.WithUserTimeout(p.Duration("user-timeout")))
	}
	if p.Has("nagle") {
		opts = append(opts, weir.WithNagle())
	}
	if p.Has("device") {
		opts = append(opts, weir.WithDevice(p.Value("device")))
	}
	if p.Has("dscp") {
		opts = append(opts, weir.WithDSCP(uint8(p.Int("dscp"))))
	}
	if p.Has("mark") {
		opts = append(opts, weir.WithMark(uint32(p.Int("mark"))))
	}
	if p.Has("fastopen") {
		opts = append(opts, weir.WithFastOpen(fastOpenQueue))
	}
	if p.Has("multipath") {
		opts = append(opts, weir.WithMultipath())
	}
	return opts
}

func connectTCP(env *Env, p *Part, _ string, proto weir.Protocol) func() {
	return dialTCP(env, p, hostPort(p.ArgText()), []weir.ConnectOption{weir.JoinOptions(tcpOptions(p)...), weir.WithAddrFilter(env.notItself)}, proto)
}

// connectMost is how long an address is tried if no option says otherwise:
// systems keep trying for two minutes and more, and a client that has given up
// meanwhile without a reset is not noticed until then.
const connectMost = 30 * time.Second

func dialTCP(env *Env, p *Part, target string, opts []weir.ConnectOption, proto weir.Protocol) func() {
	if p.Has("bind") {
		opts = append(opts, weir.WithLocalAddr(netip.AddrPortFrom(p.IP("bind"), 0)))
	}
	return dial(env, p, "tcp", target, opts, proto)
}

// dial connects on a network with host and port, "tcp" or "sctp".
func dial(env *Env, p *Part, network, target string, opts []weir.ConnectOption, proto weir.Protocol) func() {
	switch {
	case p.Has("timeout"):
		opts = append(opts, weir.WithTimeout(p.Duration("timeout")))
	case !p.Has("connect-timeout"):
		opts = append(opts, weir.WithConnectTimeout(connectMost))
	}
	opts = append(opts, weir.WithDescriptorWait(descriptorWait))
	if p.Has("name-timeout") {
		opts = append(opts, weir.WithNameTimeout(p.Duration("name-timeout")))
	}
	if p.Has("connect-timeout") {
		opts = append(opts, weir.WithConnectTimeout(p.Duration("connect-timeout")))
	}
	if p.Has("sequential") {
		opts = append(opts, weir.WithSequential())
	}
	if p.Has("headstart") {
		opts = append(opts, weir.WithRaceDelay(p.Duration("headstart")))
	}
	if env.Resolver != nil {
		opts = append(opts, weir.WithConnectResolver(env.Resolver))
	}
	c := env.Loop.Connect(network+p.Value("family"), target, proto, opts...)
	return func() { c.Stop() }
}

func tcpListenKind() *Kind {
	return &Kind{
		Name:    "tcp-listen",
		Role:    Listen,
		Summary: "accept connections on a TCP port",
		Doc: "8080 alone is short for tcp-listen:8080, loopback only; :8080 is every interface.\n" +
			"Both listen on IPv4 and IPv6. Port 0 picks a free port." + boundsDoc,
		Arg: Arg{Name: "[host:]port", Type: ListenPort},
		Options: append([]OptionDoc{
			familyDoc(),
			{Name: "backlog", Type: Number(1, 65535), Doc: "how many connections may wait to be accepted"},
			{Name: "reuseport", Type: Flag, Doc: "share the port with other processes (SO_REUSEPORT)"},
			keepAliveDoc(), userTimeoutDoc(),
			nagleDoc(),
			deviceDoc(), dscpDoc(), markDoc(), fastOpenDoc(), multipathDoc(),
		}, boundDocs()...),
		Example: "tcp-listen:192.0.2.7:8080,reuseport",
		Check: func(p *Part) *Fault {
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string { return describeTCPListen(p) + describeBounds(p) },
		Listen:   listenTCP,
	}
}

// describeTCPListen says where a part listens.
func describeTCPListen(p *Part) string {
	host, port, _ := splitHostPort(p.ArgText())
	switch family := p.Value("family"); {
	case loopback(p.ArgText()) && family == "":
		return fmt.Sprintf("listens on TCP 127.0.0.1:%s and [::1]:%s, loopback only", port, port)
	case loopback(p.ArgText()) && family == "4":
		return fmt.Sprintf("listens on TCP 127.0.0.1:%s, loopback only", port)
	case loopback(p.ArgText()):
		return fmt.Sprintf("listens on TCP [::1]:%s, loopback only", port)
	case host == "" && family == "":
		return fmt.Sprintf("listens on TCP port %s of every interface", port)
	case host == "":
		return fmt.Sprintf("listens on TCP port %s of every interface, IPv%s only", port, family)
	}
	return "listens on TCP " + hostPort(p.ArgText())
}

// loopback reports whether an argument means loopback in both address families.
func loopback(arg string) bool {
	host, _, ok := splitHostPort(arg)
	return !ok || strings.EqualFold(host, "localhost")
}

func listenTCP(env *Env, p *Part, f weir.Factory) ([]Listener, error) {
	opts := []weir.ListenOption{weir.JoinOptions(tcpOptions(p)...), admission(env, p, placeWait)}
	if p.Has("backlog") {
		opts = append(opts, weir.WithBacklog(int(p.Int("backlog"))))
	}
	if p.Has("reuseport") {
		opts = append(opts, weir.WithReusePort())
	}
	return listenInet(env, p, "tcp", f, opts)
}

// listenInet listens on a network with host and port, "tcp" or "sctp".
func listenInet(env *Env, p *Part, network string, f weir.Factory, opts []weir.ListenOption) ([]Listener, error) {
	if loopback(p.ArgText()) {
		return listenLoopback(env, p, network, f, opts)
	}
	ln, err := env.Loop.Listen(network+p.Value("family"), hostPort(p.ArgText()), f, opts...)
	if err != nil {
		return nil, err
	}
	return []Listener{ln}, nil
}

// portTries is how often we look for a port that is free in both families.
const portTries = 32

// listenLoopback listens on both loopback addresses, on the same port. On a
// machine without one of them it listens on the other.
func listenLoopback(env *Env, p *Part, network string, f weir.Factory, opts []weir.ListenOption) ([]Listener, error) {
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
			var ln *weir.Listener
			ln, err = env.Loop.Listen(network+family(ip), net.JoinHostPort(ip.String(), next), f, opts...)
			if noSuchFamily(err) {
				absent, err = err, nil
				continue
			}
			if err != nil {
				break
			}
			all = append(all, ln)
			if _, picked, err := net.SplitHostPort(ln.Addr().String()); err == nil {
				next = picked
			}
		}
		switch {
		case err == nil && len(all) > 0:
			return all, nil
		case err == nil:
			return nil, absent
		}
		for _, ln := range all {
			_ = ln.Close() // returns nil on its own loop
		}
		if port != "0" || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
	return nil, err
}

func noSuchFamily(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

func unixKind() *Kind {
	return &Kind{
		Name:    "unix",
		Role:    Dial,
		Summary: "connect to a UNIX socket",
		Doc:     "/path alone is short for unix:/path. unix:@name is an abstract socket (Linux).",
		Arg:     Arg{Name: "path|@name", Type: Path},
		Options: []OptionDoc{retryDoc(), timeoutDoc()},
		Example: "/run/app.sock,retry=10s",
		Describe: func(p *Part) string {
			d := "connects to UNIX socket " + p.ArgText()
			if p.Has("retry") {
				d += ", trying for " + p.Value("retry")
			}
			return d
		},
		Connect: func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
			opts := []weir.ConnectOption{weir.WithDescriptorWait(descriptorWait)}
			if p.Has("timeout") {
				opts = append(opts, weir.WithTimeout(p.Duration("timeout")))
			}
			path := env.Path(p.ArgText())
			if own := env.ownPath(path); own != nil {
				return soon(env, "unix", path, proto, func() error { return &SelfError{Listener: own} })
			}
			c := env.Loop.Connect("unix", path, proto, opts...)
			return func() { c.Stop() }
		},
	}
}

func unixListenKind() *Kind {
	return &Kind{
		Name:    "unix-listen",
		Role:    Listen,
		Summary: "accept connections on a UNIX socket",
		Doc: "The file is removed at the end. An existing socket is replaced if nothing answers on it;\n" +
			"anything else, such as a symbolic link, is left alone, and weir reports an error.",
		Arg: Arg{Name: "path|@name", Type: Path},
		Options: []OptionDoc{
			{Name: "mode", Type: Mode, Doc: "permission bits of the file, in force from the start"},
			{Name: "backlog", Type: Number(1, 65535), Doc: "how many connections may wait to be accepted"},
			{Name: "allow-user", Type: Text, Many: true, Doc: "accept only clients that run as this user: a name or a number"},
			{Name: "allow-group", Type: Text, Many: true, Doc: "the same for those that run in this group; with both, either will do"},
			boundDocs()[0],
		},
		Prepare: preparePeers,
		Example: "unix-listen:/run/app.sock,mode=0660",
		Check: func(p *Part) *Fault {
			if m := p.Option("mode"); m != nil && strings.HasPrefix(p.ArgText(), "@") {
				return &Fault{Token: &m.Key, Problem: "an abstract socket has no file, and so no mode"}
			}
			return nil
		},
		Describe: func(p *Part) string {
			d := "listens on UNIX socket " + p.ArgText()
			if p.Has("mode") {
				d += ", mode " + p.Value("mode")
			}
			who := slices.Clone(p.Values("allow-user"))
			for _, g := range p.Values("allow-group") {
				who = append(who, "group "+g)
			}
			if len(who) > 0 {
				d += ", only for " + strings.Join(who, ", ")
			}
			return d + describeBounds(p)
		},
		Listen: func(env *Env, p *Part, f weir.Factory) ([]Listener, error) {
			path := env.Path(p.ArgText())
			opts := []weir.ListenOption{admission(env, p, 0)} // see placeWait
			if p.Has("mode") {
				opts = append(opts, weir.WithMode(p.Mode("mode")))
			}
			if p.Has("backlog") {
				opts = append(opts, weir.WithBacklog(int(p.Int("backlog"))))
			}
			if !strings.HasPrefix(path, "@") {
				replaced, err := clearStale(path)
				if err != nil {
					return nil, &net.OpError{Op: "listen", Net: "unix", Addr: &net.UnixAddr{Net: "unix", Name: path}, Err: err}
				}
				if replaced {
					env.note("replaced " + path + ", a socket on which nothing answered")
				}
			}
			ln, err := env.Loop.Listen("unix", path, onlyPeers(env, p, f), opts...)
			if err != nil {
				return nil, err
			}
			return []Listener{ln}, nil
		},
	}
}

// answerTimeout bounds the wait for an answer on a socket that already exists.
// A local connect is answered at once, or waits because the queue is full.
const answerTimeout = time.Second
