//go:build linux

package weir_test

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
	timer, posted := false, make(chan bool, 1)
	l.After(5*time.Millisecond, func() {
		timer = true
		go l.Post(func() { posted <- true })
	})
	deadline := time.After(20 * time.Second)
	for {
		select {
		case turn := <-host:
			turn()
		case <-posted:
			if !timer {
				t.Error("the post came before the timer that made it")
			}
			return
		case <-deadline:
			t.Fatal("the guest did not get its turns")
		}
	}
}
