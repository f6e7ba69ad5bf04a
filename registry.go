package weir

import (
	"cmp"
	"maps"
	"slices"
)

// registry holds what a loop has open of one kind. It lists it in the order in
// which it was added: the order of a map would let two runs of one seed end
// differently.
type registry[K comparable, V any] struct {
	entries map[K]registered[V]
	added   uint64
}

type registered[V any] struct {
	value V
	nth   uint64
}

func (r *registry[K, V]) add(k K, v V) {
	if r.entries == nil {
		r.entries = map[K]registered[V]{}
	}
	r.added++
	r.entries[k] = registered[V]{v, r.added}
}

func (r *registry[K, V]) get(k K) (V, bool) {
	e, here := r.entries[k]
	return e.value, here
}

func (r *registry[K, V]) remove(k K) { delete(r.entries, k) }
func (r *registry[K, V]) len() int   { return len(r.entries) }

// keys is a copy, so that what is listed may be removed meanwhile.
func (r *registry[K, V]) keys() []K {
	return slices.SortedFunc(maps.Keys(r.entries), func(a, b K) int {
		return cmp.Compare(r.entries[a].nth, r.entries[b].nth)
	})
}
