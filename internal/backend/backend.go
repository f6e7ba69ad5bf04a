// Package backend is the contract between the loop and what drives it.
//
// A backend speaks of completions: the loop submits an Op, and some later Wait (or
// Submit itself, if the result is there at once) reports how it ended. epoll imitates
// completions by trying again when a descriptor is ready; io_uring, goroutines over
// package net and the simulator are completions by nature. Triggering styles therefore
// stay below this line.
//
//	        Submit            result at once
//	idle ───────────▶ armed ────────────────▶ idle     (Submit returned true)
//	  ▲                 │ │
//	  │   last result   │ │ Multi: result with More
//	  └─────────────────┘ └──────▶ armed
//
// Every method but Wake belongs to the one goroutine that runs the loop. A backend
// makes no callbacks: results are values that Wait and Submit hand out.
package backend

import (
	"encoding/binary"
	"io"
	"net/netip"
	"time"
)

// Handle names an open socket, pipe or file of one backend. On the backends that use
// descriptors it is the descriptor's number; in the simulator it is a number on the
// simulated host, the lowest free one, reused as a kernel reuses descriptors.
type Handle int32

// None is the Handle of nothing.
const None Handle = -1

// Kind says what an Op does.
type Kind uint8

// The kinds of Op.
const (
	// Read takes bytes from a stream. With Buf nil the backend lends memory of
	// its own: Completion.Buf is valid until the next Wait. With Buf set the
	// bytes go there and Completion.Buf is the filled part of it. N is the
	// number of bytes; N = 0 with a nil Err is the end of the stream.
	Read Kind = iota + 1
	// Write sends the pieces of Vec in order. It finishes when it has sent at
	// least one byte, or all of them when there are none; a short count is not
	// an error: the caller submits the rest again. Vec and its bytes belong to
	// the backend until the Op has finished.
	Write
	// Accept takes one connection from a listening handle. N is the new Handle
	// and Completion.Peer the remote address (valid until the next Wait). The new
	// handle is non-blocking and close-on-exec. Errors such as EMFILE end the
	// Op even when it is Multi: backing off is the listener's business.
	Accept
	// Connect connects Handle to *Addr. It finishes with a nil Err when
	// connected. Addr stays valid and unchanged until then.
	Connect
	// Hangup finishes when the handle has failed or both its directions are over: Err
	// is the pending socket error, or nil for a plain hang-up. For the write end of a
	// pipe, Err is EPIPE if the reader went away. It is what a stream waits on when it
	// neither reads nor writes. A file, or a device such as /dev/null, has no one at
	// its other end: there the Op stays armed until it is canceled.
	Hangup
	// Ready finishes when one of the conditions in Events holds; N is the set of those
	// that do. It serves raw sources.
	Ready
	// SpliceIn moves up to Max bytes from Handle into the pipe whose write end is Peer
	// without copying them through user space; N = 0 with a nil Err is the end of the
	// stream. Peer is a bare non-blocking descriptor that was not adopted; the caller
	// makes sure that the pipe is empty. Only if Caps.Splice is true.
	SpliceIn
	// SpliceOut moves up to Max bytes from the pipe whose read end is Peer, and which
	// holds that many, to Handle. Only if Caps.Splice is true.
	SpliceOut
	// RecvFrom takes one datagram from a handle that Spec.Datagram made; it takes the
	// place of Read. Memory is as for Read; without Buf at most Max bytes are lent, or
	// 64 KiB if Max is 0. N is the number of bytes, which may be 0: an empty datagram
	// is valid. Truncated says that the datagram was longer. Peer is the sender (valid
	// until the next Wait). An error with a Peer is what the network reported about a
	// datagram sent there earlier, on backends with Caps.PeerErrors; the handle stays
	// usable, and the Op ends as it does with any error. N of EMSGSIZE is the size of
	// the packets that fit, or 0 if the system does not say. Info is set if Spec.Info
	// asked for something that the system told. A Segment above 0, which only handles
	// of a Spec with Coalesce have, says that Buf is several datagrams of one sender:
	// each has that many bytes, and the last one that many or fewer.
	RecvFrom
	// SendTo sends the pieces of Vec as one datagram to *Addr, all of it or none; it
	// takes the place of Write. It finishes when the system has taken the datagram.
	// Vec, its bytes and Addr belong to the backend until then. An error concerns this
	// datagram only.
	//
	// With Packets set it sends those instead, in order, and finishes when the system
	// has taken at least one datagram: N is how many datagrams, those of a Packet with a
	// Segment counted one by one. The caller submits the others again; a backend that
	// sends one by one always says 1. An error concerns the first of them, and then none
	// was sent.
	SendTo
)

