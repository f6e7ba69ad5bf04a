package weir

import (
	"os"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/bag"
)

// Tenant holds what one user of a shared loop has there, so that all of it can be ended,
// bounded, counted and given its share of the loop together: a framework on a loop that
// it does not own, a customer of a server, a plug-in.
//
// What belongs to a tenant: its callbacks and timers (Soon, Post, After, At, NewTimer),
// what is opened with the option WithTenant (listeners and the connections that they
// accept, connects, transports, datagram endpoints, layers), its watches, sources and
// signal handlers (Watch, AddSource, Signal), the tenants inside it, and whatever joins
// through OnClose, as tasks do:
//
//	loop
//	 ├── shop            share 3       Close(reason) ends everything below
//	 │    ├── orders     share 1       half of shop's
//	 │    └── search     share 1
//	 └── blog            share 1
//
// A tenant is a future.Loop: future.On(t) makes a Scheduler whose futures and tasks run
// as callbacks of the tenant.
//
// Methods belong to the loop's goroutine unless they say otherwise. A loop keeps its
// tenants until they are closed.
type Tenant struct {
	loop   *Loop
	name   string
	parent *Tenant // the loop's top for a tenant that is in no other; nil: it is that top
	err    error   // why it is closed; set before gone
	gone   atomic.Bool

	children bag.Bag[*Tenant]
	at       int // in its parent's
	timers   bag.Bag[*Timer]
	streams  bag.Bag[*stream]
	packets  bag.Bag[*PacketEndpoint]
	things   bag.Bag[member] // all else
	hooks    bag.Bag[*closeHook]

	share
	budget
}

var _ interface {
	Soon(fn func()) *Call
	Post(fn func()) (*Call, error)
	NewTimer(fn func()) *Timer
	Now() time.Time
} = (*Tenant)(nil)

// NewTenant makes a tenant with a share of 1 and without limits; name is for logs and
// error messages. Close it when it is no longer needed.
func (l *Loop) NewTenant(name string) *Tenant {
	t := &Tenant{loop: l, name: name, parent: &l.top}
	t.node.Init(t, &l.top.node)
	t.full = l.top.full
	if l.check("NewTenant") == nil {
		l.top.children.Add(t, &t.at)
	}
	return t
}

// NewTenant makes a tenant inside t: closing t closes it, its share is a part of t's,
// and what it uses counts against t's limits too. Inside a closed tenant it is closed.
func (t *Tenant) NewTenant(name string) *Tenant {
	c := &Tenant{loop: t.loop, name: name, parent: t}
	c.node.Init(c, &t.node)
	switch {
	case t.gone.Load():
		c.err = t.err
		c.gone.Store(true)
	case t.loop.check("NewTenant") == nil:
		c.full = t.full // what holds t back holds c back
		t.children.Add(c, &c.at)
	}
	return c
}

// Name is what NewTenant was given. Any goroutine may call it.
func (t *Tenant) Name() string { return t.name }

// Loop is the loop that the tenant belongs to. Any goroutine may call it.
func (t *Tenant) Loop() *Loop { return t.loop }

// Parent is the tenant that t is inside; nil if it is in no other. Any goroutine may call
// it.
func (t *Tenant) Parent() *Tenant {
	if t.parent == &t.loop.top {
		return nil
	}
	return t.parent
}

// itself finds the loop for package inner.
func (t *Tenant) itself() *Loop { return t.loop }

// Now is the loop's time.
func (t *Tenant) Now() time.Time { return t.loop.Now() }

// Soon is Loop.Soon; after Close the callback does not run.
func (t *Tenant) Soon(fn func()) *Call { return t.loop.soon(fn, t) }

// Post is Loop.Post; after Close it returns a *TenantError. Any goroutine may call it.
// A callback that was accepted does not run if Close comes first.
func (t *Tenant) Post(fn func()) (*Call, error) {
	if t.gone.Load() {
		return nil, t.err
	}
	return t.loop.post(fn, t)
}

// PostOr is Loop.PostOr; if Close comes before fn has run, the loop calls closed instead, on
// its goroutine, when fn's turn has come. After Close it returns a *TenantError and calls
// neither. Any goroutine may call it.
func (t *Tenant) PostOr(fn, closed func()) (*Call, error) {
	if t.gone.Load() {
		return nil, t.err
	}
	c := &Call{loop: t.loop, tenant: t, fn: fn, closed: closed}
	if !t.loop.push(c) {
		return nil, ErrLoopClosed
	}
	return c, nil
}

// NewTimer is Loop.NewTimer; after Close the timer cannot be set.
func (t *Tenant) NewTimer(fn func()) *Timer { return t.loop.newTimer(fn, t) }

