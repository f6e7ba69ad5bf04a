package contract

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// A timer outlives its loop: stopping it then does nothing.
func TestStopTimerAfterLoopClosed(t *testing.T) {
	l := newLoop(t)
	timers := []interface{ Stop() bool }{
		l.After(time.Hour, func() { t.Error("fired") }),
		l.After(2*time.Hour, func() { t.Error("fired") }),
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i, tm := range timers {
		if tm.Stop() {
			t.Errorf("timer %d was running on a closed loop", i)
		}
	}
}

// What the loop posts to itself for a tenant is no one's callback, so Close does
// not report it as dropped (behaviour 16).
func TestTenantCanceledBeforeClose(t *testing.T) {
	var told []error
	l, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { told = append(told, err) }))
	if err != nil {
		t.Fatal(err)
	}
	tn := l.NewTenant("one")
	tn.After(time.Hour, func() { t.Error("fired") })
	tn.Close(nil)
	if err := l.Close(); err != nil || len(told) > 0 {
		t.Errorf("close: %v, told of %v", err, told)
	}
	if err := l.Turn(0); !errors.Is(err, weir.ErrLoopClosed) {
		t.Errorf("a turn of a closed loop: %v", err)
	}
	// A host has nothing left to do for it, and nothing to watch.
	if d, ok := l.Next(); ok {
		t.Errorf("a closed loop has something to do in %v", d)
	}
	if fd := l.PollFD(); fd != -1 {
		t.Errorf("a closed loop is to be watched by descriptor %d", fd)
	}
}

// Again in a callback counts from the moment when the timer was due, even for a
// repeating timer, and whatever was set before it there (behaviour 13).
func TestAgainInRepeat(t *testing.T) {
	const every = 50 * time.Millisecond
	for name, before := range map[string]func(*weir.Timer){
		"repeat":           func(*weir.Timer) {},
		"repeat, then set": func(tm *weir.Timer) { tm.Set(time.Hour); tm.Repeat(every) },
	} {
		sim := weirtest.NewSim(t, 1)
		l := sim.Host("one").Loop()
		begin := l.Now()
		var fired []time.Duration
		var tm *weir.Timer
		tm = l.NewTimer(func() {
			fired = append(fired, l.Now().Sub(begin))
			if len(fired) == 1 {
				before(tm)
				tm.Again()
				return
			}
			tm.Stop()
		})
		tm.Repeat(every)
		if err := sim.RunFor(10 * every); err != nil {
			t.Fatal(err)
		}
		if len(fired) != 2 || fired[0] != every || fired[1] != 2*every {
			t.Errorf("%s: fired after %v, want %v and %v", name, fired, every, 2*every)
		}
	}
}

// A closed loop does not run, so any goroutine may call its methods, in debug
// mode too (behaviour 17).
func TestDebugAfterClose(t *testing.T) {
	var told bytes.Buffer
	l, err := weir.NewLoop(weir.WithDebug(time.Hour), weir.WithLogger(slog.New(slog.NewTextHandler(&told, nil))))
	if err != nil {
		t.Fatal(err)
	}
	tm := l.NewTimer(func() {})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		tm.Stop()
	}()
	<-stopped
	if told.Len() > 0 {
		t.Errorf("told of %s", &told)
	}
}
