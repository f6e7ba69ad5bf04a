package layer

import (
	"crypto/tls"
	"errors"
	"io"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/peer"
)

// tlsConn is the TLS of one connection.
//
//	            first bytes, or a client's turn             done
//	connected ──────────────────────────────────▶ handshake ────▶ open
//	                                                  │             │ close_notify sent, received
//	                                  failed, timeout │             ▼
//	                                                  └──────────▶ closing ──▶ the transport below is closed
//
// During the handshake crypto/tls needs a connection that blocks: see
// handshake. Afterwards its Read is called with exactly what has arrived. It is
// never given more than the record in progress, so that what follows a
// close_notify stays with the transport below.
type tlsConn struct {
	Base
	shared *tlsShared
	conn   *tls.Conn // nil before the handshake begins
	hs     *handshake
	in     []byte // lent: what has arrived and crypto/tls has not taken
	record recordEnd
	held   hold // why reading below is paused

	late    *lateEOF      // of a client with WithReplyBeforeEOF, otherwise nil
	stopFor weir.Protocol // the protocol that goes on in the clear; nil: none
	joined  *tlsJoined    // where records are joined; nil: they leave one by one
	skip    int           // bytes at the front of what comes next that a worker has used already
	control int           // bytes written in answer to the peer's since the transport below was blocked

	reading  bool // inside conn.Read
	broken   bool // crypto/tls has found a bad record, and does not write any more
	notified bool // our close_notify was sent
	peerDone bool // the peer's close_notify was received
	eof      bool // the stream below has ended
	closing  bool // Close was called
	flushed  bool // and everything that was written has left
	gentle   bool // closing because of a failure, which an alert reports to the peer
	over     bool // the transport below was told to close
}

var (
	_ weir.Protocol    = (*tlsConn)(nil)
	_ weir.EOFReceiver = (*tlsConn)(nil)
	_ weir.WriteFailer = (*tlsConn)(nil)
	_ weir.WritePauser = (*tlsConn)(nil)
	_ weir.Carrier     = (*tlsConn)(nil)
	_ weir.Resetter    = (*tlsConn)(nil)
)

// hold is a set of reasons to pause reading below.
type hold uint8

const (
	holdUpper   hold = 1 << iota // the transport above asked for it
	holdTurn                     // the handshake waits for its turn
	holdControl                  // the peer makes us answer but does not read
	holdEnd                      // the peer's close_notify was received: what follows is not ours
)

// controlMax is how many bytes the peer can make us buffer with messages that
// need an answer (key updates) while it reads nothing.
const controlMax = 16 << 10

func (c *tlsConn) hold(why hold) {
	if c.held == 0 {
		c.below.PauseReading()
	}
	c.held |= why
}

func (c *tlsConn) release(why hold) {
	if c.held == 0 {
		return
	}
	if c.held &^= why; c.held == 0 {
		c.below.ResumeReading()
	}
}

func (c *tlsConn) ConnectionMade(t weir.Transport) {
	c.Begin(t)
	c.SetDeadline(c.shared.handshakeTimeout)
	c.hs = &handshake{gate: c.shared.gate(t.Loop()), conn: c}
	if !c.shared.client {
		c.hs.peer = peer.Of(t.RemoteAddr(), peer.PrefixV6)
		c.hs.gate.arrive(c)
	} else if c.hs.gate.admit(c, nil) {
		c.step(nil)
	}
}

func (c *tlsConn) DataReceived(p []byte) (int, error) {
	if c.hs != nil {
		c.Heard()
		return c.handshakeData(p), nil
	}
	skip := c.skip
	c.skip = 0
	c.in = p[skip:]
	c.pump()
	return skip + c.taken(p[skip:]), nil
}

// taken returns how much of p crypto/tls took, at the end of the call that lent
// p.
func (c *tlsConn) taken(p []byte) int {
	n := len(p) - len(c.in)
	c.in = nil
	if c.over || c.failed {
		return len(p)
	}
	return n
}

// pump decrypts what has arrived. Each record is one Deliver, however the bytes
// arrived (behaviour 52).
func (c *tlsConn) pump() {
	buf := c.shared.bufs.Get().(*tlsBuffer)
	for len(c.in) > 0 && c.held&(holdEnd|holdControl) == 0 && !c.over {
		err := c.decrypt(buf)
		c.broken = err != nil && !errors.Is(err, io.EOF)
		c.DeliverMany(buf.pieces)
		if err != nil {
			c.readEnded(err)
			break
		}
	}
	c.shared.bufs.Put(buf)
	if c.late != nil && !c.over {
		c.late.heard()
	}
}

// decrypt turns what has arrived into pieces, one for each record, as far as
// buf has room. An error ends reading.
func (c *tlsConn) decrypt(buf *tlsBuffer) error {
	buf.pieces = buf.pieces[:0]
	free := buf.b[:]
	for len(c.in) > 0 && len(free) > pieceMax && len(buf.pieces) < cap(buf.pieces) && c.held&holdControl == 0 {
		c.reading = true
		n, err := c.conn.Read(free)
		c.reading = false
		if n > 0 {
			buf.pieces = append(buf.pieces, free[:n])
			free = free[n:]
		}
		if err != nil && !isAgain(err) {
			return err
		}
	}
	return nil
}

// readEnded handles the error with which crypto/tls ended reading.
func (c *tlsConn) readEnded(err error) {
	if !errors.Is(err, io.EOF) {
		c.gentle = true
		c.Fail(c.reason(err))
		return
	}
	c.peerDone = true
	c.hold(holdEnd)
	if c.closing {
		c.closeBelow()
		return
	}
	c.End(nil)
}

