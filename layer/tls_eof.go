package layer

import (
	"bytes"
	"crypto/tls"
	"time"

	"github.com/weir-io/weir"
)

// WithReplyBeforeEOF is for a client whose server may take our close_notify for a
// hang-up and drop its reply, as nginx does: WriteEOF keeps it back until the
// server has said nothing for so long, has ended, or is known to go on all the
// same. A server of this package is known by its session tickets, and told at
// once. 0 or less tells every server at once, which is the default.
func WithReplyBeforeEOF(silence time.Duration) TLSOption {
	return func(s *tlsShared) { s.silence = silence }
}

// ticketMark stands in front of the session tickets of our servers. A ticket is
// opaque to all but who made it (RFC 5077, 4; RFC 8446, 4.6.1), so others pass it
// by, and our clients learn before the first reply that this server takes a
// close_notify for the end of one direction.
var ticketMark = []byte("weir: half-close")

// markTickets puts the mark in front of a server's tickets. They are sealed by
// cfg's own keys as ever.
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

// marked reports whether a session is one of a server that marks its tickets.
func marked(s *tls.ClientSessionState) bool {
	if s == nil {
		return false
	}
	ticket, _, err := s.ResumptionState()
	return err == nil && bytes.HasPrefix(ticket, ticketMark)
}

// lateEOF is a client's close_notify that waits for the reply.
//
//	WriteEOF ──▶ held ──▶ sent: the server is known to go on, was silent, or we close
type lateEOF struct {
	tls.ClientSessionCache // shared by the connections of the layer
	conn                   *tlsConn
	resumes                bool // the session that was offered is marked
	known                  bool // a ticket of this connection is
	held                   bool
	since                  time.Time // of the last bytes from the server
	timer                  *weir.Timer
}

// watchTickets makes the configuration of one connection, whose tickets it
// looks at.
func (c *tlsConn) watchTickets() *tls.Config {
	cfg := c.shared.cfg.Clone()
	c.late = &lateEOF{ClientSessionCache: cfg.ClientSessionCache, conn: c}
	cfg.ClientSessionCache = c.late
	return cfg
}

// Get implements tls.ClientSessionCache.
func (e *lateEOF) Get(key string) (*tls.ClientSessionState, bool) {
	s, ok := e.ClientSessionCache.Get(key)
	e.resumes = ok && marked(s)
	return s, ok
}

// Put implements tls.ClientSessionCache.
func (e *lateEOF) Put(key string, s *tls.ClientSessionState) {
	e.known = e.known || marked(s)
	e.ClientSessionCache.Put(key, s)
}

// hold keeps the close_notify back; it reports false if there is no reason to.
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

// heard notes that the server has said something.
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

// drop forgets about it: the connection ends.
func (e *lateEOF) drop() {
	e.held = false
	if e.timer != nil {
		e.timer.Stop()
	}
}
