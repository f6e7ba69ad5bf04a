package ws

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind says what a message is.
type Kind byte

// The kinds of messages (RFC 6455, 11.8).
const (
	Text   Kind = 1 // UTF-8
	Binary Kind = 2
)

func (k Kind) String() string {
	switch k {
	case Text:
		return "text"
	case Binary:
		return "binary"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// opcode is the opcode of a frame; every Kind is one.
type opcode byte

const (
	opContinuation opcode = 0
	opText                = opcode(Text)
	opBinary              = opcode(Binary)
	opClose        opcode = 8
	opPing         opcode = 9
	opPong         opcode = 10
)

func (o opcode) control() bool { return o >= opClose }

// The bits of a frame's first byte.
const (
	bitFin  = 0x80
	rsvDefl = 0x40 // RSV1: permessage-deflate, RFC 7692
	rsvEnd  = 0x20 // RSV2: the end of the stream, in our own extension
	bitsRsv = 0x70
	bitMask = 0x80 // in the second byte
)

// controlMax is the longest payload of a control frame (RFC 6455, 5.5).
const controlMax = 125

// headerMax is the longest header: 2 bytes, 8 of length, 4 of mask.
const headerMax = 14

// header is what precedes a frame's payload.
type header struct {
	fin    bool
	rsv    byte // the RSV bits, in place
	op     opcode
	masked bool
	key    [4]byte
	length int64
}

// appendHeader appends h as it goes over the wire.
func appendHeader(b []byte, h header) []byte {
	first := h.rsv | byte(h.op)
	if h.fin {
		first |= bitFin
	}
	var mask byte
	if h.masked {
		mask = bitMask
	}
	switch {
	case h.length < 126:
		b = append(b, first, mask|byte(h.length))
	case h.length < 1<<16:
		b = append(b, first, mask|126)
		b = binary.BigEndian.AppendUint16(b, uint16(h.length))
	default:
		b = append(b, first, mask|127)
		b = binary.BigEndian.AppendUint64(b, uint64(h.length))
	}
	if h.masked {
		b = append(b, h.key[:]...)
	}
	return b
}

// mask applies a key, beginning at position pos of the payload; it is its own
// inverse. dst and src may be the same slice; dst is at least as long as src.
func mask(dst, src []byte, key [4]byte, pos int) {
	k := uint64(binary.LittleEndian.Uint32(key[:]))
	if r := uint(pos&3) * 8; r != 0 {
		k = k>>r | k<<(32-r)&0xffffffff
	}
	k |= k << 32
	for len(src) >= 8 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^k)
		dst, src = dst[8:], src[8:]
	}
	for i, c := range src {
		dst[i] = c ^ byte(k>>(8*i))
	}
}

// ProtocolError reports a peer that violates RFC 6455. The connection is closed
// with the code.
type ProtocolError struct {
	Code   Code
	Reason string
}

func (e *ProtocolError) Error() string { return e.Reason }

func badFrame(format string, a ...any) error {
	return &ProtocolError{CodeProtocolError, fmt.Sprintf(format, a...)}
}

// piece is a part of a frame: as much of it as has come.
type piece struct {
	header         // of the frame that it is part of
	at      int64  // the position in the payload
	payload []byte // still masked; a part of the bytes that next was given
	start   bool   // it is the frame's first piece
	end     bool   // it is the last; it may be both
}

// parser turns bytes into pieces of frames. It holds one header and no payload.
type parser struct {
	server  bool  // we are the server: frames must be masked; otherwise they must not be
	rsv     byte  // the bits that extensions allow on data frames
	maxData int64 // the longest payload of a frame

	head   [headerMax]byte
	have   int
	open   bool // the header is complete, the payload is not
	h      header
	at     int64
	inside bool // a message has begun and its last frame has not
}

var errMore = errors.New("more bytes are needed")

// next takes n bytes off b and returns what they are. If they are not enough
// for that, all of them are taken and the error is errMore. Other errors are
// final.
func (p *parser) next(b []byte) (n int, c piece, err error) {
	start := !p.open
	if !p.open {
		for p.have < p.headerLen() {
			if n == len(b) {
				return n, c, errMore
			}
			k := copy(p.head[p.have:p.headerLen()], b[n:])
			p.have += k
			n += k
			if p.have == 2 {
				// If it is wrong already, more bytes will not help.
				if err := p.checkFirst(); err != nil {
					return n, c, err
				}
			}
		}
		if err := p.readHeader(); err != nil {
			return n, c, err
		}
		p.have, p.open, p.at = 0, true, 0
	}
	left := p.h.length - p.at
	k := int(min(left, int64(len(b)-n)))
	if k == 0 && left > 0 && !start {
		return n, c, errMore
	}
	c = piece{header: p.h, at: p.at, payload: b[n : n+k], start: start, end: int64(k) == left}
	p.at += int64(k)
	if c.end {
		p.open = false
	}
	return n + k, c, nil
}

