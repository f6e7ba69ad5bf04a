//go:build linux

package uring

import (
	"net/netip"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// handle is what the backend knows of an open handle: how its bytes are moved.
// Those that need to know more have a detail.
type handle uint8

const (
	notOpen   handle = iota
	socket           // recv and send
	stream           // read and write
	polled           // read and write once a poll says so: others need it to block
	plainFile        // read and write: a file that is always ready

	detailed  handle = 0x80 // a bit: there is a detail
	classMask        = detailed - 1
)

// detail is what few handles have.
type detail struct {
	adopted sys.Descriptor // as Adopt found it, if FD is not -1
	file    *sys.Bound     // a listener's file
	unix    bool           // of the Unix family
	ipv6    bool
}

// class says how the bytes of h are moved.
func (b *Backend) class(h backend.Handle) handle {
	if h < 0 || int(h) >= len(b.handles) {
		return notOpen
	}
	return b.handles[h] & classMask
}

// detail returns what else is known of h, or nil.
func (b *Backend) detail(h backend.Handle) *detail {
	if b.class(h) == notOpen || b.handles[h]&detailed == 0 {
		return nil
	}
	return b.details[h]
}

func (b *Backend) opened(fd int, c handle, d *detail) backend.Handle {
	if n := fd + 1 - len(b.handles); n > 0 {
		b.handles = append(b.handles, make([]handle, n)...)
	}
	b.handles[fd] = c
	if d != nil {
		b.handles[fd] |= detailed
		b.details[backend.Handle(fd)] = d
	}
	return backend.Handle(fd)
}

// forget ends what is known of h and returns its detail, if any.
func (b *Backend) forget(h backend.Handle) *detail {
	d := b.detail(h)
	b.handles[h] = notOpen
	if d != nil {
		delete(b.details, h)
	}
	return d
}

// Open makes a stream socket; see backend.Backend.
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
	}
	return b.opened(fd, socket, d), nil
}

// Adopt takes over a descriptor; see backend.Backend. Its flags, which other
// processes may share, stay as they are; sys.Adopt says how.
func (b *Backend) Adopt(fd int) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	a, err := sys.Adopt(fd)
	if err != nil {
		return backend.None, err
	}
	d := &detail{adopted: a, unix: a.Family == backend.Unix, ipv6: a.IPv6}
	class := [...]handle{sys.Socket: socket, sys.Stream: stream, sys.Polled: polled, sys.Plain: plainFile}[a.Class]
	if class == socket && !a.Blocks && !a.Listen && !d.unix && !d.ipv6 {
		d = nil // like any other
	}
	return b.opened(a.FD, class, d), nil
}

// Shut shuts or closes a handle; see backend.Backend.
func (b *Backend) Shut(h backend.Handle, how backend.How) error {
	if b.class(h) == notOpen {
		return syscall.EBADF
	}
	if how == backend.ShutWrite {
		return failed(sys.ShutdownWrite(int(h)))
	}
	d := b.forget(h)
	if how == backend.Forget {
		return nil
	}
	return closeHandle(h, d, how == backend.CloseReset)
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
	return sys.GetOption(int(h), o)
}

// encode stores op's address where the kernel can read it.
func (b *Backend) encode(to *sys.Sockaddr, op *backend.Op) error {
	d := b.detail(op.Handle)
	return to.Encode(op.Addr, d != nil && d.ipv6, int(op.Handle))
}

// peerOf stores the peer of h, accepted from listener, in *to. A connection
// that was reset meanwhile has no name any more: it gets the unspecified
// address of its family, and the reset is seen when it is used.
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

// pendingError is what a poll's error condition stands for.
func (b *Backend) pendingError(h backend.Handle) error {
	if b.class(h) != socket {
		return syscall.EPIPE // the reader of a pipe is gone
	}
	b.stats.Calls++
	return failed(sys.PendingError(int(h)))
}

// endOfStream reports whether errno, from reading h, is its end: a
// pseudo-terminal's master says so with EIO.
func (b *Backend) endOfStream(h backend.Handle, errno syscall.Errno) bool {
	if errno != syscall.EIO {
		return false
	}
	d := b.detail(h)
	return d != nil && d.adopted.Master
}

// failed makes an error of an errno: a nil one of 0.
func failed(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

var _ backend.Backend = (*Backend)(nil)
