package weir

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/stride"
)

// SetShare gives the tenant its share of the loop, from 1 to 10,000; NewTenant gives 1.
// Anything else is an *OptionError, and nothing changes.
//
// Shares count from the first SetShare on, for all tenants of the loop, and only while
// the loop is busy. Tenants that have something to do get the loop's time in proportion
// to their shares (in a simulated world, where callbacks take no time, each callback counts
// the same). The shares of tenants inside another divide what that one gets; what
// belongs to the outer one itself counts as one more with a share of 1. What belongs to
// no tenant comes before them all, in each turn.
//
// What a tenant has not used while it had nothing to do is lost to it. If it then has, and
// has not had more than its share before, each other tenant that waits runs one callback
// before it, at most, and one turn runs callbacks of tenants for 1 ms, or 256 of them. So it
// waits for the rest of a turn, and then for one callback of each of the others.
//
// Within a tenant the order is that of the loop. What a callback queues runs in a later
// turn.
//
// SetShare(1), which is the default, only makes Stats count callbacks and time.
func (t *Tenant) SetShare(n int) error {
	if err := t.loop.check("SetShare"); err != nil {
		return err
	}
	if n < 1 || n > stride.Most {
		return &OptionError{Option: "SetShare", Value: strconv.Itoa(n), Range: "from 1 to " + strconv.Itoa(stride.Most)}
	}
	if t.gone.Load() {
		return t.err
	}
	t.node.SetShare(n)
	if t.loop.dealer == nil {
		t.loop.dealer = &dealer{loop: t.loop}
	}
	if !t.shares {
		t.shares = true
		t.loop.dealer.users++
	}
	return nil
}

// Share is what SetShare was given, or 1.
func (t *Tenant) Share() int { return t.node.Share() }

const (
	// A turn runs callbacks of tenants until there were dealMost or dealTime has passed.
	dealMost = 256
	dealTime = time.Millisecond

	// lookMost is how many looks at I/O a tenant that has run out of work gets, while
	// others that are ahead of it wait: a Wait may not report all that is ready.
	lookMost = 8
)

// share is a tenant's part in the dealing of turns.
type share struct {
	node   stride.Node[*Tenant]
	shares bool    // SetShare was called
	queue  []dealt // from head on; as many as the node has entries
	head   int
}

// dealt is an entry of a tenant's queue: a call, or the result of an Op.
type dealt struct {
	r runnable
	c *backend.Completion // it and its memory are valid until the end of the deal
}

// dealer deals turns to tenants. It exists while a tenant has a share.
//
//	the loop's queue ──▶ no tenant's: run at once
//	the results      ──▶ a tenant's:  into its queue ──▶ deal: the least pass runs first
//	                                                      │
//	                       results that are left ◀────────┘ the turn's time is up, or it is
//	                       are parked: bytes go into the     the turn of one that has run out
//	                       stream's tail, nothing more is    of work: look for more of it
//	                       read, until it is their turn
type dealer struct {
	loop    *Loop
	users   int                // open tenants for which SetShare was called
	turn    uint64             // the turn that ran and took are of
	ran     int                // callbacks of tenants in that turn; from dealMost on, only what park runs
	took    time.Duration      // what they took; from dealTime on, likewise
	waiting int                // entries of all queues
	quiet   uint64             // the last deal that had no results
	inside  bool               // deal is running
	came    []*Tenant          // those that have results of this deal in their queue, perhaps more than once
	current backend.Completion // the result being handed out
}

// dealing returns the dealer, or nil if no tenant has a share any more.
func (l *Loop) dealing() *dealer {
	if d := l.dealer; d != nil && d.users == 0 && d.waiting == 0 {
		l.dealer = nil
	}
	return l.dealer
}

// tenantsBusy reports whether something of tenants is to be done without a wait.
func (l *Loop) tenantsBusy() bool {
	return l.closing != nil || l.dealer != nil && l.dealer.waiting > 0
}

// dealNoMore gives back to the loop's queue what waits for its tenant's turn: the loop is
// being closed.
func (l *Loop) dealNoMore() {
	if l.closing != nil {
		l.endTenants()
	}
	if l.dealer == nil {
		return
	}
	l.top.giveBack()
	l.dealer = nil
}

func (t *Tenant) giveBack() {
	for _, x := range t.queue[t.head:] {
		t.loop.ready = append(t.loop.ready, x.r)
	}
	t.queue, t.head = nil, 0
	t.node.Drop()
	for c := range t.children.All() {
		c.giveBack()
	}
}

