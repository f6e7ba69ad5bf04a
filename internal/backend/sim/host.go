package sim

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// ErrCrashed is what the backends of a crashed host answer.
var ErrCrashed = errors.New("sim: the host has crashed")

// Host is a machine of the world with one program on it: addresses, ports,
// names of UNIX sockets and handles of its own, and any number of backends. Its
// methods belong to the world's goroutine.
type Host struct {
	// OnCrash is called when a drawn crash of the host ends, to start its
	// program again. A host without it is never drawn to crash.
	OnCrash func(*Host)

	w     *World
	name  string
	index int
	addrs []netip.Addr
	down  bool

	handles  []*socket
	free     []uint64 // a bit for each handle that is free
	open     int
	limit    int
	adrift   map[int]*socket // descriptors that no backend has adopted; they count as open
	nextFD   int
	backends []*Backend
	first    *socket // of all that live
	pending  int     // events under way
	shortage int64   // no handles are to be had until then
	narrow   []bool  // hosts, by index, to which longer packets than Faults.MTU are known not to pass

	ports    map[uint16][]*socket
	pairs    map[pairKey]struct{}
	names    map[string]*socket // UNIX sockets by path
	nextPort uint16
	unnamed  int
}

// pairKey are the two addresses of a connection.
type pairKey struct{ local, remote netip.AddrPort }

const (
	firstHandle = 3 // 0 to 2 are the program's standard ones
	firstPort   = 32768
	lastPort    = 60999
)

// Host makes a host. Without addresses it gets one of each family. Names and
// addresses are taken once only: a second host of the same name is the first.
// An address that another host has, or that is a loopback address, is left out.
func (w *World) Host(name string, addrs ...netip.Addr) *Host {
	for _, h := range w.hosts {
		if h.name == name {
			return h
		}
	}
	h := &Host{
		w: w, name: name, index: len(w.hosts), limit: w.cfg.Handles,
		ports: map[uint16][]*socket{}, pairs: map[pairKey]struct{}{}, names: map[string]*socket{},
		nextPort: firstPort + uint16(w.random[forPorts].below(lastPort-firstPort+1)),
	}
	if h.limit == 0 {
		h.limit = defaultHandles
	}
	if len(addrs) == 0 {
		n := uint32(h.index + 1)
		var v4 [4]byte
		binary.BigEndian.PutUint32(v4[:], 10<<24|n)
		v6 := [16]byte{0: 0xfd, 1: 0x77}
		binary.BigEndian.PutUint32(v6[12:], n)
		addrs = []netip.Addr{netip.AddrFrom4(v4), netip.AddrFrom16(v6)}
	}
	for _, a := range addrs {
		a = a.Unmap()
		if _, taken := w.byAddr[a.WithZone("")]; !taken && !a.IsLoopback() && !a.IsUnspecified() {
			w.byAddr[a.WithZone("")] = h
			h.addrs = append(h.addrs, a)
		}
	}
	w.hosts = append(w.hosts, h)
	return h
}

// Lookup returns the addresses of the host of that name; none if there is no
// such host.
func (w *World) Lookup(name string) []netip.Addr {
	for _, h := range w.hosts {
		if h.name == name {
			return h.Addrs()
		}
	}
	return nil
}

// Name is what the host was made with.
func (h *Host) Name() string { return h.name }

// Addrs returns the host's addresses, but not those of its loopback.
func (h *Host) Addrs() []netip.Addr { return slices.Clone(h.addrs) }

// World is the world the host belongs to.
func (h *Host) World() *World { return h.w }

// SetHandles limits how many handles may be open at once; past it there is
// EMFILE.
func (h *Host) SetHandles(n int) { h.limit = n }

// give makes s a handle of b, with the lowest free number.
func (h *Host) give(s *socket, b *Backend) {
	n := -1
	for i, word := range h.free {
		if word != 0 {
			n = i*64 + bits.TrailingZeros64(word)
			h.free[i] &^= 1 << (n % 64)
			break
		}
	}
	if n < 0 {
		n = len(h.handles)
		if n == 0 {
			n = firstHandle
		}
		h.handles = append(h.handles, make([]*socket, n+1-len(h.handles))...)
	}
	h.handles[n] = s
	s.h = backend.Handle(n)
	h.open++
	s.be = b
}

