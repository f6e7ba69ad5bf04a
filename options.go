package weir

import (
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// LoopOption is an option of New.
type LoopOption func(*loopConfig)

type loopConfig struct {
	backend  backend.Backend
	name     string
	log      *slog.Logger
	onError  func(error)
	resolver Resolver
	debug    bool
	slow     time.Duration
}

// WithBackendName chooses the backend by name; see Backends. It takes
// precedence over WEIR_BACKEND.
func WithBackendName(name string) LoopOption { return func(c *loopConfig) { c.name = name } }

// WithBackend runs the loop on a backend that was made already. The loop owns
// it from then on.
func WithBackend(b backend.Backend) LoopOption { return func(c *loopConfig) { c.backend = b } }

// WithErrorHandler sets who hears of failures that belong to no caller: panics
// in callbacks, refused accepts, dropped posts. f runs on the loop's goroutine.
// The default logs them.
func WithErrorHandler(f func(error)) LoopOption { return func(c *loopConfig) { c.onError = f } }

// WithLogger sets the logger; the default is slog.Default.
func WithLogger(log *slog.Logger) LoopOption { return func(c *loopConfig) { c.log = log } }

// WithResolver sets who turns names into addresses. The default knows literals
// and the hosts file.
func WithResolver(r Resolver) LoopOption { return func(c *loopConfig) { c.resolver = r } }

// WithDebug makes the loop check its callers: a loop-only method called from
// another goroutine, a callback that ran longer than slow (0: 100 ms) and a
// transport that was never closed are reported to the error handler with where
// they came from.
func WithDebug(slow time.Duration) LoopOption {
	return func(c *loopConfig) {
		c.debug = true
		c.slow = slow
		if slow <= 0 {
			c.slow = 100 * time.Millisecond
		}
	}
}

// Option is an option of Listen, Connect and the ways to open a transport.
// Those that make no sense for a call are ignored by it and say so.
type Option func(*connConfig)

type connConfig struct {
	marks     bool
	high, low int32
	tail      int32

	delay     bool // Nagle's algorithm on
	keepAlive time.Duration
	class     int // the traffic class's byte and 1<<8; 0 leaves it alone
	mark      int
	fastOpen  int
	device    string
	multipath bool
	sndbuf    int
	rcvbuf    int

	local     netip.AddrPort
	reusePort bool
	backlog   int
	mode      fs.FileMode
	group     *Group

	reuseAddr   bool
	broadcast   int
	maxDatagram int
	groups      []netip.Addr
	groupDevice string

	total, connect, name time.Duration
	sequential           bool
	allowed              func(netip.AddrPort) error
	raceDelay            time.Duration
	err                  error
}

func configOf(opts []Option) *connConfig {
	c := &connConfig{keepAlive: 15 * time.Second, backlog: 4096, raceDelay: 250 * time.Millisecond}
	for _, o := range opts {
		o(c)
	}
	return c
}

// socketOptions are what a TCP socket gets before it is used.
func (c *connConfig) socketOptions() []backend.OptionValue {
	var o []backend.OptionValue
	if !c.delay {
		o = append(o, backend.OptionValue{Option: backend.NoDelay, Value: 1})
	}
	if c.keepAlive > 0 {
		o = append(o, backend.OptionValue{Option: backend.KeepAlive, Value: max(1, int(c.keepAlive/time.Second))})
	}
	if c.sndbuf > 0 {
		o = append(o, backend.OptionValue{Option: backend.SendBuffer, Value: c.sndbuf})
	}
	if c.rcvbuf > 0 {
		o = append(o, backend.OptionValue{Option: backend.ReceiveBuffer, Value: c.rcvbuf})
	}
	if c.class != 0 {
		o = append(o, backend.OptionValue{Option: backend.TrafficClass, Value: c.class & 0xff})
	}
	if c.mark != 0 {
		o = append(o, backend.OptionValue{Option: backend.Mark, Value: c.mark})
	}
	if c.fastOpen > 0 {
		o = append(o, backend.OptionValue{Option: backend.FastOpen, Value: c.fastOpen})
	}
	return o
}

// WithWriteMarks sets the marks of the write buffer from the start, in bytes:
// see Transport.SetWriteMarks.
func WithWriteMarks(high, low int) Option {
	return func(c *connConfig) {
		if low < 0 || high < low || high > 1<<30 {
			c.err = ErrBadMarks
			return
		}
		c.marks, c.high, c.low = true, int32(high), int32(low)
	}
}

// WithTailLimit bounds the bytes that a protocol may leave unused; the default
// is 256 KiB. Past it the connection is lost with a *TailError.
func WithTailLimit(bytes int) Option {
	return func(c *connConfig) { c.tail = int32(min(max(bytes, 1), 1<<30)) }
}

// WithDelay turns Nagle's algorithm on (RFC 896), which weir turns off.
func WithDelay() Option { return func(c *connConfig) { c.delay = true } }

// WithKeepAlive sets the idle time and interval of TCP keep-alive probes; the
// default is 15 s, below 0 turns them off.
func WithKeepAlive(d time.Duration) Option { return func(c *connConfig) { c.keepAlive = d } }

// WithSocketBuffers sets the system's buffers, in bytes; 0 leaves one alone.
func WithSocketBuffers(send, receive int) Option {
	return func(c *connConfig) { c.sndbuf, c.rcvbuf = send, receive }
}

// WithDSCP marks what a TCP connection sends with a code point of differentiated
// services, 0 to 63 (RFC 2474). As the other options of this kind, it fails the
// Connect or Listen where the backend or the system lacks it.
func WithDSCP(codePoint uint8) Option {
	return func(c *connConfig) {
		if codePoint > 63 {
			c.err = &net.AddrError{Err: "a code point is at most 63", Addr: strconv.Itoa(int(codePoint))}
			return
		}
		c.class = 1<<8 | int(codePoint)<<2
	}
}

// WithMark gives a TCP connection's packets a mark that routing rules and
// firewalls see (SO_MARK; Linux, with CAP_NET_ADMIN).
func WithMark(mark uint32) Option { return func(c *connConfig) { c.mark = int(mark) } }

// WithDevice binds a TCP socket to a network device by its name
// (SO_BINDTODEVICE; Linux).
func WithDevice(name string) Option { return func(c *connConfig) { c.device = name } }

// WithFastOpen lets data travel with the first segment (TCP Fast Open, RFC
// 7413). For Listen, queue bounds the connections that wait so; for Connect any
// number above 0 turns it on. With a cookie of an earlier connection a Connect
// then succeeds at once, before the peer has answered: what is wrong with it
// comes to ConnectionLost, and the first address of a name always wins the race.
func WithFastOpen(queue int) Option { return func(c *connConfig) { c.fastOpen = queue } }

// WithMultipath asks for Multipath TCP (RFC 8684), and gets TCP where the system
// or the peer has none.
func WithMultipath() Option { return func(c *connConfig) { c.multipath = true } }

// WithLocalAddr binds a connect to a local address; port 0 lets the system
// choose.
func WithLocalAddr(a netip.AddrPort) Option { return func(c *connConfig) { c.local = a } }

// WithReusePort lets several listeners share one port (SO_REUSEPORT).
func WithReusePort() Option { return func(c *connConfig) { c.reusePort = true } }

// WithBacklog sets how many connections may wait to be accepted; the default
// is 4096, the system may have a lower limit.
func WithBacklog(n int) Option { return func(c *connConfig) { c.backlog = max(n, 1) } }

// WithMode sets the permission bits of a UNIX listener's file, before anyone
// can connect.
func WithMode(m fs.FileMode) Option { return func(c *connConfig) { c.mode = m.Perm() } }

// WithReuseAddr lets datagram endpoints share one address (SO_REUSEADDR), as
// receivers of one multicast group do. Without it the second is refused: two
// servers on one port would be a hijack.
func WithReuseAddr() Option { return func(c *connConfig) { c.reuseAddr = true } }

// WithBroadcast lets a datagram endpoint send to broadcast addresses.
func WithBroadcast() Option { return func(c *connConfig) { c.broadcast = 1 } }

// WithGroups puts a datagram endpoint into multicast groups on a network device,
// or on one of the system's choice for "". Others may then listen on its address
// too (SO_REUSEADDR): that is what groups are for.
func WithGroups(device string, groups ...netip.Addr) Option {
	return func(c *connConfig) { c.groups, c.groupDevice, c.reuseAddr = groups, device, true }
}

// WithMaxDatagram bounds the datagrams that an endpoint takes, in bytes: longer
// ones are truncated (TruncatedReceiver). The default, and most, is 64 KiB, which
// no datagram exceeds.
func WithMaxDatagram(bytes int) Option {
	return func(c *connConfig) { c.maxDatagram = min(max(bytes, 1), 64<<10) }
}

// WithTimeout bounds a whole connect; the default is none.
func WithTimeout(d time.Duration) Option { return func(c *connConfig) { c.total = d } }

// WithConnectTimeout bounds the connecting of each address; the default is
// the system's.
func WithConnectTimeout(d time.Duration) Option { return func(c *connConfig) { c.connect = d } }

// WithNameTimeout bounds finding addresses for a name; the default is the
// resolver's.
func WithNameTimeout(d time.Duration) Option { return func(c *connConfig) { c.name = d } }

// WithSequential tries a name's addresses strictly one after another. The
// default races them (RFC 8305).
func WithSequential() Option { return func(c *connConfig) { c.sequential = true } }

// WithAddrFilter asks f about each address before a socket is opened for it,
// once names are resolved. An error from f makes that address a failed attempt;
// the others are tried. f runs on the loop's goroutine.
func WithAddrFilter(f func(netip.AddrPort) error) Option {
	return func(c *connConfig) { c.allowed = f }
}

// WithRaceDelay sets how long an attempt has a head start; the default is
// RFC 8305's 250 ms.
func WithRaceDelay(d time.Duration) Option { return func(c *connConfig) { c.raceDelay = d } }
