package sim

import (
	"math"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

const (
	refused = syscall.ECONNREFUSED
	noRoute = syscall.EHOSTUNREACH
)

// The states of an Op.
const (
	stateIdle   = iota
	stateArmed  // in a place of its socket
	stateFailed // in its backend's list
)

const (
	readMax    = 64 << 10 // bytes that one read lends
	acceptsMax = 16       // connections that one listener hands out per Wait
	peersMax   = 64       // of all listeners together
)

// Backend drives one loop on a host. All methods but Wake belong to the world's
// goroutine.
type Backend struct {
	w       *World
	host    *Host
	id      int
	stepper Stepper
	due     func() // Prompt's
	told    bool   // it was called, and no Prompt has come since
	busy    bool   // its loop is in a turn
	closed  bool
	crashed bool
	stalled int64 // its loop gets no turn until then
	stopped bool  // nor while its program is stopped

	woken atomic.Bool
	mu    sync.Mutex
	cond  sync.Cond // Config.Foreign: tells of woken

	ready  readyList
	failed []failure
	lent   lender
	peers  [peersMax]backend.Addr
	infos  [peersMax]backend.PacketInfo // of the datagrams of peers
	npeers int
	// joining is where datagrams that are handed over as one are put together.
	joining []byte
}

// failure is a result that is known without a socket.
type failure struct {
	op  *backend.Op
	err error
}

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Prompter = (*Backend)(nil)
)

// Backend makes a backend on the host, for one loop. It fails if the host has
// crashed.
func (h *Host) Backend() (*Backend, error) {
	if h.down {
		return nil, ErrCrashed
	}
	b := &Backend{w: h.w, host: h, id: len(h.w.backends)}
	b.cond.L = &b.mu
	h.w.backends = append(h.w.backends, b)
	h.backends = append(h.backends, b)
	return b, nil
}

// Drive lets World.Step give turns to the loop on this backend.
func (b *Backend) Drive(s Stepper) { b.stepper = s }

// Prompt has a host called instead of the Stepper; see backend.Prompter.
func (b *Backend) Prompt(due func()) { b.due, b.told = due, false }

// Host is where the backend is.
func (b *Backend) Host() *Host { return b.host }

// Now is the world's clock.
func (b *Backend) Now() time.Duration { return b.w.Now() }

// Wall is the wall clock at the moment Now was 0, as the wall clock is now.
func (b *Backend) Wall() time.Time { return b.w.wall }

// Caps says what a simulated backend can do. Inline depends on the faults.
func (b *Backend) Caps() backend.Caps {
	return backend.Caps{Name: "sim", Inline: !b.w.faults.NoInline, PollFD: -1, PeerErrors: true, Info: backend.InfoLocal, Probed: []string{"host: " + b.host.name}}
}

// Wake makes a Wait return. Any goroutine may call it.
func (b *Backend) Wake() {
	b.woken.Store(true)
	if b.w.cfg.Foreign {
		b.mu.Lock()
		b.cond.Broadcast()
		b.mu.Unlock()
	}
}

// socket returns what a handle of b stands for.
func (b *Backend) socket(h backend.Handle) (*socket, error) {
	if err := b.unusable(); err != nil {
		return nil, err
	}
	if h < 0 || int(h) >= len(b.host.handles) {
		return nil, syscall.EBADF
	}
	s := b.host.handles[h]
	if s == nil || s.be != b {
		return nil, syscall.EBADF
	}
	return s, nil
}

func (b *Backend) unusable() error {
	switch {
	case b.crashed:
		return ErrCrashed
	case b.closed:
		return os.ErrClosed
	}
	return nil
}

