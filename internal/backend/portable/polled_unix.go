//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package portable

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// polls says that this platform has the polled port.
const polls = true

// regular reports whether st describes a regular file. A descriptor without any type,
// such as an eventfd or inotify, is not one, though package os takes it for one.
func regular(st os.FileInfo) bool {
	s, ok := st.Sys().(*syscall.Stat_t)
	return ok && s.Mode&syscall.S_IFMT == syscall.S_IFREG
}

// A polled port serves a descriptor that package net's poller watches. The loop
// reads and writes it with calls that do not block. Two goroutines, started when
// first needed, sleep in the poller, one for each direction, and report every
// edge that they were armed for.
type polled struct {
	b    *Backend
	e    *entry
	conn conn
	raw  syscall.RawConn
	fd   int // from Adopt: the number that its owner knows; else -1
	sock bool
	in   watcher
	out  watcher // Writable, and Failed

	// One system call, described here so that it allocates nothing.
	callNow func(fd uintptr) // callFD
	kind    uint8
	buf     []byte
	pollFd  [1]unix.PollFd
	n       int
	errno   error
}

// conn is what *net.TCPConn, *net.UnixConn and *os.File have in common.
type conn interface {
	io.ReadWriteCloser
	syscall.Conn
}

// newPolled makes a polled port for rwc, or returns nil if it needs the blocking one.
// Only package net's and package os's own types qualify: a type that embeds one of them
// may have a Read of its own.
func newPolled(b *Backend, e *entry, rwc io.ReadWriteCloser) port {
	sock := true
	switch c := rwc.(type) {
	case *net.TCPConn, *net.UnixConn:
	case *net.UDPConn, *net.IPConn:
		// A datagram socket that was adopted. Whoever waits by a Ready receives by other
		// means: the blocking port's goroutine, which reads ahead, would take its datagrams.
	case *os.File:
		// A file that the poller cannot watch has no deadlines.
		if c.SetDeadline(zeroTime) != nil {
			return nil
		}
		sock = false
	default:
		return nil
	}
	c := rwc.(conn)
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	p := &polled{b: b, e: e, conn: c, raw: raw, fd: -1, sock: sock}
	p.callNow = p.callFD
	p.in = watcher{p: p, wait: raw.Read}
	p.out = watcher{p: p, wait: raw.Write}
	return p
}

