package sys

import (
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// InboxBatch is how many messages one call of Inbox.Receive takes at most.
const InboxBatch = 32

const (
	inboxSlab = 16      // datagrams whose memory is made at once
	inboxMost = 256     // datagrams whose memory is kept
	packetMax = 1 << 16 // no datagram is longer
	// The distance between two datagrams' memory is no power of two: else the
	// beginnings of all would compete for a few lines of the processor's cache.
	packetStride = packetMax + 2112
	// controlRoom is for all that a socket can be asked to tell of a datagram: some 230
	// bytes on a socket of both families.
	controlRoom = 256
)

// message is the kernel's struct mmsghdr.
type message struct {
	hdr unix.Msghdr
	n   uint32
}

// Inbox receives datagrams, many by one call, into memory that it lends until
// Reset. It must not be copied.
type Inbox struct {
	msg     [InboxBatch]message
	iov     [InboxBatch]unix.Iovec
	from    [InboxBatch]Sockaddr
	control [InboxBatch][controlRoom / 8]uint64
	blank   [InboxBatch]bool // the kernel has not filled the message since it was made
	slots   []*inboxSlot
	used    int
}

// inboxSlot is what is lent with one message.
type inboxSlot struct {
	peer backend.Addr
	info backend.PacketInfo
	data []byte
}

// Reset takes back what was lent.
func (in *Inbox) Reset() { in.used = 0 }

// Lent is how much memory is out, in messages.
func (in *Inbox) Lent() int { return in.used }

// slot returns the i-th after those that are lent.
func (in *Inbox) slot(i int) *inboxSlot {
	i += in.used
	for i >= len(in.slots) {
		slab := new([inboxSlab]inboxSlot)
		mem := make([]byte, inboxSlab*packetStride)
		for k := range slab {
			slab[k].data = mem[k*packetStride : k*packetStride+packetMax : k*packetStride+packetMax]
			in.slots = append(in.slots, &slab[k])
		}
	}
	return in.slots[i]
}

// Receive takes datagrams without waiting, as many as are there and done has
// room for, but no more than InboxBatch, and one where op has a Buf. It fills done
// but for More. With fewer than asked for the socket was empty.
func (in *Inbox) Receive(fd int, op *backend.Op, done []backend.Completion) (int, syscall.Errno) {
	want := min(len(done), InboxBatch)
	if op.Buf != nil {
		want = 1
	}
	if in.used+want > inboxMost {
		in.slots, in.used = nil, 0 // what is out stays with its borrowers
	}
	for i := range want {
		p := op.Buf
		if p == nil {
			p = in.slot(i).data
			if op.Max > 0 {
				p = p[:min(len(p), int(op.Max))]
			}
		} else {
			in.slot(i)
		}
		if v := &in.iov[i]; v.Base != unsafe.SliceData(p) || int(v.Len) != len(p) {
			v.Base = unsafe.SliceData(p)
			v.SetLen(len(p))
		}
		if in.blank[i] {
			continue
		}
		in.blank[i] = true
		from := &in.from[i]
		from.Clear()
		h := &in.msg[i].hdr
		*h = unix.Msghdr{Name: (*byte)(from.Pointer()), Namelen: from.n, Iov: &in.iov[i], Control: (*byte)(unsafe.Pointer(&in.control[i]))}
		h.SetIovlen(1)
		h.SetControllen(controlRoom)
	}
	var (
		n     uintptr
		errno syscall.Errno
	)
	for {
		n, _, errno = syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.msg[0])), uintptr(want),
			unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		if errno != unix.EINTR {
			break
		}
	}
	if op.Buf != nil {
		defer func() { in.iov[0] = unix.Iovec{} }()
	}
	if errno != 0 {
		in.blank[0] = false
		return 0, errno
	}
	clear(in.blank[:min(int(n)+1, want)]) // an error may have ended the call
	for i := range int(n) {
		m, s := &in.msg[i], in.slots[in.used]
		in.used++
		room := s.data
		if op.Buf != nil {
			room = op.Buf
		} else if op.Max > 0 {
			room = room[:min(len(room), int(op.Max))]
		}
		c := &done[i]
		*c = backend.Completion{Op: op, N: min(int(m.n), len(room)), Truncated: int(m.n) > len(room), Peer: &s.peer}
		c.Buf = room[:c.N:c.N]
		in.from[i].n = m.hdr.Namelen
		in.from[i].Decode(&s.peer, fd)
		if m.hdr.Controllen > 0 {
			s.info = backend.PacketInfo{}
			c.Info = &s.info
			n := min(int(m.hdr.Controllen), controlRoom)
			if segment := TellInfo(unsafe.Slice((*byte)(unsafe.Pointer(&in.control[i])), controlRoom)[:n], &s.info); segment > 0 && segment < c.N {
				c.Segment = int32(segment)
			}
		}
	}
	return int(n), 0
}

