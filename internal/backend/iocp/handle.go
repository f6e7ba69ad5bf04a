//go:build windows

package iocp

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

type class uint8

const (
	stream class = iota
	listener
	datagrams
)

// A handle is one socket. It belongs to the port from its first operation that waits on.
type handle struct {
	s         windows.Handle
	class     class
	ipv6      bool
	attached  bool // to the port
	bound     bool
	connected bool
	shut      bool // our direction was ended
	peerEnded bool // the peer's was, as far as is known
	readable  bool // a probe has ended: there is something to receive
	queued    bool // in Backend.queue
	closed    bool
	idle      int32  // of KeepAlive, in seconds, where the system does not tell; 0: not set
	served    uint64 // Backend.waits when it had results last

	rd    *backend.Op // Read, RecvFrom, Accept
	wr    *backend.Op // Write, SendTo, Connect
	hang  *backend.Op
	ready *backend.Op

	rdSlot, wrSlot, hangSlot, readySlot *slot // what is in flight for each

	over        outcomeOf // of wr
	hung        bool      // hang has a result, hungErr
	hungErr     error
	readyEvents uint32
	refusal     error      // of a datagram sent earlier, for the next RecvFrom
	arrived     []accepted // connections that no Accept has had yet

	local, peer backend.Addr
	peerRaw     *sockaddr             // of a connected datagram socket
	options     []backend.OptionValue // of a listener: for what it accepts
}

// outcomeOf is how an operation ended.
type outcomeOf struct {
	done bool
	n    int
	err  error
}

// accepted is a connection that AcceptEx made.
type accepted struct {
	s   windows.Handle
	raw [2 * acceptRoom]byte
	err error
}

// place is where an Op of that kind is kept, or nil for a kind that there is not.
func (h *handle) place(k backend.Kind) **backend.Op {
	switch k {
	case backend.Read, backend.RecvFrom, backend.Accept:
		return &h.rd
	case backend.Write, backend.SendTo, backend.Connect:
		return &h.wr
	case backend.Hangup:
		return &h.hang
	case backend.Ready:
		return &h.ready
	default:
		return nil
	}
}

// handle returns the handle of that number, or nil.
func (b *Backend) handle(n backend.Handle) *handle {
	if n < 0 || int(n) >= len(b.table) {
		return nil
	}
	return b.table[n]
}

// add gives h the lowest free number.
func (b *Backend) add(h *handle) backend.Handle {
	n := b.freeFrom
	for n < len(b.table) && b.table[n] != nil {
		n++
	}
	if n == len(b.table) {
		b.table = append(b.table, nil)
	}
	b.table[n] = h
	b.freeFrom = n + 1
	return backend.Handle(n)
}

// attach has the port get the packets of h.
func (b *Backend) attach(h *handle) error {
	if h.attached {
		return nil
	}
	if _, err := windows.CreateIoCompletionPort(h.s, b.port, portKey, 0); err != nil {
		return asErrno(err)
	}
	if b.skips {
		if errno := b.calls.skipOnSuccess(h.s); errno != 0 {
			// Without it a packet would come for an operation that counts as finished.
			return asErrno(errno)
		}
	}
	h.attached = true
	return nil
}

