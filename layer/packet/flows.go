package packet

import (
	"net/netip"
	"time"

	"github.com/weir-io/weir"
)

// flowsMost is how many flows a layer remembers.
const flowsMost = 16384

// flows is what a layer remembers of a bounded number of flows. It keeps them in the order
// of their use.
type flows[T any] struct {
	most        int
	all         map[weir.PacketAddr]*flow[T]
	first, last *flow[T]       // the longest unused is first
	forgot      func(*flow[T]) // called before one is forgotten; nil: nothing is
}

type flow[T any] struct {
	peer       weir.PacketAddr
	used       time.Time
	prev, next *flow[T]
	data       T
}

func newFlows[T any](most int, forgot func(*flow[T])) flows[T] {
	return flows[T]{most: most, all: make(map[weir.PacketAddr]*flow[T]), forgot: forgot}
}

// plain returns the one form of an address: an IPv4 address is not written as IPv6.
func plain(a weir.PacketAddr) weir.PacketAddr {
	if ip := a.IP.Addr(); ip.Is4In6() {
		a.IP = netip.AddrPortFrom(ip.Unmap(), a.IP.Port())
	}
	return a
}

// find returns the flow of a peer, or nil. It counts as used at now.
func (t *flows[T]) find(peer weir.PacketAddr, now time.Time) *flow[T] {
	f := t.all[plain(peer)]
	if f != nil {
		f.used = now
		if f != t.last {
			t.unlink(f)
			t.link(f)
		}
	}
	return f
}

// add makes the flow of a peer that has none; the first makes room for it.
func (t *flows[T]) add(peer weir.PacketAddr, now time.Time) *flow[T] {
	for len(t.all) >= t.most {
		t.forget(t.first)
	}
	f := &flow[T]{peer: plain(peer), used: now}
	t.all[f.peer] = f
	t.link(f)
	return f
}

func (t *flows[T]) forget(f *flow[T]) {
	if t.forgot != nil {
		t.forgot(f)
	}
	t.unlink(f)
	delete(t.all, f.peer)
}

func (t *flows[T]) forgetAll() {
	for t.first != nil {
		t.forget(t.first)
	}
}

func (t *flows[T]) link(f *flow[T]) {
	f.prev, f.next = t.last, nil
	if t.last == nil {
		t.first = f
	} else {
		t.last.next = f
	}
	t.last = f
}

func (t *flows[T]) unlink(f *flow[T]) {
	if f.prev == nil {
		t.first = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		t.last = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.prev, f.next = nil, nil
}
