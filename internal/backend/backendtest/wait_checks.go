package backendtest

import (
	"math"
	"sync"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

var waitChecks = []check{
	{
		name:   "TimeoutsNeverEarly",
		reason: "a timer never fires early (G5), not by a rounded millisecond either",
		run:    checkTimeoutsNeverEarly,
	},
	{
		name:   "ZeroTimeout",
		reason: "a loop with callbacks queued asks without waiting",
		run:    checkZeroTimeout,
	},
	{
		name:   "HugeTimeout",
		reason: "a delay of centuries neither overflows nor keeps the loop from what happens (behaviour 10, bug 5)",
		run:    checkHugeTimeout,
	},
	{
		name:   "WakeBefore",
		reason: "a post just before the wait must not wait for the next event",
		run:    checkWakeBefore,
	},
	{
		name:   "WakeDuring",
		reason: "a post wakes a loop that waits (behaviour 15)",
		run:    checkWakeDuring,
	},
	{
		name:   "WakeFromMany",
		reason: "no wake is lost among many goroutines (behaviour 15, bug 6)",
		run:    checkWakeFromMany,
	},
	{
		name:   "WakesCountAsOne",
		reason: "a million posts are one wake, not a million empty turns",
		run:    checkWakesCountAsOne,
	},
	{
		name:   "WakeAfterClose",
		reason: "posts race closing; a late wake must do no harm",
		run:    checkWakeAfterClose,
	},
	{
		name:   "ResultsWithWake",
		reason: "a wake hides no result",
		run:    checkResultsWithWake,
	},
	{
		name:   "OneResultAtATime",
		reason: "a loop with a limit has room for one result, although a handle may have several (R24)",
		run:    checkOneResult,
	},
	{
		name:   "AwaitFromOutside",
		reason: "a host's goroutine waits for a backend without a descriptor: no result may be missed, and no turn be for nothing (R24, R66)",
		run:    checkAwait,
	},
	{
		name:   "ClockMoves",
		reason: "Now never goes back",
		run:    checkClock,
	},
}

func checkTimeoutsNeverEarly(r *rig) {
	for _, d := range []time.Duration{1, 100 * time.Microsecond, time.Millisecond, 1500 * time.Microsecond, 12_345_678} {
		// A signal may end a wait early, now and then and several times in a row.
		// A rounded timeout is early each time.
		early := 0
		const rounds = 10
		for range rounds {
			start := r.be.Now()
			first := true
			for left := d; left > 0; left = d - (r.be.Now() - start) {
				if n := r.wait(left); n != 0 {
					r.t.Fatalf("%d results from nothing", n)
				}
				if first && r.be.Now()-start < d {
					early++
				}
				first = false
			}
			if late := r.be.Now() - start - d; late > 5*time.Second {
				r.t.Errorf("Wait(%v) took %v longer", d, late)
			}
		}
		if early > rounds/2 {
			r.t.Errorf("Wait(%v) was early in %d of %d rounds", d, early, rounds)
		}
	}
}

func checkZeroTimeout(r *rig) {
	start := time.Now()
	for range 100 {
		if n := r.wait(0); n != 0 {
			r.t.Fatalf("%d results from nothing", n)
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		r.t.Errorf("100 Waits of no time took %v", d)
	}
}

func checkHugeTimeout(r *rig) {
	for _, d := range []time.Duration{math.MaxInt64, 100 * 365 * 24 * time.Hour, 50*24*time.Hour + 1, -1, math.MinInt64} {
		r.be.Wake()
		r.wait(d)
	}
	l, a := r.listen(tcp4)
	c := r.open(tcp4)
	op := &backend.Op{Kind: backend.Accept, Handle: l}
	r.submit(op)
	r.do(connectOp(c, a))
	for start := time.Now(); len(r.got[op]) == 0; {
		if time.Since(start) > patience {
			r.t.Fatal("nothing happened")
		}
		r.wait(math.MaxInt64)
	}
}

func checkWakeBefore(r *rig) {
	start := time.Now()
	for range 50 {
		r.be.Wake()
		r.wait(-1)
	}
	if d := time.Since(start); d > 5*time.Second {
		r.t.Errorf("50 Waits with a wake due took %v", d)
	}
}

func checkWakeDuring(r *rig) {
	// The other goroutine wakes once per token, most often during the Wait.
	tokens := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for range tokens {
			r.be.Wake()
		}
	})
	for range 300 {
		tokens <- struct{}{}
		r.wait(-1)
	}
	close(tokens)
	wg.Wait()
}

func checkWakeFromMany(r *rig) {
	const posters, posts = 4, 2000
	var (
		mu    sync.Mutex
		queue int
		wg    sync.WaitGroup
	)
	for range posters {
		wg.Go(func() {
			for range posts {
				mu.Lock()
				queue++
				mu.Unlock()
				r.be.Wake()
			}
		})
	}
	taken := 0
	for start := time.Now(); taken < posters*posts; {
		if time.Since(start) > patience {
			r.t.Fatalf("%d of %d posts were seen", taken, posters*posts)
		}
		mu.Lock()
		taken += queue
		empty := queue == 0
		queue = 0
		mu.Unlock()
		if empty {
			r.wait(-1) // lasts for ever if a wake is lost
		}
	}
	wg.Wait()
}

