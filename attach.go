package weir

import (
	"errors"
	"net"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/machine"
	"github.com/weir-io/weir/internal/sys"
)

// ErrNotWritable is returned by writes to a stream that can only be read.
var ErrNotWritable = errors.New("weir: transport can only be read")

// ErrNotDescriptors is returned if the backend cannot take the process's descriptors. The
// simulator cannot; it has pipes and socket pairs of its own.
var ErrNotDescriptors = errors.New("weir: this backend does not take descriptors")

// descriptors are the numbers that Attach takes: the process's, or those of a backend that
// has a world of its own, as the simulator has.
type descriptors interface {
	Describe(fd int) (sys.Description, error)
	CloseAll(fds ...int)
	SocketPair() ([2]int, error)
	Pipe() ([2]int, error)
}

// processDescriptors are the process's.
type processDescriptors struct{}

func (processDescriptors) Describe(fd int) (sys.Description, error) { return sys.Describe(fd) }
func (processDescriptors) CloseAll(fds ...int)                      { sys.CloseAll(fds...) }
func (processDescriptors) SocketPair() ([2]int, error)              { return sys.SocketPair() }
func (processDescriptors) Pipe() ([2]int, error)                    { return sys.Pipe() }

// descriptors returns those that the loop's backend takes; nil: none.
func (l *Loop) descriptors() descriptors {
	if d, ok := l.be.(descriptors); ok {
		return d
	}
	if l.caps.Descriptors || l.caps.Adopts {
		return processDescriptors{}
	}
	return nil
}

// networkOf maps a descriptor to the network that a stream sees.
func networkOf(d *sys.Description) network {
	switch {
	case d.SCTP:
		return netSCTP
	case d.Vsock:
		return netVsock
	case d.RFCOMM:
		return netRFCOMM
	case d.Socket && d.Local:
		return netUnix
	case d.Socket:
		return netTCP
	case d.Terminal:
		return netTTY
	}
	return netPipe
}

// Attach makes a transport of an open descriptor: a socket, a pipe or one end of it, a
// terminal, a plain file. The transport reads, writes or does both, as the descriptor was
// opened for. On success the descriptor belongs to the transport and is closed with it. If
// f refuses the connection, the descriptor is closed too and the error is ErrClosed. After
// any other error it is still the caller's. name is for logs and error messages. The file
// status flags of terminals, pipes and files, which other processes may share, are left as
// they are.
func (l *Loop) Attach(fd int, name string, f Factory, opts ...StreamOption) (Transport, error) {
	return l.attachPair(fd, fd, name, f, configOf(opts))
}

// AttachPair makes one transport of two descriptors, one to read from and one to write
// to, such as standard input and output. Either may be -1. As with Attach, both belong to
// the transport on success and are closed after ErrClosed, and are still the caller's after
// any other error. WriteEOF closes the one that
// is written to. If both are one socket, as inetd passes it, the transport uses that
// socket: its WriteEOF ends only the writing, and w is closed. The connection is lost
// when the reader of w has gone, even while nothing is being written (except for a
// terminal that is still being read); with WithSeparateEnds only writing ends then.
func (l *Loop) AttachPair(r, w int, name string, f Factory, opts ...AttachPairOption) (Transport, error) {
	return l.attachPair(r, w, name, f, configOf(opts))
}

func (l *Loop) attachPair(r, w int, name string, f Factory, c *connConfig) (Transport, error) {
	if err := l.check("Attach"); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing {
		return nil, ErrLoopClosed
	}
	all := l.descriptors()
	if all == nil {
		return nil, ErrNotDescriptors
	}
	if c.err != nil {
		return nil, c.err
	}
	err := c.forTenant(l)
	if err == nil && c.tenant != nil {
		err = c.tenant.admit()
	}
	if err != nil {
		return nil, &net.OpError{Op: "attach", Net: "fd", Addr: textAddr{"fd", name}, Err: err}
	}
	s, err := l.attach(all, r, w, c)
	if err != nil {
		return nil, &net.OpError{Op: "attach", Net: "fd", Addr: textAddr{"fd", name}, Err: err}
	}
	if !s.net.socket() {
		s.extra().name = name
	}
	if !s.begin(f) {
		return nil, ErrClosed
	}
	return &s.stream, nil
}

