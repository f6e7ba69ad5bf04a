package weir

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/timeout"
)

// Budget bounds what all the loops and tenants that share it keep in memory for their
// connections, and how many connections their listeners accept: one Budget for a
// process, whatever the number of its loops. WithBudget gives it to loops,
// Tenant.SetBudget to tenants. Its methods may be called on any goroutine.
//
// As the bytes come closer to the limit, it answers in stages:
//
//	0 ────────────── 1/2 ──────────── 3/4 ──────────── 7/8 ───────── the limit
//	 nothing is held  │ the greediest   │ new ones are    │ the largest   │ nothing more is
//	 back             │ are paused      │ refused too     │ are reset     │ read, and the
//	                                                                      │ largest are reset
//	                                                                      │ at once
//
// Paused means: a transport that keeps more than a sixteenth of what is left of the
// budget reads nothing, and its writer gets PauseWriting, as if that were its high mark.
// So however many are greedy, something is left for those that are not.
//
// A loop counts by itself and takes room from the budget in pieces, so what is counted is
// never less than what is buffered, and for each loop and tenant up to 128 KiB more, or a
// 128th of the limit if that is less.
type Budget struct {
	limits BudgetLimits
	chunk  int
	used   atomic.Int64 // bytes that accounts have taken
	conns  atomic.Int64
	stage  atomic.Int32

	paused  atomic.Uint64
	refused atomic.Uint64
	full    atomic.Uint64
	resets  atomic.Uint64
	stalled atomic.Uint64

	mu       sync.Mutex // of what follows: none of it is on the way of a byte
	accounts []*account
	round    *shedding // nil: none is under way
}

// BudgetLimits are the bounds of a Budget. Each limit that is 0 is disabled.
type BudgetLimits struct {
	// Buffered bounds the bytes in write buffers and those that protocols left unused, of
	// all transports together, layers included. At it, nothing more is read. What each loop
	// had read by then, four times 64 KiB at most, and what callbacks write that no one
	// reads for, comes on top until the largest are reset. Bytes that the kernel holds are
	// not counted, nor is what protocols and layers keep for themselves, nor datagrams.
	Buffered int
	// Connections bounds the open connections that listeners have accepted. Those that
	// are connected are not counted: they are made for something that was let in.
	Connections int
	// Stall is how long bytes may wait in a socket's write buffer, or in a splice to it,
	// while its peer accepts none of them; it is then lost with a *StallError. It is looked
	// at four times in that period, so up to a quarter more may pass. Bytes for a pipe or a
	// terminal may wait for ever.
	Stall time.Duration
	// Changed, unless it is nil, is called after each change of the stage, on the goroutine
	// of the loop that noticed it, from its queue: perhaps on several at once. It gets how
	// the budget stands when it is called, so the last call gets the last stage. It must
	// not block.
	Changed func(BudgetStats)
}

// BudgetStage is what a Budget does to stay within its limit of buffered bytes. A higher
// stage does what the lower ones do too.
type BudgetStage int32

// The stages.
const (
	BudgetFree      BudgetStage = iota // nothing is held back
	BudgetPausing                      // transports that keep more than their part are paused
	BudgetRefusing                     // new connections are refused
	BudgetResetting                    // the largest are reset if it lasts for 250 ms, and at once at the limit
	budgetStages
)

var budgetStageNames = [budgetStages]string{"free", "pausing", "refusing", "resetting"}

func (s BudgetStage) String() string {
	if s >= 0 && s < budgetStages {
		return budgetStageNames[s]
	}
	return "BudgetStage(" + strconv.Itoa(int(s)) + ")"
}

// BudgetStats says how a Budget stands.
type BudgetStats struct {
	Stage       BudgetStage
	Buffered    int    // bytes, and the room that loops have taken and not used: see Budget
	Connections int    // accepted and open
	Paused      uint64 // how often a transport was paused for what it keeps
	Refused     uint64 // connections that were refused because of the stage
	Full        uint64 // connections that were refused because of BudgetLimits.Connections
	Reset       uint64 // connections that were reset
	Stalled     uint64 // connections that were lost after Stall
}