// Flags modify an Op.
type Flags uint8

// The flags of an Op.
const (
	// Multi keeps a Read or RecvFrom (with Buf nil), an Accept or a Ready armed: it may
	// finish many times, with More set each time but the last. A backend may end a
	// Multi Op at any time with a result whose More is false and whose Err is nil and,
	// for Read, whose N is positive; or with ErrAgain, which does not count as a
	// result: the caller submits it again.
	Multi Flags = 1 << iota
	// Now makes a Read, Write, RecvFrom or SendTo that would have to wait finish with ErrAgain
	// instead.
	Now
	// Quiet, on a Write, says that there is nothing to do when all of it has been sent,
	// so that a backend may report that along with the next result and need not return
	// from Wait for it alone. A write that falls short or fails ends a Wait as usual.
	// Quiet is the only flag that may be cleared while the Op is armed, between two
	// Waits. A backend may ignore it.
	Quiet
)

// Events are the conditions of a Ready Op.
type Events uint8

// The conditions of a Ready Op.
const (
	Readable Events = 1 << iota // bytes, a connection or the end can be read
	Writable                    // at least one byte can be written
	Failed                      // error or hang-up; always watched for
)

// An Op is one operation, embedded in the value that it serves, so steady traffic
// allocates nothing. Between Submit and its last result it must not be changed or
// submitted again.
type Op struct {
	Kind   Kind
	Flags  Flags
	Events Events
	// Due belongs to the loop: a result that the loop got from Wait or Submit has not
	// reached the owner yet.
	Due    bool
	Handle Handle
	Owner  Owner
	Buf    []byte   // Read, RecvFrom: where to; if nil the backend lends memory
	Vec    [][]byte // Write, SendTo: what
	Addr   *Addr    // Connect, SendTo: where to
	// Packets, of a SendTo, are datagrams to send instead of Vec to Addr; nil: none. It is a
	// pointer because every idle connection has an Op.
	Packets *[]Packet
	Peer    Handle // SpliceIn, SpliceOut: the pipe's descriptor, see SpliceIn
	Max     int32  // SpliceIn, SpliceOut, RecvFrom: at most this many bytes

	// Slot and State belong to the backend. State is 0 exactly when the Op is
	// not armed.
	Slot  uint32
	State uint32
}

// Armed reports whether op was submitted and its owner has not yet had its last result.
// After the Wait that reports that result, the rest of the batch may come first: an
// owner that went by State alone could use an Op again, or give it up, with a result
// still on its way.
func (op *Op) Armed() bool { return op.State != 0 || op.Due }

// Owner receives an Op's results from the loop; a backend never calls it.
type Owner interface {
	// OpDone handles one result. c and what it lends are valid until the call
	// returns.
	OpDone(c *Completion)
}

// A Completion is one result of an Op.
type Completion struct {
	Op   *Op
	N    int
	Err  error // nil, a syscall.Errno from the system, ErrAgain or ErrCanceled
	Buf  []byte
	Peer *Addr
	More bool // the Op is still armed: more results follow
	Last bool // the loop's: no other result of the Op follows it in the batch
	// Truncated, of a RecvFrom, says that the datagram was longer than Buf.
	Truncated bool
	Segment   int32       // of a RecvFrom: above 0, Buf is datagrams of this size
	Info      *PacketInfo // of a RecvFrom: valid as long as Peer; may be nil
}

// A Packet is one datagram to send, or several to one place.
type Packet struct {
	Data []byte
	// Segment above 0 says that Data is several datagrams: each has that many bytes, and
	// the last one that many or fewer.
	Segment int
	To      Addr
	// ToPeer says that To is the handle's Spec.Peer.
	ToPeer bool
	Info   PacketInfo
	// Same says that the datagram goes where the one before it in Op.Packets goes, and
	// asks for the same: To and Info are not looked at. The first one never is.
	Same bool
}

