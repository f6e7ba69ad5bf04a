package weir

import (
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// PacketInfo is what is known of a datagram besides its bytes and its peer. In one
// that was received, fields that the system or the backend does not tell are zero
// (BackendInfo.Packets says what is told). In one to send, what is zero is left to
// the system; Dest, Dropped and Time are ignored.
type PacketInfo struct {
	// Local is this machine's address that the datagram came to, or is to leave
	// from. For one that was sent to a group or broadcast it is the address
	// that an answer should leave from, as far as the system says (IPv4).
	Local netip.Addr
	// Dest is what the datagram was sent to: Local, a group or a broadcast address.
	Dest netip.Addr
	// Interface is the number of the network interface, as net.InterfaceByIndex
	// takes it. One to send leaves by it.
	Interface int
	// Traffic is the byte that has the code point in its upper six bits (RFC 2474)
	// and ECN in the other two (RFC 3168), where HasTraffic says so.
	Traffic    uint8
	HasTraffic bool
	// Dropped is how many datagrams the endpoint's full receive buffer has lost since
	// it was opened, as of this one's arrival.
	Dropped uint32
	// Time is when the system received the datagram, where WithPacketTimes asks for it.
	Time time.Time
}

// PacketInfoReceiver is a PacketProtocol that wants to know more of each datagram.
type PacketInfoReceiver interface {
	// PacketInfoReceived is called instead of PacketReceived. p and info are lent
	// until the call returns.
	PacketInfoReceived(p []byte, from PacketAddr, info *PacketInfo)
}

// MaybePacketInfoReceiver is a PacketInfoReceiver that may have no use for a
// PacketInfo, such as a layer whose upper protocol is no PacketInfoReceiver.
type MaybePacketInfoReceiver interface {
	PacketInfoReceiver
	// TakesPacketInfo reports whether the system is to be asked for more than an
	// endpoint needs itself. ListenPacket calls it, once.
	TakesPacketInfo() bool
}

// PacketFields says which fields of a PacketInfo a backend fills in where the
// system does. Local, Interface and Traffic then also apply to sending.
type PacketFields struct {
	Local     bool // and Dest
	Interface bool
	Traffic   bool
	Dropped   bool
	Time      bool
}

func packetFields(i backend.Infos, name string) PacketFields {
	local := i&backend.InfoLocal != 0
	return PacketFields{
		Local: local, Interface: local && name != "sim", Traffic: i&backend.InfoTraffic != 0,
		Dropped: i&backend.InfoDropped != 0, Time: i&backend.InfoTime != 0,
	}
}

// MTUError reports a datagram that was too long for a link on its way, or for the
// endpoint's own; errors.Is finds syscall.EMSGSIZE in it.
type MTUError struct {
	// MTU is how long packets may be, in bytes and with their IP header; 0 where
	// the system does not say.
	MTU int
	// Most is how many bytes a datagram to that address may have now: longer ones fail until
	// the system forgets, unless it finds that even fewer pass. It is 0 where longer ones may
	// be sent: in fragments (without WithDontFragment), or by a socket that finds the length
	// itself and is not to believe routers (IP_PMTUDISC_PROBE); and where no one knows.
	Most int
}

func (e *MTUError) Error() string {
	if e.MTU == 0 {
		return "datagram too long for a link on its way: send shorter ones"
	}
	return "datagram too long for a link on its way, which takes packets of " + strconv.Itoa(e.MTU) + " bytes: send shorter ones"
}

// Unwrap returns syscall.EMSGSIZE.
func (e *MTUError) Unwrap() error { return syscall.EMSGSIZE }

// infoOf makes a PacketInfo of a backend's.
func (e *PacketEndpoint) infoOf(k *backend.PacketInfo) PacketInfo {
	var info PacketInfo
	if k != nil {
		info = PacketInfo{
			Local: k.Local, Dest: k.Dest, Interface: int(k.Interface),
			Traffic: k.Traffic, HasTraffic: k.HasTraffic, Dropped: k.Dropped,
		}
		if k.Time != 0 {
			info.Time = time.Unix(0, k.Time)
		}
	}
	if own := unmap(e.addr.IP).Addr(); !info.Local.IsValid() && !info.Dest.IsValid() && own.IsValid() && !own.IsUnspecified() && !own.IsMulticast() {
		info.Local, info.Dest = own, own
	}
	return info
}

// SendInfo is SendTo with further wishes: from which of this machine's
// addresses the datagram leaves, by which network interface, with which traffic
// class. A nil info leaves all of it to the system. What the backend cannot do
// is errors.ErrUnsupported, an address that is not this machine's the system's error
// (EINVAL). It belongs to the loop's goroutine; p and *info are the caller's again
// when it returns.
func (e *PacketEndpoint) SendInfo(p []byte, to PacketAddr, info *PacketInfo) error {
	if info == nil {
		return e.send("SendInfo", p, to, nil)
	}
	k := backend.PacketInfo{
		Local: info.Local, Interface: uint32(info.Interface), Traffic: info.Traffic, HasTraffic: info.HasTraffic,
	}
	if k == (backend.PacketInfo{}) {
		return e.send("SendInfo", p, to, nil)
	}
	return e.send("SendInfo", p, to, &k)
}

// AnswerInfo is for an answer that is sent after the callback: with it, SendInfo sends
// from the address that the datagram being handed over came to, as SendTo does inside the
// callback. It may be kept. It
// is zero if no address needs to be named: outside PacketReceived and the callbacks that
// stand for it, on an endpoint with an address of its own, and where the backend does not
// tell local addresses (BackendInfo.Packets). It belongs to the loop's goroutine.
func (e *PacketEndpoint) AnswerInfo() PacketInfo {
	a := &e.rd.asked
	info := PacketInfo{Local: a.local}
	if a.local.IsLinkLocalUnicast() && a.local.Is6() {
		info.Interface = a.device
	}
	return info
}

// packetSocket is an endpoint's socket as other goroutines may use it: it is not
// closed while one of them does.
type packetSocket struct {
	mu     sync.Mutex
	of     backend.Socket // nil: there is no access
	closed bool
}

// shut runs f, which closes the socket.
func (s *packetSocket) shut(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	f()
}

// bottom is the endpoint with a socket below all layers; nil if there is none.
func (e *PacketEndpoint) bottom() *PacketEndpoint {
	for e != nil && e.feed != nil {
		e = e.feed.below
	}
	return e
}

// access calls f with the socket below the endpoint.
func (e *PacketEndpoint) access(f func(backend.Socket) error) error {
	e = e.bottom()
	if e == nil {
		return errors.ErrUnsupported
	}
	e.sock.mu.Lock()
	defer e.sock.mu.Unlock()
	switch {
	case e.sock.closed:
		return ErrClosed
	case e.sock.of == nil:
		return errors.ErrUnsupported
	}
	return f(e.sock.of)
}

// Control calls f with the descriptor of the endpoint's socket, for options that weir
// has no name for. f must not close, read or write it, nor keep it, and must call no
// method of the endpoint: the loop waits for f when it closes the socket. Any goroutine
// may call Control. After the close it returns ErrClosed; errors.ErrUnsupported if there
// is no descriptor (in the simulator, and over a carrier that is above no endpoint).
func (e *PacketEndpoint) Control(f func(fd uintptr)) error {
	return e.access(func(s backend.Socket) error { return s.Control(f) })
}

// SetReadBuffer sets how many bytes of datagrams the system keeps for the endpoint
// (SO_RCVBUF; the system may round it, and bound it without an error). Any goroutine may
// call it. Errors are those of Control, or the system's.
func (e *PacketEndpoint) SetReadBuffer(bytes int) error {
	return e.setBuffer("SetReadBuffer", backend.ReceiveBuffer, bytes)
}

// ReadBuffer is how many bytes of datagrams the system keeps for the endpoint, as
// SetReadBuffer and WithSocketBuffers count them: less than was asked for where the system's
// bound is lower (net.core.rmem_max on Linux). It belongs to the loop's goroutine. Errors
// are the system's, ErrClosed, or errors.ErrUnsupported over a carrier that is above no
// endpoint.
func (e *PacketEndpoint) ReadBuffer() (int, error) {
	if err := e.loop.check("ReadBuffer"); err != nil {
		return 0, err
	}
	e = e.bottom()
	switch {
	case e == nil:
		return 0, errors.ErrUnsupported
	case e.lost:
		return 0, ErrClosed
	}
	n, err := e.loop.be.GetOption(e.h, backend.ReceiveBuffer)
	if err != nil {
		return 0, sysError("getsockopt", err)
	}
	if e.loop.Backend().Name == "sim" {
		return n / 2, nil // as Linux has it
	}
	return sys.AskedBuffer(n), nil
}

// Dropped is how many datagrams the system has dropped because the endpoint's receive buffer
// was full, as of the last one received: where they come faster than the loop takes them. It is
// 0 where the backend does not tell (BackendInfo.Packets), and of the endpoint below all
// layers.
func (e *PacketEndpoint) Dropped() uint64 {
	if e = e.bottom(); e == nil {
		return 0
	}
	return e.rd.dropped
}

// SetWriteBuffer sets how many bytes of datagrams the system takes before they have left
// (SO_SNDBUF), as SetReadBuffer does.
func (e *PacketEndpoint) SetWriteBuffer(bytes int) error {
	return e.setBuffer("SetWriteBuffer", backend.SendBuffer, bytes)
}

func (e *PacketEndpoint) setBuffer(name string, o backend.Option, bytes int) error {
	var c connConfig
	if c.number(name, new(int), bytes, 1, maxBuffer); c.err != nil {
		return c.err
	}
	return e.access(func(s backend.Socket) error { return sysError("setsockopt", s.SetOption(o, bytes)) })
}

// answer is AnswerInfo for a datagram to the sender of the one that is being handed
// over, and zero for others.
func (e *PacketEndpoint) answer(to PacketAddr) backend.PacketInfo {
	if a := &e.rd.asked; !a.local.IsValid() || to != a.from {
		return backend.PacketInfo{}
	}
	info := e.AnswerInfo()
	return backend.PacketInfo{Local: info.Local, Interface: uint32(info.Interface)}
}
