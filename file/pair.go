package file

import (
	"net"
	"os"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
)

// AttachPair is weir.Loop.AttachPair with files read and written on goroutines of e: what
// is no file is left to the loop. A file is read, and written, at the position that it has,
// which others who have it open may share. One that is both r and w is read, written or both,
// as it was opened for; either may be -1. s must be made of a *weir.Loop or a *weir.Tenant, to
// which the transport then belongs. On success both descriptors belong to the transport; if f
// refuses the connection they are closed, and the error is weir.ErrClosed. After other errors
// they are left as they are. It belongs to the loop's goroutine.
func AttachPair(s *future.Scheduler, e *executor.Executor, r, w int, name string, f weir.Factory, opts ...weir.StreamOption) (weir.Transport, error) {
	l, t, err := loopOf(s)
	opts = inside(t, opts)
	switch {
	case err != nil:
		return nil, err
	case !isFileNumber(r) && !isFileNumber(w):
		return l.AttachPair(r, w, name, f, weir.JoinOptions(opts...))
	case e == nil:
		return nil, ErrNoExecutor
	}
	refuse := func(err error) error {
		return &net.OpError{Op: "attach", Net: "fd", Addr: &weir.FileAddr{Net: "fd", Name: name}, Err: err}
	}
	if r == w || r < 0 || w < 0 {
		fd := max(r, w)
		noRead, noWrite := checkSide(fd, false), checkSide(fd, true)
		switch {
		case r < 0 && noWrite != nil:
			return nil, refuse(noWrite)
		case w < 0 && noRead != nil:
			return nil, refuse(noRead)
		}
		c := Config{Path: name, Read: r >= 0 && noRead == nil, Write: w >= 0 && noWrite == nil}
		return attachOne(&conn{s: s, e: e, l: l, c: c, shared: true}, fd, f, opts)
	}
	for _, side := range [...]struct {
		fd    int
		write bool
	}{{r, false}, {w, true}} {
		if err := checkSide(side.fd, side.write); err != nil {
			return nil, refuse(err)
		}
	}
	p := &pair{name: name}
	feed, err := l.Carry(p, opts...)
	if err != nil {
		return nil, err
	}
	p.feed = feed
	one := func(fd int, write bool, f weir.Factory) error {
		if !isFileNumber(fd) {
			r, w := fd, -1
			if write {
				r, w = -1, fd
			}
			_, err := l.AttachPair(r, w, name, f, weir.WithTenant(t))
			return err
		}
		k := &conn{s: s, e: e, l: l, c: Config{Path: name, Read: !write, Write: write}, shared: true}
		k.f = os.NewFile(uintptr(fd), name) //nolint:gosec // a descriptor
		return k.begin(f, inside(t, nil))
	}
	out := func() error { return one(w, true, func(weir.Transport) weir.Protocol { return (*pairOut)(p) }) }
	in := func() error { return one(r, false, func(weir.Transport) weir.Protocol { return (*pairIn)(p) }) }
	first, second := in, out
	if isFileNumber(r) {
		first, second = out, in
	}
	// What is no file comes first: the loop may refuse it, and a file is always taken.
	if err := first(); err != nil {
		feed.Closed(err)
		return nil, err
	}
	if err := second(); err != nil {
		p.Close(true)
		return nil, err
	}
	if !feed.Begin(f) {
		return nil, weir.ErrClosed
	}
	return feed.Transport(), nil
}

// attachOne makes the transport of a file that is not opened by its name. On an error other
// than weir.ErrClosed fd is left as it is.
func attachOne(k *conn, fd int, f weir.Factory, opts []weir.StreamOption) (weir.Transport, error) {
	var err error
	if k.feed, err = k.l.Carry(k, opts...); err != nil {
		return nil, err
	}
	k.f = os.NewFile(uintptr(fd), k.c.Path) //nolint:gosec // a descriptor
	if err := k.start(f); err != nil {
		return nil, err
	}
	return k.feed.Transport(), nil
}

