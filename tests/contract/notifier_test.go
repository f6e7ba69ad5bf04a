package contract

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weir-io/weir"
)

// TestNotifier: calls that come before the loop looks count as one; each is seen
// by a later run; a call from inside the callback means once more (behaviour
// 15).
func TestNotifier(t *testing.T) {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	var n *weir.Notifier
	n = l.NewNotifier(func() {
		if runs++; runs == 2 {
			if err := n.Notify(); err != nil {
				t.Error(err)
			}
		}
	})
	turn := func() {
		t.Helper()
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	if runs != 0 {
		t.Fatal("it ran unasked")
	}
	for range 3 {
		if err := n.Notify(); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	if runs != 1 {
		t.Fatalf("three calls at once ran it %d times", runs)
	}
	_ = n.Notify()
	turn()
	turn()
	turn()
	if runs != 3 {
		t.Fatalf("ran %d times, want once for the call and once for that from inside", runs)
	}

	// Each call is followed by a run that sees everything before it.
	var sent, seen atomic.Int64
	n = l.NewNotifier(func() { seen.Store(sent.Load()) })
	over := make(chan error, 1)
	go func() { over <- l.Run() }()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5000 {
				sent.Add(1)
				if err := n.Notify(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	done := make(chan struct{})
	if _, err := l.Post(func() { close(done) }); err != nil { // after every call
		t.Fatal(err)
	}
	<-done
	if got := seen.Load(); got != 4*5000 {
		t.Errorf("the last run saw %d of 20000", got)
	}
	l.Stop()
	if err := <-over; err != nil {
		t.Fatal(err)
	}

	// What is pending at the end is dropped silently.
	if err := n.Notify(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	m := l.NewNotifier(func() { t.Error("it ran after Close") })
	for range 2 {
		if err := m.Notify(); !errors.Is(err, weir.ErrLoopClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// TestNotifierAllocates nothing (R6).
func TestNotifierAllocates(t *testing.T) {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := l.NewNotifier(func() {})
	if a := testing.AllocsPerRun(100, func() {
		_ = n.Notify()
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
	}); a != 0 {
		t.Errorf("%v allocations for a call", a)
	}
}