// reason calls the function reason with the time that crypto/tls goes by.
func (c *tlsConn) reason(err error) error {
	at := c.below.Loop().Now()
	if t := c.shared.cfg.Time; t != nil {
		at = t()
	}
	return reason(err, at)
}

func (c *tlsConn) EOFReceived(int) (bool, error) {
	c.eof = true
	switch {
	case c.hs != nil:
		c.handshakeFailed(ErrEarlyEnd)
	case c.closing:
		c.closeBelow()
	case !c.peerDone && c.feed != nil:
		c.gentle = true
		c.feed.End(&Error{Layer: c.name, Err: &TruncatedError{}})
	}
	return true, nil
}

func (c *tlsConn) ConnectionLost(err error) {
	c.over = true
	c.stopTimer()
	if c.late != nil {
		c.late.drop()
	}
	if c.hs != nil {
		c.hs.end(c)
	}
	if c.closing && c.flushed {
		// The peer did not wait for our close_notify. Nothing is missing.
		err = nil
	}
	c.Lost(err)
}

// WriteFailed implements weir.WriteFailer. During the handshake the peer's
// alert may be waiting to be read, and says more.
func (c *tlsConn) WriteFailed(err error) {
	switch {
	case c.hs != nil || c.over:
	case c.closing && c.flushed:
		c.closeBelow() // the peer did not wait for our close_notify
	case c.closing:
		c.over = true
		c.below.Abort()
		c.Lost(err)
	default:
		c.Base.WriteFailed(err)
		c.release(holdControl) // messages that need an answer are read, but not answered
	}
}

func (c *tlsConn) PauseWriting() { c.blocked = true }

func (c *tlsConn) ResumeWriting() {
	c.control = 0
	c.release(holdControl)
	c.Base.ResumeWriting()
}

// pieceMax is how many bytes a record holds. Four records are encrypted before
// we check whether the transport below has asked for a pause.
const pieceMax = 16 << 10

func (c *tlsConn) Write(bufs [][]byte) (int, error) {
	total := 0
	for _, p := range bufs {
		for len(p) > 0 {
			if c.blocked || c.over || c.broken {
				return total, nil
			}
			n, err := c.writeJoined(p[:min(len(p), 4*pieceMax)])
			total += n
			p = p[n:]
			if err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

// writeJoined encrypts p, which makes at most four records, and passes the
// records down in one write.
func (c *tlsConn) writeJoined(p []byte) (int, error) {
	if len(p) <= pieceMax {
		return c.conn.Write(p)
	}
	j := c.shared.joins.Get().(*tlsJoined)
	c.joined = j
	n, err := c.conn.Write(p)
	c.joined = nil
	(*tlsWire)(c).leave(j)
	c.shared.joins.Put(j)
	return n, err
}

// CanCloseWrite implements weir.Carrier. TLS 1.2 asks the receiver of a
// close_notify to drop what it still had to send (RFC 5246, 7.2.1), and 1.3
// does not. In practice no one makes a difference: a server that goes on does
// so with both versions, one that hangs up does so with both, and a peer that
// answers with its own close_notify ends just as it would have on our Close.
func (c *tlsConn) CanCloseWrite() bool { return true }

func (c *tlsConn) CloseWrite() error {
	if c.stopFor == nil && (c.shared.silent || c.late != nil && c.late.hold()) {
		return nil
	}
	c.notify()
	return nil
}

// notify sends close_notify, once.
func (c *tlsConn) notify() {
	if !c.notified && !c.over {
		c.notified = true
		if c.late != nil {
			c.late.drop()
		}
		_ = c.conn.CloseWrite() // the wire takes everything; a loss is reported by ConnectionLost
	}
}

func (c *tlsConn) PauseReading() { c.hold(holdUpper) }

func (c *tlsConn) ResumeReading() { c.release(holdUpper) }

// Close implements weir.Carrier. Without abort it sends a close_notify and
// waits for a moment for the peer's.
func (c *tlsConn) Close(abort bool) {
	switch {
	case abort && c.gentle && !c.over:
		c.closeBelow()
	case abort:
		c.over = true
		c.below.Abort()
	default:
		c.closing = true
		if !c.peerDone {
			c.stopFor = nil
		}
		c.notify()
		if c.peerDone && c.stopFor != nil {
			c.detach()
			return
		}
		if c.peerDone || c.eof {
			c.closeBelow()
			return
		}
		c.below.SetProtocol(closingTLS{c})
		if c.held != 0 {
			c.below.PauseReading() // SetProtocol has ended the pause
		}
		if c.below.Buffered() == 0 {
			c.flushed = true
		}
		c.release(holdUpper)
		c.stopTimer()
		c.timer = c.below.Loop().After(c.shared.closeTimeout, c.closeBelow)
	}
}

// Reset implements weir.Resetter. It sends no close_notify, which would make
// this a clean end.
func (c *tlsConn) Reset() {
	c.closing, c.over = true, true
	c.stopTimer()
	if c.late != nil {
		c.late.drop()
	}
	c.Base.Reset()
}

func (c *tlsConn) closeBelow() {
	c.over = true
	_ = c.below.Close() // always nil
}

// closingTLS is a tlsConn that waits for the peer's close_notify.
type closingTLS struct{ *tlsConn }

var _ weir.Drainer = closingTLS{}

func (c closingTLS) WriteDrained() { c.flushed = true }

// ConnectionState returns the state of the TLS connection, for weir.As.
func (c *tlsConn) ConnectionState() tls.ConnectionState { return c.conn.ConnectionState() }