// What a Budget does, and when.
const (
	budgetPart  = 16                     // a transport may keep this part of what is left
	budgetChunk = 64 << 10               // how much room an account takes at once, at most
	budgetParts = 256                    // and which part of the limit
	budgetBatch = 4                      // results of I/O that a loop takes at once, at least
	budgetLook  = 10 * time.Millisecond  // how often a loop looks again while it is under pressure
	budgetStill = time.Second            // after which a transport that sends nothing counts as stuck
	budgetFull  = 250 * time.Millisecond // how long it may be above 7/8
	budgetTight = time.Second            // how long it may be above 3/4
	budgetRound = 100 * time.Millisecond // how long other loops have to name their largest
)

// NewBudget makes a Budget. Negative limits count as 0.
func NewBudget(limits BudgetLimits) *Budget {
	limits.Buffered, limits.Connections, limits.Stall = max(limits.Buffered, 0), max(limits.Connections, 0), max(limits.Stall, 0)
	return &Budget{limits: limits, chunk: max(1, min(budgetChunk, limits.Buffered/budgetParts))}
}

// Limits returns what NewBudget was given.
func (b *Budget) Limits() BudgetLimits { return b.limits }

// Stats returns how the budget stands.
func (b *Budget) Stats() BudgetStats {
	return BudgetStats{
		Stage:       BudgetStage(b.stage.Load()),
		Buffered:    int(b.used.Load()),
		Connections: int(b.conns.Load()),
		Paused:      b.paused.Load(),
		Refused:     b.refused.Load(),
		Full:        b.full.Load(),
		Reset:       b.resets.Load(),
		Stalled:     b.stalled.Load(),
	}
}

// WithBudget makes a loop, or each loop of a group, count what it keeps for its
// connections against b. The budget may be shared with other loops.
func WithBudget(b *Budget) LoopOption { return func(c *loopConfig) { c.budget = b } }

// SetBudget makes what the tenant, and those inside it, keep count against b, which may
// be shared with tenants of other loops, and the listeners that are opened for them from
// now on. What the loop's own budget bounds, it bounds as before. nil ends that.
// The error is a *TenantError if t is closed, and an *OptionError if the loop, a tenant
// around t or one inside it has b already: b would count the same bytes twice.
func (t *Tenant) SetBudget(b *Budget) error {
	if err := t.loop.check("SetBudget"); err != nil {
		return err
	}
	if t.gone.Load() {
		return t.err
	}
	if t.account != nil {
		if t.account.of == b {
			return nil
		}
	}
	if b != nil && t.nests(b) {
		return &OptionError{Option: "SetBudget", Value: "a Budget in use", Range: "one that neither the loop nor a tenant around or inside " + t.name + " has"}
	}
	if t.account != nil {
		t.account.close()
	}
	if b != nil {
		t.account = b.open(t)
		t.account.charge()
		t.account.watchStalls() // something may wait already
	}
	return nil
}

// nests reports whether one that t is inside of, or one inside t, has b.
func (t *Tenant) nests(b *Budget) bool {
	for u := t.parent; u != nil; u = u.parent {
		if u.account != nil && u.account.of == b {
			return true
		}
	}
	return t.anyInside(b)
}

// anyInside reports whether a tenant inside t has b.
func (t *Tenant) anyInside(b *Budget) bool {
	for c := range t.children.All() {
		if c.account != nil && c.account.of == b || c.anyInside(b) {
			return true
		}
	}
	return false
}

// stageOf is the stage for so many bytes, which follow the stage was. A stage ends a
// sixteenth of the limit below where it begins.
func (b *Budget) stageOf(used int64, was BudgetStage) BudgetStage {
	limit := int64(b.limits.Buffered)
	if limit == 0 {
		return BudgetFree
	}
	begins := [budgetStages]int64{0, limit / 2, limit - limit/4, limit - limit/8}
	s := BudgetFree
	for next := BudgetPausing; next < budgetStages; next++ {
		from := begins[next]
		if next <= was {
			from -= limit / 16
		}
		if used > from {
			s = next
		}
	}
	return s
}

