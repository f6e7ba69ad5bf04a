package task_test

import (
	"flag"
	"runtime"
	"testing"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
)

var parked = flag.Int("parked", 10_000, "how many parked coroutines to measure")

// TestParkedMemory measures what each waiting coroutine takes. A goroutine's stack is
// most of it; docs/design/tasks.md has the figures for a million (-args
// -parked=1000000).
func TestParkedMemory(t *testing.T) {
	n := *parked
	measure := func(start func(i int) (stop func())) float64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		stop := start(n)
		runtime.GC()
		runtime.ReadMemStats(&after)
		used := after.HeapAlloc - before.HeapAlloc + after.StackInuse - before.StackInuse
		stop()
		return float64(used) / float64(n)
	}
	tasks := measure(func(n int) func() {
		l := &bareLoop{}
		root := task.New(future.On(l))
		gate := &task.Event{}
		done := 0
		for range n {
			root.Go("parked", func(t *task.Task) error {
				err := gate.Wait(t)
				done++
				return err
			})
		}
		l.run()
		return func() {
			gate.Set()
			l.run()
			if err := root.Close(); err != nil || done != n {
				t.Error(done, err)
			}
		}
	})
	goroutines := measure(func(n int) func() {
		gate, up, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
		for range n {
			go func() {
				up <- struct{}{}
				<-gate
				done <- struct{}{}
			}()
		}
		for range n {
			<-up
		}
		return func() {
			close(gate)
			for range n {
				<-done
			}
		}
	})
	t.Logf("%d parked: %.0f bytes a task, %.0f a goroutine that waits for a channel", n, tasks, goroutines)
	if tasks > 8192 { // half of that would do without the race detector
		t.Errorf("%.0f bytes for a parked task", tasks)
	}
}
