package dns

import (
	"container/list"
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
)

// question is a question under way, shared by everyone who asks it.
//
//	begin ─▶ exchange with a server ─answer, negative─▶ finish
//	            ▲    │ alias without its end: ask for that
//	            └────┘ no answer, an error, nothing: the next server, and all once
//	                   more; an error that EDNS may have caused: the same, plainly
type question struct {
	c       *client
	asker   *asker
	place   *list.Element // among the asker's questions
	since   time.Time
	key     key
	name    string // what is asked for now: the key's name, or where its aliases lead
	aliases []Record
	waiters []*waiter
	over    bool

	servers []netip.AddrPort // in the order they are asked
	server  int              // the one that is asked now
	round   int
	rounds  int
	tried   []Attempt
	timeout bool // one of them did not answer in time
	heard   bool // one of them said something
	ex      *exchange

	patience time.Duration    // how long each server has to answer
	until    time.Time        // no server is asked after that
	plain    []netip.AddrPort // servers that are asked without EDNS
	folds    []netip.AddrPort // servers that change the case of names

	old    *entry // what may be served if no server answers
	served bool   // it was
	stale  *weir.Timer
}

// staleAfter is how long a lookup waits before a stale answer is good enough
// (RFC 8767, 5).
const staleAfter = 1800 * time.Millisecond

// questionTime is how long a question may take, including all aliases on the
// way, unless asking all servers takes longer.
const questionTime = 30 * time.Second

func (c *client) question(k key, a *asker, old *entry) *question {
	q := &question{c: c, key: k, name: k.name, old: old, since: c.l.Now()}
	c.questions[k] = q
	q.count(a)
	return q
}

func (q *question) begin() {
	conf := &q.c.config
	all := conf.Timeout * time.Duration(conf.Attempts*len(conf.Servers))
	q.until = q.c.l.Now().Add(max(questionTime, all))
	switch {
	case q.old == nil:
	case q.c.allSilent(): // no one has to wait for what another caller was told already
		q.serveStale()
	default:
		q.stale = q.c.l.After(staleAfter, q.serveStale)
	}
	q.restart()
}

// restart asks for q.name, beginning with the first server.
func (q *question) restart() {
	q.servers = q.c.order()
	q.server, q.round = 0, 0
	q.rounds, q.patience = q.c.patience()
	q.next()
}

// next asks the server whose turn it is.
func (q *question) next() {
	if q.server == len(q.servers) {
		q.server = 0
		q.round++
	}
	if q.round >= q.rounds || q.c.l.Now().After(q.until) {
		err := ErrServer
		if q.timeout && !q.heard {
			err = ErrTimeout
		}
		q.fail(&Error{Name: q.key.name, Type: q.key.qtype, Err: err, Tried: q.tried})
		return
	}
	q.exchange()
}

func (q *question) exchange() {
	ex := &exchange{q: q, c: q.c, server: q.servers[q.server]}
	now, s := q.c.l.Now(), q.c.server(ex.server)
	fold := slices.Contains(q.folds, ex.server) || now.Before(s.folds)
	plain := slices.Contains(q.plain, ex.server) || now.Before(s.plain)
	name, err := q.c.random.mixed(q.name, fold)
	if err != nil {
		q.fail(&Error{Name: q.key.name, Type: q.key.qtype, Err: ErrBadName})
		return
	}
	ex.query = query{id: q.c.random.uint16(), name: name, qtype: q.key.qtype, edns: !plain, pad: q.c.o.stream, fold: fold}
	q.ex = ex
	q.c.begin(ex)
}

// failed handles an exchange that failed.
func (q *question) failed(ex *exchange, err error) {
	q.ex = nil
	q.tried = append(q.tried, Attempt{Server: ex.server, TCP: ex.tcp, Err: err})
	q.step(ex, err.Error())
	late := errors.Is(err, ErrTimeout)
	q.timeout = q.timeout || late
	switch {
	case ex.cased && !slices.Contains(q.folds, ex.server):
		// There is no TCP to settle the matter. Id and port are drawn again,
		// and the reply must match them.
		q.folds = append(q.folds, ex.server)
		q.exchange()
		return
	case refuses(err):
		q.heard = true
		if ex.query.edns && !q.c.server(ex.server).edns && q.plainly(ex) {
			return
		}
	case late && ex.query.edns && !ex.tcp && !q.c.server(ex.server).edns:
		q.plain = append(q.plain, ex.server) // in the next round
	}
	if ex.sent {
		q.c.misses(ex.server, ex.since)
	}
	q.server++
	q.next()
}

