package weir

import (
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/weir-io/weir/driver"
	"github.com/weir-io/weir/internal/backend"
)

// LoopOption is an option of NewLoop and NewGroup.
type LoopOption func(*loopConfig)

type loopConfig struct {
	backend  backend.Backend
	name     string
	log      *slog.Logger
	onError  func(error)
	resolver Resolver
	debug    bool
	slow     time.Duration
	err      error // the first bad value
	flush    time.Duration
	budget   *Budget
}

// WithBackendName chooses the backend by name; see Backends. It takes
// precedence over WEIR_BACKEND.
func WithBackendName(name string) LoopOption { return func(c *loopConfig) { c.name = name } }

// WithBackend runs the loop on a backend that was made already. The loop owns
// it from then on.
func WithBackend(b driver.Backend) LoopOption { return func(c *loopConfig) { c.backend = b } }

// WithErrorHandler sets the function that gets failures that belong to no caller:
// panics in callbacks, refused accepts, dropped posts. f runs on the loop's goroutine.
// The default logs them.
func WithErrorHandler(f func(error)) LoopOption { return func(c *loopConfig) { c.onError = f } }

// WithLogger sets the logger; the default is slog.Default.
func WithLogger(log *slog.Logger) LoopOption { return func(c *loopConfig) { c.log = log } }

// WithResolver sets the resolver that turns names into addresses. The default knows
// literal addresses and the hosts file.
func WithResolver(r Resolver) LoopOption { return func(c *loopConfig) { c.resolver = r } }

// WithDebug makes the loop check its callers. A callback that ran longer than slow (0:
// 100 ms) and a transport that was never closed are reported to the error handler,
// together with where they came from. A call of a loop-only method from another goroutine
// is logged, does nothing, and returns a *GoroutineError where the method has an error.
func WithDebug(slow time.Duration) LoopOption {
	return func(c *loopConfig) {
		c.debug = true
		c.slow = slow
		if slow == 0 {
			c.slow = 100 * time.Millisecond
		}
		if slow < 0 && c.err == nil {
			c.err = &OptionError{Option: "WithDebug", Value: slow.String(), Range: notNegative}
		}
	}
}

// WithFlushTime bounds how long Close goes on sending what was written before it; the
// default is 5 s, and 0 cuts at once.
func WithFlushTime(d time.Duration) LoopOption {
	return func(c *loopConfig) {
		c.flush = d
		if d < 0 && c.err == nil {
			c.err = &OptionError{Option: "WithFlushTime", Value: d.String(), Range: notNegative}
		}
	}
}

// A ListenOption is an option of Loop.Listen, Group.Listen and ListenAndServe.
//
// Each call that opens something has a kind of option of its own, and takes only those
// that have an effect there: any other does not compile. An option that has an effect in
// several calls is of several kinds, as its type says. If a value is out of its option's
// range, the call fails with an *OptionError.
type ListenOption interface {
	applier
	forListen()
}

// An AcceptOption is about the connections that a listener accepts: an option of
// Loop.ListenFD, whose socket is set up already, and of all that take a ListenOption.
type AcceptOption interface {
	ListenOption
	forListenFD()
}

// A ConnectOption is an option of Loop.Connect, ConnectFuture and Redial.
type ConnectOption interface {
	applier
	forConnect()
}

// A PacketOption is an option of Loop.ListenPacket.
type PacketOption interface {
	applier
	forListenPacket()
}

// A ConnectPacketOption is an option of Loop.ConnectPacket.
type ConnectPacketOption interface {
	applier
	forConnectPacket()
}

// A DatagramOption is an option of the calls that open a socket for datagrams:
// Loop.ListenPacket and Loop.ConnectPacket.
type DatagramOption interface {
	PacketOption
	ConnectPacketOption
}

// A CarryPacketsOption is an option of Loop.CarryPackets and of all that take a
// DatagramOption.
type CarryPacketsOption interface {
	DatagramOption
	forCarryPackets()
}

// An AttachPairOption is an option of Loop.AttachPair.
type AttachPairOption interface {
	applier
	forAttachPair()
}

