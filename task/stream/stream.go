package stream

import (
	"errors"
	"io"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
)

var (
	// ErrBusy is returned by a read while another one waits.
	ErrBusy = errors.New("stream: another read is waiting")
	// ErrReadAhead is returned by Upgrade if more was received than was read, and the
	// transport, which is not one of weir's, cannot take it back (weir.Unreader).
	ErrReadAhead = errors.New("stream: bytes were received before the upgrade")
	// ErrTooLong is returned by ReadUntil and ReadLine if what they look for is not
	// within the maximum. The bytes that came can still be read.
	ErrTooLong = errors.New("stream: no delimiter within the maximum")
)

// keepMost is how many bytes that no one asked for are kept before reading is paused;
// reading resumes at a quarter of that. Up to one delivery more may be in memory.
const keepMost = 64 << 10

// keepIdle is the largest buffer that an empty Stream holds on to.
const keepIdle = 4 << 10

// Stream is a connection for coroutines. Factory, Dial, Adopt and New make one.
type Stream struct {
	s *future.Scheduler
	t weir.Transport // nil before ConnectionMade, or if there is none

	buf  []byte // the kept bytes; read up to at
	at   int
	lent []byte // the rest of what DataReceived was given, while it runs

	reader *task.Task // waits for want
	want   want
	asks   askList
	holds  bool // we have paused reading
	eof    bool // the peer's end of stream has come
	closed bool // Close or Abort was called
	lost   bool
	reason error
	broken error // why nothing more can be sent

	blocked bool       // the transport said PauseWriting
	room    task.Event // set while not blocked, and at the end
	gone    task.Event // set at the end

	next  weir.Protocol // gets everything: see Handover
	fault error         // why next lost the connection, outside of a delivery
	up    *Stream       // the Stream above what is now on the transport: see Upgrade
	made  func(*Stream)
	fail  func(*weir.ConnectError)
}

var (
	_ weir.Protocol      = (*Stream)(nil)
	_ weir.EOFReceiver   = (*Stream)(nil)
	_ weir.WritePauser   = (*Stream)(nil)
	_ weir.WriteFailer   = (*Stream)(nil)
	_ weir.ConnectFailer = (*Stream)(nil)
	_ task.Waitable      = (*Stream)(nil)
)

// want is what the reader waits for.
type want struct {
	kind  wantKind
	dst   []byte // to fill, if all of it is wanted
	n     int    // how much of it is filled; or the length with the delimiter, or -1
	delim []byte
	most  int
	from  int // where in the kept bytes the search continues
}

type wantKind uint8

const (
	wantNothing wantKind = iota
	wantSome
	wantAll
	wantDelim
)

// New makes a Stream that does not belong to a connection yet: pass it where a
// weir.Protocol is wanted, or feed it by hand.
func New(s *future.Scheduler) *Stream { return &Stream{s: s} }

// Adopt takes over a transport from the protocol that it had. Bytes that the old
// protocol left unused are the first to be read, and a pause of reading that it asked
// for ends.
func Adopt(s *future.Scheduler, t weir.Transport) *Stream {
	c := New(s)
	c.t = t
	t.SetProtocol(c)
	t.ResumeReading()
	return c
}

// Transport is the connection's transport; nil before the connection is made.
func (c *Stream) Transport() weir.Transport { return c.t }

// ConnectionMade keeps the transport, and tells whoever made the Stream.
func (c *Stream) ConnectionMade(t weir.Transport) {
	c.t = t
	if c.made != nil {
		c.made(c)
	}
}

// DataReceived implements weir.Protocol: the task that waits for p runs inside it. It
// uses all of p.
func (c *Stream) DataReceived(p []byte) (int, error) {
	if c.next != nil {
		return c.passOn(p)
	}
	c.lent = p
	c.serve()
	rest := c.lent
	c.lent = nil
	if c.next != nil || c.up != nil { // handed over meanwhile: the rest is not ours
		return len(p) - len(rest), nil
	}
	if len(rest) > 0 {
		c.keep(rest)
	}
	return len(p), nil
}

// EOFReceived implements weir.EOFReceiver: the connection stays open for
// writing until the task closes it.
func (c *Stream) EOFReceived(unused int) (bool, error) {
	if c.next != nil {
		unused += len(c.buf) - c.at
		if e, ok := c.next.(weir.EOFReceiver); ok {
			return e.EOFReceived(unused)
		}
		if unused > 0 {
			return false, &weir.UnusedError{Unused: unused}
		}
		return false, nil
	}
	c.eof = true
	c.serve()
	return true, nil
}

