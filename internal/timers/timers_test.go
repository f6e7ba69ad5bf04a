package timers

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// model is the same promise, kept by a sorted slice.
type model struct {
	seq     uint64
	entries []modelEntry
}

type modelEntry struct {
	when int64
	seq  uint64
	id   int
}

func (m *model) remove(id int) bool {
	for i, e := range m.entries {
		if e.id == id {
			m.entries = slices.Delete(m.entries, i, i+1)
			return true
		}
	}
	return false
}

func (m *model) set(id int, when int64) {
	m.remove(id)
	m.seq++
	e := modelEntry{when, m.seq, id}
	i, _ := slices.BinarySearchFunc(m.entries, e, func(a, b modelEntry) int {
		switch {
		case a.when != b.when && a.when < b.when, a.when == b.when && a.seq < b.seq:
			return -1
		case a.seq == b.seq:
			return 0
		}
		return 1
	})
	m.entries = slices.Insert(m.entries, i, e)
}

// check verifies what the heap relies on: the places, and that no key is later than the
// true one.
func check(t *testing.T, h *Heap) {
	t.Helper()
	for i := range h.keys {
		k := &h.keys[i]
		if int(k.timer.pos) != i+1 {
			t.Fatalf("timer at %d thinks it is at %d", i, k.timer.pos-1)
		}
		if k.when != k.timer.placed || k.when > k.timer.when || k.seq > k.timer.seq {
			t.Fatalf("key %v for timer %+v", *k, *k.timer)
		}
		if i > 0 && k.before(&h.keys[(i-1)/arity]) {
			t.Fatalf("key %d is before its parent", i)
		}
	}
}

// play runs the operations that ops encodes on a heap and on the model.
func play(t *testing.T, ops []byte) {
	const n = 24
	var (
		h      Heap
		m      model
		timers [n]Timer
		now    int64
	)
	id := func(tm *Timer) int {
		for i := range timers {
			if tm == &timers[i] {
				return i
			}
		}
		t.Fatalf("an unknown timer %p", tm)
		return -1
	}
	pop := func() bool {
		got := h.Pop(now)
		if len(m.entries) == 0 || m.entries[0].when > now {
			if got != nil {
				t.Fatalf("popped %d (due %d) at %d, nothing was due", id(got), got.When(), now)
			}
			return false
		}
		want := m.entries[0].id
		m.entries = m.entries[1:]
		if got == nil {
			t.Fatalf("popped nothing at %d, want %d", now, want)
		}
		if id(got) != want || got.Pending() {
			t.Fatalf("popped %d (pending %v), want %d", id(got), got.Pending(), want)
		}
		return true
	}
	for len(ops) >= 2 {
		op, arg := ops[0], ops[1]
		ops = ops[2:]
		i := int(arg) % n
		switch op % 8 {
		case 0, 1, 2, 3:
			// Few distinct times, so that many are equal.
			when := now + int64(op>>3)%8 - 1
			h.Set(&timers[i], when)
			m.set(i, when)
		case 4:
			if got, want := h.Remove(&timers[i]), m.remove(i); got != want {
				t.Fatalf("Remove(%d) = %v, want %v", i, got, want)
			}
		case 5:
			when, ok := h.Min()
			if ok != (len(m.entries) > 0) || ok && when != m.entries[0].when {
				t.Fatalf("Min() = %d, %v, the model has %v", when, ok, m.entries)
			}
		case 6:
			pop()
		case 7:
			now += int64(arg % 4)
		}
		if h.Len() != len(m.entries) {
			t.Fatalf("Len() = %d, want %d", h.Len(), len(m.entries))
		}
		check(t, &h)
	}
	now = math.MaxInt64
	for pop() {
	}
	if h.Len() != 0 {
		t.Fatalf("%d timers left", h.Len())
	}
}

