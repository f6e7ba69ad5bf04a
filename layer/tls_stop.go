package layer

import (
	"errors"

	"github.com/weir-io/weir"
)

// ErrNoTLS is returned by StopTLS where there is no TLS to end.
var ErrNoTLS = errors.New("layer: no TLS to end on this transport")

// StopTLS ends TLS on a connection that goes on in the clear; t is the transport
// of a TLS layer. What was written to t still leaves, then a close_notify. What
// the peer sends until its own close_notify still reaches t's protocol; when that
// has come, t is lost, with nil, and p gets the transport below in its
// ConnectionMade, with whatever the peer sent behind its close_notify. A peer
// that does not answer within the layer's close timeout loses the connection,
// with an *Error of ErrTimeout, and p is never called; nor is it if t is closed
// or lost before.
//
// The peer calls it, too: when it has agreed to, or in its EOFReceived. It
// returns weir.ErrClosed if t is closed, and ErrNoTLS if t is of no TLS layer,
// or is being stopped already.
func StopTLS(t weir.Transport, p weir.Protocol) error {
	c, ok := weir.As[*tlsConn](t)
	if !ok || c.feed == nil || c.feed.Transport() != t {
		return ErrNoTLS
	}
	if c.closing || c.over {
		return weir.ErrClosed
	}
	if c.stopFor != nil {
		return ErrNoTLS
	}
	c.stopFor = p
	if err := t.WriteEOF(); err != nil {
		c.stopFor = nil
		return err
	}
	if !c.peerDone {
		c.timer = c.below.Loop().After(c.shared.closeTimeout, func() { c.Fail(ErrTimeout) })
	}
	return nil
}

// detach hands the transport below to whoever goes on in the clear, after the
// transport above has heard that it is lost.
func (c *tlsConn) detach() {
	p, below := c.stopFor, c.below
	c.stopFor = nil
	c.over = true
	c.stopTimer()
	c.Lost(nil)
	below.Loop().Soon(func() {
		if below.Protocol() == nil {
			return // lost meanwhile
		}
		below.SetProtocol(p)
		p.ConnectionMade(below)
		below.ResumeReading()
	})
}