// PauseWriting makes Drain wait.
func (c *Stream) PauseWriting() {
	c.blocked = true
	c.room.Clear()
	if w, ok := c.next.(weir.WritePauser); ok {
		w.PauseWriting()
	}
}

// ResumeWriting ends the waits of Drain.
func (c *Stream) ResumeWriting() {
	c.blocked = false
	c.room.Set()
	if w, ok := c.next.(weir.WritePauser); ok {
		w.ResumeWriting()
	}
}

// WriteFailed implements weir.WriteFailer: Drain fails from now on, and reads get
// what was received before.
func (c *Stream) WriteFailed(err error) {
	c.broken = err
	c.blocked = false
	c.room.Set()
	if w, ok := c.next.(weir.WriteFailer); ok {
		w.WriteFailed(err)
	}
}

// ConnectionLost ends every wait: what was received can still be read.
func (c *Stream) ConnectionLost(err error) {
	c.lost, c.reason = true, err
	c.blocked = false
	c.room.Set()
	c.gone.Set()
	if c.next != nil {
		if c.fault != nil {
			err = c.fault
		}
		c.next.ConnectionLost(err)
		return
	}
	c.serve()
}

// ConnectFailed tells whoever made the Stream.
func (c *Stream) ConnectFailed(err *weir.ConnectError) {
	if c.fail != nil {
		c.fail(err)
	}
}

// Write hands p to the transport, as weir.Transport.Write does: it never waits, and p
// may be reused.
func (c *Stream) Write(p []byte) (int, error) {
	if c.t == nil || c.up != nil {
		return 0, weir.ErrClosed
	}
	return c.t.Write(p)
}

// Send is Write, and then Drain.
func (c *Stream) Send(t *task.Task, p []byte) error {
	if _, err := c.Write(p); err != nil {
		return err
	}
	return c.Drain(t)
}

// Drain waits while too much is waiting to be sent (weir.Transport.SetWriteMarks says
// how much that is). It fails when the connection is lost.
func (c *Stream) Drain(t *task.Task) error {
	if c.blocked {
		c.room.Name = "the peer to read"
		if err := c.room.Wait(t); err != nil {
			return err
		}
	}
	if c.lost {
		return c.ended()
	}
	return c.broken
}

// CloseWrite sends the end of the stream after what was written; reading goes on. It
// returns weir.ErrNoHalfClose if the transport cannot do that.
func (c *Stream) CloseWrite() error {
	if c.t == nil || c.up != nil {
		return weir.ErrClosed
	}
	return c.t.WriteEOF()
}

// Close sends what was written, then closes. Reads return weir.ErrClosed from
// now on. It does not wait: see Closed.
func (c *Stream) Close() error {
	if c.up != nil {
		return c.up.Close()
	}
	if c.t == nil || c.closed {
		return nil
	}
	c.closed = true
	err := c.t.Close()
	c.stir()
	return err
}

// Abort drops what was not sent and closes.
func (c *Stream) Abort() {
	if c.up != nil && c.up.t != nil {
		c.up.Abort()
		return
	}
	c.closed = true
	if c.t != nil {
		c.t.Abort()
	}
	c.stir()
}

// stir tells the reader that nothing more will come. It is serve for calls from outside
// the loop's callbacks: no task is resumed inside them.
func (c *Stream) stir() {
	c.serveAsks()
	if c.reader != nil {
		c.reader.Wake(nil)
	}
}

// Closed waits until the connection is gone and returns the reason, which is nil for a
// clean end.
func (c *Stream) Closed(t *task.Task) error {
	c.gone.Name = "the end of the connection"
	if err := c.gone.Wait(t); err != nil {
		return err
	}
	return c.reason
}

// over reports whether no more bytes can come.
func (c *Stream) over() bool { return c.eof || c.lost || c.closed }

// ended is the error that a read returns when no more bytes can come.
func (c *Stream) ended() error {
	switch {
	case c.lost && c.reason != nil && !c.closed:
		return c.reason
	case c.closed:
		return weir.ErrClosed
	case c.eof || c.lost:
		return io.EOF
	}
	return nil
}

