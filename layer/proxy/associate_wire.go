package proxy

import (
	"encoding/binary"
	"net/netip"
)

// What SOCKS5 puts in front of each datagram (RFC 1928, 7):
//
//	0 0 | fragment | type of address | address | port | data

// udpHead reads what stands in front of a datagram. The name is empty where there is
// an address. ok is false for one that is cut short, is not SOCKS5's or is a fragment:
// those are to be dropped by all who do not put fragments together, and no one does.
func udpHead(p []byte) (to netip.AddrPort, name []byte, data []byte, ok bool) {
	if len(p) < 5 || p[0] != 0 || p[1] != 0 || p[2] != 0 {
		return to, nil, nil, false
	}
	end := 4
	switch p[3] {
	case atypIPv4:
		end += 4
	case atypIPv6:
		end += 16
	case atypName:
		end += 1 + int(p[4])
	default:
		return to, nil, nil, false
	}
	if len(p) < end+2 {
		return to, nil, nil, false
	}
	var ip netip.Addr
	if p[3] == atypName {
		if name = p[5:end]; len(name) == 0 {
			return to, nil, nil, false
		}
	} else {
		ip, _ = netip.AddrFromSlice(p[4:end])
	}
	return netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(p[end:])), name, p[end+2:], true
}

// putUDPHead appends what stands in front of a datagram from or to an address.
func putUDPHead(b []byte, a netip.AddrPort) []byte {
	b = append(b, 0, 0, 0)
	ip := a.Addr().Unmap()
	if ip.Is4() {
		four := ip.As4()
		b = append(append(b, atypIPv4), four[:]...)
	} else {
		six := ip.As16()
		b = append(append(b, atypIPv6), six[:]...)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}
