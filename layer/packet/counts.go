package packet

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// Counts says what layers did with datagrams. Any goroutine may read it; several layers
// may share one. Its zero value is ready.
type Counts struct {
	Seen       atomic.Int64 // came to the layer, either way
	Lost       atomic.Int64 // by chance
	Duplicated atomic.Int64
	Reordered  atomic.Int64 // held until the next one of its flow had passed
	Corrupted  atomic.Int64
	Swallowed  atomic.Int64 // by a black hole
	Full       atomic.Int64 // dropped: the queue had no room, or the rate no tokens
	Refused    atomic.Int64 // dropped for a limit or a rule
}

// String says what happened, as "of 40 datagrams 2 lost, 1 duplicated".
func (c *Counts) String() string {
	var what []string
	for _, x := range []struct {
		n    int64
		word string
	}{
		{c.Lost.Load(), "lost"},
		{c.Duplicated.Load(), "duplicated"},
		{c.Reordered.Load(), "reordered"},
		{c.Corrupted.Load(), "corrupted"},
		{c.Swallowed.Load(), "swallowed"},
		{c.Full.Load(), "dropped for lack of room"},
		{c.Refused.Load(), "refused"},
	} {
		if x.n > 0 {
			what = append(what, fmt.Sprintf("%d %s", x.n, x.word))
		}
	}
	if what == nil {
		what = []string{"all passed"}
	}
	return fmt.Sprintf("of %d datagrams %s", c.Seen.Load(), strings.Join(what, ", "))
}
