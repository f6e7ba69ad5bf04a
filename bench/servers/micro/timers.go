package main

import (
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/weir-io/weir"

	"github.com/weir-io/weir/bench/internal/side"
)

const million = 1_000_000

// deadlines are a million durations that do not expire during the run.
func deadlines(seed uint64) []time.Duration {
	rnd := rand.New(rand.NewPCG(seed, 7))
	d := make([]time.Duration, million)
	for i := range d {
		d[i] = time.Hour + time.Duration(rnd.Int64N(int64(time.Hour)))
	}
	return d
}

func heapBytes() float64 {
	runtime.GC()
	runtime.GC()
	return float64(side.Read().Heap)
}

func timers(f figures) {
	runtime.LockOSThread() // for threadTime
	defer runtime.UnlockOSThread()
	weirTimers(f)
	stdTimers(f)
}

// weirTimers works on a loop that does not run, as its one caller may.
func weirTimers(f figures) {
	first, second := deadlines(1), deadlines(2)
	l := newLoop()
	nothing := func() {}
	ts := make([]*weir.Timer, million)
	before := heapBytes()
	began := threadTime()
	for i := range ts {
		ts[i] = l.NewTimer(nothing)
		ts[i].Set(first[i])
	}
	f.perCPU("weir: make and set", began, million)
	f["weir: bytes each"] = (heapBytes() - before) / million

	began = threadTime()
	for i := range ts {
		t := ts[i]
		t.Stop()
		t.Set(first[i])
	}
	f.perCPU("weir: stop and set again, a million pending", began, million)

	// Set and stop a timer beside a million that stay, like a timeout that is not needed.
	one := l.NewTimer(nothing)
	began = threadTime()
	for i := range million {
		one.Set(second[i])
		one.Stop()
	}
	f.perCPU("weir: set and stop, a million pending", began, million)

	began = threadTime()
	for i := range ts {
		ts[i].Set(second[i])
	}
	f.perCPU("weir: random reset, a million pending", began, million)

	began = threadTime()
	for i := range ts {
		ts[i].Set(time.Hour*3 + time.Duration(i))
	}
	f.perCPU("weir: reset to later, as an idle timeout", began, million)

	began = threadTime()
	for i := range ts {
		ts[i].Stop()
	}
	f.perCPU("weir: stop", began, million)

	fired := 0
	count := func() { fired++ }
	soon := make([]*weir.Timer, million)
	for i := range soon {
		soon[i] = l.NewTimer(count)
		soon[i].Set(time.Duration(second[i]-time.Hour) % time.Microsecond)
	}
	for began = threadTime(); fired < million; {
		side.Check(l.Turn(0))
	}
	f.perCPU("weir: due and called", began, million)
	side.Check(l.Close())
}

func stdTimers(f figures) {
	first, second := deadlines(1), deadlines(2)
	nothing := func() {}
	ts := make([]*time.Timer, million)
	before := heapBytes()
	began := threadTime()
	for i := range ts {
		ts[i] = time.AfterFunc(first[i], nothing)
	}
	f.perCPU("time.AfterFunc: make and set", began, million)
	f["time.AfterFunc: bytes each"] = (heapBytes() - before) / million

	one := time.AfterFunc(time.Hour, nothing)
	began = threadTime()
	for i := range million {
		one.Reset(second[i])
		one.Stop()
	}
	f.perCPU("time.AfterFunc: set and stop, a million pending", began, million)

	began = threadTime()
	for i := range ts {
		ts[i].Reset(second[i])
	}
	f.perCPU("time.AfterFunc: random reset, a million pending", began, million)

	began = threadTime()
	for i := range ts {
		ts[i].Reset(time.Hour*3 + time.Duration(i))
	}
	f.perCPU("time.AfterFunc: reset to later, as an idle timeout", began, million)

	began = threadTime()
	for i := range ts {
		ts[i].Stop()
	}
	f.perCPU("time.AfterFunc: stop", began, million)
}