// First returns the first datagram of p.
func (p *Packet) First() []byte {
	if p.Segment > 0 && p.Segment < len(p.Data) {
		return p.Data[:p.Segment:p.Segment]
	}
	return p.Data
}

// PacketInfo is what there is to a datagram beside its bytes and its peer. One that
// was received has what Spec.Info asked for, as far as the system tells; one to
// send asks for what is set, and a backend that cannot do it fails with ErrUnsupported.
type PacketInfo struct {
	// Local is this machine's address that the datagram came to, or is to leave
	// from. One that was sent to a group or broadcast came to the address from which
	// an answer should leave.
	Local netip.Addr
	// Dest is what a received datagram was sent to, be it a group.
	Dest netip.Addr
	// Interface is the number of the network interface, 0 for none.
	Interface uint32
	// Traffic is the byte of TrafficClass, where HasTraffic says so.
	Traffic    uint8
	HasTraffic bool
	// Dropped is how many datagrams the socket's full buffer had lost by then.
	Dropped uint32
	// Time is when the system received it, in nanoseconds since 1970; 0: not known.
	Time int64
}

// Infos are parts of a PacketInfo.
type Infos uint8

// The parts of a PacketInfo that a Spec can ask for.
const (
	InfoLocal   Infos = 1 << iota // Local, Dest, Interface
	InfoTraffic                   // Traffic
	InfoDropped                   // Dropped
	InfoTime                      // Time
)

// Family says which fields of an Addr count.
type Family uint8

// The families of an Addr.
const (
	FamilyNone Family = iota
	Inet              // IP: address, port, zone
	Unix              // Path: a file's path, "@name" for an abstract one, "" for an unnamed one
	Vsock             // what VsockAddr makes: a machine and a port
	RFCOMM            // what RFCOMMAddr makes: a Bluetooth device and a channel
)

// Addr is the address of a socket.
type Addr struct {
	Family Family
	IP     netip.AddrPort // of Vsock and RFCOMM too: see VsockAddr, RFCOMMAddr
	Path   string
}

// VsockAddr is the address of a port of a virtual machine or its host. It is kept in IP, so
// that it takes no memory of its own.
func VsockAddr(cid, port uint32) Addr {
	var b [16]byte
	binary.BigEndian.PutUint32(b[:], cid)
	binary.BigEndian.PutUint32(b[4:], port)
	return Addr{Family: Vsock, IP: netip.AddrPortFrom(netip.AddrFrom16(b), 0)}
}

// Vsock is what VsockAddr was given.
func (a *Addr) Vsock() (cid, port uint32) {
	b := a.IP.Addr().As16()
	return binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint32(b[4:])
}

// RFCOMMAddr is the address of a channel of a Bluetooth device, whose address is written as
// people write it: the first byte first. It is kept in IP as well.
func RFCOMMAddr(device [6]byte, channel uint8) Addr {
	var b [16]byte
	copy(b[:], device[:])
	return Addr{Family: RFCOMM, IP: netip.AddrPortFrom(netip.AddrFrom16(b), uint16(channel))}
}

// RFCOMM is what RFCOMMAddr was given.
func (a *Addr) RFCOMM() (device [6]byte, channel uint8) {
	b := a.IP.Addr().As16()
	return [6]byte(b[:6]), uint8(a.IP.Port())
}