// pair is the carrier of a transport that reads from one and writes to another.
type pair struct {
	name    string
	feed    *weir.Feed
	in, out weir.Transport // nil once lost
	full    bool           // out takes no more now
	ended   bool           // CloseWrite was called
	closing bool
	over    bool
	err     error // why out was lost while the pair was closing
}

// pairIn is the protocol of what is read.
type pairIn pair

func (p *pairIn) ConnectionMade(t weir.Transport) { p.in = t }

func (p *pairIn) DataReceived(b []byte) (int, error) {
	p.feed.Deliver(b)
	return len(b), nil
}

func (p *pairIn) EOFReceived(int) (keepOpen bool, err error) {
	p.feed.End(nil)
	return false, nil
}

func (p *pairIn) ConnectionLost(err error) {
	p.in = nil
	if err != nil && !p.closing && !p.over {
		p.feed.End(err)
	}
	(*pair)(p).settle()
}

// pairOut is the protocol of what is written to.
type pairOut pair

func (p *pairOut) ConnectionMade(t weir.Transport)    { p.out = t }
func (p *pairOut) DataReceived(b []byte) (int, error) { return len(b), nil }
func (p *pairOut) PauseWriting()                      { p.full = true }

func (p *pairOut) ResumeWriting() {
	p.full = false
	p.feed.Moved()
	p.feed.Writable()
}

func (p *pairOut) WriteDrained() { p.feed.Moved() }

func (p *pairOut) ConnectionLost(err error) {
	p.out = nil
	if err == nil && !p.closing && !p.ended {
		err = weir.ErrClosed // not by us
	}
	if err != nil && !p.closing && !p.over {
		p.feed.Fail(err)
	}
	p.err = err
	(*pair)(p).settle()
}

// settle closes the transport once both sides are gone.
func (p *pair) settle() {
	if p.closing && !p.over && p.in == nil && p.out == nil {
		p.over = true
		p.feed.Closed(p.err)
	}
}

// Write implements weir.Carrier.
func (p *pair) Write(bufs [][]byte) (n int, err error) {
	for _, b := range bufs {
		if p.full {
			break
		}
		if p.out == nil {
			return n, weir.ErrClosed
		}
		m, err := p.out.Write(b)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Held implements weir.Holder.
func (p *pair) Held() int {
	if p.out == nil {
		return 0
	}
	return p.out.Buffered()
}

// CanCloseWrite implements weir.Carrier.
func (p *pair) CanCloseWrite() bool { return true }

// CloseWrite implements weir.Carrier.
func (p *pair) CloseWrite() error {
	p.ended = true
	switch {
	case p.out == nil:
		return nil
	case p.out.CanWriteEOF():
		return p.out.WriteEOF()
	}
	return p.out.Close()
}

// PauseReading implements weir.Carrier.
func (p *pair) PauseReading() {
	if p.in != nil {
		p.in.PauseReading()
	}
}

// ResumeReading implements weir.Carrier.
func (p *pair) ResumeReading() {
	if p.in != nil {
		p.in.ResumeReading()
	}
}

// Reset implements weir.Resetter: neither a file nor a pipe tells an end from another.
func (p *pair) Reset() { p.Close(false) }

// Close implements weir.Carrier.
func (p *pair) Close(abort bool) {
	p.closing = true
	if p.in != nil {
		p.in.Abort()
	}
	switch {
	case p.out == nil:
	case abort:
		p.out.Abort()
	default:
		_ = p.out.Close() // always nil
	}
	if abort && !p.over {
		p.over = true
		p.feed.Closed(nil)
	}
	p.settle()
}

// LocalAddr is the name that the pair was given.
func (p *pair) LocalAddr() net.Addr { return &weir.FileAddr{Net: "pipe", Name: p.name} }

// RemoteAddr is LocalAddr.
func (p *pair) RemoteAddr() net.Addr { return p.LocalAddr() }
