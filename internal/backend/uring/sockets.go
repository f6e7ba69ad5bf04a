//go:build linux

package uring

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// class says how the bytes of a handle are moved.
type class uint8

const (
	notOpen   class = iota
	socket          // recv and send
	stream          // read and write
	polled          // read and write once a poll says so: others need the file in blocking mode
	plainFile       // read and write: a file that is always ready
)

// handle is what the backend knows about every handle, by its number.
type handle struct {
	class class
	// busy has a bit for each place that an armed Op occupies.
	busy uint8
}

const (
	reading  uint8 = 1 << iota // Read, Accept, SpliceIn, RecvFrom
	writing                    // Write, Connect, SpliceOut, SendTo
	hangups                    // Hangup
	watching                   // Ready
	detailed                   // not a place: there is a detail
	bulky                      // not a place either: the last receive was a large one
)

// place is the place that an Op of kind k occupies: one of each at a time.
func place(k backend.Kind) uint8 {
	switch k {
	case backend.Read, backend.Accept, backend.SpliceIn, backend.RecvFrom:
		return reading
	case backend.Write, backend.Connect, backend.SpliceOut, backend.SendTo:
		return writing
	case backend.Hangup:
		return hangups
	case backend.Ready:
		return watching
	}
	return 0
}

// detail holds what few handles need.
type detail struct {
	adopted sys.Descriptor        // as Adopt found it, if FD is not -1
	file    *sys.Bound            // a listener's file
	options []backend.OptionValue // for connections that it accepts, if the system does not hand them down
	unix    bool                  // of the Unix family
	ipv6    bool
	// broke is the error that ended the connection. The kernel reports it once and then
	// shows an end of stream.
	broke syscall.Errno
}

// class says how the bytes of h are moved.
func (b *Backend) class(h backend.Handle) class {
	if h < 0 || int(h) >= len(b.handles) {
		return notOpen
	}
	return b.handles[h].class
}

// detail returns what else is known about h, or nil.
func (b *Backend) detail(h backend.Handle) *detail {
	if b.class(h) == notOpen || b.handles[h].busy&detailed == 0 {
		return nil
	}
	return b.details[h]
}

// handle returns the entry of h, making it if needed.
func (b *Backend) handle(h backend.Handle) *handle {
	if n := int(h) + 1 - len(b.handles); n > 0 {
		b.handles = append(b.handles, make([]handle, n)...)
	}
	return &b.handles[h]
}

func (b *Backend) opened(fd int, c class, d *detail) backend.Handle {
	h := backend.Handle(fd)
	if e := b.handle(h); e.class == notOpen && e.busy&watching != 0 {
		b.lose(h) // watched, and closed before the kernel was done with that
	}
	*b.handle(h) = handle{class: c}
	if d != nil {
		b.setDetail(h, d)
	}
	return h
}

func (b *Backend) setDetail(h backend.Handle, d *detail) {
	b.handles[h].busy |= detailed
	b.details[h] = d
}

// forget clears what is known about h and returns its detail, if any.
func (b *Backend) forget(h backend.Handle) *detail {
	d := b.detail(h)
	b.handles[h] = handle{}
	if d != nil {
		delete(b.details, h)
	}
	b.verifier.remove(h)
	return d
}

// broken remembers errno if it is one that ends a connection, and returns the error
// that the outcome of a read or write stands for: the one that broke the connection
// before, if this outcome is only its consequence.
func (b *Backend) broken(op *backend.Op, n int, errno syscall.Errno) syscall.Errno {
	switch errno {
	case syscall.ECONNRESET, syscall.ECONNABORTED, syscall.ECONNREFUSED, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH:
		d := b.detail(op.Handle)
		if d == nil {
			d = &detail{}
			d.adopted.FD = -1
			b.setDetail(op.Handle, d)
		}
		d.broke = errno
	case 0:
		if op.Kind == backend.Write && n == 0 {
			return syscall.EIO // otherwise a device that takes nothing would be tried for ever
		}
		if n > 0 {
			return 0
		}
		fallthrough
	case syscall.EPIPE:
		if d := b.detail(op.Handle); d != nil && d.broke != 0 {
			return d.broke
		}
	case syscall.EAGAIN:
		if d := b.detail(op.Handle); d != nil && d.adopted.Master && op.Kind == backend.Write && sys.Deserted(int(op.Handle)) {
			return syscall.EIO
		}
	case syscall.EIO:
		if d := b.detail(op.Handle); d != nil && d.adopted.Master && op.Kind == backend.Read {
			return 0 // the other side of the pseudo-terminal is closed
		}
	}
	return errno
}