// A StreamOption is an option of every call that makes a stream: Loop.Attach, SocketPair,
// Pipe and Carry, which take no others, AttachPair, Connect, Redial and all that listen
// for connections.
type StreamOption interface {
	AcceptOption
	ConnectOption
	AttachPairOption
	forStream()
}

// A TCPOption is an option of both ends of TCP connections, those that a listener
// accepts and those that are connected.
type TCPOption interface {
	ListenOption
	ConnectOption
}

// A BindOption is an option of the calls that listen on an address, for connections or
// for datagrams.
type BindOption interface {
	ListenOption
	PacketOption
}

// A SocketOption is an option of the calls that open a socket: to listen, to connect and
// for datagrams.
type SocketOption interface {
	TCPOption
	DatagramOption
}

// A DialOption is an option of the calls that connect to an address, for a stream or for
// datagrams.
type DialOption interface {
	ConnectOption
	ConnectPacketOption
}

// A PortOption is an option of the calls that bind a port, for connections or for
// datagrams.
type PortOption interface {
	BindOption
	ConnectPacketOption
}

// A CommonOption is an option of every call that makes a stream or an endpoint.
type CommonOption interface {
	StreamOption
	CarryPacketsOption
}

// JoinOptions makes one option of several of the same kind O, one of the interfaces of
// this package, which are applied in their order. It is for slices: a []TCPOption cannot
// be passed for a []ConnectOption, but JoinOptions makes one TCPOption of it, which can
// be passed to Connect. opts is copied. It panics, with the type's name, if O is a type that
// embeds one of these interfaces: no option of this package can be one of those.
func JoinOptions[O applier](opts ...O) O {
	opts = slices.Clone(opts)
	joined, ok := any(option(func(c *connConfig) {
		for _, o := range opts {
			o.apply(c)
		}
	})).(O)
	if !ok {
		panic(fmt.Sprintf("weir: JoinOptions of %v, which is none of weir's option interfaces; convert the options to one of those first", reflect.TypeFor[O]()))
	}
	return joined
}

// applier is what all kinds of options have in common.
type applier interface{ apply(c *connConfig) }

// option is the one implementation of all kinds. The result of an option's function
// says of which kinds the option is.
type option func(*connConfig)

var _ CommonOption = option(nil)

func (o option) apply(c *connConfig) { o(c) }

func (option) forListen()        {}
func (option) forListenFD()      {}
func (option) forConnect()       {}
func (option) forListenPacket()  {}
func (option) forConnectPacket() {}
func (option) forCarryPackets()  {}
func (option) forAttachPair()    {}
func (option) forStream()        {}

type connConfig struct {
	marks     bool
	high, low int32
	tail      int32
	bounds    *bounds // these options over the defaults; nil if none is set

	delay     bool          // Nagle's algorithm on
	keepAlive time.Duration // 0: none
	unacked   time.Duration // 0 means as keepAlive says
	class     int           // the traffic class byte with 1<<8 set; 0 leaves the class alone
	mark      int
	fastOpen  int
	device    string
	multipath bool
	sndbuf    int
	rcvbuf    int

	apart     bool // AttachPair's two descriptors end separately
	tenant    *Tenant
	local     netip.AddrPort
	reusePort bool
	backlog   int
	mode      fs.FileMode
	group     *Group
	admission Admission

	also       []netip.Addr // WithSCTPAddrs
	peers      []netip.Addr // WithSCTPPeers
	streamsOut int
	streamsIn  int

	reuseAddr   bool
	broadcast   int
	noFragments int
	groupSender string // the device to send to groups by
	groupHops   int    // and 1 more; 0: unset
	groupLoop   int    // likewise
	packetTimes bool
	maxDatagram int
	groups      []netip.Addr
	groupDevice string

	resolver             Resolver
	total, connect, name time.Duration
	descriptor           time.Duration
	sequential           bool
	allowed              func(netip.AddrPort) error
	raceDelay            time.Duration
	err                  error
}

