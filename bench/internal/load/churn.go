package load

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// RunChurn keeps Conns sessions going at one time, each of them a connect, one
// message there and back, and a close. Latencies are of whole sessions except
// the close.
func RunChurn(s *Spec) (Result, error) {
	poll, err := newPoller()
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(poll.fd)
	d, err := newDialer(s.Addr, 100)
	if err != nil {
		return Result{}, err
	}
	pat, buf := newPattern(), make([]byte, chunk)
	w := newWindow(s)
	type session struct {
		fd    int
		born  int64
		start uint64
		came  int
	}
	live := make([]session, s.Conns)
	serial := uint64(0)
	begin := func(i int) error {
		born := w.now()
		fd, err := d.dial()
		if err != nil {
			return err
		}
		serial++
		live[i] = session{fd: fd, born: born, start: serial * 7919}
		if n, errno := write(fd, pat.at(live[i].start, 0, s.Size)); errno != 0 || n != s.Size {
			return fmt.Errorf("first write took %d bytes: %w", n, errno)
		}
		return poll.add(fd, i, unix.EPOLLIN)
	}
	for i := range live {
		if err := begin(i); err != nil {
			return Result{}, err
		}
	}
	for !w.shut {
		evs, err := poll.wait(10)
		if err != nil {
			return Result{}, err
		}
		for _, ev := range evs {
			c := &live[ev.Fd]
			n, errno := read(c.fd, buf)
			if errno == unix.EAGAIN {
				continue
			}
			if errno != 0 {
				return Result{}, fmt.Errorf("read: %w", errno)
			}
			if n == 0 {
				return Result{}, errEnded
			}
			if err := pat.check(c.start, uint64(c.came), buf[:n]); err != nil {
				return Result{}, err
			}
			if c.came += n; c.came < s.Size {
				continue
			}
			if w.counting() {
				w.hist.Add(w.now() - c.born)
				w.res.Messages++
				w.res.Bytes += uint64(c.came)
			}
			if err := unix.Close(c.fd); err != nil {
				return Result{}, err
			}
			if err := begin(int(ev.Fd)); err != nil {
				return Result{}, err
			}
		}
		if err := w.step(w.now()); err != nil {
			return Result{}, err
		}
	}
	for _, c := range live {
		_ = unix.Close(c.fd)
	}
	return w.result(), nil
}
