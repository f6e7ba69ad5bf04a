package dns

import (
	"container/list"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-io/weir"
)

// For returns the resolver as one asker of many uses it, such as a client of a proxy.
// Each asker has a share: where sockets are short, the asker with the fewest gets the
// next one, and beyond a number of questions under way (WithAskerLimit) some of its own
// fail with ErrBusy. Addresses of one IPv6 network of 64 bits are one asker. All of
// them share the cache.
func (r *Resolver) For(asker netip.Addr) weir.Resolver {
	return share{r, askerOf(asker)}
}

type share struct {
	r     *Resolver
	asker netip.Prefix
}

// LookupNetIP implements weir.Resolver.
func (s share) LookupNetIP(l *weir.Loop, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	return s.r.lookupNetIP(l, s.asker, network, host, done)
}

// askerOf is the network that counts as one asker.
func askerOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero Prefix for no address
	return p
}

// asker is one that asks: the program itself, whose id is not valid, or a client that
// it asks for. It exists as long as it has questions.
type asker struct {
	id        netip.Prefix
	questions int
	asked     list.List // of *question: the same, the oldest in front
	open      int       // exchanges with a socket
	line      list.List // of *exchange: those that wait for one
}

// asker returns that of an id.
func (c *client) asker(id netip.Prefix) *asker {
	a := c.asking[id]
	if a == nil {
		a = &asker{id: id}
		c.asking[id] = a
		c.askers = append(c.askers, a)
	}
	return a
}

// forget takes an asker off the books that has no questions.
func (c *client) forget(a *asker) {
	if a.questions == 0 && c.asking[a.id] == a {
		delete(c.asking, a.id)
		i := slices.Index(c.askers, a)
		c.askers = slices.Delete(c.askers, i, i+1)
	}
}

// admits reports whether an asker may ask one more question now. Where that is one
// too many, an old one without an answer is given up for it: of the asker itself, or
// of the one that has most.
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

// gives ends the oldest question of an asker, if it is as old as that.
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

// begin gives an exchange a socket, or a place in the line.
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

// stand puts an exchange at the end of its asker's line.
func (ex *exchange) stand() {
	ex.at = ex.q.asker.line.PushBack(ex)
	ex.c.waiting++
}

// unline takes an exchange out of the line.
func (c *client) unline(ex *exchange) {
	if ex.at != nil {
		ex.q.asker.line.Remove(ex.at)
		ex.at = nil
		if c.waiting--; c.waiting == 0 {
			c.turn.Stop()
		}
	}
}

// openNext lets an exchange begin: one of the asker with the fewest sockets.
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

// turnTime is how long an exchange has its socket without a reply before it gives
// it to another, where some wait: of all that go on they are those whose reply is
// least likely to come. Each further turn is twice as long, so that slow replies
// are waited for in the end.
const turnTime = 250 * time.Millisecond

// turns has exchanges that had their turn change places with those that wait.
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
	ex.q.step(ex, "waits: others ask too")
	ex.turn *= 2
	ex.closeUDP()
	ex.shut()
	ex.stand()
}

// makeRoom puts an exchange back into the line for a new one of a: the one that has
// waited longest for its reply, of the asker with the most sockets. It reports false if
// no asker has so many that this is fair, and none has waited for long.
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

// join makes a question the one of whichever asker has fewer of them, so that none
// waits in another's line.
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

// count makes a question an asker's.
func (q *question) count(a *asker) {
	q.asker = a
	q.place = a.asked.PushBack(q)
	a.questions++
}
