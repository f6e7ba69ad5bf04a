package weir

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// Listener accepts connections for a loop and makes a protocol for each. Its
// methods belong to the loop's goroutine.
type Listener struct {
	loop    *Loop
	h       backend.Handle
	op      backend.Op
	addr    backend.Addr
	net     network
	factory Factory
	config  *connConfig

	at     int // in the loop's bag
	closed bool
	gone   bool // the handle is closed
	paused bool
	conns  int
	onDone []func()

	retry    *Timer
	errors   int       // in a row
	reported time.Time // when a shortage was last reported
}

// How a listener backs off from a shortage of descriptors or memory.
const (
	acceptRetry  = 100 * time.Millisecond
	acceptReport = 10 * time.Second
	acceptErrors = 16 // failures in a row that are taken one by one
)

// AcceptError tells the error handler that connections cannot be accepted for
// now. The listener tries again by itself.
type AcceptError struct {
	Addr net.Addr
	Err  error
}

func (e *AcceptError) Error() string {
	return "weir: cannot accept on " + e.Addr.String() + ": " + e.Err.Error() + "; trying again every " + acceptRetry.String()
}

// Unwrap returns the cause.
func (e *AcceptError) Unwrap() error { return e.Err }

// Listen accepts connections on an address, as net.Listen names them: "tcp",
// "tcp4" or "tcp6" with "host:port" (an empty host is every interface, port 0
// picks a free one), or "unix" with a path or "@name" for an abstract one. The
// host must be a literal address or in the hosts file.
//
// For each connection f makes the protocol; one that returns nil refuses it.
// Errors are *net.OpError.
func (l *Loop) Listen(netw, address string, f Factory, opts ...Option) (*Listener, error) {
	if err := l.check("Listen"); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing {
		return nil, ErrLoopClosed
	}
	c := configOf(opts)
	ln, err := l.listen(netw, address, c)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			return nil, err
		}
		return nil, &net.OpError{Op: "listen", Net: netw, Addr: textAddr{netw, address}, Err: sysError("bind", err)}
	}
	ln.factory = f
	l.listeners.add(ln)
	ln.accept()
	return ln, nil
}

// textAddr is an address as the caller wrote it.
type textAddr struct{ net, text string }

func (a textAddr) Network() string { return a.net }
func (a textAddr) String() string  { return a.text }

// openLocal opens what spec says. Where there is no IPv6, every interface means
// every IPv4 interface, and spec says that afterwards.
func (l *Loop) openLocal(spec *backend.Spec) (backend.Handle, error) {
	h, err := l.be.Open(spec)
	if errors.Is(err, syscall.EAFNOSUPPORT) && spec.Dual {
		spec.IPv6, spec.Dual = false, false
		spec.Local.IP = anyIPv4(spec.Local.IP.Port())
		h, err = l.be.Open(spec)
	}
	return h, err
}

func (l *Loop) listen(netw, address string, c *connConfig) (*Listener, error) {
	if c.err != nil {
		return nil, c.err
	}
	spec, err := listenSpec(netw, address, c)
	if err != nil {
		return nil, err
	}
	h, err := l.openLocal(spec)
	if err != nil {
		return nil, err
	}
	ln := &Listener{loop: l, h: h, config: c}
	ln.op.Owner = ln
	if spec.Family == backend.Unix {
		ln.net = netUnix
	}
	if ln.addr, err = l.be.Name(h, false); err != nil {
		ln.addr = spec.Local
	}
	return ln, nil
}

// Addr is where it listens; with port 0 asked for, the port that was picked.
func (ln *Listener) Addr() net.Addr { return netAddr(ln.addr) }

func (ln *Listener) place() *int { return &ln.at }

// Conns is how many of its connections are open.
func (ln *Listener) Conns() int { return ln.conns }

// Pause stops accepting; connections wait in the system's queue. Resume goes
// on. Again is nothing.
func (ln *Listener) Pause() {
	if ln.loop.check("Pause") != nil || ln.paused || ln.closed {
		return
	}
	ln.paused = true
	ln.loop.be.Cancel(&ln.op)
}

// Resume undoes Pause.
func (ln *Listener) Resume() {
	if ln.loop.check("Resume") != nil || !ln.paused {
		return
	}
	ln.paused = false
	ln.accept()
}

// Close stops accepting: no protocol is made afterwards. Its connections stay.
// It always returns nil.
func (ln *Listener) Close() error {
	if err := ln.loop.check("Close"); err != nil {
		return err
	}
	if ln.closed {
		return nil
	}
	ln.closed = true
	if ln.retry != nil {
		ln.retry.Stop()
	}
	if ln.op.Armed() && !ln.loop.be.Cancel(&ln.op) {
		return nil // its last result comes to OpDone
	}
	ln.shut()
	return nil
}

