// Package bag provides a set for the loop's open things of one kind.
package bag

import "iter"

// Bag holds things of one kind. Adding and removing are O(1), and its order depends on
// nothing but the calls, as the simulator requires. The zero value is empty.
type Bag[T any] struct{ items []item[T] }

type item[T any] struct {
	x  T
	at *int
}

// Add puts x in, which must not be in it already. Its position is kept in at, a field
// of x that nothing else uses.
func (b *Bag[T]) Add(x T, at *int) {
	*at = len(b.items)
	b.items = append(b.items, item[T]{x, at})
}

// Remove takes out the item that was added with at, and reports whether it was in the bag.
func (b *Bag[T]) Remove(at *int) bool {
	i, last := *at, len(b.items)-1
	if i < 0 || i > last || b.items[i].at != at {
		return false
	}
	b.items[i] = b.items[last]
	*b.items[i].at = i
	*at = -1
	b.items[last] = item[T]{}
	b.items = b.items[:last]
	return true
}

// Each calls f for every item that was in the bag when it began; f may add and remove.
func (b *Bag[T]) Each(f func(T)) {
	for _, it := range append([]item[T](nil), b.items...) {
		f(it.x)
	}
}

// All iterates over the items; the bag must not change meanwhile.
func (b *Bag[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		for i := range b.items {
			if !yield(b.items[i].x) {
				return
			}
		}
	}
}

// Len is the number of items.
func (b *Bag[T]) Len() int { return len(b.items) }
