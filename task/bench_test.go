package task_test

import (
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
)

// bench runs on a loop without I/O, so that it measures only futures and tasks; next to
// each line is its goroutine counterpart. Run with
//
//	go test -run '^$' -bench . -benchmem ./task

// bareLoop is as much of a loop as a Scheduler needs.
type bareLoop struct{ queue []func() }

type noTimer struct{}

func (noTimer) Set(time.Duration) {}
func (noTimer) Stop() bool        { return false }

func (l *bareLoop) Soon(fn func()) struct{} {
	l.queue = append(l.queue, fn)
	return struct{}{}
}

func (l *bareLoop) Post(fn func()) (struct{}, error) { return l.Soon(fn), nil }
func (l *bareLoop) NewTimer(func()) noTimer          { return noTimer{} }
func (l *bareLoop) Now() time.Time                   { return time.Time{} }

// turn makes one turn; false if there was nothing to do.
func (l *bareLoop) turn() bool {
	n := len(l.queue)
	for i := range n {
		l.queue[i]()
	}
	l.queue = l.queue[:copy(l.queue, l.queue[n:])]
	return n > 0
}

func (l *bareLoop) run() {
	for l.turn() {
	}
}

// BenchmarkSwitch switches to a coroutine and back, once.
func BenchmarkSwitch(b *testing.B) {
	b.Run("task", func(b *testing.B) { // resumed by its waker, as by DataReceived
		l := &bareLoop{}
		root := task.New(future.On(l))
		n := 0
		t := root.Go("switched", func(t *task.Task) error {
			for {
				n++
				if err := t.Park(nothing{}); err != nil {
					return err
				}
			}
		})
		l.run()
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			t.Resume(nil)
		}
		b.StopTimer()
		if err := root.Close(); err != nil || n < b.N {
			b.Fatal(n, err)
		}
	})
	b.Run("task, thread locked", func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		l := &bareLoop{}
		root := task.New(future.On(l))
		t := root.Go("switched", func(t *task.Task) error {
			for {
				if err := t.Park(nothing{}); err != nil {
					return err
				}
			}
		})
		l.run()
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			t.Resume(nil)
		}
		b.StopTimer()
		if err := root.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("iter.Pull alone", func(b *testing.B) {
		next, stop := iter.Pull(func(yield func(struct{}) bool) {
			for yield(struct{}{}) {
			}
		})
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			next()
		}
		stop()
	})
	b.Run("task, Yield of 100", func(b *testing.B) { // through the queue
		l := &bareLoop{}
		root := task.New(future.On(l))
		left := b.N
		for range 100 {
			root.Go("yields", func(t *task.Task) error {
				for left > 0 {
					left--
					if err := t.Yield(); err != nil {
						return err
					}
				}
				return nil
			})
		}
		b.ReportAllocs()
		defer reportCPU(b)()
		b.ResetTimer()
		l.run()
		b.StopTimer()
		if err := root.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("goroutine", func(b *testing.B) {
		there, back := make(chan struct{}), make(chan struct{})
		go func() {
			for range there {
				back <- struct{}{}
			}
			close(back)
		}()
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			there <- struct{}{}
			<-back
		}
		close(there)
		<-back
	})
}

type nothing struct{}

func (nothing) Abandon(*task.Task) {}
func (nothing) WaitingFor() string { return "nothing" }

