package dns

import "encoding/binary"

// wire walks over a message and checks its form before anything in it is
// believed: names are at most 255 bytes long, their compression pointers go
// strictly backwards, and data fill exactly the length they are given (RFC
// 1035, 4.1). off is the current position.
type wire struct {
	msg []byte
	off int
}

const (
	headerSize = 12
	wireName   = 255 // bytes of a name on the wire
)

// wellFormed reports whether all of msg is well-formed; bytes after the last
// record do not count.
func wellFormed(msg []byte) bool {
	if len(msg) < headerSize {
		return false
	}
	w := wire{msg: msg, off: headerSize}
	for range binary.BigEndian.Uint16(msg[4:]) {
		if !w.name() || !w.skip(4) {
			return false
		}
	}
	records := 0
	for _, at := range [...]int{6, 8, 10} {
		records += int(binary.BigEndian.Uint16(msg[at:]))
	}
	for range records {
		if !w.record() {
			return false
		}
	}
	return true
}

func (w *wire) skip(n int) bool {
	w.off += n
	return w.off <= len(w.msg)
}

// name skips over a name.
func (w *wire) name() bool {
	at, before, length := w.off, w.off, 0
	jumped := false
	for {
		if at >= len(w.msg) {
			return false
		}
		c := int(w.msg[at])
		switch {
		case c == 0:
			if !jumped {
				w.off = at + 1
			}
			return length+1 <= wireName
		case c < 0x40:
			at += 1 + c
			if length += 1 + c; length > wireName {
				return false
			}
		case c >= 0xc0:
			if at+1 >= len(w.msg) {
				return false
			}
			if !jumped {
				w.off, jumped = at+2, true
			}
			// A pointer must lead to before where this part of the name began,
			// so that the walk ends.
			to := (c&0x3f)<<8 | int(w.msg[at+1])
			if to >= before || to < headerSize {
				return false
			}
			at, before = to, to
		default:
			return false // kinds of labels that are not in use
		}
	}
}

// record skips over a record.
func (w *wire) record() bool {
	if !w.name() || w.off+10 > len(w.msg) {
		return false
	}
	t := Type(binary.BigEndian.Uint16(w.msg[w.off:]))
	size := int(binary.BigEndian.Uint16(w.msg[w.off+8:]))
	w.off += 10
	end := w.off + size
	if end > len(w.msg) {
		return false
	}
	if !w.data(t, end) {
		return false
	}
	w.off = end
	return true
}

// data reports whether the data of a record, up to end, have its type's format.
func (w *wire) data(t Type, end int) bool {
	ok := true
	switch t {
	case A:
		ok = w.skip(4)
	case AAAA:
		ok = w.skip(16)
	case NS, CNAME, PTR:
		ok = w.name()
	case MX:
		ok = w.skip(2) && w.name()
	case SRV:
		ok = w.skip(6) && w.name()
	case SOA:
		ok = w.name()
		ok = ok && w.name() && w.skip(20)
	case TXT:
		for ok && w.off < end {
			ok = w.skip(1 + int(w.msg[w.off]))
		}
	default:
		return true // the parser checks SVCB and HTTPS
	}
	return ok && w.off == end
}
