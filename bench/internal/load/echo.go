package load

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// client is one connection that sends messages and takes them back.
//
//	0 ── came ── sent ── goal ──▶ bytes of its stream
type client struct {
	fd               int
	start            uint64 // where in the pattern its stream begins
	came, sent, goal uint64
	size             uint64
	when             []int64 // a ring: when the messages under way left, or should have
	head, n          int
	greedy, blocked  bool
}

// echo is a load of Kind Echo.
type echo struct {
	spec    *Spec
	w       *window
	poll    *poller
	pat     pattern
	buf     []byte
	clients []client
	b       *Backend // of a relay; nil: the server itself answers
}

const (
	greedySize  = 64 << 10
	greedyDepth = 16
)

// errEnded means that the server closed a connection that it should have kept.
var errEnded = fmt.Errorf("the server closed a connection: %w", io.ErrUnexpectedEOF)

// RunEcho connects, warms up, counts, and returns what it counted and a
// function that closes the connections. It calls primed when every connection
// is there and has had its first message.
func RunEcho(s *Spec, primed func() error) (Result, func(), error) {
	return (&echo{spec: s}).run(func() error { return nil }, primed)
}

// RunMany is RunEcho through relays, whose backend answers. It calls few when a tenth of the
// connections are there and have had their first message, if spec.Memory is set.
func RunMany(s *Spec, b *Backend, few, primed func() error) (Result, func(), error) {
	return (&echo{spec: s, b: b}).run(few, primed)
}

func (e *echo) run(few, primed func() error) (Result, func(), error) {
	s := e.spec
	e.pat, e.buf = newPattern(), make([]byte, chunk)
	closing := func() {
		for i := range e.clients {
			_ = unix.Close(e.clients[i].fd)
		}
		if e.poll != nil {
			_ = unix.Close(e.poll.fd)
		}
	}
	err := e.start()
	if all := s.Conns + s.Greedy; err == nil && s.Memory {
		if err = e.connect(all / 10); err == nil {
			err = e.prime(0)
		}
		if err == nil {
			err = few()
		}
	}
	if primed := len(e.clients); err == nil {
		if err = e.connect(s.Conns + s.Greedy); err == nil {
			err = e.prime(primed)
		}
	}
	if err == nil {
		err = primed()
		e.w = newWindow(s)
	}
	switch {
	case err != nil || s.Memory: // they stay idle
	case s.Rate > 0:
		err = e.openLoop()
	default:
		err = e.closedLoop()
	}
	if err == nil {
		err = e.quiet()
	}
	if err != nil {
		closing()
		return Result{}, func() {}, err
	}
	return e.w.result(), closing, nil
}

func (e *echo) start() (err error) {
	if e.poll, err = newPoller(); err != nil || e.b == nil {
		return err
	}
	if err := unix.SetNonblock(e.b.fd, true); err != nil {
		return err
	}
	// Clients are told from the backend's descriptors by their index: it is not below 0.
	return e.poll.add(e.b.fd, -1-e.b.fd, unix.EPOLLIN)
}

// connect makes connections until there are n.
func (e *echo) connect(n int) error {
	d, err := newDialer(e.spec.Addr, 1)
	if err != nil {
		return err
	}
	for i := len(e.clients); i < n; i++ {
		fd, err := d.dial()
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		c := client{fd: fd, start: uint64(i) * 7919, size: uint64(e.spec.Size)}
		if i >= e.spec.Conns {
			c.greedy, c.size = true, greedySize
		}
		e.clients = append(e.clients, c)
		if err := e.poll.add(fd, i, unix.EPOLLIN); err != nil {
			return err
		}
		if e.b != nil && i%64 == 0 {
			// The backend's queue is not as long as there are connections.
			if err := e.take(0); err != nil {
				return err
			}
		}
	}
	return nil
}

// take takes what has arrived.
func (e *echo) take(ms int) error {
	evs, err := e.poll.wait(ms)
	if err != nil {
		return err
	}
	for _, ev := range evs {
		if _, err := e.event(ev); err != nil {
			return err
		}
	}
	return nil
}

