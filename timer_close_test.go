package weir_test

import (
	"testing"
	"time"
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
