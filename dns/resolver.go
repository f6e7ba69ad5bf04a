package dns

import (
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/hosts"
)

// Resolver finds records and addresses. It may serve several loops at once; each
// has its own cache and its own queries under way, unless one asks for all (AskOn). Its methods belong to the
// goroutine of the loop they are given.
type Resolver struct {
	options options
	home    *weir.Loop // of AskOn; nil: each loop asks for itself

	mu      sync.Mutex
	clients map[*weir.Loop]*client
}

var _ weir.Resolver = (*Resolver)(nil)

// Option is an option of New.
type Option func(*options)

type options struct {
	config     *Config
	configPath string
	servers    []netip.AddrPort
	hosts      *Hosts
	hostsPath  string
	cacheMost  int
	stale      time.Duration
	random     io.Reader
	steps      func(Step)
	tcp        bool
	stream     bool // connect is the caller's own
	connect    func(*weir.Loop, netip.AddrPort, weir.Protocol) (stop func())
	timeout    time.Duration
	attempts   int
	sockets    int
	questions  int
	perAsker   int
	silence    func(*weir.Loop, []netip.AddrPort)
}

// WithConfig uses c instead of /etc/resolv.conf.
func WithConfig(c Config) Option { return func(o *options) { o.config = &c } }

// WithConfigFile reads another file than /etc/resolv.conf. The file is checked
// at most every 5 s, and read again if it has changed.
func WithConfigFile(path string) Option { return func(o *options) { o.configPath = path } }

// WithServers asks these servers, whatever the configuration says.
func WithServers(servers ...netip.AddrPort) Option {
	return func(o *options) { o.servers = servers }
}

// WithHosts uses a hosts file that has already been read; nil uses none.
func WithHosts(h *Hosts) Option {
	return func(o *options) { o.hosts, o.hostsPath = h, "" }
}

// WithHostsFile reads another file than the system's hosts file, and reads it
// again when it has changed.
func WithHostsFile(path string) Option {
	return func(o *options) { o.hosts, o.hostsPath = nil, path }
}

// WithCache bounds how many answers are kept, 4096 by default; 0 keeps none.
func WithCache(entries int) Option { return func(o *options) { o.cacheMost = max(entries, 0) } }

// WithStale serves answers for up to d past their TTL when no server answers
// (RFC 8767): after 1.8 s, or once all servers have failed, and at once while
// all are known to be silent.
func WithStale(d time.Duration) Option { return func(o *options) { o.stale = max(d, 0) } }

// WithTCP asks over TCP only.
func WithTCP() Option { return func(o *options) { o.tcp = true } }

// WithStream asks over connections that connect makes, and never by datagram.
// With layers on those connections it gives DNS over TLS (RFC 7858), or lookups
// through a proxy:
//
//	secure := layer.TLS(&tls.Config{ServerName: "dns.example"})
//	dns.WithStream(func(l *weir.Loop, server netip.AddrPort, p weir.Protocol) func() {
//		c := l.Connect("tcp", server.String(), layer.Client(p, secure))
//		return func() { c.Stop() }
//	})
//
// connect is called on the loop's goroutine and must not call anything back
// before it returns; p gets ConnectionMade, or ConnectFailed, unless stop is
// called first. A connection is shared by all queries to its server, kept for
// 10 s after the last one, and made again when there are more. Queries are
// padded to multiples of 128 bytes (RFC 8467, 4.1), so that their lengths say
// less.
func WithStream(connect func(l *weir.Loop, server netip.AddrPort, p weir.Protocol) (stop func())) Option {
	return func(o *options) { o.stream, o.connect = true, connect }
}

// WithTimeout sets how long a server has to answer and how many times all of
// them are asked, whatever the configuration says; a 0 leaves that setting as
// it is.
func WithTimeout(d time.Duration, attempts int) Option {
	return func(o *options) { o.timeout, o.attempts = d, attempts }
}

// WithLimits bounds how many sockets are open at once, 512 by default (further
// queries wait), and how many questions are under way, 10,000 by default
// (further ones are refused with ErrBusy). A 0 leaves that limit as it is.
func WithLimits(sockets, questions int) Option {
	return func(o *options) {
		if sockets > 0 {
			o.sockets = sockets
		}
		if questions > 0 {
			o.questions = questions
		}
	}
}

// WithAskerLimit bounds how many questions one asker of Resolver.For has under
// way, 4096 by default. A question beyond the limit takes the place of the
// oldest, which ends with ErrBusy; if none is older than 250 ms, the new
// question itself is refused with ErrBusy. Looking up a host takes two, one for
// each family.
func WithAskerLimit(questions int) Option {
	return func(o *options) { o.perAsker = max(questions, 1) }
}

// WithSilence calls f on the loop's goroutine with all servers when none of
// them answers any more, and with nil when one is heard again.
func WithSilence(f func(l *weir.Loop, silent []netip.AddrPort)) Option {
	return func(o *options) { o.silence = f }
}

// WithRandom draws ids, ports and letter cases from r instead of crypto/rand,
// so that a simulated run can be repeated. Reads from r must not fail.
func WithRandom(r io.Reader) Option { return func(o *options) { o.random = r } }

// WithSteps calls f on the loop's goroutine with each step of each question.
func WithSteps(f func(Step)) Option { return func(o *options) { o.steps = f } }

// Step is something that happened on the way to an answer, for people to read.
type Step struct {
	At     time.Time // the loop's time
	Name   string
	Type   Type
	Server netip.AddrPort // the server it is about, if any
	TCP    bool
	What   string // "ask", "answer", "no answer", ...
}