// allowance is how much one transport may keep.
func (b *Budget) allowance() int {
	limit := int64(b.limits.Buffered)
	used := b.used.Load()
	if used <= limit/2 {
		return math.MaxInt
	}
	return int(max(limit-used, 0) / budgetPart)
}

// admit reports why no connection can be accepted; nil if one can, which counts from
// then on.
func (b *Budget) admit() error {
	if BudgetStage(b.stage.Load()) >= BudgetRefusing {
		b.refused.Add(1)
		return b.over()
	}
	n := b.conns.Add(1)
	if most := b.limits.Connections; most > 0 && n > int64(most) {
		b.conns.Add(-1)
		b.full.Add(1)
		return &BudgetError{What: "connections", Used: most, Limit: most}
	}
	return nil
}

func (b *Budget) over() *BudgetError {
	return &BudgetError{What: "buffered bytes", Used: int(b.used.Load()), Limit: b.limits.Buffered}
}

// ErrStalled is what a *StallError unwraps to: a timeout in the sense of net.Error.
var ErrStalled error = timeout.New("weir: the peer accepts nothing")

// StallError is the reason when a peer accepted nothing of what waited for it for as long
// as a Budget allows.
type StallError struct {
	After   time.Duration // BudgetLimits.Stall
	Waiting int           // bytes in the write buffer, and those being spliced to the peer
}

func (e *StallError) Error() string {
	return fmt.Sprintf("weir: the peer has accepted nothing for %v, and %d bytes wait for it", e.After, e.Waiting)
}

// Unwrap returns ErrStalled.
func (e *StallError) Unwrap() error { return ErrStalled }

// account is the part of a tenant in a Budget: of one that SetBudget was called on, or of
// the top of a loop with a budget. It belongs to the tenant's loop.
type account struct {
	of     *Budget
	tenant *Tenant
	taken  int  // bytes of room: at least what the tenant's transports keep
	over   bool // the limit is reached: nothing is read
	since  [budgetStages]time.Duration
	stage  BudgetStage // as this account saw it last
	stalls *Timer      // that looks for peers that accept nothing; nil: it is not looked for
}

// open makes an account.
func (b *Budget) open(t *Tenant) *account {
	a := &account{of: b, tenant: t}
	l := t.loop
	if b.limits.Stall > 0 {
		a.stalls = l.NewTimer(a.findStalled)
	}
	l.pressure.accounts = append(l.pressure.accounts, a)
	b.mu.Lock()
	b.accounts = append(b.accounts, a)
	b.mu.Unlock()
	return a
}

// close gives back what the account has.
func (a *account) close() {
	if a.tenant.account != a {
		return
	}
	a.tenant.account = nil
	if a.over {
		a.over = false
		a.tenant.hold(-1)
	}
	if a.stalls != nil {
		a.stalls.Stop()
	}
	l := a.tenant.loop
	l.pressure.accounts = slices.DeleteFunc(l.pressure.accounts, func(x *account) bool { return x == a })
	b := a.of
	b.mu.Lock()
	b.accounts = slices.DeleteFunc(b.accounts, func(x *account) bool { return x == a })
	b.mu.Unlock()
	n := int64(a.taken)
	a.taken = 0
	a.restage(b.used.Add(-n)) // the other accounts may have nothing that would make them look
}

// charge takes room for what the tenant's transports keep, or gives some back.
func (a *account) charge() {
	b := a.of
	kept := a.tenant.used.Buffered
	if b.limits.Buffered == 0 {
		return
	}
	switch {
	case kept > a.taken:
		n := (kept - a.taken + b.chunk - 1) / b.chunk * b.chunk
		a.taken += n
		a.weigh(b.used.Add(int64(n)))
	case a.taken-kept >= 2*b.chunk:
		n := (a.taken - kept) / b.chunk * b.chunk
		a.taken -= n
		a.weigh(b.used.Add(-int64(n)))
	}
}

