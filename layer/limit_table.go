package layer

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

// addressTable counts connections by address. Any number of goroutines use it at once, and
// none waits for another.
//
//	bucket ──▶ node ──▶ node ──▶ …     a node never changes; a new one comes first
//	             │        │
//	           counter  counter        1 and more, 0 (kept for the next one), or removed
//
// A counter at 0 stays, because the next connection is likely to come from the same address.
// Once most of a bucket's counters are at 0, a bucket without them replaces it.
type addressTable struct {
	seed    maphash.Seed
	buckets []atomic.Pointer[addressNode]
}

type addressNode struct {
	key     netip.Prefix
	counter *atomic.Int64
	next    *addressNode
}

const (
	removed        = -1   // a counter that is being removed: it counts no more
	bucketsLeast   = 64   // of a table
	bucketsMost    = 4096 // 32 KiB
	unusedInBucket = 8    // counters at 0 that a bucket keeps in any case
)

// newAddressTable makes a table for about n addresses; 0 if no one knows.
func newAddressTable(n int) *addressTable {
	size := bucketsLeast
	for size < bucketsMost && (n == 0 || size < n) {
		size *= 2
	}
	return &addressTable{seed: maphash.MakeSeed(), buckets: make([]atomic.Pointer[addressNode], size)}
}

func (t *addressTable) bucket(key netip.Prefix) *atomic.Pointer[addressNode] {
	return &t.buckets[maphash.Comparable(t.seed, key)&uint64(len(t.buckets)-1)]
}

// find returns the counter of an address in a bucket, nil if there is none.
func (n *addressNode) find(key netip.Prefix) *atomic.Int64 {
	for ; n != nil; n = n.next {
		if n.key == key && n.counter.Load() != removed {
			return n.counter
		}
	}
	return nil
}

// of returns the counter of an address. By the time the caller uses it, it may have been
// removed; the caller then asks again.
func (t *addressTable) of(key netip.Prefix) *atomic.Int64 {
	b := t.bucket(key)
	for {
		head := b.Load()
		if c := head.find(key); c != nil {
			return c
		}
		n := &addressNode{key: key, counter: new(atomic.Int64), next: head.used()}
		if b.CompareAndSwap(head, n) {
			return n.counter
		}
	}
}

// known returns the counter of an address that has connections.
func (t *addressTable) known(key netip.Prefix) *atomic.Int64 { return t.bucket(key).Load().find(key) }

// used returns a bucket's nodes without those that count nothing, if these are the most.
func (n *addressNode) used() *addressNode {
	all, unused := 0, 0
	for m := n; m != nil; m = m.next {
		all++
		if m.counter.Load() <= 0 {
			unused++
		}
	}
	if unused < unusedInBucket || unused <= all/2 {
		return n
	}
	var kept *addressNode
	for m := n; m != nil; m = m.next {
		if m.counter.Load() != removed && !m.counter.CompareAndSwap(0, removed) {
			kept = &addressNode{key: m.key, counter: m.counter, next: kept}
		}
	}
	return kept
}
