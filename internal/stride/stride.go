// Package stride deals turns in proportion to shares: stride scheduling (Waldspurger and
// Weihl, Stride Scheduling: Deterministic Proportional-Share Resource Management, 1995).
//
// Each node has a pass, which advances by its time over its share when it runs, and
// whoever has the least pass is next. Nodes are inside each other: the shares of those
// inside a node divide what it gets. A node's own entries count as one more inside it,
// with a share of 1.
//
//	              root
//	      ┌────────┴────────┐          now: the pass of what ran last inside;
//	 A pass 20         B pass 35       whoever comes back starts there
//	  ┌───┴────┐            │
//	own 7   C pass 9     entries
//	entries entries
//
// The package counts a node's entries and does not see them. It reads no clock. Everything
// belongs to one goroutine.
package stride

const (
	// Most is the largest share.
	Most = 10_000
	// unit is how far a share of 1 advances for a unit of cost. All shares up to 10 divide
	// it, others nearly do.
	unit = 2520 << 10
	// costMost bounds a cost, so that no sum overflows.
	costMost = 1 << 36
	passMost = 1 << 62
)

// Node is one that gets turns. Init makes it ready for use.
type Node[T any] struct {
	Owner T // what the node serves; the package never looks at it

	parent *Node[T] // nil: it is a root
	share  int
	stride uint64 // unit over share
	pass   uint64 // among those beside it
	era    uint64 // the parent's, to which pass belongs
	own    uint64 // the pass of its own entries, among those inside it
	now    uint64 // the least pass inside it, when something there ran last
	eras   uint64 // how often the passes inside it were set back

	heap    []*Node[T] // those inside it that are to be looked at, the least pass first
	slot    int        // 1 more than its place in the heap around it; 0: it is not there
	entries int        // its own that wait
	dry     uint64     // when it last ran out of them, see Take
}

// Init makes n a node inside parent, or a root if parent is nil, with a share of 1.
func (n *Node[T]) Init(owner T, parent *Node[T]) {
	n.Owner, n.parent, n.share, n.stride = owner, parent, 1, unit
}

// Share is the node's share.
func (n *Node[T]) Share() int { return n.share }

// SetShare changes it, to 1 at least and Most at most.
func (n *Node[T]) SetShare(share int) {
	n.share = min(max(share, 1), Most)
	n.stride = unit / uint64(n.share)
}

// Entries is how many entries the node has.
func (n *Node[T]) Entries() int { return n.entries }

// Add counts another entry of the node.
func (n *Node[T]) Add() {
	if n.entries++; n.entries == 1 {
		n.own = max(n.own, n.now) // what it has not used while it had none is lost
	}
	for u := n; u.parent != nil && u.slot == 0; u = u.parent {
		p := u.parent
		if u.era != p.eras {
			u.era, u.pass = p.eras, 0
		}
		u.pass = max(u.pass, p.now)
		p.lift(u)
	}
}

// Take counts one entry less. at is when: the number of a deal, which never goes back.
func (n *Node[T]) Take(at uint64) {
	if n.entries--; n.entries == 0 {
		n.dry = at
	}
}

// Drop takes the node out. Its entries no longer count.
func (n *Node[T]) Drop() {
	n.entries, n.dry = 0, 0
	if n.slot > 0 {
		n.parent.drop(n)
	}
}

// Pick finds the node whose turn it is, n or one inside it. A node that ran out of entries
// at since or later keeps its turn: next is then nil and look true, and nothing should run
// before the caller has looked whether there is more for it. If nothing is left, both
// are nil and false. since is at least 1.
func (n *Node[T]) Pick(since uint64) (next *Node[T], look bool) {
	for {
		var c *Node[T]
		if len(n.heap) > 0 {
			c = n.heap[0]
		}
		if (n.entries > 0 || n.dry >= since) && (c == nil || n.own <= c.pass) {
			n.now = max(n.now, n.own)
			if n.entries > 0 {
				return n, false
			}
			return nil, true
		}
		if c == nil {
			return nil, false
		}
		next, look = c.Pick(since)
		if next != nil || look {
			n.now = max(n.now, c.pass)
			return next, look
		}
		n.drop(c) // nothing is left in it
	}
}

// Charge counts what an entry of the node has cost, at least 1.
func (n *Node[T]) Charge(cost int64) {
	d := uint64(min(max(cost, 1), costMost))
	n.own += d * unit
	for u := n; u != nil; u = u.parent {
		if u.now > passMost {
			u.setBack()
		}
		if p := u.parent; p != nil {
			u.pass += d * u.stride
			if u.slot > 0 {
				p.sink(u.slot - 1)
			}
		}
	}
}

// setBack takes the same off every pass inside the node, so that none overflows. Those
// that are not in the heap begin again, see Add.
func (n *Node[T]) setBack() {
	by := n.now
	n.now = 0
	n.eras++
	n.own -= min(by, n.own)
	for _, c := range n.heap {
		c.era = n.eras
		c.pass -= min(by, c.pass)
	}
}

// The heap. Equal passes come in an order that depends on nothing but the calls.

func (n *Node[T]) lift(c *Node[T]) {
	n.heap = append(n.heap, c)
	c.slot = len(n.heap)
	n.rise(c.slot - 1)
}

// rise moves the i-th up to where it belongs, and returns where that is.
func (n *Node[T]) rise(i int) int {
	for i > 0 && n.heap[i].pass < n.heap[(i-1)/2].pass {
		n.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	return i
}

// sink moves the i-th down to where it belongs.
func (n *Node[T]) sink(i int) {
	for {
		least := i
		for _, c := range [...]int{2*i + 1, 2*i + 2} {
			if c < len(n.heap) && n.heap[c].pass < n.heap[least].pass {
				least = c
			}
		}
		if least == i {
			return
		}
		n.swap(i, least)
		i = least
	}
}

func (n *Node[T]) drop(c *Node[T]) {
	i, last := c.slot-1, len(n.heap)-1
	c.slot = 0
	x := n.heap[last]
	n.heap[last] = nil
	n.heap = n.heap[:last]
	if i != last {
		n.heap[i], x.slot = x, i+1
		n.sink(n.rise(i))
	}
}

func (n *Node[T]) swap(i, j int) {
	n.heap[i], n.heap[j] = n.heap[j], n.heap[i]
	n.heap[i].slot, n.heap[j].slot = i+1, j+1
}
