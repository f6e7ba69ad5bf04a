package stream

import (
	"bytes"
	"io"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
)

// ask is a read as a future.
type ask struct {
	c          *Stream
	p          future.Promise[[]byte]
	n          int // bytes, or with a delimiter, at most
	delim      []byte
	prev, next *ask
}

type askList struct{ first, last *ask }

// NextLine is ReadLine as a future: of the next line or, if others have asked before,
// of the one after theirs. So one task can wait for many replies, for example with
// future.Gather. The bytes belong to the caller. Canceling it takes it out of the
// queue, and the lines go to those after it; if a line answers one particular question,
// Shield the future.
func (c *Stream) NextLine(most int) *future.Future[[]byte] {
	return future.Map(c.ask(&ask{n: most + 2, delim: newline}), func(line []byte) ([]byte, error) {
		return trim(line, most)
	})
}

// Next is ReadFull of n bytes as a future; see NextLine.
func (c *Stream) Next(n int) *future.Future[[]byte] { return c.ask(&ask{n: n}) }

func (c *Stream) ask(a *ask) *future.Future[[]byte] {
	f, p := future.New[[]byte](c.s)
	a.c, a.p = c, p
	if c.reader != nil {
		p.Reject(ErrBusy)
		return f
	}
	p.OnCancel(func() {
		c.asks.remove(a)
		p.Reject(future.ErrCanceled)
	})
	l := &c.asks
	if a.prev = l.last; l.last != nil {
		l.last.next = a
	} else {
		l.first = a
	}
	l.last = a
	if c.t != nil {
		c.resumeReading()
	}
	c.serveAsks()
	return f
}

func (l *askList) remove(a *ask) {
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		l.first = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	} else {
		l.last = a.prev
	}
	a.prev, a.next = nil, nil
}

// serveAsks settles the asks that can be settled.
func (c *Stream) serveAsks() {
	for a := c.asks.first; a != nil; a = c.asks.first {
		c.tidy()
		n, err := a.ready()
		if n < 0 && err == nil {
			return
		}
		c.asks.remove(a)
		if err != nil {
			a.p.Reject(err)
			continue
		}
		b := make([]byte, n)
		c.take(b)
		a.p.Resolve(b)
	}
}

// ready is how many bytes the ask gets, -1 if it has to wait, or why it fails.
func (a *ask) ready() (int, error) {
	c := a.c
	have := c.available()
	switch {
	case c.closed:
		return -1, weir.ErrClosed
	case a.delim == nil:
		if have >= a.n {
			return a.n, nil
		}
	default:
		c.buf = append(c.buf, c.lent...)
		c.lent = nil
		kept := c.buf[c.at:]
		if i := bytes.Index(kept[:min(have, a.n)], a.delim); i >= 0 {
			return i + len(a.delim), nil
		}
		if have >= a.n {
			return -1, ErrTooLong
		}
	}
	if !c.over() {
		return -1, nil
	}
	err := c.ended()
	if err == io.EOF && have > 0 { //nolint:errorlint // ended returns it as it is
		err = io.ErrUnexpectedEOF
	}
	return -1, err
}