// After is Loop.After; after Close it does nothing.
func (t *Tenant) After(d time.Duration, fn func()) *Timer {
	tm := t.NewTimer(fn)
	tm.Set(d)
	return tm
}

// At is Loop.At; after Close it does nothing.
func (t *Tenant) At(at time.Time, fn func()) *Timer {
	tm := t.NewTimer(fn)
	tm.SetAt(at)
	return tm
}

// Watch is Loop.Watch for the tenant: Close ends it. fn is not told.
func (t *Tenant) Watch(fd int, events Events, fn func(Events)) (*Watch, error) {
	if t.gone.Load() {
		return nil, t.err
	}
	w, err := t.loop.Watch(fd, events, fn)
	if err == nil {
		w.of.join(t, w)
	}
	return w, err
}

// AddSource is Loop.AddSource for the tenant: Close detaches it.
func (t *Tenant) AddSource(s Source) error {
	if t.gone.Load() {
		return t.err
	}
	return t.loop.addSource(s, t)
}

// Signal is Loop.Signal for the tenant: Close removes the handler.
func (t *Tenant) Signal(sig os.Signal, fn func(os.Signal)) (*SignalHandler, error) {
	if t.gone.Load() {
		return nil, t.err
	}
	return t.loop.signal(sig, fn, t)
}

// TenantOf is the tenant that a transport belongs to, or nil: for a protocol that opens
// something for the same tenant,
//
//	l.Connect("tcp", addr, p, weir.WithTenant(weir.TenantOf(t)))
//
// After the transport is lost it is nil.
func TenantOf(t Transport) *Tenant {
	if s, ok := As[*stream](t); ok {
		return s.tenant()
	}
	return nil
}

// Adopt moves a transport into the tenant, with every transport below it, from the tenant
// that it belonged to, if any: for a server that learns only from a client's first bytes
// whose client it is. The error is a *TenantError if t is closed, a *BudgetError if t has no room,
// ErrOtherLoop if the transport is on another loop, and ErrClosed if it is lost.
func (t *Tenant) Adopt(tr Transport) error {
	if err := t.loop.check("Adopt"); err != nil {
		return err
	}
	top, ok := As[*stream](tr)
	switch {
	case !ok || top.phase >= phaseLost:
		return ErrClosed
	case top.loop != t.loop:
		return ErrOtherLoop
	case top.tenant() == t:
		return nil
	}
	from := top.tenant()
	if b := top.bottom(); b.phase < phaseGone {
		from = b.tenant() // it counts as the connection
	}
	if err := t.admitFrom(from); err != nil {
		return err
	}
	for s := top; s != nil; {
		if s.phase < phaseGone { // else it has left, and would not again
			s.leave()
			s.join(t)
			s.recount()
			if !s.paused() {
				s.readingResumed() // the former tenant may have held it back
			}
			s.touch()
		}
		u, ok := As[*stream](s.Unwrap())
		if !ok {
			break
		}
		s = u
	}
	return nil
}

// OnClose calls f when the tenant is closed, before anything of it ends: with the
// *TenantError, from the loop's queue in the turn of Close. It also calls f when the loop
// is closed, with a *TenantError that is ErrLoopClosed too. remove keeps f from being
// called. It is for what the loop does not know: the scope of tasks, for example,
//
//	t.OnClose(func(err error) { scope.Cancel(err); _ = scope.Close() })
//
// On a closed tenant f is called soon.
func (t *Tenant) OnClose(f func(err error)) (remove func()) {
	if t.loop.check("OnClose") != nil {
		return func() {}
	}
	h := &closeHook{t: t, f: f}
	if t.gone.Load() {
		t.loop.internalCall(func() { h.call(t.err) })
		return func() { h.f = nil }
	}
	t.hooks.Add(h, &h.at)
	return func() {
		h.f = nil
		t.hooks.Remove(&h.at)
	}
}

// closeHook is a function of OnClose.
type closeHook struct {
	t  *Tenant
	f  func(error)
	at int
}

func (h *closeHook) call(err error) {
	f := h.f
	if h.f = nil; f == nil {
		return
	}
	defer h.t.loop.guard("OnClose")
	f(err)
}

// callHooks calls the functions of OnClose, each once.
func (t *Tenant) callHooks(err error) {
	t.hooks.Each(func(h *closeHook) {
		t.hooks.Remove(&h.at)
		h.call(err)
		t.loop.settle()
	})
}

// Closed is nil while the tenant is open, and then the *TenantError. Any goroutine may
// call it.
func (t *Tenant) Closed() error {
	if t.gone.Load() {
		return t.err
	}
	return nil
}

// TenantError says that a tenant was closed, and why. Everything that ended with the tenant
// gets the same one: in ConnectionLost and EndpointLost as it is, in ConnectFailed inside a
// *ConnectError.
type TenantError struct {
	Tenant string // the name of the tenant that Close was called on
	Err    error  // what Close was given
}