// restage moves the budget to the stage for so many bytes, and reports that.
func (a *account) restage(used int64) BudgetStage {
	b := a.of
	for {
		was := BudgetStage(b.stage.Load())
		is := b.stageOf(used, was)
		if is == was {
			return is
		}
		if !b.stage.CompareAndSwap(int32(was), int32(is)) {
			used = b.used.Load() // another account was faster
			continue
		}
		if b.limits.Changed != nil {
			a.tenant.loop.internalCall(func() {
				defer a.tenant.loop.guard("Budget.Changed")
				b.limits.Changed(b.Stats()) // as it is by then: calls may overtake each other
			})
		}
		return is
	}
}

// weigh compares what is used with the limit.
func (a *account) weigh(used int64) {
	b := a.of
	is := a.restage(used)
	limit := int64(b.limits.Buffered)
	if used > limit {
		if !a.over {
			a.over = true
			a.tenant.hold(1)
		}
		b.shed(a, limit-limit/8, false)
	} else if a.over && used <= limit-limit/16 {
		a.over = false
		a.tenant.hold(-1)
	}
	if is > BudgetFree || a.over {
		a.tenant.loop.pressure.watch(a.tenant.loop)
	}
}

// look is called every budgetLook while the loop is under pressure. It reports whether to
// look again.
func (a *account) look(now time.Duration) bool {
	b := a.of
	if a.taken-a.tenant.used.Buffered >= b.chunk { // others may need what is not used
		n := (a.taken - a.tenant.used.Buffered) / b.chunk * b.chunk
		a.taken -= n
		b.used.Add(-int64(n))
	}
	used := b.used.Load()
	a.weigh(used)
	is := BudgetStage(b.stage.Load())
	for s := a.stage + 1; s <= is; s++ {
		a.since[s] = now
	}
	a.stage = is
	limit := int64(b.limits.Buffered)
	switch {
	case used > limit:
		b.shed(a, limit-limit/8, true)
	case is >= BudgetResetting && now-a.since[BudgetResetting] >= budgetFull:
		b.shed(a, limit-limit/4, true)
	case is >= BudgetRefusing && now-a.since[BudgetRefusing] >= budgetTight:
		b.shed(a, limit/2+limit/8, true)
	}
	return is > BudgetFree || a.over
}

// shedding is a round in which the accounts of a budget name their largest transports, and
// the largest of those are reset.
//
//	shed ──▶ each account: offer ──▶ the last of them, or the first that looks after
//	                                 budgetRound: decide ──▶ accounts: reset
type shedding struct {
	of     *Budget
	target int64            // bytes that are to be left
	left   int              // accounts that have not named theirs
	looks  map[*account]int // since it began
	offers []offer
}

// offer is a transport that an account would reset.
type offer struct {
	a      *account
	s      *stream
	n      int // bytes
	weight int
}

// shed begins a round, unless there is one. Nothing of it is done before the callback in
// progress has returned. looked says that budgetLook has passed since the last such call.
func (b *Budget) shed(from *account, target int64, looked bool) {
	b.mu.Lock()
	r := b.round
	if r != nil {
		late := false
		if looked {
			r.looks[from]++
			late = r.looks[from] > int(budgetRound/budgetLook)
		}
		b.mu.Unlock()
		if late {
			r.decide(true)
		} else if !looked {
			from.resetHuge()
		}
		return
	}
	accounts := slices.Clone(b.accounts)
	r = &shedding{of: b, target: target, left: len(accounts), looks: map[*account]int{}}
	b.round = r
	b.mu.Unlock()
	for _, a := range accounts {
		if a.tenant.loop == from.tenant.loop {
			a.tenant.loop.internalCall(func() { r.offered(a.largest(r)) })
		} else if !a.tenant.loop.postInternal(func() { r.offered(a.largest(r)) }) {
			r.offered(nil) // that loop is closed
		}
	}
}

// resetHuge loses a transport that keeps more than an eighth of the limit, if the account
// has one, while other loops take their time to name theirs, and what is kept still grows.
func (a *account) resetHuge() {
	var huge *stream
	a.tenant.each(func(s *stream) {
		if s.phase < phaseLost && s.tie.buffered > a.of.limits.Buffered/8 && (huge == nil || s.tie.buffered > huge.tie.buffered) {
			huge = s
		}
	})
	if huge != nil {
		a.tenant.loop.internalCall(func() { a.reset(huge) })
	}
}

