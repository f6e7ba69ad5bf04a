package dns

import (
	"container/list"
	"time"
)

// key identifies a question: the absolute name in lower case, and the type.
type key struct {
	name  string
	qtype Type
}

// entry is what is known about a question: an answer, or that there is none.
type entry struct {
	key    key
	answer Answer // TTLs as they came
	err    *Error // of a negative one
	since  time.Time
	until  time.Time
}

// cache keeps answers for as long as their TTLs say, and for stale beyond that
// if stale answers are wanted. The least recently used one is dropped first.
type cache struct {
	most    int
	stale   time.Duration
	entries map[key]*list.Element
	order   list.List // of *entry, the most recently used in front
}

func newCache(most int, stale time.Duration) *cache {
	return &cache{most: most, stale: stale, entries: map[key]*list.Element{}}
}

// get returns what is known about k. fresh says that it is still valid; an
// entry that is not is returned only while it may be served stale.
func (c *cache) get(k key, now time.Time) (e *entry, fresh bool) {
	el := c.entries[k]
	if el == nil {
		return nil, false
	}
	e = el.Value.(*entry)
	fresh = now.Before(e.until)
	if !fresh && (e.err != nil || !now.Before(e.until.Add(c.stale))) {
		c.drop(el)
		return nil, false
	}
	c.order.MoveToFront(el)
	return e, fresh
}

func (c *cache) drop(el *list.Element) {
	delete(c.entries, el.Value.(*entry).key)
	c.order.Remove(el)
}

// put stores e for ttl. Nothing is kept for longer than a day: TTLs of years
// are mistakes.
func (c *cache) put(e *entry, ttl time.Duration, now time.Time) {
	const longest = 24 * time.Hour
	if el := c.entries[e.key]; el != nil {
		c.drop(el)
	}
	if ttl <= 0 || c.most <= 0 {
		return
	}
	e.since, e.until = now, now.Add(min(ttl, longest))
	c.entries[e.key] = c.order.PushFront(e)
	for len(c.entries) > c.most {
		c.drop(c.order.Back())
	}
}

// served is the answer as it is handed out: a copy, with what is left of its
// TTLs. A stale one has 30 s left (RFC 8767, 4).
func (e *entry) served(now time.Time, stale bool) Answer {
	const staleTTL = 30 * time.Second
	a := e.answer
	a.Cached, a.Stale = true, stale
	age := now.Sub(e.since)
	left := func(ttl time.Duration) time.Duration {
		if stale {
			return staleTTL
		}
		return max(ttl-age, 0)
	}
	aged := func(all []Record) []Record {
		out := append([]Record(nil), all...)
		for i := range out {
			out[i].TTL = left(out[i].TTL)
		}
		return out
	}
	a.TTL = left(a.TTL)
	a.Records, a.Aliases = aged(a.Records), aged(a.Aliases)
	return a
}