// Submit arms op. A second Op of one kind on a handle, Read and Accept, Write
// and Connect counting as one, ends with EBUSY.
func (b *Backend) Submit(op *backend.Op, c *backend.Completion) bool {
	if op.State != stateIdle {
		b.w.violation(b, "Submit of an armed Op")
		return false
	}
	w := b.w
	w.drain()
	s, err := b.socket(op.Handle)
	if err != nil {
		return b.refuse(op, c, err)
	}
	w.record(SubmitCall, b.host, s.id, int64(op.Kind)|int64(op.Flags)<<8, int64(op.Events))
	p := placeOf(op.Kind)
	switch {
	case p == noPlace:
		return b.refuse(op, c, backend.ErrUnsupported)
	case s.ops[p] != nil:
		return b.refuse(op, c, syscall.EBUSY)
	case (op.Kind == backend.Read || op.Kind == backend.RecvFrom) && op.Buf != nil && len(op.Buf) == 0:
		return b.refuse(op, c, syscall.EINVAL)
	case op.Kind == backend.Connect && s.inbox != nil:
		return b.refuse(op, c, syscall.EOPNOTSUPP)
	case op.Kind == backend.Connect:
		err := w.intercept(ConnectCall, b.host, nil)
		if errno := w.callError(w.faults.ConnectError, acceptErrors[:4]...); errno != 0 && err == nil {
			err = errno
		}
		if err == nil {
			if errno := w.connect(s, op.Addr); errno != 0 && errno != syscall.EINPROGRESS {
				err = errno
			}
		}
		if err != nil {
			return b.refuse(op, c, err)
		}
	}
	if b.inline(op) {
		if b.attempt(s, op, c) {
			return true
		}
		if op.Flags&backend.Now != 0 {
			b.result(s, op, c, 0, backend.ErrAgain)
			return true
		}
	}
	s.ops[p] = op
	op.State = stateArmed
	s.opGen[p]++
	s.kick()
	return false
}

// inline reports whether Submit tries op itself.
func (b *Backend) inline(op *backend.Op) bool {
	f := &b.w.faults
	switch {
	case op.Kind == backend.SendTo && op.Flags&backend.Now != 0: // it may be of memory that was lent
		return true
	case f.NoInline || op.Flags&backend.Multi != 0:
		return false
	case op.Flags&backend.Now != 0:
		return true
	case op.Kind == backend.Write || op.Kind == backend.SendTo:
		return !b.w.random[forAgain].chance(f.Defer)
	case op.Kind == backend.Connect:
		return true
	}
	return b.w.random[forAgain].chance(f.Eager)
}

// refuse ends an Op that is not armed.
func (b *Backend) refuse(op *backend.Op, c *backend.Completion, err error) bool {
	b.w.record(Result, b.host, 0, int64(op.Kind), errorNumber(err))
	if op.Flags&backend.Multi != 0 || b.w.faults.NoInline {
		op.State = stateFailed
		b.failed = append(b.failed, failure{op, err})
		return false
	}
	*c = backend.Completion{Op: op, Err: err}
	if op.Kind == backend.Accept {
		c.N = int(backend.None)
	}
	return true
}

// Cancel ends op early; with LateCancel its last result may follow.
func (b *Backend) Cancel(op *backend.Op) bool {
	switch op.State {
	case stateFailed:
		for i := range b.failed {
			if b.failed[i].op == op {
				b.failed = append(b.failed[:i], b.failed[i+1:]...)
				op.State = stateIdle
				return true
			}
		}
		return false
	case stateArmed:
	default:
		return false
	}
	s, err := b.socket(op.Handle)
	p := placeOf(op.Kind)
	if err != nil || s.ops[p] != op {
		return false
	}
	bit := uint8(1) << p
	if s.canceling&bit != 0 {
		return false
	}
	w := b.w
	if r := &w.random[forCancel]; r.chance(w.faults.LateCancel) {
		w.record(CancelCall, b.host, s.id, int64(p), 1)
		s.canceling |= bit
		s.held &^= bit
		w.push(w.after(r.upTo(w.faults.LateBy)), event{kind: evLate, s: s, gen: s.opGen[p], place: uint8(p)})
		s.kick()
		return false
	}
	w.record(CancelCall, b.host, s.id, int64(p), 0)
	s.clear(p)
	return true
}

// clear makes the Op in a place idle.
func (s *socket) clear(p int) {
	s.ops[p].State = stateIdle
	s.ops[p] = nil
	s.opGen[p]++
	bit := uint8(1) << p
	s.canceling &^= bit
	s.cancelDue &^= bit
	s.held &^= bit
	s.passed &^= bit
}

