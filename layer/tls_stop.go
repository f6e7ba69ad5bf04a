package layer

import (
	"errors"

	"github.com/weir-io/weir"
)

// ErrNoTLS is returned by StopTLS if there is no TLS to end.
var ErrNoTLS = errors.New("layer: no TLS to end on this transport")

// StopTLS ends TLS on a connection that goes on in the clear; t is the
// transport of a TLS layer. What was written to t still leaves, followed by a
// close_notify. What the peer sends before its own close_notify still reaches
// t's protocol. When that close_notify has come, t is lost with a nil error,
// and p gets the transport below in its ConnectionMade, with whatever the peer
// sent after its close_notify. If the peer does not answer within the layer's
// close timeout, the connection is lost with an *Error of ErrTimeout, and p is
// never called; nor is it if t is closed or lost before.
//
// The peer must call StopTLS, too: when it has agreed to end TLS, or in its
// EOFReceived. StopTLS returns weir.ErrClosed if t is closed, and ErrNoTLS if t
// does not belong to a TLS layer, or its TLS is already being ended.
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

// detach hands the transport below to the protocol that goes on in the clear,
// after the transport above has been told that it is lost.
func (c *tlsConn) detach() {
	p, below := c.stopFor, c.below
	c.stopFor = nil
	c.over = true
	c.stopTimer()
	c.Lost(nil)
	below.Loop().Soon(func() {
		if below.Protocol() == nil {
			return // it was lost meanwhile
		}
		below.SetProtocol(p)
		p.ConnectionMade(below)
		below.ResumeReading()
	})
}
