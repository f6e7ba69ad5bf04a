package main

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// The bounds on reports of one kind of event, so that no peer can fill a disk with
// them.
const (
	defaultLogRate = 20               // lines a second
	logBurst       = 25               // how many seconds' worth may come at once after a rest
	leftOutEvery   = 10 * time.Second // how often the number left out is reported
)

// rates bounds the reports of each kind of event. Its methods are safe from any
// goroutine.
type rates struct {
	rate    float64 // lines a second of each kind; 0: any number
	leftOut func(kind string, n int64)
	now     func() time.Time

	mu    sync.Mutex
	kinds map[string]*lineRate // as many as there are in the code
	timer *time.Timer          // while lines are left out
}

type lineRate struct {
	credit float64 // lines
	at     time.Time
	left   int64 // lines left out
}

func newRates(rate int, leftOut func(kind string, n int64)) *rates {
	return &rates{rate: float64(rate), leftOut: leftOut, now: time.Now, kinds: map[string]*lineRate{}}
}

// allow reports whether an event of a kind is to be reported. Each that is not
// is counted, and the count is reported within leftOutEvery.
func (r *rates) allow(kind string) bool {
	if r == nil || r.rate <= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	k := r.kinds[kind]
	if k == nil {
		k = &lineRate{credit: r.rate * logBurst, at: now}
		r.kinds[kind] = k
	}
	k.credit = min(k.credit+r.rate*now.Sub(k.at).Seconds(), r.rate*logBurst)
	k.at = now
	if k.credit >= 1 {
		k.credit--
		return true
	}
	k.left++
	if r.timer == nil {
		r.timer = time.AfterFunc(leftOutEvery, r.flush)
	}
	return false
}

// flush reports what was left out since the last such report.
func (r *rates) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	for kind, k := range r.kinds {
		if k.left > 0 {
			r.leftOut(kind, k.left)
			k.left = 0
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