// largest are the account's largest transports, as many as have the bytes that are to go.
func (a *account) largest(r *shedding) (all []offer) {
	if a.tenant.account != a {
		return nil
	}
	now := a.tenant.loop.be.Now()
	a.tenant.each(func(s *stream) {
		if n := s.tie.buffered; n > 0 && s.phase < phaseLost {
			weight := 4 * n
			if now-s.tie.moved < budgetStill {
				weight = n // it is being read
			}
			all = append(all, offer{a, s, n, weight})
		}
	})
	sortOffers(all)
	need := a.of.used.Load() - r.target
	for i := range all {
		if need <= 0 {
			return all[:i]
		}
		need -= int64(all[i].n)
	}
	return all
}

func sortOffers(all []offer) {
	slices.SortStableFunc(all, func(x, y offer) int { return cmp.Compare(y.weight, x.weight) })
}

// offered takes what an account has named.
func (r *shedding) offered(all []offer) {
	r.of.mu.Lock()
	r.offers = append(r.offers, all...)
	r.left--
	last := r.left == 0
	r.of.mu.Unlock()
	if last {
		r.decide(false)
	}
}

// decide has the largest of all reset. late says that some have not named theirs.
func (r *shedding) decide(late bool) {
	b := r.of
	b.mu.Lock()
	if b.round != r {
		b.mu.Unlock()
		return // it was decided
	}
	b.round = nil
	if late {
		r.left = -1 // what comes now is too late
	}
	all := r.offers
	r.offers = nil
	b.mu.Unlock()
	sortOffers(all)
	need := b.used.Load() - r.target
	for _, o := range all {
		if need <= 0 {
			return
		}
		need -= int64(o.n)
		// A closed loop keeps nothing.
		_ = o.a.tenant.loop.postInternal(func() { o.a.reset(o.s) })
	}
}

// reset loses a transport for what it keeps.
func (a *account) reset(s *stream) {
	if s.phase >= phaseLost || s.tie == nil || s.tie.tenant == nil || a.tenant.account != a {
		return
	}
	a.of.resets.Add(1)
	s.lose(a.of.over())
	s.tie.tenant.keeps(-s.tie.buffered) // it is dropped, although the transport is not gone yet
	s.tie.buffered = 0
	s.touch()
}

// watchStalls makes findStalled look, unless it already will.
func (a *account) watchStalls() {
	if a.stalls != nil && !a.stalls.Running() {
		a.stalls.Set(a.of.limits.Stall / 4)
	}
}

// waitsFrom makes the accounts of the tenant and of those around it look for stalls.
func (t *Tenant) waitsFrom() {
	for u := t; u != nil; u = u.parent {
		if u.account != nil {
			u.account.watchStalls()
		}
	}
}

// splicedIn is how many bytes of another stream wait in a pipe for this one's peer.
func (s *stream) splicedIn() int {
	if p := s.x.spliceFrom; p != nil {
		return p.held
	}
	return 0
}

// findStalled loses the sockets whose peers have accepted nothing for too long.
func (a *account) findStalled() {
	b := a.of
	now := a.tenant.loop.be.Now()
	var late []*stream // losing one calls no one before the next turn, but changes the bags
	waits := false
	a.tenant.each(func(s *stream) {
		k, ok := s.lower.(*socket)
		if !ok || k.net.pipe() || s.flags&fWaits == 0 || s.phase >= phaseLost {
			return
		}
		if now-s.tie.moved >= b.limits.Stall {
			late = append(late, s)
		} else {
			waits = true
		}
	})
	for _, s := range late {
		b.stalled.Add(1)
		s.lose(&StallError{After: b.limits.Stall, Waiting: s.waiting() + s.splicedIn()})
		s.touch()
	}
	if waits {
		a.stalls.Set(b.limits.Stall / 4)
	}
}

// each calls f for each transport of the tenant and of those inside it.
func (t *Tenant) each(f func(*stream)) {
	for s := range t.streams.All() {
		f(s)
	}
	for c := range t.children.All() {
		c.each(f)
	}
}

