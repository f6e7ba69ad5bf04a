package contract

import (
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

var sharesFor = flag.Duration("shares.for", 0, "how long TestSharesLong takes on each backend; 0: it is skipped")

// TestSharesLong: over ten seconds of real work three tenants that always have something
// to do, callbacks of different length and connections that flood, get 3:2:1 of the time,
// within 2 % and the longest turn (R69): on a machine that does other things too, a
// callback counts with the time for which the system held it up. It is for the night.
func TestSharesLong(t *testing.T) {
	if *sharesFor == 0 {
		t.Skip("it takes long: go test -run TestSharesLong ./tests/contract -args -shares.for=10s")
	}
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		g := &lag{}
		for i, d := range [...]time.Duration{20 * time.Microsecond, 200 * time.Microsecond, 50 * time.Microsecond} {
			tn := share(t, l.NewTenant("t"), 3-i)
			defer tn.Close(nil)
			g.tenants = append(g.tenants, tn)
			flood(tn, 1+50*i, func() { spin(d) })
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
				return &sink{work: func(int) { spin(d / 4) }}
			}, weir.WithTenant(tn))
			if err != nil {
				t.Fatal(err)
			}
			for range 1 + 10*i {
				l.Connect("tcp", ln.Addr().String(), &pump{piece: make([]byte, 64<<10)})
			}
		}
		for end := time.Now().Add(*sharesFor); time.Now().Before(end); {
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			g.look()
		}
		g.check(t)
		var total, slack time.Duration
		for i, tn := range g.tenants {
			slack = max(slack, time.Duration(g.longest[i]*float64(tn.Share())))
			total += tn.Stats().Time
		}
		for i, tn := range g.tenants {
			s := tn.Stats()
			want := total * time.Duration(3-i) / 6
			off := 100 * float64(s.Time-want) / float64(want)
			t.Logf("share %d: %v, %+.3f %%, %d callbacks, %d bytes", 3-i, s.Time, off, s.Callbacks, s.BytesIn)
			if d := s.Time - want; max(d, -d) > want/50+slack {
				t.Errorf("share %d got %v of %v, want %v", 3-i, s.Time, total, want)
			}
		}
	})
}

// benchTenantEcho bounces a message between the ends of a socket pair.
func benchTenantEcho(b *testing.B, l *weir.Loop, opts ...weir.StreamOption) {
	b.Helper()
	p := &pinger{max: b.N, done: l.Stop}
	_, _, err := l.SocketPair(func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }, func(weir.Transport) weir.Protocol { return p }, opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if err := l.Run(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkTenantEcho: what a message costs without a tenant, in one, and in one with a
// share.
func BenchmarkTenantEcho(b *testing.B) {
	for _, c := range []struct {
		name   string
		in     bool
		shares bool
	}{{"without", false, false}, {"in one", true, false}, {"with a share", true, true}, {"beside one with a share", false, true}} {
		b.Run(c.name, func(b *testing.B) {
			l, err := weir.NewLoop()
			if err != nil {
				b.Fatal(err)
			}
			tn := l.NewTenant("one")
			if c.shares {
				if err := tn.SetShare(1); err != nil {
					b.Fatal(err)
				}
			}
			if !c.in {
				tn = nil
			}
			benchTenantEcho(b, l, weir.WithTenant(tn))
		})
	}
}

// BenchmarkTenants: what a tenant takes, and what a callback costs that is dealt to one of
// many tenants, all of them busy, against one that is not dealt.
func BenchmarkTenants(b *testing.B) {
	for _, n := range []int{0, 1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, err := weir.NewLoop()
			if err != nil {
				b.Fatal(err)
			}
			heap := func() uint64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			before := heap()
			all := make([]*weir.Tenant, n)
			for i := range all {
				all[i] = l.NewTenant("one")
				if err := all[i].SetShare(1 + i%7); err != nil {
					b.Fatal(err)
				}
			}
			each := (float64(heap()) - float64(before)) / float64(max(n, 1))
			left := b.N
			begin := func(tm *weir.Timer) {
				tm.Set(0)
			}
			for i := range max(n, 1) {
				mk := l.NewTimer
				if n > 0 {
					mk = all[i].NewTimer
				}
				var tm *weir.Timer
				tm = mk(func() { // a timer, since it can be set again without an allocation
					if left--; left > 0 {
						begin(tm)
					} else {
						l.Stop()
					}
				})
				begin(tm)
			}
			b.ReportAllocs()
			b.ResetTimer()
			if err := l.Run(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if n > 0 {
				b.ReportMetric(each, "B/tenant")
			}
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