// BenchmarkSettle makes a future, settles it, and delivers its value to the one waiting
// for it.
func BenchmarkSettle(b *testing.B) {
	b.Run("future, callback", func(b *testing.B) {
		l := &bareLoop{}
		s := future.On(l)
		sum := 0
		done := func(v int, _ error) { sum += v }
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			f, p := future.New[int](s)
			f.OnDone(done)
			p.Resolve(1)
			l.turn()
		}
		if sum != b.N {
			b.Fatal(sum)
		}
	})
	b.Run("future, Await", func(b *testing.B) {
		l := &bareLoop{}
		s := future.On(l)
		root := task.New(s)
		sum := 0
		var p future.Promise[int]
		t := root.Go("awaits", func(t *task.Task) error {
			for {
				var f *future.Future[int]
				f, p = future.New[int](s)
				v, err := task.Await(t, f)
				if err != nil {
					return err
				}
				sum += v
			}
		})
		l.run()
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			p.Resolve(1)
			l.turn()
		}
		b.StopTimer()
		t.Cancel()
		if err := root.Close(); err != nil || sum != b.N {
			b.Fatal(sum, err)
		}
	})
	b.Run("goroutine, channel", func(b *testing.B) {
		sum := 0
		asks := make(chan chan int)
		done := make(chan struct{})
		go func() {
			for c := range asks {
				c <- 1
			}
			close(done)
		}()
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			c := make(chan int)
			asks <- c
			sum += <-c
		}
		close(asks)
		<-done
		if sum != b.N {
			b.Fatal(sum)
		}
	})
}

// BenchmarkGather1000 waits for a thousand values that come one by one.
func BenchmarkGather1000(b *testing.B) {
	const n = 1000
	b.Run("future", func(b *testing.B) {
		l := &bareLoop{}
		s := future.On(l)
		fs, ps := make([]*future.Future[int], n), make([]future.Promise[int], n)
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			for i := range fs {
				fs[i], ps[i] = future.New[int](s)
			}
			g := future.Gather(s, fs...)
			for i := range ps {
				ps[i].Resolve(i)
			}
			l.run()
			if vs, err, ok := g.Result(); !ok || err != nil || vs[n-1] != n-1 {
				b.Fatal(err, ok)
			}
		}
	})
	b.Run("goroutines, channel", func(b *testing.B) {
		b.ReportAllocs()
		defer reportCPU(b)()
		out := make([]int, n)
		type one struct{ i, v int }
		for b.Loop() {
			c := make(chan one)
			for i := range n {
				go func() { c <- one{i, i} }()
			}
			for range n {
				v := <-c
				out[v.i] = v.v
			}
			if out[n-1] != n-1 {
				b.Fatal(out[n-1])
			}
		}
	})
}

// BenchmarkSpawn starts something that does nothing, and learns that it has ended.
func BenchmarkSpawn(b *testing.B) {
	b.Run("task", func(b *testing.B) {
		l := &bareLoop{}
		root := task.New(future.On(l))
		n := 0
		fn := func(t *task.Task) error { n++; return nil }
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			root.Go("spawned", fn)
			l.turn()
		}
		b.StopTimer()
		if err := root.Close(); err != nil || n != b.N {
			b.Fatal(n, err)
		}
	})
	b.Run("task, 1000 at once", func(b *testing.B) {
		l := &bareLoop{}
		root := task.New(future.On(l))
		n := 0
		fn := func(t *task.Task) error { n++; return t.Yield() }
		b.ReportAllocs()
		defer reportCPU(b)()
		for i := 0; i < b.N; i += 1000 {
			for range 1000 {
				root.Go("spawned", fn)
			}
			l.run()
		}
		b.StopTimer()
		if err := root.Close(); err != nil || n < b.N {
			b.Fatal(n, err)
		}
	})
	b.Run("goroutine, 1000 at once", func(b *testing.B) {
		var n atomic.Int64
		b.ReportAllocs()
		defer reportCPU(b)()
		for i := 0; i < b.N; i += 1000 {
			var all sync.WaitGroup
			for range 1000 {
				all.Go(func() { n.Add(1); runtime.Gosched() })
			}
			all.Wait()
		}
		if n.Load() < int64(b.N) {
			b.Fatal(n.Load())
		}
	})
	b.Run("goroutine", func(b *testing.B) {
		n := 0
		done := make(chan struct{})
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			go func() { n++; done <- struct{}{} }()
			<-done
		}
		if n != b.N {
			b.Fatal(n)
		}
	})
}
