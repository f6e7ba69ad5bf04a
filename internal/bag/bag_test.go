package bag

import (
	"slices"
	"testing"
)

type thing struct {
	name string
	at   int
}

// TestBag: adding, removing and iterating, and changes during an iteration.
func TestBag(t *testing.T) {
	var b Bag[*thing]
	things := map[string]*thing{}
	for _, n := range []string{"a", "b", "c", "d"} {
		things[n] = &thing{name: n}
		b.Add(things[n], &things[n].at)
	}
	names := func() (all []string) {
		for x := range b.All() {
			all = append(all, x.name)
		}
		return all
	}
	if !b.Remove(&things["b"].at) || b.Remove(&things["b"].at) {
		t.Error("b was in it, once")
	}
	if got := names(); !slices.Equal(got, []string{"a", "d", "c"}) || b.Len() != 3 {
		t.Errorf("%d: %q", b.Len(), got)
	}
	if other := (&thing{name: "x", at: 1}); b.Remove(&other.at) {
		t.Error("what was never in it was removed")
	}
	seen := 0
	b.Each(func(x *thing) {
		seen++
		b.Remove(&x.at)
		if x.name == "a" {
			b.Add(things["b"], &things["b"].at)
		}
	})
	if got := names(); seen != 3 || !slices.Equal(got, []string{"b"}) {
		t.Errorf("%d were seen; left are %q", seen, got)
	}
	for x := range b.All() {
		if x.name != "b" {
			t.Error(x.name)
		}
		break
	}
}
