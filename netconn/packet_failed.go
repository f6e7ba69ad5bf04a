package netconn

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/inner"
	"github.com/weir-io/weir/internal/zone"
)

// What a PacketConn remembers of the ways to addresses.
const (
	pathCount = 256 // addresses; one more takes the place of the oldest
	// pathTime is how long a length counts as too long. The system, which remembers for
	// longer (ten minutes on Linux), is then asked again with one datagram.
	pathTime = time.Minute
)

// paths holds the lengths that did not pass on the way to addresses. Its times are the
// process's, as those of deadlines are.
type paths struct {
	some atomic.Bool // set once there is an entry: the others need no lock
	mu   sync.Mutex
	all  map[netip.Addr]path
}

type path struct {
	mtu   int // that a router told; 0: none did
	most  int // bytes of a datagram's data that may pass
	until time.Time
}

func pathKey(to netip.Addr) netip.Addr { return zone.Named(to.Unmap()) }

// learn keeps what err says of the way to an address.
func (ps *paths) learn(err *weir.MTUError, to netip.Addr) {
	if err.Most <= 0 || !to.IsValid() {
		return
	}
	key, now := pathKey(to), time.Now()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p, known := ps.all[key]
	if known && now.Before(p.until) {
		p.most = min(p.most, err.Most)
	} else {
		p = path{most: err.Most}
	}
	if err.MTU > 0 {
		p.mtu = err.MTU
	}
	p.until = now.Add(pathTime)
	if !known && len(ps.all) >= pathCount {
		ps.forget()
	}
	if ps.all == nil {
		ps.all = map[netip.Addr]path{}
	}
	ps.all[key] = p
	ps.some.Store(true)
}

// forget removes the oldest entry.
func (ps *paths) forget() {
	var oldest netip.Addr
	for a, p := range ps.all {
		if !oldest.IsValid() || p.until.Before(ps.all[oldest].until) {
			oldest = a
		}
	}
	delete(ps.all, oldest)
}

// fits returns an error if a datagram of n bytes is known to be too long.
func (ps *paths) fits(n int, to netip.Addr) error {
	if !ps.some.Load() {
		return nil
	}
	key := pathKey(to)
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p, ok := ps.all[key]
	switch {
	case !ok || n <= p.most:
		return nil
	case !time.Now().Before(p.until):
		delete(ps.all, key)
		return nil
	}
	return &weir.MTUError{MTU: p.mtu, Most: p.most}
}

// refusal is what the peer's host said last, until a caller has been told.
type refusal struct{ err atomic.Pointer[error] }

func (r *refusal) take() error {
	if r.err.Load() == nil {
		return nil
	}
	if err := r.err.Swap(nil); err != nil {
		return *err
	}
	return nil
}

// isRefusal reports whether err is one that package net's connected sockets tell: the host's
// own answer, and not that it cannot be reached for now.
func isRefusal(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOPROTOOPT) || errors.Is(err, syscall.ENOTCONN)
}

// PacketFailed implements weir.PacketFailer.
func (c *packetSide) PacketFailed(err error, to weir.PacketAddr) { c.failed(err, to) }

// failed keeps what callers are to be told of a datagram that came to nothing.
func (c *packetSide) failed(err error, to weir.PacketAddr) {
	if long, ok := errors.AsType[*weir.MTUError](err); ok {
		c.paths.learn(long, to.IP.Addr())
		return
	}
	if !(*PacketConn)(c).connected() || !isRefusal(err) {
		return
	}
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	in.refused.err.Store(&err)
	if in.waiters > 0 {
		in.wake()
		inner.Of(c.loop).Readied()
	}
}
