package sys

import (
	"syscall"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// OutboxBatch is how many datagrams one call of Outbox.Send sends at most.
const OutboxBatch = 64

const (
	joinedMost  = 64    // datagrams that are handed over as one message (UDP_MAX_SEGMENTS)
	joinedBytes = 65000 // of all of them: less than the longest datagram of either family
	// sendRoom is for where a datagram is to leave from, its traffic class and the
	// size of segments: at most 88 bytes.
	sendRoom = 96
)

// Outbox sends datagrams, many by one call. Those that go to one place one after
// another and are of one size are handed over as one message, which the kernel, or
// the network card, takes apart (UDP GSO). It must not be copied.
type Outbox struct {
	msg     [OutboxBatch]message
	count   [OutboxBatch]int // datagrams of each message
	iov     [OutboxBatch]unix.Iovec
	to      [OutboxBatch]Sockaddr
	control [OutboxBatch]SendControl

	probed bool
	joins  bool
	most   int // datagrams of this size and above are not joined
}

// Joins reports whether the kernel takes several datagrams as one message.
func (o *Outbox) Joins() bool { return o.joins }

// Send sends packets without waiting, in order, and returns how many the kernel
// took: more than none, or the error about the first of them. fd is of the family that
// ipv6 names where it is an IP socket. An error that an earlier datagram caused,
// which the kernel tells whoever calls first, is left to RecvError.
func (o *Outbox) Send(fd int, ipv6 bool, packets []backend.Packet) (int, error) {
	if !o.probed && packets[0].To.Family == backend.Inet {
		_, err := getInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT) // since Linux 4.18
		o.probed, o.joins, o.most = true, err == nil, packetMax
	}
	packets = packets[:min(len(packets), OutboxBatch)]
	join := o.joins
	suspect := 0 // the size of datagrams that were refused as one message, and are tried one by one
	for tries := 0; ; {
		n, err := o.fill(fd, ipv6, packets, join)
		if n == 0 {
			return 0, err
		}
		sent, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&o.msg[0])), uintptr(n),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		joined, size := o.count[0] > 1, len(packets[0].Data)
		total := 0
		if errno == 0 {
			for _, k := range o.count[:sent] {
				total += k
			}
		}
		clear(o.iov[:len(packets)])
		switch errno {
		case 0:
			if suspect > 0 {
				o.most = min(o.most, suspect) // one alone would have to be sent in fragments
			}
			return total, nil
		case unix.EINTR:
			continue
		case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET,
			unix.ENOPROTOOPT, unix.EPROTO, unix.EACCES, unix.EMSGSIZE, unix.EOPNOTSUPP:
			// One that is about this datagram comes again. There can be as many
			// of the others as were sent before. UNIX sockets have none of the others, and a
			// connected one that has told that its peer is gone is no longer connected.
			if tries++; tries < 8 && packets[0].To.Family == backend.Inet {
				continue
			}
		}
		switch {
		case joined && errno == unix.EIO:
			o.joins, join = false, false // a device that has no checksums of its own, say
			continue
		case joined && (errno == unix.EINVAL || errno == unix.EMSGSIZE):
			// The joining may be what the kernel refuses, or what the datagrams ask for,
			// such as a source that is not this machine's: the first one alone shows which.
			packets, join, suspect, tries = packets[:o.count[0]], false, size, 0
			continue
		}
		return 0, errno
	}
}