// socket makes a socket that does not block and that programs do not inherit.
func socket(ipv6, datagram bool) (windows.Handle, error) {
	family, kind, protocol := windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP
	if ipv6 {
		family = windows.AF_INET6
	}
	if datagram {
		kind, protocol = windows.SOCK_DGRAM, windows.IPPROTO_UDP
	}
	s, err := windows.WSASocket(int32(family), int32(kind), int32(protocol), nil, 0,
		windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	if err != nil {
		return windows.InvalidHandle, asErrno(err)
	}
	const fionbio = 0x8004667e
	if err := control(s, fionbio, 1); err != nil {
		_ = windows.Closesocket(s)
		return windows.InvalidHandle, err
	}
	return s, nil
}

// control calls WSAIoctl with a number.
func control(s windows.Handle, code, value uint32) error {
	var n uint32
	return asErrno(windows.WSAIoctl(s, code, (*byte)(unsafe.Pointer(&value)), uint32(unsafe.Sizeof(value)), nil, 0, &n, nil, 0))
}

// Open makes a socket; see backend.Backend. UNIX sockets are portable's.
func (b *Backend) Open(spec *backend.Spec) (backend.Handle, error) {
	switch {
	case b.closed:
		return backend.None, errClosed
	case spec.Family == backend.Unix:
		return b.other().Open(spec)
	case spec.Family == backend.Vsock, spec.Family == backend.RFCOMM, spec.SCTP != nil:
		return backend.None, backend.ErrUnsupported
	case spec.Family != backend.Inet:
		return backend.None, errInvalid
	}
	if err := unspeakable(spec); err != nil {
		return backend.None, err
	}
	s, err := socket(spec.IPv6, spec.Datagram)
	if err != nil {
		return backend.None, err
	}
	h := &handle{s: s, ipv6: spec.IPv6, local: backend.Addr{Family: backend.Inet}}
	if err := b.prepare(h, spec); err != nil {
		_ = windows.Closesocket(s)
		return backend.None, err
	}
	return b.add(h), nil
}

// prepare sets the options of a new socket and binds it.
func (b *Backend) prepare(h *handle, spec *backend.Spec) error {
	if spec.IPv6 {
		only := 1
		if spec.Dual {
			only = 0
		}
		if err := windows.SetsockoptInt(h.s, windows.IPPROTO_IPV6, windows.IPV6_V6ONLY, only); err != nil {
			return asErrno(err)
		}
	}
	for _, o := range spec.Options {
		if err := setOption(h.s, h.ipv6, o.Option, o.Value); err != nil {
			return err
		}
		h.remember(o.Option, o.Value)
	}
	if spec.Datagram {
		h.class = datagrams
		if spec.Peer.Family == backend.FamilyNone {
			// Otherwise a refusal of any datagram would end a RecvFrom, and name no peer.
			_ = control(h.s, windows.SIO_UDP_CONNRESET, 0)
		}
	}
	if spec.Bind || spec.Backlog > 0 {
		if err := h.bind(spec.Local.IP); err != nil {
			return err
		}
	}
	switch {
	case spec.Backlog > 0:
		h.class = listener
		h.options = slices.Clone(spec.Options)
		if err := windows.Listen(h.s, spec.Backlog); err != nil {
			return asErrno(err)
		}
	case spec.Datagram && spec.Peer.Family != backend.FamilyNone:
		if err := h.connectDatagram(spec.Peer); err != nil {
			return err
		}
	}
	return nil
}

// bind binds the socket; an address that is not valid stands for any.
func (h *handle) bind(at netip.AddrPort) error {
	if !at.Addr().IsValid() {
		any := netip.IPv4Unspecified()
		if h.ipv6 {
			any = netip.IPv6Unspecified()
		}
		at = netip.AddrPortFrom(any, at.Port())
	}
	sa, err := h.sockaddr(at)
	if err != nil {
		return err
	}
	if err := windows.Bind(h.s, sa); err != nil {
		return asErrno(err)
	}
	h.bound = true
	h.local, err = nameOf(h.s, false)
	return err
}

// sockaddr is a for package windows, which is enough where nothing is counted.
func (h *handle) sockaddr(a netip.AddrPort) (windows.Sockaddr, error) {
	var raw sockaddr
	if err := raw.set(a, h.ipv6); err != nil {
		return nil, err
	}
	if !h.ipv6 {
		return &windows.SockaddrInet4{Port: int(a.Port()), Addr: [4]byte(raw.raw[4:8])}, nil
	}
	return &windows.SockaddrInet6{
		Port: int(a.Port()), Addr: [16]byte(raw.raw[8:24]),
		ZoneId: *(*uint32)(unsafe.Pointer(&raw.raw[24])),
	}, nil
}

// unspeakable finds explicit requests that cannot be met here. They are not silently
// ignored: a mark or a device may be what keeps traffic away from where it must not go.
func unspeakable(spec *backend.Spec) error {
	what := ""
	switch {
	case spec.Device != "":
		what = "binding to a device"
	case spec.ReusePort, spec.ReuseAddr:
		what = "sharing an address" // SO_REUSEADDR is something else here: a hijack
	}
	for _, o := range spec.Options {
		switch o.Option { //nolint:exhaustive // these only
		case backend.Mark:
			what = "marks"
		case backend.FastOpen:
			what = "fast open"
		case backend.TrafficClass:
			what = "traffic classes"
		case backend.UserTimeout:
			what = "user timeouts"
		}
	}
	if what == "" {
		return nil
	}
	return fmt.Errorf("iocp: %s: %w", what, backend.ErrUnsupported)
}

// Shut shuts or closes a handle; see backend.Backend. A socket cannot be left open by
// Forget: it would belong to no one.
func (b *Backend) Shut(n backend.Handle, how backend.How) error {
	if n >= asideFrom && b.aside != nil {
		return b.aside.Shut(n, how)
	}
	h := b.handle(n)
	if h == nil {
		return errBadHandle
	}
	switch how {
	case backend.ShutWrite:
		if !h.connected || h.class != stream {
			return errNotConnected
		}
		if err := windows.Shutdown(h.s, windows.SHUT_WR); err != nil {
			return asErrno(err)
		}
		h.shut = true
		if h.hang != nil {
			b.enqueue(h)
		}
		return nil
	case backend.CloseFlat, backend.CloseReset:
		for _, op := range []*backend.Op{h.rd, h.wr, h.hang, h.ready} {
			if op != nil {
				b.Cancel(op)
			}
		}
		b.close(n, h, how == backend.CloseReset)
		return nil
	case backend.Forget, backend.Unwatch:
		return backend.ErrUnsupported
	default:
		return errInvalid
	}
}

// close closes the socket and gives up what is in flight on it.
func (b *Backend) close(n backend.Handle, h *handle, reset bool) {
	b.table[n] = nil
	b.freeFrom = min(b.freeFrom, int(n))
	h.closed = true
	flying := false
	for _, at := range []**slot{&h.rdSlot, &h.wrSlot, &h.hangSlot, &h.readySlot} {
		if sl := *at; sl != nil {
			*at, sl.h, flying = nil, nil, true
			if sl.kind == backend.Accept {
				// A connection that it gets now would keep the address in use.
				discard(sl.aux.accepted)
				sl.aux.accepted = windows.InvalidHandle
			}
		}
	}
	if flying {
		b.calls.stopAll(h.s)
	}
	for i := range h.arrived {
		if h.arrived[i].err == nil {
			discard(h.arrived[i].s)
		}
	}
	h.arrived = nil
	if reset && h.class == stream {
		discard(h.s)
		return
	}
	_ = windows.Closesocket(h.s)
}

// discard closes a connection with a reset.
func discard(s windows.Handle) {
	_ = windows.SetsockoptLinger(s, windows.SOL_SOCKET, windows.SO_LINGER, &windows.Linger{Onoff: 1, Linger: 0})
	_ = windows.Closesocket(s)
}

// Name returns a handle's address, or its peer's, as it was when the connection was made:
// it can still be read after the connection has failed.
func (b *Backend) Name(n backend.Handle, peer bool) (backend.Addr, error) {
	if n >= asideFrom && b.aside != nil {
		return b.aside.Name(n, peer)
	}
	h := b.handle(n)
	switch {
	case h == nil:
		return backend.Addr{}, errBadHandle
	case peer && !h.connected:
		return backend.Addr{}, errNotConnected
	case peer:
		return h.peer, nil
	case h.class == datagrams:
		return nameOf(h.s, false) // its first SendTo may have bound it
	default:
		return h.local, nil
	}
}

const (
	soError      = 0x1007     // SO_ERROR
	fionread     = 0x4004667f // FIONREAD
	dontFragment = 14         // IP_DONTFRAGMENT, IPV6_DONTFRAG
)

// SetOption sets a socket option, on a listener also for what it accepts from then on.
func (b *Backend) SetOption(n backend.Handle, o backend.Option, value int) error {
	if n >= asideFrom && b.aside != nil {
		return b.aside.SetOption(n, o, value)
	}
	h := b.handle(n)
	if h == nil {
		return errBadHandle
	}
	if err := setOption(h.s, h.ipv6, o, value); err != nil {
		return err
	}
	h.remember(o, value)
	if h.class == listener {
		h.options = slices.DeleteFunc(h.options, func(v backend.OptionValue) bool { return v.Option == o })
		h.options = append(h.options, backend.OptionValue{Option: o, Value: value})
	}
	return nil
}

func setOption(s windows.Handle, ipv6 bool, o backend.Option, value int) error {
	set := func(level, name, value int) error { return asErrno(windows.SetsockoptInt(s, level, name, value)) }
	ip, ttl, loop := windows.IPPROTO_IP, windows.IP_MULTICAST_TTL, windows.IP_MULTICAST_LOOP
	if ipv6 {
		ip, ttl, loop = windows.IPPROTO_IPV6, windows.IPV6_MULTICAST_HOPS, windows.IPV6_MULTICAST_LOOP
	}
	switch o { //nolint:exhaustive // the others there are not
	case backend.NoDelay:
		return set(windows.IPPROTO_TCP, windows.TCP_NODELAY, min(value, 1))
	case backend.KeepAlive:
		return keepAlive(s, value)
	case backend.SendBuffer:
		return set(windows.SOL_SOCKET, windows.SO_SNDBUF, value)
	case backend.ReceiveBuffer:
		return set(windows.SOL_SOCKET, windows.SO_RCVBUF, value)
	case backend.Broadcast:
		return set(windows.SOL_SOCKET, windows.SO_BROADCAST, min(value, 1))
	case backend.DontFragment:
		return set(ip, dontFragment, min(value, 1))
	case backend.MulticastHops:
		return set(ip, ttl, value)
	case backend.MulticastLoop:
		return set(ip, loop, min(value, 1))
	default:
		return backend.ErrUnsupported
	}
}

// keepAlive sets the time and the interval, in seconds, or turns keep-alive off. Windows
// before 10 1709 has no options for them, but another call that sets both.
func keepAlive(s windows.Handle, value int) error {
	if value > 0 {
		for _, name := range []int{windows.TCP_KEEPIDLE, windows.TCP_KEEPINTVL} {
			switch err := windows.SetsockoptInt(s, windows.IPPROTO_TCP, name, value); {
			case errors.Is(err, windows.WSAENOPROTOOPT):
				ms := uint32(min(value, math.MaxUint32/1000)) * 1000
				in := [3]uint32{1, ms, ms}
				var n uint32
				return asErrno(windows.WSAIoctl(s, windows.SIO_KEEPALIVE_VALS,
					(*byte)(unsafe.Pointer(&in)), uint32(unsafe.Sizeof(in)), nil, 0, &n, nil, 0))
			case err != nil:
				return asErrno(err)
			}
		}
	}
	return asErrno(windows.SetsockoptInt(s, windows.SOL_SOCKET, windows.SO_KEEPALIVE, min(value, 1)))
}

// remember keeps what the system may not tell.
func (h *handle) remember(o backend.Option, value int) {
	if o == backend.KeepAlive {
		h.idle = int32(min(value, math.MaxInt32))
	}
}

// GetOption reads a socket option.
func (b *Backend) GetOption(n backend.Handle, o backend.Option) (int, error) {
	if n >= asideFrom && b.aside != nil {
		return b.aside.GetOption(n, o)
	}
	h := b.handle(n)
	if h == nil {
		return 0, errBadHandle
	}
	get := func(level, name int) (int, error) {
		v, err := windows.GetsockoptInt(h.s, level, name)
		return v, asErrno(err)
	}
	switch o { //nolint:exhaustive // the others there are not
	case backend.NoDelay:
		return get(windows.IPPROTO_TCP, windows.TCP_NODELAY)
	case backend.KeepAlive:
		v, err := get(windows.SOL_SOCKET, windows.SO_KEEPALIVE)
		if err != nil || v == 0 {
			return v, err
		}
		if idle, err := get(windows.IPPROTO_TCP, windows.TCP_KEEPIDLE); err == nil {
			v = idle
		} else if h.idle > 0 {
			v = int(h.idle)
		}
		return v, nil
	case backend.SendBuffer:
		return get(windows.SOL_SOCKET, windows.SO_SNDBUF)
	case backend.ReceiveBuffer:
		return get(windows.SOL_SOCKET, windows.SO_RCVBUF)
	case backend.PendingError:
		v, err := get(windows.SOL_SOCKET, soError)
		if err != nil || v == 0 {
			return 0, err
		}
		if errno, ok := errors.AsType[windows.Errno](h.translate(v)); ok {
			v = int(errno)
		}
		return v, nil
	case backend.UnreadBytes:
		var v, size uint32
		err := windows.WSAIoctl(h.s, fionread, nil, 0, (*byte)(unsafe.Pointer(&v)), uint32(unsafe.Sizeof(v)), &size, nil, 0)
		return int(v), asErrno(err)
	default:
		return 0, backend.ErrUnsupported
	}
}

// translate gives a number from the system the name that the rest of the program knows.
func (h *handle) translate(v int) error { return asErrno(windows.Errno(v)) }

// asErrno gives the contract's error for one from the system.
func asErrno(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[windows.Errno](err); ok {
		if e == 0 {
			return nil
		}
		return sys.WindowsErrno(e)
	}
	return err
}