// Open makes a socket; see backend.Backend.
func (b *Backend) Open(spec *backend.Spec) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	fd, file, err := sys.Open(spec)
	if err != nil {
		return backend.None, err
	}
	var d *detail
	if spec.Backlog > 0 || spec.Family == backend.Unix || spec.IPv6 {
		d = &detail{file: file, unix: spec.Family == backend.Unix, ipv6: spec.IPv6}
		d.adopted.FD = -1
		if d.unix && spec.Backlog > 0 {
			d.options = append(d.options, spec.Options...)
		}
	}
	return b.opened(fd, socket, d), nil
}

// Adopt takes over a descriptor; see backend.Backend. If it is already a handle, the
// error is EEXIST. Its flags, which other processes may share, stay as they are;
// sys.Adopt says how.
func (b *Backend) Adopt(fd int) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	if h := backend.Handle(fd); b.class(h) != notOpen {
		if i, ok := b.verifier.at[h]; !ok || b.verifier.same(i) {
			return backend.None, syscall.EEXIST
		}
		b.lose(h)
	}
	a, err := sys.Adopt(fd)
	if err != nil {
		return backend.None, err
	}
	d := &detail{adopted: a, unix: a.Family == backend.Unix, ipv6: a.IPv6}
	c := [...]class{sys.Socket: socket, sys.Stream: stream, sys.Polled: polled, sys.Plain: plainFile}[a.Class]
	if c == socket && !a.Blocks && !a.Listen && !d.unix && !d.ipv6 {
		d = nil // like any other
	}
	h := b.opened(a.FD, c, d)
	if err := b.verifier.add(h); err != nil {
		b.forget(h)
		return backend.None, err
	}
	return h, nil
}

// Shut shuts or closes a handle; see backend.Backend.
func (b *Backend) Shut(h backend.Handle, how backend.How) error {
	if how == backend.Unwatch {
		if b.closed || h < 0 || int(h) >= len(b.handles) || b.class(h) != notOpen || b.handles[h].busy&watching == 0 {
			return syscall.EBADF
		}
		b.letGo(h)
		return nil
	}
	if b.class(h) == notOpen {
		return syscall.EBADF
	}
	if how == backend.ShutWrite {
		return failed(sys.ShutdownWrite(int(h)))
	}
	b.letGo(h)
	d := b.forget(h)
	if how == backend.Forget {
		return nil
	}
	return closeHandle(h, d, how == backend.CloseReset)
}

// letGo makes the Ops armed on h idle, and makes the kernel release the file that it
// holds for them: until then closing the descriptor closes no socket, and its address
// stays taken.
func (b *Backend) letGo(h backend.Handle) {
	if b.handles[h].busy&(reading|writing|watching) == 0 {
		return
	}
	kept := b.ended[:0]
	for _, e := range b.ended {
		if _, s := b.slots.find(e.data); s != nil && s.op.Handle == h && !s.refused {
			b.release(s.op)
			continue
		}
		kept = append(kept, e)
	}
	b.ended = kept
	held := false
	for i := range b.slots.n {
		s := b.slots.at(i)
		if s.op == nil || s.op.Handle != h || s.refused {
			continue
		}
		if s.op.State == queued || s.parked {
			b.release(s.op)
			continue
		}
		s.accepts = s.op.Kind == backend.Accept
		b.abandon(s.op)
		held = true
	}
	for whole := false; held && !whole; {
		whole = b.fill()
		errno, err := b.enter(true, false, 0)
		if err != nil {
			b.failed = err
		}
		if err != nil || errno != 0 && errno != syscall.EINTR {
			return // the kernel releases it when it can
		}
	}
}

