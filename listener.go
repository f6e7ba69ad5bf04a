package weir

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
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

	at      int // in the loop's bag
	of      membership
	budgets []*Budget
	parked  bool // accepting waits for its tenant's turn: see dealer
	holds   int  // how often something that held accepting back was over: see look
	closed  bool
	gone    bool // the handle is closed
	paused  bool
	conns   atomic.Int64 // open, on every loop of the group; those on the way to another loop count
	tells   atomic.Bool  // gone, for the group's other loops: each connection there that ends is told of
	onDone  []func()

	draining bool // it closes once the system's queue is empty
	accepted int  // connections so far
	onClosed []func()

	refused  refusals
	waited   refusals // connections that were made to wait
	waiting  *waiters // nil if none ever had to
	scarce   bool     // the process may have few descriptors
	retry    *Timer
	errors   int       // in a row
	reported time.Time // when a shortage was last reported
}

// How a listener backs off from a shortage of descriptors or memory.
const (
	acceptRetry  = 100 * time.Millisecond
	acceptReport = 10 * time.Second
	acceptErrors = 16 // failures in a row: until then one connection's are retried at once, and others hold back
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
// host must be a literal address or in the hosts file. "sctp", "vsock" and "rfcomm" are
// as in Connect.
//
// For each connection f makes the protocol; returning nil refuses the connection.
// Errors are *net.OpError.
func (l *Loop) Listen(netw, address string, f Factory, opts ...ListenOption) (*Listener, error) {
	if err := l.check("Listen"); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing || l.ending != nil {
		return nil, ErrLoopClosed
	}
	if f == nil {
		return nil, &net.OpError{Op: "listen", Net: netw, Addr: textAddr{netw, address}, Err: errNoFactory}
	}
	c := configOf(opts)
	err := c.forTenant(l)
	if err == nil {
		err = c.forGroup(l)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: netw, Addr: textAddr{netw, address}, Err: err}
	}
	ln, err := l.listen(netw, address, c)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			return nil, err
		}
		if missing := (*MissingSocketError)(nil); !errors.As(err, &missing) {
			err = sysError("bind", err)
		}
		return nil, &net.OpError{Op: "listen", Net: netw, Addr: textAddr{netw, address}, Err: err}
	}
	ln.factory = f
	ln.scarce = ln.fewDescriptors()
	ln.budgets = l.budgets(c.tenant)
	l.listeners.Add(ln, &ln.at)
	ln.of.join(c.tenant, ln)
	ln.accept()
	return ln, nil
}

var errNoFactory = errors.New("weir: the factory is nil; pass a function that makes a protocol for each connection")

// textAddr is an address as the caller wrote it.
type textAddr struct{ net, text string }

func (a textAddr) Network() string { return a.net }
func (a textAddr) String() string  { return a.text }

// openLocal opens the socket that spec describes. On a system without IPv6, "every
// interface" means every IPv4 interface; spec is changed accordingly.
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
		n, _, _ := networkNamed(netw)
		return nil, missingSocket(n, &spec.Local, err)
	}
	ln := &Listener{loop: l, h: h, config: c}
	ln.op.Owner = (*accepting)(ln)
	ln.net, _, _ = networkNamed(netw)
	if ln.addr, err = l.be.Name(h, false); err != nil {
		ln.addr = spec.Local
	}
	return ln, nil
}

// Addr is where it listens; with port 0 asked for, the port that was picked.
func (ln *Listener) Addr() net.Addr { return netAddr(ln.net, &ln.addr) }

// ListenAddrs returns the addresses of the loop's stream listeners, in no particular
// order. It belongs to the loop's goroutine.
func (l *Loop) ListenAddrs() []net.Addr {
	if l.check("ListenAddrs") != nil {
		return nil
	}
	var all []net.Addr
	for ln := range l.listeners.All() {
		all = append(all, ln.Addr())
	}
	return all
}

// Conns is the number of the listener's connections that are open.
func (ln *Listener) Conns() int { return int(ln.conns.Load()) }

// Pause stops accepting; connections wait in the system's queue. Resume goes
// on. Calling it again has no effect.
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

// Close stops accepting: no protocol is made afterwards. Open connections stay. It
// returns nil, except for a misuse that WithDebug finds.
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
	if ln.waiting != nil {
		ln.waiting.close()
	}
	ln.waited.end(ln)
	ln.refused.end(ln)
	ln.loop.be.Cancel(&ln.op)
	ln.shut()
	return nil
}

func (ln *Listener) shut() {
	if ln.gone {
		return
	}
	ln.gone = true
	ln.tells.Store(true)
	ln.loop.shutHandle(ln.h, backend.CloseFlat)
	ln.loop.listeners.Remove(&ln.at)
	ln.of.leave()
	for _, f := range ln.onClosed {
		ln.loop.internalCall(f)
	}
	ln.onClosed = nil
	ln.checkDone()
}