// backend serves the backend of a relay: it sends back what came.
func (e *echo) backend(fd int) error {
	if fd != e.b.fd {
		n, errno := read(fd, e.buf)
		switch {
		case errno == unix.EAGAIN:
			return nil
		case errno != 0:
			return fmt.Errorf("the backend's read: %w", errno)
		case n == 0:
			return unix.Close(fd)
		}
		if k, errno := write(fd, e.buf[:n]); errno != 0 || k < n {
			return fmt.Errorf("the backend's write took %d bytes: %w", k, errno)
		}
		return nil
	}
	for {
		fd, _, err := unix.Accept4(e.b.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR || err == unix.ECONNABORTED:
			return nil
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if err := e.poll.add(fd, -1-fd, unix.EPOLLIN); err != nil {
			return err
		}
	}
}

// prime sends one message on each connection from the given one on and waits for all, so
// that every connection is accepted before the rest.
func (e *echo) prime(from int) error {
	e.w = newWindow(&Spec{Warm: time.Hour})
	for i := from; i < len(e.clients); i++ {
		if err := e.send(i, e.w.now()); err != nil {
			return err
		}
	}
	if err := e.drain(30 * time.Second); err != nil {
		return fmt.Errorf("first messages: %w", err)
	}
	return nil
}

// quiet takes back what is under way.
func (e *echo) quiet() error {
	e.w.shut = true
	if err := e.drain(10 * time.Second); err != nil {
		return fmt.Errorf("last messages: %w", err)
	}
	return nil
}

var errMissing = errors.New("messages did not come back")

func (e *echo) drain(limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		under := 0
		for i := range e.clients {
			under += e.clients[i].n
		}
		if under == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d %w in %v", under, errMissing, limit)
		}
		if err := e.take(100); err != nil {
			return err
		}
	}
}

func (e *echo) closedLoop() error {
	for i := range e.clients {
		depth := max(e.spec.Depth, 1)
		if e.clients[i].greedy {
			depth = greedyDepth
		}
		for range depth {
			e.queue(i, e.w.now())
		}
		if err := e.flush(i); err != nil {
			return err
		}
	}
	for !e.w.shut {
		evs, err := e.poll.wait(10)
		if err != nil {
			return err
		}
		for _, ev := range evs {
			if err := e.answer(ev); err != nil {
				return err
			}
		}
		if err := e.w.step(e.w.now()); err != nil {
			return err
		}
	}
	return nil
}

// answer takes what arrived on a connection and sends the same number of messages again.
func (e *echo) answer(ev unix.EpollEvent) error {
	done, err := e.event(ev)
	if err != nil || done == 0 {
		return err
	}
	now := e.w.now()
	for range done {
		e.queue(int(ev.Fd), now)
	}
	return e.flush(int(ev.Fd))
}

func (e *echo) openLoop() error {
	for i := e.spec.Conns; i < len(e.clients); i++ {
		for range greedyDepth {
			e.queue(i, e.w.now())
		}
		if err := e.flush(i); err != nil {
			return err
		}
	}
	gap := 1e9 / e.spec.Rate
	first, sent := e.w.now(), 0
	for {
		now := e.w.now()
		if err := e.w.step(now); err != nil {
			return err
		}
		if e.w.shut {
			break
		}
		for {
			due := first + int64(float64(sent)*gap)
			if due > now {
				break
			}
			if err := e.send(sent%e.spec.Conns, due); err != nil {
				return err
			}
			sent++
		}
		evs, err := e.poll.wait(0)
		if err != nil {
			return err
		}
		for _, ev := range evs {
			if ev.Fd >= 0 && e.clients[ev.Fd].greedy {
				err = e.answer(ev)
			} else {
				_, err = e.event(ev)
			}
			if err != nil {
				return err
			}
		}
	}
	return e.late()
}

