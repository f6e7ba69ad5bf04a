package weirtest

import (
	"fmt"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"
)

// CheckLeaks fails the test if there are goroutines or open descriptors at its
// end that were not there when CheckLeaks was called, and says where they come
// from: the stacks of the goroutines, and what the descriptors are (behaviour
// 93). Call it first. It examines the whole process, so it cannot be used with
// tests that run in parallel. Descriptors are checked on Linux only.
func CheckLeaks(tb testing.TB) {
	tb.Helper()
	before := TakeSnapshot()
	tb.Cleanup(func() {
		tb.Helper()
		if left := before.Leaks(time.Second); len(left) > 0 {
			tb.Errorf("weirtest: left behind:\n%s", strings.Join(left, "\n"))
		}
	})
}

// Snapshot is the set of goroutines and descriptors at one moment.
type Snapshot struct {
	goroutines  map[string]string // by number, the stack
	descriptors map[string]descriptor
}

// descriptor is an open descriptor: what tells it from others of its number,
// and a description for people.
type descriptor struct {
	identity, names string
}

// TakeSnapshot takes a Snapshot of the process.
func TakeSnapshot() *Snapshot {
	return &Snapshot{goroutines: goroutines(), descriptors: descriptors()}
}

// Leaks returns what is there now and was not there at the snapshot, one text
// each, goroutines first. Goroutines that are about to end have up to patience
// to do so.
func (s *Snapshot) Leaks(patience time.Duration) []string {
	pause := time.Millisecond
	for {
		left := s.compare()
		if len(left) == 0 || patience <= 0 {
			return left
		}
		pause = min(pause, patience)
		patience -= pause
		time.Sleep(pause) //nolint:forbidigo // goroutines end in real time
		pause *= 2
	}
}

func (s *Snapshot) compare() []string {
	var left []string
	now := TakeSnapshot()
	// any order: sorted below.
	for id, stack := range now.goroutines {
		if _, ok := s.goroutines[id]; !ok {
			left = append(left, stack)
		}
	}
	sort.Strings(left)
	n := len(left)
	// any order: sorted below.
	for fd, d := range now.descriptors {
		if s.descriptors[fd].identity != d.identity {
			left = append(left, fmt.Sprintf("descriptor %s: %s%s", fd, d.identity, d.names))
		}
	}
	sort.Strings(left[n:])
	return left
}

// goroutines returns the stacks of all goroutines except the caller's.
func goroutines() map[string]string {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := make(map[string]string)
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i == 0 {
			continue // the caller
		}
		// "goroutine 7 [select, 2 minutes]:"
		id, _, ok := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		if ok && !ofTheRuntime(stack) {
			all[id] = strings.TrimSpace(stack)
		}
	}
	return all
}

// ofTheRuntime tells goroutines that packages of the standard library start
// once, when first used, and never end.
func ofTheRuntime(stack string) bool {
	for _, frame := range []string{
		"os/signal.loop(",
		"os/signal.signal_recv(",
		"runtime.ensureSigM",
		"runtime.ReadTrace(",
	} {
		if strings.Contains(stack, frame) {
			return true
		}
	}
	return false
}