// End is nil for io.EOF and err otherwise: for a handler that ends when its
// peer does.
func End(err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// Handover gives the connection to p, whose ConnectionMade is called, and ends the
// Stream's part in it: bytes that were received and not read go to p first, even if p
// has paused reading. Reads fail from now on. It may be called from the task, even in
// the middle of a delivery: the rest of that goes to p.
func (c *Stream) Handover(p weir.Protocol) {
	c.next, c.closed = p, true
	c.stir()
	if c.t == nil {
		return
	}
	t := c.t
	c.unpause()
	if c.at == len(c.buf) {
		c.buf, c.at = nil, 0
		t.SetProtocol(p)
		p.ConnectionMade(t)
		return
	}
	p.ConnectionMade(t)
	// Until p has used the kept bytes we stay in between.
	c.s.Enqueue((*handover)(c))
}

// handover is a Stream in the role of the job that offers the kept bytes to the next
// protocol.
type handover Stream

var _ future.Job = (*handover)(nil)

func (h *handover) Run() {
	c := (*Stream)(h)
	if c.lost || c.at == len(c.buf) {
		return
	}
	defer func() {
		if c.fault == errHeirPanicked { //nolint:errorlint // put there below
			c.t.Abort() // and the loop gets the panic
		}
	}()
	c.fault = errHeirPanicked
	_, c.fault = c.passOn(nil)
	if c.fault != nil {
		c.t.Abort()
	}
}

var errHeirPanicked = errors.New("stream: the protocol that took over panicked")

// passOn offers the kept bytes and p to the next protocol.
func (c *Stream) passOn(p []byte) (int, error) {
	c.buf = append(c.buf, p...)
	for c.at < len(c.buf) {
		if _, err := c.t.Write(nil); errors.Is(err, weir.ErrClosed) {
			return len(p), nil // it has closed
		}
		n, err := c.next.DataReceived(c.buf[c.at:])
		if err != nil {
			return len(p), err
		}
		if n < 0 || n > len(c.buf)-c.at {
			return len(p), &weir.UsedError{N: n, Len: len(c.buf) - c.at}
		}
		c.at += n
		if n == 0 {
			if kept := len(c.buf) - c.at; kept > keepMost {
				return len(p), &weir.TailError{Unused: kept, Limit: keepMost}
			}
			return len(p), nil
		}
	}
	c.buf, c.at = nil, 0
	if !c.lost && c.t.Protocol() == weir.Protocol(c) {
		c.t.SetProtocol(c.next)
	}
	return len(p), nil
}

// Upgrade puts something, such as TLS, between the transport and the coroutine in
// mid-stream, and waits until the two sides have agreed on it. start does the work: it
// gets the transport, the factory of the protocol above, and a function to call on
// failure. With package layer:
//
//	tls, err := c.Upgrade(t, func(tr weir.Transport, above weir.Factory, failed func(error)) {
//		layer.Start(tr, layer.Above{Make: above, Failed: func(err *weir.AttemptError) { failed(err) }}, layer.TLSServer(cfg))
//	})
//
// The Stream that it returns takes c's place: c's reads and writes fail from now on,
// and closing c closes the new one. Bytes that were received and not read, such as a
// TLS client's hello, go to whatever start has put there, and never to the new Stream:
// what came in the clear is not mistaken for secure. If the wait is cut short the
// connection is aborted.
func (c *Stream) Upgrade(t *task.Task, start func(tr weir.Transport, above weir.Factory, failed func(error))) (*Stream, error) {
	switch {
	case c.t == nil || c.lost || c.closed:
		return nil, weir.ErrClosed
	case c.reader != nil || c.asks.first != nil:
		return nil, ErrBusy
	case t.Scope().Canceled():
		return nil, t.Yield()
	}
	if c.at < len(c.buf) {
		u, ok := weir.As[weir.Unreader](c.t)
		if !ok {
			return nil, ErrReadAhead
		}
		u.Unread(c.buf[c.at:])
		c.buf, c.at = nil, 0
	}
	f, p := future.New[*Stream](c.s)
	up := New(c.s)
	up.made = func(up *Stream) {
		if !p.Resolve(up) {
			up.Abort()
		}
	}
	c.up, c.closed = up, true
	c.resumeReading()
	start(c.t, func(weir.Transport) weir.Protocol { return up }, func(err error) { p.Reject(err) })
	p.OnCancel(func() {
		c.t.Abort()
		p.Reject(future.ErrCanceled)
	})
	return task.Await(t, f)
}

// Abandon has no effect: a read that is cut short leaves nothing behind.
func (c *Stream) Abandon(*task.Task) {}

// WaitingFor names what a read waits for.
func (c *Stream) WaitingFor() string {
	if c.t == nil {
		return "bytes"
	}
	return "bytes from " + c.t.RemoteAddr().String()
}
