package weir

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/hosts"
	"github.com/weir-io/weir/internal/timeout"
)

// Connector is a connect in progress. Its methods belong to the loop's
// goroutine.
//
//	name ──▶ candidates ──▶ attempts, racing or one by one ──▶ agreeing ──▶ connected
//	  └──────────┴───────────────────┴─────────────────────────┴──▶ ConnectFailed
//	                                                               with every error
//
// Only a Handshaker has something to agree on.
type Connector struct {
	loop             *Loop
	network, address string
	proto            Protocol
	config           *connConfig
	net              network

	cancelName func()
	candidates []backend.Addr
	running    []*attempt
	failures   []*AttemptError
	stage      Stage
	race       *Timer    // starts the next candidate; nil: it was never needed
	deadline   *Timer    // likewise
	until      time.Time // when deadline is, if there is one
	short      time.Time // until when it waits for a descriptor; zero if it never had to
	began      bool      // it was begun with its arguments in order
	waits      bool      // for a descriptor
	listed     bool      // is in the loop's list of those that wait
	finished   bool      // nothing here is under way, except perhaps agreeing
	agreeing   Transport // the transport of a Handshaker
	cause      error     // why this end stopped the agreeing
	at         int       // in the loop's bag
	of         membership
}

// Handshaker is a Protocol that has to agree on something with its peer, such as TLS or a
// request to a proxy, before the protocols above it have a connection. layer.Client
// makes one. The Connector stays in charge until they agree: Stop and WithTimeout work
// at that stage too, and a failure there is reported with all the others.
type Handshaker interface {
	ConnectFailer
	// OnHandshake arranges for f to be called once, after ConnectionMade and instead of
	// the Handshaker's own report: with nil when both sides have agreed, before the
	// protocol above hears of it; with the reason once the transport is lost or sure to
	// be.
	OnHandshake(f func(err *AttemptError))
}

// attempt is one candidate being connected.
type attempt struct {
	c     *Connector
	h     backend.Handle
	op    backend.Op
	addr  backend.Addr
	own   backend.Addr // this end's, once it is connected over IP
	timer *Timer
	over  bool // its result no longer counts
	how   backend.How
}

var _ backend.Owner = (*attempt)(nil)

// Connect connects p to an address, named as net.Dial names them: "tcp", "tcp4" or
// "tcp6" with "host:port", "unix" with a path or "@name". On Linux there are also "sctp",
// "sctp4" and "sctp6" (one-to-one SCTP sockets, RFC 6458) with "host:port", "vsock" with
// what ParseVsockAddr reads, and "rfcomm" with what ParseRFCOMMAddr reads; the error is a
// *MissingSocketError where the system lacks them. The protocol exists first: it gets ConnectionMade, or ConnectFailed if it is a ConnectFailer, never from inside
// this call. If p does not take the failure, the loop's error handler gets it. A name's
// addresses are raced (RFC 8305) unless WithSequential asks otherwise.
//
// While the loop is being closed, Connect fails with ErrLoopClosed; called from inside
// a ConnectFailed with that error it has no effect. On a closed loop, where nothing can
// run later, ConnectFailed is called from inside Connect.
func (l *Loop) Connect(netw, address string, p Protocol, opts ...ConnectOption) *Connector {
	c := &Connector{loop: l, network: netw, address: address, proto: p, config: configOf(opts), stage: StageName}
	if err := l.check("Connect"); err != nil {
		c.finished = true
		return c
	}
	state := l.state.Load()
	if state >= loopClosing && l.failing {
		c.finished = true
		return c
	}
	l.attempts.Add(c, &c.at)
	switch {
	case state == loopClosed:
		c.fail(ErrLoopClosed)
		return c
	case state == loopClosing:
		l.internalCall(func() { c.fail(ErrLoopClosed) })
		return c
	case p == nil:
		l.internalCall(func() { c.fail(errNoProtocol) })
		return c
	case c.config.err != nil:
		l.internalCall(func() { c.fail(c.config.err) })
		return c
	}
	if err := c.join(); err != nil {
		l.internalCall(func() { c.fail(err) })
		return c
	}
	c.began = true
	if c.config.total > 0 {
		c.until = l.Now().Add(c.config.total)
		c.deadline = l.After(c.config.total, c.late)
	}
	l.internalCall(c.begin)
	return c
}