// controls calls f with each control message of p that is whole. The kernel
// aligns them; they may have been cut, so nothing is taken for granted.
func controls(p []byte, f func(level, kind int32, data []byte)) {
	for len(p) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&p[0]))
		length := int(h.Len)
		if length < unix.SizeofCmsghdr || length > len(p) {
			return
		}
		f(h.Level, h.Type, p[unix.CmsgLen(0):length])
		p = p[min(unix.CmsgSpace(length-unix.CmsgLen(0)), len(p)):]
	}
}

// TellInfo reads the control messages that came along with a datagram, which must
// be aligned as the kernel's structures are, and returns the size of its segments,
// 0 where it is one datagram.
func TellInfo(control []byte, info *backend.PacketInfo) (segment int) {
	controls(control, func(level, kind int32, p []byte) {
		at := unsafe.Pointer(unsafe.SliceData(p))
		switch {
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(p) >= unix.SizeofInet4Pktinfo:
			k := (*unix.Inet4Pktinfo)(at)
			info.Local, info.Dest = netip.AddrFrom4(k.Spec_dst), netip.AddrFrom4(k.Addr)
			info.Interface = uint32(k.Ifindex)
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(p) >= unix.SizeofInet6Pktinfo:
			k := (*unix.Inet6Pktinfo)(at)
			dest := netip.AddrFrom16(k.Addr).Unmap()
			if dest.Is4() {
				return // a socket of both families has the other message too
			}
			info.Dest, info.Interface = dest, k.Ifindex
			if !dest.IsMulticast() {
				info.Local = dest
			}
		case level == unix.IPPROTO_IP && kind == unix.IP_TOS && len(p) >= 1:
			info.Traffic, info.HasTraffic = p[0], true
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_TCLASS && len(p) >= 4:
			info.Traffic, info.HasTraffic = uint8(*(*int32)(at)), true
		case level == unix.SOL_SOCKET && kind == unix.SO_RXQ_OVFL && len(p) >= 4:
			info.Dropped = *(*uint32)(at)
		case level == unix.SOL_SOCKET && kind == unix.SCM_TIMESTAMPNS && len(p) >= int(unsafe.Sizeof(unix.Timespec{})):
			info.Time = (*unix.Timespec)(at).Nano()
		case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(p) >= 4:
			segment = int(*(*int32)(at))
		}
	})
	return segment
}

// PrepareInfo asks for what spec wants to know of each datagram. What the kernel
// cannot tell is left out.
func PrepareInfo(fd int, spec *backend.Spec) {
	if spec.Info&backend.InfoTime != 0 {
		_ = setInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}
	if spec.Info&backend.InfoDropped != 0 {
		_ = setInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	}
	if spec.Family != backend.Inet {
		return
	}
	six, four := spec.IPv6, !spec.IPv6 || spec.Dual
	for _, o := range [...]struct {
		level, name int
		on          bool
	}{
		{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, six && spec.Info&backend.InfoLocal != 0},
		{unix.IPPROTO_IP, unix.IP_PKTINFO, four && spec.Info&backend.InfoLocal != 0},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, six && spec.Info&backend.InfoTraffic != 0},
		{unix.IPPROTO_IP, unix.IP_RECVTOS, four && spec.Info&backend.InfoTraffic != 0},
		{unix.SOL_UDP, unix.UDP_GRO, spec.Coalesce}, // since Linux 5.0
	} {
		if o.on {
			_ = setInt(fd, o.level, o.name, 1)
		}
	}
}
