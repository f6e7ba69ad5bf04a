package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/proxy"
)

// proxyLayers returns the entries for proxies and the PROXY protocol.
func proxyLayers() []*Layer {
	return []*Layer{
		proxyLayer(proxyEntry{
			name: "socks5", example: "localhost:1080+socks5:example.com:80",
			title:  "SOCKS5: a proxy on a listener, a proxy's client elsewhere",
			server: func(o ...proxy.ServerOption) layer.Layer { return proxy.SOCKSServer(proxy.Version5, o...) },
			client: proxy.SOCKS5, password: true, bind: true, udp: true,
		}),
		proxyLayer(proxyEntry{
			name: "socks4a", example: "localhost:1080+socks4a:example.com:80",
			title: "SOCKS4a, which takes names: a proxy on a listener, a proxy's client elsewhere",
			server: func(o ...proxy.ServerOption) layer.Layer {
				return proxy.SOCKSServer(proxy.Version4|proxy.Version4a, o...)
			},
			client: proxy.SOCKS4a, bind: true, only4: true,
		}),
		proxyLayer(proxyEntry{
			name: "socks4", example: "localhost:1080+socks4:192.0.2.1:80",
			title:  "SOCKS4, IPv4 addresses only: a proxy on a listener, a proxy's client elsewhere",
			server: func(o ...proxy.ServerOption) layer.Layer { return proxy.SOCKSServer(proxy.Version4, o...) },
			client: proxy.SOCKS4, bind: true, only4: true,
		}),
		proxyLayer(proxyEntry{
			name: "connect", example: "proxy.corp:3128+connect:example.com:443",
			title:  "HTTP CONNECT: a proxy on a listener, a proxy's client elsewhere",
			server: proxy.ConnectServer, client: proxy.Connect, password: true, noColon: true,
		}),
		proxyInLayer(),
		proxyOutLayer(),
	}
}

// proxyEntry holds what differs between the proxies' entries.
type proxyEntry struct {
	name, title, example string
	server               func(...proxy.ServerOption) layer.Layer
	client               func(dest string, opts ...proxy.ClientOption) layer.Layer
	password             bool // it has passwords
	noColon              bool // a colon ends the user's name
	bind                 bool // it has BIND
	udp                  bool // it has UDP ASSOCIATE
	only4                bool // its addresses are IPv4
}

const proxyDoc = `A server passes its clients' requests to the other side: dial connects to where they ask,
and a proxy layer without an argument asks the next proxy for the same. Without
authentication a server listens on loopback only. A client asks the proxy to connect to
its argument; the proxy resolves the name, and weir does not look it up.`

const bindDoc = `

With bind=ADDR a client may also wait for a connection (BIND, as active FTP needs):
a port is opened on that address for one connection from the host that the client
names, within a minute or dial's timeout. --allow and --deny apply to the host that connects.`

const associateDoc = `

With udp a client may also send datagrams (UDP ASSOCIATE) while its connection lasts: a
port for them is opened on the address that it has connected to. --allow and --deny apply
to the destination of each. On udp it is a client: each peer's datagrams go through an
association of their own to the argument: udp:proxy:1080+socks5:9.9.9.9:53. Layers for
the datagrams come after it.`

func proxyLayer(e proxyEntry) *Layer {
	options := []OptionDoc{
		{Name: "timeout", Type: Duration, Doc: "how long a client may take to ask (10s), or the proxy to connect (60s)"},
	}
	if e.password {
		options = append(options,
			OptionDoc{Name: "user", Type: Text, Doc: "the user name: to send to the proxy, or the only one to accept"},
			OptionDoc{Name: "password", Type: Secret, Doc: "its password"},
			OptionDoc{Name: "empty-password", Type: Flag, Doc: "client: the user has an empty password", Conflicts: []string{"password", "users"}},
			OptionDoc{Name: "users", Type: Secret, Doc: "server: the users to accept, a name:password on each line, each name once", Conflicts: []string{"user", "password"}},
			OptionDoc{Name: "guesses", Type: Bound, Doc: "server: wrong passwords that one address may try in a minute, after ten at once; the default is 60"},
		)
	} else {
		options = append(options, OptionDoc{Name: "user", Type: Text, Doc: "client: the user name to claim"})
	}
	if e.noColon {
		options = append(options, OptionDoc{Name: "header", Type: headerType, Many: true, Doc: "client: a header to send, NAME:VALUE; NAME:env:VARIABLE and NAME:file:PATH read the value from there"})
	}
	doc := proxyDoc
	if e.udp {
		doc += associateDoc
		options = append(options, OptionDoc{Name: "udp", Type: Flag, Doc: "server: relay datagrams too (UDP ASSOCIATE)"})
	}
	if e.bind {
		doc += bindDoc
		options = append(options, OptionDoc{Name: "bind", Type: IP, Doc: "server: serve BIND too, and wait for its peers on this local address"})
	}
	return &Layer{
		Name: e.name, Summary: e.title, Doc: doc, Example: e.example, Options: options,
		Arg:       Arg{Name: "host:port", Type: HostPort, Optional: true},
		PacketWay: e.udp,
		DescribePackets: func(p *Part, _ Role) string {
			return "has the " + p.Name.Text + " proxy send to " + hostPort(p.ArgText()) + " (UDP ASSOCIATE); the proxy resolves the name"
		},
		Check: func(p *Part, role Role) *Fault {
			return checkProxy(p, role, e)
		},
		Describe: func(p *Part, role Role) string { return describeProxy(p, role) },
		Prepare: func(env *Env, p *Part, role Role) (Prepared, error) {
			if role.Server() {
				return prepareProxyServer(env, p, e)
			}
			return prepareProxyClient(env, p, e)
		},
	}
}

