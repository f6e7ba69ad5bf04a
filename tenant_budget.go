package weir

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// TenantLimits bounds what a tenant, and those inside it, may have at once. Each limit
// that is 0 is disabled.
type TenantLimits struct {
	// Buffered bounds the bytes in the write buffers of its transports and those that
	// their protocols left unused. Beyond it, reading pauses on every transport of the
	// tenant until three quarters are left, and new connections are refused. The bound is
	// looked at when a callback has returned, so what one callback writes comes on top. If
	// it lasts for 5 s, the transport that buffers the most is lost with a *BudgetError.
	Buffered int
	// Connections bounds open connections, including connects under way. A listener
	// resets what comes beyond it, and reports that as an *AdmissionError; Connect and
	// Attach fail.
	Connections int
}

// TenantStats says what a tenant, and those inside it, have used so far.
type TenantStats struct {
	// Callbacks and Time are what the loop ran for it, and how long that took. They are
	// counted while a tenant of the loop has a share: see SetShare.
	Callbacks         uint64
	Time              time.Duration
	BytesIn, BytesOut uint64 // read from the system, and taken by it
	Buffered          int    // bytes now: see TenantLimits
	Connections       int    // now, including connects under way
	Refused           uint64 // connections that its limits refused
}

// BudgetError says which of its limits a tenant has reached.
type BudgetError struct {
	Tenant string // the tenant whose limit it is
	What   string // "connections" or "buffered bytes"
	Used   int
	Limit  int
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("weir: tenant %s has %d %s, the limit is %d (SetLimits)", e.Tenant, e.Used, e.What, e.Limit)
}

// budgetPatience is how long a tenant may be over its limit of buffered bytes before the
// transport that buffers the most is lost.
const budgetPatience = 5 * time.Second

// budget counts what a tenant uses, and compares it with its limits.
type budget struct {
	limits   TenantLimits
	used     TenantStats
	over     bool   // there are too many bytes, or were and have not become much fewer
	full     int    // how many of the tenant and those around it are over
	patience *Timer // runs while it is over
}

func (b *budget) stop() {
	if b.patience != nil {
		b.patience.Stop()
	}
}

// Stats is what the tenant has used. It costs nothing but the copy.
func (t *Tenant) Stats() TenantStats { return t.used }

// Limits is what SetLimits was given.
func (t *Tenant) Limits() TenantLimits { return t.limits }

// SetLimits bounds what the tenant may have at once; what it has already stays. A limit
// below 0 is an *OptionError, and nothing changes.
func (t *Tenant) SetLimits(limits TenantLimits) error {
	if err := t.loop.check("SetLimits"); err != nil {
		return err
	}
	for _, n := range [...]int{limits.Buffered, limits.Connections} {
		if n < 0 {
			return &OptionError{"SetLimits", strconv.Itoa(n), notNegative}
		}
	}
	t.limits = limits
	t.compare()
	return nil
}

// admit reports why the tenant can have no other connection; nil if it can.
func (t *Tenant) admit() error {
	for u := t; u != nil; u = u.parent {
		var err *BudgetError
		switch {
		case u.gone.Load():
			return u.err
		case u.limits.Connections > 0 && u.used.Connections >= u.limits.Connections:
			err = &BudgetError{u.name, "connections", u.used.Connections, u.limits.Connections}
		case u.over:
			err = u.overBudget()
		default:
			continue
		}
		for v := t; v != nil; v = v.parent {
			v.used.Refused++
		}
		return err
	}
	return nil
}

func (t *Tenant) overBudget() *BudgetError {
	return &BudgetError{t.name, "buffered bytes", t.used.Buffered, t.limits.Buffered}
}

// connected counts connections that began, or with -1 ended.
func (t *Tenant) connected(n int) {
	for u := t; u != nil; u = u.parent {
		u.used.Connections += n
	}
}

// came counts bytes that were read, left those that the system took.
func (t *Tenant) came(n int) {
	for u := t; u != nil; u = u.parent {
		u.used.BytesIn += uint64(n)
	}
}

func (t *Tenant) left(n int) {
	for u := t; u != nil; u = u.parent {
		u.used.BytesOut += uint64(n)
	}
}

func (b *tie) came(n int) {
	if b.tenant != nil {
		b.tenant.came(n)
	}
}

func (b *tie) left(n int) {
	if b.tenant != nil {
		b.tenant.left(n)
	}
}

// held reports whether the tenant's budget holds reading back.
func (b *tie) held() bool { return b.tenant != nil && b.tenant.full > 0 }

// recount brings what is counted for the tenant in line with what the stream keeps.
func (s *stream) recount() {
	b := s.tie
	if b.tenant == nil {
		return
	}
	n := len(s.tail) + len(s.x.more)
	if s.out != nil {
		n += s.out.n
	}
	if n != b.buffered {
		d := n - b.buffered
		b.buffered = n
		b.tenant.keeps(d)
	}
}

// keeps counts n more buffered bytes.
func (t *Tenant) keeps(n int) {
	if n == 0 {
		return
	}
	for u := t; u != nil; u = u.parent {
		u.used.Buffered += n
		u.compare()
	}
}

// compare begins to hold reading back, or ends it.
func (t *Tenant) compare() {
	limit := t.limits.Buffered
	if limit == 0 {
		limit = math.MaxInt
	}
	switch {
	case !t.over && t.used.Buffered > limit:
		t.over = true
		t.hold(1)
		if t.patience == nil {
			t.patience = t.loop.NewTimer(t.tooLong)
		}
		t.patience.Set(budgetPatience)
	case t.over && t.used.Buffered <= limit-limit/4:
		t.ease()
	}
}

func (t *Tenant) ease() {
	t.over = false
	t.patience.Stop()
	t.hold(-1)
}

// hold changes how many budgets hold back the streams of the tenant and of those inside
// it.
func (t *Tenant) hold(n int) {
	t.full += n
	for s := range t.streams.All() {
		switch {
		case s.phase >= phaseClosing:
		case t.full > 0:
			s.touch()
		case !s.paused():
			s.readingResumed()
		}
	}
	for c := range t.children.All() {
		c.hold(n)
	}
}

// tooLong is called when the tenant has been over its budget for budgetPatience. Tails that
// wait for more bytes would wait for ever: reading goes on if there is room, or one
// transport gives way.
func (t *Tenant) tooLong() {
	if !t.over {
		return
	}
	if t.used.Buffered <= t.limits.Buffered {
		t.ease()
		return
	}
	if s := t.largest(nil); s != nil {
		s.lose(t.overBudget())
		s.touch()
	}
	t.patience.Set(budgetPatience)
}

// largest is the stream that buffers the most, if that is more than s does.
func (t *Tenant) largest(s *stream) *stream {
	for x := range t.streams.All() {
		if x.phase < phaseLost && x.tie.buffered > 0 && (s == nil || x.tie.buffered > s.tie.buffered) {
			s = x
		}
	}
	for c := range t.children.All() {
		s = c.largest(s)
	}
	return s
}
