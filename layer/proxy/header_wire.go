package proxy

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol of haproxy, versions 1 and 2.
const (
	header1Longest = 107 // bytes of a line, with its end
	header2Longest = 16 + 4096

	header2Local = 0x20
	header2Proxy = 0x21

	header2Unspec    = 0x00
	header2TCP4      = 0x11
	header2UDP4      = 0x12
	header2TCP6      = 0x21
	header2UDP6      = 0x22
	header2Unix      = 0x31
	header2UnixDgram = 0x32
)

const header2Signature = "\r\n\r\n\x00\r\nQUIT\n"

// Header is the content of a PROXY header. HeaderOf finds it.
type Header struct {
	Version int
	// Local is true if the peer speaks for itself: it makes a health check, or
	// does not know the address of its client (LOCAL, UNKNOWN, UNSPEC). The
	// transport then has its own addresses.
	Local bool
	// Source and Destination are the ends of the connection that the peer
	// passes on: *net.TCPAddr, *net.UDPAddr or *net.UnixAddr; nil if Local.
	Source, Destination net.Addr
	// TLVs holds the further values of version 2 as they came: type, length,
	// value. They have been checked: none is cut off, those of a type that the
	// protocol defines occur once, and a checksum among them was right.
	TLVs []byte
}

// TLV returns the first value of a type.
func (h *Header) TLV(kind byte) (value []byte, ok bool) {
	for p := h.TLVs; len(p) >= 3; {
		n := 3 + int(binary.BigEndian.Uint16(p[1:]))
		if n > len(p) {
			break
		}
		if p[0] == kind {
			return p[3:n], true
		}
		p = p[n:]
	}
	return nil, false
}

// headerWire reads a header.
type headerWire struct{ h Header }

func (w *headerWire) start() ([]byte, error) { return nil, nil }

func (w *headerWire) next(p []byte) (n int, reply []byte, e event, err error) {
	n, err = w.h.parse(p)
	if err != nil || n == 0 {
		return 0, nil, eventNone, err
	}
	return n, nil, eventOpen, nil
}

// parse reads a header at the beginning of p; n is 0 if bytes are missing.
func (h *Header) parse(p []byte) (n int, err error) {
	const first = "PROXY "
	k1, k2 := min(len(p), len(first)), min(len(p), len(header2Signature))
	switch {
	case len(p) == 0:
		return 0, nil
	case string(p[:k1]) == first[:k1]:
		return h.parse1(p)
	case string(p[:k2]) == header2Signature[:k2]:
		return h.parse2(p)
	}
	return 0, malformed("the stream does not begin with a PROXY header")
}

func (h *Header) parse1(p []byte) (n int, err error) {
	q := p[:min(len(p), header1Longest)]
	i := bytes.IndexByte(q, '\r')
	switch {
	case i >= 0 && i+1 < len(q) && q[i+1] != '\n':
		return 0, malformed("the PROXY header has a CR in the middle of it")
	case (i < 0 || i+1 == len(q)) && len(q) == header1Longest:
		return 0, malformed("the PROXY header is longer than %d bytes", header1Longest)
	case i < 0 || i+1 == len(q):
		return 0, nil
	}
	line := string(q[:i])
	*h = Header{Version: 1}
	f := strings.Split(line, " ")
	if len(f) >= 2 && f[1] == "UNKNOWN" { // what follows must be ignored
		h.Local = true
		return i + 2, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return 0, malformed("the PROXY header says %q", line)
	}
	src, ok1 := address1(f[2], f[4], f[1] == "TCP6")
	dst, ok2 := address1(f[3], f[5], f[1] == "TCP6")
	if !ok1 || !ok2 {
		return 0, malformed("the PROXY header says %q", line)
	}
	h.Source, h.Destination = src, dst
	return i + 2, nil
}

func address1(host, port string, six bool) (net.Addr, bool) {
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is4() == six {
		return nil, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port { // no leading zeros, no sign
		return nil, false
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Unmap(), uint16(n))), true
}

func (h *Header) parse2(p []byte) (n int, err error) {
	if len(p) < 16 {
		return 0, nil
	}
	if p[12] != header2Local && p[12] != header2Proxy {
		return 0, malformed("the PROXY header has version and command %#x", p[12])
	}
	n = 16 + int(binary.BigEndian.Uint16(p[14:]))
	if n > header2Longest {
		return 0, malformed("the PROXY header has %d bytes, the limit is %d", n, header2Longest)
	}
	if len(p) < n {
		return 0, nil
	}
	*h = Header{Version: 2, Local: p[12] == header2Local}
	body := p[16:n]
	size := 0
	switch p[13] {
	case header2TCP4, header2UDP4:
		size = 12
	case header2TCP6, header2UDP6:
		size = 36
	case header2Unix, header2UnixDgram:
		size = 216
	case header2Unspec:
		h.Local = true
	default:
		if !h.Local {
			return 0, malformed("the PROXY header has the address family %#x", p[13])
		}
	}
	if h.Local { // the addresses must be ignored, whatever they are
		return n, nil
	}
	if len(body) < size {
		return 0, malformed("the PROXY header has %d bytes of addresses, its family needs %d", len(body), size)
	}
	switch p[13] {
	case header2TCP4, header2UDP4, header2TCP6, header2UDP6:
		k := (size - 4) / 2
		src, _ := netip.AddrFromSlice(body[:k])
		dst, _ := netip.AddrFromSlice(body[k : 2*k])
		sp, dp := binary.BigEndian.Uint16(body[2*k:]), binary.BigEndian.Uint16(body[2*k+2:])
		s, d := netip.AddrPortFrom(src.Unmap(), sp), netip.AddrPortFrom(dst.Unmap(), dp)
		if p[13] == header2UDP4 || p[13] == header2UDP6 {
			h.Source, h.Destination = net.UDPAddrFromAddrPort(s), net.UDPAddrFromAddrPort(d)
		} else {
			h.Source, h.Destination = net.TCPAddrFromAddrPort(s), net.TCPAddrFromAddrPort(d)
		}
	default:
		h.Source = &net.UnixAddr{Net: "unix", Name: unixName(body[:108])}
		h.Destination = &net.UnixAddr{Net: "unix", Name: unixName(body[108:216])}
	}
	if err := checkTLVs(p[:n], 16+size); err != nil {
		return 0, err
	}
	if len(body) > size {
		h.TLVs = bytes.Clone(body[size:])
	}
	return n, nil
}

