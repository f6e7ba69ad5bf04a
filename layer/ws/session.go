package ws

import (
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/flate"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// session is one WebSocket.
//
//	upgrading ──begin──▶ open ──Close, peer's close──▶ closing ──both closes──▶ below closed
//	                      │
//	                      └── what breaks RFC 6455: our close with its code, dead
type session struct {
	layer.Base
	*shared
	parser parser

	accept, path, subprotocol string
	ends, deflates            bool // agreed on

	// Reading. kind and the next three are of the message that comes.
	kind     opcode
	deflated bool
	whole    bool // it is kept for a Receiver
	text     utf8Check
	msg      []byte
	comp     []byte // what of it is still compressed
	control  [controlMax]byte
	nControl int

	inflating bool // comp is complete and being read
	inflated  int
	source    bytes.Reader
	inflater  io.Reader
	again     *weir.Timer // goes on with that

	// Writing.
	hdr     [headerMax]byte
	key     [4]byte
	vec     [2][]byte
	marks   []mark
	pending int // bytes that marks account for
	zip     *zipper
	pong    []byte // to be sent when there is room

	// The end.
	closing   bool // Close was called
	closeSent bool
	closeCode Code
	closeText string
	peerCode  Code // 0: no close came
	peerText  string
	ended     bool // the peer ended its direction
	dead      bool // nothing more is read
	gentle    bool // an abort is not to drop the close that says why
	patience  *weir.Timer

	keep          *weir.Timer
	heard, pinged bool
}

// Subprotocol implements Messenger.
func (s *session) Subprotocol() string { return s.subprotocol }

// RequestPath implements Messenger.
func (s *session) RequestPath() string { return s.path }

// PeerClose implements Messenger.
func (s *session) PeerClose() (Code, string) { return s.peerCode, s.peerText }

// DataReceived implements weir.Protocol.
func (s *session) DataReceived(p []byte) (int, error) {
	if !s.IsReady() {
		return s.upgrade(p)
	}
	s.heard = true
	used := 0
	for used < len(p) && !s.dead {
		if !s.closing {
			if s.inflating && !s.inflate() {
				return used, nil
			}
			if s.Paused() {
				s.Yield()
				return used, nil
			}
		}
		n, c, err := s.parser.next(p[used:])
		used += n
		if errors.Is(err, errMore) {
			break
		}
		if err == nil {
			err = s.piece(&c)
		}
		if err != nil {
			s.failed(err)
		}
		if s.inflating && s.held() {
			return used, nil
		}
	}
	if s.dead {
		return len(p), nil
	}
	return used, nil
}

// held reports whether inflating waits for a turn or for what is above.
func (s *session) held() bool { return s.again.Running() || s.Paused() }

// failed closes with what is wrong: the peer's doing, or a Receiver's error.
func (s *session) failed(err error) {
	code, text := CodeInternal, ""
	if e, ok := errors.AsType[*ProtocolError](err); ok {
		code, text = e.Code, e.Reason
	}
	s.dead = true
	s.sendClose(code, text)
	if s.closing {
		s.finish()
		return
	}
	s.gentle = true
	s.Break(err)
}

// piece takes a part of a frame.
func (s *session) piece(c *piece) error {
	if c.op.control() {
		return s.controlPiece(c)
	}
	if s.ended {
		return badFrame("a frame behind the end of the stream")
	}
	if c.rsv&rsvEnd != 0 {
		s.ended = true
		if !s.closing {
			s.End()
		}
		return nil
	}
	if c.start && c.op != opContinuation {
		s.kind, s.deflated = c.op, c.rsv&rsvDefl != 0
		_, s.whole = s.receiver()
	}
	if s.closing {
		return nil
	}
	if c.start && c.end && c.fin && !s.deflated && s.whole && len(c.payload) <= min(scratchLen, s.MaxMessage) && c.op != opContinuation {
		return s.atOnce(c)
	}
	if c.masked && len(c.payload) > 0 {
		buf := s.scratch.Get().(*[scratchLen]byte)
		defer s.scratch.Put(buf)
		for at := 0; at < len(c.payload); {
			n := min(len(c.payload)-at, scratchLen)
			mask(buf[:], c.payload[at:at+n], c.key, int(c.at&3)+at)
			if err := s.data(buf[:n]); err != nil {
				return err
			}
			at += n
		}
	} else if err := s.data(c.payload); err != nil {
		return err
	}
	if c.end && c.fin {
		return s.messageEnd()
	}
	return nil
}

// atOnce hands over a message that came in one piece.
func (s *session) atOnce(c *piece) error {
	p := c.payload
	if c.masked {
		buf := s.scratch.Get().(*[scratchLen]byte)
		defer s.scratch.Put(buf)
		mask(buf[:], p, c.key, 0)
		p = buf[:len(p)]
	}
	if err := s.checkText(p); err != nil {
		return err
	}
	return s.message(p)
}

func (s *session) checkText(p []byte) error {
	if s.kind == opText && !s.text.add(p) {
		return errText
	}
	return nil
}

var errText error = &ProtocolError{CodeInvalid, "text that is not UTF-8"}

// receiver is what is above, if it takes messages.
func (s *session) receiver() (Receiver, bool) {
	r, ok := s.Upper().Protocol().(Receiver)
	return r, ok
}

// data takes unmasked bytes of a message.
func (s *session) data(p []byte) error {
	if s.closing || s.dead {
		return nil
	}
	if s.deflated {
		if len(s.comp)+len(p) > s.MaxMessage {
			return s.tooBig()
		}
		s.comp = append(s.comp, p...)
		return nil
	}
	if err := s.checkText(p); err != nil {
		return err
	}
	return s.plain(p)
}

// plain takes bytes of a message as its sender meant them.
func (s *session) plain(p []byte) error {
	if !s.whole {
		s.Deliver(p)
		return nil
	}
	if len(s.msg)+len(p) > s.MaxMessage {
		return s.tooBig()
	}
	s.msg = append(s.msg, p...)
	return nil
}

func (s *session) tooBig() error {
	return &ProtocolError{CodeTooBig, "a message over the limit"}
}

// keptMax is the most memory that is kept from one message to the next.
const keptMax = 4 << 10

func (s *session) messageEnd() error {
	if s.closing || s.dead {
		return nil
	}
	if s.deflated && !s.inflating {
		s.beginInflate()
		s.inflate()
		return nil
	}
	msg := s.msg
	if s.msg = s.msg[:0]; cap(msg) > keptMax {
		s.msg = nil
	}
	return s.message(msg)
}

// message ends one, and hands it over where that is wanted.
func (s *session) message(p []byte) error {
	if s.kind == opText && !s.text.whole() {
		return errText
	}
	if !s.whole {
		return nil
	}
	r, ok := s.receiver()
	if !ok {
		return errors.New("the protocol that takes messages was exchanged within one")
	}
	if err := r.MessageReceived(Kind(s.kind), p); err != nil && !s.closing && !s.dead {
		s.dead = true
		s.sendClose(CodeInternal, "")
		s.gentle = true
		s.Fail(err)
	}
	return nil
}

// deflateTail is what a sender leaves off (RFC 7692, 7.2.2), and an empty last
// block so that the reader finds an end.
var deflateTail = [...]byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}