// release frees the number of s.
func (h *Host) release(s *socket) {
	n := int(s.h)
	h.handles[n] = nil
	for len(h.free)*64 <= n {
		h.free = append(h.free, 0)
	}
	h.free[n/64] |= 1 << (n % 64)
	h.open--
	s.h, s.be = backend.None, nil
}

// scarce reports whether the host has no handles for now.
func (h *Host) scarce() bool { return h.w.now < h.shortage }

// owns reports whether a is an address of the host.
func (h *Host) owns(a netip.Addr) bool {
	return a.IsLoopback() || h.w.byAddr[a.WithZone("")] == h
}

// source returns the address from which the host talks to a.
func (h *Host) source(to netip.Addr) (netip.Addr, bool) {
	if h.owns(to) {
		return to, true
	}
	for _, a := range h.addrs {
		if a.Is4() == to.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// overlap reports whether two bound sockets of one port want the same packets.
func overlap(a, b *socket) bool {
	x, y := a.local.IP.Addr().Unmap(), b.local.IP.Addr().Unmap()
	switch {
	case a.v6 == b.v6:
		return x == y || x.IsUnspecified() || y.IsUnspecified()
	case a.v6:
		return a.dual && x.IsUnspecified() || x == y
	default:
		return b.dual && y.IsUnspecified() || x == y
	}
}

// bind gives s the port of its local address, or picks one if that is 0.
func (h *Host) bind(s *socket, listens bool) syscall.Errno {
	port := s.local.IP.Port()
	if port != 0 {
		return h.bindTo(s, port, listens)
	}
	for range lastPort - firstPort + 1 {
		if p := h.port(); len(h.ports[p]) == 0 {
			return h.bindTo(s, p, listens)
		}
	}
	return syscall.EADDRINUSE
}

func (h *Host) port() uint16 {
	p := h.nextPort
	if h.nextPort++; h.nextPort > lastPort {
		h.nextPort = firstPort
	}
	return p
}

func (h *Host) bindTo(s *socket, port uint16, listens bool) syscall.Errno {
	for _, o := range h.ports[port] {
		if (o.kind == udp) != (s.kind == udp) {
			continue
		}
		// Listeners are made with SO_REUSEADDR: old connections do not count.
		if overlap(s, o) && !(s.reuse && o.reuse) && !(listens && o.listener == nil && o.state == open) {
			return syscall.EADDRINUSE
		}
	}
	s.local.IP = netip.AddrPortFrom(s.local.IP.Addr(), port)
	h.ports[port] = append(h.ports[port], s)
	s.bound = true
	return 0
}

func (h *Host) unbind(s *socket) {
	if !s.bound {
		return
	}
	s.bound = false
	port := s.local.IP.Port()
	all := h.ports[port]
	if i := slices.Index(all, s); i >= 0 {
		all = slices.Delete(all, i, i+1)
	}
	if len(all) == 0 {
		delete(h.ports, port)
	} else {
		h.ports[port] = all
	}
}

// pair enters a connection from s's local address, whose port it picks if it
// is 0.
func (h *Host) pair(s *socket) syscall.Errno {
	local, remote := s.local.IP, s.remote.IP
	if local.Port() != 0 {
		return h.enter(s, pairKey{local, remote})
	}
	if p := remote.Port(); h.w.random[forSelf].chance(h.w.faults.SelfConnect) && h.owns(remote.Addr()) && len(h.ports[p]) == 0 &&
		h.enter(s, pairKey{remote, remote}) == 0 {
		s.local.IP = remote
		return 0
	}
	for range lastPort - firstPort + 1 {
		p := h.port()
		if len(h.ports[p]) > 0 {
			continue
		}
		if h.enter(s, pairKey{netip.AddrPortFrom(local.Addr(), p), remote}) == 0 {
			s.local.IP = netip.AddrPortFrom(local.Addr(), p)
			return 0
		}
	}
	return syscall.EADDRNOTAVAIL
}

func (h *Host) enter(s *socket, k pairKey) syscall.Errno {
	if _, taken := h.pairs[k]; taken {
		return syscall.EADDRNOTAVAIL
	}
	h.pairs[k] = struct{}{}
	s.paired = true
	return 0
}

func (h *Host) unpair(s *socket) {
	if s.paired {
		s.paired = false
		delete(h.pairs, pairKey{s.local.IP, s.remote.IP})
	}
}

// find returns the listener for a destination.
func (h *Host) find(to netip.AddrPort) *socket {
	addr := to.Addr().Unmap().WithZone("")
	var best []*socket
	rank := 0
	for _, s := range h.ports[to.Port()] {
		if s.state != listening {
			continue
		}
		own, r := s.local.IP.Addr().Unmap().WithZone(""), 0
		switch {
		case own == addr:
			r = 3
		case own.IsUnspecified() && s.v6 == addr.Is6():
			r = 2
		case own.IsUnspecified() && s.dual:
			r = 1
		}
		if r > rank {
			rank, best = r, best[:0]
		}
		if r > 0 && r == rank {
			best = append(best, s)
		}
	}
	if len(best) == 0 {
		return nil
	}
	// Several share the port: the system spreads connections over them.
	return best[h.w.random[forPorts].below(len(best))]
}

// Crash ends the host's program and cuts its power: nothing it had is left, and
// no one is told. Its backends answer ErrCrashed and their loops get no more
// turns. Until Restart it answers no one.
func (h *Host) Crash() {
	if h.down {
		return
	}
	h.down = true
	h.w.record(Weather, h, 0, weatherCrash, 0)
	for _, b := range h.backends {
		b.crash()
	}
	h.backends = nil
	for h.first != nil {
		s := h.first
		s.closed, s.state = true, dead
		s.discard()
		s.h, s.be = backend.None, nil
		s.forget()
	}
	clear(h.adrift)
	clear(h.handles)
	h.handles, h.free, h.open = h.handles[:0], h.free[:0], 0
	h.shortage = 0
	clear(h.names)
	h.w.unseen()
}

// Restart lets a crashed host be reached again; its program has to be started
// again, with new backends.
func (h *Host) Restart() {
	if h.down {
		h.down = false
		h.w.record(Restarted, h, 0, 0, 0)
	}
}

// Down reports whether the host has crashed.
func (h *Host) Down() bool { return h.down }

// Usage is what a host holds, for leak checks: G6 asks that all of it be as it
// was before.
type Usage struct {
	Handles   int // open
	Sockets   int // those and what is closed and still sending, or waits to be accepted
	Armed     int // Ops
	Buffered  int // bytes written and not read
	Pending   int // events under way
	Listeners int
}

// Usage counts what the host holds.
func (h *Host) Usage() Usage {
	u := Usage{Handles: h.open, Pending: h.pending}
	for s := h.first; s != nil; s = s.next {
		u.Sockets++
		if s.state == listening {
			u.Listeners++
		}
		for _, op := range s.ops {
			if op != nil {
				u.Armed++
			}
		}
		u.Buffered += int(s.out.written - s.out.arrived)
		u.Buffered += s.unread()
		if s.inbox != nil {
			u.Buffered += s.inbox.bytes
		}
	}
	for _, b := range h.backends {
		u.Armed += len(b.failed)
	}
	return u
}

// Usage adds up all hosts.
func (w *World) Usage() Usage {
	var u Usage
	for _, h := range w.hosts {
		v := h.Usage()
		u.Handles += v.Handles
		u.Sockets += v.Sockets
		u.Armed += v.Armed
		u.Buffered += v.Buffered
		u.Pending += v.Pending
		u.Listeners += v.Listeners
	}
	return u
}

// SetLatency sets how long a segment takes between two hosts, either way.
func (w *World) SetLatency(a, b *Host, d time.Duration) {
	w.latencies[link(a, b)] = d
}

// link names a pair of hosts.
func link(a, b *Host) uint64 {
	x, y := uint64(min(a.index, b.index)), uint64(max(a.index, b.index))
	return x<<32 | y
}

// Partition cuts two hosts off from each other: what is sent is lost, and sent
// again until they are healed or somebody's patience ends.
func (w *World) Partition(a, b *Host) {
	if a == b {
		return
	}
	w.cuts[link(a, b)] = true
	w.record(Weather, a, 0, weatherPartition, int64(b.index))
	w.unseen()
}

// Heal undoes Partition.
func (w *World) Heal(a, b *Host) {
	if w.cuts[link(a, b)] {
		delete(w.cuts, link(a, b))
		w.record(Mended, a, 0, int64(b.index), 0)
	}
}
