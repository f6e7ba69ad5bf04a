package dns

import (
	"errors"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
)

// search asks for one name after another until one is found.
type search struct {
	c       *client
	asker   netip.Prefix
	name    string
	qtype   Type
	names   []string
	done    func(Answer, error)
	asked   *waiter
	over    bool
	trouble *Error // the first that was not "not found"
	missing *Error // the first that was
}

// soon delivers a result in the next turn of the loop.
func (s *search) soon(a Answer, err error) func() {
	call := s.c.l.Soon(func() { s.finish(a, err) })
	return func() { call.Cancel() }
}

func (s *search) stop() {
	if s.over {
		return
	}
	s.over = true
	if s.asked != nil {
		s.asked.cancel()
	}
}

func (s *search) finish(a Answer, err error) {
	if !s.over {
		s.over = true
		s.done(a, err)
	}
}

func (s *search) next() {
	name := s.names[0]
	s.names = s.names[1:]
	s.asked = s.c.ask(s.asker, name, s.qtype, func(a Answer, err *Error) {
		if err == nil {
			a.Name = name
			s.finish(a, nil)
			return
		}
		s.note(err)
		if len(s.names) > 0 {
			s.next()
			return
		}
		s.finish(Answer{}, s.worst())
	})
}

func (s *search) note(err *Error) { noteError(err, &s.missing, &s.trouble) }

func (s *search) worst() error { return worstError(s.name, s.qtype, s.missing, s.trouble) }

func noteError(err *Error, missing, trouble **Error) {
	switch {
	case !errors.Is(err, ErrNotFound):
		if *trouble == nil {
			*trouble = err
		}
	case *missing == nil || (*missing).NoName && !err.NoName:
		*missing = err // knowing that the name exists says more
	}
}

// worstError is the error of a search: a server's trouble takes precedence over
// a missing name, since the name that the trouble was about may be the right
// one.
func worstError(name string, t Type, missing, trouble *Error) error {
	err := trouble
	if err == nil {
		err = missing
	}
	e := *err
	e.Name, e.Type = name, t
	return &e
}

// hostSearch is a search for addresses, of both families at once.
type hostSearch struct {
	c       *client
	asker   netip.Prefix
	network string
	name    string
	names   []string
	now     string // the one being asked for
	done    func([]netip.Addr, error)
	over    bool
	trouble *Error
	missing *Error

	v4, v6 familySearch
	hurry  *weir.Timer
	asked  []*waiter
}

// familySearch is one family's half.
type familySearch struct {
	pending bool
	addrs   []netip.Addr
}

// familyWait is how long the addresses of one family wait for the other's.
const familyWait = 150 * time.Millisecond

func (s *hostSearch) soon(addrs []netip.Addr, err error) func() {
	call := s.c.l.Soon(func() { s.finish(addrs, err) })
	return func() { call.Cancel() }
}

func (s *hostSearch) stop() {
	if s.over {
		return
	}
	s.end()
	for _, w := range s.asked {
		w.cancel()
	}
}

func (s *hostSearch) end() {
	s.over = true
	if s.hurry != nil {
		s.hurry.Stop()
	}
}

func (s *hostSearch) finish(addrs []netip.Addr, err error) {
	if !s.over {
		s.end()
		s.done(addrs, err)
	}
}

func (s *hostSearch) next() {
	name := s.names[0]
	s.names, s.now = s.names[1:], name
	s.v4, s.v6 = familySearch{}, familySearch{}
	s.asked = s.asked[:0]
	ask4 := s.network != "ip6"
	ask6 := s.network == "ip6" || s.network == "ip" && !s.c.config.NoAAAA
	// Both are pending before either can answer.
	s.v4.pending, s.v6.pending = ask4, ask6
	if ask6 {
		s.ask(name, AAAA, &s.v6)
	}
	if ask4 {
		s.ask(name, A, &s.v4)
	}
}

func (s *hostSearch) ask(name string, t Type, f *familySearch) {
	s.asked = append(s.asked, s.c.ask(s.asker, name, t, func(a Answer, err *Error) {
		if s.over {
			return
		}
		f.pending = false
		if err != nil {
			s.note(err)
		}
		for i := range a.Records {
			f.addrs = append(f.addrs, a.Records[i].Addr)
		}
		s.progress()
	}))
}

func (s *hostSearch) note(err *Error) { noteError(err, &s.missing, &s.trouble) }

// progress decides what to do after an answer.
func (s *hostSearch) progress() {
	found := len(s.v4.addrs)+len(s.v6.addrs) > 0
	switch {
	case s.v4.pending || s.v6.pending:
		switch {
		case !found || s.hurry != nil:
		case s.c.lagging(s.pending()):
			s.deliver()
		default:
			s.hurry = s.c.l.After(familyWait, s.late)
		}
	case found:
		s.deliver()
	case len(s.names) > 0:
		s.next()
	default:
		s.finish(nil, worstError(s.name, 0, s.missing, s.trouble))
	}
}

// pending is the question of the family that the search waits for.
func (s *hostSearch) pending() key {
	if s.v6.pending {
		return key{lower(s.now), AAAA}
	}
	return key{lower(s.now), A}
}

// late is called when the other family's addresses have not come in time.
func (s *hostSearch) late() {
	s.c.missed(s.pending())
	s.deliver()
}

// familyLag counts how many lookups in a row did not get one family's addresses
// in time, whatever the name.
type familyLag struct {
	row   int
	until time.Time // after that the family is waited for again
}

const (
	// lagRow is how many of them show that the names are not the cause.
	lagRow = 3
	// lagFor is how long a family, or the family of one name, is not waited
	// for.
	lagFor = time.Minute
	// slowMost is how many such names are remembered.
	slowMost = 1024
)

// lag returns the lag of a family.
func (c *client) lag(t Type) *familyLag {
	if t == AAAA {
		return &c.lags[1]
	}
	return &c.lags[0]
}

// lagging reports whether the answer to a question is not worth waiting for
// when there are addresses of the other family.
func (c *client) lagging(k key) bool {
	if _, slow := c.slow.get(k, c.l.Now()); slow {
		return true
	}
	f := c.lag(k.qtype)
	return f.row >= lagRow && c.l.Now().Before(f.until)
}

// missed records that the answer to a question did not come in time.
func (c *client) missed(k key) {
	if k.qtype != A && k.qtype != AAAA {
		return
	}
	now := c.l.Now()
	if _, slow := c.slow.get(k, now); !slow {
		f := c.lag(k.qtype)
		f.row++
		f.until = now.Add(lagFor)
	}
	c.slow.put(&entry{key: k, err: &Error{Name: k.name, Type: k.qtype, Err: ErrTimeout}}, lagFor, now)
}

// inTime records that a question was answered.
func (c *client) inTime(k key) {
	if k.qtype == A || k.qtype == AAAA {
		c.slow.put(&entry{key: k}, 0, c.l.Now())
		*c.lag(k.qtype) = familyLag{}
	}
}

// deliver hands out the addresses found so far; the other family's question
// goes on for the cache. IPv6 comes first: a connect sorts them itself.
func (s *hostSearch) deliver() {
	for _, w := range s.asked {
		w.leave()
	}
	s.finish(append(append([]netip.Addr(nil), s.v6.addrs...), s.v4.addrs...), nil)
}
