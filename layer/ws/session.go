package ws

import (
	"errors"
	"time"

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
	begun                     time.Time // the upgrade
	looked                    int       // bytes of a head that were searched
	refused                   *refused  // a refusing answer, while its body is coming
	ends, deflates            bool      // agreed on

	// Reading. kind and the next three describe the message that is coming.
	kind     opcode
	deflated bool
	whole    bool // it is kept for a Receiver
	text     utf8Check
	msg      []byte
	inflater *inflater // of a message that is compressed
	packed   int64     // how long it is so far, compressed
	inflated int       // and inflated
	last     bool      // all of it has come
	held     bool      // inflating waits for a turn, or for what is above
	comp     []byte    // the compressed bytes that wait meanwhile
	turned   int       // bytes inflated in this turn
	control  [controlMax]byte
	nControl int

	again *weir.Timer // goes on inflating

	// Writing.
	hdr     [headerMax]byte
	key     [4]byte
	vec     [2][]byte
	marks   marks
	pending int       // bytes that marks account for
	pair    [2][]byte // SendMessage's
	letter  []byte    // the beginning of a letter, of text
	zip     *zipper
	pong    []byte // to be sent once there is room

	// The end.
	closing   bool // Close was called
	closeSent bool
	closeCode Code
	closeText string
	peerCode  Code // 0: no close has come
	peerText  string
	ended     bool // the peer ended its direction
	dead      bool // nothing more is read
	gentle    bool // an abort must not drop the close that says why
	patience  *weir.Timer
	answering bool // the peer's close is answered once what was written has left

	// After WriteEOF, if the peer cannot be told of it.
	eof      bool
	moved    time.Time // when something last came
	eofTimer *weir.Timer

	slow *weir.Timer // the deadline of a message that is kept

	keep          *weir.Timer
	heard, pinged bool
}

func (s *session) Subprotocol() string { return s.subprotocol }

func (s *session) RequestPath() string { return s.path }

func (s *session) PeerClose() (Code, string) { return s.peerCode, s.peerText }

