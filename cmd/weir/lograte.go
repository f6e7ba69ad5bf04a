package main

import (
	"context"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds on reports of one kind of event, so that no peer can fill a disk with
// them.
const (
	defaultLogRate = 20               // lines a second
	logBurst       = 25               // how many seconds' worth may come at once after a rest
	leftOutEvery   = 10 * time.Second // how often the number left out is reported
)

// rates bounds the reports of each kind of event. Its methods are safe from any goroutine,
// and allow takes no lock once a kind is known.
type rates struct {
	every   time.Duration // between two lines of a kind; 0: there is no bound
	leftOut func(kind string, n int64)
	now     func() time.Duration // since the start; a clock that is set back does not silence the log

	kinds  atomic.Pointer[map[string]*lineRate] // as many as there are in the code; never changed, only replaced
	timing atomic.Bool                          // flush is to be called
	mu     sync.Mutex                           // of those that add a kind, or flush
	timer  *time.Timer
}

// lineRate counts in time (ITU-T I.371's GCRA), so that one number says it all.
type lineRate struct {
	due  atomic.Int64 // when the next line would be due at an even rate, in nanoseconds since the start
	left atomic.Int64 // lines left out
}

func newRates(rate int, leftOut func(kind string, n int64)) *rates {
	began := time.Now()
	r := &rates{leftOut: leftOut, now: func() time.Duration { return time.Since(began) }}
	if rate > 0 {
		r.every = time.Second / time.Duration(rate)
	}
	r.kinds.Store(&map[string]*lineRate{})
	return r
}

// allow reports whether an event of a kind is to be reported. Each that is not
// is counted, and the count is reported within leftOutEvery.
func (r *rates) allow(kind string) bool {
	if r == nil || r.every <= 0 {
		return true
	}
	now := int64(r.now())
	k := (*r.kinds.Load())[kind]
	if k == nil {
		k = r.add(kind)
	}
	for {
		due := k.due.Load()
		next := max(due, now) + int64(r.every)
		if next-now > int64(logBurst*time.Second) {
			break
		}
		if k.due.CompareAndSwap(due, next) {
			return true
		}
	}
	k.left.Add(1)
	if r.timing.CompareAndSwap(false, true) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.timer = time.AfterFunc(leftOutEvery, r.flush)
	}
	return false
}

// add begins to count a kind.
func (r *rates) add(kind string) *lineRate {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := *r.kinds.Load()
	if k := old[kind]; k != nil {
		return k // another goroutine was faster
	}
	all := maps.Clone(old)
	all[kind] = &lineRate{}
	r.kinds.Store(&all)
	return all[kind]
}

// flush reports what was left out since the last such report.
func (r *rates) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	r.timing.Store(false)
	for kind, k := range *r.kinds.Load() {
		if n := k.left.Swap(0); n > 0 {
			r.leftOut(kind, n)
		}
	}
}

// grouped is a number with commas between its thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// ratedHandler bounds slog records by their message.
type ratedHandler struct {
	slog.Handler
	rates *rates
}

var _ slog.Handler = (*ratedHandler)(nil)

func (h *ratedHandler) Handle(ctx context.Context, rec slog.Record) error {
	if !h.rates.allow(rec.Message) {
		return nil
	}
	return h.Handler.Handle(ctx, rec)
}

func (h *ratedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &ratedHandler{Handler: h.Handler.WithAttrs(attrs), rates: h.rates}
}

func (h *ratedHandler) WithGroup(name string) slog.Handler {
	return &ratedHandler{Handler: h.Handler.WithGroup(name), rates: h.rates}
}