func checkProxy(p *Part, role Role, e proxyEntry) *Fault {
	user, password := p.Option("user"), p.Option("password")
	switch {
	case role.Server() && p.Arg != nil:
		return &Fault{Token: p.Arg, Problem: "a proxy that listens takes no destination: its clients name it", Hint: "the other side says how to get there: dial, or another proxy"}
	case role.Server() && !e.password && user != nil:
		return &Fault{Token: &user.Key, Problem: "SOCKS4 has no passwords, so it cannot keep anyone out", Hint: "use socks5 or connect"}
	case role.Server() && p.Has("empty-password"):
		return &Fault{Token: &p.Option("empty-password").Key, Problem: `option "empty-password" is for a client`, Hint: "add password=env:NAME or users=file:PATH"}
	case role.Server() && p.Has("header"):
		return &Fault{Token: &p.Option("header").Key, Problem: `option "header" is for a client`}
	case e.password && user != nil && password == nil && !p.Has("empty-password"):
		return &Fault{Token: &user.Key, Problem: "a user name without a password", Hint: "add password=env:NAME or password=file:PATH, or empty-password if that user has none"}
	case p.Has("empty-password") && user == nil:
		return &Fault{Token: &p.Option("empty-password").Key, Problem: "an empty password without a user name", Hint: "add user=NAME"}
	case e.noColon && user != nil && strings.Contains(user.Value.Text, ":"):
		return &Fault{Token: user.Value, Problem: "a user name with a colon", Hint: "basic authentication (RFC 7617) does not allow one; use socks5"}
	case e.password && user != nil && len(user.Value.Text) > longestCredential:
		return &Fault{Token: user.Value, Problem: "a user name that is too long", Hint: "it has at most 255 bytes"}
	case password != nil && user == nil:
		return &Fault{Token: &password.Key, Problem: "a password without a user name", Hint: "add user=NAME"}
	case !role.Server() && p.Has("users"):
		return &Fault{Token: &p.Option("users").Key, Problem: `option "users" is for a server`, Hint: `did you mean "user"?`}
	case p.Has("guesses") && (!role.Server() || !authenticates(p)):
		return &Fault{Token: &p.Option("guesses").Key, Problem: `option "guesses" is for a server that asks for passwords`, Hint: "add users=file:PATH to one that listens"}
	case !role.Server() && p.Has("bind"):
		return &Fault{Token: &p.Option("bind").Key, Problem: `option "bind" is for a server`, Hint: "as an option of the base it is the address to connect from"}
	case !role.Server() && p.Has("udp"):
		return &Fault{Token: &p.Option("udp").Key, Problem: `option "udp" is for a server`, Hint: "a client of UDP is udp:proxy:1080+socks5:9.9.9.9:53"}
	case e.only4 && p.Has("bind") && !p.IP("bind").Unmap().Is4():
		return &Fault{Token: p.Option("bind").Value, Problem: "SOCKS4 has no IPv6 addresses", Hint: "use socks5"}
	}
	return nil
}

func describeProxy(p *Part, role Role) string {
	name := p.Name.Text
	switch {
	case role.Server():
		d := name + " proxy for anyone who can connect; its clients choose the destination"
		if authenticates(p) {
			d = name + " proxy for clients that have a password; they choose the destination"
		}
		if p.Has("udp") {
			d += ", and it relays their datagrams"
		}
		return d
	case p.Arg == nil:
		return "asks the " + name + " proxy for the destination that the other side asked for; the proxy resolves names"
	}
	return "asks the " + name + " proxy for " + hostPort(p.ArgText()) + "; the proxy resolves the name"
}

