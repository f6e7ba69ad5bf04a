package layer

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/weir-io/weir"
)

// ErrStalled is the cause when a handshake made no progress and was ended in
// favour of others that waited: see WithHandshakeCap.
var ErrStalled = errors.New("the peer is silent during its handshake, while others wait")

// ErrCrowded is the cause when a server's handshake was ended because all
// places were taken, most of them by connections from its peer's address, and a
// connection from another address wanted one: see WithHandshakeCap.
var ErrCrowded = errors.New("its address has most of the handshakes in progress, and another address needs a place")

// errGoexit is the cause when a function of the configuration ended its
// goroutine.
var errGoexit = errors.New("a function of the TLS configuration called runtime.Goexit")

// handshake holds what a connection needs only until it is open. crypto/tls
// needs a connection that blocks, and runs on a goroutine of its own. That
// goroutine and the loop's take turns: while one of them works with the
// connection, the other does not.
//
//	loop       ── resume true ──▶ crypto/tls computes, until it wants bytes or is done
//	           ◀──── yielded ────
//	the end    ── resume false ─▶ its Read fails, and it returns
//
// The loop waits for it, unless workers were asked for: then the loop serves
// other connections, and a post tells it when to go on.
//
// An iter.Pull would do the same, at less cost on a locked thread, but the
// runtime ends the program if an iter.Pull is resumed or stopped anywhere but
// where it was made, and a loop may be closed by a different goroutine from the
// one that ran it.
type handshake struct {
	gate          *gate
	local, remote net.Addr
	resume        chan bool     // nil before it begins
	yielded       chan struct{} // closed when crypto/tls has returned
	tell          func()        // tells the loop that it has yielded; nil if there are no workers
	out           []byte        // written by crypto/tls, to be sent when it has yielded
	buf           []byte        // the bytes that a worker was given
	last          recordHead    // what crypto/tls has read last
	err           error
	light         bool // what is left takes little time: see isLight
	here          bool // the loop waits for the step in progress, although there are workers
	done          bool // crypto/tls returned
	running       bool // a worker has it
	ended         bool // it is not needed any more
	mayStep       bool // its turn has come
	queued        bool // it waits for its turn or for a place
	whole         bool // a record ends in the bytes of its last step
	conn          *tlsConn
	peer          netip.Prefix // the address it counts for at the gate
	holder        *holder      // of one of the gate's places; nil: it has none
	line          *line        // that it waits in
	moved         time.Time    // when it got its place, or its latest whole record after that
	links         [hsLists]hsLinks
}

// handshakeData continues the handshake with what has arrived, and returns how
// much of it was used. What a worker has used comes from below once more.
func (c *tlsConn) handshakeData(p []byte) int {
	if c.hs.running {
		return 0
	}
	skip := c.skip
	c.skip = 0
	if p = p[skip:]; len(p) == 0 || !c.hs.gate.admit(c, p) {
		return skip // the rest is offered again when its turn comes
	}
	return skip + c.step(p)
}

// step lets crypto/tls go on with p and returns how much of it was used:
// nothing so far, if a worker takes the step.
func (c *tlsConn) step(p []byte) int {
	h := c.hs
	if h.resume == nil {
		c.startHandshake()
	}
	if h.tell != nil && !h.here {
		h.running = true
		h.buf = append(h.buf[:0], p...)
		c.in = h.buf
		c.hold(holdTurn)
		h.resume <- true
		return 0
	}
	c.in = p
	h.resume <- true
	<-h.yielded
	c.stepped(h)
	return c.taken(p)
}

// stepped handles what crypto/tls has done.
func (c *tlsConn) stepped(h *handshake) {
	if len(h.out) > 0 && !c.over {
		if h.done {
			sayWhy(h.out, h.err)
		}
		_, _ = c.below.Write(h.out) // a loss is reported by ConnectionLost
		h.light = c.isLight(h.out)
		h.out = h.out[:0]
	}
	switch {
	case !h.done:
		h.gate.moved(c)
	case h.err != nil:
		c.handshakeFailed(c.reason(h.inClear(h.err)))
	default:
		h.end(c)
		if c.Ready() {
			c.pump()
		}
	}
}