// headerLen returns how long the header is, as far as its beginning tells.
func (p *parser) headerLen() int {
	if p.have < 2 {
		return 2
	}
	n := 2
	switch p.head[1] &^ bitMask {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if p.head[1]&bitMask != 0 {
		n += 4
	}
	return n
}

func (p *parser) checkFirst() error {
	fin, rsv, op := p.head[0]&bitFin != 0, p.head[0]&bitsRsv, opcode(p.head[0]&0x0f)
	masked, length := p.head[1]&bitMask != 0, p.head[1]&^bitMask
	switch {
	case op > opBinary && op < opClose || op > opPong:
		return badFrame("a frame of unknown kind %d", op)
	case rsv&^p.rsv != 0 || rsv != 0 && op.control():
		return badFrame("a frame with reserved bits set")
	case rsv&rsvDefl != 0 && op == opContinuation:
		return badFrame("a continuation frame says that it is compressed")
	case rsv&rsvEnd != 0 && (op != opBinary || !fin || rsv != rsvEnd || length != 0):
		return badFrame("a malformed end of the stream")
	case masked != p.server && p.server:
		return badFrame("a client's frame that is not masked")
	case masked != p.server:
		return badFrame("a server's frame that is masked")
	case op.control() && !fin:
		return badFrame("a control frame in fragments")
	case op.control() && length > controlMax:
		return badFrame("a control frame that is too long")
	case op == opContinuation && !p.inside:
		return badFrame("a continuation without a message")
	case (op == opText || op == opBinary) && p.inside:
		return badFrame("a message inside another")
	}
	return nil
}

func (p *parser) readHeader() error {
	b := p.head[:p.have]
	h := header{fin: b[0]&bitFin != 0, rsv: b[0] & bitsRsv, op: opcode(b[0] & 0x0f), masked: b[1]&bitMask != 0}
	h.length = int64(b[1] &^ bitMask)
	b = b[2:]
	switch h.length {
	case 126:
		if h.length = int64(binary.BigEndian.Uint16(b)); h.length < 126 {
			return badFrame("a length that is not written in the shortest way")
		}
		b = b[2:]
	case 127:
		n := binary.BigEndian.Uint64(b)
		if n < 1<<16 || n > 1<<63-1 {
			return badFrame("a length that is not written in the shortest way, or is out of range")
		}
		h.length = int64(n)
		b = b[8:]
	}
	if h.length > p.maxData {
		return &ProtocolError{CodeTooBig, fmt.Sprintf("a frame of %d bytes; the limit is %d", h.length, p.maxData)}
	}
	if h.masked {
		copy(h.key[:], b)
	}
	if !h.op.control() {
		p.inside = !h.fin
	}
	p.h = h
	return nil
}

// utf8Check checks UTF-8 that comes in pieces, cut anywhere.
type utf8Check struct {
	need   int  // bytes that complete the character begun
	lo, hi byte // the range of the next of them
}

// add reports whether p is a valid continuation of what came before.
func (u *utf8Check) add(p []byte) bool {
	for _, c := range p {
		if u.need > 0 {
			if c < u.lo || c > u.hi {
				return false
			}
			u.need--
			u.lo, u.hi = 0x80, 0xbf
			continue
		}
		u.lo, u.hi = 0x80, 0xbf
		switch {
		case c < 0x80:
		case c < 0xc2:
			return false
		case c < 0xe0:
			u.need = 1
		case c < 0xf0:
			u.need = 2
			if c == 0xe0 {
				u.lo = 0xa0
			} else if c == 0xed {
				u.hi = 0x9f // no surrogates
			}
		case c < 0xf5:
			u.need = 3
			if c == 0xf0 {
				u.lo = 0x90
			} else if c == 0xf4 {
				u.hi = 0x8f
			}
		default:
			return false
		}
	}
	return true
}

// whole reports whether no character is cut off, and starts over.
func (u *utf8Check) whole() bool {
	ok := u.need == 0
	u.need = 0
	return ok
}
