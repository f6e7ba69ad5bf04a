package layer

import (
	"bytes"
	"crypto/tls"
	"time"

	"github.com/weir-io/weir"
)

// WithReplyBeforeEOF is for a client whose server may take our close_notify for
// a hang-up and drop its reply, as nginx does: WriteEOF holds the close_notify
// back until the server has been silent for the given time, has ended its
// direction, or is known to go on all the same. A server of this package is
// recognized by its session tickets, and told at once. 0 or less tells every
// server at once, which is the default.
func WithReplyBeforeEOF(silence time.Duration) TLSOption {
	return func(s *tlsShared) { s.silence = silence }
}

// ticketMark is the prefix of our servers' session tickets. A ticket is opaque
// to everyone but its maker (RFC 5077, 4; RFC 8446, 4.6.1), so others ignore
// the mark, and our clients learn before the first reply that this server takes
// a close_notify for the end of one direction.
var ticketMark = []byte("weir: half-close")

// markTickets puts the mark in front of a server's tickets. They are sealed
// with cfg's own keys as usual.
func markTickets(cfg *tls.Config) {
	cfg.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		ticket, err := cfg.EncryptTicket(cs, s)
		if err != nil {
			return nil, err
		}
		return append(bytes.Clone(ticketMark), ticket...), nil
	}
	cfg.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		sealed, ok := bytes.CutPrefix(ticket, ticketMark)
		if !ok {
			return nil, nil
		}
		return cfg.DecryptTicket(sealed, cs)
	}
}

// marked reports whether a session comes from a server that marks its tickets.
func marked(s *tls.ClientSessionState) bool {
	if s == nil {
		return false
	}
	ticket, _, err := s.ResumptionState()
	return err == nil && bytes.HasPrefix(ticket, ticketMark)
}

// lateEOF is a client's close_notify that is held back until the reply has
// come.
//
//	WriteEOF ──▶ held ──▶ sent: the server is known to go on, was silent, or we close
type lateEOF struct {
	tls.ClientSessionCache // shared by the connections of the layer
	conn                   *tlsConn
	resumes                bool // the session that was offered is marked
	known                  bool // a ticket of this connection is marked
	held                   bool
	since                  time.Time // when the last bytes from the server came
	timer                  *weir.Timer
}

var _ tls.ClientSessionCache = (*lateEOF)(nil)

// watchTickets makes the configuration of one connection, which inspects the
// connection's tickets.
func (c *tlsConn) watchTickets() *tls.Config {
	cfg := c.shared.cfg.Clone()
	c.late = &lateEOF{ClientSessionCache: cfg.ClientSessionCache, conn: c}
	cfg.ClientSessionCache = c.late
	return cfg
}

func (e *lateEOF) Get(key string) (*tls.ClientSessionState, bool) {
	s, ok := e.ClientSessionCache.Get(key)
	e.resumes = ok && marked(s)
	return s, ok
}

func (e *lateEOF) Put(key string, s *tls.ClientSessionState) {
	e.known = e.known || marked(s)
	e.ClientSessionCache.Put(key, s)
}

// hold holds the close_notify back; it returns false if there is no reason to.
func (e *lateEOF) hold() bool {
	if e.held || e.goesOn() {
		return e.held
	}
	loop := e.conn.below.Loop()
	e.held, e.since = true, loop.Now()
	e.timer = loop.After(e.conn.shared.silence, e.look)
	return true
}

// goesOn reports whether the server is known to reply after our close_notify.
func (e *lateEOF) goesOn() bool {
	return e.known || e.resumes && e.conn.conn.ConnectionState().DidResume
}

// heard records that the server has sent something.
func (e *lateEOF) heard() {
	if !e.held {
		return
	}
	if e.since = e.conn.below.Loop().Now(); e.goesOn() {
		e.release()
	}
}

// look sends the close_notify if the server has been silent for long enough.
func (e *lateEOF) look() {
	loop := e.conn.below.Loop()
	if left := e.conn.shared.silence - loop.Now().Sub(e.since); left > 0 {
		e.timer = loop.After(left, e.look)
		return
	}
	e.release()
}

func (e *lateEOF) release() {
	e.drop()
	e.conn.notify()
}

// drop forgets about the close_notify: the connection ends.
func (e *lateEOF) drop() {
	e.held = false
	if e.timer != nil {
		e.timer.Stop()
	}
}