func (s *session) beginInflate() {
	s.comp = append(s.comp, deflateTail[:]...)
	s.source.Reset(s.comp)
	s.inflater = s.readers.Get().(io.Reader)
	_ = s.inflater.(flate.Resetter).Reset(&s.source, nil) // it returns nil
	s.inflating, s.inflated = true, 0
}

// inflateTurn is how many bytes are inflated in one turn.
const inflateTurn = 64 << 10

// inflate hands over what was compressed, as far as it is wanted. It reports
// true at the message's end; before, reading is held.
func (s *session) inflate() bool {
	buf := s.scratch.Get().(*[scratchLen]byte)
	defer s.scratch.Put(buf)
	for n := 0; !s.closing && !s.dead; {
		if !s.whole && (n >= inflateTurn || s.Paused()) {
			s.HoldReading()
			if s.again == nil {
				s.again = s.Below().Loop().NewTimer(s.goOn)
			}
			s.again.Set(0)
			return false
		}
		k, err := s.inflater.Read(buf[:])
		n += k
		s.inflated += k
		switch {
		case s.inflated > s.MaxMessage:
			s.endInflate()
			s.failed(s.tooBig())
			return true
		case !s.inflatedPiece(buf[:k]):
			return true
		case errors.Is(err, io.EOF):
			s.endInflate()
			if err := s.messageEndInflated(); err != nil {
				s.failed(err)
			}
			return true
		case err != nil:
			s.endInflate()
			s.failed(&ProtocolError{CodeInvalid, "a message that does not inflate"})
			return true
		}
	}
	s.endInflate()
	return true
}

