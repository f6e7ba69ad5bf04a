package relay

import (
	"net/netip"

	"github.com/weir-io/weir"
)

// flowTable has the flows by peer, by age, and by the address that holds them. Every
// step takes a constant time.
//
//	ranks[3]: address ─ address          holders with three flows each
//	ranks[2]:                            … with two
//	ranks[1]: address ─ address ─ …      … with one
//	             └─ flows, the one used last first
type flowTable struct {
	byPeer  map[weir.PacketAddr]*PacketFlow // of a peer's flows, the one that began last
	n       int
	byAge   list[PacketFlow] // the one used last first
	holders map[weir.PacketAddr]*holder
	ranks   []list[holder] // by how many flows they have
	most    int            // the highest rank in use
}

// holder is an address with the flows of all its ports.
type holder struct {
	key    weir.PacketAddr
	n      int
	flows  list[PacketFlow]
	inRank link[holder]
}

func newFlowTable() flowTable {
	return flowTable{byPeer: map[weir.PacketAddr]*PacketFlow{}, holders: map[weir.PacketAddr]*holder{}, ranks: make([]list[holder], 2)}
}

// share is whose flows a peer's count with: a /64 of IPv6 is one host's.
func share(a weir.PacketAddr) weir.PacketAddr {
	ip := a.IP.Addr()
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			ip = p.Addr()
		}
	}
	return weir.PacketAddr{IP: netip.AddrPortFrom(ip, 0), Path: a.Path}
}

func (t *flowTable) len() int { return t.n }

// of is the flow of what a peer sends to one of this machine's addresses, or nil.
// asked is not valid where there is only one.
func (t *flowTable) of(peer weir.PacketAddr, asked netip.Addr) *PacketFlow {
	f := t.byPeer[peer]
	for f != nil && f.asked.Local != asked {
		f = f.sibling
	}
	return f
}

// siblingsMost is how many flows a peer has at most, each to another address of this
// machine. They are searched one by one.
const siblingsMost = 16

// eldest is the first flow of a peer that has siblingsMost of them, or nil.
func (t *flowTable) eldest(peer weir.PacketAddr) *PacketFlow {
	f, n := t.byPeer[peer], 1
	for f != nil && f.sibling != nil {
		f, n = f.sibling, n+1
	}
	if n < siblingsMost {
		return nil
	}
	return f
}

// oldest is the flow that has been idle for longest, or nil.
func (t *flowTable) oldest() *PacketFlow { return t.byAge.last() }

// victim is the flow that has been idle for longest of the address that holds most,
// or nil. Among several such addresses it is one that has itself been idle for
// longest.
func (t *flowTable) victim() *PacketFlow {
	if h := t.ranks[t.most].last(); h != nil {
		return h.flows.last()
	}
	return nil
}

func (t *flowTable) add(f *PacketFlow) {
	key := share(f.peer)
	h := t.holders[key]
	if h == nil {
		h = &holder{key: key}
		t.holders[key] = h
	}
	f.sibling = t.byPeer[f.peer]
	t.byPeer[f.peer] = f
	t.n++
	f.holder = h
	t.byAge.push(&f.byAge, f)
	h.flows.push(&f.ofHolder, f)
	t.rank(h, h.n+1)
}

func (t *flowTable) remove(f *PacketFlow) {
	h := f.holder
	switch first := t.byPeer[f.peer]; {
	case first != f:
		for first.sibling != f {
			first = first.sibling
		}
		first.sibling = f.sibling
	case f.sibling != nil:
		t.byPeer[f.peer] = f.sibling
	default:
		delete(t.byPeer, f.peer)
	}
	f.sibling = nil
	t.n--
	t.byAge.remove(&f.byAge)
	h.flows.remove(&f.ofHolder)
	t.rank(h, h.n-1)
	if h.n == 0 {
		delete(t.holders, h.key)
	}
}

// touch makes a flow, and the address that holds it, the ones used last.
func (t *flowTable) touch(f *PacketFlow) {
	if f.holder == nil || f.over {
		return
	}
	t.byAge.front(&f.byAge, f)
	f.holder.flows.front(&f.ofHolder, f)
	t.ranks[f.holder.n].front(&f.holder.inRank, f.holder)
}

// rank moves a holder to the rank of n flows, one more or one less than before.
func (t *flowTable) rank(h *holder, n int) {
	if h.n > 0 {
		t.ranks[h.n].remove(&h.inRank)
	}
	h.n = n
	if n == len(t.ranks) {
		t.ranks = append(t.ranks, list[holder]{})
	}
	if n > 0 {
		t.ranks[n].push(&h.inRank, h)
	}
	t.most = max(t.most, n)
	for t.most > 0 && t.ranks[t.most].head == nil {
		t.most--
	}
}

// list is a list whose links are fields of what it lists.
type list[T any] struct{ head, tail *link[T] }

type link[T any] struct {
	of         *T
	prev, next *link[T]
}

func (l *list[T]) last() *T {
	if l.tail == nil {
		return nil
	}
	return l.tail.of
}

// push puts what n belongs to in front.
func (l *list[T]) push(n *link[T], of *T) {
	n.of, n.prev, n.next = of, nil, l.head
	if l.head != nil {
		l.head.prev = n
	} else {
		l.tail = n
	}
	l.head = n
}

func (l *list[T]) remove(n *link[T]) {
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.head = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		l.tail = n.prev
	}
	n.prev, n.next = nil, nil
}

func (l *list[T]) front(n *link[T], of *T) {
	if l.head != n {
		l.remove(n)
		l.push(n, of)
	}
}
