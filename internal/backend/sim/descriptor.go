package sim

import (
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// firstDescriptor is above every number that a process has: a simulated descriptor that is
// given to a real system call is not open there.
const firstDescriptor = 1 << 30

// OpenPair makes two connected UNIX stream sockets, as descriptors of the host that any
// backend there can adopt.
func (h *Host) OpenPair() ([2]int, error) { return h.twoDescriptors(local) }

// OpenPipe makes a pipe: its reading end, then its writing end.
func (h *Host) OpenPipe() ([2]int, error) { return h.twoDescriptors(pipe) }

func (h *Host) twoDescriptors(kind transport) (fds [2]int, err error) {
	if h.down {
		return fds, ErrCrashed
	}
	x, y, err := h.joined(kind)
	if err != nil {
		return fds, err
	}
	if h.adrift == nil {
		h.adrift, h.nextFD = map[int]*socket{}, firstDescriptor
	}
	for i, s := range [...]*socket{x, y} {
		fds[i] = h.nextFD
		h.adrift[h.nextFD] = s
		h.nextFD++
		h.open++
	}
	return fds, nil
}

// take takes a descriptor out of the host's list.
func (h *Host) take(fd int) (*socket, error) {
	s := h.adrift[fd]
	if s == nil {
		return nil, syscall.EBADF
	}
	delete(h.adrift, fd)
	h.open--
	return s, nil
}

// CloseAll closes descriptors that no backend has adopted; others are left.
func (h *Host) CloseAll(fds ...int) {
	for _, fd := range fds {
		if s, err := h.take(fd); err == nil {
			h.give(s, nil)
			h.w.close(s, false)
		}
	}
}

// Adopt makes a handle of a descriptor of the host's.
func (b *Backend) Adopt(fd int) (backend.Handle, error) {
	if err := b.unusable(); err != nil {
		return backend.None, err
	}
	s, err := b.host.take(fd)
	if err != nil {
		return backend.None, err
	}
	b.host.give(s, b)
	s.kick()
	return s.h, nil
}

// Describe says what a descriptor of the host's is.
func (b *Backend) Describe(fd int) (d sys.Description, err error) {
	s := b.host.adrift[fd]
	if s == nil {
		return d, syscall.EBADF
	}
	reader := s.kind == pipe && s.out.fin
	d.Read, d.Write = s.kind != pipe || reader, s.kind != pipe || !reader
	d.Socket, d.Local = s.kind == local, s.kind == local
	return d, nil
}

// CloseAll is Host.CloseAll.
func (b *Backend) CloseAll(fds ...int) { b.host.CloseAll(fds...) }

// SocketPair is Host.OpenPair.
func (b *Backend) SocketPair() ([2]int, error) { return b.host.OpenPair() }

// Pipe is Host.OpenPipe.
func (b *Backend) Pipe() ([2]int, error) { return b.host.OpenPipe() }
