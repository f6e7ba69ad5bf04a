package main

import (
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/weirtest"
)

// TestTrim: memory is given back once for a rush of connections, when it is over, and not
// for a few of them; and a rush is counted on all loops together.
func TestTrim(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	l := s.Host("here").Loop()
	m := newTrimmer(l, executor.New("test", 1, 1))
	given := 0
	m.give = func() { given++ }
	began := s.Now()
	other := s.Host("there").Loop()
	rush := func(l *weir.Loop, d time.Duration, each int) {
		until := l.Now().Add(d)
		var more func()
		more = func() {
			for range each {
				m.move()
			}
			if l.Now().Before(until) {
				l.After(100*time.Millisecond, more)
			}
		}
		more()
	}
	want := func(what string, at time.Duration, n int) {
		t.Helper()
		if err := s.RunFor(began + at - s.Now()); err != nil {
			t.Fatal(err)
		}
		if given != n {
			t.Errorf("%s: memory was given back %d times by %v, want %d", what, given, at, n)
		}
	}
	l.Soon(func() { rush(l, 0, trimLeast-1) })
	want("not a rush", 10*time.Second, 0)
	l.Soon(func() { rush(l, 10*time.Second, 10) })
	want("during the rush", 20*time.Second, 0)
	want("after the rush", 23*time.Second, 1)
	want("nothing since", time.Hour, 1)
	l.Soon(func() { rush(l, 0, trimLeast) })
	want("another rush", time.Hour+3*time.Second, 2)
	l.Soon(func() { rush(l, 0, trimLeast/2) })
	other.Soon(func() { rush(other, 0, trimLeast/2) })
	want("a rush on two loops", 2*time.Hour, 3)
}