// The types of further values that a receiver has to know about.
const (
	tlvCRC32C     = 0x03
	tlvNoop       = 0x04
	tlvSSL        = 0x20
	tlvNetNS      = 0x30
	tlvCRC32CSize = 4
	tlvSSLFixed   = 5 // what comes before the values inside tlvSSL
)

// checkTLVs checks the values of a header from at on: that none is cut off;
// that none that says who the client is occurs twice, so that two readers
// cannot disagree about the client; and that the checksum, if there is one, is
// right.
func checkTLVs(header []byte, at int) error {
	once := map[[2]byte]bool{}
	inside := byte(0)
	var check func(at, end int) error
	check = func(at, end int) error {
		for at < end {
			if end-at < 3 {
				return malformed("the PROXY header ends within a value")
			}
			kind, next := header[at], at+3+int(binary.BigEndian.Uint16(header[at+1:]))
			if next > end {
				return malformed("the value %#02x of the PROXY header is longer than the header", kind)
			}
			if k := [2]byte{inside, kind}; kind != tlvNoop && kind <= tlvNetNS && once[k] {
				return malformed("the PROXY header has the value %#02x twice", kind)
			} else {
				once[k] = true
			}
			value := header[at+3 : next]
			switch {
			case inside != 0:
			case kind == tlvCRC32C:
				if len(value) != tlvCRC32CSize || binary.BigEndian.Uint32(value) != headerSum(header, at+3) {
					return malformed("the checksum of the PROXY header is wrong")
				}
			case kind == tlvSSL && len(value) < tlvSSLFixed:
				return malformed("the value %#02x of the PROXY header is too short", kind)
			case kind == tlvSSL:
				inside = kind
				if err := check(at+3+tlvSSLFixed, next); err != nil {
					return err
				}
				inside = 0
			}
			at = next
		}
		return nil
	}
	return check(at, len(header))
}

// headerSum returns the checksum of a header, computed with the checksum
// itself, at offset at, as 0.
func headerSum(header []byte, at int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Checksum(header[:at], table)
	sum = crc32.Update(sum, table, make([]byte, tlvCRC32CSize))
	return crc32.Update(sum, table, header[at+tlvCRC32CSize:])
}

// unixName reads a sun_path: an abstract name begins with a NUL.
func unixName(b []byte) string {
	if len(b) > 1 && b[0] == 0 && b[1] != 0 {
		return "@" + string(bytes.TrimRight(b[1:], "\x00"))
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// appendHeader1 writes a header of version 1 for a connection from src to dst.
func appendHeader1(b []byte, src, dst net.Addr) []byte {
	s, ok1 := addrPortOf(src)
	d, ok2 := addrPortOf(dst)
	if !ok1 || !ok2 {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	family := " TCP4 "
	if !s.Addr().Is4() || !d.Addr().Is4() {
		family = " TCP6 "
	}
	text := func(a netip.Addr) string {
		if a.Is4() && family == " TCP6 " {
			return "::ffff:" + a.String()
		}
		return a.String()
	}
	b = append(b, "PROXY"+family+text(s.Addr())+" "+text(d.Addr())+" "...)
	b = strconv.AppendUint(b, uint64(s.Port()), 10)
	b = strconv.AppendUint(append(b, ' '), uint64(d.Port()), 10)
	return append(b, "\r\n"...)
}

// appendHeader2 writes a header of version 2.
func appendHeader2(b []byte, src, dst net.Addr) []byte {
	b = append(b, header2Signature...)
	us, ok1 := src.(*net.UnixAddr)
	ud, ok2 := dst.(*net.UnixAddr)
	if ok1 && ok2 {
		b = append(b, header2Proxy, header2Unix, 0, 216)
		return appendUnix(appendUnix(b, us.Name), ud.Name)
	}
	s, ok1 := addrPortOf(src)
	d, ok2 := addrPortOf(dst)
	switch {
	case !ok1 || !ok2:
		return append(b, header2Local, header2Unspec, 0, 0)
	case s.Addr().Is4() && d.Addr().Is4():
		b = append(b, header2Proxy, header2TCP4, 0, 12)
		b = append(append(b, s.Addr().AsSlice()...), d.Addr().AsSlice()...)
	default:
		s16, d16 := s.Addr().As16(), d.Addr().As16()
		b = append(b, header2Proxy, header2TCP6, 0, 36)
		b = append(append(b, s16[:]...), d16[:]...)
	}
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, s.Port()), d.Port())
}

func appendUnix(b []byte, name string) []byte {
	var path [108]byte
	if strings.HasPrefix(name, "@") {
		copy(path[1:], name[1:])
	} else {
		copy(path[:], name)
	}
	return append(b, path[:]...)
}
