package layer_test

import (
	"sync"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/weirtest"
)

// TestRateLimitStreams: R41, behaviours 20 to 47 through a rate limit.
func TestRateLimitStreams(t *testing.T) {
	l := layer.RateLimit(layer.Rate{PerSecond: 64 << 20, Burst: 100_000}, layer.Rate{PerSecond: 48 << 20, Burst: 50_000})
	t.Run("one", func(t *testing.T) { t.Parallel(); layertest.Suite(t, one(l), one(l)) })
	t.Run("three", func(t *testing.T) { t.Parallel(); layertest.Suite(t, three(l), three(l)) })
	t.Run("shared", func(t *testing.T) {
		t.Parallel()
		layertest.Suite(t, one(sharedInLoop(layer.Rate{PerSecond: 256 << 20})), nil)
	})
}

// sharedInLoop is RateLimitShared with a bucket for each loop: simulated worlds begin
// at the same moment, and what passed in one would be owed in the next.
func sharedInLoop(r layer.Rate) layer.Layer {
	var mu sync.Mutex
	buckets := map[*weir.Loop]*layer.Bucket{}
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(t weir.Transport) weir.Protocol {
			mu.Lock()
			b := buckets[t.Loop()]
			if b == nil {
				b = layer.NewBucket(r)
				buckets[t.Loop()] = b
			}
			mu.Unlock()
			return layer.RateLimitShared(b, b)(a).Make(t)
		}}
	}
}

func one(l layer.Layer) []layer.Layer   { return []layer.Layer{l} }
func three(l layer.Layer) []layer.Layer { return []layer.Layer{layertest.Plain, l, layertest.Plain} }

// flowing sends size bytes over each of conns connections in the simulator, and
// returns when each connection had received them all.
func flowing(t *testing.T, conns, size int, server, client []layer.Layer) []time.Duration {
	t.Helper()
	s := weirtest.NewSim(t, 1)
	a, b := s.Host("server"), s.Host("client")
	var done []time.Duration
	_, err := a.Loop().Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol {
		got := 0
		return weir.DataFunc(func(p []byte) (int, error) {
			if got += len(p); got == size {
				done = append(done, s.Now())
			}
			return len(p), nil
		})
	}, server...))
	if err != nil {
		t.Fatal(err)
	}
	for range conns {
		b.Loop().Connect("tcp", "server:7", layer.Client(&sender{size: size}, client...))
	}
	s.Until("all bytes", func() bool { return len(done) == conns })
	return done
}

// sender writes size bytes and closes.
type sender struct {
	weir.NopProtocol
	size int
}

func (p *sender) ConnectionMade(t weir.Transport) {
	_, _ = t.Write(make([]byte, p.size))
	_ = t.Close()
}

func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+want/20+10*time.Millisecond {
		t.Errorf("%s: %v, want %v and at most a twentieth more", what, got, want)
	}
}

// TestRateLimitRate: the rate is kept, in either direction, alone and shared;
// the burst passes at once (R41).
func TestRateLimitRate(t *testing.T) {
	const size = 1_000_000
	r := layer.Rate{PerSecond: 100_000, Burst: 50_000}
	none := layer.Rate{}
	want := 9500 * time.Millisecond // the burst comes first
	near(t, "out", flowing(t, 1, size, nil, one(layer.RateLimit(none, r)))[0], want)
	near(t, "in", flowing(t, 1, size, one(layer.RateLimit(r, none)), nil)[0], want)
	all := flowing(t, 3, size, nil, one(layer.RateLimit(none, r)))
	near(t, "each of three", all[2], want)
	b := layer.NewBucket(r)
	all = flowing(t, 3, size, nil, one(layer.RateLimitShared(nil, b)))
	near(t, "three that share", all[2], 29500*time.Millisecond)
	if all[0] < 28*time.Second {
		t.Errorf("one of three had everything after %v: the others were starved", all[0])
	}
	all = flowing(t, 1, size, nil, one(layer.RateLimit(none, layer.Rate{PerSecond: 4 << 30})))
	if all[0] > time.Second {
		t.Errorf("a rate that is never met took %v", all[0])
	}
}
