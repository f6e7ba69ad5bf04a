package layer

import (
	"sync/atomic"
	"time"

	"github.com/weir-io/weir"
)

// Rate is how fast bytes may pass, in the terms of a token bucket.
type Rate struct {
	// PerSecond is in bytes. 0 or less means no limit.
	PerSecond int64
	// Burst is how many bytes may pass at once after a pause. 0 or less means
	// as many as pass in a tenth of a second, but at least 1 KiB.
	Burst int64
}

func (r Rate) burst() int64 {
	if r.Burst > 0 {
		return r.Burst
	}
	return max(r.PerSecond/10, 1<<10)
}

// cost is how long n bytes take. A single reservation is at most meterQuantum
// bytes, far from any overflow; a burst is limited to an hour's worth.
func (r Rate) cost(n int64) int64 {
	const hour = int64(time.Hour)
	if n >= r.PerSecond*3600 {
		return hour
	}
	s, rest := n/r.PerSecond, n%r.PerSecond
	return s*int64(time.Second) + int64(float64(rest)*1e9/float64(r.PerSecond)+0.999)
}

// Bucket is a rate that several connections share, on one loop or several: all
// its methods may be called from any goroutine. A connection that must wait for
// bytes gets them reserved and waits its turn, so that none starves.
type Bucket struct {
	rate Rate
	// paid is the time, in nanoseconds, up to which bytes were handed out: it
	// is ahead of now by what is owed, or behind it by what may pass at once.
	paid atomic.Int64
}

// NewBucket makes a full bucket.
func NewBucket(r Rate) *Bucket { return &Bucket{rate: r} }

// reserve hands out n bytes, which may pass after the wait that it returns.
func (b *Bucket) reserve(n int64, now time.Time) time.Duration {
	at := now.UnixNano()
	full, cost := at-b.rate.cost(b.rate.burst()), b.rate.cost(n)
	for {
		old := b.paid.Load()
		next := max(old, full) + cost
		if b.paid.CompareAndSwap(old, next) {
			return time.Duration(max(0, next-at))
		}
	}
}

// Take hands out n bytes if some may pass at now, and reports whether. One that is
// longer than what is left is owed, so that no length is too long to ever pass.
func (b *Bucket) Take(n int64, now time.Time) bool {
	at := now.UnixNano()
	full, cost := at-b.rate.cost(b.rate.burst()), b.rate.cost(n)
	for {
		old := b.paid.Load()
		from := max(old, full)
		if from >= at {
			return false
		}
		if b.paid.CompareAndSwap(old, from+cost) {
			return true
		}
	}
}

// refund takes back bytes that did not pass.
func (b *Bucket) refund(n int64) { b.paid.Add(-b.rate.cost(n)) }

// RateLimit returns a layer that lets each connection receive no faster than in
// and send no faster than out. A writer that is too fast is told to pause; a
// peer that is too fast meets a full receive window. What is above notices only
// that things take longer.
func RateLimit(in, out Rate) Layer {
	return rateLimit(func() (i, o *Bucket) { return in.bucket(), out.bucket() })
}

// bucket returns a new bucket for the rate, nil without a limit.
func (r Rate) bucket() *Bucket {
	if r.PerSecond <= 0 {
		return nil
	}
	return NewBucket(r)
}

// RateLimitShared is RateLimit for all connections that use the same buckets,
// taken together. nil means no limit.
func RateLimitShared(in, out *Bucket) Layer {
	return rateLimit(func() (i, o *Bucket) { return in, out })
}

func rateLimit(buckets func() (in, out *Bucket)) Layer {
	return func(a Above) Above {
		return Above{Failed: a.Failed, Make: func(t weir.Transport) weir.Protocol {
			r := &limiter{}
			in, out := buckets()
			r.in = newMeter(t.Loop(), in, r.ReleaseReading)
			r.out = newMeter(t.Loop(), out, r.Writable)
			return r.Init(r, "ratelimit", a)
		}}
	}
}

type limiter struct {
	Base
	in, out *meter // nil: no limit
}

var (
	_ weir.Protocol = (*limiter)(nil)
	_ weir.Carrier  = (*limiter)(nil)
)

// DataReceived implements weir.Protocol: what may not pass yet stays below.
func (r *limiter) DataReceived(p []byte) (int, error) {
	if r.in == nil {
		return r.Base.DataReceived(p)
	}
	n := r.in.take(len(p))
	if n < len(p) {
		r.HoldReading()
	}
	r.Deliver(p[:n])
	return n, nil
}

func (r *limiter) Write(bufs [][]byte) (int, error) {
	if r.out == nil {
		return r.Base.Write(bufs)
	}
	total := 0
	for _, p := range bufs {
		for len(p) > 0 {
			if r.Blocked() {
				return total, nil
			}
			n := r.out.take(len(p))
			if n == 0 {
				return total, nil
			}
			if _, err := r.Below().Write(p[:n]); err != nil {
				return total, err
			}
			total += n
			p = p[n:]
		}
	}
	return total, nil
}

func (r *limiter) ConnectionLost(err error) {
	r.in.stop()
	r.out.stop()
	r.Base.ConnectionLost(err)
}

// meterQuantum is the most bytes that are reserved at once, and so bounds how
// unevenly connections that share a bucket are served.
const meterQuantum = 16 << 10

// meter takes one connection's bytes, in one direction, through a bucket.
type meter struct {
	loop    *weir.Loop
	bucket  *Bucket
	credit  int64 // bytes reserved and not used
	waiting bool  // for them
	timer   *weir.Timer
	ready   func()
}

func newMeter(l *weir.Loop, b *Bucket, ready func()) *meter {
	if b == nil {
		return nil
	}
	m := &meter{loop: l, bucket: b, ready: ready}
	m.timer = l.NewTimer(m.due)
	return m
}

// take returns how many of n bytes may pass now. If not all may, ready is
// called when more may.
func (m *meter) take(n int) int {
	total := int64(0)
	for want := int64(n); want > 0 && !m.waiting; {
		if m.credit == 0 {
			m.credit = min(want, meterQuantum, m.bucket.rate.burst())
			if wait := m.bucket.reserve(m.credit, m.loop.Now()); wait > 0 {
				m.waiting = true
				m.timer.Set(wait)
				break
			}
		}
		k := min(want, m.credit)
		m.credit -= k
		want -= k
		total += k
	}
	return int(total)
}

func (m *meter) due() {
	m.waiting = false
	m.ready()
}

// stop ends a meter, which may be nil.
func (m *meter) stop() {
	if m == nil {
		return
	}
	m.timer.Stop()
	if m.credit > 0 {
		m.bucket.refund(m.credit)
		m.credit = 0
	}
}
