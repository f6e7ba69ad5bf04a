package contract

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
)

// idler is a protocol with a limit of silence.
type idler struct {
	weir.NopProtocol
	told func()
}

func (s *idler) ConnectionIdle(weir.Direction) { s.told() }

// threadTime is the processor time that the thread has used.
func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIdleLimits: what a limit of silence takes on each of 10,000 connections. B/limit
// is its memory, the loop's part of the timer included. With "told", each operation is a limit
// that was reached; with "moved", one whose connection had a message meanwhile, which the
// operation includes; "message" is the same message where no connection has a limit.
func BenchmarkIdleLimits(b *testing.B) {
	const conns = 10_000
	piece := []byte("x")
	for _, c := range []struct {
		name  string
		limit time.Duration
		moves bool
	}{{"told", 100 * time.Millisecond, false}, {"moved", 500 * time.Millisecond, true}, {"message", 0, true}} {
		b.Run(c.name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			l, err := weir.NewLoop()
			if err != nil {
				b.Fatal(err)
			}
			told, next := 0, 0
			all := make([]weir.Transport, 0, conns)
			end := func(t weir.Transport) weir.Protocol {
				all = append(all, t)
				return &idler{told: func() { told++ }}
			}
			for range conns / 2 {
				if _, _, err := l.SocketPair(end, end); err != nil {
					b.Fatal(err)
				}
			}
			heap := func() uint64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			before := heap()
			if c.limit > 0 {
				for _, t := range all {
					i, _ := weir.As[weir.IdleTimer](t)
					if err := i.SetIdleTimeout(weir.DirectionBoth, c.limit); err != nil {
						b.Fatal(err)
					}
				}
			}
			each := (float64(heap()) - float64(before)) / conns
			b.ReportAllocs()
			b.ResetTimer()
			began := threadTime(b)
			for n := 0; n < b.N; {
				if !c.moves {
					if err := l.Turn(-1); err != nil {
						b.Fatal(err)
					}
					n = told
					continue
				}
				for range 64 { // in turn, so that each moves in the time of its limit
					_, _ = all[next].Write(piece)
					next = (next + 2) % conns // the other end receives
					n++
				}
				if err := l.Turn(0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(threadTime(b)-began)/float64(b.N), "cpu-ns/op")
			b.StopTimer()
			if c.limit > 0 {
				b.ReportMetric(each, "B/limit")
			}
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
