package sim

import (
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// Datagrams are packets: each goes its own way, and is found a socket only where
// it arrives. One that finds none is answered with a refusal, as ICMP does.

const (
	datagramMax = 65507 // bytes over IPv4
	reorderMax  = time.Second
	waitMax     = 20 * time.Millisecond // how long sending may have to wait
)

// packet is a datagram on its way, or what became of one.
type packet struct {
	from, to netip.AddrPort
	data     []byte
	errno    syscall.Errno // of what became of it
	mtu      int           // what would have passed, where errno is EMSGSIZE
}

// packets holds all that are on their way or wait to be read. Their memory is
// used again.
type packets struct {
	slab []packet
	free []uint32
}

func (p *packets) put(from, to netip.AddrPort, vec [][]byte) uint32 {
	var i uint32
	if n := len(p.free); n > 0 {
		i = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		i = uint32(len(p.slab))
		p.slab = append(p.slab, packet{})
	}
	k := &p.slab[i]
	k.from, k.to, k.errno, k.mtu = from, to, 0, 0
	k.data = k.data[:0]
	for _, piece := range vec {
		k.data = append(k.data, piece...)
	}
	return i
}

func (p *packets) drop(i uint32) {
	const keep = 4096 // bytes
	if cap(p.slab[i].data) > keep {
		p.slab[i].data = nil
	}
	p.free = append(p.free, i)
}

// inbox is what a datagram socket has.
type inbox struct {
	waiting   []uint32 // packets, in the order they came
	bytes     int
	fullUntil int64 // nothing can be sent before
	groups    []membership
	piece     [1][]byte // of a datagram being sent
	info      backend.Infos
	coalesce  bool           // several datagrams may be handed over as one
	peer      netip.AddrPort // that it is connected to; not valid: none
}

// membership is a group that a socket is in: what every source sends there, or what one
// does.
type membership struct{ group, source netip.Addr }

func (in *inbox) drop(w *World) {
	for _, i := range in.waiting {
		w.packets.drop(i)
	}
	in.waiting, in.bytes = nil, 0
}

func (in *inbox) pop() uint32 {
	i := in.waiting[0]
	n := copy(in.waiting, in.waiting[1:])
	in.waiting = in.waiting[:n]
	return i
}

// sendTo sends a datagram, or the first of many and others as Faults.Joined says. It returns
// false where that has to wait.
func (b *Backend) sendTo(s *socket, op *backend.Op, c *backend.Completion) bool {
	w, r := b.w, &b.w.random[forDatagrams]
	if s.inbox != nil && r.chance(w.faults.SendWait) {
		s.inbox.fullUntil = w.after(1 + r.upTo(waitMax))
		w.push(s.inbox.fullUntil, event{kind: evRoom, s: s, gen: s.gen})
		return false
	}
	if op.Packets == nil || s.inbox == nil {
		if err := b.sendOne(s, op.Addr, nil, op.Vec); err != nil {
			b.result(s, op, c, 0, err)
		} else {
			b.result(s, op, c, total(op.Vec), nil)
		}
		return true
	}
	sent, err := b.sendMany(s, *op.Packets)
	b.result(s, op, c, sent, err)
	return true
}

// sendMany sends the first datagram of all, and others as Faults.Joined says. An error is the
// first one's.
func (b *Backend) sendMany(s *socket, all []backend.Packet) (sent int, err error) {
	r := &b.w.random[forDatagrams]
	defer func() { s.inbox.piece[0] = nil }()
	var to *backend.Packet
	for i := range all {
		p := &all[i]
		if i == 0 || !p.Same {
			to = p
		}
		for rest, more := p.Data, true; more; more = len(rest) > 0 {
			if sent > 0 && !r.chance(b.w.faults.Joined) {
				return sent, nil
			}
			n := len(rest)
			if p.Segment > 0 {
				n = min(n, p.Segment)
			}
			s.inbox.piece[0] = rest[:n:n]
			if err := b.sendOne(s, &to.To, &to.Info, s.inbox.piece[:]); err != nil {
				if sent > 0 {
					err = nil
				}
				return sent, err
			}
			sent++
			rest = rest[n:]
		}
	}
	return sent, nil
}

// sendOne sends vec as one datagram. A nil info asks for nothing.
func (b *Backend) sendOne(s *socket, addr *backend.Addr, info *backend.PacketInfo, vec [][]byte) error {
	w, r := b.w, &b.w.random[forDatagrams]
	to, errno := s.reach(addr)
	n := total(vec)
	var local netip.Addr
	if info != nil {
		local = info.Local.Unmap()
	}
	switch {
	case errno != 0:
	case info != nil && info.HasTraffic:
		return backend.ErrUnsupported
	case local.IsValid() && (!s.host.owns(local) || local.Is4() != to.Addr().Is4()):
		errno = syscall.EINVAL
	case n > datagramMax, s.opts.dontFragment && s.host.knowsTooLong(to.Addr(), n):
		errno = syscall.EMSGSIZE
	case r.chance(w.faults.SendNoBuffer):
		errno = syscall.ENOBUFS
	}
	if errno != 0 {
		return errno
	}
	src, _ := s.host.source(to.Addr())
	if own := s.local.IP.Addr().Unmap(); own.IsValid() && !own.IsUnspecified() {
		src = own
	}
	if local.IsValid() {
		src = local
	}
	for _, p := range vec {
		w.trace.bytes(p)
	}
	w.stats.Bytes += n
	w.launch(s, netip.AddrPortFrom(src, s.local.IP.Port()), to, vec)
	return nil
}

// reach finds out whether s may send to an address, and binds it if it is not
// bound yet.
func (s *socket) reach(a *backend.Addr) (netip.AddrPort, syscall.Errno) {
	if s.inbox == nil {
		return netip.AddrPort{}, syscall.EOPNOTSUPP
	}
	if a == nil || a.Family != backend.Inet || !a.IP.IsValid() || a.IP.Port() == 0 {
		return netip.AddrPort{}, syscall.EINVAL
	}
	addr := a.IP.Addr().Unmap()
	switch {
	case addr.Is6() && !s.v6:
		return netip.AddrPort{}, syscall.EAFNOSUPPORT
	case addr.Is4() && s.v6 && !s.dual:
		return netip.AddrPort{}, syscall.ENETUNREACH
	case addr.IsUnspecified() && addr.Is4():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case addr.IsUnspecified():
		addr = netip.IPv6Loopback()
	}
	src, ok := s.host.source(addr)
	if addr.IsMulticast() && !ok {
		return netip.AddrPort{}, syscall.ENETUNREACH
	}
	own := s.local.IP.Addr().Unmap()
	if !ok || own.IsLoopback() && !s.host.owns(addr) {
		return netip.AddrPort{}, syscall.ENETUNREACH
	}
	if src.Is4() != addr.Is4() {
		return netip.AddrPort{}, syscall.ENETUNREACH
	}
	if !s.bound {
		if !own.IsValid() {
			s.local.IP = netip.AddrPortFrom(s.unspecified(), 0)
		}
		if errno := s.host.bind(s, false); errno != 0 {
			return netip.AddrPort{}, errno
		}
	}
	return netip.AddrPortFrom(addr, a.IP.Port()), 0
}

// launch puts a datagram on its way, with what befalls it there.
func (w *World) launch(s *socket, from, to netip.AddrPort, vec [][]byte) {
	h := s.host
	f, r := &w.faults, &w.random[forDatagrams]
	if to.Addr().IsMulticast() {
		// A copy for each host that has somebody in the group, its own too.
		for _, dest := range w.hosts {
			if dest == h && s.opts.quiet || dest != h && s.opts.hops == 1 {
				continue
			}
			if dest.member(from, to) != nil && !w.hostsCut(h, dest) && !w.dropped(h, dest, to.Addr(), total(vec)) {
				w.pushPacket(w.after(w.delay(h, dest)), evDatagram, dest, w.packets.put(from, to, vec))
			}
		}
		return
	}
	dest := h
	if !to.Addr().IsLoopback() {
		dest = w.byAddr[to.Addr().WithZone("")]
	}
	if dest == nil {
		i := w.packets.put(from, to, nil)
		w.packets.slab[i].errno = noRoute
		w.pushPacket(w.after(routeFailed), evUnreachable, h, i)
		return
	}
	if s.opts.dontFragment && w.tooLong(h, dest, to.Addr(), total(vec)) {
		if !w.hostsCut(h, dest) && !r.chance(f.Drop) {
			i := w.packets.put(from, to, nil)
			w.packets.slab[i].errno, w.packets.slab[i].mtu = syscall.EMSGSIZE, f.MTU
			w.pushPacket(w.after(w.delay(h, dest)), evUnreachable, h, i)
		}
		return
	}
	copies := 1
	if r.chance(f.Duplicate) {
		copies = 2
	}
	for range copies {
		if w.hostsCut(h, dest) || w.dropped(h, dest, to.Addr(), total(vec)) {
			w.record(Dropped, h, 0, int64(to.Port()), 0)
			continue
		}
		at := w.after(w.delay(h, dest))
		if r.chance(f.Reorder) {
			at += int64(r.upTo(reorderMax))
		}
		w.pushPacket(at, evDatagram, dest, w.packets.put(from, to, vec))
	}
}

// headers is how many bytes a datagram has in front on its way.
func headers(to netip.Addr) int {
	if to.Is4() {
		return 20 + 8
	}
	return 40 + 8
}

// tooLong reports whether a datagram of n bytes is longer than a link on its way takes.
func (w *World) tooLong(from, to *Host, addr netip.Addr, n int) bool {
	return from != to && w.faults.MTU > 0 && n+headers(addr) > w.faults.MTU
}

// knowsTooLong is tooLong as far as the sending host has heard of it. To a group it knows
// at once: no one else would tell it.
func (h *Host) knowsTooLong(to netip.Addr, n int) bool {
	if to.IsMulticast() {
		return h.w.tooLong(h, nil, to, n)
	}
	dest := h.w.byAddr[to.WithZone("")]
	return dest != nil && dest.index < len(h.narrow) && h.narrow[dest.index] && h.w.tooLong(h, dest, to, n)
}

// dropped draws whether a datagram of n bytes is lost: as often as it has fragments.
func (w *World) dropped(from, to *Host, addr netip.Addr, n int) bool {
	f, r := &w.faults, &w.random[forDatagrams]
	lost := r.chance(f.Drop)
	if w.tooLong(from, to, addr, n) {
		const header = 20 // of each fragment
		part := max(8, (f.MTU-header)&^7)
		for rest := n + headers(addr) - header - part; rest > 0; rest -= part {
			lost = r.chance(f.Drop) || lost
		}
	}
	return lost
}

func (w *World) pushPacket(at int64, k kind, h *Host, i uint32) {
	h.pending++
	w.queue.push(at, event{kind: k, host: h, pos: uint64(i)})
}

// Inject puts a datagram into the network that says it is from an address,
// whoever has that. It reaches the host that has to at once.
func (w *World) Inject(from, to netip.AddrPort, p []byte) {
	if h := w.byAddr[to.Addr().WithZone("")]; h != nil {
		w.trace.bytes(p)
		w.pushPacket(w.now, evDatagram, h, w.packets.put(from, to, [][]byte{p}))
	}
}

// datagram is evDatagram.
func (w *World) datagram(ev *event) {
	i := uint32(ev.pos)
	p := &w.packets.slab[i]
	h := ev.host
	if h.down {
		w.packets.drop(i)
		return
	}
	if p.to.Addr().IsMulticast() {
		w.spread(h, i)
		return
	}
	s := h.receiver(p.to, p.from)
	if s == nil {
		back := w.sender(h, p.from)
		if back == nil || w.hostsCut(h, back) || w.random[forDatagrams].chance(w.faults.Drop) {
			w.packets.drop(i)
			return
		}
		p.errno = refused
		w.pushPacket(w.after(w.delay(h, back)), evUnreachable, back, i)
		return
	}
	s.take(i, len(p.data))
}

// sender is the host that a datagram came from, as far as its address tells.
func (w *World) sender(at *Host, from netip.AddrPort) *Host {
	if from.Addr().IsLoopback() {
		return at
	}
	return w.byAddr[from.Addr().WithZone("")]
}

// unreachable is evUnreachable.
func (w *World) unreachable(ev *event) {
	i := uint32(ev.pos)
	p := &w.packets.slab[i]
	if p.errno == syscall.EMSGSIZE && !ev.host.down {
		ev.host.learn(w.byAddr[p.to.Addr().WithZone("")])
	}
	s := ev.host.receiver(p.from, p.to)
	if s == nil || ev.host.down {
		w.packets.drop(i)
		return
	}
	s.take(i, 0)
}

// learn remembers that longer packets than Faults.MTU do not pass to a host.
func (h *Host) learn(dest *Host) {
	if dest == nil {
		return
	}
	for len(h.narrow) <= dest.index {
		h.narrow = append(h.narrow, false)
	}
	h.narrow[dest.index] = true
}

// take puts a packet into the inbox, if there is room for it.
func (s *socket) take(i uint32, bytes int) {
	const overhead = 256 // of each packet, as a system counts
	in := s.inbox
	if len(in.waiting) > 0 && in.bytes+(len(in.waiting)+1)*overhead+bytes > s.opts.recvBuffer {
		s.w.packets.drop(i)
		return
	}
	in.waiting = append(in.waiting, i)
	in.bytes += bytes
	s.kick()
}

// connectPacket connects a datagram socket to its peer, which it then gets datagrams from
// only.
func (s *socket) connectPacket(peer *backend.Addr) syscall.Errno {
	to, errno := s.reach(peer)
	if errno != 0 {
		return errno
	}
	if own := s.local.IP.Addr(); own.IsUnspecified() {
		src, _ := s.host.source(to.Addr())
		s.local.IP = netip.AddrPortFrom(src, s.local.IP.Port())
	}
	s.inbox.peer = to
	return 0
}

// receiver returns the datagram socket for what comes to a destination from an address.
func (h *Host) receiver(to, from netip.AddrPort) *socket {
	addr := to.Addr().Unmap().WithZone("")
	var best *socket
	rank := 0
	for _, s := range h.ports[to.Port()] {
		if s.inbox == nil {
			continue
		}
		own, r := s.local.IP.Addr().Unmap().WithZone(""), 0
		switch peer := s.inbox.peer; {
		case peer.IsValid() && peer != from:
		case peer.IsValid() && own == addr:
			r = 4
		case own == addr:
			r = 3
		case own.IsUnspecified() && s.v6 == addr.Is6():
			r = 2
		case own.IsUnspecified() && s.dual:
			r = 1
		}
		if r > rank {
			rank, best = r, s
		}
	}
	return best
}

// The most that is handed over as one, as on Linux: datagrams, and bytes.
const (
	joinedMost  = 64
	joinedBytes = 65_000
)

// follows reports whether the packet that waits longest can be handed over with p, which is
// size bytes long, and others, bytes in all.
func (in *inbox) follows(w *World, p *packet, size, bytes int) bool {
	if len(in.waiting) == 0 {
		return false
	}
	q := &w.packets.slab[in.waiting[0]]
	n := len(q.data)
	return q.errno == 0 && q.from == p.from && q.to == p.to && 0 < n && n <= size && bytes+n <= joinedBytes
}

// recvFrom takes the packet that waits longest, and others like it as Faults.Joined says. It
// returns false where the memory for peers is used up.
func (b *Backend) recvFrom(s *socket, op *backend.Op, c *backend.Completion) bool {
	w, r := b.w, &b.w.random[forDatagrams]
	if s.inbox == nil {
		b.result(s, op, c, 0, syscall.EOPNOTSUPP)
		return true
	}
	if b.npeers == len(b.peers) {
		return false
	}
	peer := &b.peers[b.npeers]
	b.npeers++
	i := s.inbox.pop()
	p := &w.packets.slab[i]
	if p.errno != 0 {
		*peer = backend.Addr{Family: backend.Inet, IP: p.to}
		b.result(s, op, c, p.mtu, p.errno)
		c.Peer = peer
		w.packets.drop(i)
		return true
	}
	s.inbox.bytes -= len(p.data)
	n := len(p.data)
	switch {
	case op.Buf != nil:
		n = min(n, len(op.Buf))
	case op.Max > 0:
		n = min(n, int(op.Max))
	}
	if n > 0 && r.chance(w.faults.CutDatagram) {
		n = r.below(n)
	}
	if n > 0 && n == len(p.data) && op.Buf == nil && s.inbox.coalesce && s.inbox.follows(w, p, n, n) && r.chance(w.faults.Joined) {
		b.joined(s, op, c, i, peer)
		return true
	}
	buf := op.Buf
	if buf == nil {
		buf = b.lent.lend(n)
	}
	buf = buf[:n:n]
	copy(buf, p.data)
	*peer = backend.Addr{Family: backend.Inet, IP: p.from}
	b.result(s, op, c, n, nil)
	c.Buf, c.Peer, c.Truncated = buf, peer, n < len(p.data)
	b.tellInfo(s, c, p)
	w.packets.drop(i)
	return true
}

// joined is recvFrom's result for packet i, which was taken from the inbox, and at least one of
// those that follow it.
func (b *Backend) joined(s *socket, op *backend.Op, c *backend.Completion, i uint32, peer *backend.Addr) {
	w, in := b.w, s.inbox
	p := &w.packets.slab[i]
	size, most := len(p.data), 2+w.random[forDatagrams].below(joinedMost-1)
	buf := append(b.joining[:0], p.data...)
	for count, last := 1, size; count < most && last == size && in.follows(w, p, size, len(buf)); count++ {
		k := in.pop()
		q := &w.packets.slab[k]
		last = len(q.data)
		buf = append(buf, q.data...)
		in.bytes -= last
		w.packets.drop(k)
	}
	b.joining = buf
	lent := b.lent.lend(len(buf))
	copy(lent, buf)
	*peer = backend.Addr{Family: backend.Inet, IP: p.from}
	b.result(s, op, c, len(lent), nil)
	c.Buf, c.Peer, c.Segment = lent, peer, int32(size)
	w.stats.Joined++
	b.tellInfo(s, c, p)
	w.packets.drop(i)
}

// tellInfo sets what the socket's owner wants to know of a packet.
func (b *Backend) tellInfo(s *socket, c *backend.Completion, p *packet) {
	if s.inbox.info&backend.InfoLocal == 0 {
		return
	}
	info := &b.infos[b.npeers-1]
	*info = backend.PacketInfo{Local: p.to.Addr().Unmap(), Dest: p.to.Addr().Unmap()}
	if info.Dest.IsMulticast() {
		info.Local, _ = s.host.source(p.from.Addr())
	}
	c.Info = info
}

// describePacket says in e what a packet's event is about.
func (w *World) describePacket(e *Event, ev *event) {
	p := &w.packets.slab[ev.pos]
	e.Host, e.N = ev.host.name, uint64(len(p.data))
	local, remote := p.to, p.from
	if ev.kind == evUnreachable {
		local, remote = remote, local
	}
	e.Local = backend.Addr{Family: backend.Inet, IP: local}
	e.Remote = backend.Addr{Family: backend.Inet, IP: remote}
}

// Source returns the address from which something would be sent; see
// backend.Router.
func (b *Backend) Source(to netip.Addr) (netip.Addr, bool) { return b.host.source(to) }

// Group puts a handle into a multicast group; see backend.Multicaster. All hosts
// are on one network, whatever the device.
func (b *Backend) Group(h backend.Handle, group, source netip.Addr, _ string, join bool) error {
	s, err := b.socket(h)
	switch {
	case err != nil:
		return err
	case s.inbox == nil || !group.IsMulticast(),
		source.IsValid() && (source.Unmap().Is4() != group.Unmap().Is4() || source.IsMulticast() || source.IsUnspecified()):
		return syscall.EINVAL
	}
	m := membership{group.Unmap().WithZone(""), source.Unmap().WithZone("")}
	i := slices.Index(s.inbox.groups, m)
	other := slices.ContainsFunc(s.inbox.groups, func(o membership) bool {
		return o.group == m.group && o.source.IsValid() != m.source.IsValid()
	})
	switch { // the errors are Linux's
	case join && other && source.IsValid():
		return syscall.EINVAL
	case join && i >= 0 && source.IsValid():
		return syscall.EADDRNOTAVAIL
	case join && (other || i >= 0):
		return syscall.EADDRINUSE
	case join:
		s.inbox.groups = append(s.inbox.groups, m)
	case i < 0:
		return syscall.EADDRNOTAVAIL
	default:
		s.inbox.groups = slices.Delete(s.inbox.groups, i, i+1)
	}
	return nil
}

// GroupDevice chooses the device by which a handle sends to groups; see
// backend.Multicaster. There is one network.
func (b *Backend) GroupDevice(h backend.Handle, _ string) error {
	s, err := b.socket(h)
	if err == nil && s.inbox == nil {
		return syscall.EINVAL
	}
	return err
}

// in reports whether s takes what is sent to a group.
func (s *socket) in(from, to netip.AddrPort) bool {
	if s.inbox == nil {
		return false
	}
	group, source := to.Addr().Unmap().WithZone(""), from.Addr().Unmap().WithZone("")
	if !slices.ContainsFunc(s.inbox.groups, func(m membership) bool {
		return m.group == group && (!m.source.IsValid() || m.source == source)
	}) {
		return false
	}
	own := s.local.IP.Addr().Unmap()
	return own.IsUnspecified() || own == to.Addr()
}

// member returns the first socket of the host that takes what is sent to a group.
func (h *Host) member(from, to netip.AddrPort) *socket {
	for _, s := range h.ports[to.Port()] {
		if s.in(from, to) {
			return s
		}
	}
	return nil
}

// spread gives a copy of a packet to each socket that takes it.
func (w *World) spread(h *Host, i uint32) {
	for _, s := range h.ports[w.packets.slab[i].to.Port()] {
		p := &w.packets.slab[i] // where it is after put
		if s.in(p.from, p.to) {
			s.take(w.packets.put(p.from, p.to, [][]byte{p.data}), len(p.data))
		}
	}
	w.packets.drop(i)
}