// Spec describes a socket to open.
type Spec struct {
	Family Family
	IPv6   bool // Inet: the family of the socket, 6 or 4
	Dual   bool // Inet, IPv6: take IPv4 too (IPV6_V6ONLY off)
	// Datagram makes a socket for RecvFrom and SendTo (UDP, or a Unix datagram socket):
	// unconnected, bound at once if Bind is set. One that is not bound to a port gets a
	// free one at the latest with its first SendTo.
	Datagram bool
	// Peer, of a datagram socket, is what it is connected to by Open, after Local was
	// bound; FamilyNone: nothing. Datagrams are then received from there only, and SendTo
	// goes there only, with Packet.ToPeer. A peer that cannot be connected to fails Open.
	Peer Addr
	// Info is what RecvFrom should tell of each datagram, as far as Caps.Info goes.
	Info Infos
	// Coalesce says that Segment is understood: RecvFrom then has neither a Max nor a
	// Buf of less than 64 KiB. Submit of a SendTo with Now finishes at once on a backend
	// that reports a Segment, and may be given memory that it lent.
	Coalesce bool
	// ReuseAddr lets datagram sockets share an address (SO_REUSEADDR), as
	// receivers of one multicast group do.
	ReuseAddr bool

	// Bind asks for Local to be bound before anything else.
	Bind  bool
	Local Addr

	// Backlog above 0 makes it a listener. A TCP listener gets SO_REUSEADDR.
	Backlog   int
	ReusePort bool
	// Mode, for a listener on a Unix path, is the file's permission bits, set
	// before it can be connected to; 0 leaves them to the umask.
	Mode uint32

	// Device binds the socket to a network device by name; "" means none. Multipath
	// asks for Multipath TCP, and for TCP if the system does not have it. A backend
	// that can do neither, or lacks one of Options, fails with ErrUnsupported.
	Device    string
	Multipath bool

	// SCTP, of Inet, makes a one-to-one SCTP socket (RFC 9260) instead of TCP's; a backend
	// without them fails with ErrUnsupported, as it does for Vsock and RFCOMM.
	SCTP *SCTP

	// Options are set before bind. Accepted handles inherit a listener's options if the
	// system does so (Linux); the contract is that they apply to accepted handles.
	Options []OptionValue
}

// SCTP is what an SCTP socket has besides.
type SCTP struct {
	// Also are further local addresses, with the port of Spec.Local, that the peer may
	// reach or be sent from. Spec.Bind is set if there are any.
	Also []netip.Addr
	// Peers are the peer's addresses with their port, the one that Connect is for first, or
	// none. Open then begins the association with all of them, and Connect waits for it.
	Peers []netip.AddrPort
	// Out and In are how many streams are asked for, and accepted, in each direction; 0
	// leaves the number to the system. Bytes are sent on stream 0 and read from all.
	Out, In uint16
}

// Option names a socket option that the loop knows of.
type Option uint8

// The options. All values are ints; booleans are 0 and 1.
const (
	NoDelay       Option = iota + 1 // TCP_NODELAY
	KeepAlive                       // SO_KEEPALIVE: 0, or the idle time and interval in seconds
	SendBuffer                      // SO_SNDBUF in bytes
	ReceiveBuffer                   // SO_RCVBUF in bytes
	UnsentBytes                     // read only: bytes that the peer has not acknowledged but still may (SIOCOUTQ)
	UnreadBytes                     // read only: bytes that wait to be read (SIOCINQ)
	PendingError                    // read only: SO_ERROR, as an errno, cleared by reading
	UserTimeout                     // TCP_USER_TIMEOUT in milliseconds
	Broadcast                       // SO_BROADCAST
	TrafficClass                    // IP_TOS or IPV6_TCLASS: the whole byte, the code point in its upper six bits
	Mark                            // SO_MARK
	// Unanswered is read only: for how many milliseconds the peer of a TCP connection
	// has acknowledged nothing while bytes were sent to it, or its shut window was
	// probed, more than once; otherwise 0.
	Unanswered
	// Patience is read only: how many seconds keep-alive takes to give up an idle peer,
	// 0 if it is off or UserTimeout is set.
	Patience
	// Blocks is read only: 1 for a handle that was adopted in blocking mode and stays
	// in it, as others may share the file; SpliceIn and SpliceOut then end with
	// ErrUnsupported.
	Blocks
	// DontFragment of a datagram socket has what is longer than a link on its way takes
	// fail with EMSGSIZE instead of being cut up (IP_MTU_DISCOVER). It is read as 2 where
	// only the machine's own links count (IP_PMTUDISC_PROBE, which a program may set).
	DontFragment
	MulticastHops // IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS
	MulticastLoop // IP_MULTICAST_LOOP
	FastOpen      // TCP_FASTOPEN with the queue's length on a listener, otherwise TCP_FASTOPEN_CONNECT
)

// OptionValue is an option with its value.
type OptionValue struct {
	Option Option
	Value  int
}

// How says how a handle is shut or closed.
type How uint8

