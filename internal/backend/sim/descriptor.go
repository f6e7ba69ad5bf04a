package sim

import (
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// Pipe makes a pipe whose ends no loop has yet.
func (h *Host) Pipe() (r, w int, err error) { return h.bareEnds(pipe) }

// SocketPair makes a pair of UNIX sockets that no loop has yet.
func (h *Host) SocketPair() (a, b int, err error) { return h.bareEnds(local) }

func (h *Host) bareEnds(kind transport) (a, b int, err error) {
	w := h.w
	w.drain()
	if err = w.intercept(OpenCall, h, nil); err == nil {
		switch errno := w.openError(); {
		case h.down:
			err = ErrCrashed
		case errno == syscall.ENOBUFS: // which these calls do not know
			err = syscall.ENOMEM
		case errno != 0:
			err = errno
		case h.open+2 > h.limit || h.scarce():
			err = syscall.EMFILE
		}
	}
	if err != nil {
		w.record(OpenCall, h, 0, int64(backend.None), errorNumber(err))
		return -1, -1, err
	}
	x, y := h.ends(kind)
	h.give(x, nil)
	h.give(y, nil)
	w.record(OpenCall, h, x.id, int64(x.h), int64(y.h))
	return int(x.h), int(y.h), nil
}

// bare is what a descriptor that no loop has stands for; nil: there is no such one.
func (h *Host) bare(fd int) *socket {
	if fd < 0 || fd >= len(h.handles) || h.handles[fd] == nil || h.handles[fd].be != nil {
		return nil
	}
	return h.handles[fd]
}

// CloseDescriptor closes a descriptor that no loop has.
func (h *Host) CloseDescriptor(fd int) {
	if s := h.bare(fd); s != nil {
		h.w.drain()
		h.w.record(ShutCall, h, s.id, int64(backend.CloseFlat), 0)
		h.w.close(s, false)
	}
}

// Describe says what a descriptor is, as the system does for real ones.
func (b *Backend) Describe(fd int) (sys.Description, error) {
	s := b.host.bare(fd)
	if s == nil {
		return sys.Description{}, syscall.EBADF
	}
	return sys.Description{
		Read: s.kind == local || s.wshut, Write: s.kind == local || !s.wshut,
		Socket: s.kind == local, Local: s.kind == local,
	}, nil
}

// Adopt makes a descriptor that no loop has a handle of b.
func (b *Backend) Adopt(fd int) (backend.Handle, error) {
	if err := b.unusable(); err != nil {
		return backend.None, err
	}
	s := b.host.bare(fd)
	if s == nil {
		return backend.None, syscall.EBADF
	}
	s.be = b
	s.kick()
	return s.h, nil
}

// CloseAll is Host.CloseDescriptor for several.
func (b *Backend) CloseAll(fds ...int) {
	for _, fd := range fds {
		b.host.CloseDescriptor(fd)
	}
}

// SocketPair is Host.SocketPair.
func (b *Backend) SocketPair() (fds [2]int, err error) {
	fds[0], fds[1], err = b.host.SocketPair()
	return fds, err
}

// Pipe is Host.Pipe.
func (b *Backend) Pipe() (fds [2]int, err error) {
	fds[0], fds[1], err = b.host.Pipe()
	return fds, err
}
