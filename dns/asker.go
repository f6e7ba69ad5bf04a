package dns

import (
	"container/list"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-io/weir"
)

// For returns the resolver for use by one asker of many, such as a client of a
// proxy. Each asker gets a share: when sockets are short, the asker with the
// fewest gets the next one, and beyond a number of questions under way
// (WithAskerLimit) some of the asker's own fail with ErrBusy. Addresses in one
// IPv6 network of 64 bits are one asker. All askers share the cache.
func (r *Resolver) For(asker netip.Addr) weir.Resolver {
	return share{r, askerOf(asker)}
}

type share struct {
	r     *Resolver
	asker netip.Prefix
}

var _ weir.Resolver = share{}

func (s share) LookupNetIP(l *weir.Loop, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	return s.r.lookupNetIP(l, s.asker, network, host, done)
}

// askerOf returns the network that counts as one asker.
func askerOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero Prefix for no address
	return p
}

// asker is the program itself, whose id is not valid, or a client on whose
// behalf it asks. It exists as long as it has questions.
type asker struct {
	id        netip.Prefix
	questions int
	asked     list.List // of *question: its questions, the oldest in front
	open      int       // exchanges with a socket
	line      list.List // of *exchange: those that wait for a socket
}

// asker returns the asker with an id, which it creates if necessary.
func (c *client) asker(id netip.Prefix) *asker {
	a := c.asking[id]
	if a == nil {
		a = &asker{id: id}
		c.asking[id] = a
		c.askers = append(c.askers, a)
	}
	return a
}

// forget removes an asker that has no questions.
func (c *client) forget(a *asker) {
	if a.questions == 0 && c.asking[a.id] == a {
		delete(c.asking, a.id)
		i := slices.Index(c.askers, a)
		c.askers = slices.Delete(c.askers, i, i+1)
	}
}

// admits reports whether an asker may ask one more question now. If that is one
// too many, it gives up an old question without an answer to make room: one of
// the asker's own, or one of the asker with the most.
func (c *client) admits(a *asker) bool {
	if a.id.IsValid() && a.questions >= c.o.perAsker {
		return c.gives(a, turnTime)
	}
	if len(c.questions) < c.o.questions {
		return true
	}
	most := a
	for _, b := range c.askers {
		if b.questions > most.questions {
			most = b
		}
	}
	if most.questions > a.questions+1 {
		return c.gives(most, 0)
	}
	return a.id.IsValid() && c.gives(a, turnTime)
}

// gives ends the oldest question of an asker if it is at least age old.
func (c *client) gives(a *asker, age time.Duration) bool {
	front := a.asked.Front()
	if front == nil {
		return false
	}
	q := front.Value.(*question)
	if c.l.Now().Sub(q.since) < age {
		return false
	}
	q.finish(func() (Answer, *Error) {
		return Answer{}, &Error{Name: q.key.name, Type: q.key.qtype, Err: ErrBusy, Tried: q.tried}
	})
	return true
}

// begin gives an exchange a socket, or a place in the queue.
func (c *client) begin(ex *exchange) {
	if len(c.open) < c.o.sockets || c.makeRoom(ex.q.asker) {
		ex.open()
		return
	}
	ex.stand()
	if !c.turn.Running() {
		c.turn.Set(turnTime)
	}
}

// stand puts an exchange at the end of its asker's queue.
func (ex *exchange) stand() {
	ex.at = ex.q.asker.line.PushBack(ex)
	ex.c.waiting++
}

// unline takes an exchange out of the queue.
func (c *client) unline(ex *exchange) {
	if ex.at != nil {
		ex.q.asker.line.Remove(ex.at)
		ex.at = nil
		if c.waiting--; c.waiting == 0 {
			c.turn.Stop()
		}
	}
}

// openNext starts a waiting exchange of the asker with the fewest sockets.
func (c *client) openNext() {
	for c.waiting > 0 && len(c.open) < c.o.sockets {
		var next *asker
		for _, a := range c.askers {
			if a.line.Len() > 0 && (next == nil || a.open < next.open) {
				next = a
			}
		}
		ex := next.line.Front().Value.(*exchange)
		c.unline(ex)
		ex.open()
	}
}

// turnTime is how long an exchange keeps its socket without a reply before it
// gives the socket to another, if any wait: of all exchanges, those that have
// waited so long are the least likely to get a reply. Each further turn is
// twice as long, so that even slow replies are waited for in the end.
const turnTime = 250 * time.Millisecond

// turns lets exchanges that have had their turn change places with waiting
// ones.
func (c *client) turns() {
	now := c.l.Now()
	var had []*exchange
	for _, ex := range c.open {
		if len(had) < c.waiting && !ex.tcp && now.Sub(ex.since) >= ex.turn {
			had = append(had, ex)
		}
	}
	for _, ex := range had {
		ex.postpone()
	}
	c.openNext()
	if c.waiting > 0 {
		c.turn.Set(turnTime)
	}
}

// postpone takes the socket from an exchange, which begins again later.
func (ex *exchange) postpone() {
	ex.q.step(ex, "waits for its turn")
	ex.turn *= 2
	ex.closeUDP()
	ex.shut()
	ex.stand()
}

// makeRoom puts an exchange back into the queue to make room for a new one of
// a: of the asker with the most sockets, the exchange that has waited longest
// for its reply. It reports false if no asker has so many that this is fair and
// none has waited for long.
func (c *client) makeRoom(a *asker) bool {
	most := a
	for _, b := range c.askers {
		if b.open > most.open {
			most = b
		}
	}
	var oldest *exchange
	for _, ex := range c.open {
		if ex.q.asker == most && !ex.tcp && (oldest == nil || ex.since.Before(oldest.since)) {
			oldest = ex
		}
	}
	if oldest == nil || most.open <= a.open+1 && c.l.Now().Sub(oldest.since) < oldest.turn {
		return false
	}
	oldest.postpone()
	return true
}

// join moves a question to a if a has fewer questions than its asker, so that
// no one waits in another asker's queue.
func (q *question) join(a *asker) {
	old := q.asker
	if old == a || a.questions >= old.questions {
		return
	}
	ex := q.ex
	waits := ex != nil && ex.at != nil
	if waits {
		q.c.unline(ex)
	} else if ex != nil && ex.opened {
		old.open--
		a.open++
	}
	old.questions--
	old.asked.Remove(q.place)
	q.count(a)
	q.c.forget(old)
	if waits {
		q.c.begin(ex)
	}
}

// count adds a question to an asker.
func (q *question) count(a *asker) {
	q.asker = a
	q.place = a.asked.PushBack(q)
	a.questions++
}