// fill makes messages of packets, joined or not, and returns how many, or why the first
// cannot be one.
func (o *Outbox) fill(fd int, ipv6 bool, packets []backend.Packet, join bool) (n int, err error) {
	size, bytes := 0, 0 // of the message that others may join; size 0: none may
	iovs, first := 0, 0 // in use, and the message's first
	at := 0             // the last packet that says where it goes
	for i := range packets {
		p := &packets[i]
		joins := size > 0 && len(p.Data) > 0 && len(p.Data) <= size && bytes+len(p.Data) <= joinedBytes && o.count[n-1] < joinedMost
		if !p.Same {
			joins = joins && p.To == packets[at].To && p.Info == packets[at].Info
			at = i
		}
		if joins {
			o.count[n-1]++
			if last := &o.iov[iovs-1]; uintptr(unsafe.Pointer(last.Base))+uintptr(last.Len) == uintptr(unsafe.Pointer(unsafe.SliceData(p.Data))) {
				last.SetLen(int(last.Len) + len(p.Data)) // one behind the other in memory
			} else {
				o.iov[iovs].Base = unsafe.SliceData(p.Data)
				o.iov[iovs].SetLen(len(p.Data))
				iovs++
				o.msg[n-1].hdr.SetIovlen(iovs - first)
			}
			if bytes += len(p.Data); len(p.Data) < size {
				o.segment(n-1, size)
				size = 0
			}
			continue
		}
		if size > 0 {
			o.segment(n-1, size)
		}
		to, h := &o.to[n], &o.msg[n].hdr
		if err = to.Encode(&packets[at].To, ipv6, fd); err != nil {
			return n, err
		}
		used, err := o.control[n].Ask(&packets[at])
		if err != nil {
			return n, err
		}
		first = iovs
		o.iov[first].Base = unsafe.SliceData(p.Data)
		o.iov[first].SetLen(len(p.Data))
		iovs++
		*h = unix.Msghdr{Name: (*byte)(to.Pointer()), Namelen: to.n, Iov: &o.iov[first]}
		if p.ToPeer {
			h.Name, h.Namelen = nil, 0 // its name may lead elsewhere by now
		}
		h.SetIovlen(1)
		if used > 0 {
			h.Control = (*byte)(unsafe.Pointer(&o.control[n]))
			h.SetControllen(used)
		}
		o.count[n] = 1
		n++
		size, bytes = 0, len(p.Data)
		if join && packets[at].To.Family == backend.Inet && bytes < o.most {
			size = bytes
		}
	}
	if size > 0 {
		o.segment(n-1, size)
	}
	return n, nil
}

// segment says where to take the i-th message apart, if it is more than one
// datagram.
func (o *Outbox) segment(i, size int) {
	if o.count[i] > 1 {
		h := &o.msg[i].hdr
		n := int(h.Controllen)
		*(*uint16)(o.control[i].put(&n, unix.SOL_UDP, unix.UDP_SEGMENT, 2)) = uint16(size)
		h.Control = (*byte)(unsafe.Pointer(&o.control[i]))
		h.SetControllen(n)
	}
}

// SendControl is memory for the control messages of a datagram to send.
type SendControl [sendRoom / 8]uint64

// put adds a control message of so many bytes behind the first n, and returns
// where its data go.
func (k *SendControl) put(n *int, level, kind int32, size int) unsafe.Pointer {
	at := unsafe.Add(unsafe.Pointer(k), *n)
	c := (*unix.Cmsghdr)(at)
	c.Level, c.Type = level, kind
	c.SetLen(unix.CmsgLen(size))
	*n += unix.CmsgSpace(size)
	return unsafe.Add(at, unix.CmsgLen(0))
}

// Ask fills k with what p asks for, and returns how many bytes that is. What goes
// to an IPv4 address is asked for as on an IPv4 socket, on one of both families too.
func (k *SendControl) Ask(p *backend.Packet) (n int, err error) {
	info := &p.Info
	if p.To.Family != backend.Inet {
		return 0, nil
	}
	local := info.Local.Unmap()
	four := p.To.IP.Addr().Unmap().Is4()
	switch {
	case !local.IsValid():
	case local.IsUnspecified() || local.IsMulticast():
		return 0, unix.EINVAL
	case local.Is4() != four:
		return 0, unix.EAFNOSUPPORT
	}
	where := local.IsValid() || info.Interface != 0
	switch {
	case where && four:
		to := (*unix.Inet4Pktinfo)(k.put(&n, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo))
		*to = unix.Inet4Pktinfo{Ifindex: int32(info.Interface)}
		if local.IsValid() {
			to.Spec_dst = local.As4()
		}
	case where:
		to := (*unix.Inet6Pktinfo)(k.put(&n, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo))
		*to = unix.Inet6Pktinfo{Ifindex: info.Interface}
		if local.IsValid() {
			to.Addr = local.As16()
		}
	}
	switch {
	case info.HasTraffic && four:
		*(*int32)(k.put(&n, unix.IPPROTO_IP, unix.IP_TOS, 4)) = int32(info.Traffic)
	case info.HasTraffic:
		*(*int32)(k.put(&n, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4)) = int32(info.Traffic)
	}
	return n, nil
}

// Bytes returns the first n bytes.
func (k *SendControl) Bytes(n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(k)), sendRoom)[:n]
}