// The ways to shut or close a handle.
const (
	ShutWrite  How = iota + 1 // end of writing, reading goes on; the handle stays open
	CloseFlat                 // close; the system sends what is in its buffers
	CloseReset                // close and, on TCP, reset the connection
	Forget                    // stop serving the handle but leave it open: it moves elsewhere
	// Unwatch ends the Ready Ops of a descriptor that is not a handle, so that it may be
	// closed, or watched again, at once. It leaves a handle of that number alone: the
	// error is then EBADF. A backend without Descriptors takes it for Forget.
	Unwatch
)

// Caps says what a backend can do, as probed when it was made.
type Caps struct {
	Name string // "epoll", "epoll-et", "uring", "iocp", "portable", "sim"
	// Inline is true if Submit of a Write finishes at once when it can, and Submit of
	// an Op with Now always does.
	Inline bool
	// PollFD is a descriptor that is readable when Wait has something to report, for
	// hosts that watch descriptors; -1 if there is none. The first Host(true) may give it
	// another value, which then stays.
	PollFD int
	// Thread is true if Wait must always be called on the operating system thread of
	// the first Wait, and after that everything else but Wake too. Before the first
	// Wait, calls may come from any thread, one at a time.
	Thread bool
	// Descriptors is true if a Handle is a descriptor of the process, so that Adopt
	// works and a handle can move to the loop of another backend.
	Descriptors bool
	// Adopts is true if Adopt works although Handles are not descriptors. Forget then
	// releases the descriptor that was adopted.
	Adopts bool
	// Behind is true if a Write may finish before the system has its bytes. A Write
	// with an empty Vec then finishes when the system has the bytes of all earlier
	// Writes, or with the error that prevented it.
	Behind bool
	// PeerErrors is true if RecvFrom reports, with the peer, that the network refused a
	// datagram (ICMP).
	PeerErrors bool
	// Info is what RecvFrom can tell of a datagram, and InfoLocal and InfoTraffic what
	// a SendTo can ask for.
	Info Infos
	// Splice is true if SpliceIn and SpliceOut work.
	Splice bool
	// Probed lists what was found out, in words: "multishot-recv: yes".
	Probed []string
}

// Hosted is a Backend that a foreign loop can drive by watching Caps.PollFD.
type Hosted interface {
	// Host says whether a host watches Caps.PollFD and calls Wait with timeout 0 when
	// it is readable. While one does, wakes and results that are due make it readable
	// at any time, not only during a Wait.
	Host(on bool)
}

// Awaiter is a Backend without a Caps.PollFD: a goroutine of the host's waits in its place.
type Awaiter interface {
	// Host is as for Hosted, with Await in the place of the descriptor.
	Host(on bool)
	// Await returns when a Wait has something to report or a Wake is due, when timeout has
	// passed (below 0: never), or when quit is closed. It may return for nothing, though
	// not again and again. Any goroutine may call it while Host is on, one at a time,
	// during anything else that the backend does and even after Close.
	Await(timeout time.Duration, quit <-chan struct{})
}

// Prompter is a Backend that has no other goroutines, as the simulator has none: it
// tells the host by itself.
type Prompter interface {
	// Prompt has the backend call due, instead of giving the loop a turn itself, when
	// the next Wait has something to report or the loop has something else to do. It
	// calls due once, and again after the next Prompt. A nil due ends that.
	Prompt(due func())
}

