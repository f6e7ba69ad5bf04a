package layer

import (
	"fmt"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/peer"
)

// LimitConfig says how many connections there may be at once. 0 means no limit.
type LimitConfig struct {
	Total      int
	PerAddress int // from one address; connections without one count only towards the total
	// Share bounds an address by what is left of Total: it may have Share times
	// as many connections as there are free places. With 15, a single address
	// gets 15 of 16 places, two get 15 of 31 each, and there is always room for
	// an address that has few.
	Share int
	// PrefixV6 is how many bits of an IPv6 address identify one address; 0
	// means 64, since a host that has one address of a /64 can use them all.
	PrefixV6 int
	// Wait is how long a connection that a listener has accepted waits for one
	// of the Total places instead of being refused; Patience is how long a
	// connection waits that Share refuses. See weir.Waiting. 0 means not at
	// all.
	Wait, Patience time.Duration
}

// LimitError is the reason when a connection was refused because of a limit.
type LimitError struct {
	Limit int
	Addr  netip.Prefix // who has that many; not valid if it is all addresses together
	// Free is how many places are left, if the address was refused by Share,
	// which bounds it to a multiple of them.
	Free int
}

func (e *LimitError) Error() string {
	switch {
	case e.Free > 0:
		return fmt.Sprintf("refused: %v has %d connections, and the last %d places are kept for others", e.Addr, e.Limit, e.Free)
	case e.Addr.IsValid():
		return fmt.Sprintf("refused: %v has %d connections, which is the limit", e.Addr, e.Limit)
	}
	return fmt.Sprintf("refused: there are %d connections, which is the limit", e.Limit)
}

// Limiter counts connections, on one loop or several. Its Layer refuses
// connections beyond a limit at the layer's place in the stack; as a
// weir.Admission it counts what listeners accept, and refuses a connection
// before anything is made for it.
//
// No method takes a lock: loops that count at once do not wait for each other. Total and
// PerAddress are never exceeded; what Share leaves may be one connection off for each loop
// that counts at the same moment.
type Limiter struct {
	c     LimitConfig
	total atomic.Int64
	each  *addressTable // nil: addresses are not counted
	room  atomic.Pointer[roomCall]
}

// roomCall is a function to call when a connection leaves, after those in next.
type roomCall struct {
	f    func()
	next *roomCall
}

var (
	_ weir.Admission = (*Limiter)(nil)
	_ weir.Waiting   = (*Limiter)(nil)
)

// NewLimiter makes a Limiter that has not counted any connection yet.
func NewLimiter(c LimitConfig) *Limiter {
	if c.PrefixV6 <= 0 || c.PrefixV6 > 128 {
		c.PrefixV6 = peer.PrefixV6
	}
	l := &Limiter{c: c}
	if c.PerAddress > 0 || c.Share > 0 {
		l.each = newAddressTable(c.Total)
	}
	return l
}

// Limit returns a layer that refuses connections beyond a limit, before
// anything is made for them. Above.Failed is called for each with a
// *LimitError; the peer sees the connection closed.
func Limit(c LimitConfig) Layer { return NewLimiter(c).Layer }

// Count returns how many connections there are. Any goroutine may call it.
func (l *Limiter) Count() int { return int(l.total.Load()) }

// Layer is a Layer that counts with l.
func (l *Limiter) Layer(a Above) Above {
	return Above{Failed: a.Failed, Make: func(t weir.Transport) weir.Protocol {
		key := peer.Of(t.RemoteAddr(), l.c.PrefixV6)
		if err := l.enter(key); err != nil {
			if a.Failed != nil {
				a.Failed(&weir.AttemptError{Addr: t.RemoteAddr(), Stage: weir.StageConnect, Err: &Error{Layer: "limit", Err: err}})
			}
			return nil
		}
		c := &counted{limiter: l, key: key}
		return c.Init(c, "limit", a)
	}}
}

