package netconn

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/weir-io/weir"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// ReadMsgUDP is that of *net.UDPConn. oob gets control messages with the local address
// and the interface (IP_PKTINFO, IPV6_PKTINFO) and the traffic class (IP_TOS,
// IPV6_TCLASS), as far as they are known and have room; flags has MSG_CTRUNC if one had
// none, and MSG_TRUNC if b was too short.
func (c *PacketConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, oobn, flags, from, err := c.ReadMsgUDPAddrPort(b, oob)
	if err == nil {
		addr = net.UDPAddrFromAddrPort(from)
	}
	return n, oobn, flags, addr, err
}

// ReadMsgUDPAddrPort is ReadMsgUDP without an object for the address.
func (c *PacketConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	var info weir.PacketInfo
	c.in.mu.Lock()
	n, whole, from, err := c.in.read(b, &info, c.mayRead)
	c.unlockIn()
	if err != nil {
		return 0, 0, 0, netip.AddrPort{}, c.opError("read", nil, err)
	}
	oobn, flags = messageOf(&info, n, whole, oob)
	return n, oobn, flags, from.IP, nil
}

// messageOf is what goes with a datagram of which n bytes were read.
func messageOf(info *weir.PacketInfo, n, whole int, oob []byte) (oobn, flags int) {
	oobn, cut := putInfo(oob, info)
	if n < whole {
		flags |= unix.MSG_TRUNC
	}
	if cut {
		flags |= unix.MSG_CTRUNC
	}
	return oobn, flags
}

// WriteMsgUDP is that of *net.UDPConn. Of the control messages in oob it knows the
// local address and the interface, the traffic class, and the size of segments
// (UDP_SEGMENT): b is then as many datagrams as it takes. Others are EINVAL.
func (c *PacketConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if addr == nil {
		return 0, 0, c.opError("write", nil, &net.AddrError{Err: "missing address", Addr: "<nil>"})
	}
	return c.WriteMsgUDPAddrPort(b, oob, addr.AddrPort())
}

// WriteMsgUDPAddrPort is WriteMsgUDP with another kind of address.
func (c *PacketConn) WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	to := weir.PacketAddr{IP: addr}
	info, size, err := takeInfo(oob)
	if err == nil && size > 0 && (len(b)+size-1)/size > segmentsMost {
		err = syscall.EINVAL // as the kernel has it
	}
	if err != nil {
		return 0, 0, c.opError("write", to.NetAddr(), err)
	}
	if size == 0 {
		size = max(1, len(b))
	}
	if n, err = c.write(b, size, to, &info); err != nil {
		return 0, 0, err
	}
	return n, len(oob), nil
}

// segmentsMost is how many datagrams one call of WriteMsgUDP sends at most: the
// kernel's UDP_MAX_SEGMENTS, which was 64 before Linux 6.9.
const segmentsMost = 128

// ReadBatch is that of package ipv4's PacketConn: it waits for a datagram and fills ms
// with it and those that came with it. It returns how many there are. flags must be 0.
//
// A library that is given a PacketConn without this method reads its descriptor
// instead (SyscallConn), and so takes the datagrams away from the loop.
func (c *PacketConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	if flags != 0 {
		return 0, c.opError("read", nil, errors.ErrUnsupported)
	}
	c.in.mu.Lock()
	count, err := c.in.readBatch(ms, c.mayRead)
	c.unlockIn()
	if err != nil {
		return 0, c.opError("read", nil, err)
	}
	return count, nil
}

func (in *packetInbox) readBatch(ms []ipv4.Message, mayWait func() error) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	if err := in.await(mayWait); err != nil {
		return 0, err
	}
	count := 0
	for ; count < len(ms) && !in.q.empty(); count++ {
		data, r := in.q.peek()
		m := &ms[count]
		m.N, m.Addr = 0, r.addr.NetAddr()
		for _, b := range m.Buffers {
			m.N += copy(b, data[m.N:])
		}
		m.NN, m.Flags = messageOf(&r.info, m.N, len(data), m.OOB)
		in.q.drop()
	}
	return count, nil
}

// SyscallConn gives access to the socket's options: Control works as that of a
// *net.UDPConn, also for goroutines. Read and Write fail with errors.ErrUnsupported,
// since the loop does both. Control fails with errors.ErrUnsupported if the backend has no
// descriptors, as the simulator has none: quic-go, which insists on options where there is
// SyscallConn, takes the conn there as struct{ net.PacketConn }{c}.
func (c *PacketConn) SyscallConn() (syscall.RawConn, error) { return packetOptions{c}, nil }