// late gives messages sent in the window a second to come back; one that does
// not counts with the time it has taken.
func (e *echo) late() error {
	end := time.Now().Add(time.Second)
	count := func() (n uint64) {
		for i := range e.clients {
			if c := &e.clients[i]; !c.greedy {
				n += uint64(c.n)
			}
		}
		return n
	}
	for e.w.res.Late = count(); e.w.res.Late > 0 && time.Now().Before(end); e.w.res.Late = count() {
		evs, err := e.poll.wait(10)
		if err != nil {
			return err
		}
		for _, ev := range evs {
			if _, err := e.event(ev); err != nil {
				return err
			}
		}
	}
	now := e.w.now()
	for i := range e.clients {
		c := &e.clients[i]
		for k := 0; k < c.n && !c.greedy; k++ {
			e.w.hist.Add(now - c.when[(c.head+k)%len(c.when)])
		}
	}
	return nil
}

// queue adds a message that must leave, or should have left, at t.
func (e *echo) queue(i int, t int64) {
	c := &e.clients[i]
	if c.n == len(c.when) {
		bigger := make([]int64, max(4, 2*c.n))
		for k := range c.n {
			bigger[k] = c.when[(c.head+k)%c.n]
		}
		c.when, c.head = bigger, 0
	}
	c.when[(c.head+c.n)%len(c.when)] = t
	c.n++
	c.goal += c.size
}

func (e *echo) send(i int, t int64) error {
	e.queue(i, t)
	return e.flush(i)
}

// flush writes up to the goal, as far as the socket accepts it.
func (e *echo) flush(i int) error {
	c := &e.clients[i]
	for c.sent < c.goal {
		n, errno := write(c.fd, e.pat.at(c.start, c.sent, int(c.goal-c.sent)))
		if errno == unix.EAGAIN {
			if c.blocked {
				return nil
			}
			c.blocked = true
			return e.poll.modify(c.fd, i, unix.EPOLLIN|unix.EPOLLOUT)
		}
		if errno != 0 {
			return fmt.Errorf("write: %w", errno)
		}
		c.sent += uint64(n)
	}
	if c.blocked {
		c.blocked = false
		return e.poll.modify(c.fd, i, unix.EPOLLIN)
	}
	return nil
}

// event reads and checks what arrived on a connection; it returns how many
// messages are now complete.
func (e *echo) event(ev unix.EpollEvent) (done int, err error) {
	i := int(ev.Fd)
	if i < 0 {
		return 0, e.backend(-1 - i)
	}
	c := &e.clients[i]
	if ev.Events&unix.EPOLLOUT != 0 {
		if err := e.flush(i); err != nil {
			return 0, err
		}
	}
	if ev.Events&^unix.EPOLLOUT == 0 {
		return 0, nil
	}
	n, errno := read(c.fd, e.buf)
	if errno == unix.EAGAIN {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("read: %w", errno)
	}
	if n == 0 {
		return 0, errEnded
	}
	if c.came+uint64(n) > c.sent {
		return 0, fmt.Errorf("%d bytes came back of %d sent", c.came+uint64(n), c.sent)
	}
	if err := e.pat.check(c.start, c.came, e.buf[:n]); err != nil {
		return 0, err
	}
	done = int((c.came+uint64(n))/c.size - c.came/c.size)
	c.came += uint64(n)
	e.count(c, done, n)
	return done, nil
}

// count accounts for complete messages and received bytes.
func (e *echo) count(c *client, done, bytes int) {
	now := e.w.now()
	counting := e.w.counting()
	e.w.res.All += uint64(done)
	if counting {
		e.w.res.Bytes += uint64(bytes)
		if !c.greedy {
			e.w.res.Messages += uint64(done)
		}
	}
	for range done {
		left := c.when[c.head]
		c.head = (c.head + 1) % len(c.when)
		c.n--
		if c.greedy {
			continue
		}
		// Closed: messages that end in the window. Open: messages that had to leave
		// in it, however late they come back.
		if e.spec.Rate > 0 && e.w.open && left >= e.w.from && (!e.w.shut || left < e.w.to) || e.spec.Rate == 0 && counting {
			e.w.hist.Add(now - left)
		}
	}
}
