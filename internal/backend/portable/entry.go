package portable

import (
	"errors"
	"io"
	"net"
	"slices"

	"github.com/weir-io/weir/internal/backend"
)

// An entry is one handle of the table: a port, a listener, or a socket that is not
// connected yet. When it is closed its number is free, and code that still holds the
// entry finds it closed.
type entry struct {
	ops    [backend.SendTo + 1]*backend.Op // armed, by Kind; belongs to the loop's goroutine
	closed bool                            // belongs to the loop's goroutine

	port port      // nil until connected
	conn io.Closer // what port serves

	adopted bool        // conn, or what ln accepts from, is the duplicate of a descriptor
	still   func() bool // from Adopt: whether the descriptor still is what conn duplicates
	ln      *acceptor   // for a listener
	dial    *dialer     // while connecting
	pkt     *packets    // for a datagram socket

	spec  *backend.Spec // for a socket from Open
	local backend.Addr
	peer  backend.Addr

	first  int  // the Kind that serve begins with; belongs to the loop's goroutine
	served int  // the Wait that had its last results, as Backend.waits counts; the loop's goroutine's
	queued bool // in the ready list; guarded by Backend.mu
}

// A port moves the bytes of one connection. Its methods belong to the loop's goroutine
// and never block. read, write and check return ErrAgain if they would have to wait. If
// arm was called before, the port from then on notifies its entry whenever trying again
// is worthwhile, even if it may turn out to be in vain. Because arm comes before the
// try, an event in between is not lost.
type port interface {
	arm(ev backend.Events)
	read(p []byte) (int, error) // io.EOF at the end
	write(vec [][]byte) (int, error)
	// check returns those of ev that hold now. Failed stands for an error or for
	// the end of both directions.
	check(ev backend.Events) backend.Events
	// failure is the error behind Failed, or nil for a plain end.
	failure() error
	closeWrite() error
	close(reset bool)
	// release stops the port and leaves what it serves open.
	release() error
	getOption(o backend.Option) (int, error)
	setOption(o backend.Option, value int) error
}

// entry returns the entry that h names, or nil.
func (b *Backend) entry(h backend.Handle) *entry {
	if h < b.base || int(h-b.base) >= len(b.table) {
		return nil
	}
	return b.table[h-b.base]
}

// add gives e the lowest free number.
func (b *Backend) add(e *entry) backend.Handle {
	h := b.free
	for h < len(b.table) && b.table[h] != nil {
		h++
	}
	if h == len(b.table) {
		b.table = append(b.table, nil)
	}
	b.table[h] = e
	b.free = h + 1
	return b.base + backend.Handle(h)
}

// drop frees the number h.
func (b *Backend) drop(h backend.Handle) {
	i := int(h - b.base)
	b.table[i].closed = true
	b.table[i] = nil
	b.free = min(b.free, i)
}

// try makes one attempt at op without blocking. It returns true with the result in *c,
// or false if op has to wait; e will then be notified, unless op has Now.
func (b *Backend) try(e *entry, op *backend.Op, c *backend.Completion) bool {
	*c = backend.Completion{Op: op}
	switch op.Kind {
	case backend.Accept:
		if e.ln == nil {
			c.Err = errInvalid
			return true
		}
		return b.tryAccept(e, c)
	case backend.Connect:
		return b.tryConnect(e, c)
	default:
	}
	if e.pkt != nil || op.Kind == backend.RecvFrom || op.Kind == backend.SendTo {
		return b.tryPacket(e, op, c)
	}
	if e.port == nil && e.ln == nil {
		c.Err = errNotConnected
		return true
	}
	if e.ln != nil {
		if op.Kind != backend.Ready {
			c.Err = errInvalid
			return true
		}
		if !e.adopted {
			return e.holds(e.ln.check(op.Events), c)
		}
		// Its owner accepts: it is only looked at.
		if e.ln.polled == nil {
			p, err := newReady(b, e, e.ln.ln)
			if err != nil {
				c.Err = errno(err)
				return true
			}
			e.ln.polled = p
		}
		want := op.Events | backend.Failed
		e.ln.polled.arm(want)
		return e.holds(e.ln.polled.check(want), c)
	}
	now := op.Flags&backend.Now != 0
	switch op.Kind {
	case backend.Read:
		if !now {
			e.port.arm(backend.Readable)
		}
		return b.tryRead(e, c)
	case backend.Write:
		if !now {
			e.port.arm(backend.Writable)
		}
		n, err := e.port.write(op.Vec)
		if errors.Is(err, backend.ErrAgain) {
			return false
		}
		c.N, c.Err = n, errno(err)
		return true
	case backend.Hangup:
		e.port.arm(backend.Failed)
		if e.port.check(backend.Failed) == 0 {
			return false
		}
		c.Err = errno(e.port.failure())
		return true
	default: // Ready
		want := op.Events | backend.Failed
		e.port.arm(want)
		return e.holds(e.port.check(want), c)
	}
}