func checkWakesCountAsOne(r *rig) {
	for range 1000 {
		r.be.Wake()
	}
	waits := 0
	for end := r.be.Now() + 20*time.Millisecond; r.be.Now() < end; waits++ {
		r.wait(max(0, end-r.be.Now()))
	}
	if waits > 20 {
		r.t.Errorf("1000 wakes made %d Waits return", waits)
	}
}

func checkWakeAfterClose(r *rig) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					r.be.Wake()
				}
			}
		})
	}
	for range 20 {
		r.wait(time.Millisecond)
	}
	if err := r.be.Close(); err != nil {
		r.t.Errorf("Close: %v", err)
	}
	r.be.Wake()
	close(stop)
	wg.Wait()
}

func checkResultsWithWake(r *rig) {
	c, s := r.pair(tcp4)
	for range 50 {
		op := readOp(s, 0)
		r.submit(op)
		r.be.Wake()
		r.write(c, []byte("x"))
		r.be.Wake()
		if res := r.await(op); string(res.data) != "x" {
			r.t.Fatalf("read %q, %v", res.data, res.err)
		}
	}
}

func checkClock(r *rig) {
	last := r.be.Now()
	for range 1000 {
		now := r.be.Now()
		if now < last {
			r.t.Fatalf("Now went from %v to %v", last, now)
		}
		last = now
	}
	wall := r.be.Wall()
	if wall.IsZero() {
		r.t.Error("Wall is zero")
	}
	r.wait(time.Millisecond)
	if !r.be.Wall().Equal(wall) {
		r.t.Error("Wall changed")
	}
}

// checkOneResult has a result of each direction come on many handles at once.
func checkOneResult(r *rig) {
	r.done = r.done[:1]
	type both struct{ c, s backend.Handle }
	var pairs []both
	for range 5 {
		c, s := r.pair(tcp4)
		pairs = append(pairs, both{c, s})
	}
	for round := range 20 {
		var ops, rooms []*backend.Op
		for _, p := range pairs {
			for _, h := range []backend.Handle{p.c, p.s} {
				op := readOp(h, 0)
				room := &backend.Op{Kind: backend.Ready, Events: backend.Writable, Handle: h}
				r.submit(op)
				r.submit(room)
				ops, rooms = append(ops, op), append(rooms, room)
			}
		}
		for _, p := range pairs {
			r.write(p.c, []byte("x"))
			r.write(p.s, []byte("y"))
		}
		for i, op := range ops {
			want := "y"
			if i%2 == 1 {
				want = "x"
			}
			if res := r.await(op); string(res.data) != want {
				r.t.Fatalf("round %d: handle %d read %q, %v", round, i, res.data, res.err)
			}
		}
		for _, op := range rooms {
			r.await(op)
		}
	}
}

func checkAwait(r *rig) {
	a, ok := r.be.(backend.Awaiter)
	if !ok {
		r.t.Skip("the backend has a descriptor to watch, or no goroutines (backend.Awaiter)")
	}
	c, s := r.pair(tcp4)
	quit := make(chan struct{})
	a.Host(true)
	await := func(d time.Duration) time.Duration {
		start := time.Now()
		a.Await(d, quit)
		r.wait(0)
		return time.Since(start)
	}
	quiet := func(when string) {
		r.t.Helper()
		const long = 20 * time.Millisecond
		for range 10 {
			if await(long) >= long {
				return
			}
		}
		r.t.Fatalf("%s: Await returns for nothing again and again", when)
	}
	quiet("at first")
	for range 50 {
		op := readOp(s, 0)
		r.submit(op)
		go r.be.Wake()
		if d := await(patience); d >= patience {
			r.t.Fatal("a Wake did not end Await")
		}
		r.write(c, []byte("x"))
		for len(r.got[op]) == 0 {
			if d := await(patience); d >= patience {
				r.t.Fatal("a result did not end Await")
			}
		}
	}
	quiet("after results")
	// What is refused is reported by a Wait, without anything else happening.
	op := &backend.Op{Kind: backend.Accept, Flags: backend.Multi, Handle: 1 << 20}
	r.submit(op)
	if d := await(patience); d >= patience || len(r.got[op]) == 0 {
		r.t.Fatalf("after %v: a refused Op has %d results", d, len(r.got[op]))
	}
	quiet("after a refusal")
	ended := make(chan struct{})
	go func() {
		a.Await(-1, quit)
		close(ended)
	}()
	close(quit)
	select {
	case <-ended:
	case <-time.After(patience):
		r.t.Fatal("quit did not end Await")
	}
}
