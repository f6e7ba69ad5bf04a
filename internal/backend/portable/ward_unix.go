//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package portable

import (
	"os"

	"golang.org/x/sys/unix"
)

// hungUp reports whether the other side of a terminal is gone: reading then finds an
// end that is the end of both directions.
func hungUp(conn any) (gone bool) {
	f, ok := conn.(*os.File)
	if !ok {
		return false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(u uintptr) {
		fds := [1]unix.PollFd{{Fd: int32(u)}}
		_, err := unix.Poll(fds[:], 0)
		gone = err == nil && fds[0].Revents&unix.POLLHUP != 0
	})
	return gone && err == nil
}

// A ward waits for the reader of a pipe to go away, with a poll that blocks: the pipe's
// flags, which other processes share, keep it from the runtime's poller. It has a
// descriptor of its own, so that it never polls a number that was closed and reused.
type ward struct {
	wake int // the write end of a pipe that ends the poll
}

// newWard calls gone, from a goroutine, when f's reader has gone. It returns nil if
// there is no descriptor left for it.
func newWard(f *os.File, gone func()) *ward {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	fd := -1
	if err := raw.Control(func(u uintptr) { fd, _ = unix.FcntlInt(u, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || fd < 0 {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		_ = unix.Close(fd)
		return nil
	}
	end := int(r.Fd()) // in blocking mode from here on
	wake, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		_ = unix.Close(fd)
		return nil
	}
	go func() {
		fds := []unix.PollFd{{Fd: int32(fd)}, {Fd: int32(end), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
				break
			}
			if fds[1].Revents != 0 {
				break
			}
			if fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
				gone()
				break
			}
		}
		_ = unix.Close(fd)
		_ = r.Close()
	}()
	return &ward{wake: wake}
}

// stop ends the ward; gone may be called once more. Stopping a nil ward, or one that
// was already stopped, has no effect.
func (w *ward) stop() {
	if w != nil && w.wake >= 0 {
		_ = unix.Close(w.wake)
		w.wake = -1
	}
}