// holds makes the result of a Ready from the conditions that hold now. If the
// descriptor was closed behind our back, that is EBADF: the duplicate would be ready
// for ever.
func (e *entry) holds(ev backend.Events, c *backend.Completion) bool {
	if ev != 0 && e.still != nil && !e.still() {
		c.Err = errBadHandle
		return true
	}
	c.N = int(ev)
	return ev != 0
}

func (b *Backend) tryRead(e *entry, c *backend.Completion) bool {
	buf := c.Op.Buf
	lend := buf == nil
	if lend {
		buf = b.lent.next()
	}
	n, err := e.port.read(buf)
	if errors.Is(err, backend.ErrAgain) {
		return false
	}
	if n > 0 {
		// An error that follows bytes comes again with the next try.
		c.N, c.Buf = n, buf[:n:n]
		if lend {
			b.lent.take(n)
		}
		return true
	}
	if !errors.Is(err, io.EOF) {
		c.Err = errno(err)
	}
	return true
}

// AdoptConn makes a handle of a connection that something else made: a net.Conn or any
// io.ReadWriteCloser (an SSH channel, a QUIC stream, a serial port), or a net.Listener
// whose connections then become handles. From then on it belongs to the backend. Its
// methods are called from other goroutines, Read and Write at the same time; Close must
// end a Read in progress, or its goroutine stays until the Read returns. Half-close
// works if it has a method CloseWrite() error. A Read that is canceled may have taken
// bytes already: they are kept for the next one.
func (b *Backend) AdoptConn(conn any) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	switch c := conn.(type) {
	case net.Listener:
		e := &entry{local: addrOf(c.Addr())}
		e.ln = newAcceptor(b, e, c)
		return b.add(e), nil
	case io.ReadWriteCloser:
		return b.add(b.connected(c)), nil
	default:
		return backend.None, backend.ErrUnsupported
	}
}

// Detach gives up a connection for another backend's AdoptConn; see
// backend.Mover.
func (b *Backend) Detach(h backend.Handle) (io.Closer, error) {
	e := b.entry(h)
	if e == nil {
		return nil, errBadHandle
	}
	if e.conn == nil {
		return nil, errNotConnected
	}
	if e.adopted {
		return nil, backend.ErrUnsupported // conn is a duplicate
	}
	if err := e.port.release(); err != nil {
		return nil, err
	}
	b.drop(h)
	return e.conn, nil
}

// connected makes the entry of a connection.
func (b *Backend) connected(c io.ReadWriteCloser) *entry {
	e := &entry{}
	b.attach(e, c)
	return e
}

// attach gives e the port for c.
func (b *Backend) attach(e *entry, c io.ReadWriteCloser) {
	e.conn = c
	if nc, ok := c.(net.Conn); ok {
		e.local, e.peer = addrOf(nc.LocalAddr()), addrOf(nc.RemoteAddr())
	}
	if p := newPlain(c); p != nil {
		e.port = p
		return
	}
	if !b.blocking {
		if p := newPolled(b, e, c); p != nil {
			e.port = p
			return
		}
	}
	e.port = newBlocking(b, e, c)
}