// isLight reports whether a server's handshake, which has just sent out, has done the work that
// is worth a worker. In TLS 1.3 that is so once the server has sent an encrypted record,
// its certificate or what stands for it: what is left is to compare a hash and to seal the
// tickets. A client's certificate has yet to be verified, functions of the caller's may take any
// time, and in TLS 1.2 the keys have yet to be made.
func (c *tlsConn) isLight(out []byte) bool {
	cfg := c.shared.cfg
	if c.shared.client || c.shared.foreign || cfg.ClientAuth != tls.NoClientCert || cfg.GetConfigForClient != nil {
		return false
	}
	const applicationData = 23
	for len(out) >= headerLen {
		if out[0] == applicationData {
			return true
		}
		out = out[min(headerLen+int(binary.BigEndian.Uint16(out[headerLen-2:])), len(out)):]
	}
	return false
}

// inClear finds the alert of a peer that gave up before it had its keys.
// OpenSSL's clients refuse a TLS 1.3 certificate with an alert in the clear,
// while crypto/tls waits for encrypted records, so it reports a bad record MAC.
func (h *handshake) inClear(err error) error {
	alert, ok := h.last.plainAlert()
	var local *net.OpError
	if !ok || !errors.As(err, &local) || local.Op != "local error" || local.Err.Error() != tls.AlertError(alertBadRecordMAC).Error() {
		return err
	}
	return &AlertError{Alert: alert, Text: strings.TrimPrefix(tls.AlertError(alert).Error(), "tls: "), Err: err}
}

// workerDone is called on the loop's goroutine when a worker has finished a
// step.
func (c *tlsConn) workerDone(h *handshake) {
	if h.ended {
		return
	}
	<-h.yielded
	h.running = false
	c.skip = len(h.buf) - len(c.in)
	c.in = nil
	h.gate.workerFree()
	c.release(holdTurn)
	c.stepped(h)
}

// startHandshake starts the goroutine of the handshake.
func (c *tlsConn) startHandshake() {
	h := c.hs
	h.local, h.remote = c.below.LocalAddr(), c.below.RemoteAddr()
	if c.shared.client {
		cfg := c.shared.cfg
		if c.shared.silence > 0 {
			cfg = c.watchTickets()
		}
		c.conn = tls.Client((*tlsWire)(c), cfg)
	} else {
		c.conn = tls.Server((*tlsWire)(c), c.shared.cfg)
	}
	h.resume, h.yielded = make(chan bool, 1), make(chan struct{}, 1)
	if h.gate.workers > 0 {
		loop := c.below.Loop()
		done := func() { c.workerDone(h) }
		h.tell = func() { _, _ = loop.Post(done) } // a closed loop ends its handshakes itself
	}
	// not simulated: the loop waits for it whenever it runs, unless a program
	// asked for workers.
	go func() {
		defer func() {
			tells := h.tells()
			close(h.yielded)
			if tells {
				h.tell()
			}
		}()
		h.err = errGoexit
		defer func() {
			h.done = true
			if v := recover(); v != nil {
				h.err = &weir.PanicError{Where: "a function of the TLS configuration", Conn: h.remote.String(), Value: v, Stack: debug.Stack()}
			}
		}()
		if <-h.resume {
			h.err = c.conn.HandshakeContext(context.Background())
		}
	}()
}

// wait hands over to the loop until there is more to read; it returns false if
// there never will be. crypto/tls calls it through the wire's Read.
func (h *handshake) wait() bool {
	tells := h.tells()
	h.yielded <- struct{}{}
	if tells {
		h.tell()
	}
	return <-h.resume
}

// tells reports whether the loop is to be told of the end of the step in progress. It is asked
// before the loop can begin another.
func (h *handshake) tells() bool { return h.tell != nil && !h.here }

// handshakeFailed ends a connection that was never established. The alert that
// crypto/tls wrote about it still leaves.
func (c *tlsConn) handshakeFailed(err error) {
	if p, ok := err.(*weir.PanicError); ok { //nolint:errorlint // only as startHandshake made it
		c.below.Loop().Report(p)
	}
	c.hs.end(c)
	c.over = true
	c.FailGently(err)
}

// end gives the handshake's place to others, and unwinds what crypto/tls has in
// progress. If a worker has the handshake, end waits for the rest of its step.
func (h *handshake) end(c *tlsConn) {
	h.ended = true
	if h.running {
		<-h.yielded
		h.running = false
		h.gate.workerFree()
	}
	c.hs = nil
	h.gate.leave(c, h)
	if h.resume != nil && !h.done {
		c.over = true // what it writes now reaches no one
		c.in = nil
		h.resume <- false
		<-h.yielded
	}
}
