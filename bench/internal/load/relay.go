package load

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Backend is what a relay connects to.
type Backend struct {
	fd   int
	Addr string
}

// Listen makes a Backend.
func Listen() (*Backend, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return nil, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	return &Backend{fd, fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)}, nil
}

// accept waits at most 10 s for the relay's connection.
func (b *Backend) accept() (int, error) {
	limit := unix.Timeval{Sec: 10}
	_ = unix.SetsockoptTimeval(b.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	var fd int
	var err error
	for {
		// With a time limit, the runtime's signals interrupt even calls that would
		// otherwise be restarted.
		if fd, _, err = unix.Accept4(b.fd, unix.SOCK_CLOEXEC); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return -1, fmt.Errorf("waiting for the relay's connection: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return fd, nil
}

// pipe is one stream through the relay, from in to out.
type pipe struct {
	in, out    int
	start      uint64
	sent, came uint64
	ended      bool
}

// RunRelay sends Conns streams through a relay as fast as possible, ends them,
// and checks that everything came out.
func RunRelay(s *Spec, b *Backend) (Result, error) {
	poll, err := newPoller()
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(poll.fd)
	d, err := newDialer(s.Addr, 1)
	if err != nil {
		return Result{}, err
	}
	var pipes []pipe
	defer func() {
		for _, p := range pipes {
			_, _ = unix.Close(p.in), unix.Close(p.out)
		}
	}()
	for i := range s.Conns {
		in, err := d.dial()
		if err != nil {
			return Result{}, err
		}
		out, err := b.accept()
		if err != nil {
			return Result{}, err
		}
		pipes = append(pipes, pipe{in: in, out: out, start: uint64(i) * 7919})
		if err := unix.SetNonblock(out, true); err != nil {
			return Result{}, err
		}
		if err := poll.add(in, 2*i, unix.EPOLLOUT); err != nil {
			return Result{}, err
		}
		if err := poll.add(out, 2*i+1, unix.EPOLLIN); err != nil {
			return Result{}, err
		}
	}
	w := newWindow(s)
	pat, buf := newPattern(), make([]byte, chunk)
	left, stop := len(pipes), int64(0)
	for left > 0 {
		evs, err := poll.wait(10)
		if err != nil {
			return Result{}, err
		}
		for _, ev := range evs {
			p := &pipes[ev.Fd/2]
			if ev.Fd%2 == 0 {
				err = p.push(s, w, poll, pat)
			} else {
				var end bool
				if end, err = p.pull(s, w, pat, buf); end {
					left--
				}
			}
			if err != nil {
				return Result{}, err
			}
		}
		now := w.now()
		if err := w.step(now); err != nil {
			return Result{}, err
		}
		if w.shut && stop == 0 {
			stop = now + int64(10*time.Second)
		}
		if stop > 0 && now > stop {
			return Result{}, fmt.Errorf("%d streams did not end in 10 s: %w", left, errMissing)
		}
	}
	return w.result(), nil
}

// push writes to the relay; after the window it ends the stream.
func (p *pipe) push(s *Spec, w *window, poll *poller, pat pattern) error {
	if w.shut {
		if p.ended {
			return nil
		}
		p.ended = true
		if err := poll.remove(p.in); err != nil {
			return err
		}
		return unix.Shutdown(p.in, unix.SHUT_WR)
	}
	n, errno := write(p.in, pat.at(p.start, p.sent, s.Size))
	if errno == unix.EAGAIN {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("write: %w", errno)
	}
	p.sent += uint64(n)
	return nil
}

// pull takes what came out, and reports the end.
func (p *pipe) pull(s *Spec, w *window, pat pattern, buf []byte) (end bool, err error) {
	var n int
	var errno unix.Errno
	if s.Trunc {
		n, errno = discard(p.out, chunk)
	} else {
		n, errno = read(p.out, buf)
	}
	if errno == unix.EAGAIN {
		return false, nil
	}
	if errno != 0 {
		return false, fmt.Errorf("read: %w", errno)
	}
	if n == 0 {
		if p.came != p.sent {
			return false, fmt.Errorf("%d bytes came out of %d", p.came, p.sent)
		}
		_ = unix.Shutdown(p.out, unix.SHUT_WR)
		return true, nil
	}
	if !s.Trunc {
		if err := pat.check(p.start, p.came, buf[:n]); err != nil {
			return false, err
		}
	}
	p.came += uint64(n)
	if w.counting() {
		w.res.Bytes += uint64(n)
	}
	return false, nil
}

// RunFirst makes sessions through a relay, one after another: connect, a
// message to the backend and back, close. Latencies are from before the connect
// until the answer has arrived.
func RunFirst(s *Spec, b *Backend) (Result, error) {
	d, err := newDialer(s.Addr, 100)
	if err != nil {
		return Result{}, err
	}
	pat, buf := newPattern(), make([]byte, s.Size)
	w := newWindow(s)
	for serial := uint64(1); !w.shut; serial++ {
		born := w.now()
		if err := session(d, b, pat.at(serial*7919, 0, s.Size), buf); err != nil {
			return Result{}, err
		}
		now := w.now()
		if w.counting() {
			w.hist.Add(now - born)
			w.res.Messages++
		}
		if err := w.step(now); err != nil {
			return Result{}, err
		}
	}
	return w.result(), nil
}

func session(d *dialer, b *Backend, msg, buf []byte) error {
	in, err := d.dial()
	if err != nil {
		return err
	}
	defer unix.Close(in)
	if err := unix.SetNonblock(in, false); err != nil {
		return err
	}
	if n, err := unix.Write(in, msg); err != nil || n < len(msg) {
		return fmt.Errorf("write took %d bytes: %w", n, err)
	}
	out, err := b.accept()
	if err != nil {
		return err
	}
	defer unix.Close(out)
	for _, hop := range [][2]int{{out, out}, {in, -1}} {
		if err := readFull(hop[0], buf); err != nil {
			return err
		}
		if string(buf) != string(msg) {
			return fmt.Errorf("got %d other bytes than were sent", len(buf))
		}
		if hop[1] >= 0 {
			if n, err := unix.Write(hop[1], buf); err != nil || n < len(buf) {
				return fmt.Errorf("write took %d bytes: %w", n, err)
			}
		}
	}
	return nil
}

func readFull(fd int, buf []byte) error {
	limit := unix.Timeval{Sec: 10}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	for n := 0; n < len(buf); {
		k, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if k == 0 {
			return errEnded
		}
		n += k
	}
	return nil
}
