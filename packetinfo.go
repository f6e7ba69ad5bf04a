package weir

import (
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// PacketInfo is what there is to a datagram beside its bytes and its peer. Of one
// that was received, fields that the system or the backend does not tell are zero
// (BackendInfo.Packets says what is told). Of one to send, what is zero is left to
// the system; Dest, Dropped and Time are not looked at.
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
// PacketInfo, such as a layer below a protocol that is none.
type MaybePacketInfoReceiver interface {
	PacketInfoReceiver
	// TakesPacketInfo reports whether the system is to be asked for more than an
	// endpoint needs itself. ListenPacket calls it, once.
	TakesPacketInfo() bool
}

// PacketFields says which fields of a PacketInfo a backend fills in where the
// system does. Local, Interface and Traffic are then also heeded in sending.
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

// MTUError tells of a datagram that was too long for a link on its way, or for the
// endpoint's own; errors.Is finds syscall.EMSGSIZE in it.
type MTUError struct {
	// MTU is how long packets may be, in bytes and with their IP header; 0 where
	// the system does not say.
	MTU int
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

// SendInfo is SendTo with what else is asked for: from which of this machine's
// addresses the datagram leaves, by which network interface, with which traffic
// class. A nil info leaves all of it to the system. What the backend cannot do
// is errors.ErrUnsupported, an address that is not this machine's the system's error
// (EINVAL). It belongs to the loop's goroutine; p and *info are the caller's again
// when it returns.
func (e *PacketEndpoint) SendInfo(p []byte, to PacketAddr, info *PacketInfo) error {
	if info == nil {
		return e.send("SendInfo", p, to, backend.PacketInfo{})
	}
	return e.send("SendInfo", p, to, backend.PacketInfo{
		Local: info.Local, Interface: uint32(info.Interface), Traffic: info.Traffic, HasTraffic: info.HasTraffic,
	})
}

// AnswerInfo is what SendInfo has to be given with an answer to the datagram that is
// being handed over, if the answer is sent after the callback: it then leaves from the
// address that was asked, as SendTo has it leave inside the callback. It may be kept. It
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

// answer is AnswerInfo for a datagram to the sender of the one that is being handed
// over, and zero for others.
func (e *PacketEndpoint) answer(to PacketAddr) backend.PacketInfo {
	if a := &e.rd.asked; !a.local.IsValid() || to != a.from {
		return backend.PacketInfo{}
	}
	info := e.AnswerInfo()
	return backend.PacketInfo{Local: info.Local, Interface: uint32(info.Interface)}
}
