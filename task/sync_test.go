package task_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
)

// A lock goes to the waiting tasks in order, and a cancel that coincides with the
// hand-over does not lose it (behaviour 82).
func TestLock(t *testing.T) {
	w := newWorld(t)
	lock := &task.Lock{Name: "db"}
	if err := lock.Unlock(); !errors.Is(err, task.ErrNotLocked) {
		t.Error(err)
	}
	var tasks []*task.Task
	for _, name := range []string{"a", "b", "c", "d"} {
		tasks = append(tasks, w.root.Go(name, func(t *task.Task) error {
			if err := lock.Lock(t); err != nil {
				w.note("%s: %v", t.Name(), err)
				return err
			}
			w.note("%s has it", t.Name())
			err := t.Sleep(time.Second)
			w.note("%s: %v", t.Name(), err)
			return errors.Join(err, lock.Unlock())
		}))
	}
	if err := w.sim.RunFor(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	w.loop.After(500*time.Millisecond, tasks[2].Cancel) // while it waits
	w.loop.After(time.Second, func() {})
	w.sim.OnStep(func() {
		if ended, _ := tasks[0].Ended(); ended {
			tasks[1].Cancel() // as the lock is handed to it, or later
		}
	})
	w.rest()
	w.logged("a has it", "c: future: canceled", "a: <nil>", "b has it", "b: future: canceled", "d has it", "d: <nil>")
	if lock.Held() || !lock.TryLock() || lock.TryLock() {
		t.Error("the lock is lost")
	}
}

// The cancel comes between the hand-over and the resumption: the lock is not lost.
func TestHandOverMeetsCancel(t *testing.T) {
	for _, cancelFirst := range []bool{false, true} {
		t.Run(fmt.Sprint("cancel first ", cancelFirst), func(t *testing.T) {
			w := newWorld(t)
			lock, sem := &task.Lock{}, task.NewSemaphore(0)
			q, full := task.NewQueue[int](1), task.NewQueue[int](1)
			full.TryPut(1)
			lock.TryLock()
			got := map[string]error{}
			item := 0
			waits := map[string]func(t *task.Task) error{
				"lock": lock.Lock,
				"sem":  sem.Acquire,
				"get":  func(t *task.Task) (err error) { item, err = q.Get(t); return err },
				"put":  func(t *task.Task) error { return full.Put(t, 2) },
			}
			var tasks []*task.Task
			for _, name := range []string{"lock", "sem", "get", "put"} {
				tasks = append(tasks, w.root.Go(name, func(t *task.Task) error {
					err := waits[t.Name()](t)
					got[t.Name()] = err
					return err
				}))
			}
			w.rest()
			cancel := func() {
				for _, t := range tasks {
					t.Cancel()
				}
			}
			if cancelFirst {
				cancel()
			}
			if err := lock.Unlock(); err != nil {
				t.Error(err)
			}
			sem.Release()
			q.TryPut(7)
			first, _ := full.TryGet()
			cancel()
			w.rest()
			for name, err := range got {
				if cancelFirst != errors.Is(err, future.ErrCanceled) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if lock.Held() == cancelFirst || (sem.Free() == 1) != cancelFirst || (q.Len() == 1) != cancelFirst || (full.Len() == 0) != cancelFirst {
				t.Errorf("held %v, free %d, queued %d and %d", lock.Held(), sem.Free(), q.Len(), full.Len())
			}
			if first != 1 || !cancelFirst && item != 7 {
				t.Errorf("took %d and %d", first, item)
			}
		})
	}
}

func TestSemaphore(t *testing.T) {
	w := newWorld(t)
	sem := task.NewSemaphore(2)
	most, now := 0, 0
	for i := range 10 {
		w.root.Go(fmt.Sprint(i), func(t *task.Task) error {
			if err := sem.Acquire(t); err != nil {
				return err
			}
			defer sem.Release()
			now++
			most = max(most, now)
			err := t.Sleep(time.Second)
			now--
			return err
		})
	}
	w.rest()
	if most != 2 || sem.Free() != 2 || w.sim.Now() != 5*time.Second {
		t.Errorf("%d at once, %d free, %v", most, sem.Free(), w.sim.Now())
	}
	for i := range 3 {
		if got := sem.TryAcquire(); got != (i < 2) {
			t.Errorf("TryAcquire %d: %v", i, got)
		}
	}
}

func TestEvent(t *testing.T) {
	w := newWorld(t)
	ev := &task.Event{Name: "ready"}
	for _, name := range []string{"a", "b"} {
		w.root.Go(name, func(t *task.Task) error {
			err := ev.Wait(t)
			w.note("%s: %v", t.Name(), err)
			return err
		})
	}
	w.rest()
	w.logged()
	ev.Set()
	ev.Clear()
	w.rest()
	w.logged("a: <nil>", "b: <nil>")
	ev.Set()
	if err := w.run(ev.Wait); err != nil || !ev.IsSet() {
		t.Error(err)
	}
}

// Wait holds the lock when it returns, even if it was canceled.
func TestCond(t *testing.T) {
	w := newWorld(t)
	lock := &task.Lock{}
	c := &task.Cond{L: lock}
	ready := 0
	waiter := func(t *task.Task) error {
		if err := lock.Lock(t); err != nil {
			return err
		}
		for ready == 0 {
			if err := c.Wait(t); err != nil {
				w.note("%s: %v, held %v", t.Name(), err, lock.Held())
				return errors.Join(err, lock.Unlock())
			}
		}
		ready--
		w.note("%s goes on", t.Name())
		return lock.Unlock()
	}
	a := w.root.Go("a", waiter)
	w.root.Go("b", waiter)
	w.root.Go("c", waiter)
	w.rest()
	w.root.Go("changes", func(t *task.Task) error {
		if err := lock.Lock(t); err != nil {
			return err
		}
		a.Cancel()
		if err := t.Sleep(time.Second); err != nil {
			return err
		}
		w.note("a change")
		ready = 2
		c.Notify(1)
		c.Notify(-1)
		return lock.Unlock()
	})
	w.rest()
	w.logged("a change", "a: future: canceled, held true", "b goes on", "c goes on")
	if lock.Held() {
		t.Error("held at rest")
	}
}

func TestQueue(t *testing.T) {
	for _, c := range [][2]int{{0, 1}, {1, 1}, {3, 1}, {100, 1}, {0, 3}, {1, 3}, {3, 3}} {
		size, getters := c[0], c[1]
		t.Run(fmt.Sprintf("%d places, %d getters", size, getters), func(t *testing.T) {
			w := newWorld(t)
			q := task.NewQueue[int](size)
			var got []int
			for p := range 3 {
				w.root.Go("puts", func(t *task.Task) error {
					for i := range 20 {
						if err := q.Put(t, 100*p+i); err != nil {
							return err
						}
						if q.Len() > size {
							w.Errorf("%d in a queue of %d", q.Len(), size)
						}
					}
					return nil
				})
			}
			for range getters {
				w.root.Go("gets", func(t *task.Task) error {
					for {
						v, err := q.Get(t)
						if err != nil {
							if !errors.Is(err, task.ErrQueueClosed) {
								w.Error(err)
							}
							return nil
						}
						got = append(got, v)
						if len(got) == 60 {
							q.Close()
						}
					}
				})
			}
			w.rest()
			// One getter sees the order of each putter; several all see something.
			last, seen := map[int]int{}, map[int]bool{}
			for _, v := range got {
				if getters == 1 && v%100 != 0 && last[v/100] != v-1 {
					t.Errorf("%d after %d", v, last[v/100])
				}
				last[v/100], seen[v] = v, true
			}
			if len(got) != 60 || len(seen) != 60 {
				t.Errorf("got %d, %d different", len(got), len(seen))
			}
			if q.TryPut(1) || w.run(func(t *task.Task) error { return q.Put(t, 1) }) == nil {
				t.Error("put into a closed queue")
			}
		})
	}
}

// Close ends the waits of both sides, and what was in the queue can still be taken.
func TestQueueClose(t *testing.T) {
	w := newWorld(t)
	q := task.NewQueue[int](1)
	q.TryPut(1)
	w.root.Go("puts", func(t *task.Task) error {
		w.note("put: %v", q.Put(t, 2))
		return nil
	})
	w.rest()
	q.Close()
	q.Close()
	w.rest()
	err := w.run(func(t *task.Task) error {
		v, err := q.Get(t)
		w.note("%d %v", v, err)
		_, err = q.Get(t)
		return err
	})
	if !errors.Is(err, task.ErrQueueClosed) {
		t.Error(err)
	}
	w.logged("put: task: the queue is closed", "1 <nil>")
}
