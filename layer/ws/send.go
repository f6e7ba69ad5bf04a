package ws

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"

	"github.com/weir-io/weir"
)

// ErrNotUTF8 is returned for text that is not UTF-8.
var ErrNotUTF8 = errors.New("ws: text that is not UTF-8")

// errPing is returned for a ping that is too long.
var errPing = errors.New("ws: a ping carries at most 125 bytes")

// frameMax is the longest payload sent in one frame. Between frames we check
// whether the transport below has room.
const frameMax = 64 << 10

// compressMin is the least length of a message that is compressed.
const compressMin = 128

// mark says which of the bytes that were given to the transport above are a
// message of their own. A message counts as at least entryMin bytes: a shorter
// one is padded with bytes that do not leave, so that the transport's Buffered,
// and with it its marks, count even empty messages.
type mark struct {
	kind   Kind
	before int // bytes of the stream before it
	n      int // bytes of it that are still to leave
	pad    int // bytes after it that do not leave
	total  int
	begun  bool
	done   bool // its last frame has been sent
}

// entryMin is the least number of bytes that a message counts for while it
// waits.
const entryMin = 32

var padding [entryMin]byte

// marks is a queue of marks.
type marks struct {
	all  []mark
	head int
}

func (q *marks) len() int     { return len(q.all) - q.head }
func (q *marks) first() *mark { return &q.all[q.head] }

func (q *marks) push(m mark) { q.all = append(q.all, m) }

// drop removes the first one.
func (q *marks) drop() {
	q.head++
	if q.head == len(q.all) {
		q.all, q.head = q.all[:0], 0
		if cap(q.all) > 64 {
			q.all = nil
		}
	} else if q.head >= 64 && q.head*2 >= len(q.all) {
		q.all = q.all[:copy(q.all, q.all[q.head:])]
		q.head = 0
	}
}

func (s *session) SendMessage(k Kind, p []byte) error {
	if k == Text && !utf8.Valid(p) {
		return ErrNotUTF8
	}
	up := s.Upper()
	m := mark{kind: k, before: max(0, s.Waiting()-s.pending), n: len(p), total: len(p), pad: max(0, entryMin-len(p))}
	s.marks.push(m)
	s.pending += m.before + m.n + m.pad
	var err error
	if m.pad > 0 {
		s.pair[0], s.pair[1] = p, padding[:m.pad]
		_, err = up.Writev(s.pair[:])
		s.pair = [2][]byte{}
	} else {
		_, err = up.Write(p)
	}
	if err != nil {
		s.marks.all = s.marks.all[:len(s.marks.all)-1]
		s.pending -= m.before + m.n + m.pad
	}
	return err
}

func (s *session) Write(bufs [][]byte) (int, error) {
	if s.closeSent {
		return 0, weir.ErrClosed
	}
	total := 0
	for _, p := range bufs {
		for len(p) > 0 {
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
	if s.answering {
		s.patience.Set(0) // everything has left
	}
	return total, nil
}

// send sends the first bytes of p as one frame.
func (s *session) send(p []byte) (int, error) {
	if s.marks.len() == 0 {
		return s.streamFrame(p[:min(len(p), frameMax)])
	}
	m := s.marks.first()
	if m.before > 0 {
		n, err := s.streamFrame(p[:min(len(p), m.before, frameMax)])
		m.before -= n
		s.pending -= n
		return n, err
	}
	var err error
	n := min(len(p), m.n, frameMax)
	if !m.done {
		m.n -= n
		err = s.markFrame(m, p[:n])
	}
	if m.done {
		k := min(len(p)-n, m.pad)
		m.pad -= k
		n += k
		if m.pad == 0 {
			s.marks.drop()
		}
	}
	s.pending -= n
	return n, err
}

// streamFrame sends p, which belongs to no message, as a message of its own.
func (s *session) streamFrame(p []byte) (int, error) {
	if !s.Text {
		return len(p), s.dataFrame(opBinary, len(p), true, true, p)
	}
	taken := len(p)
	if len(s.letter) > 0 {
		p = append(s.letter, p...)
	}
	whole := len(p)
	for i := 1; i <= min(len(p), utf8.UTFMax-1); i++ {
		if c := p[len(p)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(p[len(p)-i:]) {
				whole -= i
			}
			break
		}
	}
	if !utf8.Valid(p[:whole]) {
		return 0, ErrNotUTF8
	}
	s.letter = append([]byte(nil), p[whole:]...)
	if whole == 0 {
		return taken, nil
	}
	return taken, s.dataFrame(opText, whole, true, true, p[:whole])
}

// markFrame sends a fragment of a message, perhaps the only one.
func (s *session) markFrame(m *mark, p []byte) error {
	op, first := opcode(m.kind), !m.begun
	m.begun, m.done = true, m.n == 0
	if !first {
		op = opContinuation
	}
	return s.dataFrame(op, m.total, first, m.done, p)
}

func (s *session) ResumeWriting() {
	s.Base.ResumeWriting()
	if s.IsReady() && !s.closeSent {
		if s.pong != nil {
			_ = s.frame(opPong, true, 0, s.pong)
			s.pong = nil
		}
	}
}

// dataFrame sends a frame of a message of total bytes, compressed if that is
// agreed on and worthwhile.
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

// zipper compresses a message.
type zipper struct {
	w   *flate.Writer
	buf bytes.Buffer
}

func (s *session) beginZip() {
	s.zip = &zipper{w: s.writers.Get().(*flate.Writer)}
	s.zip.w.Reset(&s.zip.buf)
}

// endZip releases the zipper of a message.
func (s *session) endZip() {
	if s.zip != nil {
		s.writers.Put(s.zip.w)
		s.zip = nil
	}
}

// compress returns the compressed bytes of a fragment, lent until the next
// call.
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

func (s *session) Ping(p []byte) error {
	if len(p) > controlMax {
		return errPing
	}
	if s.closeSent || s.dead {
		return weir.ErrClosed
	}
	return s.frame(opPing, true, 0, p)
}

// answerPing answers a ping at once, or, if there is no room, answers the
// latest one when there is: a peer that pings and does not read does not fill
// our memory (RFC 6455, 5.5.3).
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

// CanCloseWrite implements weir.Carrier: we can if the peer knows weir-end, or
// if silence ends the connection afterwards.
func (s *session) CanCloseWrite() bool { return s.ends || s.EOFWait > 0 }

// KeepsReply tells a relay that a close here would cut off the peer's reply,
// and that it should wait for the peer's end instead. It is true whenever
// CanCloseWrite is false.
func (s *session) KeepsReply() bool { return !s.CanCloseWrite() }

func (s *session) CloseWrite() error {
	switch {
	case s.closeSent || s.dead:
		return weir.ErrClosed
	case len(s.letter) > 0:
		return ErrNotUTF8
	case s.ends:
		return s.frame(opBinary, true, rsvEnd, nil)
	}
	s.awaitSilence()
	return nil
}