// acceptQuiet is how long a listener that is shutting down gracefully must see no new
// connection before it considers the system's queue empty.
const acceptQuiet = 100 * time.Millisecond

// drain closes the listener once it has taken the connections in the system's queue,
// and then calls closed.
func (ln *Listener) drain(closed func()) {
	ln.OnClosed(closed)
	if ln.closed || ln.draining {
		return
	}
	ln.draining = true
	ln.look(ln.accepted + ln.config.backlog)
}

// look checks again after acceptQuiet, and continues if there was another connection, or
// something held accepting back meanwhile. It takes no more connections than the queue may
// have held.
func (ln *Listener) look(most int) {
	before, holds := ln.accepted, ln.holds
	ln.loop.After(acceptQuiet, func() {
		more := ln.accepted > before && !ln.paused || ln.holds != holds
		switch {
		case ln.closed:
		case ln.heldBack(), more && ln.accepted < most:
			ln.look(most)
		default:
			_ = ln.Close()
		}
	})
}

// heldBack reports whether connections have to stay in the system's queue for now: others
// wait for a place, there are no descriptors or no memory, or it is not the tenant's turn.
// Whatever ends one of these counts it in holds. An accept that fails again and again counts
// as one that fails for good, which holds nothing back.
func (ln *Listener) heldBack() bool {
	return ln.waiting != nil && len(ln.waiting.all) > 0 || ln.loop.short.on || ln.parked ||
		ln.retry != nil && ln.retry.Running() && ln.errors < acceptErrors
}

// OnClosed calls f, from the loop's queue, once the listener has stopped accepting,
// whoever closed it; if it has already stopped, f is called soon.
func (ln *Listener) OnClosed(f func()) {
	if ln.loop.check("OnClosed") != nil {
		return
	}
	if ln.gone {
		ln.loop.internalCall(f)
		return
	}
	ln.onClosed = append(ln.onClosed, f)
}

// Shutdown ends the listener gracefully. It takes the connections that wait in the
// system's queue and closes; accepted connections, including those in their handshake,
// go on until they end by themselves, but for at most d. Any that are left then are
// aborted. done is called once, from the loop's queue, when the last one is gone: with
// nil, or with the *CutError that counts what was aborted.
func (ln *Listener) Shutdown(d time.Duration, done func(error)) {
	if ln.loop.check("Shutdown") != nil {
		return
	}
	cut := &CutError{err: ErrAborted}
	var mu sync.Mutex // a group's loops count concurrently
	late := ln.loop.After(max(d, 0), func() {
		_ = ln.Close()
		ln.Each(func(t Transport) {
			s := t.(*stream) //nolint:forcetypeassert // what Each has
			n := s.stackBytes()
			mu.Lock()
			cut.Connections++
			cut.Bytes += n
			mu.Unlock()
			s.lose(ErrAborted)
		})
	})
	ln.drain(func() {})
	ln.OnDone(func() {
		late.Stop()
		mu.Lock()
		defer mu.Unlock()
		if cut.empty() {
			done(nil)
			return
		}
		done(cut)
	})
}

// Abort closes the listener and aborts its connections, including those in their
// handshake.
func (ln *Listener) Abort() {
	if ln.loop.check("Abort") != nil {
		return
	}
	_ = ln.Close()
	ln.Each(Transport.Abort)
}

// Each calls f for each open connection of the listener, including those in their
// handshake, with the transport that the factory was given, below any layers. In a
// group, f is called for connections on other loops later, on the goroutine of their
// loop.
func (ln *Listener) Each(f func(Transport)) {
	if ln.loop.check("Each") != nil {
		return
	}
	ln.eachOn(ln.loop, f)
	if g := ln.config.group; g != nil {
		for _, l := range g.loops {
			if l != ln.loop {
				// A closed loop has no connections.
				_ = l.postInternal(func() { ln.eachOn(l, f) })
			}
		}
	}
}

func (ln *Listener) eachOn(l *Loop, f func(Transport)) {
	var mine []*stream // f may close some
	for s := l.conns.first; s != nil; s = s.next {
		if s.listener == ln && s.phase < phaseLost {
			mine = append(mine, s)
		}
	}
	for _, s := range mine {
		f(s)
	}
}

// OnDone calls f, from the loop's queue, once the listener is closed and the last of
// its connections is gone, in either order; if both are true already, f is called soon.
func (ln *Listener) OnDone(f func()) {
	if ln.loop.check("OnDone") != nil {
		return
	}
	ln.onDone = append(ln.onDone, f)
	ln.checkDone()
}