func (e *TenantError) Error() string {
	s := "weir: tenant " + e.Tenant + " is closed"
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns ErrTenantClosed and the reason.
func (e *TenantError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrTenantClosed}
	}
	return []error{ErrTenantClosed, e.Err}
}

// isTenantEnd reports whether err is what the end of a tenant gives as the reason.
func isTenantEnd(err error) bool {
	_, ok := err.(*TenantError) //nolint:errorlint // as it was given
	return ok
}

// Close ends everything that belongs to the tenant and to those inside it, for reason,
// which may be nil. Calling it again has no effect.
//
// When the callback that called Close has returned, or in the next turn if it was no
// callback, and before anything else runs: the functions of OnClose are called; listeners
// close; connects fail; watches, sources and signal handlers are removed; timers stop;
// callbacks are forgotten; and each transport and each datagram endpoint is lost, from
// the bottom up, and told so at once. What a transport had not handed to the system is
// dropped, as by Abort. All of them get one *TenantError. Layers that take a turn to pass
// on a loss get 16 rounds of the loop's queue for it there; a layer's handshake that is
// under way fails in the next turn.
//
// What the kernel still holds then is what had to be canceled and has not ended: it is
// closed within 4 turns, or on io_uring within one more for 128 connections (see
// docs/limits.md).
//
// After Close nothing can be opened for the tenant: WithTenant fails with the
// *TenantError.
func (t *Tenant) Close(reason error) {
	if t.loop.check("Close") != nil || t.gone.Load() {
		return
	}
	t.parent.children.Remove(&t.at)
	t.retire(&TenantError{Tenant: t.name, Err: reason})
}

// retire marks the tenant, and first those inside it, as closed; settle ends them.
func (t *Tenant) retire(err error) {
	t.children.Each(func(c *Tenant) {
		t.children.Remove(&c.at)
		c.retire(err)
	})
	t.err = err
	t.gone.Store(true)
	t.loop.closing = append(t.loop.closing, t)
	t.loop.stir()
}

// loopCloses tells the functions of OnClose that the loop is being closed.
func (t *Tenant) loopCloses() {
	t.children.Each((*Tenant).loopCloses)
	if t.hooks.Len() > 0 {
		t.callHooks(&TenantError{Tenant: t.name, Err: ErrLoopClosed})
	}
}

// tenantRounds bounds the rounds of the loop's queue that the end of tenants takes in its
// turn, for layers that pass on a loss from the queue.
const tenantRounds = 16

// endTenants ends the tenants that were closed in the callback that has just returned. If
// one of their callbacks ends the goroutine, the next settle goes on: what was told is
// not told again.
func (l *Loop) endTenants() {
	if l.ends {
		return // called from below: the loop there goes on
	}
	l.ends = true
	var closing []*Tenant
	defer func() {
		l.ends = false
		if closing != nil {
			l.closing = append(closing, l.closing...)
		}
	}()
	for l.closing != nil {
		closing, l.closing = l.closing, nil
		began := len(l.ready)
		var lost []*stream
		for _, t := range closing {
			lost = t.end(lost)
		}
		for _, s := range lost {
			s.tellLost()
			l.settle()
		}
		closing = nil
		l.runSince(began)
	}
}

// runSince runs the loop's own calls and the streams' work that were queued after the
// first n entries, and those that they queue, for some rounds.
func (l *Loop) runSince(n int) {
	var fresh, rest []runnable
	defer func() { l.ready = append(append(l.ready, rest...), fresh...) }() // one may end the goroutine
	for round := 0; round < tenantRounds && len(l.ready) > n; round++ {
		fresh = append([]runnable(nil), l.ready[n:]...)
		clear(l.ready[n:])
		l.ready = l.ready[:n]
		for len(fresh) > 0 {
			r := fresh[0]
			fresh = fresh[1:]
			if run, ok := own(r); ok {
				run()
				l.settle()
			} else {
				rest = append(rest, r)
			}
		}
	}
}

// end ends what belongs to the tenant, and appends to lost the streams that are to be
// told.
func (t *Tenant) end(lost []*stream) []*stream {
	t.callHooks(t.err)
	t.things.Each(func(m member) {
		m.tenantEnds(t.err)
		t.loop.settle()
	})
	t.timers.Each(func(tm *Timer) { tm.Stop() })
	t.budget.stop()
	lost = t.loseStreams(lost)
	if t.account != nil {
		t.account.close()
	}
	// After the connections that stand on them, which tell their peers; and those that no
	// layer carries first, so that each has this reason.
	for _, carried := range [...]bool{false, true} {
		t.packets.Each(func(e *PacketEndpoint) {
			if (e.feed != nil) == carried {
				e.lose(t.err)
				t.loop.settle()
			}
		})
	}
	if d := t.loop.dealer; d != nil {
		d.forget(t) // last: what waits there finds that it is over
	}
	return lost
}

