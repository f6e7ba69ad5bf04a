package weir

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// SCTPAddr is the address of one end of an SCTP association, or of a listener: of the
// addresses of a host with several, the first.
type SCTPAddr struct{ netip.AddrPort }

// Network returns "sctp".
func (SCTPAddr) Network() string { return "sctp" }

// VsockAddr is the address of a port of a virtual machine, or of the machine that it runs
// on.
type VsockAddr struct {
	CID  uint32 // which machine: VsockLocal, VsockHost, a guest's number
	Port uint32
}

// What is special among a VsockAddr's CIDs.
const (
	VsockLocal uint32 = 1         // this machine itself
	VsockHost  uint32 = 2         // the machine that runs this one
	VsockAny   uint32 = 1<<32 - 1 // of a listener: whatever this machine is reached by
)

// Network returns "vsock".
func (VsockAddr) Network() string { return "vsock" }

func (a VsockAddr) String() string {
	cid := "any"
	if a.CID != VsockAny {
		cid = strconv.FormatUint(uint64(a.CID), 10)
	}
	return cid + ":" + strconv.FormatUint(uint64(a.Port), 10)
}

// ParseVsockAddr reads "CID:port", where the CID is a number, "local" or "host". Without
// a CID, as in ":port", and for "any", it is VsockAny.
func ParseVsockAddr(s string) (VsockAddr, error) {
	host, text, ok := cutLast(s)
	if !ok {
		return VsockAddr{}, &net.AddrError{Err: "a vsock address is CID:port", Addr: s}
	}
	port, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return VsockAddr{}, &net.AddrError{Err: "port must be a number from 0 to 4294967295", Addr: s}
	}
	a := VsockAddr{Port: uint32(port)}
	switch host {
	case "", "any":
		a.CID = VsockAny
	case "local":
		a.CID = VsockLocal
	case "host":
		a.CID = VsockHost
	default:
		cid, err := strconv.ParseUint(host, 10, 32)
		if err != nil {
			return VsockAddr{}, &net.AddrError{Err: "CID must be a number, local or host", Addr: s}
		}
		a.CID = uint32(cid)
	}
	return a, nil
}

// RFCOMMAddr is the address of a channel of a Bluetooth device.
type RFCOMMAddr struct {
	Device  [6]byte // in the order in which it is written; all 0 for any adapter of this machine
	Channel uint8   // 1 to 30; 0, of a listener, lets the system choose
}

// Network returns "rfcomm".
func (RFCOMMAddr) Network() string { return "rfcomm" }

func (a RFCOMMAddr) String() string {
	d := a.Device
	return fmt.Sprintf("%02X:%02X:%02X:%02X:%02X:%02X:%d", d[0], d[1], d[2], d[3], d[4], d[5], a.Channel)
}

// rfcommChannels is the highest channel of RFCOMM.
const rfcommChannels = 30

// ParseRFCOMMAddr reads "01:23:45:67:89:AB:channel". Without a device, as in ":channel", it
// is any adapter of this machine.
func ParseRFCOMMAddr(s string) (RFCOMMAddr, error) {
	host, text, ok := cutLast(s)
	if !ok {
		return RFCOMMAddr{}, &net.AddrError{Err: "an RFCOMM address is DEVICE:channel", Addr: s}
	}
	channel, err := strconv.ParseUint(text, 10, 8)
	if err != nil || channel > rfcommChannels {
		return RFCOMMAddr{}, &net.AddrError{Err: "channel must be a number from 0 to 30", Addr: s}
	}
	a := RFCOMMAddr{Channel: uint8(channel)}
	if host == "" {
		return a, nil
	}
	parts := strings.Split(host, ":")
	if len(parts) != len(a.Device) {
		return RFCOMMAddr{}, errBadDevice(s)
	}
	for i, p := range parts {
		b, err := strconv.ParseUint(p, 16, 8)
		if err != nil || len(p) != 2 {
			return RFCOMMAddr{}, errBadDevice(s)
		}
		a.Device[i] = byte(b)
	}
	return a, nil
}

func errBadDevice(s string) error {
	return &net.AddrError{Err: "a Bluetooth device is six bytes in hexadecimal with colons between them", Addr: s}
}

// cutLast cuts at the last colon.
func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// MissingSocketError is the failure of a Connect or Listen for which the system, or the
// loop's backend, lacks the kind of socket.
type MissingSocketError struct {
	Network string // "sctp", "vsock", "rfcomm"
	Module  string // the kernel's module that brings it; "" if none would help
	Err     error
}

func (e *MissingSocketError) Error() string {
	if e.Module == "" {
		return "weir: there are no " + e.Network + " sockets here (Linux has them, with the backends epoll and uring)"
	}
	return "weir: this kernel has no " + e.Network + " sockets for that: its module " + e.Module + " is missing"
}

// Unwrap returns the system's error.
func (e *MissingSocketError) Unwrap() error { return e.Err }