// raceAfter has startNext called after d.
func (c *Connector) raceAfter(d time.Duration) {
	if c.race == nil {
		c.race = c.loop.NewTimer(c.startNext)
	}
	c.race.Set(d)
}

// stopRace ends the wait for the next candidate.
func (c *Connector) stopRace() {
	if c.race != nil {
		c.race.Stop()
	}
}

// timedOut is the error of a stage that took longer than its limit.
func timedOut(s Stage) error { return timeout.New(string(s) + " timed out") }

// Stop ends the connect: its sockets are closed and the protocol gets ConnectFailed
// with ErrStopped, though never from inside Stop. It reports false if the connect is
// already over.
func (c *Connector) Stop() bool {
	if c.loop.check("Stop") != nil {
		return false
	}
	if c.agreeing != nil && c.cause == nil {
		c.cause = ErrStopped
		c.agreeing.Abort()
		return true
	}
	if c.finished {
		return false
	}
	c.end()
	c.loop.internalCall(func() { c.tell(ErrStopped) })
	return true
}

// late ends a connect that has used up its time.
func (c *Connector) late() {
	if c.agreeing == nil {
		c.fail(timedOut(c.stage))
	} else if c.cause == nil {
		c.cause = timedOut(StageHandshake)
		c.agreeing.Abort()
	}
}

func (c *Connector) begin() {
	if c.finished {
		return
	}
	n, family, ok := networkNamed(c.network)
	if !ok {
		c.fail(net.UnknownNetworkError(c.network))
		return
	}
	c.net = n
	switch {
	case n == netUnix && c.address == "":
		c.fail(&net.AddrError{Err: "a UNIX socket needs a path or @name", Addr: c.address})
		return
	case n == netUnix:
		c.candidates = []backend.Addr{{Family: backend.Unix, Path: c.address}}
		c.connect()
		return
	case !n.inet():
		a, err := otherAddr(c.network, c.address, false)
		if err != nil {
			c.fail(err)
			return
		}
		c.candidates = []backend.Addr{a}
		c.connect()
		return
	}
	host, port, err := splitHostPort(c.network, c.address)
	if err != nil {
		c.fail(err)
		return
	}
	if host == "" { // as in package net: this host
		host = "localhost"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		c.resolved([]netip.Addr{ip}, port)
		return
	}
	if c.config.name > 0 {
		c.raceAfter(c.config.name) // with no candidates left, startNext reports the timeout
	}
	c.cancelName = c.lookUp("ip"+family, host, func(addrs []netip.Addr, err error) {
		c.cancelName = nil
		c.stopRace()
		switch {
		case c.finished:
		case err != nil:
			c.failures = append(c.failures, &AttemptError{Stage: StageName, Err: err})
			c.fail(nil)
		default:
			c.resolved(addrs, port)
		}
	})
}

// lookUp asks the connect's resolver, or the loop's. A resolver that panics counts as
// failed.
func (c *Connector) lookUp(family, host string, done func([]netip.Addr, error)) (cancel func()) {
	defer func() {
		if v := recover(); v != nil {
			err := &PanicError{Where: "LookupNetIP", Value: v, Stack: debug.Stack()}
			c.loop.internalCall(func() { done(nil, err) })
		}
	}()
	r := c.config.resolver
	if r == nil {
		r = c.loop.resolver
	}
	return r.LookupNetIP(c.loop, family, host, done)
}

// mayConnect asks the function of WithAddrFilter. A panic in it counts as a refusal.
func (c *Connector) mayConnect(addr netip.AddrPort) (err error) {
	if c.config.allowed == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Where: "the function of WithAddrFilter", Value: v, Stack: debug.Stack()}
		}
	}()
	return c.config.allowed(addr)
}

func (c *Connector) resolved(addrs []netip.Addr, port uint16) {
	// The order of RFC 6724, either as it is or with the families alternating (RFC 8305,
	// 4).
	addrs = c.loop.order(addrs)
	if !c.config.sequential {
		addrs = interleave(addrs)
	}
	for _, a := range addrs {
		if hosts.FamilyFits(c.network, a) {
			c.candidates = append(c.candidates, backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(a.Unmap(), port)})
		}
	}
	if len(c.candidates) == 0 {
		c.fail(&net.AddrError{Err: "no address of the family of " + c.network, Addr: c.address})
		return
	}
	c.connect()
}