func configOf[O applier](opts []O) *connConfig {
	c := &connConfig{keepAlive: 15 * time.Second, backlog: 4096, raceDelay: 250 * time.Millisecond}
	for _, o := range opts {
		o.apply(c)
	}
	if c.marks || c.tail > 0 {
		c.bounds = c.boundsOver(defaultBounds())
	}
	return c
}

func defaultBounds() *bounds {
	return &bounds{high: defaultHigh, low: defaultHigh / 4, tail: defaultTail}
}

// boundsOver returns base with the bounds that c sets.
func (c *connConfig) boundsOver(base *bounds) *bounds {
	b := *base
	if c.marks {
		b.high, b.low = c.high, c.low
	}
	if c.tail > 0 {
		b.tail = c.tail
	}
	return &b
}

// socketOptions are what a socket of TCP or SCTP gets before it is used; later says that
// keep-alive is asked for later where that will do. SCTP asks silent peers by itself, and
// knows no deadline for what is unacknowledged.
func (c *connConfig) socketOptions(n network, later bool) []backend.OptionValue {
	var o []backend.OptionValue
	if !c.delay {
		o = append(o, backend.OptionValue{Option: backend.NoDelay, Value: 1})
	}
	if c.keepAlive > 0 && n == netTCP && (!later || !c.waitsForProbes(n)) {
		o = append(o, backend.OptionValue{Option: backend.KeepAlive, Value: roundUp(c.keepAlive, time.Second)})
	}
	if c.unacked > 0 && n == netTCP {
		o = append(o, backend.OptionValue{Option: backend.UserTimeout, Value: roundUp(c.unacked, time.Millisecond)})
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
	if c.fastOpen > 0 && n == netTCP {
		o = append(o, backend.OptionValue{Option: backend.FastOpen, Value: c.fastOpen})
	}
	return o
}

// OptionError is the value of an option that is out of its range.
type OptionError struct {
	Option string // "WithBacklog"
	Value  string // the value that was given
	Range  string // the accepted range, in words
	err    error  // nil, or the sentinel for a value of its kind
}

func (e *OptionError) Error() string {
	return "weir: " + e.Option + "(" + e.Value + "): the value must be " + e.Range
}

// Unwrap returns ErrBadMarks for marks, and nil otherwise.
func (e *OptionError) Unwrap() error { return e.err }

// The ranges that more than one option names.
const notNegative = "0 or above"

var (
	keepAliveRange = "at most " + maxKeepAlive.String() + ", or 0 for no keep-alive"
	unackedRange   = "from 0 to " + maxUnacked.String()
)

// The largest values that every system weir runs on accepts.
const (
	maxKeepAlive = 32767 * time.Second // Linux's MAX_TCP_KEEPIDLE
	maxUnacked   = math.MaxInt32 * time.Millisecond
	maxBuffer    = 1 << 30 // the system doubles it, in 31 bits
	maxQueue     = 65535
	maxDSCP      = 63
)

// bad records a value that is out of range; the first one is reported.
func (c *connConfig) bad(option, value, text string) {
	if c.err == nil {
		c.err = &OptionError{Option: option, Value: value, Range: text}
	}
}

// number stores n if it lies between least and most.
func (c *connConfig) number(option string, to *int, n, least, most int) {
	if n < least || n > most {
		c.bad(option, strconv.Itoa(n), "from "+strconv.Itoa(least)+" to "+strconv.Itoa(most))
		return
	}
	*to = n
}

// duration stores d unless it is negative.
func (c *connConfig) duration(option string, to *time.Duration, d time.Duration) {
	if d < 0 {
		c.bad(option, d.String(), notNegative)
		return
	}
	*to = d
}

// roundUp is d in units, rounded up, and never 0 if d is above 0.
func roundUp(d, unit time.Duration) int { return int((d-1)/unit) + 1 }

// WithWriteMarks sets the marks of the write buffer from the start, in bytes of at most
// 1 GiB: see Transport.SetWriteMarks. Marks out of order are refused with an error that
// wraps ErrBadMarks.
func WithWriteMarks(high, low int) CommonOption {
	return option(func(c *connConfig) {
		if low < 0 || high < low || high > 1<<30 {
			if c.err == nil {
				c.err = &OptionError{
					Option: "WithWriteMarks",
					Value:  strconv.Itoa(high) + ", " + strconv.Itoa(low),
					Range:  "marks with 0 <= low <= high <= 1 GiB",
					err:    ErrBadMarks,
				}
			}
			return
		}
		c.marks, c.high, c.low = true, int32(high), int32(low)
	})
}

// WithTenant makes what the call opens belong to t, which counts it, deals it its share of
// the loop and ends it: see Tenant. The connections that a listener accepts belong to its
// tenant too, and so do the layers above what belongs to one. nil, the default, is no
// tenant. The call fails with a *TenantError if t is closed, with a *BudgetError if t has
// no room for another connection, and with ErrOtherLoop if t is not of the same loop.
func WithTenant(t *Tenant) CommonOption { return option(func(c *connConfig) { c.tenant = t }) }

// WithTailLimit bounds the bytes that a protocol may leave unused, from 1 to 1 GiB; the
// default is 256 KiB. Beyond that the connection is lost with a *TailError.
func WithTailLimit(bytes int) StreamOption {
	return option(func(c *connConfig) {
		var n int
		c.number("WithTailLimit", &n, bytes, 1, 1<<30)
		c.tail = int32(n)
	})
}

// WithSeparateEnds makes the two descriptors of AttachPair end separately, as those of a
// program do that closes its input and goes on with its output. When the reader of the
// one that is written to has gone, only writing ends: what is buffered is dropped, Write
// returns ErrReaderGone, a WriteFailer is told, and reading goes on to the end of the
// stream, however late that comes. ConnectionLost then gets nil if nothing was dropped,
// and otherwise the failure. Without this option the connection is lost, and it has no
// effect on a single descriptor.
func WithSeparateEnds() AttachPairOption { return option(func(c *connConfig) { c.apart = true }) }

// WithNagle turns Nagle's algorithm on (RFC 896), which weir turns off.
func WithNagle() TCPOption { return option(func(c *connConfig) { c.delay = true }) }

// WithKeepAlive sets the idle time and interval of TCP keep-alive probes, up to 32767 s
// (Linux takes no more) and in whole seconds, rounded up. The default is 15 s; 0 and
// below turn the probes off.
func WithKeepAlive(d time.Duration) TCPOption {
	return option(func(c *connConfig) {
		if d > maxKeepAlive {
			c.bad("WithKeepAlive", d.String(), keepAliveRange)
			return
		}
		c.keepAlive = max(d, 0)
	})
}

// WithUserTimeout bounds how long sent bytes may stay without an acknowledgment before
// a TCP connection is lost with syscall.ETIMEDOUT (RFC 5482, TCP_USER_TIMEOUT; Linux
// only, elsewhere the call fails). The time is rounded up to milliseconds, of which
// there can be at most 2147483647; 0 leaves it to the system.
//
// Linux treats a peer whose window is shut as one that acknowledges nothing, even
// though it answers: the time must be longer than any pause in the peer's reading.
func WithUserTimeout(d time.Duration) TCPOption {
	return option(func(c *connConfig) {
		if d > maxUnacked {
			c.bad("WithUserTimeout", d.String(), unackedRange)
			return
		}
		c.duration("WithUserTimeout", &c.unacked, d)
	})
}

// WithSocketBuffers sets the system's buffers, in bytes, at most 1 GiB; 0 leaves one
// alone. The system raises a value that is too small, and has an upper limit of its own
// (net.core.wmem_max and rmem_max on Linux).
func WithSocketBuffers(send, receive int) SocketOption {
	return option(func(c *connConfig) {
		c.number("WithSocketBuffers", &c.sndbuf, send, 0, maxBuffer)
		c.number("WithSocketBuffers", &c.rcvbuf, receive, 0, maxBuffer)
	})
}

// WithDSCP marks what a TCP connection sends with a code point of differentiated
// services, 0 to 63 (RFC 2474). Like the other options of this kind, it makes Connect
// or Listen fail if the backend or the system lacks it.
func WithDSCP(codePoint uint8) TCPOption {
	return option(func(c *connConfig) {
		var n int
		c.number("WithDSCP", &n, int(codePoint), 0, maxDSCP)
		c.class = 1<<8 | n<<2
	})
}

// WithMark gives a TCP connection's packets a mark that routing rules and
// firewalls see (SO_MARK; Linux, with CAP_NET_ADMIN).
func WithMark(mark uint32) TCPOption { return option(func(c *connConfig) { c.mark = int(mark) }) }

// WithDevice binds a TCP or UDP socket to a network device by its name
// (SO_BINDTODEVICE; Linux): it sends by that device only, and what comes by another is
// not for it. Connect and ListenPacket fail with ENODEV if there is no such device, and
// with errors.ErrUnsupported on the portable backend.
func WithDevice(name string) SocketOption { return option(func(c *connConfig) { c.device = name }) }

// WithFastOpen lets data travel with the first segment (TCP Fast Open, RFC 7413). For Listen, queue
// bounds the connections that wait in this state, at most 65535; for Connect any number above 0
// turns it on; 0 is off. With a cookie from an earlier connection, Connect then succeeds at once,
// before the peer has answered: a failure to connect is reported to ConnectionLost, and the first
// address of a name always wins the race.
func WithFastOpen(queue int) TCPOption {
	return option(func(c *connConfig) { c.number("WithFastOpen", &c.fastOpen, queue, 0, maxQueue) })
}

// WithMultipath asks for Multipath TCP (RFC 8684), and falls back to TCP if the system
// or the peer does not support it.
func WithMultipath() TCPOption { return option(func(c *connConfig) { c.multipath = true }) }

// WithLocalAddr binds a connect to a local address; port 0 lets the system
// choose.
func WithLocalAddr(a netip.AddrPort) DialOption {
	return option(func(c *connConfig) { c.local = a })
}

// WithReusePort lets several listeners, or datagram endpoints, share one port
// (SO_REUSEPORT).
func WithReusePort() PortOption { return option(func(c *connConfig) { c.reusePort = true }) }

// WithBacklog sets how many connections may wait to be accepted, from 1 to 65535. The
// default is 4096; the system may have a lower limit.
func WithBacklog(n int) ListenOption {
	return option(func(c *connConfig) { c.number("WithBacklog", &c.backlog, n, 1, maxQueue) })
}

// WithMode sets the permission bits of the file of a UNIX listener or datagram
// endpoint, before anyone can connect or send; 0 leaves them to the umask. Other bits
// are refused.
func WithMode(m fs.FileMode) BindOption {
	return option(func(c *connConfig) {
		if m != m.Perm() {
			c.bad("WithMode", m.String(), "permission bits, 0 to 0777")
			return
		}
		c.mode = m
	})
}

// WithReuseAddr lets datagram endpoints share one address (SO_REUSEADDR), as receivers
// of one multicast group do. Without it the second endpoint is refused, so that no
// other server can hijack the port.
func WithReuseAddr() DatagramOption { return option(func(c *connConfig) { c.reuseAddr = true }) }

// WithDontFragment has no datagram cut up on its way. One that is longer than a link
// takes is lost there, and a PacketFailer gets a *MTUError with the size that fits, if the
// network says so and the backend hears it (portable does not). The system remembers that
// size for some minutes: until then SendTo fails with a *MTUError for longer datagrams to
// that address. Without this option they are sent in fragments, and a datagram is lost
// with any one of them. ListenPacket fails with errors.ErrUnsupported where there is no
// such option (other systems than Linux).
func WithDontFragment() DatagramOption { return option(func(c *connConfig) { c.noFragments = 1 }) }

// WithBroadcast lets a datagram endpoint send to broadcast addresses.
func WithBroadcast() DatagramOption { return option(func(c *connConfig) { c.broadcast = 1 }) }

// WithGroups makes a datagram endpoint join multicast groups on a network device; for
// "" the system chooses the device. Others may then listen on its address too
// (SO_REUSEADDR), as groups are meant to be shared. groups is copied.
func WithGroups(device string, groups ...netip.Addr) PacketOption {
	groups = slices.Clone(groups)
	return option(func(c *connConfig) { c.groups, c.groupDevice, c.reuseAddr = groups, device, true })
}

// WithMulticastDevice has datagrams to groups leave by a network device, without
// joining any group. The default is the last device on which a group was joined, or the
// system's choice. A device that does not exist makes ListenPacket fail with ENODEV.
func WithMulticastDevice(device string) DatagramOption {
	return option(func(c *connConfig) { c.groupSender = device })
}

// WithMulticastHops sets how many hops a datagram to a group may make, from 0 to 255: 1,
// the default, keeps it on its network, 0 on this machine (IP_MULTICAST_TTL). ListenPacket
// fails with errors.ErrUnsupported if the system lacks it.
func WithMulticastHops(hops int) DatagramOption {
	return option(func(c *connConfig) {
		var n int
		c.number("WithMulticastHops", &n, hops, 0, 255)
		c.groupHops = n + 1
	})
}

// WithMulticastLoop says whether members of a group on this machine, the endpoint
// itself among them, get what the endpoint sends there (IP_MULTICAST_LOOP). By default
// they do. ListenPacket fails with errors.ErrUnsupported if the system lacks it.
func WithMulticastLoop(on bool) DatagramOption {
	return option(func(c *connConfig) {
		c.groupLoop = 1
		if on {
			c.groupLoop = 2
		}
	})
}

// WithMaxDatagram bounds the datagrams that an endpoint takes, in bytes: longer ones
// are truncated (TruncatedReceiver). The default, which is also the maximum, is 64 KiB,
// which no datagram exceeds.
func WithMaxDatagram(bytes int) CarryPacketsOption {
	return option(func(c *connConfig) { c.number("WithMaxDatagram", &c.maxDatagram, bytes, 1, 64<<10) })
}

// WithPacketTimes asks the system when it received each datagram: see PacketInfo.
func WithPacketTimes() DatagramOption { return option(func(c *connConfig) { c.packetTimes = true }) }

// WithTimeout bounds a whole connect; the default, 0, sets no bound.
func WithTimeout(d time.Duration) ConnectOption {
	return option(func(c *connConfig) { c.duration("WithTimeout", &c.total, d) })
}

// WithConnectTimeout bounds the connecting of each address; the default, 0, is
// the system's.
func WithConnectTimeout(d time.Duration) ConnectOption {
	return option(func(c *connConfig) { c.duration("WithConnectTimeout", &c.connect, d) })
}

// WithNameTimeout bounds finding addresses for a name; the default, 0, is the
// resolver's.
func WithNameTimeout(d time.Duration) ConnectOption {
	return option(func(c *connConfig) { c.duration("WithNameTimeout", &c.name, d) })
}

// WithDescriptorWait sets how long a connect waits for a descriptor if the process or
// the system has none left. Meanwhile the loop accepts no connections; it continues as
// soon as it has closed something. With the default, 0, the connect fails at once with
// EMFILE or ENFILE. A relay should wait, so as not to lose the client that it has
// accepted.
func WithDescriptorWait(d time.Duration) ConnectOption {
	return option(func(c *connConfig) { c.duration("WithDescriptorWait", &c.descriptor, d) })
}

// WithConnectResolver turns the name of one connect into addresses, instead of the
// loop's resolver (WithResolver).
func WithConnectResolver(r Resolver) ConnectOption {
	return option(func(c *connConfig) { c.resolver = r })
}

// WithSequential tries a name's addresses strictly one after another. The
// default races them (RFC 8305).
func WithSequential() ConnectOption { return option(func(c *connConfig) { c.sequential = true }) }

// WithAddrFilter asks f about each address before a socket is opened for it,
// once names are resolved. An error from f makes that address a failed attempt;
// the others are tried. f runs on the loop's goroutine.
func WithAddrFilter(f func(netip.AddrPort) error) ConnectOption {
	return option(func(c *connConfig) { c.allowed = f })
}

// WithRaceDelay sets how long an attempt has a head start; the default is RFC 8305's
// 250 ms, and 0 gives none.
func WithRaceDelay(d time.Duration) ConnectOption {
	return option(func(c *connConfig) { c.duration("WithRaceDelay", &c.raceDelay, d) })
}