// loseStreams loses every stream of the tenant, those below before those above, and appends
// them to lost in that order.
func (t *Tenant) loseStreams(lost []*stream) []*stream {
	var left []*stream
	for s := range t.streams.All() {
		left = append(left, s)
	}
	for len(left) > 0 {
		later := left[:0]
		for _, s := range left {
			if u, ok := As[*stream](s.Unwrap()); ok && u.phase < phaseLost && u.tenant() == t {
				later = append(later, s)
				continue
			}
			s.lose(t.err)
			lost = append(lost, s)
		}
		left = later
	}
	return lost
}

// tellLost tells a stream's protocol of its loss now, although the lower half may not have
// closed yet.
func (s *stream) tellLost() {
	switch {
	case s.phase == phaseShut:
		s.finish()
	case s.phase != phaseLost || s.proto == nil:
	default:
		s.stopProducer()
		p := s.proto
		s.proto = nil // finish then tells no one
		s.callLost(p, s.reason())
	}
}

// member is something that belongs to a tenant and is neither a stream nor an endpoint.
type member interface{ tenantEnds(err error) }

// membership is a member's place in its tenant.
type membership struct {
	tenant *Tenant // nil: it belongs to none. It stays after the end.
	at     int     // in its bag
}

func (m *membership) join(t *Tenant, x member) {
	if t != nil {
		m.tenant = t
		t.things.Add(x, &m.at)
	}
}

func (m *membership) leave() {
	if m.tenant != nil {
		m.tenant.things.Remove(&m.at)
	}
}

func (m *membership) joinPackets(t *Tenant, e *PacketEndpoint) {
	if t != nil {
		m.tenant = t
		t.packets.Add(e, &m.at)
	}
}

func (m *membership) leavePackets() {
	if m.tenant != nil {
		m.tenant.packets.Remove(&m.at)
	}
}

func (ln *Listener) tenantEnds(error)     { _ = ln.Close() }
func (w *Watch) tenantEnds(error)         { w.Remove() }
func (f *sourceFeed) tenantEnds(error)    { _ = f.loop.RemoveSource(f.s) }
func (h *SignalHandler) tenantEnds(error) { h.Remove() }
func (g *lingerer) tenantEnds(error)      { g.end() }
func (c *Connector) tenantEnds(err error) { c.fail(err) }

// join makes a connect count for its tenant.
func (c *Connector) join() error {
	t := c.config.tenant
	if err := c.config.forTenant(c.loop); err != nil || t == nil {
		return err
	}
	if err := t.admit(); err != nil {
		return err
	}
	c.of.join(t, c)
	t.connected(1)
	return nil
}

func (c *Connector) leave() {
	if t := c.of.tenant; t != nil {
		c.of.leave()
		t.connected(-1)
	}
}

// forTenant checks that the tenant of WithTenant can be used on l.
func (c *connConfig) forTenant(l *Loop) error {
	t := c.tenant
	switch {
	case t == nil:
	case t.loop != l || c.group != nil:
		return ErrOtherLoop
	case t.gone.Load():
		return t.err
	}
	return nil
}

// tie is what ties a stream to its tenant, and why the stream was lost. Most streams have
// neither.
type tie struct {
	why      error         // see stream.reason
	tenant   *Tenant       // nil: none; the loop's top in a loop with a Budget
	at       int           // in the tenant's bag
	buffered int           // bytes that were counted for the tenant
	moved    time.Duration // when what is below last took some of what waits
}

// tenant is the stream's tenant, or nil.
func (s *stream) tenant() *Tenant {
	if s.tie == nil || s.tie.tenant == &s.loop.top {
		return nil
	}
	return s.tie.tenant
}

// join makes the stream belong to t.
func (s *stream) join(t *Tenant) {
	if s.tie == nil {
		s.tie = &tie{}
	}
	s.tie.tenant = t
	t.streams.Add(s, &s.tie.at)
	if s.standsAlone() {
		s.flags |= fCounted
		t.connected(1)
	}
}

// leave undoes join, and gives back what was counted.
func (s *stream) leave() {
	b := s.tie
	if b == nil || b.tenant == nil {
		return
	}
	t := b.tenant
	b.tenant = nil
	t.streams.Remove(&b.at)
	if s.flags&fCounted != 0 {
		s.flags &^= fCounted
		t.connected(-1)
	}
	t.keeps(-b.buffered)
	b.buffered = 0
	s.flags &^= fGreedy | fWaits // the next tenant's budget has its own patience
}
