package sim

import (
	"net/netip"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// dest is the host that s connects to; its own if there is no other.
func (w *World) dest(s *socket) *Host {
	if a := s.remote.IP.Addr(); !a.IsLoopback() {
		if h := w.byAddr[a.WithZone("")]; h != nil {
			return h
		}
	}
	return s.host
}

// dial begins a TCP connect.
func (w *World) dial(s *socket, to *backend.Addr) syscall.Errno {
	addr := to.IP.Addr().Unmap()
	switch {
	case !addr.IsValid() || to.IP.Port() == 0:
		return syscall.ECONNREFUSED
	case addr.Is4() == s.v6 && !(s.v6 && s.dual):
		return syscall.ENETUNREACH
	case addr.IsUnspecified() && addr.Is4():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case addr.IsUnspecified():
		addr = netip.IPv6Loopback()
	}
	from, ok := s.local.IP.Addr().Unmap(), s.bound || s.local.IP.Addr().IsValid()
	if !ok || from.IsUnspecified() {
		if from, ok = s.host.source(addr); !ok {
			return syscall.ENETUNREACH
		}
	}
	if from.IsLoopback() && !s.host.owns(addr) {
		return syscall.EINVAL
	}
	s.local = backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(from, s.local.IP.Port())}
	s.remote = backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(addr, to.IP.Port())}
	if errno := s.host.pair(s); errno != 0 {
		return errno
	}
	s.state, s.tries, s.err = dialing, 0, 0
	s.fate = w.drawFate()
	w.record(ConnectCall, s.host, s.id, int64(s.local.IP.Port()), int64(s.remote.IP.Port()))
	if w.byAddr[addr.WithZone("")] == nil && !addr.IsLoopback() {
		w.push(w.after(routeFailed), event{kind: evNoRoute, s: s, gen: s.gen})
		return syscall.EINPROGRESS
	}
	w.push(w.after(w.delay(s.host, w.dest(s))), event{kind: evSyn, s: s, gen: s.gen})
	return syscall.EINPROGRESS
}

// connectLocal connects to a UNIX socket, which takes no time.
func (w *World) connectLocal(s *socket, path string) syscall.Errno {
	l := s.host.names[path]
	switch {
	case path == "":
		return syscall.EINVAL
	case l == nil && path[0] == '@':
		return syscall.ECONNREFUSED
	case l == nil:
		return syscall.ENOENT
	case l.state != listening:
		return syscall.ECONNREFUSED
	case l.listener.full():
		return syscall.EAGAIN
	}
	c := w.newSocket(s.host, local)
	c.opts = l.opts
	c.local, c.remote = l.local, s.local
	s.remote = l.local
	join(s, c)
	s.state, c.state = open, open
	w.record(ConnectCall, s.host, s.id, int64(c.id), 0)
	l.listener.push(c)
	l.kick()
	return 0
}

// Pair returns the two ends of a UNIX socket pair, one for each of two backends
// of a host, which may be one and the same.
func (h *Host) Pair(a, b *Backend) (backend.Handle, backend.Handle, error) {
	return h.twoEnds(a, b, local)
}

// PipeOf returns the ends of a pipe: r to read from, w to write to.
func (h *Host) PipeOf(r, w *Backend) (backend.Handle, backend.Handle, error) {
	return h.twoEnds(r, w, pipe)
}

func (h *Host) twoEnds(a, b *Backend, kind transport) (backend.Handle, backend.Handle, error) {
	if a.host != h || b.host != h {
		return backend.None, backend.None, syscall.EXDEV
	}
	for _, be := range [...]*Backend{a, b} {
		if err := be.unusable(); err != nil {
			return backend.None, backend.None, err
		}
	}
	if h.open+2 > h.limit || h.scarce() {
		return backend.None, backend.None, syscall.EMFILE
	}
	x, y := h.ends(kind)
	h.give(x, a)
	h.give(y, b)
	return x.h, y.h, nil
}

// ends makes two sockets that are connected to each other, or the ends of a pipe, first the
// one that is read.
func (h *Host) ends(kind transport) (x, y *socket) {
	x, y = h.w.newSocket(h, kind), h.w.newSocket(h, kind)
	x.state, y.state = open, open
	x.local.Family, x.remote.Family = backend.Unix, backend.Unix
	y.local, y.remote = x.local, x.remote
	join(x, y)
	if kind == pipe {
		x.wshut = true
		y.out.edge = noEdge
		x.out.fin, x.out.finSent, x.out.finArrived = true, true, true
	}
	return x, y
}

// farewell is evGone: s, which is not TCP's, learns that its peer was closed.
func (w *World) farewell(s *socket, unread bool) {
	if s.gone || s.closed {
		return
	}
	s.broken = true
	s.peer.out.finArrived = true
	switch {
	case s.kind == pipe && s.out.fin:
		// The reader: the end says it.
	case s.kind == pipe:
		s.err = syscall.EPIPE
	case unread:
		s.err = syscall.ECONNRESET
	}
	s.kick()
}
