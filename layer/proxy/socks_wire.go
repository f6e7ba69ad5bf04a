package proxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// What SOCKS says on the wire: SOCKS4 (Lee, 1992), its extension 4a, SOCKS5
// (RFC 1928) and its user name and password (RFC 1929).
const (
	socks4 = 4
	socks5 = 5

	socksConnect   = 1
	socksBind      = 2
	socksAssociate = 3

	atypIPv4 = 1
	atypName = 3
	atypIPv6 = 4

	methodNone     = 0
	methodPassword = 2
	methodNothing  = 0xff // none of the offered ones

	reply4Granted  = 90
	reply4Rejected = 91
	reply4User     = 93 // the user could not be confirmed

	reply5Granted    = 0
	reply5Failed     = 1
	reply5NotAllowed = 2
	reply5Network    = 3
	reply5Host       = 4
	reply5Refused    = 5
	reply5TTL        = 6
	reply5Command    = 7
	reply5Address    = 8
)

// socks4Longest is how many bytes a user's or a host's name in SOCKS4 may have.
const socks4Longest = 255

func error5(code byte) *Error {
	e := &Error{Protocol: "socks5", Code: int(code), Text: "unassigned"}
	switch code {
	case reply5Failed:
		e.Text = "general failure"
	case reply5NotAllowed:
		e.Text, e.cause = "not allowed by the rules", ErrNotAllowed
	case reply5Network:
		e.Text, e.cause = "network unreachable", syscall.ENETUNREACH
	case reply5Host:
		e.Text, e.cause = "host unreachable", syscall.EHOSTUNREACH
	case reply5Refused:
		e.Text, e.cause = "connection refused", syscall.ECONNREFUSED
	case reply5TTL:
		e.Text, e.cause = "timed out on the way", syscall.ETIMEDOUT
	case reply5Command:
		e.Text, e.cause = "command not supported", ErrCommand
	case reply5Address:
		e.Text = "address type not supported"
	}
	return e
}

func code5(err error) byte {
	return [...]byte{
		causeOther: reply5Failed, causeNotAllowed: reply5NotAllowed, causeCommand: reply5Command,
		causeAddress: reply5Address, causeNetwork: reply5Network, causeHost: reply5Host, causeNames: reply5Host,
		causeRefused: reply5Refused, causeTimeout: reply5TTL,
	}[causeOf(err)]
}

func error4(code byte) *Error {
	e := &Error{Protocol: "socks4", Code: int(code), Text: "unassigned"}
	switch code {
	case reply4Rejected:
		e.Text = "rejected or failed"
	case 92:
		e.Text, e.cause = "rejected: the proxy cannot reach identd on the client", ErrAuth
	case reply4User:
		e.Text, e.cause = "rejected: the user could not be confirmed", ErrAuth
	}
	return e
}

// putAddr5 appends an address as SOCKS5 writes it.
func putAddr5(b []byte, host string, port uint16) []byte {
	if a, err := netip.ParseAddr(host); err == nil {
		b = putIP5(b, a)
	} else {
		b = append(b, atypName, byte(len(host)))
		b = append(b, host...)
	}
	return binary.BigEndian.AppendUint16(b, port)
}

func putIP5(b []byte, a netip.Addr) []byte {
	if a = a.Unmap(); a.Is4() {
		b = append(b, atypIPv4)
	} else {
		b = append(b, atypIPv6)
	}
	return append(b, a.AsSlice()...)
}

// getAddr5 reads an address as SOCKS5 writes it. n is 0 if bytes are missing. A
// host of length 0 is left to the caller.
func getAddr5(p []byte) (host string, port uint16, n int, err error) {
	if len(p) < 2 {
		return "", 0, 0, nil
	}
	var a, z int
	switch p[0] {
	case atypIPv4:
		a, z = 1, 5
	case atypIPv6:
		a, z = 1, 17
	case atypName:
		a, z = 2, 2+int(p[1])
	default:
		return "", 0, 0, &net.AddrError{Err: "unknown type of address", Addr: strconv.Itoa(int(p[0]))}
	}
	if len(p) < z+2 {
		return "", 0, 0, nil
	}
	host = string(p[a:z])
	if p[0] != atypName {
		ip, _ := netip.AddrFromSlice(p[a:z])
		host = ip.Unmap().String()
	}
	return host, binary.BigEndian.Uint16(p[z:]), z + 2, nil
}

// reply5 returns a server's reply; a nil address is written as 0.0.0.0:0.
func reply5(code byte, a net.Addr) []byte {
	ap, ok := addrPortOf(a)
	if !ok {
		ap = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	b := putIP5([]byte{socks5, code, 0}, ap.Addr())
	return binary.BigEndian.AppendUint16(b, ap.Port())
}

// reply4 returns a server's reply; anything but an IPv4 address is written as
// 0.0.0.0:0.
func reply4(code byte, a net.Addr) []byte {
	ap, ok := addrPortOf(a)
	if !ok || !ap.Addr().Is4() {
		ap = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	b := binary.BigEndian.AppendUint16([]byte{0, code}, ap.Port())
	return append(b, ap.Addr().AsSlice()...)
}

// splitDestination takes a "host:port" apart.
func splitDestination(dest string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(dest)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, &net.AddrError{Err: "bad port", Addr: dest}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return "", 0, &net.AddrError{Err: "a scope has no meaning for a proxy", Addr: dest}
		}
		return a.Unmap().String(), uint16(n), nil
	}
	if len(host) > 255 {
		return "", 0, &net.AddrError{Err: "a name has at most 255 bytes", Addr: host[:32] + "..."}
	}
	if err := checkName(host); err != nil {
		return "", 0, &net.AddrError{Err: err.Error(), Addr: dest}
	}
	return host, uint16(n), nil
}

func joinDestination(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// destAddr returns a destination as an address.
func destAddr(host string, port uint16) net.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, port))
	}
	return &HostAddr{Net: "tcp", Host: joinDestination(host, port)}
}
