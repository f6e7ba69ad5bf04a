package weir

import (
	"strconv"
	"time"

	"github.com/weir-io/weir/internal/backend"
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
	if n < 1 || n > shareMost {
		return &OptionError{"SetShare", strconv.Itoa(n), "from 1 to " + strconv.Itoa(shareMost)}
	}
	if t.gone.Load() {
		return t.err
	}
	t.weight, t.stride = n, shareUnit/uint64(n)
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
func (t *Tenant) Share() int { return t.weight }

const (
	shareMost = 10_000
	// shareUnit is how far a tenant with a share of 1 advances for a nanosecond. All
	// shares up to 10 divide it, others nearly do.
	shareUnit = 2520 << 10

	// A turn runs callbacks of tenants until there were dealMost or dealTime has passed.
	dealMost = 256
	dealTime = time.Millisecond

	// lookMost is how many looks at I/O a tenant that has run out of work gets, while
	// others that are ahead of it wait: a Wait may not report all that is ready.
	lookMost = 8

	// costMost bounds what one callback counts, so that no sum overflows.
	costMost = time.Minute
	passMost = 1 << 62
)

// share is a tenant's part in the dealing of turns (stride scheduling: Waldspurger and
// Weihl, 1995). Each tenant has a pass, which advances by its time over its share when it
// runs, and whoever has the least pass is next:
//
//	              top
//	      ┌────────┴────────┐          now: the pass of what ran last inside;
//	 A pass 20         B pass 35       whoever comes back starts there
//	  ┌───┴────┐            │
//	own 7   C pass 9      queue
//	queue   queue
//
// Those that have something to do are in the heap of the one they are inside.
type share struct {
	weight int
	shares bool   // SetShare was called
	stride uint64 // shareUnit over weight
	pass   uint64 // among those beside it
	own    uint64 // the pass of what belongs to the tenant itself, among those inside it
	now    uint64 // the least pass inside it, when something there ran last

	heap []*Tenant // those inside it that are to be looked at, the least pass first
	slot int       // 1 more than its place in the heap around it; 0: it is not there

	queue []dealt
	head  int
	dry   uint64 // the deal in which the queue ran empty: more may come, see dealer.since
}

var oneShare = share{weight: 1, stride: shareUnit}

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

// push appends to a tenant's queue, and makes the tenant and those around it known to be
// busy.
func (d *dealer) push(t *Tenant, x dealt) {
	if t.head == len(t.queue) {
		t.queue, t.head = t.queue[:0], 0
		t.own = max(t.own, t.now)
	}
	t.queue = append(t.queue, x)
	d.waiting++
	for u := t; u.parent != nil && u.slot == 0; u = u.parent {
		u.pass = max(u.pass, u.parent.now)
		u.parent.lift(u)
	}
}

// shift takes the first entry of a tenant's queue.
func (d *dealer) shift(t *Tenant) dealt {
	x := t.queue[t.head]
	t.queue[t.head] = dealt{}
	d.waiting--
	if t.head++; t.head == len(t.queue) {
		t.dry = d.loop.deals
		t.queue, t.head = t.queue[:0], 0
		if cap(t.queue) > dealMost {
			t.queue = nil
		}
	}
	return x
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
				d.handOut(c)
			}
		}
	}
	l := d.loop
	began := l.be.Now()
	at := began
	for n := 0; n < dealMost && d.waiting > 0 && at-began < dealTime; n++ {
		t, _ := l.top.pick(d.since())
		if t == nil {
			break
		}
		x := d.shift(t)
		if x.c != nil {
			d.handOut(x.c)
		} else {
			l.runOne(x.r)
			l.settle()
		}
		now := l.be.Now()
		t.charge(now - at)
		at = now
	}
	d.park()
	d.inside = false
}

// handOut hands out a result, and leaves its place empty.
func (d *dealer) handOut(c *backend.Completion) {
	d.current, *c = *c, backend.Completion{}
	d.loop.handOut(&d.current)
}

// since is the first deal that counts for share.dry: a tenant that has run out of work
// since then may have more that no Wait has reported yet.
func (d *dealer) since() uint64 {
	since := max(d.quiet, 1)
	if deals := d.loop.deals; deals > lookMost {
		since = max(since, deals-lookMost+1)
	}
	return since
}

