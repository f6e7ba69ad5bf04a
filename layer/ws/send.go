package ws

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"

	"github.com/weir-io/weir"
)

// ErrNotUTF8 is returned for text that is none.
var ErrNotUTF8 = errors.New("ws: text that is not UTF-8")

// errPing is returned for a ping that is too long.
var errPing = errors.New("ws: a ping carries at most 125 bytes")

// frameMax is the most payload that is sent in one frame. What is below is asked
// for room in between.
const frameMax = 64 << 10

// compressMin is how long a message must be for it to be compressed.
const compressMin = 128

// mark says which of the bytes that were given to the transport above are a
// message of their own.
type mark struct {
	kind   Kind
	before int // bytes of the stream in front of it
	n      int // bytes of it that are still to leave
	total  int
	begun  bool
}

// SendMessage implements Messenger.
func (s *session) SendMessage(k Kind, p []byte) error {
	if k == Text && !utf8.Valid(p) {
		return ErrNotUTF8
	}
	up := s.Upper()
	s.marks = append(s.marks, mark{kind: k, before: max(0, up.Buffered()-s.pending), n: len(p), total: len(p)})
	m := &s.marks[len(s.marks)-1]
	s.pending += m.before + m.n
	if _, err := up.Write(p); err != nil {
		s.marks = s.marks[:len(s.marks)-1]
		return err
	}
	if len(p) == 0 {
		s.emptyMarks(false)
	}
	return nil
}

// Write implements weir.Carrier.
func (s *session) Write(bufs [][]byte) (int, error) {
	if s.closeSent {
		return 0, weir.ErrClosed
	}
	total := 0
	for _, p := range bufs {
		for len(p) > 0 {
			s.emptyMarks(false)
			if s.Blocked() {
				return total, nil
			}
			n, err := s.send(p)
			if err != nil {
				return total, err
			}
			total += n
			p = p[n:]
		}
	}
	s.emptyMarks(false)
	return total, nil
}

// send sends the first bytes of p as one frame.
func (s *session) send(p []byte) (int, error) {
	p = p[:min(len(p), frameMax)]
	if len(s.marks) == 0 {
		return len(p), s.dataFrame(opBinary, len(p), true, true, p)
	}
	m := &s.marks[0]
	if m.before > 0 {
		p = p[:min(len(p), m.before)]
		m.before -= len(p)
		s.pending -= len(p)
		return len(p), s.dataFrame(opBinary, len(p), true, true, p)
	}
	p = p[:min(len(p), m.n)]
	m.n -= len(p)
	s.pending -= len(p)
	err := s.markFrame(m, p)
	return len(p), err
}

// markFrame sends a fragment of a message, perhaps the only one.
func (s *session) markFrame(m *mark, p []byte) error {
	op, first, fin := opcode(m.kind), !m.begun, m.n == 0
	total := m.total
	m.begun = true
	if fin {
		copy(s.marks, s.marks[1:])
		s.marks = s.marks[:len(s.marks)-1]
	}
	if !first {
		op = opContinuation
	}
	return s.dataFrame(op, total, first, fin, p)
}

// emptyMarks sends the messages without a byte that are due.
func (s *session) emptyMarks(force bool) {
	for len(s.marks) > 0 && s.marks[0].before == 0 && s.marks[0].n == 0 && (force || !s.Blocked()) {
		if s.markFrame(&s.marks[0], nil) != nil {
			return // what is below is lost, and says so
		}
	}
}

// ResumeWriting implements weir.WritePauser.
func (s *session) ResumeWriting() {
	s.Base.ResumeWriting()
	if s.IsReady() && !s.closeSent {
		s.emptyMarks(false)
		if s.pong != nil {
			_ = s.frame(opPong, true, 0, s.pong)
			s.pong = nil
		}
	}
}

// dataFrame sends a frame of a message of total bytes, compressed where that is
// agreed on and worth it.
func (s *session) dataFrame(op opcode, total int, first, fin bool, p []byte) error {
	if first && s.deflates && total >= compressMin {
		s.beginZip()
	}
	if s.zip == nil {
		return s.frame(op, fin, 0, p)
	}
	var rsv byte
	if first {
		rsv = rsvDefl
	}
	err := s.frame(op, fin, rsv, s.zip.compress(p, fin))
	if fin {
		s.endZip()
	}
	return err
}

