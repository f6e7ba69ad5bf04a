package layer

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/weir-io/weir"
)

// LimitConfig is how many connections there may be at once. 0 is no limit.
type LimitConfig struct {
	Total      int
	PerAddress int // from one address; connections that have none are counted in total only
	// PrefixV6 is how many bits of an IPv6 address are one address: 64 without it,
	// for whoever has one has them all.
	PrefixV6 int
}

// LimitError is the reason of a connection that was refused for a limit.
type LimitError struct {
	Limit int
	Addr  netip.Prefix // what has so many; not valid where that is all together
}

func (e *LimitError) Error() string {
	if e.Addr.IsValid() {
		return fmt.Sprintf("refused: %v has %d connections, which is the limit", e.Addr, e.Limit)
	}
	return fmt.Sprintf("refused: there are %d connections, which is the limit", e.Limit)
}

// Limiter counts connections, of one loop or of several, and of whatever Layers
// it made.
type Limiter struct {
	c     LimitConfig
	mu    sync.Mutex
	total int
	each  map[netip.Prefix]int
}

// NewLimiter makes a Limiter that has counted nothing.
func NewLimiter(c LimitConfig) *Limiter {
	if c.PrefixV6 <= 0 || c.PrefixV6 > 128 {
		c.PrefixV6 = 64
	}
	return &Limiter{c: c, each: make(map[netip.Prefix]int)}
}

// Limit is the layer that refuses connections beyond a limit, before anything is
// made for them. Above.Failed hears of each with a *LimitError; the peer sees
// the connection closed.
func Limit(c LimitConfig) Layer { return NewLimiter(c).Layer }

// Count is how many connections there are. Any goroutine may ask.
func (l *Limiter) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Layer is a Layer that counts with l.
func (l *Limiter) Layer(a Above) Above {
	return Above{Failed: a.Failed, Make: func(t weir.Transport) weir.Protocol {
		key := l.key(t.RemoteAddr())
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

// counted is a connection that counts.
type counted struct {
	Base
	limiter *Limiter
	key     netip.Prefix
	left    bool
}

// ConnectionLost implements weir.Protocol.
func (c *counted) ConnectionLost(err error) {
	if !c.left {
		c.left = true
		c.limiter.leave(c.key)
	}
	c.Base.ConnectionLost(err)
}

// key is what an address counts for; not valid where there is none.
func (l *Limiter) key(a net.Addr) netip.Prefix {
	ap, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.Prefix{}
	}
	addr := ap.AddrPort().Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = l.c.PrefixV6
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (l *Limiter) enter(key netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c.Total > 0 && l.total >= l.c.Total {
		return &LimitError{Limit: l.c.Total}
	}
	if key.IsValid() && l.c.PerAddress > 0 {
		if l.each[key] >= l.c.PerAddress {
			return &LimitError{Limit: l.c.PerAddress, Addr: key}
		}
		l.each[key]++
	}
	l.total++
	return nil
}

func (l *Limiter) leave(key netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if key.IsValid() && l.c.PerAddress > 0 {
		if l.each[key]--; l.each[key] == 0 {
			delete(l.each, key)
		}
	}
}
