package weir

// bag holds the loop's open things of one kind. Adding and removing are O(1),
// and its order depends on nothing but the calls, as the simulator needs it.
type bag[T interface{ place() *int }] struct{ items []T }

func (b *bag[T]) add(x T) {
	*x.place() = len(b.items)
	b.items = append(b.items, x)
}

// remove takes x out and reports whether it was in.
func (b *bag[T]) remove(x T) bool {
	i, last := *x.place(), len(b.items)-1
	if i < 0 || i > last || b.items[i].place() != x.place() {
		return false
	}
	b.items[i] = b.items[last]
	*b.items[i].place() = i
	*x.place() = -1
	var zero T
	b.items[last] = zero
	b.items = b.items[:last]
	return true
}

// each calls f for what was in the bag when it began; f may add and remove.
func (b *bag[T]) each(f func(T)) {
	for _, x := range append([]T(nil), b.items...) {
		f(x)
	}
}

func (b *bag[T]) len() int { return len(b.items) }