// missingSocket explains an error of a system call for a socket of network n that is to
// have, or to be connected to, the address a.
func missingSocket(n network, a *backend.Addr, err error) error {
	if n != netSCTP && n != netVsock && n != netRFCOMM {
		return err
	}
	e := &MissingSocketError{Network: n.String(), Err: err}
	switch {
	case errors.Is(err, backend.ErrUnsupported):
		return e
	case errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EPROTONOSUPPORT), errors.Is(err, syscall.ESOCKTNOSUPPORT):
		e.Module = n.String()
		return e
	case n != netVsock:
		return err
	}
	// There are vsock sockets, and what carries them to that machine is missing. In a guest
	// what is for CID 1 is then sent to the host, which does not answer.
	noDevice := errors.Is(err, syscall.ENODEV)
	switch cid, _ := a.Vsock(); {
	case cid == VsockLocal && (noDevice || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.ETIMEDOUT)):
		e.Module = "vsock_loopback"
	case cid == VsockHost && noDevice:
		e.Module = "vmw_vsock_virtio_transport"
	case noDevice:
		e.Module = "vhost_vsock"
	default:
		return err
	}
	return e
}

// vsockAnyPort stands for any free port; 0 is one like any other to the system.
const vsockAnyPort = 1<<32 - 1

// otherAddr reads an address of network "vsock" or "rfcomm".
func otherAddr(netw, address string, listens bool) (backend.Addr, error) {
	if netw == "vsock" {
		a, err := ParseVsockAddr(address)
		if listens && a.Port == 0 {
			a.Port = vsockAnyPort
		}
		return backend.VsockAddr(a.CID, a.Port), err
	}
	a, err := ParseRFCOMMAddr(address)
	return backend.RFCOMMAddr(a.Device, a.Channel), err
}

// localCID sets our own CID in the address of a connection within this machine: the system
// leaves it open.
func localCID(own *backend.Addr, peer *endpoint) {
	to := backend.Addr{IP: netip.AddrPortFrom(netip.AddrFrom16(peer.addr), 0)}
	if cid, _ := to.Vsock(); cid == VsockLocal && everywhere(own) {
		_, port := own.Vsock()
		*own = backend.VsockAddr(cid, port)
	}
}

// How many bytes are sent as one SCTP message. The system takes all of a message or none,
// and none that is longer than the socket's send buffer, which may be small.
const (
	messageMost  = 32 << 10
	messageLeast = 4 << 10
)

func (k *socket) message() int {
	if k.x.short {
		return messageLeast
	}
	return messageMost
}

// everywhere reports whether a listener with the address a takes connections to several
// addresses of this machine.
func everywhere(a *backend.Addr) bool {
	if a.Family == backend.Vsock {
		cid, _ := a.Vsock()
		return cid == VsockAny
	}
	return a.Family != backend.Unix && a.IP.Addr().IsUnspecified()
}

// WithSCTPAddrs gives an SCTP socket these local addresses: of a listener, beside the one
// that it listens on, of a Connect, those that it connects from (all of the family that it
// connects to). The peer learns of them, and the association goes on as long as one of
// them and of the peer's can be reached (RFC 9260, 5.1.2). Without it a socket for "any"
// address has all of the machine's. It has no effect on other networks. addrs is copied.
func WithSCTPAddrs(addrs ...netip.Addr) TCPOption {
	addrs = slices.Clone(addrs)
	return option(func(c *connConfig) {
		for _, a := range addrs {
			if !a.IsValid() {
				c.bad("WithSCTPAddrs", a.String(), "a valid address")
			}
		}
		c.also = addrs
	})
}

// WithSCTPStreams asks for numbers of streams of an SCTP association, from 0 to 65535 in
// each direction, for a peer that insists on them; 0 leaves a number to the system, which
// takes 10 out and any number in. weir itself sends on stream 0 and reads what comes on any,
// in the order of its arrival. It has no effect on other networks.
func WithSCTPStreams(out, in int) TCPOption {
	return option(func(c *connConfig) {
		c.number("WithSCTPStreams", &c.streamsOut, out, 0, maxQueue)
		c.number("WithSCTPStreams", &c.streamsIn, in, 0, maxQueue)
	})
}

// sctp makes an SCTP socket of spec, whose family is settled. An address that does not fit
// it is an error for a listener; of a Connect's the others are used.
func (c *connConfig) sctp(spec *backend.Spec) error {
	spec.SCTP = &backend.SCTP{Out: uint16(c.streamsOut), In: uint16(c.streamsIn)}
	for _, a := range c.also {
		a = a.Unmap()
		switch fits := a.Is4() != spec.IPv6 || spec.Dual; {
		case fits && !spec.Bind:
			spec.Bind, spec.Local = true, backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(a, 0)}
		case fits:
			spec.SCTP.Also = append(spec.SCTP.Also, a)
		case spec.Backlog > 0:
			return &net.AddrError{Err: "the address is of another family than the listener", Addr: a.String()}
		}
	}
	if len(c.also) > 0 && !spec.Bind {
		return &net.AddrError{Err: "no local address is of the family that is connected to", Addr: c.also[0].String()}
	}
	return nil
}
