package dns

import "encoding/binary"

// wire walks over a message to find out whether it is what it says, before
// anything in it is believed: names whose compression pointers go strictly
// backwards and that are at most 255 bytes long, and data that fill exactly the
// length they are given (RFC 1035, 4.1). off is where it is.
type wire struct {
	msg []byte
	off int
}

const (
	headerSize = 12
	wireName   = 255 // bytes of a name on the wire
)

// wellFormed reports whether all of msg is; bytes behind the last record do not
// count.
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

// name passes over a name.
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
			// Before where this part of the name began: it ends, then.
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

// record passes over a record.
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

// data reports whether the data of a record are what its type has, up to end.
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
		return true // of SVCB and HTTPS the parser sees to it
	}
	return ok && w.off == end
}
