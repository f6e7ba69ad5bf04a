package utp

import "encoding/binary"

// kind is the type of a packet (BEP 29).
type kind uint8

const (
	kindData  kind = iota // carries bytes
	kindFin               // the last packet of its direction
	kindState             // carries an acknowledgement and nothing else
	kindReset             // ends the connection at once
	kindSyn               // begins one
	kinds                 // how many there are
)

const (
	version    = 1
	headerSize = 20

	extSack    = 1    // selective acknowledgement
	extPadding = 0x7f // ours: bytes that mean nothing, which probe the path's MTU

	// extensionsMax is how many extensions one packet may chain. Others use at most
	// three.
	extensionsMax = 8
	// sackMax is how many bytes of a selective acknowledgement are read: they cover
	// more packets than a window holds.
	sackMax = 128
)

// seq is the number of a packet. It wraps.
type seq uint16

// after reports whether s comes after o.
func (s seq) after(o seq) bool { return int16(s-o) > 0 }

// packet is a packet that was read. sack and data point into the datagram.
type packet struct {
	kind   kind
	id     uint16
	stamp  uint32 // microseconds of the sender's clock
	delay  uint32 // what the sender measured of our last packet; 0: nothing
	window uint32 // bytes that it has room for
	seq    seq
	ack    seq
	sack   []byte // bit i is the packet ack+2+i
	data   []byte
}

// parse reads a datagram. It reports false for what is not a packet of this protocol:
// another version, an unknown type, a chain of extensions that does not end within
// the datagram or is too long.
func (p *packet) parse(b []byte) bool {
	if len(b) < headerSize || b[0]&15 != version || kind(b[0]>>4) >= kinds {
		return false
	}
	*p = packet{
		kind:   kind(b[0] >> 4),
		id:     binary.BigEndian.Uint16(b[2:]),
		stamp:  binary.BigEndian.Uint32(b[4:]),
		delay:  binary.BigEndian.Uint32(b[8:]),
		window: binary.BigEndian.Uint32(b[12:]),
		seq:    seq(binary.BigEndian.Uint16(b[16:])),
		ack:    seq(binary.BigEndian.Uint16(b[18:])),
	}
	next, rest := b[1], b[headerSize:]
	for n := 0; next != 0; n++ {
		if n == extensionsMax || len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return false
		}
		body := rest[2 : 2+int(rest[1])]
		if next == extSack {
			// BEP 29 wants a multiple of 4 bytes; libtorrent sends as few as it needs.
			p.sack = body[:min(len(body), sackMax)]
		}
		next, rest = rest[0], rest[2+len(body):]
	}
	p.data = rest
	return true
}

// append writes a packet to b: the header, the selective acknowledgement where there
// is one, pad bytes of padding (0, or at least 2), and the data.
func (p *packet) append(b []byte, pad int) []byte {
	first := byte(0)
	switch {
	case len(p.sack) > 0:
		first = extSack
	case pad > 0:
		first = extPadding
	}
	b = append(b, byte(p.kind)<<4|version, first)
	b = binary.BigEndian.AppendUint16(b, p.id)
	b = binary.BigEndian.AppendUint32(b, p.stamp)
	b = binary.BigEndian.AppendUint32(b, p.delay)
	b = binary.BigEndian.AppendUint32(b, p.window)
	b = binary.BigEndian.AppendUint16(b, uint16(p.seq))
	b = binary.BigEndian.AppendUint16(b, uint16(p.ack))
	if len(p.sack) > 0 {
		next := byte(0)
		if pad > 0 {
			next = extPadding
		}
		b = append(b, next, byte(len(p.sack)))
		b = append(b, p.sack...)
	}
	for pad > 0 {
		n := min(pad, 2+255)
		if left := pad - n; left == 1 {
			n-- // the next one needs two
		}
		pad -= n
		next := byte(0)
		if pad > 0 {
			next = extPadding
		}
		b = append(b, next, byte(n-2))
		for range n - 2 {
			b = append(b, 0)
		}
	}
	return append(b, p.data...)
}
