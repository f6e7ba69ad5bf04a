package layer

import (
	"container/list"
	"net/netip"
)

// hsList is a linked list of handshakes, which hold the links themselves.
type hsList struct {
	by          hsBy
	first, last *handshake
}

// hsBy says which of a handshake's links a list uses.
type hsBy uint8

const (
	byGate   hsBy = iota // all that have a place
	byHolder             // those of one address
	byLine               // those of one address that wait for a turn or a place
	hsLists
)

type hsLinks struct{ prev, next *handshake }

func (l *hsList) push(h *handshake) {
	h.links[l.by] = hsLinks{prev: l.last}
	if l.last != nil {
		l.last.links[l.by].next = h
	} else {
		l.first = h
	}
	l.last = h
}

func (l *hsList) remove(h *handshake) {
	k := h.links[l.by]
	if k.prev != nil {
		k.prev.links[l.by].next = k.next
	} else {
		l.first = k.next
	}
	if k.next != nil {
		k.next.links[l.by].prev = k.prev
	} else {
		l.last = k.prev
	}
	h.links[l.by] = hsLinks{}
}

// holders holds the addresses whose connections have places, ordered by how
// many.
type holders struct {
	n     int // places that are taken
	byKey map[netip.Prefix]*holder
	ranks []*list.List // of *holder: those with as many places as the index says
	top   int          // the highest rank with a holder; 0: none
}

type holder struct {
	peer   netip.Prefix
	places int
	own    hsList // the handshake that moved last is at the end
	at     *list.Element
}

// most returns an address with the most places; there must be one.
func (hs *holders) most() *holder { return hs.ranks[hs.top].Front().Value.(*holder) }

// of returns how many places an address has.
func (hs *holders) of(peer netip.Prefix) int {
	if r := hs.byKey[peer]; r != nil {
		return r.places
	}
	return 0
}

// give gives h a place.
func (hs *holders) give(h *handshake) {
	r := hs.byKey[h.peer]
	if r == nil {
		if hs.byKey == nil {
			hs.byKey = map[netip.Prefix]*holder{}
		}
		r = &holder{peer: h.peer, own: hsList{by: byHolder}}
		hs.byKey[h.peer] = r
	}
	hs.n++
	h.holder = r
	r.own.push(h)
	hs.rank(r, r.places+1)
}

// take takes h's place away.
func (hs *holders) take(h *handshake) {
	r := h.holder
	hs.n--
	h.holder = nil
	r.own.remove(h)
	hs.rank(r, r.places-1)
	if r.places == 0 {
		delete(hs.byKey, r.peer)
	}
}

// rank moves a holder to the next rank, up or down.
func (hs *holders) rank(r *holder, places int) {
	for len(hs.ranks) <= places {
		hs.ranks = append(hs.ranks, list.New())
	}
	if r.places > 0 {
		hs.ranks[r.places].Remove(r.at)
	}
	if r.places = places; places > 0 {
		r.at = hs.ranks[places].PushBack(r)
	}
	hs.top = max(hs.top, places)
	for hs.top > 0 && hs.ranks[hs.top].Len() == 0 {
		hs.top--
	}
}

// turns is a queue in which each address has a line of its own, and the lines
// are served in turn, each time the first of the line.
type turns struct {
	n     int
	lines map[netip.Prefix]*line
	order list.List // of *line, the one whose turn it is in front
}

type line struct {
	turns *turns
	peer  netip.Prefix
	who   hsList
	at    *list.Element
}

func (q *turns) push(h *handshake) {
	l := q.lines[h.peer]
	if l == nil {
		if q.lines == nil {
			q.lines = map[netip.Prefix]*line{}
		}
		l = &line{turns: q, peer: h.peer, who: hsList{by: byLine}}
		l.at = q.order.PushBack(l)
		q.lines[h.peer] = l
	}
	q.n++
	h.line = l
	l.who.push(h)
}

// pop takes the first of the line whose turn it is; there must be one.
func (q *turns) pop() *handshake { return q.take(q.order.Front().Value.(*line)) }

// linesLooked bounds how many lines popLeast compares.
const linesLooked = 32

// popLeast is like pop, but among the next lines it prefers the one whose
// address has the fewest places.
func (q *turns) popLeast(hs *holders) *handshake {
	e := q.order.Front()
	best := e.Value.(*line)
	for n := 1; n < linesLooked; n++ {
		if e = e.Next(); e == nil {
			break
		}
		if l := e.Value.(*line); hs.of(l.peer) < hs.of(best.peer) {
			best = l
		}
	}
	return q.take(best)
}

func (q *turns) take(l *line) *handshake {
	h := l.who.first
	q.remove(h)
	if l.who.first != nil {
		q.order.MoveToBack(l.at)
	}
	return h
}

func (q *turns) remove(h *handshake) {
	l := h.line
	h.line = nil
	q.n--
	l.who.remove(h)
	if l.who.first == nil {
		q.order.Remove(l.at)
		delete(q.lines, l.peer)
	}
}
