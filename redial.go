package weir

import (
	"net"
	"time"

	"github.com/weir-io/weir/internal/splitmix"
)

// Backoff says how long to wait before connecting again. The zero value of each
// field stands for the default in its comment.
//
// The n-th wait in a row is First·Factorⁿ⁻¹, at most Most. A share Jitter of that is
// drawn at random, so that the clients of a server that has come back do not all
// connect at once.
type Backoff struct {
	First  time.Duration // the wait after the first failure: 100 ms
	Most   time.Duration // the longest wait: 30 s
	Factor float64       // how much longer each wait is than the one before: 2
	Jitter float64       // the random share of a wait, up to 1: 0.5; below 0 is none
	// Tries is the number of failures in a row after which there is no other attempt: no
	// bound.
	Tries int
	// Total is how long a row may take, from the beginning of the first attempt that
	// failed, or from the loss of a connection that had Settled: no bound. The last
	// wait is cut short to fit, so the last attempt begins when Total is up.
	Total time.Duration
	// Settled is how long a connection must have lived to count as a success, which
	// ends the row: 5 s. A connection that is accepted and lost at once, or whose
	// handshake fails, counts as one more failure.
	Settled time.Duration
	// Rand draws from [0, 1). If it is nil, the draw comes from the nanoseconds of the
	// loop's clock, which no two clients share and a simulated run repeats, and from
	// the Redialer's number on its loop, since several may fail in the same turn.
	Rand func() float64
}

func (b Backoff) withDefaults() Backoff {
	if b.First <= 0 {
		b.First = 100 * time.Millisecond
	}
	if b.Most <= 0 {
		b.Most = 30 * time.Second
	}
	if b.Factor < 1 {
		b.Factor = 2
	}
	switch {
	case b.Jitter == 0:
		b.Jitter = 0.5
	case b.Jitter < 0:
		b.Jitter = 0
	case b.Jitter > 1:
		b.Jitter = 1
	}
	if b.Settled <= 0 {
		b.Settled = 5 * time.Second
	}
	return b
}

// wait is the n-th wait in a row, n from 1, of the Redialer with that number.
func (b *Backoff) wait(n int, now time.Time, number uint64) time.Duration {
	d := float64(b.First)
	for i := 1; i < n && d < float64(b.Most); i++ {
		d *= b.Factor
	}
	d = min(d, float64(b.Most))
	share := 0.0
	if b.Rand != nil {
		share = b.Rand()
	} else {
		share = float64(splitmix.Mix(uint64(now.UnixNano())^number*splitmix.Gamma)>>11) / (1 << 53)
	}
	return time.Duration(d - d*b.Jitter*share)
}

// Redialer connects to one place as often as it is asked to. The protocol decides
// whether there is another attempt: it asks for one by calling Again in ConnectionLost
// or in ConnectFailed. All methods belong to the loop's goroutine.
//
//	           Again: wait
//	  ┌──────────────────────────────┐
//	  ▼                              │
//	connecting ──▶ ConnectFailed ────┤
//	  │                              │
//	  └──▶ ConnectionMade … ConnectionLost
type Redialer struct {
	loop     *Loop
	number   uint64                         // which of the loop's it is
	dial     func(p Protocol) (stop func()) // begins an attempt
	back     Backoff
	make     func(*Redialer) Protocol
	stop     func() // ends the attempt; nil if there is none
	timer    *Timer
	failures int       // in a row
	first    time.Time // when the row began
	began    time.Time // when the last attempt did
	made     time.Time // when the last connection was made; zero if none was
	until    time.Time // when the wait is over
	attempt  int
	stopped  bool
}

// Redial connects as Connect does, from the next turn on. f makes the protocol of each
// attempt: a fresh one, or the same one again. The name is looked up again for each
// attempt, and the options apply to each.
func (l *Loop) Redial(netw, address string, b Backoff, f func(r *Redialer) Protocol, opts ...ConnectOption) *Redialer {
	return l.redial(func(p Protocol) func() {
		c := l.Connect(netw, address, p, opts...)
		return func() { c.Stop() }
	}, b, f, configOf(opts).tenant)
}

// RedialFunc is Redial for connections that are made by other means than a single
// Connect. dial begins an attempt to connect p, which must hear of the result as it
// would from Connect and never from inside dial; stop ends the attempt, and is not
// called once it is over.
func (l *Loop) RedialFunc(dial func(p Protocol) (stop func()), b Backoff, f func(r *Redialer) Protocol) *Redialer {
	return l.redial(dial, b, f, nil)
}