// Admit implements weir.Admission; its errors are *LimitError. Any goroutine may
// call it.
func (l *Limiter) Admit(addr netip.Addr) error { return l.enter(peer.Prefix(addr, l.c.PrefixV6)) }

// Left frees the place of a connection from addr. Any goroutine may call it.
func (l *Limiter) Left(addr netip.Addr) { l.leave(peer.Prefix(addr, l.c.PrefixV6)) }

// Patience is how long a connection that Admit refused with err may wait for a place; 0
// if it may not wait. Any goroutine may call it.
func (l *Limiter) Patience(err error) time.Duration {
	e, ok := err.(*LimitError) //nolint:errorlint // as Admit returns it
	switch {
	case !ok:
		return 0
	case e.Free > 0:
		return l.c.Patience
	case !e.Addr.IsValid():
		return l.c.Wait
	}
	return 0
}

// Room implements weir.Waiting. Any goroutine may call it.
func (l *Limiter) Room() int {
	if l.c.Total <= 0 {
		return math.MaxInt
	}
	return max(l.c.Total-l.Count(), 0)
}

// OnRoom implements weir.Waiting. Any goroutine may call it.
func (l *Limiter) OnRoom(f func()) {
	c := &roomCall{f: f}
	for {
		c.next = l.room.Load()
		if l.room.CompareAndSwap(c.next, c) {
			return
		}
	}
}

// counted is a connection that is counted.
type counted struct {
	Base
	limiter *Limiter
	key     netip.Prefix
	left    bool
}

var _ weir.Protocol = (*counted)(nil)

func (c *counted) ConnectionLost(err error) {
	if !c.left {
		c.left = true
		c.limiter.leave(c.key)
	}
	c.Base.ConnectionLost(err)
}

// enter takes a place of the address first, so that one that is refused there takes none of
// the others', not even for a moment.
func (l *Limiter) enter(key netip.Prefix) error {
	most := int64(l.c.Total)
	if most > 0 && l.total.Load() >= most {
		return &LimitError{Limit: l.c.Total}
	}
	var own *atomic.Int64
	if l.counts(key) {
		var err error
		if own, err = l.enterAddress(key); err != nil {
			return err
		}
	}
	for {
		n := l.total.Load()
		if most > 0 && n >= most {
			if own != nil {
				own.Add(-1)
			}
			return &LimitError{Limit: l.c.Total}
		}
		if l.total.CompareAndSwap(n, n+1) {
			return nil
		}
	}
}

// enterAddress counts a connection of an address, and returns its counter.
func (l *Limiter) enterAddress(key netip.Prefix) (*atomic.Int64, error) {
	for {
		own := l.each.of(key)
		has := own.Load()
		if has == removed {
			continue
		}
		if l.c.PerAddress > 0 && has >= int64(l.c.PerAddress) {
			return nil, &LimitError{Limit: l.c.PerAddress, Addr: key}
		}
		if free := int64(l.c.Total) - l.total.Load(); l.c.Share > 0 && l.c.Total > 0 && has > 0 && has >= int64(l.c.Share)*free {
			if free <= 0 {
				return nil, &LimitError{Limit: l.c.Total}
			}
			return nil, &LimitError{Limit: int(has), Addr: key, Free: int(free)}
		}
		if own.CompareAndSwap(has, has+1) {
			return own, nil
		}
	}
}

func (l *Limiter) leave(key netip.Prefix) {
	if l.counts(key) {
		if own := l.each.known(key); own != nil { // nil: it was never admitted
			own.Add(-1)
		}
	}
	l.total.Add(-1)
	if l.room.Load() == nil {
		return
	}
	var all []func()
	for c := l.room.Swap(nil); c != nil; c = c.next {
		all = append(all, c.f)
	}
	for i := len(all) - 1; i >= 0; i-- {
		all[i]()
	}
}

// counts reports whether the connections of an address are counted separately.
func (l *Limiter) counts(key netip.Prefix) bool {
	return l.each != nil && key.IsValid()
}
