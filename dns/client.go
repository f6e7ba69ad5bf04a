package dns

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/zone"
)

// client is a resolver's state for one loop.
type client struct {
	l *weir.Loop
	o *options

	config     Config
	configFile watched
	hosts      *Hosts
	hostsFile  watched

	cache     *cache
	questions map[key]*question
	trunks    map[netip.AddrPort]*trunk
	open      []*exchange // those that have a socket, in no order
	waiting   int         // exchanges that wait for one, in their askers' queues
	turn      *weir.Timer // when some of them get their turn
	asking    map[netip.Prefix]*asker
	askers    []*asker // the same askers, the one that asked first in front
	servers   map[netip.AddrPort]*nameServer
	mute      bool         // all of them are silent, and this was reported
	first     int          // the server that is asked first, with Rotate
	slow      *cache       // questions whose answers did not come in time, as errors
	lags      [2]familyLag // of A and of AAAA
	random    draws
	steps     func(Step)
	packets   weir.PacketOption // of each socket
}

func newClient(l *weir.Loop, o *options) *client {
	c := &client{
		l: l, o: o, cache: newCache(o.cacheMost, o.stale), questions: map[key]*question{}, trunks: map[netip.AddrPort]*trunk{},
		asking: map[netip.Prefix]*asker{}, servers: map[netip.AddrPort]*nameServer{}, slow: newCache(slowMost, 0), steps: o.steps, packets: weir.WithMaxDatagram(udpMost),
		configFile: watched{path: o.configPath}, hostsFile: watched{path: o.hostsPath}, hosts: o.hosts,
	}
	c.turn = l.NewTimer(c.turns)
	c.random.from = o.random
	if c.random.from == nil {
		c.random.from = rand.Reader
	}
	if o.config != nil {
		c.configFile.path = ""
		c.configure(*o.config)
	} else {
		c.configure(Config{Ndots: -1})
	}
	return c
}

// configure puts a configuration into effect for new questions.
func (c *client) configure(conf Config) {
	if len(c.o.servers) > 0 {
		conf.Servers = c.o.servers
	}
	if c.o.timeout > 0 {
		conf.Timeout = c.o.timeout
	}
	if c.o.attempts > 0 {
		conf.Attempts = c.o.attempts
	}
	conf.TCP = conf.TCP || c.o.tcp || c.o.stream
	search := conf.Search
	conf.Search = nil
	for _, s := range search {
		conf.Search = append(conf.Search, absolute(s))
	}
	servers := conf.Servers
	conf.Servers = nil
	for _, s := range servers {
		conf.Servers = append(conf.Servers, zone.NamedPort(s)) // as datagrams from it will have it
	}
	c.config = conf.filled()
	clear(c.servers)
}

// reload reads the files that have changed again.
func (c *client) reload() {
	now := c.l.Now()
	if f, changed := c.configFile.changed(now); changed {
		conf := Config{Ndots: -1}
		if f != nil {
			if parsed, err := ParseConfig(f); err == nil {
				conf = parsed
			}
			_ = f.Close()
		}
		c.configure(conf)
	}
	if f, changed := c.hostsFile.changed(now); changed {
		c.hosts = nil
		if f != nil {
			if h, err := ParseHosts(f); err == nil {
				c.hosts = h
			}
			_ = f.Close()
		}
	}
}

func (c *client) step(s Step) {
	if c.steps != nil {
		s.At = c.l.Now()
		c.steps(s)
	}
}

// ask finds the records of an absolute name for an asker. done is never called
// from within ask.
func (c *client) ask(id netip.Prefix, name string, t Type, done func(Answer, *Error)) *waiter {
	k := key{lower(name), t}
	w := &waiter{done: done}
	e, fresh := c.cache.get(k, c.l.Now())
	switch {
	case fresh && e.err != nil:
		c.step(Step{Name: name, Type: t, What: "known not to exist"})
		err := *e.err
		w.soon(c.l, Answer{}, &err)
		return w
	case fresh:
		c.step(Step{Name: name, Type: t, What: "known"})
		w.soon(c.l, e.served(c.l.Now(), false), nil)
		return w
	}
	q := c.questions[k]
	a := c.asker(id)
	defer func() { c.forget(a) }()
	if q == nil {
		if !c.admits(a) {
			w.soon(c.l, Answer{}, &Error{Name: name, Type: t, Err: ErrBusy})
			return w
		}
		q = c.question(k, a, e)
		w.q = q
		q.waiters = append(q.waiters, w)
		q.begin()
	} else {
		c.step(Step{Name: name, Type: t, What: "asked already"})
		w.q = q
		q.waiters = append(q.waiters, w)
		if q.served {
			q.serveStale()
		}
		q.join(a)
	}
	return w
}

// waiter is a caller that asked a question.
type waiter struct {
	q    *question // nil: the result was known
	done func(Answer, *Error)
	call *weir.Call // the result is on its way
	gone bool       // the result is not wanted any more
}

// soon delivers the result in the next turn of the loop.
func (w *waiter) soon(l *weir.Loop, a Answer, err *Error) {
	if !w.gone {
		w.call = l.Soon(func() { w.done(a, err) })
	}
}

// leave says that the result is not wanted any more. The question goes on for
// the cache, unless it is still queued and no one else waits for it.
func (w *waiter) leave() {
	w.gone = true
	if w.call != nil {
		w.call.Cancel()
	}
	if q := w.q; q != nil && !q.over && q.deserted() && q.ex != nil && q.ex.at != nil {
		q.end()
	}
}

// cancel does what leave does, and ends the question if no one else waits.
func (w *waiter) cancel() {
	w.leave()
	if q := w.q; q != nil && !q.over && !q.served && q.deserted() {
		q.end()
	}
}

// close ends everything under way without notifying anyone.
func (c *client) close() {
	var all []*question
	for _, q := range c.questions { // any order: no callback runs
		all = append(all, q)
	}
	for _, q := range all {
		q.end()
	}
	var idle []*trunk
	for _, t := range c.trunks { // any order: no callback runs
		idle = append(idle, t)
	}
	for _, t := range idle {
		t.close()
	}
}

// draws draws numbers that no one can predict.
type draws struct {
	from interface{ Read(p []byte) (int, error) }
	buf  [512]byte
	left int
}

func (d *draws) uint16() uint16 {
	if d.left < 2 {
		d.fill()
	}
	v := binary.LittleEndian.Uint16(d.buf[len(d.buf)-d.left:])
	d.left -= 2
	return v
}

func (d *draws) fill() {
	for n := 0; n < len(d.buf); {
		k, err := d.from.Read(d.buf[n:])
		n += k
		if err != nil {
			// crypto/rand does not fail; without randomness no query is safe.
			d.from = rand.Reader
		}
	}
	d.left = len(d.buf)
}

// The range that source ports are drawn from.
const (
	portFirst = 1024
)

// port draws a port; each is equally likely.
func (d *draws) port() uint16 {
	for {
		if p := d.uint16(); p >= portFirst {
			return p
		}
	}
}

// mixed returns a name with the case of each letter drawn at random, or in
// lower case.
func (d *draws) mixed(name string, asItIs bool) (dnsmessage.Name, error) {
	b := []byte(lower(name))
	if asItIs {
		return dnsmessage.NewName(string(b))
	}
	var bits uint16
	left := 0
	for i, ch := range b {
		if ch < 'a' || ch > 'z' {
			continue
		}
		if left == 0 {
			bits, left = d.uint16(), 16
		}
		if bits&1 != 0 {
			b[i] = ch - 'a' + 'A'
		}
		bits >>= 1
		left--
	}
	return dnsmessage.NewName(string(b))
}
