package weir

import (
	"errors"
	"net"

	"github.com/weir-io/weir/internal/backend"
)

// ErrNotWritable is returned by writes to a stream that can only be read.
var ErrNotWritable = errors.New("weir: transport can only be read")

// ErrNotDescriptors is returned where the backend cannot take descriptors of
// the process: the simulator, for one.
var ErrNotDescriptors = errors.New("weir: this backend does not take descriptors")

// descriptor is what the system says of a descriptor of the process.
type descriptor struct {
	net       network
	read      bool
	write     bool
	listening bool
}

// Attach makes a transport of an open descriptor: a socket, a pipe or one end
// of it, a terminal, a plain file. It goes the directions that the descriptor
// was opened for. From success on the descriptor is the transport's, and is
// closed with it, also where f refuses it: then the error is ErrClosed. name is
// for people. The file status flags of terminals, pipes
// and files, which other processes may share, are left as they are.
func (l *Loop) Attach(fd int, name string, f Factory, opts ...Option) (Transport, error) {
	return l.AttachPair(fd, fd, name, f, opts...)
}

// AttachPair makes one transport of two descriptors, one to read from and one
// to write to, such as standard input and output. Either may be -1. WriteEOF
// closes the one that is written.
func (l *Loop) AttachPair(r, w int, name string, f Factory, opts ...Option) (Transport, error) {
	if err := l.check("Attach"); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing {
		return nil, ErrLoopClosed
	}
	if !l.caps.Descriptors && !l.caps.Adopts {
		return nil, ErrNotDescriptors
	}
	c := configOf(opts)
	if c.err != nil {
		return nil, c.err
	}
	s, err := l.attach(r, w, c)
	if err != nil {
		return nil, &net.OpError{Op: "attach", Net: "fd", Addr: textAddr{"fd", name}, Err: err}
	}
	if !s.net.socket() {
		s.extra().name = name
	}
	s.begin(f)
	if s.flags&fShut != 0 && s.proto == nil {
		return nil, ErrClosed // refused
	}
	return s, nil
}

func (l *Loop) attach(r, w int, c *connConfig) (*stream, error) {
	// Both are looked at before either is adopted: that closes the number of a
	// pipe or a terminal.
	dr, err := describeSide(r)
	if err != nil {
		return nil, err
	}
	dw := dr
	if w != r {
		if dw, err = describeSide(w); err != nil {
			return nil, err
		}
		if r >= 0 && !dr.read || w >= 0 && !dw.write {
			return nil, errors.New("it was not opened for that direction")
		}
	}
	rh, wh := backend.None, backend.None
	kind := netPipe
	if r >= 0 && dr.read {
		kind = dr.net
		if rh, err = l.be.Adopt(r); err != nil {
			return nil, sysError("adopt", err)
		}
	}
	switch {
	case w < 0 || !dw.write:
	case w == r && rh != backend.None:
		wh = rh
	default:
		kind = dw.net
		if wh, err = l.be.Adopt(w); err != nil {
			if rh != backend.None {
				l.shutHandle(rh, backend.Forget)
			}
			return nil, sysError("adopt", err)
		}
	}
	if rh == backend.None && wh == backend.None {
		return nil, errors.New("it can be neither read nor written")
	}
	if rh != wh && kind.socket() {
		kind = netOther
	}
	s := newStream(l, rh, wh, kind, c)
	if rh == wh && kind.socket() {
		if a, err := l.be.Name(rh, true); err == nil {
			s.setAddr(&a, false)
		}
	}
	return s, nil
}

// describeSide is describeFD for a side of a stream; below 0 there is none.
func describeSide(fd int) (descriptor, error) {
	if fd < 0 {
		return descriptor{}, nil
	}
	d, err := describeFD(fd)
	if err == nil && d.listening {
		err = errors.New("it is a listening socket (use ListenFD)")
	}
	return d, err
}

// closeUnless closes a descriptor that Attach did not take. One that a factory
// refused was taken and is closed: by now its number may be somebody else's.
func closeUnless(err error, fd int) {
	if !errors.Is(err, ErrClosed) {
		closeFDs(fd)
	}
}

// ListenFD accepts connections on a descriptor that is bound and listening
// already, one passed in by a service manager for example. From success on it is
// the listener's.
func (l *Loop) ListenFD(fd int, f Factory, opts ...Option) (*Listener, error) {
	if err := l.check("ListenFD"); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing {
		return nil, ErrLoopClosed
	}
	if !l.caps.Descriptors && !l.caps.Adopts {
		return nil, ErrNotDescriptors
	}
	name := textAddr{"fd", itoa(fd)}
	d, err := describeFD(fd)
	if err == nil && !d.listening {
		err = errors.New("it is not a listening socket (use Attach)")
	}
	var h backend.Handle
	if err == nil {
		h, err = l.be.Adopt(fd)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "fd", Addr: name, Err: err}
	}
	ln := &Listener{loop: l, h: h, net: d.net, config: configOf(opts), factory: f}
	ln.op.Owner = ln
	if ln.addr, err = l.be.Name(h, false); err != nil {
		l.shutHandle(h, backend.Forget)
		return nil, &net.OpError{Op: "listen", Net: "fd", Addr: name, Err: sysError("getsockname", err)}
	}
	l.listeners.add(ln)
	ln.accept()
	return ln, nil
}

// SocketPair makes two transports that are connected to each other by a pair
// of UNIX sockets.
func (l *Loop) SocketPair(a, b Factory, opts ...Option) (Transport, Transport, error) {
	fds, err := socketPair()
	if err != nil {
		return nil, nil, sysError("socketpair", err)
	}
	ta, err := l.Attach(fds[0], "socketpair", a, opts...)
	if err != nil {
		closeUnless(err, fds[0])
		closeFDs(fds[1])
		return nil, nil, err
	}
	tb, err := l.Attach(fds[1], "socketpair", b, opts...)
	if err != nil {
		closeUnless(err, fds[1])
		ta.Abort()
		return nil, nil, err
	}
	return ta, tb, nil
}

// Pipe makes a pipe and a transport for each end: a reads, b writes.
func (l *Loop) Pipe(a, b Factory, opts ...Option) (r, w Transport, err error) {
	fds, err := pipe()
	if err != nil {
		return nil, nil, sysError("pipe2", err)
	}
	r, err = l.AttachPair(fds[0], -1, "pipe", a, opts...)
	if err != nil {
		closeUnless(err, fds[0])
		closeFDs(fds[1])
		return nil, nil, err
	}
	w, err = l.AttachPair(-1, fds[1], "pipe", b, opts...)
	if err != nil {
		closeUnless(err, fds[1])
		r.Abort()
		return nil, nil, err
	}
	return r, w, nil
}
