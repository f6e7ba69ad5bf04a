package netconn

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/inner"
)

// The buffers between a foreign connection's goroutines and the loop, in bytes.
const (
	foreignRead  = 32 << 10 // for each of two
	foreignWrite = 64 << 10
)

// lingerTime is how long reading goes on from a foreign connection that was closed
// here, so that the peer gets what was sent: closing a socket with unread bytes would
// reset it.
const lingerTime = 5 * time.Second

// lingerBytes is how much is read and dropped meanwhile: a peer that sends more is not
// waiting for a reply, and must learn that its bytes are lost.
const lingerBytes = 64 << 20

// resetPatience is how long a connection that ends with a reset waits for a peer that
// acknowledges nothing, and resetLook is how often that is checked.
const (
	resetPatience = 30 * time.Second
	resetLook     = 10 * time.Millisecond
)

// writeGrace is how long the reader may go on after a write has failed.
const writeGrace = 100 * time.Millisecond

// endGrace is how long the end of reading is held back while a write is in progress:
// after a reset only one of the two gets the reset, and the other sees an end.
const endGrace = 20 * time.Millisecond

// emptyReads is how many empty reads in a row a connection may return.
const emptyReads = 100

// foreign carries a connection that blocks. Two goroutines of its own do the blocking
// and notify the loop through the Notifier; the loop then looks in noticed.
//
//	conn.Read  ──▶ arrived ──▶ Feed.Deliver      the reader waits until it was delivered
//	conn.Write ◀── buf ◀────── Write             Write takes what there is room for
type foreign struct {
	conn   io.ReadWriteCloser
	loop   *weir.Loop
	feed   *weir.Feed
	notice *weir.Notifier

	// Of the loop's goroutine.
	held   bool        // reading is paused
	told   bool        // the end of reading was reported
	ended  bool        // Feed.Closed was called
	writes bool        // the writer was started
	grace  *weir.Timer // since a write failed
	late   bool        // grace has fired
	broken bool        // Feed.WriteFailed was called
	ending *weir.Timer // since reading ended during a write
	over   bool        // ending has fired

	mu       sync.Mutex
	changed  sync.Cond // the fields below changed; L is &mu
	arrived  []byte    // read and not yet delivered
	readErr  error     // why the reader ended
	buf      []byte    // to be written
	spare    []byte    // the other buffer for it
	short    bool      // Write took less than it was given
	writing  bool      // the writer is in conn.Write
	end      bool      // CloseWrite was called
	closing  bool      // Close was called
	aborted  bool      // Close was called with abort
	resets   bool      // Reset was called
	drain    bool      // set by Close: what still arrives is dropped
	dropped  int       // bytes
	writeErr error
	flushed  bool // everything taken was written, and conn is closed or lingering
}

// halfCloser is a connection that can end writing alone.
type halfCloser interface{ CloseWrite() error }

var (
	_ weir.Carrier  = (*foreign)(nil)
	_ Foreigner     = (*foreign)(nil)
	_ weir.Resetter = (*foreign)(nil)
)

// carry makes a transport of a connection that blocks.
func carry(l *weir.Loop, conn io.ReadWriteCloser, f weir.Factory, opts []weir.StreamOption) (weir.Transport, error) {
	c := &foreign{conn: conn, loop: l}
	c.changed.L = &c.mu
	c.notice = l.NewNotifier(c.noticed)
	feed, err := l.Carry(c, opts...)
	if err != nil {
		return nil, err
	}
	c.feed = feed
	if !feed.Begin(f) {
		c.ended = true
		go c.shut(false)
		return nil, weir.ErrClosed
	}
	go c.read()
	return feed.Transport(), nil
}

func (c *foreign) Foreign() io.ReadWriteCloser { return c.conn }

// LocalAddr is the connection's, if it has one.
func (c *foreign) LocalAddr() net.Addr {
	if a, ok := c.conn.(interface{ LocalAddr() net.Addr }); ok {
		if addr := a.LocalAddr(); addr != nil {
			return addr
		}
	}
	return unnamed
}

// RemoteAddr is the connection's, if it has one.
func (c *foreign) RemoteAddr() net.Addr {
	if a, ok := c.conn.(interface{ RemoteAddr() net.Addr }); ok {
		if addr := a.RemoteAddr(); addr != nil {
			return addr
		}
	}
	return unnamed
}

var unnamed net.Addr = &weir.FileAddr{Net: "conn", Name: "foreign connection"}

// read is the goroutine that blocks in Read. It fills one buffer while the loop
// has the other.
func (c *foreign) read() {
	var bufs [2][]byte
	empty := 0
	for i := 0; ; {
		if bufs[i] == nil {
			bufs[i] = make([]byte, foreignRead)
		}
		n, err := c.conn.Read(bufs[i])
		if n == 0 && err == nil {
			if empty++; empty < emptyReads {
				continue
			}
			err = io.ErrNoProgress
		}
		empty = 0
		if c.hand(bufs[i][:n], err) {
			return
		}
		i ^= 1
	}
}

