package epoll

import (
	"os"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

// Open makes a socket, bound and listening if spec says so.
func (b *Backend) Open(spec *backend.Spec) (backend.Handle, error) {
	if b.ep < 0 {
		return backend.None, os.ErrClosed
	}
	fd, file, err := sys.Open(spec)
	if err != nil {
		return backend.None, err
	}
	f := flags(0)
	if spec.Family == backend.Inet && spec.SCTP == nil {
		f |= inet
	}
	if spec.IPv6 {
		f |= ipv6
	}
	if f&inet != 0 && !spec.Datagram && spec.Backlog == 0 {
		f |= edge
	}
	s, err := b.take(fd, sys.Socket, f)
	if err != nil {
		sys.Close(fd)
		file.Remove()
		return backend.None, err
	}
	// Linux hands down the options of a TCP listener, but not those of a Unix listener.
	inherits := spec.Family == backend.Inet || spec.Backlog == 0 || len(spec.Options) == 0
	if file != nil || !inherits {
		s.more = &extra{file: file}
		if !inherits {
			s.more.options = append([]backend.OptionValue(nil), spec.Options...)
		}
	}
	return backend.Handle(s.fd), nil
}

// Adopt takes over a descriptor of the process: see sys.Adopt. If it is already a
// handle, the error is EEXIST.
func (b *Backend) Adopt(fd int) (backend.Handle, error) {
	if b.ep < 0 {
		return backend.None, os.ErrClosed
	}
	if s := b.table.find(backend.Handle(fd)); s != nil {
		if b.verifySlot(s); s.flags&lost == 0 {
			return backend.None, unix.EEXIST
		}
	}
	d, err := sys.Adopt(fd)
	if err != nil {
		return backend.None, err
	}
	f := foreign
	if d.Family == backend.Inet && !d.Messages {
		f |= inet
	}
	if d.IPv6 {
		f |= ipv6
	}
	if d.Blocks {
		f |= blocks
	}
	if d.Master {
		f |= master
	}
	s, err := b.take(d.FD, d.Class, f)
	if err != nil {
		if d.FD != fd {
			sys.Close(d.FD) // only we know that number
		}
		return backend.None, err
	}
	d.FD = int(s.fd)
	s.more = &extra{adopted: d}
	b.verify.add(s)
	return backend.Handle(s.fd), nil
}

// take makes a slot for a descriptor that is new. If its number is still a handle, that
// handle was closed behind our back: its Ops fail, and the descriptor gets another
// number, lest the old owner close the new one. On failure fd stays open, and is the caller's.
func (b *Backend) take(fd int, class sys.Class, f flags) (*slot, error) {
	given := fd
	for {
		s := b.table.grow(int32(fd))
		if s.flags&used != 0 && s.flags&raw != 0 && s.idle() {
			b.drop(s)
		}
		if s.flags&used == 0 {
			if b.edge {
				f |= edge
			}
			s.start(class, f)
			if fd != given {
				sys.Close(given)
			}
			return s, nil
		}
		b.lose(s)
		moved, err := unix.FcntlInt(uintptr(given), unix.F_DUPFD_CLOEXEC, fd+1)
		if fd != given {
			sys.Close(fd)
		}
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		fd = moved
	}
}

// drop ends the use of a slot; its descriptor stays as it is.
func (b *Backend) drop(s *slot) {
	b.unwatch(s)
	if s.flags&foreign != 0 {
		b.verify.remove(s)
	}
	s.release()
}

// Shut shuts or closes a handle. For an adopted handle that was closed behind the backend's
// back the error is EBADF, and nothing is closed but the handle. One that was opened or
// accepted here is closed without a check, as no one else knows its number.
func (b *Backend) Shut(h backend.Handle, how backend.How) error {
	s := b.table.find(h)
	if s == nil {
		return unix.EBADF
	}
	switch how {
	case backend.ShutWrite:
		return b.shutWrite(s)
	case backend.CloseFlat, backend.CloseReset, backend.Forget:
	case backend.Unwatch:
		if s.flags&raw == 0 {
			return unix.EBADF // the number has become a handle
		}
		how = backend.Forget
	default:
		return unix.EINVAL
	}
	b.abandon(s)
	gone := s.flags&lost != 0
	if !gone && (how == backend.Forget || s.flags&(foreign|raw) != 0) {
		gone = b.unwatch(s) != 0
	}
	s.flags &^= registered // closing ends the registration too
	var err error
	switch {
	case gone:
		err = unix.EBADF
		if s.more != nil && how != backend.Forget {
			s.more.file.Remove()
		}
	case how != backend.Forget && s.flags&raw == 0:
		err = b.closeSlot(s, how == backend.CloseReset)
	}
	b.drop(s)
	return err
}

func (b *Backend) shutWrite(s *slot) error {
	if s.flags&lost != 0 {
		return unix.EBADF
	}
	if s.class != sys.Socket || s.flags&raw != 0 {
		return backend.ErrUnsupported
	}
	b.calls.Shut++
	if errno := sys.ShutdownWrite(int(s.fd)); errno != 0 {
		return errno
	}
	return nil
}

// closeSlot closes the descriptor of s.
func (b *Backend) closeSlot(s *slot, reset bool) error {
	b.calls.Close++
	if s.flags&foreign != 0 {
		return sys.CloseAdopted(&s.more.adopted, reset)
	}
	if s.more != nil {
		s.more.file.Remove()
	}
	errno := unix.Errno(0)
	if reset {
		errno = sys.Reset(int(s.fd))
	} else {
		errno = sys.Close(int(s.fd))
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// own returns the slot of a handle whose number is still ours.
func (b *Backend) own(h backend.Handle) (*slot, error) {
	s := b.table.find(h)
	if s == nil || s.flags&lost != 0 {
		return nil, unix.EBADF
	}
	return s, nil
}

// Name returns a handle's own address, or its peer's.
func (b *Backend) Name(h backend.Handle, peer bool) (backend.Addr, error) {
	s, err := b.own(h)
	if err != nil {
		return backend.Addr{}, err
	}
	b.calls.Name++
	return sys.Name(int(s.fd), peer)
}

// SetOption sets a socket option of a handle.
func (b *Backend) SetOption(h backend.Handle, o backend.Option, value int) error {
	s, err := b.own(h)
	if err != nil {
		return err
	}
	b.calls.Option++
	return sys.SetOption(int(s.fd), o, value)
}

// GetOption returns a socket option of a handle. A pending error that a Hangup
// has found is reported here once more.
func (b *Backend) GetOption(h backend.Handle, o backend.Option) (int, error) {
	s, err := b.own(h)
	if err != nil {
		return 0, err
	}
	if o == backend.Blocks {
		return int(s.flags & blocks / blocks), nil
	}
	b.calls.Option++
	v, err := sys.GetOption(int(s.fd), o)
	if o == backend.PendingError && err == nil && v == 0 {
		v, s.errno = int(s.errno), 0
	}
	return v, err
}