func (ln *Listener) shut() {
	if ln.gone {
		return
	}
	ln.gone = true
	ln.loop.shutHandle(ln.h, backend.CloseFlat)
	ln.loop.listeners.remove(ln)
	ln.checkDone()
}

// OnDone calls f, from the loop's queue, once the listener is closed and the
// last of its connections is gone, in either order; soon if that is so now.
func (ln *Listener) OnDone(f func()) {
	if ln.loop.check("OnDone") != nil {
		return
	}
	ln.onDone = append(ln.onDone, f)
	ln.checkDone()
}

func (ln *Listener) checkDone() {
	if !ln.gone || ln.conns > 0 {
		return
	}
	for _, f := range ln.onDone {
		ln.loop.internalCall(f)
	}
	ln.onDone = nil
}

func (ln *Listener) connGone() {
	ln.conns--
	ln.checkDone()
}

// goneElsewhere is connGone from the goroutine of another loop of the group.
func (ln *Listener) goneElsewhere() {
	// A closed loop counts no more.
	_ = ln.loop.postInternal(ln.connGone)
}

func (ln *Listener) accept() {
	if ln.closed || ln.paused || ln.op.Armed() {
		return
	}
	ln.op.Kind, ln.op.Flags, ln.op.Handle = backend.Accept, backend.Multi, ln.h
	if c, ok := ln.loop.submit(&ln.op); ok {
		ln.OpDone(&c)
	}
}

// OpDone implements backend.Owner.
func (ln *Listener) OpDone(c *backend.Completion) {
	switch {
	case c.Err == nil && (ln.closed || ln.paused && ln.gone):
		// It came between accept and handling: nobody will serve it.
		ln.loop.shutHandle(backend.Handle(c.N), backend.CloseReset)
	case c.Err == nil:
		ln.errors = 0
		ln.made(c)
	case c.Err != backend.ErrAgain && c.Err != backend.ErrCanceled && !ln.closed:
		ln.failed(c.Err)
		return
	}
	if ln.closed {
		if !ln.op.Armed() {
			ln.shut()
		}
		return
	}
	ln.accept()
}

// made starts a connection.
func (ln *Listener) made(c *backend.Completion) {
	h, peer := backend.Handle(c.N), c.Peer
	if g := ln.config.group; g != nil {
		g.place(ln, h, peer)
		return
	}
	ln.serve(ln.loop, h, peer)
}

// serve starts a connection on l, which is ln's loop or another of its group.
func (ln *Listener) serve(l *Loop, h backend.Handle, peer *backend.Addr) {
	s := newStream(l, h, h, ln.net, ln.config)
	if peer != nil {
		s.setAddr(peer, false)
	}
	if ln.addr.Family == backend.Unix || !ln.addr.IP.Addr().IsUnspecified() {
		s.setAddr(&ln.addr, true)
	}
	s.listener = ln
	if l == ln.loop {
		ln.conns++
	}
	s.begin(ln.factory)
}

// failed decides what a failed accept means: this connection only, or a
// shortage that trying again at once would turn into a spin.
func (ln *Listener) failed(err error) {
	ln.errors++
	if planted == "accept-spins" {
		ln.accept()
		return
	}
	if planted == "accept-stops" && oneConnection(err) {
		return
	}
	if oneConnection(err) && ln.errors < acceptErrors {
		ln.accept()
		return
	}
	if !oneConnection(err) {
		if now := ln.loop.Now(); ln.reported.IsZero() || now.Sub(ln.reported) >= acceptReport {
			ln.reported = now
			ln.loop.report(&AcceptError{Addr: ln.Addr(), Err: os.NewSyscallError("accept", err)})
		}
	}
	if ln.retry == nil {
		ln.retry = ln.loop.NewTimer(ln.accept)
	}
	ln.retry.Set(acceptRetry)
}

// oneConnection reports whether a failed accept is the doing of one connection:
// it went away, or a filter refused it.
func oneConnection(err error) bool {
	return errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EPROTO) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ENETDOWN) || errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.Is(err, syscall.ENETUNREACH)
}

// ListenAndServe makes a loop, listens and runs until the loop fails. It is
// all that a small server needs.
func ListenAndServe(netw, address string, f Factory, opts ...Option) error {
	l, err := New()
	if err != nil {
		return err
	}
	if _, err = l.Listen(netw, address, f, opts...); err != nil {
		return errors.Join(err, l.Close())
	}
	return errors.Join(l.Run(), l.Close())
}