// hand gives the loop what was read, once it has dealt with what came before, and
// reports whether that was the last.
func (c *foreign) hand(p []byte, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.arrived != nil && !c.drain {
		c.changed.Wait()
	}
	if !c.drain && len(p) > 0 {
		c.arrived = p
	}
	if c.drain {
		if c.dropped += len(p); c.dropped > lingerBytes && err == nil {
			err = io.ErrShortBuffer // reading stops
		}
	}
	if err != nil {
		c.readErr = err
		c.changed.Broadcast()
	}
	if !c.drain {
		_ = c.notice.Notify()
	}
	return err != nil || c.aborted
}

// write is the goroutine that blocks in Write. While it writes one buffer the
// loop fills the other.
func (c *foreign) write() {
	c.mu.Lock()
	defer c.mu.Unlock()
	ended := false
	for {
		switch {
		case c.aborted:
			return
		case len(c.buf) > 0 && c.writeErr == nil:
			p := c.buf
			c.buf, c.spare = c.spare[:0], nil
			if c.short {
				_ = c.notice.Notify()
			}
			c.writing = true
			c.mu.Unlock()
			_, err := c.conn.Write(p)
			c.mu.Lock()
			c.writing = false
			c.spare = p[:0]
			if c.writeErr = err; err != nil || c.readErr != nil {
				_ = c.notice.Notify()
			}
		case c.end && !ended && c.writeErr == nil:
			ended = true
			c.mu.Unlock()
			err := c.conn.(halfCloser).CloseWrite()
			c.mu.Lock()
			// Not connected: the peer's reset came first, and reading reports it.
			if err != nil && !errors.Is(err, syscall.ENOTCONN) {
				c.writeErr = err
				_ = c.notice.Notify()
			}
		case c.closing:
			c.finish(ended)
			return
		default:
			c.changed.Wait()
		}
	}
}

// finish closes a connection whose bytes have all been written, on the writer's
// goroutine. If the peer might still lose them the transport is told first.
func (c *foreign) finish(ended bool) {
	if c.resets {
		c.drain = true
		c.changed.Broadcast()
		c.sent()
		c.mu.Unlock()
		c.shut(true)
		c.mu.Lock()
		c.flushed = true
		_ = c.notice.Notify()
		return
	}
	if c.writeErr != nil {
		c.writeErr = c.failure() // before our own Close makes the reader fail
	}
	h, ok := c.conn.(halfCloser)
	if c.readErr != nil || c.writeErr != nil || !ok {
		c.mu.Unlock()
		_ = c.conn.Close()
		c.mu.Lock()
		c.flushed = true
		_ = c.notice.Notify()
		return
	}
	if !ended {
		c.mu.Unlock()
		_ = h.CloseWrite()
		c.mu.Lock()
	}
	c.flushed = true
	_ = c.notice.Notify()
	late := false
	timer := time.AfterFunc(lingerTime, func() {
		c.mu.Lock()
		late = true
		c.changed.Broadcast()
		c.mu.Unlock()
	})
	for !late && c.readErr == nil && !c.aborted {
		c.changed.Wait()
	}
	timer.Stop()
	c.mu.Unlock()
	_ = c.conn.Close()
	c.mu.Lock()
}

// sent waits until the peer has acknowledged everything, if that can be known: a reset
// would discard the rest.
func (c *foreign) sent() {
	last, until := 0, time.Now().Add(resetPatience)
	for !c.aborted && c.writeErr == nil {
		n := unacknowledged(c.conn)
		switch {
		case n == 0 || n == last && time.Now().After(until):
			return
		case n != last:
			last, until = n, time.Now().Add(resetPatience)
		}
		c.mu.Unlock()
		time.Sleep(resetLook)
		c.mu.Lock()
	}
}

// shut closes the connection, on a goroutine of its own, since that may block.
func (c *foreign) shut(reset bool) {
	if reset {
		c.mu.Lock()
		flush := c.resets && !c.aborted
		c.mu.Unlock()
		breakOff(c.conn, flush)
	}
	_ = c.conn.Close()
}

// breakOff makes sure, if conn can do that, that its end is not a clean one; Close
// follows. With flush, bytes that conn took and has not sent are still sent.
func breakOff(conn io.Closer, flush bool) {
	switch conn := conn.(type) {
	case interface{ SetLinger(sec int) error }:
		_ = conn.SetLinger(0)
	case interface {
		weir.Resetter
		Abort()
	}: // a Conn
		if flush {
			conn.Reset()
		} else {
			conn.Abort()
		}
	case interface{ Abort() }:
		conn.Abort()
	case interface{ NetConn() net.Conn }: // crypto/tls's, whose Close sends close_notify if it can
		below := conn.NetConn()
		breakOff(below, flush)
		_ = below.Close()
	}
}

