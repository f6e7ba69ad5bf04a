package load

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// sessionLoad is sessions through a relay, several at one time, with both ends here.
type sessionLoad struct {
	s    *Spec
	b    *Backend
	w    *window
	poll *poller
	dial *dialer
	pat  pattern
	buf  []byte

	clients []clientSession
	servers map[int]*serverSession // by descriptor
	serial  uint64
	gone    bool // no new ones begin
}

type clientSession struct {
	fd    int
	born  int64
	start uint64
	came  int
}

type serverSession struct {
	came int
}

// RunSessions keeps Conns sessions going through a relay: connect, a message to the backend
// and back, close by the client. The backend ends when its peer has. Latencies are from
// before the connect until the answer has arrived. With Steps, primed is called once, after
// as many sessions as go at one time.
func RunSessions(s *Spec, b *Backend, primed func() error) (Result, error) {
	poll, err := newPoller()
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(poll.fd)
	d, err := newDialer(s.Addr, 100)
	if err != nil {
		return Result{}, err
	}
	if err := unix.SetNonblock(b.fd, true); err != nil {
		return Result{}, err
	}
	l := &sessionLoad{
		s: s, b: b, poll: poll, dial: d, pat: newPattern(), buf: make([]byte, chunk),
		clients: make([]clientSession, s.Conns), servers: map[int]*serverSession{},
	}
	// Clients are told from the backend's descriptors by their index: it is below 0.
	if err := poll.add(b.fd, b.fd, unix.EPOLLIN); err != nil {
		return Result{}, err
	}
	defer l.close()
	l.w = newWindow(s)
	if s.Steps {
		if err := l.prime(); err != nil {
			return Result{}, err
		}
		if err := primed(); err != nil {
			return Result{}, err
		}
		l.gone, l.serial = false, 0
		l.w = newWindow(s)
	}
	for i := range l.clients {
		if err := l.begin(i); err != nil {
			return Result{}, err
		}
	}
	for !l.w.shut {
		if err := l.turn(); err != nil {
			return Result{}, err
		}
	}
	res := l.w.result()
	res.All = l.serial
	return res, nil
}

// prime makes the first sessions, and waits until both ends of all have gone.
func (l *sessionLoad) prime() error {
	for i := range l.clients {
		if err := l.begin(i); err != nil {
			return err
		}
	}
	l.gone = true
	for open := true; open; {
		if err := l.turn(); err != nil {
			return err
		}
		open = len(l.servers) > 0
		for i := range l.clients {
			open = open || l.clients[i].fd != 0
		}
		if l.w.shut {
			return fmt.Errorf("the first sessions did not end: %w", errMissing)
		}
	}
	return nil
}

func (l *sessionLoad) close() {
	for i := range l.clients {
		if c := &l.clients[i]; c.fd != 0 {
			_ = unix.Close(c.fd)
		}
	}
	for fd := range l.servers {
		_ = unix.Close(fd)
	}
}

func (l *sessionLoad) begin(i int) error {
	born := l.w.now()
	fd, err := l.dial.dial()
	if err != nil {
		return err
	}
	l.serial++
	c := &l.clients[i]
	*c = clientSession{fd: fd, born: born, start: l.serial * 7919}
	if n, errno := write(fd, l.pat.at(c.start, 0, l.s.Size)); errno != 0 || n != l.s.Size {
		return fmt.Errorf("first write took %d bytes: %w", n, errno)
	}
	return l.poll.add(fd, -1-i, unix.EPOLLIN)
}

func (l *sessionLoad) turn() error {
	evs, err := l.poll.wait(10)
	if err != nil {
		return err
	}
	for _, ev := range evs {
		switch fd := int(ev.Fd); {
		case fd < 0:
			err = l.client(-1 - fd)
		case fd == l.b.fd:
			err = l.accept()
		default:
			err = l.server(fd)
		}
		if err != nil {
			return err
		}
	}
	return l.w.step(l.w.now())
}

// client takes what came back, and begins the next session after the last byte.
func (l *sessionLoad) client(i int) error {
	c := &l.clients[i]
	n, errno := read(c.fd, l.buf)
	switch {
	case errno == unix.EAGAIN:
		return nil
	case errno != 0:
		return fmt.Errorf("read: %w", errno)
	case n == 0:
		return errEnded
	}
	if err := l.pat.check(c.start, uint64(c.came), l.buf[:n]); err != nil {
		return err
	}
	if c.came += n; c.came < l.s.Size {
		return nil
	}
	if l.w.counting() {
		l.w.hist.Add(l.w.now() - c.born)
		l.w.res.Messages++
		l.w.res.Bytes += uint64(c.came)
	}
	if err := unix.Close(c.fd); err != nil {
		return err
	}
	c.fd = 0
	if l.gone {
		return nil
	}
	return l.begin(i)
}

// accept takes the relay's connections.
func (l *sessionLoad) accept() error {
	for {
		fd, _, err := unix.Accept4(l.b.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err == unix.EAGAIN || err == unix.EINTR || err == unix.ECONNABORTED {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		l.servers[fd] = &serverSession{}
		if err := l.poll.add(fd, fd, unix.EPOLLIN); err != nil {
			return err
		}
	}
}

// server sends back what came, and ends when the relay does.
func (l *sessionLoad) server(fd int) error {
	c := l.servers[fd]
	if c == nil {
		return nil
	}
	n, errno := read(fd, l.buf)
	switch {
	case errno == unix.EAGAIN:
		return nil
	case errno == 0 && n > 0:
		c.came += n
		if k, errno := write(fd, l.buf[:n]); errno != 0 || k < n {
			return fmt.Errorf("the backend's write took %d bytes: %w", k, errno)
		}
		return nil
	case errno == 0 && c.came != l.s.Size:
		return fmt.Errorf("the backend got %d bytes of %d: %w", c.came, l.s.Size, errMissing)
	case errno != 0 && errno != unix.ECONNRESET:
		return fmt.Errorf("the backend's read: %w", errno)
	}
	delete(l.servers, fd)
	return unix.Close(fd)
}
