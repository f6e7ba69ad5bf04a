//go:build windows

package iocp

import (
	"io"
	"sync/atomic"

	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/portable"
	"github.com/weir-io/weir/internal/sys"
)

// asideFrom is the first number of a handle that the portable backend serves: there are
// never that many sockets.
const asideFrom backend.Handle = 1 << 24

// asider wakes the port for the portable backend beside it.
//
//	portable's goroutines ─▶ its Await ─▶ due, Wake ─▶ Wait ─▶ its Wait(0)
type asider struct {
	due  atomic.Bool
	quit chan struct{}
	over chan struct{}
}

// other is the portable backend, which is made when there is something for it.
func (b *Backend) other() *portable.Backend {
	if b.aside == nil {
		b.aside = portable.NewFrom(asideFrom)
		b.asider.quit, b.asider.over = make(chan struct{}), make(chan struct{})
		b.aside.Host(true)
		go b.asider.run(b.aside, &b.waker)
	}
	return b.aside
}

func (a *asider) run(aside *portable.Backend, w *waker) {
	defer close(a.over)
	for {
		aside.Await(-1, a.quit)
		select {
		case <-a.quit:
			return
		default:
		}
		a.due.Store(true)
		w.wake()
	}
}

// waitAside reports what the portable backend has. It also gives back what that one lent.
func (b *Backend) waitAside(done []backend.Completion) (int, error) {
	b.asider.due.Store(false)
	return b.aside.Wait(0, done)
}

func (b *Backend) closeAside() {
	if b.aside == nil {
		return
	}
	close(b.asider.quit)
	<-b.asider.over
	_ = b.aside.Close() // it has no errors
}

// Sweep makes the next Wait look at everything that the portable backend serves; see
// backend.Sweeper. The port misses nothing.
func (b *Backend) Sweep() {
	if b.aside != nil {
		b.aside.Sweep()
	}
}

// Adopt takes over the system's handle of a file, a pipe or a console, which the portable
// backend serves: one that was not opened for overlapped calls blocks whoever uses it. A
// socket comes by AdoptConn.
func (b *Backend) Adopt(fd int) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	return b.other().Adopt(fd)
}

// moving is a socket on its way from one backend to another. A socket belongs to a port for
// ever once it has been attached, so only those that have not been can move.
type moving struct {
	h *handle
}

var _ io.Closer = (*moving)(nil)

// Close resets the connection, which no one took.
func (m *moving) Close() error {
	if m.h == nil {
		return nil
	}
	discard(m.h.s)
	m.h = nil
	return nil
}

// Detach gives up a connection for another backend's AdoptConn; see backend.Mover.
func (b *Backend) Detach(n backend.Handle) (io.Closer, error) {
	if n >= asideFrom && b.aside != nil {
		return b.aside.Detach(n)
	}
	h := b.handle(n)
	switch {
	case h == nil:
		return nil, errBadHandle
	case !h.connected || h.class != stream:
		return nil, errNotConnected
	case h.attached:
		return nil, backend.ErrUnsupported
	}
	b.table[n] = nil
	b.freeFrom = min(b.freeFrom, int(n))
	h.closed = true
	return &moving{&handle{
		s: h.s, ipv6: h.ipv6, bound: true, connected: true, shut: h.shut, idle: h.idle, local: h.local, peer: h.peer,
	}}, nil
}

// AdoptConn makes a handle of what Detach returned, here or elsewhere, or of a foreign
// connection, which the portable backend serves. On success conn belongs to the backend.
func (b *Backend) AdoptConn(conn any) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	m, ok := conn.(*moving)
	if !ok {
		return b.other().AdoptConn(conn)
	}
	if m.h == nil {
		return backend.None, errBadHandle
	}
	n := b.add(m.h)
	m.h = nil
	return n, nil
}

// Describe says what a handle of the process is for, as far as it can be asked: whether it
// can be read or written, the system does not say.
func (b *Backend) Describe(fd int) (sys.Description, error) {
	kind, err := windows.GetFileType(windows.Handle(fd))
	switch {
	case err != nil:
		return sys.Description{}, asErrno(err)
	case kind == windows.FILE_TYPE_UNKNOWN:
		return sys.Description{}, backend.ErrUnsupported
	}
	return sys.Description{Read: true, Write: true}, nil
}

// CloseAll closes handles of the process.
func (b *Backend) CloseAll(fds ...int) {
	for _, fd := range fds {
		_ = windows.CloseHandle(windows.Handle(fd))
	}
}

// SocketPair fails: there are none.
func (b *Backend) SocketPair() ([2]int, error) { return [2]int{-1, -1}, backend.ErrUnsupported }

// Pipe makes a pipe: its read end, and its write end.
func (b *Backend) Pipe() ([2]int, error) {
	var r, w windows.Handle
	if err := windows.CreatePipe(&r, &w, nil, 0); err != nil {
		return [2]int{-1, -1}, asErrno(err)
	}
	return [2]int{int(r), int(w)}, nil
}