// refuses reports whether an exchange failed with a reply that does not answer.
func refuses(err error) bool {
	code := codeError(0)
	return errors.As(err, &code) || errors.Is(err, errLame) || errors.Is(err, errBadReply)
}

// plainly asks the server again without EDNS, to which old servers respond with
// all kinds of errors. It reports false if that was done already.
func (q *question) plainly(ex *exchange) bool {
	if slices.Contains(q.plain, ex.server) {
		return false
	}
	q.step(ex, "asked again without EDNS")
	q.plain = append(q.plain, ex.server)
	q.ex = nil
	q.exchange()
	return true
}

func (q *question) step(ex *exchange, what string) {
	q.c.step(Step{Name: q.name, Type: q.key.qtype, Server: ex.server, TCP: ex.tcp, What: what})
}

// replied handles an exchange that has its reply.
func (q *question) replied(ex *exchange, r *response) {
	s := q.c.server(ex.server)
	s.edns = s.edns || r.edns
	switch {
	case ex.query.edns && noEDNS(r.code) && q.plainly(ex):
		return
	case !r.conclusive():
		q.failed(ex, codeError(r.code))
		return
	case r.lame():
		q.failed(ex, errLame)
		return
	}
	// Remember what it took to get an answer.
	now := q.c.l.Now()
	if slices.Contains(q.plain, ex.server) && !ex.query.edns {
		s.plain = now.Add(habitFor)
	}
	if slices.Contains(q.folds, ex.server) && !ex.tcp {
		s.folds = now.Add(habitFor)
	}
	q.c.inTime(q.key)
	q.ex = nil
	q.aliases = append(q.aliases, r.aliases...)
	circle := len(r.aliases) > 0 && (r.circle || inCircle(q.key.name, q.aliases))
	if circle || len(q.aliases) > aliasesMax {
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
		// An alias, but not the records it leads to.
		q.step(ex, "answers with an alias of "+r.end)
		if !validName(r.end) {
			q.fail(&Error{Name: q.key.name, Type: q.key.qtype, Err: ErrBadName})
			return
		}
		q.name = r.end
		q.restart()
	}
}

// errLame reports a reply that says success but holds nothing.
var errLame = errors.New("neither an answer nor a statement that there is none")

// noEDNS reports whether a code says that a server does not know EDNS, or does
// not know version 0 of it (RFC 6891, 7).
func noEDNS(code dnsmessage.RCode) bool {
	return code == dnsmessage.RCodeFormatError || code == dnsmessage.RCodeNotImplemented || code == badVersion
}

func (q *question) found(ex *exchange, r *response) {
	a := Answer{Name: q.key.name, Records: r.records, Aliases: q.aliases, Server: ex.server}
	all := response{aliases: q.aliases, records: r.records}
	a.TTL = all.ttl()
	now := q.c.l.Now()
	q.c.cache.put(&entry{key: q.key, answer: a}, a.TTL, now)
	// Every caller gets its own copy of the records.
	q.finish(func() (Answer, *Error) {
		a := a
		a.Records = append([]Record(nil), a.Records...)
		a.Aliases = append([]Record(nil), a.Aliases...)
		return a, nil
	})
}

// none handles a negative answer, which is kept for as long as it says (RFC
// 2308).
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
	err.none = &absence{aliases: q.aliases, zone: r.zone, since: q.c.l.Now()}
	err.none.zone.TTL = ttl
	// What was known before is out of date, even if this answer may not be
	// kept.
	q.c.cache.put(&entry{key: q.key, err: err}, ttl, q.c.l.Now())
	q.finish(func() (Answer, *Error) { e := *err; return Answer{}, &e })
}

// fail ends the question without an answer, or with an old one.
func (q *question) fail(err *Error) {
	if errors.Is(err.Err, ErrTimeout) {
		q.c.missed(q.key)
	}
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

// serveStale gives the waiters the old answer; the question goes on for the
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

// finish hands the result to all waiters.
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

// deserted reports whether no one waits for the answer any more.
func (q *question) deserted() bool {
	return !slices.ContainsFunc(q.waiters, func(w *waiter) bool { return !w.gone })
}

// end removes the question from the client's tables.
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
	q.asker.questions--
	q.asker.asked.Remove(q.place)
	q.c.forget(q.asker)
}
