package sys

import (
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// The options of an SCTP socket that weir uses, of include/uapi/linux/sctp.h.
const (
	solSCTP        = 132
	sctpRTOInfo    = 0
	sctpInitMsg    = 2
	sctpNoDelay    = 3
	sctpDelayedAck = 16
	sctpBindAdd    = 100
	sctpConnectX   = 110
	sctpRTOBytes   = 16
	sctpInitBytes  = 8
	sctpAckBytes   = 12
)

// ackDelay is how many milliseconds an acknowledgment waits for a second packet, where the
// system takes 200. A receiver that was slow has room for one message of weir's, which is one
// packet on a path with large packets: the sender then waits for each.
const ackDelay = 10

// rtoLeast is the shortest timeout, in milliseconds, after which what was not acknowledged is
// sent again, where the system takes a second (RFC 9260, 15). The receiver drops what its buffer
// has no room for, and often it is this timeout alone that tells the sender. Peers that keep
// acknowledgments back for the usual 200 ms are not taken for silent.
const rtoLeast = 300

// prepareSCTP sets what is settled before an association begins.
func prepareSCTP(fd int, spec *backend.Spec) error {
	for _, o := range spec.Options {
		if o.Option == backend.NoDelay {
			if err := setInt(fd, solSCTP, sctpNoDelay, truth(o.Value)); err != nil {
				return err
			}
		}
	}
	// struct sctp_sack_info: of the socket itself, delay, and 0 leaves the number of packets.
	ack := [sctpAckBytes / 4]uint32{0, ackDelay, 0}
	if err := setBytes(fd, sctpDelayedAck, unsafe.Pointer(&ack), sctpAckBytes); err != nil {
		return err
	}
	// struct sctp_rtoinfo: of the socket itself, initial, greatest, least; 0 leaves it as it is.
	rto := [sctpRTOBytes / 4]uint32{0, 0, 0, rtoLeast}
	if err := setBytes(fd, sctpRTOInfo, unsafe.Pointer(&rto), sctpRTOBytes); err != nil {
		return err
	}
	if spec.SCTP.Out == 0 && spec.SCTP.In == 0 {
		return nil
	}
	// struct sctp_initmsg: streams out, streams in, attempts, time for them in ms; 0 is the
	// system's choice.
	init := [sctpInitBytes / 2]uint16{spec.SCTP.Out, spec.SCTP.In}
	return setBytes(fd, sctpInitMsg, unsafe.Pointer(&init), sctpInitBytes)
}

// bindAlso adds the further addresses to a socket that is bound.
func bindAlso(fd int, spec *backend.Spec) error {
	if len(spec.SCTP.Also) == 0 {
		return nil
	}
	all := make([]netip.AddrPort, len(spec.SCTP.Also))
	for i, ip := range spec.SCTP.Also {
		all[i] = netip.AddrPortFrom(ip, 0) // the port that the socket has
	}
	packed, err := packAddrs(all)
	if err != nil {
		return err
	}
	return setBytes(fd, sctpBindAdd, unsafe.Pointer(&packed[0]), len(packed))
}

// beginSCTP begins an association with a peer of several addresses.
func beginSCTP(fd int, spec *backend.Spec) error {
	if len(spec.SCTP.Peers) == 0 {
		return nil
	}
	packed, err := packAddrs(spec.SCTP.Peers)
	if err != nil {
		return err
	}
	// The call of a socket that blocks would wait. What accepts none of the addresses
	// refuses later.
	err = setBytes(fd, sctpConnectX, unsafe.Pointer(&packed[0]), len(packed))
	if err == unix.EINPROGRESS { //nolint:errorlint // it is the call's own
		return nil
	}
	return err
}

// packAddrs writes addresses one after another, each as long as its family needs.
func packAddrs(addrs []netip.AddrPort) ([]byte, error) {
	var packed []byte
	for _, at := range addrs {
		a := backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(at.Addr().Unmap(), at.Port())}
		var s Sockaddr
		if err := s.Encode(&a, !a.IP.Addr().Is4(), -1); err != nil {
			return nil, err
		}
		packed = append(packed, s.bytes()[:s.n]...)
	}
	return packed, nil
}

func setBytes(fd, name int, p unsafe.Pointer, n int) error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), solSCTP, uintptr(name), uintptr(p), uintptr(n), 0)
	return failed(errno)
}

// unsentSCTP is UnsentBytes of an SCTP socket, for which there is no ioctl: the memory that
// holds them, which is more than they are. ErrUnsupported: it is no SCTP socket.
func unsentSCTP(fd int) (int, error) {
	if protocol, err := getInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != unix.IPPROTO_SCTP {
		return 0, backend.ErrUnsupported
	}
	const queued = 5 // SK_MEMINFO_WMEM_QUEUED of include/uapi/linux/sock_diag.h
	var info [9]uint32
	n := uint32(unsafe.Sizeof(info))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&n)), 0)
	return int(info[queued]), failed(errno)
}
