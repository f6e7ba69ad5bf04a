//go:build linux

package contract

import (
	"errors"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// TestGuest runs a loop inside a host that only knows callbacks (R24).
func TestGuest(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	host := make(chan func(), 1)
	stop, err := l.Guest(func(turn func()) { host <- turn })
	if errors.Is(err, weir.ErrNoPollFD) {
		t.Skip("no descriptor to watch:", l.Backend().Name)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	// Often: a wake that comes just as the waiting begins must not be lost.
	const rounds = 100
	timers, posts := 0, 0
	var again func()
	again = func() {
		l.After(time.Millisecond, func() {
			timers++
			go l.Post(func() {
				if posts++; posts < rounds {
					again()
				}
			})
		})
	}
	again()
	deadline := time.After(20 * time.Second)
	for posts < rounds {
		select {
		case turn := <-host:
			turn()
			if posts > timers {
				t.Fatalf("%d posts of %d timers", posts, timers)
			}
		case <-deadline:
			t.Fatalf("%d turns of %d", posts, rounds)
		}
	}
}