// Backend drives one loop.
type Backend interface {
	// Now is the backend's monotonic clock: the time since some fixed moment.
	// It never goes back.
	Now() time.Duration
	// Wall is the wall clock at the moment Now was 0.
	Wall() time.Time

	// Submit arms op. If the result is there at once and op is not Multi, it returns
	// true with the result in *c; op is then idle again and Wait will not report it.
	// Otherwise it returns false and leaves *c alone. An Op that cannot be armed
	// finishes with an error like any other.
	Submit(op *Op, c *Completion) bool
	// Cancel ends op early. It returns true if op was armed and is now idle, so that no
	// later Wait reports it; results that an earlier Wait has already handed out stay
	// valid. It returns false if op was idle, or if its last result is still to come
	// from Wait: either what had already happened, or ErrCanceled.
	Cancel(op *Op) bool
	// Wait reports results into done, whose length is at least 1, and returns how many.
	// If there is none to report, it waits for one, for a Wake or for timeout to pass;
	// 0 does not wait, and below 0 waits for ever. A Wake, a signal that interrupts it
	// or a shortage of memory may make it return 0; with a timeout of 0, a Wake or a
	// signal does not keep it from reporting what is ready. Memory lent by the previous
	// Wait is taken back. An error is fatal to the loop.
	Wait(timeout time.Duration, done []Completion) (int, error)
	// Wake makes a Wait in progress, or else the next one, return at once. It may be
	// called from any goroutine, even after Close, and wakes that come before a Wait
	// count as one.
	Wake()

	// Open makes a socket, bound and listening if spec says so.
	Open(spec *Spec) (Handle, error)
	// Adopt takes over a descriptor of the process, which must stay open until
	// Close; the backend makes sure that no operation on it blocks. On success
	// the descriptor is the backend's. The handle may differ from fd. On an error fd is
	// still the caller's.
	Adopt(fd int) (Handle, error)
	// Shut shuts or closes a handle. All Ops on a handle to be closed must be idle, except Accept,
	// RecvFrom and SendTo: those are idle afterwards and report nothing more, and connections
	// accepted meanwhile are reset. The address is free for another socket at once. After
	// CloseFlat, CloseReset and Forget the number may at once be reused for another handle, which
	// no late event of the old one reaches.
	Shut(h Handle, how How) error
	// Name returns a handle's own address, or its peer's.
	Name(h Handle, peer bool) (Addr, error)
	// SetOption and GetOption reach a handle's socket options.
	SetOption(h Handle, o Option, value int) error
	GetOption(h Handle, o Option) (int, error)

	Caps() Caps
	// Close releases the backend and everything that is still open in it.
	Close() error
}

// DescriptorLender is a Backend without Descriptors some of whose handles still have one.
type DescriptorLender interface {
	// Control calls f with the descriptor behind a handle, for calls that do not block.
	// f must not keep it. ErrUnsupported means that there is none.
	Control(h Handle, f func(fd int)) error
}

// Sweeper is a Backend whose Wait may not report everything that is ready: it relies on
// other goroutines, which may not have had a processor yet.
type Sweeper interface {
	// Sweep makes the next Wait look at every handle.
	Sweep()
}

// Router is a Backend that knows which address the system would send from.
type Router interface {
	// Source returns the source address of anything sent to an address, and false if
	// there is no route to it. Nothing is sent.
	Source(to netip.Addr) (netip.Addr, bool)
}

// Multicaster is a Backend whose datagram sockets can be in multicast groups.
type Multicaster interface {
	// Group makes a handle join a group, or leave it, on the named network device, from
	// which it then also sends to groups, or on one that the system chooses. If source is
	// valid it is of group's family, and only what that address sends is meant.
	Group(h Handle, group, source netip.Addr, device string, join bool) error
	// GroupDevice chooses the network device by which a handle sends to groups.
	GroupDevice(h Handle, device string) error
}

// Controller is a Backend that gives access to a datagram handle's socket from any
// goroutine.
type Controller interface {
	// Socket returns that access. It is valid until the handle is closed, which the
	// caller keeps from happening during a call of its methods.
	Socket(h Handle) (Socket, error)
}

// Socket is what Controller gives access to.
type Socket interface {
	// Control calls f with the socket's descriptor, or the system's equivalent. f must
	// not close it, read from it or write to it.
	Control(f func(fd uintptr)) error
	SetOption(o Option, value int) error
}

// Mover is a Backend whose connections can move to another backend of its kind: one without
// Descriptors, as connections of package net, or one with Descriptors, at less cost than
// by Forget and Adopt, where what is known about the connection goes along.
type Mover interface {
	// Detach gives up a connected handle for which no Op has been submitted yet and
	// returns the connection itself, which is the caller's to close until it is
	// adopted. On an error the handle stays. A backend with Descriptors returns
	// ErrUnsupported for a handle that it did not accept; what it does return has a method
	// Descriptor() int.
	Detach(h Handle) (io.Closer, error)
	// AdoptConn makes a handle of what Detach returned, here or elsewhere, or of a
	// foreign connection. On success conn belongs to the backend; on an error it is open,
	// and the caller's, still.
	AdoptConn(conn any) (Handle, error)
}