// New makes a resolver. By default it uses /etc/resolv.conf and the system's
// hosts file.
func New(opts ...Option) *Resolver {
	r := &Resolver{
		options: options{
			configPath: configPath, hostsPath: hosts.Path,
			connect:   connectTCP,
			cacheMost: 4096, sockets: 512, questions: 10_000, perAsker: 4096,
		},
		clients: map[*weir.Loop]*client{},
	}
	for _, o := range opts {
		o(&r.options)
	}
	return r
}

// client returns the client that serves a loop.
func (r *Resolver) client(l *weir.Loop) *client {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[l]
	if c == nil {
		c = newClient(l, &r.options)
		r.clients[l] = c
	}
	return c
}

// Forget drops the cache kept for a loop that will not be used any more.
// Questions under way end without a result.
func (r *Resolver) Forget(l *weir.Loop) {
	r.mu.Lock()
	c := r.clients[l]
	delete(r.clients, l)
	r.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// Lookup finds the records of a type. The name is completed by the search list
// unless it ends with a dot. No server is asked for what LookupNetIP and
// LookupAddr know by themselves: addresses of literals, of localhost and of
// names in the hosts file, and the names of such addresses. done is called on
// l's goroutine exactly once, never from within Lookup, unless cancel is called
// first; its error is an *Error. The Records are the caller's.
func (r *Resolver) Lookup(l *weir.Loop, name string, t Type, done func(Answer, error)) (cancel func()) {
	c := r.client(l)
	c.reload()
	s := &search{c: c, name: name, qtype: t, done: done}
	if all, known := c.local(name, t); known {
		if len(all) == 0 {
			return s.soon(Answer{}, &Error{Name: name, Type: t, Err: ErrNotFound})
		}
		c.step(Step{Name: name, Type: t, What: "known without a server"})
		return s.soon(Answer{Name: absolute(name), Records: all}, nil)
	}
	if err := checkName(name); err != nil {
		return s.soon(Answer{}, &Error{Name: name, Type: t, Err: err})
	}
	if neverAsked(name) {
		return s.soon(Answer{}, &Error{Name: name, Type: t, Err: ErrNotFound, NoName: true})
	}
	s.names = c.config.candidates(name)
	s.next()
	return s.stop
}

// LookupNetIP implements weir.Resolver: literals, the hosts file, localhost,
// then the servers, A and AAAA together. The addresses of one family do not
// wait long for those of the other.
func (r *Resolver) LookupNetIP(l *weir.Loop, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	return r.lookupNetIP(l, netip.Prefix{}, network, host, done)
}

func (r *Resolver) lookupNetIP(l *weir.Loop, asker netip.Prefix, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	c := r.client(l)
	c.reload()
	s := &hostSearch{c: c, asker: asker, network: network, name: host, done: done}
	if addrs, known := c.localAddrs(network, host); known {
		if len(addrs) == 0 {
			return s.soon(nil, &Error{Name: host, Err: ErrNotFound})
		}
		c.step(Step{Name: host, What: "known without a server"})
		return s.soon(addrs, nil)
	}
	if err := checkName(host); err != nil {
		return s.soon(nil, &Error{Name: host, Err: err})
	}
	if neverAsked(host) {
		return s.soon(nil, &Error{Name: host, Err: ErrNotFound, NoName: true})
	}
	if r.home != nil && r.home != l {
		return r.lookupAt(r.home, l, asker, network, host, done)
	}
	s.names = c.config.candidates(host)
	s.next()
	return s.stop
}

// LookupAddr finds the names of an address: those in the hosts file, otherwise
// its PTR records. They are absolute.
func (r *Resolver) LookupAddr(l *weir.Loop, a netip.Addr, done func([]string, error)) (cancel func()) {
	c := r.client(l)
	c.reload()
	a = a.Unmap().WithZone("")
	if names := c.localNames(a); len(names) > 0 {
		call := l.Soon(func() { done(names, nil) })
		return func() { call.Cancel() }
	}
	return r.Lookup(l, ReverseName(a), PTR, func(ans Answer, err error) {
		var names []string
		for i := range ans.Records {
			names = append(names, ans.Records[i].Target)
		}
		done(names, err)
	})
}

// ReverseName returns the name whose PTR records name an address (RFC 1035,
// 3.5; RFC 3596, 2.5).
func ReverseName(a netip.Addr) string {
	const digits = "0123456789abcdef"
	a = a.Unmap()
	var b strings.Builder
	bytes := a.AsSlice()
	for i := len(bytes) - 1; i >= 0; i-- {
		c := bytes[i]
		if a.Is4() {
			if c >= 100 {
				b.WriteByte('0' + c/100)
			}
			if c >= 10 {
				b.WriteByte('0' + c/10%10)
			}
			b.WriteByte('0' + c%10)
			b.WriteByte('.')
			continue
		}
		b.WriteByte(digits[c&15])
		b.WriteByte('.')
		b.WriteByte(digits[c>>4])
		b.WriteByte('.')
	}
	if a.Is4() {
		return b.String() + "in-addr.arpa."
	}
	return b.String() + "ip6.arpa."
}

func checkName(name string) error {
	if name == "" || name == "." || !validName(absolute(name)) {
		return ErrBadName
	}
	return nil
}

// isLocalhost reports whether a name is localhost or below it (RFC 6761, 6.3).
func isLocalhost(name string) bool {
	n := lower(absolute(name))
	return n == "localhost." || strings.HasSuffix(n, ".localhost.")
}

// neverAsked reports whether no server may be asked for a name (RFC 6761, 6.4;
// RFC 7686).
func neverAsked(name string) bool {
	n := lower(absolute(name))
	for _, top := range [...]string{"invalid.", "onion."} {
		if n == top || strings.HasSuffix(n, "."+top) {
			return true
		}
	}
	return false
}