// noticed looks, on the loop's goroutine, at what the others have done.
func (c *foreign) noticed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.arrived != nil && !c.held && !c.ended {
		p := c.arrived
		c.outside(func() { c.feed.Deliver(p) })
		c.arrived = nil
		c.changed.Broadcast()
		inner.Of(c.loop).Readied()
	}
	if c.short && len(c.buf) < foreignWrite && !c.ended {
		c.short = false
		c.outside(c.feed.Writable)
	}
	switch {
	case c.ended:
	case c.flushed:
		c.ended = true
		err := c.writeErr
		c.outside(func() { c.feed.Closed(err) })
	case c.writeErr != nil && !c.closing:
		c.writeFailed()
	case c.readErr != nil && c.arrived == nil && !c.held && !c.told:
		c.readEnded()
	case c.readErr != nil && !errors.Is(c.readErr, io.EOF) && !c.told && !c.broken && !c.closing:
		// What is held back is still to be delivered; writers are told now.
		c.broken = true
		err := c.readErr
		c.outside(func() { c.feed.WriteFailed(err) })
	}
}

// writeFailed loses the connection, but not before what the peer had sent is delivered,
// or the wait for it is over: a peer that answers early and closes makes a write fail
// while its answer is still on the way through the reader.
func (c *foreign) writeFailed() {
	if !c.broken {
		c.broken = true
		err := c.failure()
		c.outside(func() { c.feed.WriteFailed(err) })
	}
	switch {
	case c.ended: // WriteFailed has aborted it
	case c.held, c.arrived != nil: // continues when reading does
	case c.late, c.readErr != nil:
		err := c.failure() // the reader may have ended meanwhile
		c.outside(func() { c.feed.Fail(err) })
	case c.grace == nil:
		c.grace = c.loop.After(writeGrace, func() {
			c.late = true
			c.noticed()
		})
	}
}

// failure is why a write failed. A reset is reported once, to whichever of reader and
// writer asks first, and the other sees an end.
func (c *foreign) failure() error {
	if c.readErr != nil && !errors.Is(c.readErr, io.EOF) {
		return c.readErr
	}
	return c.writeErr
}

// readEnded reports the end of reading, whatever its cause.
func (c *foreign) readEnded() {
	err := c.readErr
	switch {
	case !errors.Is(err, io.EOF):
		c.told = true
		if !c.closing {
			c.outside(func() { c.feed.Fail(err) })
		}
	case c.writing && !c.over:
		if c.ending == nil {
			c.ending = c.loop.After(endGrace, func() {
				c.over = true
				c.noticed()
			})
		}
	default:
		c.told = true
		c.outside(func() { c.feed.End(nil) })
	}
}

// outside calls f without the lock.
func (c *foreign) outside(f func()) {
	c.mu.Unlock()
	defer c.mu.Lock()
	f()
}

func (c *foreign) Write(bufs [][]byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeErr != nil {
		return 0, weir.ErrClosed // noticed reports why
	}
	total := 0
	for _, p := range bufs {
		n := min(len(p), foreignWrite-len(c.buf))
		c.buf = append(c.buf, p[:n]...)
		total += n
		if n < len(p) {
			c.short = true
			break
		}
	}
	c.wakeWriter()
	return total, nil
}

// wakeWriter wakes the writer, and starts it if it was not needed before.
func (c *foreign) wakeWriter() {
	if !c.writes {
		c.writes = true
		go c.write()
	}
	c.changed.Broadcast()
	inner.Of(c.loop).Readied()
}

func (c *foreign) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = true
	c.wakeWriter()
	return nil // noticed reports failures
}

func (c *foreign) CanCloseWrite() bool {
	if a, ok := c.conn.(interface{ CanCloseWrite() bool }); ok && !a.CanCloseWrite() {
		return false
	}
	_, ok := c.conn.(halfCloser)
	return ok
}

func (c *foreign) PauseReading() { c.held = true }

func (c *foreign) ResumeReading() {
	c.held = false
	_ = c.notice.Notify()
}

func (c *foreign) Reset() {
	c.mu.Lock()
	c.resets = true
	c.mu.Unlock()
	c.Close(false)
}

func (c *foreign) Close(abort bool) {
	c.mu.Lock()
	c.closing = true
	c.aborted = c.aborted || abort
	c.drain = true // the reader must not wait for a loop that no longer delivers
	if !abort && !c.ended {
		c.wakeWriter()
	}
	c.changed.Broadcast()
	c.mu.Unlock()
	if abort && !c.ended {
		c.ended = true
		for _, t := range []*weir.Timer{c.grace, c.ending} {
			if t != nil {
				t.Stop()
			}
		}
		go c.shut(true)
		c.feed.Closed(nil)
	}
}
