package layer

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
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
type Limiter struct {
	c     LimitConfig
	mu    sync.Mutex
	total int
	each  map[netip.Prefix]int
	room  []func() // called when a connection leaves
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
	return &Limiter{c: c, each: make(map[netip.Prefix]int)}
}

// Limit returns a layer that refuses connections beyond a limit, before
// anything is made for them. Above.Failed is called for each with a
// *LimitError; the peer sees the connection closed.
func Limit(c LimitConfig) Layer { return NewLimiter(c).Layer }

// Count returns how many connections there are. Any goroutine may call it.
func (l *Limiter) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

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
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room = append(l.room, f)
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

func (l *Limiter) enter(key netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c.Total > 0 && l.total >= l.c.Total {
		return &LimitError{Limit: l.c.Total}
	}
	if l.counts(key) {
		has := l.each[key]
		if l.c.PerAddress > 0 && has >= l.c.PerAddress {
			return &LimitError{Limit: l.c.PerAddress, Addr: key}
		}
		if free := l.c.Total - l.total; l.c.Share > 0 && l.c.Total > 0 && has > 0 && has >= l.c.Share*free {
			return &LimitError{Limit: has, Addr: key, Free: free}
		}
		l.each[key]++
	}
	l.total++
	return nil
}

func (l *Limiter) leave(key netip.Prefix) {
	l.mu.Lock()
	l.total--
	if l.counts(key) {
		if l.each[key]--; l.each[key] == 0 {
			delete(l.each, key)
		}
	}
	room := l.room
	l.room = nil
	l.mu.Unlock()
	for _, f := range room {
		f()
	}
}

// counts reports whether the connections of an address are counted separately.
func (l *Limiter) counts(key netip.Prefix) bool {
	return key.IsValid() && (l.c.PerAddress > 0 || l.c.Share > 0)
}