func (l *Loop) attach(all descriptors, r, w int, c *connConfig) (*socket, error) {
	// Look at both before adopting either: adopting a pipe or a terminal closes its
	// number.
	dr, err := describeSide(all, r)
	if err != nil {
		return nil, err
	}
	dw := dr
	if w != r {
		if dw, err = describeSide(all, w); err != nil {
			return nil, err
		}
		if r >= 0 && !dr.Read || w >= 0 && !dw.Write {
			return nil, errors.New("it was not opened for that direction")
		}
	}
	if w != r && r >= 0 && w >= 0 && dr.Same(&dw) {
		// One socket passed as both, as inetd does: ending one direction must then not
		// close a descriptor.
		s, err := l.attach(all, r, r, c)
		if err == nil {
			all.CloseAll(w)
		}
		return s, err
	}
	rh, wh := backend.None, backend.None
	kind := netPipe
	if r >= 0 && dr.Read {
		kind = networkOf(&dr)
		if rh, err = l.be.Adopt(r); err != nil {
			return nil, sysError("adopt", err)
		}
	}
	switch {
	case w < 0 || !dw.Write:
	case w == r && rh != backend.None:
		wh = rh
	default:
		kind = networkOf(&dw)
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
	s := newSocket(l, rh, wh, kind, c)
	s.adopted = true
	if rh != wh && dr.Terminal {
		s.extra().shared = true
	}
	if rh == wh && kind.socket() {
		if a, err := l.be.Name(rh, true); err == nil {
			s.setAddr(&a, false)
		}
	}
	return s, nil
}

// simulatedHost is a backend of a simulated host.
type simulatedHost interface {
	Machine() machine.Host
}

// simulated is nil on a real machine.
func (l *Loop) simulated() simulatedHost {
	s, _ := l.be.(simulatedHost)
	return s
}

// describeSide describes one side of a stream; a negative fd means no such side.
func describeSide(all descriptors, fd int) (sys.Description, error) {
	if fd < 0 {
		return sys.Description{}, nil
	}
	d, err := all.Describe(fd)
	if err == nil && d.Listening {
		err = errors.New("it is a listening socket (use ListenFD)")
	}
	return d, err
}

// closeUnless closes a descriptor that Attach did not take. One that a factory refused
// was taken and is closed already: by now its number may belong to something else.
func closeUnless(err error, all descriptors, fd int) {
	if !errors.Is(err, ErrClosed) {
		all.CloseAll(fd)
	}
}

// ListenFD accepts connections on a descriptor that is already bound and listening, for
// example one passed in by a service manager. On success it belongs to the listener, and
// after an error it is still the caller's.
func (l *Loop) ListenFD(fd int, f Factory, opts ...AcceptOption) (*Listener, error) {
	if err := l.check("ListenFD"); err != nil {
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
	name := textAddr{"fd", itoa(fd)}
	d, err := sys.Describe(fd)
	if err == nil && !d.Listening {
		err = errors.New("it is not a listening socket (use Attach)")
	}
	if err == nil {
		err = c.forTenant(l)
	}
	if err == nil {
		err = c.forGroup(l)
	}
	var h backend.Handle
	if err == nil {
		h, err = l.be.Adopt(fd)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "fd", Addr: name, Err: err}
	}
	ln := &Listener{loop: l, h: h, net: networkOf(&d), config: c, factory: f}
	ln.op.Owner = (*accepting)(ln)
	if ln.addr, err = l.be.Name(h, false); err != nil {
		l.shutHandle(h, backend.Forget)
		return nil, &net.OpError{Op: "listen", Net: "fd", Addr: name, Err: sysError("getsockname", err)}
	}
	ln.scarce = ln.fewDescriptors()
	ln.budgets = l.budgets(c.tenant)
	l.listeners.Add(ln, &ln.at)
	ln.of.join(c.tenant, ln)
	ln.accept()
	return ln, nil
}

// SocketPair makes two transports connected to each other by a pair of UNIX sockets.
func (l *Loop) SocketPair(a, b Factory, opts ...StreamOption) (Transport, Transport, error) {
	all := l.descriptors()
	if all == nil {
		return nil, nil, ErrNotDescriptors
	}
	fds, err := all.SocketPair()
	if err != nil {
		return nil, nil, sysError("socketpair", err)
	}
	ta, err := l.Attach(fds[0], "socketpair", a, opts...)
	if err != nil {
		closeUnless(err, all, fds[0])
		all.CloseAll(fds[1])
		return nil, nil, err
	}
	tb, err := l.Attach(fds[1], "socketpair", b, opts...)
	if err != nil {
		closeUnless(err, all, fds[1])
		ta.Abort()
		return nil, nil, err
	}
	return ta, tb, nil
}

// Pipe makes a pipe and a transport for each end: a reads, b writes.
func (l *Loop) Pipe(a, b Factory, opts ...StreamOption) (r, w Transport, err error) {
	all := l.descriptors()
	if all == nil {
		return nil, nil, ErrNotDescriptors
	}
	fds, err := all.Pipe()
	if err != nil {
		return nil, nil, sysError("pipe2", err)
	}
	r, err = l.attachPair(fds[0], -1, "pipe", a, configOf(opts))
	if err != nil {
		closeUnless(err, all, fds[0])
		all.CloseAll(fds[1])
		return nil, nil, err
	}
	w, err = l.attachPair(-1, fds[1], "pipe", b, configOf(opts))
	if err != nil {
		closeUnless(err, all, fds[1])
		r.Abort()
		return nil, nil, err
	}
	return r, w, nil
}
