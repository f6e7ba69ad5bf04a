package stream

import (
	"bytes"
	"io"

	"github.com/weir-io/weir/task"
)

// available is how many bytes can be read without waiting.
func (c *Stream) available() int { return len(c.buf) - c.at + len(c.lent) }

// take moves bytes into dst.
func (c *Stream) take(dst []byte) int {
	n := copy(dst, c.buf[c.at:])
	c.at += n
	m := copy(dst[n:], c.lent)
	c.lent = c.lent[m:]
	c.unpause()
	return n + m
}

// keep holds on to bytes that no one has asked for.
func (c *Stream) keep(p []byte) {
	c.buf = append(c.buf, p...)
	if c.reader == nil && c.asks.first == nil && len(c.buf)-c.at > keepMost && !c.holds && c.t != nil {
		c.holds = true
		c.t.PauseReading()
	}
}

// unpause lets reading go on when little is kept.
func (c *Stream) unpause() {
	if c.holds && len(c.buf)-c.at <= keepMost/4 {
		c.resumeReading()
	}
}

func (c *Stream) resumeReading() {
	if c.holds {
		c.holds = false
		c.t.ResumeReading()
	}
}

// tidy makes room at the front of the kept bytes. Slices that a read returned are no
// longer valid after this.
func (c *Stream) tidy() {
	switch {
	case c.at == 0:
	case c.at == len(c.buf):
		c.at = 0
		if c.buf = c.buf[:0]; cap(c.buf) > keepIdle {
			c.buf = nil
		}
	case c.at >= len(c.buf)/2:
		c.buf = c.buf[:copy(c.buf, c.buf[c.at:])]
		c.at = 0
	}
}

// unread puts bytes back in front.
func (c *Stream) unread(p []byte) {
	if len(p) == 0 {
		return
	}
	c.buf = append(append(make([]byte, 0, len(p)+len(c.buf)-c.at), p...), c.buf[c.at:]...)
	c.at = 0
}

// serve gives the available bytes to those that wait for them.
func (c *Stream) serve() {
	c.serveAsks()
	for c.reader != nil && c.satisfied() {
		if !c.reader.Resume(nil) {
			return // it is about to run anyway
		}
	}
}

// satisfied reports whether the reader can go on: it has what it wants, or that will
// never come.
func (c *Stream) satisfied() bool {
	w := &c.want
	switch w.kind {
	case wantSome:
		if c.available() > 0 {
			return true
		}
	case wantAll:
		w.n += c.take(w.dst[w.n:])
		if w.n == len(w.dst) {
			return true
		}
	case wantDelim:
		if w.n = c.find(); w.n >= 0 || c.available() >= w.most {
			return true
		}
	case wantNothing:
		return false
	}
	return c.over()
}

// find looks for the delimiter and returns the length up to its end. The bytes up to
// there are then in the kept bytes. It returns -1 if there is none, and then all bytes
// are.
func (c *Stream) find() int {
	w := &c.want
	if c.at == len(c.buf) && len(c.lent) > 0 {
		// Only what is wanted is copied.
		if i := bytes.Index(c.lent[:min(len(c.lent), w.most)], w.delim); i >= 0 {
			n := i + len(w.delim)
			c.buf = append(c.buf, c.lent[:n]...)
			c.lent = c.lent[n:]
			return n
		}
	}
	if len(c.lent) > 0 {
		c.buf = append(c.buf, c.lent...)
		c.lent = nil
	}
	kept := c.buf[c.at:]
	kept = kept[:min(len(kept), w.most)]
	from := min(w.from, len(kept))
	if i := bytes.Index(kept[from:], w.delim); i >= 0 {
		return from + i + len(w.delim)
	}
	// The last bytes may be the beginning of a delimiter.
	w.from = max(len(kept)-len(w.delim)+1, 0)
	return -1
}

// begin starts a read.
func (c *Stream) begin(t *task.Task) error {
	if c.reader != nil || c.asks.first != nil {
		return ErrBusy
	}
	if t.Scope().Canceled() {
		return t.Yield()
	}
	if c.closed {
		return c.ended()
	}
	c.tidy()
	return nil
}

// wait parks until the want is satisfied.
func (c *Stream) wait(t *task.Task) error {
	c.reader = t
	c.resumeReading()
	err := t.Park(c)
	c.reader = nil
	return err
}

// Read waits until there are bytes and moves as many of them into p as fit. The error
// is io.EOF at the peer's end of the stream, weir.ErrClosed after Close, and otherwise
// the reason for the loss.
func (c *Stream) Read(t *task.Task, p []byte) (int, error) {
	if err := c.begin(t); err != nil || len(p) == 0 {
		return 0, err
	}
	if c.available() == 0 && !c.over() {
		c.want = want{kind: wantSome}
		err := c.wait(t)
		c.want = want{}
		if err != nil {
			return 0, err
		}
	}
	if c.closed { // meanwhile
		return 0, c.ended()
	}
	if n := c.take(p); n > 0 {
		return n, nil
	}
	return 0, c.ended()
}

// ReadFull waits until p is full. If the stream ends before that, it returns how many
// bytes there were and io.ErrUnexpectedEOF, or io.EOF if there were none. If it is
// canceled, nothing is read: bytes that came can still be read.
func (c *Stream) ReadFull(t *task.Task, p []byte) (int, error) {
	if err := c.begin(t); err != nil || len(p) == 0 {
		return 0, err
	}
	n := c.take(p)
	if n < len(p) && !c.over() {
		c.want = want{kind: wantAll, dst: p, n: n}
		err := c.wait(t)
		n = c.want.n
		c.want = want{}
		if err != nil {
			c.unread(p[:n])
			return 0, err
		}
	}
	if n == len(p) {
		return n, nil
	}
	err := c.ended()
	if err == io.EOF && n > 0 { //nolint:errorlint // ended returns it as it is
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// ReadUntil waits for the delimiter, which must not be empty, and returns everything up
// to and including it. The bytes are lent until the next read. If the delimiter does
// not end within most bytes the error is ErrTooLong, and if the stream ends before it,
// io.ErrUnexpectedEOF, or io.EOF if nothing is left; bytes that came can then still be
// read.
func (c *Stream) ReadUntil(t *task.Task, delim []byte, most int) ([]byte, error) {
	if err := c.begin(t); err != nil {
		return nil, err
	}
	c.want = want{kind: wantDelim, delim: delim, most: most}
	n := c.find()
	if n < 0 && c.available() < most && !c.over() {
		if err := c.wait(t); err != nil {
			c.want = want{}
			return nil, err
		}
		n = c.want.n
	}
	c.want = want{}
	switch {
	case n >= 0:
		line := c.buf[c.at : c.at+n : c.at+n]
		c.at += n
		c.unpause()
		return line, nil
	case c.available() >= most && !c.closed:
		return nil, ErrTooLong
	}
	err := c.ended()
	if err == io.EOF && c.available() > 0 { //nolint:errorlint // ended returns it as it is
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

var newline = []byte{'\n'}

// ReadLine is ReadUntil a line feed, but returns the line without it and without a
// carriage return before it. most counts neither. A line that the end of the stream
// cuts off is not a line: the error is io.ErrUnexpectedEOF.
func (c *Stream) ReadLine(t *task.Task, most int) ([]byte, error) {
	line, err := c.ReadUntil(t, newline, most+2)
	if err != nil {
		return nil, err
	}
	return trim(line, most)
}

func trim(line []byte, most int) ([]byte, error) {
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) > most {
		return nil, ErrTooLong
	}
	return line, nil
}