// pick finds the tenant whose turn it is, t or one inside it. It returns nil if there is
// none, and look if it is the turn of one that has run out of work since some deal: others
// do not go ahead of it before the loop has looked for more.
func (t *Tenant) pick(since uint64) (next *Tenant, look bool) {
	for {
		has := t.head < len(t.queue)
		var c *Tenant
		if len(t.heap) > 0 {
			c = t.heap[0]
		}
		if (has || t.dry >= since) && (c == nil || t.own <= c.pass) {
			t.now = max(t.now, t.own)
			if has {
				return t, false
			}
			return nil, true
		}
		if c == nil {
			return nil, false
		}
		next, look = c.pick(since)
		if next != nil || look {
			t.now = max(t.now, c.pass)
			return next, look
		}
		t.drop(c) // nothing is left in it
	}
}

// charge counts a callback of the tenant.
func (t *Tenant) charge(took time.Duration) {
	cost := uint64(min(max(took, 1), costMost))
	t.own += cost * shareUnit
	for u := t; u != nil; u = u.parent {
		u.used.Callbacks++
		u.used.Time += took
		if u.now > passMost {
			u.rebase()
		}
		if u.parent != nil {
			u.pass += cost * u.stride
			if u.slot > 0 {
				u.parent.sink(u.slot - 1)
			}
		}
	}
}

// rebase takes the same off every pass inside the tenant, so that none overflows.
func (t *Tenant) rebase() {
	by := t.now
	t.now = 0
	t.own -= min(by, t.own)
	for c := range t.children.All() {
		c.pass -= min(by, c.pass)
	}
}

// park puts off the results that are left, since their memory is lent until the next Wait
// only. A stream keeps the bytes; what keeps none is run now, at its tenant's expense; and
// nothing more is asked for before it is their turn.
func (d *dealer) park() {
	for _, t := range d.came {
		q := t.queue[:t.head]
		for i := t.head; i < len(t.queue); i++ {
			x := t.queue[i]
			if x.c != nil && x.c.Op == nil {
				d.waiting-- // it was handed out already
				continue
			}
			if x.c != nil {
				if x.r = d.putOff(t, x.c); x.r == nil {
					d.waiting--
					continue
				}
				x.c = nil
			}
			q = append(q, x)
		}
		clear(t.queue[len(q):])
		t.queue = q
	}
	clear(d.came)
	d.came = d.came[:0]
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
	began := d.loop.be.Now()
	d.handOut(c)
	t.charge(d.loop.be.Now() - began)
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
	ln.accept()
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
	t.queue, t.head, t.dry = nil, 0, 0
	for _, x := range queue {
		d.waiting--
		switch {
		case x.c == nil:
			d.loop.enqueue(x.r)
		case x.c.Op != nil:
			d.handOut(x.c)
		}
	}
	if t.parent != nil && t.slot > 0 {
		t.parent.drop(t)
	}
	if t.shares {
		t.shares = false
		d.users--
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
			if x.c != nil {
				d.waiting--
			} else {
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

// The heap of those inside a tenant that are to be looked at. Equal passes run in the order
// that the heap has them in, which depends on nothing but the calls.

func (t *Tenant) lift(c *Tenant) {
	t.heap = append(t.heap, c)
	i := len(t.heap) - 1
	for i > 0 && t.heap[i].pass < t.heap[(i-1)/2].pass {
		t.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	t.heap[i].slot = i + 1
}

func (t *Tenant) drop(c *Tenant) {
	i, last := c.slot-1, len(t.heap)-1
	c.slot = 0
	if i != last {
		t.heap[i] = t.heap[last]
		t.heap[i].slot = i + 1
	}
	t.heap[last] = nil
	t.heap = t.heap[:last]
	if i != last {
		for i > 0 && t.heap[i].pass < t.heap[(i-1)/2].pass {
			t.swap(i, (i-1)/2)
			i = (i - 1) / 2
		}
		t.sink(i)
	}
}

// sink moves the i-th down to where it belongs.
func (t *Tenant) sink(i int) {
	for {
		least := i
		for _, c := range [...]int{2*i + 1, 2*i + 2} {
			if c < len(t.heap) && t.heap[c].pass < t.heap[least].pass {
				least = c
			}
		}
		if least == i {
			return
		}
		t.swap(i, least)
		i = least
	}
}

func (t *Tenant) swap(i, j int) {
	t.heap[i], t.heap[j] = t.heap[j], t.heap[i]
	t.heap[i].slot, t.heap[j].slot = i+1, j+1
}
