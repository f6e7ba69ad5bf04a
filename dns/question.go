package dns

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
)

// question is one that is under way, for all who ask it.
//
//	begin ─▶ exchange with a server ─answer, negative─▶ finish
//	            ▲    │ alias without its end: ask for that
//	            └────┘ no answer, an error: the next server, and all once more
type question struct {
	c       *client
	key     key
	name    string // what is asked for now: the key's, or where its aliases lead
	aliases []Record
	waiters []*waiter
	over    bool

	servers []netip.AddrPort // in the order they are asked
	server  int              // the one that is asked now
	round   int
	plain   bool // without EDNS: a server did not understand it
	tried   []Attempt
	timeout bool // one of them was out of time
	ex      *exchange

	old    *entry // what may be served if nobody answers
	served bool   // it was
	stale  *weir.Timer
}

// staleAfter is how long somebody waits before a stale answer is good enough
// (RFC 8767, 5).
const staleAfter = 1800 * time.Millisecond

func (c *client) question(k key, old *entry) *question {
	q := &question{c: c, key: k, name: k.name, old: old}
	c.questions[k] = q
	return q
}

func (q *question) begin() {
	if q.old != nil {
		q.stale = q.c.l.After(staleAfter, q.serveStale)
	}
	q.restart()
}

// restart asks for q.name, from the first server on.
func (q *question) restart() {
	q.servers = q.c.order()
	q.server, q.round = 0, 0
	q.next()
}

// order is the order in which servers are asked: as configured, or beginning with
// another each time, those that did not answer lately last.
func (c *client) order() []netip.AddrPort {
	all := c.config.Servers
	if len(all) == 1 {
		return all // nobody changes it
	}
	start := 0
	if c.config.Rotate {
		start = c.first % len(all)
		c.first++
	}
	var up, down []netip.AddrPort
	for i := range all {
		s := all[(start+i)%len(all)]
		if until, ok := c.down[s]; ok && c.l.Now().Before(until) {
			down = append(down, s)
		} else {
			up = append(up, s)
		}
	}
	return append(up, down...)
}

// next asks the server whose turn it is.
func (q *question) next() {
	if q.server == len(q.servers) {
		q.server = 0
		q.round++
	}
	if q.round >= q.c.config.Attempts {
		err := ErrServer
		if q.timeout {
			err = ErrTimeout
		}
		q.fail(&Error{Name: q.key.name, Type: q.key.qtype, Err: err, Tried: q.tried})
		return
	}
	q.exchange()
}

func (q *question) exchange() {
	name, err := q.c.random.mixed(q.name)
	if err != nil {
		q.fail(&Error{Name: q.key.name, Type: q.key.qtype, Err: ErrBadName})
		return
	}
	ex := &exchange{q: q, c: q.c, server: q.servers[q.server]}
	ex.query = query{id: q.c.random.uint16(), name: name, qtype: q.key.qtype, edns: !q.plain, pad: q.c.o.stream}
	q.ex = ex
	ex.begin()
}

// failed is an exchange that came to nothing.
func (q *question) failed(ex *exchange, err error) {
	q.ex = nil
	q.tried = append(q.tried, Attempt{Server: ex.server, TCP: ex.tcp, Err: err})
	q.step(ex, err.Error())
	if errors.Is(err, ErrTimeout) {
		q.timeout = true
		q.c.down[ex.server] = q.c.l.Now().Add(downFor)
	}
	q.server++
	q.next()
}

func (q *question) step(ex *exchange, what string) {
	q.c.step(Step{Name: q.name, Type: q.key.qtype, Server: ex.server, TCP: ex.tcp, What: what})
}

