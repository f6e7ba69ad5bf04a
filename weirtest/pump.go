package weirtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
)

// Chop says how bytes on their way are split and, if several things could
// happen next, which of them does. A Chop has state: use each for one run.
type Chop struct {
	name string
	cut  func(n int) int // how many of n waiting bytes arrive; 1 to n
	pick func(n int) int // which of n possible events happens; 0 to n-1; nil: in turn
}

// String says what the Chop does, and with which seed.
func (c Chop) String() string { return c.name }

// Whole lets everything that waits arrive at once.
func Whole() Chop {
	return Chop{name: "whole", cut: func(n int) int { return n }}
}

// ByteByByte lets the bytes arrive one by one.
func ByteByByte() Chop {
	return Chop{name: "byte by byte", cut: func(int) int { return 1 }}
}

// Pieces lets sizes[0] bytes arrive, then sizes[1] and so on, and after the last
// size everything that waits. Sizes below 1 count as 1.
func Pieces(sizes ...int) Chop {
	return Chop{
		name: fmt.Sprintf("pieces %v", sizes),
		cut: func(n int) int {
			if len(sizes) == 0 {
				return n
			}
			k := min(max(sizes[0], 1), n)
			sizes = sizes[1:]
			return k
		},
	}
}

// Random splits anywhere, with short pieces more often than long ones, and
// picks the next event in any order. The same seed does the same.
func Random(seed uint64) Chop {
	r := rand.New(rand.NewPCG(seed, 0x77656972))
	return Chop{
		name: fmt.Sprintf("random, seed %d", seed),
		cut: func(n int) int {
			switch r.IntN(4) {
			case 0:
				return 1
			case 1:
				return 1 + r.IntN(min(n, 16))
			}
			return 1 + r.IntN(n)
		},
		pick: r.IntN,
	}
}

// Pump connects two protocols in memory, as a network would: what one writes
// arrives at the other in the pieces that the Chop makes of it, Close arrives as
// an end of stream after the data, and Abort (or a failed protocol) as a reset
// that overtakes it. Bytes for an end that has closed are dropped; a writer that
// has had the end of stream and continues to write is reset.
//
//	a ⇄ A ──── up to capacity bytes on the way ───▶ B ⇄ b
//	    ▲                                           │
//	    └───────────────────────────────────────────┘
//
// A Pump belongs to one goroutine.
type Pump struct {
	// A and B are the transports of the two ends.
	A, B *Recorder

	tb       testing.TB
	chop     Chop
	limit    int
	capacity int
	ends     [2]pumpEnd
	turn     int
}

// pumpEnd is one direction: what r has sent and the other end has not received yet.
type pumpEnd struct {
	r       *Recorder
	wire    []byte
	eof     bool // r's end follows the wire
	eofDone bool // and has arrived
	reset   bool // r's reset has arrived
}

// NewPump connects a and b and calls their ConnectionMade, a's first. Nothing
// else happens before Run or Step.
func NewPump(tb testing.TB, a, b weir.Protocol, chop Chop) *Pump {
	p := &Pump{
		A: NewRecorder(tb), B: NewRecorder(tb),
		tb: tb, chop: chop, limit: defaultLimit, capacity: 64 << 10,
	}
	p.A.SetAddrs(Addr("a"), Addr("b"))
	p.B.SetAddrs(Addr("b"), Addr("a"))
	for i, r := range []*Recorder{p.A, p.B} {
		e := &p.ends[i]
		e.r = r
		// The ends do not run by themselves: the Pump decides what is next.
		r.running = true
		r.send = func(b []byte) int {
			n := min(len(b), p.capacity-len(e.wire))
			e.wire = append(e.wire, b[:n]...)
			return n
		}
		r.free = func() bool { return len(e.wire) < p.capacity }
	}
	p.A.connect(a)
	p.B.connect(b)
	return p
}

// SetLimit sets how many events a Run may take; the default is about a million.
func (p *Pump) SetLimit(events int) { p.limit = events }

// SetCapacity sets how many bytes may be on their way in each direction; the
// default is 64 KiB.
func (p *Pump) SetCapacity(n int) { p.capacity = max(n, 1) }

// Run lets everything happen until nothing more can. Connections may still be
// open then. A Pump that never comes to rest fails the test (behaviour 93).
func (p *Pump) Run() {
	p.tb.Helper()
	for range p.limit {
		if !p.Step() {
			return
		}
	}
	p.tb.Fatalf("weirtest: the pump (%s) did not settle in %d events\nA, the last calls:\n%sB, the last calls:\n%s",
		p.chop, p.limit, p.A.tail(), p.B.tail())
}

// Finish runs, and fails the test if a connection is still open then. It
// returns the reasons of the loss that the two ends were given.
func (p *Pump) Finish() (a, b error) {
	p.tb.Helper()
	p.Run()
	for _, e := range p.ends {
		if !e.r.lost {
			p.tb.Fatalf("weirtest: the connection is still open at %s when nothing more happens (%s)\nA, the last calls:\n%sB, the last calls:\n%s",
				strings.ToUpper(e.r.local.String()), p.chop, p.A.tail(), p.B.tail())
		}
	}
	return p.A.reason, p.B.reason
}

// pumpEvent is something that can happen next: at an end, or from it to the
// other end.
type pumpEvent struct {
	from   int
	travel bool
}

// Step lets one thing happen; it returns false if nothing can.
func (p *Pump) Step() bool {
	var events [4]pumpEvent
	n := 0
	// In turn, so that neither end starves the other.
	for i := range p.ends {
		from := (i + p.turn) % 2
		if p.ends[from].r.next() != nothing {
			events[n] = pumpEvent{from: from}
			n++
		}
		if p.canTravel(from) {
			events[n] = pumpEvent{from: from, travel: true}
			n++
		}
	}
	if n == 0 {
		return false
	}
	k := 0
	if p.chop.pick != nil {
		k = p.chop.pick(n)
	}
	p.turn++
	e := events[k]
	if e.travel {
		p.travel(e.from)
	} else {
		p.happen(e.from)
	}
	return true
}

func (p *Pump) happen(i int) {
	e := &p.ends[i]
	e.r.happen(e.r.next())
	e.eof = e.eof || e.r.eofSent || e.r.lost && !e.r.hard
	if e.r.lost && e.r.hard {
		e.wire = nil
	}
}

func (p *Pump) canTravel(from int) bool {
	e, to := &p.ends[from], p.ends[1-from].r
	switch {
	case e.r.lost && e.r.hard:
		return !e.reset
	case len(e.wire) > 0:
		return to.over() || to.wants()
	case e.eof && !e.eofDone:
		return to.over() || to.wants()
	}
	return false
}

func (p *Pump) travel(from int) {
	e, to := &p.ends[from], p.ends[1-from].r
	switch {
	case e.r.lost && e.r.hard:
		e.reset = true
		if !to.lost {
			to.fail(syscall.ECONNRESET)
		}
	case len(e.wire) > 0 && to.over():
		e.wire = nil
		if to.lost && e.r.eofDone && !e.r.over() {
			e.r.fail(syscall.ECONNRESET)
		}
	case len(e.wire) > 0:
		n := p.chop.cut(len(e.wire))
		to.arrive(e.wire[:n])
		e.wire = e.wire[:copy(e.wire, e.wire[n:])]
	default:
		e.eofDone = true
		to.arriveEOF()
	}
}