// packetOptions is a PacketConn as a syscall.RawConn.
type packetOptions struct{ c *PacketConn }

var _ syscall.RawConn = packetOptions{}

func (o packetOptions) Control(f func(fd uintptr)) error { return o.c.setError(o.c.e.Control(f)) }

func (o packetOptions) Read(func(fd uintptr) bool) error {
	return o.c.opError("raw-read", nil, errors.ErrUnsupported)
}

func (o packetOptions) Write(func(fd uintptr) bool) error {
	return o.c.opError("raw-write", nil, errors.ErrUnsupported)
}

// Where the fields of the kernel's structures are.
const (
	pktinfo4Index  = 0 // struct in_pktinfo: the interface,
	pktinfo4Source = 4 // the address to send from,
	pktinfo4Dest   = 8 // the address in the header
	pktinfo6Addr   = 0 // struct in6_pktinfo: either address,
	pktinfo6Index  = 16
)

// putInfo writes what is known of a datagram to oob as control messages, and says
// whether one had no room.
func putInfo(oob []byte, info *weir.PacketInfo) (n int, cut bool) {
	put := func(level, kind int32, data []byte) {
		space := unix.CmsgSpace(len(data))
		if n+space > len(oob) {
			cut = true
			return
		}
		m := oob[n : n+space]
		clear(m)
		const word = unix.SizeofCmsghdr - 8 // of the length, which is a size_t
		if word == 8 {
			binary.NativeEndian.PutUint64(m, uint64(unix.CmsgLen(len(data))))
		} else {
			binary.NativeEndian.PutUint32(m, uint32(unix.CmsgLen(len(data))))
		}
		binary.NativeEndian.PutUint32(m[word:], uint32(level))
		binary.NativeEndian.PutUint32(m[word+4:], uint32(kind))
		copy(m[unix.CmsgLen(0):], data)
		n += space
	}
	dest := info.Dest
	if !dest.IsValid() {
		dest = info.Local
	}
	var data [unix.SizeofInet6Pktinfo]byte
	four := dest.Unmap().Is4()
	switch {
	case !dest.IsValid():
	case four:
		binary.NativeEndian.PutUint32(data[pktinfo4Index:], uint32(info.Interface))
		if local := info.Local.Unmap(); local.Is4() {
			copy(data[pktinfo4Source:], local.AsSlice())
		}
		copy(data[pktinfo4Dest:], dest.Unmap().AsSlice())
		put(unix.IPPROTO_IP, unix.IP_PKTINFO, data[:unix.SizeofInet4Pktinfo])
	default:
		copy(data[pktinfo6Addr:], dest.AsSlice())
		binary.NativeEndian.PutUint32(data[pktinfo6Index:], uint32(info.Interface))
		put(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, data[:])
	}
	switch {
	case !info.HasTraffic:
	case four:
		put(unix.IPPROTO_IP, unix.IP_TOS, []byte{info.Traffic})
	default:
		put(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, binary.NativeEndian.AppendUint32(data[:0], uint32(info.Traffic)))
	}
	return n, cut
}

// takeInfo reads control messages that ask for something. segment is the size of
// datagrams, 0 if none was asked for.
func takeInfo(oob []byte) (info weir.PacketInfo, segment int, err error) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return info, 0, err
		}
		oob = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info.Interface = int(int32(binary.NativeEndian.Uint32(data[pktinfo4Index:])))
			info.Local, _ = netip.AddrFromSlice(data[pktinfo4Source : pktinfo4Source+4])
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info.Interface = int(int32(binary.NativeEndian.Uint32(data[pktinfo6Index:])))
			info.Local, _ = netip.AddrFromSlice(data[pktinfo6Addr : pktinfo6Addr+16])
			info.Local = info.Local.Unmap()
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS && len(data) >= 1,
			h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			class := uint32(data[0]) // the kernel takes a byte of either too
			if len(data) >= 4 {
				class = binary.NativeEndian.Uint32(data)
			}
			info.Traffic, info.HasTraffic = uint8(class), true
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(data) >= 2:
			segment = int(binary.NativeEndian.Uint16(data))
		default:
			return info, 0, syscall.EINVAL
		}
		if info.Local.IsUnspecified() {
			info.Local = netip.Addr{} // the system's choice
		}
	}
	return info, segment, nil
}