// replied is an exchange that has its reply.
func (q *question) replied(ex *exchange, r *response) {
	delete(q.c.down, ex.server)
	switch {
	case r.code == dnsmessage.RCodeFormatError && ex.query.edns:
		q.step(ex, "does not understand EDNS")
		q.ex, q.plain = nil, true
		q.exchange()
		return
	case r.code != dnsmessage.RCodeSuccess && r.code != dnsmessage.RCodeNameError:
		q.failed(ex, codeError(r.code))
		return
	case r.code == dnsmessage.RCodeSuccess && len(r.records)+len(r.aliases) == 0 && !r.soa &&
		r.referral && !r.recursive && !r.authority:
		q.failed(ex, errLame)
		return
	}
	q.ex = nil
	q.aliases = append(q.aliases, r.aliases...)
	if len(q.aliases) > aliasesMax {
		q.fail(&Error{Name: q.key.name, Type: q.key.qtype, Err: ErrAliases})
		return
	}
	switch {
	case len(r.records) > 0:
		q.step(ex, "answers")
		q.found(ex, r)
	case r.code == dnsmessage.RCodeNameError, r.soa, len(r.aliases) == 0:
		q.step(ex, "says that there is none")
		q.none(r)
	default:
		// An alias, and not where it leads.
		q.step(ex, "answers with an alias of "+r.end)
		if !validName(r.end) {
			q.fail(&Error{Name: q.key.name, Type: q.key.qtype, Err: ErrBadName})
			return
		}
		q.name = r.end
		q.restart()
	}
}

var errLame = errors.New("refers to other servers")

func (q *question) found(ex *exchange, r *response) {
	a := Answer{Name: q.key.name, Records: r.records, Aliases: q.aliases, Server: ex.server}
	all := response{aliases: q.aliases, records: r.records}
	a.TTL = all.ttl()
	now := q.c.l.Now()
	q.c.cache.put(&entry{key: q.key, answer: a}, a.TTL, now)
	// Everybody gets records of their own.
	q.finish(func() (Answer, *Error) {
		a := a
		a.Records = append([]Record(nil), a.Records...)
		a.Aliases = append([]Record(nil), a.Aliases...)
		return a, nil
	})
}

// none is a negative answer, which is kept as long as it says (RFC 2308).
func (q *question) none(r *response) {
	err := &Error{Name: q.key.name, Type: q.key.qtype, Err: ErrNotFound, NoName: r.code == dnsmessage.RCodeNameError}
	ttl := time.Duration(0)
	if r.soa {
		all := response{aliases: q.aliases}
		ttl = r.negative
		if len(q.aliases) > 0 {
			ttl = min(ttl, all.ttl())
		}
	}
	// What was known before is no longer so, even if this may not be kept.
	q.c.cache.put(&entry{key: q.key, err: err}, ttl, q.c.l.Now())
	q.finish(func() (Answer, *Error) { e := *err; return Answer{}, &e })
}

// fail ends the question without an answer, or with an old one.
func (q *question) fail(err *Error) {
	if q.old != nil && q.serves() {
		q.serveStale()
		q.end()
		return
	}
	q.finish(func() (Answer, *Error) { e := *err; return Answer{}, &e })
}

// serves reports whether the old answer may still be served.
func (q *question) serves() bool {
	return q.c.l.Now().Before(q.old.until.Add(q.c.cache.stale))
}

// serveStale gives those who wait the old answer; the question goes on for the
// cache.
func (q *question) serveStale() {
	if q.over || !q.serves() {
		return
	}
	q.served = true
	q.c.step(Step{Name: q.name, Type: q.key.qtype, What: "served stale"})
	for _, w := range q.waiters {
		w.soon(q.c.l, q.old.served(q.c.l.Now(), true), nil)
	}
	q.waiters = nil
}

// finish hands the result to all who wait.
func (q *question) finish(result func() (Answer, *Error)) {
	if q.over {
		return
	}
	waiters := q.waiters
	q.end()
	for _, w := range waiters {
		a, err := result()
		w.soon(q.c.l, a, err)
	}
}

// forsaken reports whether nobody waits for the answer any more.
func (q *question) forsaken() bool {
	for _, w := range q.waiters {
		if !w.gone {
			return false
		}
	}
	return !q.served
}

// end takes the question off the books.
func (q *question) end() {
	if q.over {
		return
	}
	q.over = true
	delete(q.c.questions, q.key)
	q.waiters = nil
	if q.stale != nil {
		q.stale.Stop()
	}
	if q.ex != nil {
		q.ex.end()
		q.ex = nil
	}
}