// Wait reports results. With nothing to report and time to wait it runs the
// rest of the world: see the package comment.
func (b *Backend) Wait(timeout time.Duration, done []backend.Completion) (int, error) {
	w := b.w
	if err := b.unusable(); err != nil {
		return 0, err
	}
	if err := w.intercept(WaitCall, b.host, nil); err != nil {
		return 0, err
	}
	b.lent.back()
	b.npeers = 0
	if w.random[forWaits].chance(w.faults.EmptyWait) && timeout != 0 {
		return 0, nil
	}
	w.drain()
	n := b.collect(done)
	if n > 0 || b.awoken() || timeout == 0 {
		b.woken.Store(false)
		return n, nil
	}
	limit := int64(math.MaxInt64)
	if timeout > 0 {
		limit = w.after(timeout)
	}
	was := b.busy
	b.busy = true
	defer func() { b.busy = was }()
	for {
		moved := w.step(b, limit)
		if b.crashed {
			return 0, ErrCrashed
		}
		if n = b.collect(done); n > 0 || b.awoken() {
			b.woken.Store(false)
			return n, nil
		}
		switch {
		case w.now >= limit:
			return 0, nil
		case moved:
		case limit < math.MaxInt64:
			w.advance(limit)
		case !w.cfg.Foreign:
			return 0, ErrAtRest
		default:
			b.sleep()
		}
	}
}

func (b *Backend) awoken() bool { return b.woken.Load() }

// sleep blocks until another goroutine calls Wake.
func (b *Backend) sleep() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.woken.Load() {
		b.cond.Wait()
	}
}

// collect takes results, at most one of each Op but for accepts.
func (b *Backend) collect(done []backend.Completion) int {
	w := b.w
	n := 0
	for len(b.failed) > 0 && n < len(done) {
		f := b.failed[0]
		b.failed = append(b.failed[:0], b.failed[1:]...)
		f.op.State = stateIdle
		done[n] = backend.Completion{Op: f.op, Err: f.err}
		if f.op.Kind == backend.Accept {
			done[n].N = int(backend.None)
		}
		n++
	}
	for count := b.ready.len(); count > 0 && n < len(done); count-- {
		s := b.ready.take(b.pick(count))
		s.queued = false
		if s.be != b {
			continue
		}
		first := 0
		if w.faults.Shuffle {
			first = w.random[forOrder].below(places)
		}
		for i := range places {
			if p := (first + i) % places; n < len(done) && s.ops[p] != nil && s.due(p) {
				n += b.serve(s, p, done[n:])
			}
		}
		s.kick()
	}
	return n
}

// pick chooses which of the first n ready sockets is next.
func (b *Backend) pick(n int) int {
	w := b.w
	switch {
	case n == 1:
		return 0
	case w.pickResult != nil:
		return b.pickByHand(n)
	case w.faults.Shuffle:
		return w.random[forOrder].below(n)
	}
	return 0
}

// Close closes what is open, as the end of a program does, and makes all Ops
// idle.
func (b *Backend) Close() error {
	if b.closed || b.crashed {
		b.closed = true
		return nil
	}
	b.w.drain()
	for _, s := range b.host.handles {
		if s != nil && s.be == b {
			s.abandon()
			b.w.close(s, false)
		}
	}
	b.end()
	return nil
}

// end makes b useless.
func (b *Backend) end() {
	b.closed = true
	b.stepper, b.due = nil, nil
	for _, f := range b.failed {
		f.op.State = stateIdle
	}
	b.failed = nil
	b.w.backends = without(b.w.backends, b)
	b.host.backends = without(b.host.backends, b)
}

func without(all []*Backend, b *Backend) []*Backend {
	var left []*Backend
	for _, x := range all {
		if x != b {
			left = append(left, x)
		}
	}
	return left
}

// crash is what a crash of the host makes of b.
func (b *Backend) crash() {
	for _, s := range b.host.handles {
		if s != nil && s.be == b {
			s.abandon()
		}
	}
	b.crashed = true
	b.end()
}

// abandon makes the Ops of s idle.
func (s *socket) abandon() {
	for p := range s.ops {
		if s.ops[p] != nil {
			s.clear(p)
		}
	}
}