func (s *session) inflatedPiece(p []byte) bool {
	err := s.checkText(p)
	if err == nil {
		err = s.plain(p)
	}
	if err != nil {
		s.endInflate()
		s.failed(err)
	}
	return err == nil
}

func (s *session) messageEndInflated() error {
	s.deflated = false
	return s.messageEnd()
}

func (s *session) endInflate() {
	if !s.inflating {
		return
	}
	s.inflating = false
	s.readers.Put(s.inflater)
	s.inflater = nil
	s.source.Reset(nil)
	if s.comp = s.comp[:0]; cap(s.comp) > keptMax {
		s.comp = nil
	}
}

// goOn inflates more, in a turn of its own.
func (s *session) goOn() {
	if s.inflating && s.Paused() {
		return // ResumeReading goes on
	}
	if !s.inflating || s.inflate() {
		s.ReleaseReading()
	}
}

// ResumeReading implements weir.Carrier.
func (s *session) ResumeReading() {
	s.Base.ResumeReading()
	if s.inflating {
		s.again.Set(0)
	}
}

// controlPiece takes a part of a control frame.
func (s *session) controlPiece(c *piece) error {
	if c.start {
		s.nControl = 0
	}
	dst := s.control[s.nControl:]
	if c.masked {
		mask(dst, c.payload, c.key, int(c.at))
	} else {
		copy(dst, c.payload)
	}
	s.nControl += len(c.payload)
	if !c.end {
		return nil
	}
	p := s.control[:s.nControl]
	switch c.op {
	case opPing:
		s.answerPing(p)
	case opClose:
		return s.peerClosed(p)
	default: // a pong that nobody asked for, or everybody
	}
	return nil
}

// peerClosed takes the peer's close. After a clean one what is above may still
// write; it is asked to end by the end of its stream.
func (s *session) peerClosed(p []byte) error {
	code, text, err := parseClose(p)
	if err != nil {
		return err
	}
	s.peerCode, s.peerText = code, text
	s.dead = true
	switch {
	case s.closing:
		s.finish()
	case code.clean():
		s.End()
	default:
		s.sendClose(code, "")
		s.gentle = true
		s.Break(&CloseError{Code: code, Reason: text})
	}
	return nil
}

// EOFReceived implements weir.EOFReceiver.
func (s *session) EOFReceived(unused int) (bool, error) {
	switch {
	case !s.IsReady():
		return s.Base.EOFReceived(unused)
	case s.closing:
		s.finish()
	case !s.dead:
		s.dead = true
		s.Break(&CloseError{Code: CodeAbnormal})
	}
	return true, nil
}

// Close implements weir.Carrier.
func (s *session) Close(abort bool) {
	s.stop(s.keep)
	if abort {
		s.dead = true
		s.stop(s.patience)
		s.Base.Close(!s.gentle)
		return
	}
	s.closing = true
	s.emptyMarks(true)
	if s.closeCode == 0 {
		s.closeCode = CodeNormal
	}
	s.sendClose(s.closeCode, s.closeText)
	if s.peerCode != 0 || s.dead {
		s.finish()
		return
	}
	s.ReleaseReading()
	s.patience = s.Below().Loop().After(s.CloseTimeout, s.finish)
}

// finish closes what is below.
func (s *session) finish() {
	s.dead = true
	s.stop(s.patience)
	s.Base.Close(false)
}

func (s *session) stop(t *weir.Timer) {
	if t != nil {
		t.Stop()
	}
}

// ConnectionLost implements weir.Protocol.
func (s *session) ConnectionLost(err error) {
	for _, t := range [...]*weir.Timer{s.keep, s.patience, s.again} {
		s.stop(t)
	}
	s.endInflate()
	s.endZip()
	if s.peerCode != 0 && s.closeSent {
		err = nil // both have said all they had to
	}
	s.Base.ConnectionLost(err)
}

// keepAlive runs every PingEvery.
func (s *session) keepAlive() {
	switch {
	case s.heard:
		s.heard, s.pinged = false, false
	case s.dead || s.Paused() || s.closing:
		// Nothing can be heard.
	case s.pinged:
		s.Fail(&PongError{After: s.PingEvery})
	default:
		s.pinged = true
		_ = s.Ping(nil)
	}
}

var _ interface {
	Messenger
	weir.Carrier
	weir.WritePauser
	weir.EOFReceiver
} = (*session)(nil)
