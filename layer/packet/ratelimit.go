package packet

import (
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// RateLimit is the layer that lets the datagrams of each flow pass no faster than in,
// what is received, and out, what is sent. What exceeds them is dropped and counted: a
// datagram's sender cannot be made to wait. A datagram passes while the bucket owes
// nothing, however long it is. c may be nil.
func RateLimit(in, out layer.Rate, c *Counts) Layer {
	rates := [2]layer.Rate{in, out}
	return limitRate(c, func(b *[2]*layer.Bucket, dir int) *layer.Bucket {
		if b[dir] == nil && rates[dir].PerSecond > 0 {
			b[dir] = layer.NewBucket(rates[dir])
		}
		return b[dir]
	})
}

// RateLimitShared is RateLimit for all flows together, of all endpoints that use the
// same buckets. nil is no limit.
func RateLimitShared(in, out *layer.Bucket, c *Counts) Layer {
	buckets := [2]*layer.Bucket{in, out}
	return limitRate(c, func(_ *[2]*layer.Bucket, dir int) *layer.Bucket { return buckets[dir] })
}

func limitRate(c *Counts, of func(own *[2]*layer.Bucket, dir int) *layer.Bucket) Layer {
	if c == nil {
		c = &Counts{}
	}
	return func(l *weir.Loop) Ends {
		return &rated{loop: l, counts: c, of: of, flows: newFlows[[2]*layer.Bucket](flowsMost, nil)}
	}
}

type rated struct {
	Base
	loop   *weir.Loop
	counts *Counts
	flows  flows[[2]*layer.Bucket]
	of     func(own *[2]*layer.Bucket, dir int) *layer.Bucket
}

var (
	_ weir.PacketProtocol    = (*rated)(nil)
	_ weir.TruncatedReceiver = (*rated)(nil)
	_ weir.PacketCarrier     = (*rated)(nil)
)

func (r *rated) passes(dir, n int, peer weir.PacketAddr) bool {
	r.counts.Seen.Add(1)
	now := r.loop.Now()
	f := r.flows.find(peer, now)
	if f == nil {
		f = r.flows.add(peer, now)
	}
	b := r.of(&f.data, dir)
	if b == nil || b.Take(int64(n), now) {
		return true
	}
	r.counts.Full.Add(1)
	return false
}

func (r *rated) PacketReceived(p []byte, from weir.PacketAddr) {
	if r.passes(0, len(p), from) {
		r.Deliver(p, from)
	}
}

func (r *rated) PacketTruncated(p []byte, from weir.PacketAddr) {
	if r.passes(0, len(p), from) {
		r.Base.PacketTruncated(p, from)
	}
}

func (r *rated) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	if r.Blocked() {
		return false, nil
	}
	if !r.passes(1, len(p), to) {
		return true, nil
	}
	return r.Base.SendTo(p, to)
}

// Idle is the layer that ends an endpoint through which nothing has passed for that long,
// either way, with a *layer.IdleError.
func Idle(d time.Duration) Layer {
	return func(l *weir.Loop) Ends {
		w := &watcher{loop: l, limit: d}
		w.timer = l.NewTimer(w.look)
		return w
	}
}

type watcher struct {
	Base
	loop  *weir.Loop
	limit time.Duration
	timer *weir.Timer
	last  time.Time
}

var (
	_ weir.PacketProtocol    = (*watcher)(nil)
	_ weir.TruncatedReceiver = (*watcher)(nil)
	_ weir.PacketCarrier     = (*watcher)(nil)
)

func (w *watcher) EndpointMade(e *weir.PacketEndpoint) {
	w.last = w.loop.Now()
	if w.limit > 0 {
		w.timer.Set(w.limit)
	}
	w.Base.EndpointMade(e)
}

func (w *watcher) PacketReceived(p []byte, from weir.PacketAddr) {
	w.last = w.loop.Now()
	w.Deliver(p, from)
}

func (w *watcher) PacketTruncated(p []byte, from weir.PacketAddr) {
	w.last = w.loop.Now()
	w.Base.PacketTruncated(p, from)
}

func (w *watcher) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	taken, err := w.Base.SendTo(p, to)
	if taken && err == nil {
		w.last = w.loop.Now()
	}
	return taken, err
}

// look ends the endpoint, or looks again when it would be time to.
func (w *watcher) look() {
	if left := w.limit - w.loop.Now().Sub(w.last); left > 0 {
		w.timer.Set(left)
		return
	}
	w.Fail("idle", &layer.IdleError{What: layer.NothingPassed, After: w.limit})
}

func (w *watcher) EndpointLost(err error) {
	w.timer.Stop()
	w.Base.EndpointLost(err)
}