func TestAgainstSortedSlice(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		ops := make([]byte, 600)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		play(t, ops)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzAgainstSortedSlice(f *testing.F) {
	f.Add([]byte{8, 0, 8, 1, 16, 0, 7, 3, 6, 0, 6, 0, 5, 0})
	f.Add([]byte{56, 3, 8, 3, 56, 3, 4, 3, 4, 3, 5, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 4096 {
			return
		}
		play(t, ops)
	})
}

// G5: equal deadlines come out in the order they were set, even if a timer was moved to
// the deadline from an earlier or a later one.
func TestEqualDeadlinesKeepOrder(t *testing.T) {
	var h Heap
	timers := make([]Timer, 1000)
	for i := range timers {
		switch i % 3 {
		case 0:
			h.Set(&timers[i], 10)
		case 1:
			h.Set(&timers[i], 90)
		}
	}
	for i := range timers {
		h.Set(&timers[i], 50)
	}
	for i := range timers {
		if h.Pop(49) != nil {
			t.Fatal("a timer came early")
		}
		if got := h.Pop(50); got != &timers[i] {
			t.Fatalf("the %dth to come out is not the %dth that was set", i, i)
		}
	}
}

func TestCleared(t *testing.T) {
	var h Heap
	timers := make([]Timer, 10)
	for i := range timers {
		h.Set(&timers[i], int64(i))
	}
	h.Clear()
	if _, ok := h.Min(); ok || h.Len() != 0 || h.Pop(math.MaxInt64) != nil {
		t.Error("something is left")
	}
	for i := range timers {
		if timers[i].Pending() || h.Remove(&timers[i]) {
			t.Errorf("timer %d thinks that it is pending", i)
		}
	}
	h.Set(&timers[3], 5)
	if h.Pop(5) != &timers[3] {
		t.Error("a cleared heap cannot be used again")
	}
}

// Behaviour 12: a million timers set and stopped return their memory.
func TestAMillionReturnTheirMemory(t *testing.T) {
	const n = 1_000_000
	var h Heap
	timers := make([]Timer, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range timers {
		h.Set(&timers[i], r.Int64N(1e9))
	}
	if h.Len() != n {
		t.Fatalf("Len() = %d", h.Len())
	}
	before := heapInUse()
	for i := range timers {
		if !h.Remove(&timers[i]) || h.Remove(&timers[i]) {
			t.Fatal("Remove must report true once")
		}
	}
	after := heapInUse()
	if cap(h.keys) > 2*minCap {
		t.Errorf("the empty heap keeps room for %d timers", cap(h.keys))
	}
	if freed := int64(before) - int64(after); freed < 20*n {
		t.Errorf("%d bytes came back, want at least %d", freed, 20*n)
	}
	runtime.KeepAlive(timers)
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// R6: nothing is allocated in steady state.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	var h Heap
	timers := make([]Timer, 5000)
	for i := range timers {
		h.Set(&timers[i], int64(i))
	}
	i, now := 0, int64(0)
	got := testing.AllocsPerRun(20000, func() {
		tm := &timers[i%len(timers)]
		i++
		now++
		h.Set(tm, now+int64(i*7919%5000))
		h.Remove(tm)
		h.Set(tm, now+int64(i*104729%5000))
		h.Min()
		if p := h.Pop(now); p != nil {
			h.Set(p, now+5000)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations per round, want 0", got)
	}
}

const million = 1_000_000

func filled(b *testing.B) (*Heap, []Timer, *rand.Rand) {
	h := new(Heap)
	timers := make([]Timer, million)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range timers {
		h.Set(&timers[i], r.Int64N(1e9))
	}
	b.ReportAllocs()
	b.ResetTimer()
	return h, timers, r
}

// Target: at most 60 ns with a million pending.
func BenchmarkSetStop(b *testing.B) {
	h, _, r := filled(b)
	extra := make([]Timer, 1024)
	for i := range b.N {
		t := &extra[i&1023]
		h.Set(t, r.Int64N(1e9))
		h.Remove(t)
	}
}

// Target: at most 300 ns with a million pending.
func BenchmarkRandomReset(b *testing.B) {
	h, timers, r := filled(b)
	for range b.N {
		h.Set(&timers[r.IntN(million)], r.Int64N(1e9))
	}
}

// The same with time passing, so that the work that a late reset postpones is included:
// the heap keeps its million, and each round resets one and pops what is due.
func BenchmarkRandomResetAndExpire(b *testing.B) {
	h, timers, r := filled(b)
	now := int64(0)
	for range b.N {
		now += 500
		h.Set(&timers[r.IntN(million)], now+r.Int64N(1e9))
		for t := h.Pop(now); t != nil; t = h.Pop(now) {
			h.Set(t, now+r.Int64N(1e9))
		}
	}
}

// An idle timeout: every message pushes back one of a million.
func BenchmarkIdleTimeout(b *testing.B) {
	h, timers, r := filled(b)
	now := int64(0)
	for range b.N {
		now += 100
		h.Set(&timers[r.IntN(million)], now+1e9)
		for t := h.Pop(now); t != nil; t = h.Pop(now) {
			h.Set(t, now+1e9)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	timers := make([]Timer, million)
	r := rand.New(rand.NewPCG(1, 2))
	h := new(Heap)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%million == 0 {
			b.StopTimer()
			clear(timers)
			h = new(Heap)
			b.StartTimer()
		}
		h.Set(&timers[i%million], r.Int64N(1e9))
	}
}

func BenchmarkDrain(b *testing.B) {
	h, timers, r := filled(b)
	for range b.N {
		if h.Len() == 0 {
			b.StopTimer()
			for i := range timers {
				h.Set(&timers[i], r.Int64N(1e9))
			}
			b.StartTimer()
		}
		h.Pop(math.MaxInt64)
	}
}