// queued puts r into its tenant's queue, and reports false if it belongs to none.
func (d *dealer) queued(r runnable) bool {
	var t *Tenant
	switch r := r.(type) {
	case *Call:
		t = r.tenant
	case *Timer:
		t = r.tenant
	case *stream:
		t = r.tenant()
	}
	if t == nil || t.gone.Load() {
		return false
	}
	d.push(t, dealt{r: r})
	return true
}

// tenantOf is the tenant whose callbacks a result leads to; nil if there is none, or if the
// result calls no one.
func tenantOf(c *backend.Completion) *Tenant {
	var t *Tenant
	switch o := c.Op.Owner.(type) {
	case *socket:
		if c.Op == &o.rop && o.flags&fParked == 0 {
			t = o.tenant()
		}
	case *splice:
		if o.src.flags&fParked == 0 {
			t = o.src.tenant()
		}
	case *accepting:
		t = o.of.tenant
	case *packetReader:
		t = o.e.of.tenant
	case *watched:
		t = o.of.tenant
	case *attempt:
		t = o.c.of.tenant
	}
	if t == nil || t.gone.Load() {
		return nil
	}
	return t
}

// push appends to a tenant's queue. One that always has something left is compacted here.
func (d *dealer) push(t *Tenant, x dealt) {
	if t.head > dealMost && t.head >= len(t.queue)/2 {
		n := copy(t.queue, t.queue[t.head:])
		clear(t.queue[n:])
		t.queue, t.head = t.queue[:n], 0
	}
	t.queue = append(t.queue, x)
	t.node.Add()
	d.waiting++
}

// shift takes the first entry of a tenant's queue.
func (d *dealer) shift(t *Tenant) dealt {
	x := t.queue[t.head]
	t.queue[t.head] = dealt{}
	t.head++
	d.less(t)
	if t.head == len(t.queue) {
		if t.queue, t.head = t.queue[:0], 0; cap(t.queue) > dealMost {
			t.queue = nil
		}
	}
	return x
}

// less counts an entry less.
func (d *dealer) less(t *Tenant) {
	d.waiting--
	t.node.Take(d.loop.deals)
}

// deal hands out results, those of tenants as their shares say, and runs what else is in
// the queues of tenants.
func (d *dealer) deal(early, done []backend.Completion) {
	d.inside = true
	d.loop.deals++
	if len(early)+len(done) == 0 {
		d.quiet = d.loop.deals
	}
	for _, cs := range [...][]backend.Completion{early, done} {
		for i := range cs {
			c := &cs[i]
			if t := tenantOf(c); t != nil {
				d.push(t, dealt{c: c})
				d.came = append(d.came, t)
			} else {
				d.called()
				d.handOut(c)
			}
		}
	}
	l := d.loop
	at := l.be.Now()
	for n := 0; d.waiting > 0 && d.allowed() && (n == 0 || !l.spent()); n++ {
		next, _ := l.top.node.Pick(d.since())
		if next == nil {
			break
		}
		t := next.Owner
		x := d.shift(t)
		d.called()
		if x.c != nil {
			d.handOut(x.c)
		} else {
			l.runOne(x.r)
			l.settle()
		}
		now := l.be.Now()
		d.charge(t, now-at)
		at = now
	}
	d.park()
	d.inside = false
}

// allowed reports whether the turn may run another callback of a tenant. A turn makes
// several Waits, each with a deal, if a timer is due or a limit has it take results in
// steps.
func (d *dealer) allowed() bool {
	if turn := d.loop.turns; d.turn != turn {
		d.turn, d.ran, d.took = turn, 0, 0
	}
	return d.ran < dealMost && d.took < dealTime
}

// called counts a callback for the turn's limit. What a stream keeps for later is none.
func (d *dealer) called() {
	if w := d.loop.work; w != nil {
		w.did++
	}
}

// handOut hands out a result, and leaves its place empty.
func (d *dealer) handOut(c *backend.Completion) {
	d.current, *c = *c, backend.Completion{}
	d.loop.handOut(&d.current)
}

// since is the first deal after which a tenant keeps its turn (stride.Node.Pick): one that has run out of work
// since then may have more that no Wait has reported yet.
func (d *dealer) since() uint64 {
	since := max(d.quiet, 1)
	if deals := d.loop.deals; deals > lookMost {
		since = max(since, deals-lookMost+1)
	}
	return since
}