func (ln *Listener) checkDone() {
	if !ln.gone || ln.conns.Load() > 0 {
		return
	}
	for _, f := range ln.onDone {
		ln.loop.internalCall(f)
	}
	ln.onDone = nil
}

func (ln *Listener) connGone() {
	ln.conns.Add(-1)
	ln.checkDone()
}

// goneElsewhere is connGone from the goroutine of another loop of the group. The
// listener's loop is told only if it may wait for that: tells is set before the counts are
// looked at, and read after they have changed.
func (ln *Listener) goneElsewhere() {
	ln.loop.away.Add(-1)
	ln.conns.Add(-1)
	if ln.tells.Load() {
		// A closed loop waits for nothing.
		_ = ln.loop.postInternal(ln.checkDone)
	}
}

// goOn accepts after something has held that back.
func (ln *Listener) goOn() {
	ln.holds++
	ln.accept()
}

// again accepts after a failure; see heldBack.
func (ln *Listener) again() {
	if ln.errors < acceptErrors {
		ln.holds++
	}
	ln.accept()
}

func (ln *Listener) accept() {
	if ln.closed || ln.paused || ln.parked || ln.op.Armed() || ln.loop.short.on || ln.full() {
		return
	}
	ln.op.Kind, ln.op.Flags, ln.op.Handle = backend.Accept, backend.Multi, ln.h
	if ln.oneByOne() {
		ln.op.Flags = 0
	}
	if c, ok := ln.loop.submit(&ln.op); ok {
		ln.acceptDone(&c)
	}
}

// accepting is a Listener as the backend sees it.
type accepting Listener

var _ backend.Owner = (*accepting)(nil)

func (a *accepting) OpDone(c *backend.Completion) { (*Listener)(a).acceptDone(c) }

// acceptDone handles the result of an accept.
func (ln *Listener) acceptDone(c *backend.Completion) {
	switch {
	case c.Err == nil && (ln.closed && !ln.draining || ln.paused && ln.gone):
		// The listener was closed or paused between the accept and now: no one will serve
		// the connection.
		ln.loop.shutHandle(backend.Handle(c.N), backend.CloseReset)
	case c.Err == nil:
		ln.accepted++
		ln.errors = 0
		ln.made(c)
	case c.Err != backend.ErrAgain && c.Err != backend.ErrCanceled && !ln.closed:
		ln.failed(c.Err)
		return
	}
	ln.accept()
}

// made starts a connection.
func (ln *Listener) made(c *backend.Completion) {
	h, peer := backend.Handle(c.N), c.Peer
	if ln.admit(h, peer) {
		ln.begin(h, peer)
	}
	if ln.op.Flags&backend.Multi != 0 && ln.op.Armed() && ln.oneByOne() {
		ln.loop.be.Cancel(&ln.op) // accept goes on, one by one
	}
}

// begin starts an admitted connection, on the loop or another of its group.
func (ln *Listener) begin(h backend.Handle, peer *backend.Addr) {
	if err := ln.enter(); err != nil {
		ln.refuse(h, peerIP(peer), err)
		ln.vacate(peerIP(peer))
		return
	}
	if g := ln.config.group; g != nil {
		g.place(ln, h, peer)
		return
	}
	ln.serve(ln.loop, h, peer)
}

// serve starts a connection on l, which is ln's loop or another of its group.
func (ln *Listener) serve(l *Loop, h backend.Handle, peer *backend.Addr) {
	s := newSocket(l, h, h, ln.net, ln.config)
	if peer != nil {
		s.setAddr(peer, false)
	}
	if !everywhere(&ln.addr) {
		s.setAddr(&ln.addr, true)
	}
	s.listener = ln
	if l == ln.loop {
		ln.conns.Add(1)
	}
	s.begin(ln.factory)
}

// failed decides what a failed accept means: one bad connection, or a shortage, where
// retrying at once would only spin.
func (ln *Listener) failed(err error) {
	ln.errors++
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
	if outOfDescriptors(err) {
		ln.loop.shortOf() // it accepts again when the shortage is over
		return
	}
	if ln.retry == nil {
		ln.retry = ln.loop.NewTimer(ln.again)
	}
	ln.retry.Set(acceptRetry)
}

// oneConnection reports whether one connection caused the accept to fail: it went away,
// or a filter refused it.
func oneConnection(err error) bool {
	return errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EPROTO) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ENETDOWN) || errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.Is(err, syscall.ENETUNREACH)
}

// ListenAndServe makes a loop, listens and runs until the loop fails. A small server
// needs nothing else.
func ListenAndServe(netw, address string, f Factory, opts ...ListenOption) error {
	l, err := NewLoop()
	if err != nil {
		return err
	}
	if _, err = l.Listen(netw, address, f, opts...); err != nil {
		return errors.Join(err, l.Close())
	}
	return errors.Join(l.Run(), l.Close())
}