// allowance is how much one transport of the tenant may keep.
func (t *Tenant) allowance() int {
	n := math.MaxInt
	for u := t; u != nil; u = u.parent {
		if a := u.account; a != nil && a.of.limits.Buffered > 0 {
			n = min(n, a.of.allowance())
		}
	}
	return n
}

// pressure is what a loop does about the budgets that it has a part in.
type pressure struct {
	accounts []*account
	held     []*stream // that keep more than they may: fGreedy
	timer    *Timer
}

// results is how many results of I/O the loop may take at once: half of what is left of the
// budgets must have room for what they read.
func (p *pressure) results() int {
	n := int64(batchMax)
	for _, a := range p.accounts {
		if limit := int64(a.of.limits.Buffered); limit > 0 {
			n = min(n, (limit-a.of.used.Load())/(2*pieceMax))
		}
	}
	return int(max(n, budgetBatch))
}

// watch makes the loop look again.
func (p *pressure) watch(l *Loop) {
	if p.timer == nil {
		p.timer = l.NewTimer(func() { p.look(l) })
	}
	if !p.timer.Running() && l.state.Load() < loopClosing {
		p.timer.Set(budgetLook)
	}
}

func (p *pressure) look(l *Loop) {
	again := false
	now := l.be.Now()
	for _, a := range slices.Clone(p.accounts) {
		again = a.look(now) || again
	}
	held := p.held
	p.held = nil
	for _, s := range held {
		if s.phase >= phaseClosing || s.tie == nil || s.flags&fGreedy == 0 {
			continue
		}
		if s.keepsTooMuch(s.tie.tenant) {
			p.held = append(p.held, s)
			continue
		}
		s.flags &^= fGreedy
		if !s.paused() {
			s.readingResumed()
		}
	}
	if again || len(p.held) > 0 {
		p.timer.Set(budgetLook)
	}
}

// keepsTooMuch reports whether the stream keeps more than it may. What a protocol waits
// for the rest of does not count before new connections are refused: it is bounded by
// itself, and to read no more would be for ever.
func (s *stream) keepsTooMuch(t *Tenant) bool {
	most := t.allowance()
	if most == math.MaxInt {
		return false
	}
	n := s.tie.buffered
	for u := t; u != nil; u = u.parent {
		if u.account != nil && BudgetStage(u.account.of.stage.Load()) >= BudgetRefusing {
			return n > most
		}
	}
	return n-len(s.tail) > most
}

// restrain pauses a stream that keeps more than it may.
func (s *stream) restrain() {
	b := s.tie
	if !s.keepsTooMuch(b.tenant) {
		return
	}
	if s.flags&fGreedy == 0 {
		s.flags |= fGreedy
		for u := b.tenant; u != nil; u = u.parent {
			if u.account != nil {
				u.account.of.paused.Add(1)
			}
		}
		l := s.loop
		l.pressure.held = append(l.pressure.held, s)
		l.pressure.watch(l)
		s.touch()
	}
	if s.phase == phaseOpen && s.flags&fWritePaused == 0 {
		s.overflow()
	}
}

// highMark is where the writer is paused: a budget may lower it.
func (s *stream) highMark() int {
	high := int(s.bounds.high)
	if s.tie != nil && s.tie.tenant != nil {
		high = min(high, max(s.tie.tenant.allowance(), 1)) // with nothing buffered there is room: no ResumeWriting would come
	}
	return high
}

// budgets are those that a listener's connections count against.
func (l *Loop) budgets(t *Tenant) (all []*Budget) {
	if t == nil {
		t = &l.top
	}
	for u := t; u != nil; u = u.parent {
		if u.account != nil && !slices.Contains(all, u.account.of) {
			all = append(all, u.account.of)
		}
	}
	return all
}

// enter counts an accepted connection, or says why there can be none.
func (ln *Listener) enter() error {
	if t := ln.config.tenant; t != nil {
		if err := t.admit(); err != nil {
			return err
		}
	}
	for i, b := range ln.budgets {
		if err := b.admit(); err != nil {
			for _, b := range ln.budgets[:i] {
				b.conns.Add(-1)
			}
			return err
		}
	}
	return nil
}