// newReady makes the port by which a Ready waits for connections and takes none. It has a
// duplicate of its own: what package net has for a listener can only accept.
func newReady(b *Backend, e *entry, ln net.Listener) (port, error) {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return nil, backend.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var failed error
	if err := raw.Control(func(u uintptr) { fd, failed = unix.FcntlInt(u, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	f := os.NewFile(uintptr(fd), "listener")
	p := newPolled(b, e, f)
	if p == nil {
		_ = f.Close()
		return nil, backend.ErrUnsupported
	}
	return p, nil
}

// A watcher reports one direction's edges while it is armed.
type watcher struct {
	p    *polled
	wait func(func(fd uintptr) bool) error

	mu      sync.Mutex
	armed   bool
	running bool
	stopped bool
	done    chan struct{} // closed when the goroutine has ended after stop
}

// arm makes the next edge cause a notification. The first one comes at once.
func (w *watcher) arm() {
	w.mu.Lock()
	w.armed = true
	if !w.running && !w.stopped {
		w.running = true
		w.done = make(chan struct{})
		w.p.b.waiting.Go(w.run)
	}
	w.mu.Unlock()
}

func (w *watcher) run() {
	defer close(w.done)
	// The poller calls edge once before it sleeps, and after each edge. An error means
	// that the descriptor is closed or cannot be watched.
	if err := w.wait(w.edge); err != nil {
		w.edge(0)
	}
}

func (w *watcher) edge(uintptr) (stop bool) {
	w.mu.Lock()
	tell := w.armed
	w.armed = false
	stop = w.stopped
	w.mu.Unlock()
	if tell && !stop {
		w.p.b.notify(w.p.e)
	}
	return stop
}

// stop makes the goroutine end at its next edge and returns a channel to wait on, or
// nil if there is no goroutine.
func (w *watcher) stop() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	return w.done
}

func (p *polled) arm(ev backend.Events) {
	if ev&backend.Readable != 0 {
		p.in.arm()
	}
	if ev&(backend.Writable|backend.Failed) != 0 {
		p.out.arm()
	}
}

// The system calls that a polled port makes on its descriptor.
const (
	callRead = iota + 1
	callWrite
	callPoll
)

// call makes one system call that does not block.
func (p *polled) call(kind uint8, buf []byte, mask int16) (int, error) {
	p.kind, p.buf, p.pollFd[0] = kind, buf, unix.PollFd{Events: mask}
	err := p.raw.Control(p.callNow)
	p.buf = nil
	if err != nil {
		return 0, err
	}
	switch p.errno {
	case nil:
		return p.n, nil
	case syscall.EAGAIN:
		return 0, backend.ErrAgain
	default:
		return 0, p.errno
	}
}

func (p *polled) callFD(u uintptr) {
	fd := int(u)
	for {
		switch p.kind {
		case callRead:
			p.n, p.errno = syscall.Read(fd, p.buf)
		case callWrite:
			p.n, p.errno = syscall.Write(fd, p.buf)
		case callPoll:
			p.pollFd[0].Fd = int32(fd)
			p.n, p.errno = unix.Poll(p.pollFd[:], 0)
		}
		if p.errno != syscall.EINTR {
			return
		}
	}
}

func (p *polled) read(buf []byte) (int, error) {
	n, err := p.call(callRead, buf, 0)
	if n == 0 && err == nil && len(buf) > 0 {
		return 0, io.EOF
	}
	if err == syscall.EIO && !p.sock {
		return 0, io.EOF // a PTY whose other side is gone
	}
	return n, err
}

func (p *polled) write(vec [][]byte) (int, error) {
	buf := join(&p.b.gather, vec)
	if len(buf) == 0 {
		return 0, nil
	}
	n, err := p.call(callWrite, buf, 0)
	if err == backend.ErrAgain && !p.sock && p.poll(0)&unix.POLLHUP != 0 {
		// The master of a pseudo-terminal whose slave is closed takes nothing more once it
		// is full, and does not fail either.
		return 0, syscall.EIO
	}
	return n, err
}

// join returns the first bytes of vec in one piece: one of vec's own if that is large,
// otherwise a copy in *scratch.
func join(scratch *[]byte, vec [][]byte) []byte {
	const enough = 64 << 10
	*scratch = (*scratch)[:0]
	for _, piece := range vec {
		if len(*scratch) == 0 && (len(piece) >= enough || len(vec) == 1) {
			return piece
		}
		*scratch = append(*scratch, piece[:min(len(piece), enough-len(*scratch))]...)
		if len(*scratch) == enough {
			break
		}
	}
	return *scratch
}

func (p *polled) check(ev backend.Events) backend.Events {
	var mask int16
	if ev&backend.Readable != 0 {
		mask |= unix.POLLIN
	}
	if ev&backend.Writable != 0 {
		mask |= unix.POLLOUT
	}
	got := p.poll(mask)
	var holds backend.Events
	if got&unix.POLLIN != 0 {
		holds |= backend.Readable
	}
	if got&unix.POLLOUT != 0 {
		holds |= backend.Writable
	}
	if got&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
		holds |= backend.Failed
		if got&unix.POLLHUP != 0 {
			holds |= backend.Readable // the end can be read
		}
	}
	return holds & ev
}

func (p *polled) poll(mask int16) int16 {
	if _, err := p.call(callPoll, nil, mask); err != nil {
		return unix.POLLNVAL
	}
	return p.pollFd[0].Revents
}

func (p *polled) failure() error {
	if p.sock {
		v, err := p.getOption(backend.PendingError)
		if err == nil && v != 0 {
			return syscall.Errno(v)
		}
		return err
	}
	if p.poll(0)&unix.POLLERR != 0 {
		return syscall.EPIPE // the write end of a pipe that no one reads
	}
	return nil
}

func (p *polled) closeWrite() error {
	c, ok := p.conn.(closeWriter)
	if !ok {
		return backend.ErrUnsupported
	}
	return c.CloseWrite()
}

func (p *polled) close(reset bool) {
	if tcp, ok := p.conn.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	p.in.stop()
	p.out.stop()
	_ = p.conn.Close() // wakes both
	if p.fd >= 0 {
		_ = syscall.Close(p.fd)
	}
}

// release ends the goroutines and, if Adopt duplicated a descriptor, closes our copy.
func (p *polled) release() error {
	in, out := p.in.stop(), p.out.stop()
	d := p.conn.(deadliner)
	if err := d.SetDeadline(longAgo); err != nil {
		return err
	}
	for _, done := range []<-chan struct{}{in, out} {
		if done != nil {
			<-done
		}
	}
	if p.fd >= 0 {
		return p.conn.Close()
	}
	return d.SetDeadline(zeroTime)
}

func (p *polled) getOption(o backend.Option) (int, error) { return getOption(p.conn, o) }

func (p *polled) setOption(o backend.Option, value int) error { return setOption(p.conn, o, value) }