// charge counts a callback of t, for its share and against what the turn may run.
func (d *dealer) charge(t *Tenant, took time.Duration) {
	d.ran++
	d.took += took
	t.node.Charge(int64(took))
	for u := t; u != nil; u = u.parent {
		u.used.Callbacks++
		u.used.Time += took
	}
}

// park puts off the results that are left, since their memory is lent until the next Wait
// only. A stream keeps the bytes; what keeps none is run now, at its tenant's expense; and
// nothing more is asked for before it is their turn.
func (d *dealer) park() {
	for _, t := range d.came {
		d.parkQueue(t)
	}
	clear(d.came)
	d.came = d.came[:0]
}

// parkQueue does this for one tenant. The callbacks that run here may close any tenant, or
// end the goroutine, so the queue is true before each of them: it has what counts, and
// empty entries.
func (d *dealer) parkQueue(t *Tenant) {
	kept := t.head
	for i := t.head; i < len(t.queue); i++ {
		x := t.queue[i]
		if c := x.c; c != nil {
			x = dealt{}
			if c.Op != nil { // nil: it was handed out already
				x.r = d.putOff(t, c)
			}
			if t.queue == nil {
				return // the tenant was closed, and forget has counted all of it
			}
			if x.r == nil {
				d.less(t)
			}
		}
		t.queue[i] = dealt{}
		if x.r != nil {
			t.queue[kept] = x
			kept++
		}
	}
	t.queue = t.queue[:kept]
}

// putOff deals with one of these results. It returns what is to be done when its turn
// has come; nil: nothing.
func (d *dealer) putOff(t *Tenant, c *backend.Completion) runnable {
	l := d.loop
	switch o := c.Op.Owner.(type) {
	case *socket:
		return d.parkStream(&o.stream, c)
	case *splice:
		return d.parkStream(&o.src.stream, c)
	case *accepting:
		ln := (*Listener)(o)
		d.charged(t, c)
		if !ln.closed && !ln.parked {
			ln.parked = true
			l.be.Cancel(&ln.op)
			return (*parkedListener)(ln)
		}
	case *packetReader:
		d.charged(t, c)
		if !o.e.ended() && !o.parked {
			o.parked = true
			l.be.Cancel(&o.op)
			return (*parkedReader)(o)
		}
	case *watched:
		w := (*Watch)(o)
		d.charged(t, c)
		if !w.removed && !w.parked {
			w.parked = true
			l.be.Cancel(&w.op)
			return (*parkedWatch)(w)
		}
	default:
		d.charged(t, c)
	}
	return nil
}

// parkStream lets the stream keep what c brings.
func (d *dealer) parkStream(s *stream, c *backend.Completion) runnable {
	was := s.flags & fParked
	if s.phase < phaseClosing {
		s.flags |= fParked
	}
	d.handOut(c)
	if was != 0 || s.flags&fParked == 0 {
		return nil
	}
	return (*parkedStream)(s)
}

// charged hands out a result whatever its tenant's pass is.
func (d *dealer) charged(t *Tenant, c *backend.Completion) {
	d.called()
	began := d.loop.be.Now()
	d.handOut(c)
	d.charge(t, d.loop.be.Now()-began)
}

// What is parked, as an entry of its tenant's queue.
type (
	parkedStream   stream
	parkedListener Listener
	parkedReader   packetReader
	parkedWatch    Watch
)

func (p *parkedStream) run() {
	s := (*stream)(p)
	s.flags &^= fParked
	if s.phase >= phaseLost {
		return // its end is queued by itself
	}
	if len(s.tail) > 0 {
		s.flags |= fOffer
	}
	s.runReading()
	s.sync()
}

func (p *parkedListener) run() {
	ln := (*Listener)(p)
	ln.parked = false
	ln.goOn()
}

func (p *parkedReader) run() {
	r := (*packetReader)(p)
	r.parked = false
	r.arm()
}

func (p *parkedWatch) run() {
	w := (*Watch)(p)
	w.parked = false
	w.arm()
}