// authenticates reports whether a layer, as a server, lets in only clients that
// it knows.
func authenticates(p *Part) bool {
	return p.Has("password") || p.Has("users") || p.Has("client-ca")
}

func prepareProxyServer(env *Env, p *Part, e proxyEntry) (Prepared, error) {
	var opts []proxy.ServerOption
	if d := p.Duration("timeout"); d > 0 {
		opts = append(opts, proxy.WithRequestTimeout(d))
	}
	users, err := proxyUsers(env, p)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		opts = append(opts, proxy.WithUsers(proxy.NewUsers(users)))
	}
	if p.Has("guesses") {
		opts = append(opts, proxy.WithGuesses(bound(p, "guesses", 0)))
	}
	if p.Has("bind") {
		opts = append(opts, proxy.WithBind())
	}
	if p.Has("udp") {
		opts = append(opts, proxy.WithAssociate())
	}
	return Always(e.server(opts...)), nil
}

func prepareProxyClient(env *Env, p *Part, e proxyEntry) (Prepared, error) {
	opts, err := proxyClientOptions(env, p, e.password)
	if err != nil {
		return nil, err
	}
	if p.Arg != nil {
		return Always(e.client(hostPort(p.ArgText()), opts...)), nil
	}
	return func(asked Asked) layer.Layer { return e.client(asked.To, opts...) }, nil
}

func proxyClientOptions(env *Env, p *Part, passwords bool) (opts []proxy.ClientOption, err error) {
	if d := p.Duration("timeout"); d > 0 {
		opts = append(opts, proxy.WithTimeout(d))
	}
	if p.Has("user") {
		password := ""
		if p.Has("empty-password") {
			opts = append(opts, proxy.WithEmptyPassword())
		} else if passwords {
			if password, err = proxyPassword(env, p); err != nil {
				return nil, err
			}
		}
		opts = append(opts, proxy.WithCredentials(p.Value("user"), password))
	}
	fields, err := headerFields(env, p)
	if err != nil {
		return nil, err
	}
	return append(opts, proxy.WithHeader(fields...)), nil
}

// networkType is the type of a network or an address of trusted peers.
var networkType = &Type{Name: "network", Doc: "an address or a network: 10.0.0.0/8", check: func(s string) *Fault {
	if _, err := ParseNetwork(s); err != nil {
		return &Fault{Problem: fmt.Sprintf("bad network %q", s), Hint: "an address such as 10.1.2.3 or a network such as 10.0.0.0/8"}
	}
	return nil
}}

// ParseNetwork reads an address, or a network such as 10.0.0.0/8.
func ParseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, errors.New("a network has no scope")
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

func proxyInLayer() *Layer {
	return &Layer{
		Name: "proxy-in", Roles: []Role{Listen},
		Summary: "takes the client's address from a PROXY header (versions 1 and 2)",
		Doc: "For servers behind haproxy and the like. Trusted peers have to send a header, and other\n" +
			"peers are refused, so that no one can forge an address. If a header has no IP address\n" +
			"(LOCAL, UNSPEC, UNIX), the connection keeps its own.",
		Example: "8443+proxy-in,from=10.0.0.0/8",
		Options: []OptionDoc{
			{Name: "from", Type: networkType, Many: true, Doc: "trusted peers, besides those on UNIX sockets; without it, loopback"},
			{Name: "timeout", Type: Duration, Doc: "how long the header may take; the default is 5s"},
		},
		Describe: func(p *Part, _ Role) string {
			from := "loopback"
			if p.Has("from") {
				from = strings.Join(p.Values("from"), ", ")
			}
			return "requires a PROXY header, from " + from + " only; its addresses are the connection's"
		},
		Prepare: func(_ *Env, p *Part, _ Role) (Prepared, error) {
			var trusted []netip.Prefix
			for _, s := range p.Values("from") {
				n, err := ParseNetwork(s)
				if err != nil {
					return nil, err
				}
				trusted = append(trusted, n)
			}
			return Always(proxy.HeaderIn(trusted, p.Duration("timeout"))), nil
		},
	}
}