func closeHandle(h backend.Handle, d *detail, reset bool) error {
	if d != nil {
		d.file.Remove()
		if d.adopted.FD >= 0 {
			return sys.CloseAdopted(&d.adopted, reset)
		}
	}
	if reset {
		return failed(sys.Reset(int(h)))
	}
	return failed(sys.Close(int(h)))
}

// closeHandles closes every handle that is open.
func (b *Backend) closeHandles() error {
	var first error
	for h := range b.handles {
		h := backend.Handle(h)
		if b.class(h) == notOpen {
			continue
		}
		if err := closeHandle(h, b.forget(h), false); first == nil {
			first = err
		}
	}
	return first
}

// Name returns an address of a handle; see backend.Backend.
func (b *Backend) Name(h backend.Handle, peer bool) (backend.Addr, error) {
	if b.class(h) == notOpen {
		return backend.Addr{}, syscall.EBADF
	}
	return sys.Name(int(h), peer)
}

// SetOption sets a socket option; see backend.Backend.
func (b *Backend) SetOption(h backend.Handle, o backend.Option, value int) error {
	if b.class(h) == notOpen {
		return syscall.EBADF
	}
	return sys.SetOption(int(h), o, value)
}

// GetOption reads a socket option; see backend.Backend.
func (b *Backend) GetOption(h backend.Handle, o backend.Option) (int, error) {
	if b.class(h) == notOpen {
		return 0, syscall.EBADF
	}
	if o == backend.Blocks {
		if d := b.detail(h); d != nil && d.adopted.Blocks {
			return 1, nil
		}
		return 0, nil
	}
	return sys.GetOption(int(h), o)
}

// connect stores op's address in to, where the kernel can read it, and connects Unix
// sockets, which never wait. done is true if the connect has ended, or if the address
// is invalid.
func (b *Backend) connect(to *sys.Sockaddr, op *backend.Op) (done bool, err error) {
	d := b.detail(op.Handle)
	if err := to.Encode(op.Addr, d != nil && d.ipv6, int(op.Handle)); err != nil {
		return true, err
	}
	if op.Addr.Family != backend.Unix {
		return false, nil
	}
	if d != nil && d.adopted.Blocks {
		// No one else uses a socket that is not connected yet as a stream.
		if err := unix.SetNonblock(int(op.Handle), true); err != nil {
			return true, err
		}
		d.adopted.Blocks = false
	}
	b.stats.Calls++
	// EAGAIN is final: the listener's backlog is full, and nothing reports when that
	// changes.
	return true, failed(sys.Connect(int(op.Handle), to))
}

// connected reports whether a connect that is polled for has ended, and stores how in c.
func (b *Backend) connected(op *backend.Op, c *backend.Completion) bool {
	b.stats.Calls += 2
	if errno := sys.PendingError(int(op.Handle)); errno != 0 {
		c.Err = errno
		return true
	}
	return sys.Connected(int(op.Handle)) == 0
}

// peerOf stores the peer of h, accepted from listener, in *to. A connection that was
// reset meanwhile no longer has a name: it gets the unspecified address of its family,
// and the reset shows when the connection is used.
func (b *Backend) peerOf(h, listener backend.Handle, to *backend.Addr) {
	b.stats.Calls++
	a, err := sys.Name(int(h), true)
	if err == nil {
		*to = a
		return
	}
	d := b.detail(listener)
	switch {
	case d != nil && d.unix:
		*to = backend.Addr{Family: backend.Unix}
	case d != nil && d.ipv6:
		*to = backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(netip.IPv6Unspecified(), 0)}
	default:
		*to = backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)}
	}
}

// pendingError is the error that a poll's error condition stands for.
func (b *Backend) pendingError(op *backend.Op) error {
	if b.class(op.Handle) != socket {
		return syscall.EPIPE // the reader of a pipe is gone
	}
	b.stats.Calls++
	errno := sys.PendingError(int(op.Handle))
	if errno == 0 {
		errno = syscall.EPIPE // any other error was reported before
	}
	if errno = b.broken(op, 0, errno); errno == syscall.EPIPE {
		return nil
	}
	return errno
}

// failed makes an error of an errno: nil for 0.
func failed(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

var _ backend.Backend = (*Backend)(nil)