// interleave alternates the families, beginning with the first one's
// (RFC 8305, 4), and otherwise keeps the order.
func interleave(addrs []netip.Addr) []netip.Addr {
	if len(addrs) < 2 {
		return addrs
	}
	var same, other []netip.Addr
	for _, a := range addrs {
		if a.Unmap().Is4() == addrs[0].Unmap().Is4() {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(same), len(other)) {
		if i < len(same) {
			out = append(out, same[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	return out
}

func (c *Connector) connect() {
	c.stage = StageConnect
	c.startNext()
}

// startNext starts the next candidate, and the timer for the one after it.
func (c *Connector) startNext() {
	if c.finished || c.waits {
		return
	}
	if c.stage == StageName {
		c.fail(timedOut(StageName))
		return
	}
	for len(c.candidates) > 0 {
		addr := c.candidates[0]
		c.candidates = c.candidates[1:]
		started := c.start(addr)
		if c.finished || c.waits {
			return // connected at once, or stopped by AttemptFailed, or to be begun again later
		}
		if started {
			break
		}
	}
	switch {
	case len(c.running) == 0 && len(c.candidates) == 0:
		c.fail(nil)
	case len(c.candidates) > 0 && !c.config.sequential:
		c.raceAfter(c.config.raceDelay)
	}
}

// start opens a socket for a candidate and connects it. It reports whether
// the attempt is under way.
func (c *Connector) start(addr backend.Addr) bool {
	spec := &backend.Spec{Family: addr.Family}
	if addr.Family == backend.Inet {
		if err := c.mayConnect(addr.IP); err != nil {
			c.skip(addr, StageConnect, err)
			return false
		}
		spec.IPv6 = !addr.IP.Addr().Is4()
		spec.Options = c.config.socketOptions(c.net, true)
		spec.Device, spec.Multipath = c.config.device, c.config.multipath
		if l := c.config.local; l.IsValid() {
			if l.Addr().Unmap().Is4() == spec.IPv6 {
				c.skip(addr, StageSocket, &net.AddrError{Err: "the local address is of another family", Addr: l.String()})
				return false
			}
			spec.Bind, spec.Local = true, backend.Addr{Family: backend.Inet, IP: unmap(l)}
		}
		if c.net == netSCTP {
			err := c.config.sctp(spec)
			if err == nil {
				err = c.peers(spec, addr.IP)
			}
			if err != nil {
				c.skip(addr, StageSocket, err)
				return false
			}
		}
	}
	h, err := c.loop.be.Open(spec)
	if err != nil {
		if c.waitForDescriptor(addr, err) {
			return false
		}
		if spec.Bind {
			err = &net.OpError{Op: "bind", Net: c.network, Source: netAddr(c.net, &spec.Local), Err: sysError("bind", err)}
		} else {
			err = sysError("socket", err)
		}
		err = missingSocket(c.net, &addr, err)
		c.skip(addr, StageSocket, err)
		return false
	}
	a := &attempt{c: c, h: h, addr: addr, how: backend.CloseFlat}
	a.op = backend.Op{Kind: backend.Connect, Handle: h, Owner: a, Addr: &a.addr}
	c.running = append(c.running, a)
	if c.config.connect > 0 {
		a.timer = c.loop.After(c.config.connect, func() { a.finish(timedOut(StageConnect)) })
	}
	if done, ok := c.loop.submit(&a.op); ok {
		a.finish(done.Err)
	}
	return !a.over
}

// peers puts the addresses of WithSCTPPeers that the socket can have into spec, after the
// one that is connected to.
func (c *Connector) peers(spec *backend.Spec, first netip.AddrPort) error {
	for _, a := range c.config.peers {
		at := netip.AddrPortFrom(a.Unmap(), first.Port())
		if at == first || at.Addr().Is4() == spec.IPv6 {
			continue
		}
		if err := c.mayConnect(at); err != nil {
			return err
		}
		if spec.SCTP.Peers == nil {
			spec.SCTP.Peers = append(spec.SCTP.Peers, first)
		}
		spec.SCTP.Peers = append(spec.SCTP.Peers, at)
	}
	return nil
}

func (a *attempt) OpDone(c *backend.Completion) {
	if a.over {
		a.shut()
		return
	}
	a.finish(c.Err)
}

// finish ends an attempt with a connection or an error.
func (a *attempt) finish(err error) {
	if a.over {
		return
	}
	c := a.c
	if err == nil && a.toItself() {
		// Nothing listens on the port, and it was also picked as the local port: TCP
		// then connects a socket to itself (RFC 9293, 3.5, simultaneous open). A reset
		// frees the port at once for the server that belongs there.
		a.how, err = backend.CloseReset, syscall.ECONNREFUSED
	}
	if err == nil {
		c.won(a)
		return
	}
	a.drop()
	if c.waitForDescriptor(a.addr, err) {
		return
	}
	if call := (*os.SyscallError)(nil); !errors.As(err, &call) {
		err = sysError("connect", err) // otherwise it is another call's, such as bind's
	}
	err = missingSocket(c.net, &a.addr, err)
	c.failed(a.addr, StageConnect, err)
	c.stopRace()
	c.tellNext()
	c.startNext()
}

// toItself reports whether an attempt has connected its socket to itself.
func (a *attempt) toItself() bool {
	if a.addr.Family != backend.Inet {
		return false
	}
	own, err := a.c.loop.be.Name(a.h, false)
	if err != nil {
		return false
	}
	a.own = own
	return own.IP.Port() == a.addr.IP.Port() &&
		(own.IP.Addr().Unmap().WithZone("") == a.addr.IP.Addr().Unmap().WithZone("") || a.addr.IP.Addr().IsUnspecified() && a.peerIs(own))
}

// peerIs reports whether the attempt's peer has the address own; a peer asked for as
// "any" is this machine.
func (a *attempt) peerIs(own backend.Addr) bool {
	peer, err := a.c.loop.be.Name(a.h, true)
	return err == nil && peer.IP == own.IP
}

// drop takes an attempt out of the race and closes its socket.
func (a *attempt) drop() {
	a.over = true
	if a.timer != nil {
		a.timer.Stop()
	}
	for i, r := range a.c.running {
		if r == a {
			a.c.running = append(a.c.running[:i], a.c.running[i+1:]...)
			break
		}
	}
	if a.op.Armed() && !a.c.loop.be.Cancel(&a.op) {
		return // OpDone closes it
	}
	a.shut()
}

func (a *attempt) shut() {
	if a.h != backend.None {
		a.c.loop.shutHandle(a.h, a.how)
		a.h = backend.None
	}
}

func (c *Connector) failed(addr backend.Addr, stage Stage, err error) {
	c.failures = append(c.failures, &AttemptError{Addr: netAddr(c.net, &addr), Stage: stage, Err: err})
}

// skip records and reports a candidate whose attempt is not even begun.
func (c *Connector) skip(addr backend.Addr, stage Stage, err error) {
	c.failed(addr, stage, err)
	c.tellNext()
}

// tellNext reports the failure just recorded if there is something left to try.
func (c *Connector) tellNext() {
	f, ok := c.proto.(AttemptFailer)
	if !ok || len(c.running)+len(c.candidates) == 0 {
		return
	}
	var next []net.Addr
	for _, a := range c.running {
		next = append(next, netAddr(c.net, &a.addr))
	}
	for i := range c.candidates {
		next = append(next, netAddr(c.net, &c.candidates[i]))
	}
	defer c.loop.guard("AttemptFailed")
	f.AttemptFailed(c.failures[len(c.failures)-1], next)
}

// won makes the transport and drops the losers.
func (c *Connector) won(a *attempt) {
	h := a.h
	a.h = backend.None
	a.drop()
	c.end()
	s := newSocket(c.loop, h, h, c.net, c.config)
	s.setAddr(&a.addr, false)
	if a.own.Family == backend.Inet {
		s.setAddr(&a.own, true)
	}
	if c.config.waitsForProbes(c.net) {
		s.probeLater(c.config.keepAlive)
	}
	s.attach(c.proto)
	if g, ok := c.proto.(Handshaker); ok {
		c.agreeing = &s.stream
		g.OnHandshake(c.agreed)
		if !c.until.IsZero() {
			c.deadline.Set(max(c.until.Sub(c.loop.Now()), 0))
		}
	}
	s.connected()
}

// agreed is called when a Handshaker is done.
func (c *Connector) agreed(err *AttemptError) {
	c.agreeing = nil
	if c.deadline != nil {
		c.deadline.Stop()
	}
	if err == nil {
		return
	}
	c.stage = err.Stage
	c.failures = append(c.failures, err)
	if errors.Is(c.cause, os.ErrDeadlineExceeded) {
		c.cause = timedOut(err.Stage)
	}
	c.tell(c.cause)
}

// end closes whatever is under way. It is called once.
func (c *Connector) end() {
	c.finished = true
	c.loop.attempts.Remove(&c.at)
	c.leave()
	c.stopRace()
	if c.deadline != nil {
		c.deadline.Stop()
	}
	if c.cancelName != nil {
		c.cancelName()
		c.cancelName = nil
	}
	for len(c.running) > 0 {
		c.running[0].drop()
	}
}

func (c *Connector) fail(err error) {
	if c.finished {
		return
	}
	for _, a := range c.running { // those cut short by the end are listed too
		if err != nil {
			c.failed(a.addr, StageConnect, err)
		}
	}
	c.end()
	c.tell(err)
}

func (c *Connector) tell(err error) {
	l := c.loop
	failure := &ConnectError{Network: c.network, Address: c.address, Stage: c.stage, Attempts: c.failures, Err: err}
	if err == ErrLoopClosed { //nolint:errorlint // as fail was given it
		if c.began && !TakesConnectFailed(c.proto) {
			return // expected: Close was asked to end it
		}
		failure.asked = c.began
		l.failing = true
		defer func() { l.failing = false }()
	}
	if isTenantEnd(err) {
		failure.asked = true
	}
	defer l.guard("ConnectFailed")
	l.TellConnectFailed(c.proto, failure)
}

var errNoProtocol = errors.New("weir: the protocol is nil")

// ConnectFuture is Connect, and also gives the outcome as a future of s, which is a
// Scheduler of this loop (future.On, or a task's Scope.Scheduler): the transport that p
// got with ConnectionMade, or the *ConnectError, of which p hears too if it is a
// ConnectFailer. The error handler is not told. Canceling the future, as the end of a
// task's scope does, stops the connect, and the future then fails with
// future.ErrCanceled. Only the loop's goroutine may call it.
func (l *Loop) ConnectFuture(s *future.Scheduler, netw, address string, p Protocol, opts ...ConnectOption) *future.Future[Transport] {
	return l.ConnectFutureThrough(s, netw, address, p, nil, opts...)
}

// ConnectFutureThrough is ConnectFuture through layers: the protocol that below makes of
// the one that it is given is connected, as layer.Client does, and the future's transport
// is the one above the layers. below is called once, at once; nil: there are no layers.
func (l *Loop) ConnectFutureThrough(s *future.Scheduler, netw, address string, p Protocol, below func(Protocol) Protocol, opts ...ConnectOption) *future.Future[Transport] {
	f, promise := future.New[Transport](s)
	if err := l.check("ConnectFuture"); err != nil {
		promise.Reject(err)
		return f
	}
	if p == nil {
		promise.Reject(errNoProtocol)
		return f
	}
	var top Protocol = &awaited{p: p, promise: promise}
	if below != nil {
		top = below(top)
	}
	c := l.Connect(netw, address, top, opts...)
	if l.failing && c.finished {
		promise.Reject(ErrLoopClosed) // where Connect has no effect
	}
	promise.OnCancel(func() {
		promise.Reject(future.ErrCanceled)
		c.Stop()
	})
	return f
}

// awaited stands for p until the connection is made, for ConnectFuture.
type awaited struct {
	NopProtocol
	p       Protocol
	promise future.Promise[Transport]
}

var (
	_ ConnectFailer = (*awaited)(nil)
	_ AttemptFailer = (*awaited)(nil)
)

func (a *awaited) ConnectionMade(t Transport) {
	if !a.promise.Resolve(t) {
		t.Abort() // it was canceled, and could not be stopped any more
		return
	}
	t.SetProtocol(a.p)
	a.p.ConnectionMade(t)
}

func (a *awaited) ConnectFailed(err *ConnectError) {
	a.promise.Reject(err)
	if f, ok := a.p.(ConnectFailer); ok {
		f.ConnectFailed(err)
	}
}

func (a *awaited) AttemptFailed(err *AttemptError, next []net.Addr) {
	if f, ok := a.p.(AttemptFailer); ok {
		f.AttemptFailed(err, next)
	}
}