// zipper is what a message is compressed with.
type zipper struct {
	w   *flate.Writer
	buf bytes.Buffer
}

func (s *session) beginZip() {
	s.zip = &zipper{w: s.writers.Get().(*flate.Writer)}
	s.zip.w.Reset(&s.zip.buf)
}

// endZip gives back what a message was compressed with.
func (s *session) endZip() {
	if s.zip != nil {
		s.writers.Put(s.zip.w)
		s.zip = nil
	}
}

// compress returns a fragment's bytes, lent until the next call.
func (z *zipper) compress(p []byte, fin bool) []byte {
	z.buf.Reset()
	_, _ = z.w.Write(p) // a bytes.Buffer takes everything
	_ = z.w.Flush()
	b := z.buf.Bytes()
	if fin {
		b = b[:len(b)-4] // 00 00 ff ff: RFC 7692, 7.2.1
	}
	return b
}

// frame sends one frame. p is lent.
func (s *session) frame(op opcode, fin bool, rsv byte, p []byte) error {
	h := header{fin: fin, rsv: rsv, op: op, masked: !s.server, length: int64(len(p))}
	if s.server {
		s.vec[0], s.vec[1] = appendHeader(s.hdr[:0], h), p
		_, err := s.Below().Writev(s.vec[:])
		s.vec = [2][]byte{}
		return err
	}
	if err := s.drawKey(); err != nil {
		return err
	}
	h.key = s.key
	if _, err := s.Below().Write(appendHeader(s.hdr[:0], h)); err != nil {
		return err
	}
	buf := s.scratch.Get().(*[scratchLen]byte)
	defer s.scratch.Put(buf)
	for at := 0; at < len(p); {
		n := min(len(p)-at, scratchLen)
		mask(buf[:], p[at:at+n], s.key, at)
		if _, err := s.Below().Write(buf[:n]); err != nil {
			return err
		}
		at += n
	}
	return nil
}

func (s *session) drawKey() error { return s.random(s.key[:]) }

// Ping implements Messenger.
func (s *session) Ping(p []byte) error {
	if len(p) > controlMax {
		return errPing
	}
	if s.closeSent || s.dead {
		return weir.ErrClosed
	}
	return s.frame(opPing, true, 0, p)
}

// answerPing answers at once, or with the last one when there is room: a peer
// that pings and does not read fills no memory (RFC 6455, 5.5.3).
func (s *session) answerPing(p []byte) {
	switch {
	case s.closeSent:
	case s.Blocked():
		s.pong = append(s.pong[:0], p...)
		if s.pong == nil {
			s.pong = []byte{}
		}
	default:
		_ = s.frame(opPong, true, 0, p) // a loss is reported by ConnectionLost
	}
}

// CloseWith implements Messenger.
func (s *session) CloseWith(c Code, reason string) error {
	if !c.sendable() && c != CodeNone {
		return badFrame("code %d cannot be sent", c)
	}
	s.closeCode, s.closeText = c, reason
	return s.Upper().Close()
}

// sendClose sends a close, once.
func (s *session) sendClose(c Code, reason string) {
	if s.closeSent {
		return
	}
	s.closeSent = true
	var b [controlMax]byte
	_ = s.frame(opClose, true, 0, appendClose(b[:0], c, reason)) // a loss is reported by ConnectionLost
}

// CanCloseWrite implements weir.Carrier: where the peer knows weir-end.
func (s *session) CanCloseWrite() bool { return s.ends }

// KeepsReply tells a relay that a close here would cut off the peer's reply: it
// is to wait for the peer's end instead. It is true where CanCloseWrite is not.
func (s *session) KeepsReply() bool { return !s.ends }

// CloseWrite implements weir.Carrier.
func (s *session) CloseWrite() error {
	s.emptyMarks(true)
	if s.closeSent {
		return weir.ErrClosed
	}
	return s.frame(opBinary, true, rsvEnd, nil)
}