func (s *session) DataReceived(p []byte) (int, error) {
	if !s.IsReady() {
		s.Heard()
		return s.upgrade(p)
	}
	s.heard, s.turned = true, 0
	used := 0
	for used < len(p) && !s.dead {
		if !s.closing {
			if s.held && !s.resumeInflate() {
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
		if s.held {
			break
		}
	}
	if s.dead {
		return len(p), nil
	}
	s.watchMessage()
	return used, nil
}

// watchMessage sets the deadline of a message that is being kept and has not
// ended, or cancels it.
func (s *session) watchMessage() {
	keeps := (s.parser.inside || s.parser.open && !s.parser.h.op.control()) && (s.whole || s.deflated) && !s.closing
	switch {
	case !keeps:
		s.stop(s.slow)
	case s.MessageTimeout < 0 || s.slow != nil && s.slow.Running():
	default:
		if s.slow == nil {
			s.slow = s.Below().Loop().NewTimer(s.tooSlow)
		}
		s.slow.Set(s.MessageTimeout)
	}
}

// tooSlow ends a connection whose message did not end in time.
func (s *session) tooSlow() {
	switch {
	case s.dead || s.closing:
	case s.Paused() || s.held:
		s.slow.Set(s.MessageTimeout) // the message waits for us
	default:
		s.dead = true
		s.sendClose(CodePolicy, "the message took too long")
		s.gentle = true
		s.End(&MessageError{After: s.MessageTimeout})
	}
}

// failed closes the connection because of err: something the peer did, or a
// Receiver's error.
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
	s.End(err)
}

// piece takes a part of a frame.
func (s *session) piece(c *piece) error {
	if c.op.control() {
		return s.controlPiece(c)
	}
	if s.ended {
		return badFrame("a frame after the end of the stream")
	}
	if c.rsv&rsvEnd != 0 {
		s.ended = true
		if !s.closing {
			s.End(nil)
		}
		return nil
	}
	if c.start && c.op != opContinuation {
		s.kind, s.deflated = c.op, c.rsv&rsvDefl != 0
		s.stop(s.slow) // the time of this message begins
		_, s.whole = s.receiver()
	}
	if s.closing {
		return nil
	}
	if c.start && s.deflated && c.op != opContinuation {
		s.beginInflate()
	}
	if c.start {
		if err := s.announced(c.length); err != nil {
			return err
		}
	}
	if s.eof {
		s.moved = s.Below().Loop().Now()
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

// atOnce hands over a message that has come in one piece.
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

// receiver returns what is above, if it takes messages.
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
		if s.packed += int64(len(p)); s.packed > s.compMax() {
			return s.tooBig()
		}
		return s.inflateOrKeep(p)
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

// announced refuses a message as soon as the header of a frame shows that it is
// too long. A compressed message may be longer than its content, by what
// deflate needs for bytes that do not compress.
func (s *session) announced(n int64) error {
	switch {
	case s.deflated && n > s.compMax()-s.packed, !s.deflated && s.whole && n > int64(s.MaxMessage-len(s.msg)):
		return s.tooBig()
	}
	return nil
}

// compMax is how long a message may be in compressed form.
func (s *session) compMax() int64 { return int64(s.MaxMessage) + int64(s.MaxMessage)/8 + 1024 }

func (s *session) tooBig() error {
	return &ProtocolError{CodeTooBig, "a message over the limit"}
}

// keptMax is the most memory that is kept from one message to the next.
const keptMax = 4 << 10

func (s *session) messageEnd() error {
	if s.closing || s.dead {
		return nil
	}
	if s.deflated {
		s.last = true
		if err := s.inflateOrKeep(deflateTail[:]); err != nil || s.held {
			return err
		}
		return s.inflatedEnd()
	}
	msg := s.msg
	if s.msg = s.msg[:0]; cap(msg) > keptMax {
		s.msg = nil
	}
	return s.message(msg)
}

// message ends a message, and hands it over if messages are wanted.
func (s *session) message(p []byte) error {
	if s.kind == opText && !s.text.whole() {
		return errText
	}
	if !s.whole {
		return nil
	}
	r, ok := s.receiver()
	if !ok {
		return errors.New("SetProtocol was called in the middle of a message")
	}
	if err := r.MessageReceived(Kind(s.kind), p); err != nil && !s.closing && !s.dead {
		s.dead = true
		s.sendClose(CodeInternal, "")
		s.gentle = true
		s.Fail(err)
	}
	return nil
}

// deflateTail is what a sender leaves out (RFC 7692, 7.2.2), followed by an
// empty last block so that the reader finds an end.
var deflateTail = [...]byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}

func (s *session) beginInflate() {
	if s.inflater == nil {
		s.inflater = s.inflaters.Get().(*inflater)
	}
	s.inflater.reset()
	s.packed, s.inflated, s.last = 0, 0, false
}

// inflateTurn is how many bytes are inflated in one turn.
const inflateTurn = 64 << 10

// inflateOrKeep takes compressed bytes as they come. What is not wanted yet is
// kept. Reading is held meanwhile, so only the rest of what has already come is
// kept.
func (s *session) inflateOrKeep(p []byte) error {
	if !s.held {
		n, err := s.inflate(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	s.comp = append(s.comp, p...)
	return nil
}

// inflate hands over what compressed bytes contain, as far as it is wanted, and
// returns how many of them it used. If it does not use all of them, held is
// set.
func (s *session) inflate(p []byte) (used int, err error) {
	for !s.closing && !s.dead {
		if s.turned >= inflateTurn || s.Paused() {
			s.held = true
			s.HoldReading()
			if s.again == nil {
				s.again = s.Below().Loop().NewTimer(s.goOn)
			}
			s.again.Set(0)
			return used, nil
		}
		n, out, err := s.inflater.next(p[used:])
		used += n
		if err != nil {
			return used, errInflate
		}
		if len(out) == 0 {
			return used, nil
		}
		s.turned += len(out)
		if s.inflated += len(out); s.inflated > s.MaxMessage {
			return used, s.tooBig()
		}
		if err := s.checkText(out); err != nil {
			return used, err
		}
		if err := s.plain(out); err != nil {
			return used, err
		}
	}
	return len(p), nil
}

var errInflate error = &ProtocolError{CodeInvalid, "a message that cannot be decompressed"}

// resumeInflate goes on with what was kept. It returns false if inflating is
// held again.
func (s *session) resumeInflate() bool {
	s.held = false
	n, err := s.inflate(s.comp)
	s.comp = s.comp[:copy(s.comp, s.comp[n:])]
	switch {
	case s.held && err == nil:
		return false
	case err == nil && s.last && !s.closing && !s.dead:
		err = s.inflatedEnd()
	}
	if len(s.comp) == 0 && cap(s.comp) > keptMax {
		s.comp = nil
	}
	if err != nil {
		s.failed(err)
	}
	return true
}

// inflatedEnd ends a message that was compressed.
func (s *session) inflatedEnd() error {
	if !s.inflater.done() {
		return errInflate
	}
	s.endInflate()
	s.deflated = false
	return s.messageEnd()
}

func (s *session) endInflate() {
	if s.inflater != nil {
		s.inflaters.Put(s.inflater)
		s.inflater = nil
	}
}

// goOn inflates more in another turn.
func (s *session) goOn() {
	if s.held && s.Paused() {
		return // ResumeReading goes on
	}
	s.turned = 0
	if !s.held || s.resumeInflate() {
		s.ReleaseReading()
	}
}

func (s *session) ResumeReading() {
	s.Base.ResumeReading()
	if s.held {
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
	default: // a pong, whether it was asked for or not
	}
	return nil
}

// peerClosed handles the peer's close. A clean one is answered once what was
// written before has left; for what is above, it is the end of the stream.
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
		s.End(nil)
		s.answerClose()
	default:
		s.sendClose(code, "")
		s.gentle = true
		s.End(&CloseError{Code: code, Reason: text})
	}
	return nil
}

// answerClose answers the peer's close, after what was written.
func (s *session) answerClose() {
	if s.closing {
		return
	}
	if s.closeSent || s.Waiting() == 0 {
		s.bothClosed()
		return
	}
	s.answering = true
	s.patience = s.Below().Loop().After(s.CloseTimeout, func() {
		if !s.closing && s.Waiting() > 0 {
			s.Fail(errNotTaken)
			return
		}
		s.bothClosed()
	})
}

// errNotTaken is the reason when the peer closed the connection while we were
// still sending, and took no more of that.
var errNotTaken = errors.New("closed by the peer before everything written was sent")

// bothClosed ends a connection that the peer has closed; it is thereby closed
// on our side, too.
func (s *session) bothClosed() {
	s.answering = false
	if !s.closing {
		s.sendClose(s.peerCode, "")
	}
	s.finish()
}

// awaitSilence closes a connection, some time after WriteEOF, once nothing
// moves on it any more: the peer cannot be told of the end of one direction.
func (s *session) awaitSilence() {
	loop := s.Below().Loop()
	s.eof, s.moved = true, loop.Now()
	s.eofTimer = loop.NewTimer(s.lookForSilence)
	s.eofTimer.Set(s.EOFWait)
}

func (s *session) lookForSilence() {
	now := s.Below().Loop().Now()
	if s.dead || s.closing {
		return
	}
	if s.Paused() || s.held || s.Below().Buffered() > 0 {
		s.moved = now // the silence is not the peer's
	}
	wait := s.EOFWait
	if s.closeSent {
		wait = max(wait, s.CloseTimeout)
	}
	if left := wait - now.Sub(s.moved); left > 0 {
		s.eofTimer.Set(left)
		return
	}
	if !s.closeSent {
		s.sendClose(CodeNormal, "")
		s.moved = now
		s.eofTimer.Set(max(s.EOFWait, s.CloseTimeout))
		return
	}
	s.dead = true
	s.End(&CloseError{Code: CodeAbnormal})
}

func (s *session) EOFReceived(unused int) (bool, error) {
	switch {
	case !s.IsReady() && s.refused != nil:
		s.Fail(s.refused.error())
		return false, nil
	case !s.IsReady():
		return s.Base.EOFReceived(unused)
	case s.closing:
		s.finish()
	case !s.dead && s.closeSent:
		s.End(nil) // the peer has taken our close, but has not answered with one
		s.finish()
	case !s.dead:
		s.dead = true
		s.End(&CloseError{Code: CodeAbnormal})
	}
	return true, nil
}

func (s *session) Close(abort bool) {
	s.stop(s.keep)
	if abort {
		s.dead = true
		s.stop(s.patience)
		s.Base.Close(!s.gentle)
		return
	}
	s.closing = true
	s.stop(s.eofTimer)
	if len(s.letter) > 0 {
		s.closeCode, s.closeText = CodeInvalid, ""
	}
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

// Reset implements weir.Resetter. It sends no Close frame, which would make
// this a clean end.
func (s *session) Reset() {
	s.dead, s.closing, s.closeSent = true, true, true
	for _, t := range [...]*weir.Timer{s.keep, s.patience, s.again, s.eofTimer} {
		s.stop(t)
	}
	s.ReleaseReading()
	s.Base.Reset()
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

func (s *session) ConnectionLost(err error) {
	for _, t := range [...]*weir.Timer{s.keep, s.patience, s.again, s.eofTimer, s.slow} {
		s.stop(t)
	}
	s.endInflate()
	s.endZip()
	switch {
	case !s.IsReady() && s.refused != nil:
		err = s.refused.error() // whatever ended the stream after it
	case s.peerCode != 0 && s.closeSent:
		err = nil // both have sent everything they had to send
	}
	s.Base.ConnectionLost(err)
}

// keepAlive runs every PingEvery.
func (s *session) keepAlive() {
	switch {
	case s.heard:
		s.heard, s.pinged = false, false
	case s.dead || s.Paused() || s.closing:
		// Nothing can arrive.
	case s.pinged:
		s.Fail(&PongError{After: s.PingEvery})
	default:
		s.pinged = true
		_ = s.Ping(nil)
	}
}

var (
	_ Messenger        = (*session)(nil)
	_ weir.Carrier     = (*session)(nil)
	_ weir.WritePauser = (*session)(nil)
	_ weir.Protocol    = (*session)(nil)
	_ weir.EOFReceiver = (*session)(nil)
	_ weir.Resetter    = (*session)(nil)
)

var _ interface {
	Messenger
	weir.Carrier
	weir.WritePauser
	weir.EOFReceiver
} = (*session)(nil)