func (l *Loop) redial(dial func(p Protocol) (stop func()), b Backoff, f func(r *Redialer) Protocol, t *Tenant) *Redialer {
	l.redialers++
	r := &Redialer{loop: l, number: l.redialers, dial: dial, back: b.withDefaults(), make: f}
	r.timer = l.newTimer(r.connect, t)
	r.connect()
	return r
}

func (r *Redialer) connect() {
	p := r.make(r)
	if r.stopped || p == nil {
		r.stopped = true
		return
	}
	r.attempt++
	r.began, r.made = r.loop.Now(), time.Time{}
	d := &redialed{r: r, p: p}
	var q Protocol = d
	if a, ok := p.(Handshaker); ok {
		d.agrees = true
		q = &redialedHandshaker{redialed: d, a: a}
	}
	r.stop = r.dial(q)
}

// Attempt is the number of the attempt that was begun last, from 1.
func (r *Redialer) Attempt() int { return r.attempt }

// Failures is how many attempts in a row have failed, including those that connected
// and were soon lost: see Backoff.Settled.
func (r *Redialer) Failures() int { return r.failures }

// Again asks for another attempt, and returns how long it waits before that. It reports
// false if there will be none because the bounds are reached or Stop was called. It is
// for ConnectionLost and ConnectFailed; called twice it returns the same answer.
func (r *Redialer) Again() (wait time.Duration, ok bool) {
	if t := r.timer.tenant; r.stopped || r.loop.state.Load() >= loopClosing || t != nil && t.gone.Load() {
		return 0, false
	}
	now := r.loop.Now()
	if r.timer.Running() {
		return r.until.Sub(now), true
	}
	switch {
	case !r.made.IsZero() && now.Sub(r.made) >= r.back.Settled:
		r.failures, r.first = 0, now
	case r.failures == 0:
		r.first = r.began
	}
	r.failures++
	wait = r.back.wait(r.failures, now, r.number)
	if r.back.Tries > 0 && r.failures >= r.back.Tries {
		return 0, false
	}
	if r.back.Total > 0 {
		left := r.back.Total - now.Sub(r.first)
		if left <= 0 {
			return 0, false
		}
		wait = min(wait, left)
	}
	r.until = now.Add(wait)
	r.timer.Set(wait)
	return wait, true
}

// Now ends a running wait of Again and connects at once, for when something has shown
// that the other side is there. It reports whether a wait was running.
func (r *Redialer) Now() bool {
	if !r.timer.Stop() {
		return false
	}
	r.timer.Set(0)
	return true
}

// Stop ends a wait, or a connect in progress, whose protocol then gets ConnectFailed
// with ErrStopped. An established connection stays. Again reports false from then on.
func (r *Redialer) Stop() {
	r.stopped = true
	r.timer.Stop()
	if r.stop != nil {
		r.stop()
	}
}

// redialed records how an attempt went and gives way to its protocol.
type redialed struct {
	NopProtocol // until the connection is made
	r           *Redialer
	p           Protocol
	agrees      bool // its protocol is a Handshaker
}

var (
	_ Protocol           = (*redialed)(nil)
	_ ConnectFailer      = (*redialed)(nil)
	_ MaybeConnectFailer = (*redialed)(nil)
	_ AttemptFailer      = (*redialed)(nil)
)

// redialedHandshaker is redialed for a protocol that has something to agree on.
type redialedHandshaker struct {
	*redialed
	a Handshaker
}

var _ Handshaker = (*redialedHandshaker)(nil)

func (d *redialedHandshaker) OnHandshake(f func(err *AttemptError)) {
	d.a.OnHandshake(func(err *AttemptError) {
		d.r.stop = nil
		f(err)
	})
}

func (d *redialed) ConnectionMade(t Transport) {
	d.r.made = d.r.loop.Now()
	if !d.agrees {
		d.r.stop = nil // the attempt is over, and stop would keep the protocol alive
	}
	t.SetProtocol(d.p)
	d.p.ConnectionMade(t)
}

func (d *redialed) ConnectFailed(err *ConnectError) {
	d.r.stop = nil
	err.Attempt = d.r.attempt
	if f, ok := d.p.(ConnectFailer); ok {
		f.ConnectFailed(err)
	}
}

func (d *redialed) TakesConnectFailed() bool { return TakesConnectFailed(d.p) }

func (d *redialed) AttemptFailed(err *AttemptError, next []net.Addr) {
	if f, ok := d.p.(AttemptFailer); ok {
		f.AttemptFailed(err, next)
	}
}