// forget takes a closed tenant out. Its results are handed out, for what ends with it to
// notice; what else it has goes back to the loop's queue.
func (d *dealer) forget(t *Tenant) {
	queue := t.queue[t.head:]
	t.queue, t.head = nil, 0
	d.waiting -= t.node.Entries()
	t.node.Drop()
	if t.shares {
		t.shares = false
		d.users--
	}
	for _, x := range queue {
		if x.r != nil {
			d.loop.enqueue(x.r)
		}
	}
	// Last, since what they call may end the goroutine.
	for _, x := range queue {
		if x.c != nil && x.c.Op != nil {
			d.handOut(x.c)
		}
	}
}

// cutShort forgets the results that are in queues, and reports whether a deal was under way:
// the loop hands out those that are left.
func (d *dealer) cutShort() bool {
	inside := d.inside
	d.inside = false
	for _, t := range d.came {
		q := t.queue[:t.head]
		for _, x := range t.queue[t.head:] {
			switch {
			case x.c != nil:
				d.less(t)
			case x.r != nil: // else it is empty: park was interrupted
				q = append(q, x)
			}
		}
		clear(t.queue[len(q):])
		t.queue = q
	}
	clear(d.came)
	d.came = d.came[:0]
	return inside
}

// TenantLimits bounds what a tenant, and those inside it, may have at once. Each limit
// that is 0 is disabled.
//
// A connection is counted once, however many layers it has: what counts is the transport that
// stands on no other, whether it has a socket or is made by Loop.Carry, as those of package
// utp are.
type TenantLimits struct {
	// Buffered bounds the bytes in the write buffers of its transports and those that their
	// protocols left unused. Beyond it, reading pauses on every transport of the tenant until no
	// more than three quarters of the limit are buffered, and new connections are refused. The
	// bound is looked at when a callback has returned, so what one callback writes comes on top.
	// If it lasts for 5 s, the transport that buffers the most is lost with a *BudgetError.
	Buffered int
	// Connections bounds open connections, including connects under way. A listener
	// resets what comes beyond it, and reports that as an *AdmissionError; Connect, Attach
	// and Carry fail.
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

// BudgetError says which of its limits a tenant or a Budget has reached.
type BudgetError struct {
	Tenant string // the tenant whose limit it is; "" for a Budget
	What   string // "connections" or "buffered bytes"
	Used   int
	Limit  int
}

func (e *BudgetError) Error() string {
	if e.Tenant == "" {
		return fmt.Sprintf("weir: all connections together have %d %s, the budget is %d", e.Used, e.What, e.Limit)
	}
	return fmt.Sprintf("weir: tenant %s has %d %s, the limit is %d (SetLimits)", e.Tenant, e.Used, e.What, e.Limit)
}

// budgetPatience is how long a tenant may be over its limit of buffered bytes before the
// transport that buffers the most is lost.
const budgetPatience = 5 * time.Second

// budget counts what a tenant uses, and compares it with its limits.
type budget struct {
	limits   TenantLimits
	used     TenantStats
	over     bool     // there are too many bytes, or were and have not become much fewer
	full     int      // how many of the tenant and those around it are over
	patience *Timer   // runs while it is over
	account  *account // its part in a Budget; nil: it has none
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
			return &OptionError{Option: "SetLimits", Value: strconv.Itoa(n), Range: notNegative}
		}
	}
	t.limits = limits
	t.compare()
	return nil
}

// admit reports why the tenant can have no other connection; nil if it can.
func (t *Tenant) admit() error { return t.admitFrom(nil) }

// admitFrom is admit for a connection that belongs to old, which may be nil: what both
// tenants are inside of has it already.
func (t *Tenant) admitFrom(old *Tenant) error {
	for u := t; u != nil; u = u.parent {
		var err *BudgetError
		switch {
		case u.gone.Load():
			return u.err
		case old.within(u):
			return nil
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

// within reports whether t is u or inside it. No tenant is within none.
func (t *Tenant) within(u *Tenant) bool {
	for ; t != nil; t = t.parent {
		if t == u {
			return true
		}
	}
	return false
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

// held reports whether the limits of the tenant, or a Budget's limit, hold reading back.
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
	waits := s.out != nil && s.out.n > 0 || s.splicedIn() > 0
	if waits != (s.flags&fWaits != 0) {
		s.flags ^= fWaits
		b.moved = s.loop.now
		if waits {
			b.tenant.waitsFrom()
		}
	}
	if n != b.buffered {
		d := n - b.buffered
		b.buffered = n
		b.tenant.keeps(d)
	}
	if n > 0 && len(s.loop.pressure.accounts) > 0 {
		s.restrain()
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
		if u.account != nil {
			u.account.charge()
		}
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