func proxyOutLayer() *Layer {
	return &Layer{
		Name: "proxy-out", Roles: []Role{Dial, Open},
		Summary: "tells the next server the client's address in a PROXY header",
		Doc:     "v2 is binary and the default, v1 a line of text. The server must expect it.",
		Example: "localhost:22+proxy-out:v2",
		Arg:     Arg{Name: "v1|v2", Type: Choice("v1", "v2"), Optional: true},
		Describe: func(p *Part, _ Role) string {
			v := p.ArgText()
			if v == "" {
				v = "v2"
			}
			return "begins with a PROXY header (" + v + ") that names the client on the other side"
		},
		Prepare: func(_ *Env, p *Part, _ Role) (Prepared, error) {
			v := proxy.HeaderV2
			if p.ArgText() == "v1" {
				v = proxy.HeaderV1
			}
			return func(asked Asked) layer.Layer { return proxy.HeaderOut(v, asked.Source, asked.Destination) }, nil
		},
	}
}

func dialKind() *Kind {
	return &Kind{
		Name:    "dial",
		Role:    Dial,
		OnLoops: true,
		Summary: "connect to where the client of a proxy asks to go",
		Doc: "The proxy layer on the other side chooses the target. --allow and --deny are rules for\n" +
			"its addresses, after names are resolved. Link-local and multicast addresses and those of\n" +
			"cloud metadata services are refused unless --allow names them; so are private and\n" +
			"loopback addresses, unless the proxy itself listens on loopback or on a UNIX socket. A\n" +
			"network names the addresses in it only if it is no larger than the range that is refused:\n" +
			"10.0.0.0/8 names private addresses, 0.0.0.0/0 does not. To allow private addresses and\n" +
			"all others: --allow 10.0.0.0/8,0.0.0.0/0,::/0. Addresses that weir itself listens on are\n" +
			"always refused.",
		Options: []OptionDoc{
			{Name: "timeout", Type: Duration, Doc: "give up an attempt that takes longer in total: name and addresses; the default is 30s"},
			familyDoc(),
			{Name: "bind", Type: IP, Doc: "the local address to connect from"},
			keepAliveDoc(),
			nagleDoc(),
		},
		Example:  "dial,timeout=10s",
		Describe: func(*Part) string { return "connects to where the client of the proxy asks to go" },
		Connect: func(env *Env, p *Part, to string, proto weir.Protocol) func() {
			if to == "" {
				return soon(env, "tcp", "", proto, func() error { return ErrNotAsked })
			}
			d := &proxy.Dialer{
				Access: env.Access, Resolver: env.Resolver, Network: "tcp" + p.Value("family"), Timeout: p.Duration("timeout"),
				Options: []weir.ConnectOption{weir.JoinOptions(tcpOptions(p)...), weir.WithDescriptorWait(descriptorWait)},
			}
			if p.Has("bind") {
				d.Options = append(d.Options, weir.WithLocalAddr(netip.AddrPortFrom(p.IP("bind"), 0)))
			}
			c := d.Connect(env.Loop, to, proto)
			return func() { c.Stop() }
		},
	}
}

// ErrNotAsked is the reason why an endpoint that goes where the other side asks
// could not connect: the other side did not ask.
var ErrNotAsked = errors.New("the other side did not ask for a destination")

// Asks reports whether the endpoint connects to the destination that the other
// side asks for.
func (e *Endpoint) Asks() bool {
	if e.kind.Name == "dial" {
		return true
	}
	for i, l := range e.layers {
		if e.Role() != Listen && l.Arg.Type == HostPort && e.Layers[i].Arg == nil {
			return true
		}
	}
	return false
}

// Answers reports whether the endpoint has a proxy layer whose clients ask for
// destinations.
func (e *Endpoint) Answers() bool { return e.proxy() >= 0 }

// proxy is the index of the first layer that is a proxy server, or -1.
func (e *Endpoint) proxy() int {
	for i, l := range e.layers {
		if e.Role() == Listen && l.Arg.Type == HostPort {
			return i
		}
	}
	return -1
}

// OpenProxy returns the name of a proxy layer that anyone who can connect may
// use. It returns "" if there is none, if that layer or one below it lets in
// only clients that it knows, or if only this machine can connect because the
// base listens on loopback or on a UNIX socket.
func (e *Endpoint) OpenProxy() string {
	at := e.proxy()
	if at < 0 {
		return ""
	}
	for _, p := range e.Layers[:at+1] {
		if authenticates(p) {
			return ""
		}
	}
	if e.kind.Name == "unix-listen" || e.kind.Name == "tcp-listen" && loopbackOnly(e.Base.ArgText()) {
		return ""
	}
	return e.Layers[at].Name.Text
}

// loopbackOnly reports whether a [host:]port can be reached only from this
// machine.
func loopbackOnly(s string) bool {
	host, _, ok := splitHostPort(s)
	if !ok {
		return true // just a port
	}
	host = unbracket(host)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