// Shut shuts or closes a handle; see backend.Backend. Forget leaves open what Adopt or
// AdoptConn brought in. A blocking Read in progress on it could still take bytes, so
// while there is one the result is ErrUnsupported.
func (b *Backend) Shut(h backend.Handle, how backend.How) error {
	e := b.entry(h)
	if e == nil {
		return errBadHandle
	}
	switch how {
	case backend.ShutWrite:
		if e.port == nil {
			return errNotConnected
		}
		return errno(e.port.closeWrite())
	case backend.Forget, backend.Unwatch:
		if e.ln != nil && e.adopted {
			e.ln.also = nil // the owner's descriptor
			b.drop(h)
			e.close(backend.CloseFlat)
			return nil
		}
		if e.port == nil {
			return backend.ErrUnsupported
		}
		if err := e.port.release(); err != nil {
			return err
		}
		b.drop(h)
		return nil
	case backend.CloseFlat, backend.CloseReset:
		for _, op := range e.ops {
			if op != nil {
				b.Cancel(op)
			}
		}
		b.drop(h)
		e.close(how)
		return nil
	default:
		return errInvalid
	}
}

// close ends what e serves.
func (e *entry) close(how backend.How) {
	if e.dial != nil {
		e.dial.stop()
	}
	if e.ln != nil {
		e.ln.close()
	}
	if e.port != nil {
		e.port.close(how == backend.CloseReset)
	}
	if e.pkt != nil {
		e.pkt.close()
	}
}

// Name returns a handle's address, or its peer's, as it was when the connection was
// made: it can still be read after the connection has failed.
func (b *Backend) Name(h backend.Handle, peer bool) (backend.Addr, error) {
	e := b.entry(h)
	switch {
	case e == nil:
		return backend.Addr{}, errBadHandle
	case !peer:
		return e.local, nil
	case e.port == nil:
		return backend.Addr{}, errNotConnected
	default:
		return e.peer, nil
	}
}

// SetOption sets a socket option. If the socket is not connected, or listens, an option
// that it cannot take yet is kept for its connections.
func (b *Backend) SetOption(h backend.Handle, o backend.Option, value int) error {
	e := b.entry(h)
	switch {
	case e == nil:
		return errBadHandle
	case e.port != nil:
		return errno(e.port.setOption(o, value))
	case e.pkt != nil:
		return errno(setOption(e.pkt.conn, o, value))
	case e.spec == nil:
		return errno(setOption(e.ln.ln, o, value))
	}
	if e.ln != nil {
		if err := setOption(e.ln.ln, o, value); err != nil && !errors.Is(err, backend.ErrUnsupported) {
			return errno(err)
		}
	}
	e.spec.Options = slices.DeleteFunc(e.spec.Options, func(v backend.OptionValue) bool { return v.Option == o })
	e.spec.Options = append(e.spec.Options, backend.OptionValue{Option: o, Value: value})
	return nil
}

// GetOption reads a socket option; on a socket that is not connected, it returns the
// value that was set.
func (b *Backend) GetOption(h backend.Handle, o backend.Option) (int, error) {
	e := b.entry(h)
	switch {
	case e == nil:
		return 0, errBadHandle
	case e.port != nil:
		v, err := e.port.getOption(o)
		return v, errno(err)
	case e.pkt != nil:
		v, err := getOption(e.pkt.conn, o)
		return v, errno(err)
	case e.ln != nil && (e.spec == nil || o == backend.SendBuffer || o == backend.ReceiveBuffer):
		v, err := getOption(e.ln.ln, o)
		return v, errno(err)
	}
	for _, v := range e.spec.Options {
		if v.Option == o {
			return v.Value, nil
		}
	}
	return 0, nil
}

// addrOf turns a net.Addr, from package net or elsewhere, into ours.
func addrOf(a net.Addr) backend.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return ipAddr(a)
	case *net.UDPAddr:
		if a == nil {
			return backend.Addr{}
		}
		return backend.Addr{Family: backend.Inet, IP: unmap(a.AddrPort())}
	case *net.UnixAddr:
		if a == nil {
			return backend.Addr{Family: backend.Unix}
		}
		// Package net reads an unnamed socket's name as "@" on Linux.
		name := a.Name
		if name == "@" {
			name = ""
		}
		return backend.Addr{Family: backend.Unix, Path: name}
	default:
		return backend.Addr{}
	}
}

func ipAddr(a *net.TCPAddr) backend.Addr {
	if a == nil {
		return backend.Addr{}
	}
	ap := a.AddrPort()
	return backend.Addr{Family: backend.Inet, IP: unmap(ap)}
}
