package sim

import (
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// Open makes a socket, bound and listening if spec says so. Errors name the
// call and unwrap to a syscall.Errno.
func (b *Backend) Open(spec *backend.Spec) (backend.Handle, error) {
	if err := b.unusable(); err != nil {
		return backend.None, err
	}
	if spec.Family == backend.Vsock || spec.Family == backend.RFCOMM || spec.SCTP != nil {
		return backend.None, backend.ErrUnsupported
	}
	w, h := b.w, b.host
	w.drain()
	err := w.intercept(OpenCall, h, nil)
	if err == nil {
		if errno := w.openError(); errno != 0 {
			err = errno
		} else if h.scarce() || h.open >= h.limit {
			err = syscall.EMFILE
		}
	}
	if err == nil && spec.Family != backend.Inet && spec.Family != backend.Unix {
		err = syscall.EAFNOSUPPORT
	}
	if err != nil {
		w.record(OpenCall, h, 0, int64(backend.None), errorNumber(err))
		return backend.None, os.NewSyscallError("socket", err)
	}
	kind := tcp
	if spec.Datagram && spec.Family == backend.Unix {
		return backend.None, backend.ErrUnsupported
	}
	if spec.Family == backend.Unix {
		kind = local
	}
	if spec.Datagram {
		kind = udp
	}
	s := w.newSocket(h, kind)
	s.v6, s.dual, s.reuse = spec.IPv6, spec.Dual, spec.ReusePort || spec.Datagram && spec.ReuseAddr
	if kind == udp {
		s.inbox = &inbox{info: spec.Info, coalesce: spec.Coalesce}
	}
	s.local.Family, s.remote.Family = spec.Family, spec.Family
	call, err := s.prepare(spec)
	if err != nil {
		w.record(OpenCall, h, s.id, int64(backend.None), errorNumber(err))
		s.forget()
		return backend.None, os.NewSyscallError(call, err)
	}
	h.give(s, b)
	w.record(OpenCall, h, s.id, int64(s.h), int64(spec.Backlog))
	return s.h, nil
}

func (s *socket) prepare(spec *backend.Spec) (call string, err error) {
	if spec.Device != "" {
		return "setsockopt", syscall.ENODEV // simulated hosts have no devices
	}
	for _, o := range spec.Options {
		if err := s.setOption(o.Option, o.Value); err != nil {
			return "setsockopt", err
		}
	}
	listens := spec.Backlog > 0 && !spec.Datagram
	errno := syscall.Errno(0)
	switch {
	case spec.Bind && s.kind == local:
		errno = s.bindPath(spec.Local.Path)
	case spec.Bind:
		errno = s.bindAddr(spec, listens)
	case listens && s.kind == tcp:
		s.local.IP = netip.AddrPortFrom(s.unspecified(), 0)
		errno = s.host.bind(s, true)
	case listens:
		errno = syscall.EINVAL
	}
	if errno != 0 {
		return "bind", errno
	}
	if s.kind == udp && spec.Peer.Family != backend.FamilyNone {
		if errno := s.connectPacket(&spec.Peer); errno != 0 {
			s.host.unbind(s)
			return "connect", errno
		}
	}
	if listens {
		s.state = listening
		s.listener = &listener{backlog: spec.Backlog}
		if s.kind == local && s.local.Path[0] != '@' {
			s.listener.path = s.local.Path
		}
	}
	return "", nil
}

func (s *socket) unspecified() netip.Addr {
	if s.v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func (s *socket) bindPath(path string) syscall.Errno {
	if path == "" {
		for taken := true; taken; {
			s.host.unnamed++
			path = "@" + strconv.Itoa(100000 + s.host.unnamed)[1:]
			_, taken = s.host.names[path]
		}
	}
	if _, taken := s.host.names[path]; taken {
		return syscall.EADDRINUSE
	}
	s.host.names[path] = s
	s.local.Path = path
	return 0
}

// Unlink removes the name of a UNIX socket, as removing its file does.
func (h *Host) Unlink(path string) { delete(h.names, path) }

func (s *socket) bindAddr(spec *backend.Spec, listens bool) syscall.Errno {
	addr := spec.Local.IP.Addr()
	mapped := addr.Is4In6()
	addr = addr.Unmap()
	switch {
	case spec.Local.Family != backend.Inet || !addr.IsValid():
		return syscall.EINVAL
	case addr.Is4() == s.v6 && !mapped && !(s.dual && addr.Is4()):
		return syscall.EAFNOSUPPORT
	case !addr.IsUnspecified() && !s.host.owns(addr):
		return syscall.EADDRNOTAVAIL
	}
	s.local.IP = netip.AddrPortFrom(addr, spec.Local.IP.Port())
	if !listens && s.kind != udp && spec.Local.IP.Port() == 0 {
		return 0 // the port is picked by Connect
	}
	return s.host.bind(s, listens)
}

// Shut shuts or closes a handle. Ops that are still armed then are a violation
// of the contract, and end without a result.
func (b *Backend) Shut(h backend.Handle, how backend.How) error {
	w := b.w
	w.drain()
	s, err := b.socket(h)
	if err != nil {
		return err
	}
	switch {
	case how < backend.ShutWrite || how > backend.Unwatch:
		return syscall.EINVAL
	case how == backend.Unwatch:
		how = backend.Forget
	}
	w.record(ShutCall, b.host, s.id, int64(how), 0)
	if how == backend.Forget && s.state == open && (s.kind == local || s.kind == pipe) {
		s.abandon() // no loop has it any more
		s.be = nil
		return nil
	}
	err = w.intercept(ShutCall, b.host, nil)
	if how == backend.ShutWrite {
		if err != nil {
			return err
		}
		if s.state == open && !s.wshut {
			if errno := w.callError(w.faults.ShutError, syscall.ENOBUFS); errno != 0 {
				return errno
			}
		}
		return w.shutWrite(s)
	}
	for p := range s.ops {
		if s.ops[p] != nil && !forgettable(s.ops[p].Kind) {
			w.violation(b, "Shut of a handle with an Op armed, kind "+strconv.Itoa(int(s.ops[p].Kind)))
		}
	}
	s.abandon()
	w.close(s, how == backend.CloseReset)
	return err
}

// forgettable reports whether a handle may be closed while an Op of kind k is
// armed.
func forgettable(k backend.Kind) bool {
	return k == backend.Accept || k == backend.RecvFrom || k == backend.SendTo
}

func (w *World) shutWrite(s *socket) error {
	switch {
	case s.kind == pipe:
		return backend.ErrUnsupported
	case s.state != open:
		return syscall.ENOTCONN
	case s.wshut:
		return nil
	}
	s.wshut, s.out.fin = true, true
	w.transmit(s)
	s.kick()
	return nil
}

// close takes the handle off a socket and ends it as the system does: what was
// written is sent first, unless something was left unread.
func (w *World) close(s *socket, reset bool) {
	s.host.release(s)
	s.host.unbind(s)
	s.closed = true
	switch {
	case s.state == listening:
		w.closeListener(s)
		return
	case s.state == dialing:
		if s.peer != nil {
			w.push(w.after(w.delay(s.host, s.peer.host)), event{kind: evReset, s: s.peer, gen: s.peer.gen})
		}
		s.state, s.peer = dead, nil
		s.forget()
		return
	case s.state != open:
		s.discard()
		s.forget()
		return
	}
	unread := s.unread() > 0
	s.discard()
	if s.kind != tcp {
		s.wshut = true
		s.out.fin = true
		w.transmit(s)
		w.push(w.arrival(s), event{kind: evGone, s: s.peer, gen: s.peer.gen, fin: unread})
		s.forget()
		return
	}
	if reset || unread {
		s.out.written = s.out.sent // the rest is dropped; what is on its way arrives
		s.state = dead
		w.sendReset(s)
		s.forget()
		return
	}
	s.wshut, s.out.fin = true, true
	w.transmit(s)
	s.settle()
}

func (w *World) closeListener(s *socket) {
	s.state = dead
	if l := s.listener; l.path != "" && s.host.names[l.path] == s {
		delete(s.host.names, l.path)
	} else if s.kind == local && s.host.names[s.local.Path] == s && l.path == "" {
		delete(s.host.names, s.local.Path)
	}
	for s.listener.len() > 0 {
		c := s.listener.pop()
		if c.state == open && c.kind == tcp {
			w.sendReset(c)
		} else if c.state == open {
			w.push(w.arrival(c), event{kind: evGone, s: c.peer, gen: c.peer.gen, fin: c.unread() > 0})
		}
		w.shutDown(c)
	}
	for c := s.host.first; c != nil && s.listener.embryos > 0; {
		next := c.next
		if c.via == s {
			s.listener.embryos--
			w.sendReset(c)
			w.shutDown(c)
		}
		c = next
	}
	s.forget()
}

// Name returns a handle's own address, or its peer's.
func (b *Backend) Name(h backend.Handle, peer bool) (backend.Addr, error) {
	b.w.drain()
	s, err := b.socket(h)
	if err == nil {
		err = b.w.intercept(NameCall, b.host, nil)
	}
	if err != nil {
		return backend.Addr{}, err
	}
	if peer {
		if s.state != open {
			return backend.Addr{}, syscall.ENOTCONN
		}
		return s.remote, nil
	}
	a := s.local
	if a.Family == backend.Inet && !a.IP.Addr().IsValid() {
		a.IP = netip.AddrPortFrom(s.unspecified(), 0)
	}
	return a, nil
}

// SetOption sets a socket option.
func (b *Backend) SetOption(h backend.Handle, o backend.Option, value int) error {
	s, err := b.socket(h)
	if err == nil {
		err = b.w.intercept(SetCall, b.host, nil)
	}
	if err != nil {
		return err
	}
	if err := s.setOption(o, value); err != nil {
		return err
	}
	if o == backend.KeepAlive {
		b.w.probe(s) // the peer may have become unreachable before it was asked for
	}
	return nil
}

const bufferMin = 2304 // what Linux makes of less

func (s *socket) setOption(o backend.Option, value int) error {
	if s.kind == pipe {
		return syscall.ENOTSOCK
	}
	switch o {
	case backend.SendBuffer:
		s.opts.sendBuffer = max(bufferMin, 2*value)
	case backend.ReceiveBuffer:
		s.opts.recvBuffer = max(bufferMin, 2*value)
	case backend.KeepAlive:
		s.opts.keepAlive = max(0, value)
	case backend.Broadcast:
		s.opts.broadcast = value != 0
	case backend.TrafficClass: // nothing in the simulated network looks at it
		s.opts.class = value
	case backend.Mark: // nor at this
		s.opts.mark = value
	case backend.DontFragment, backend.MulticastHops, backend.MulticastLoop:
		if s.kind != udp {
			return syscall.EOPNOTSUPP
		}
		switch o { //nolint:exhaustive // these only
		case backend.DontFragment:
			s.opts.dontFragment = value != 0
		case backend.MulticastHops:
			s.opts.hops = value + 1
		default:
			s.opts.quiet = value == 0
		}
	case backend.FastOpen: // a connect without a cookie is one as ever
		if s.kind != tcp {
			return syscall.EOPNOTSUPP
		}
		s.opts.fastOpen = value
	case backend.NoDelay, backend.UserTimeout:
		if s.kind != tcp {
			return syscall.EOPNOTSUPP
		}
		if o == backend.NoDelay {
			s.opts.noDelay = value != 0
		} else {
			s.opts.userTimeout = value
		}
	default:
		return backend.ErrUnsupported
	}
	return nil
}

// GetOption returns a socket option.
func (b *Backend) GetOption(h backend.Handle, o backend.Option) (int, error) {
	b.w.drain()
	s, err := b.socket(h)
	if err == nil {
		err = b.w.intercept(GetCall, b.host, nil)
	}
	if err != nil {
		return 0, err
	}
	switch {
	case s.kind == pipe && o != backend.UnreadBytes:
		return 0, syscall.ENOTSOCK
	case s.kind == local && (o == backend.NoDelay || o == backend.UserTimeout):
		return 0, syscall.EOPNOTSUPP
	case s.state == listening && (o == backend.UnsentBytes || o == backend.UnreadBytes):
		return 0, syscall.EINVAL
	}
	switch o { //nolint:exhaustive // the simulator's sockets never block
	case backend.NoDelay:
		if s.opts.noDelay {
			return 1, nil
		}
		return 0, nil
	case backend.KeepAlive:
		return s.opts.keepAlive, nil
	case backend.SendBuffer:
		return s.opts.sendBuffer, nil
	case backend.ReceiveBuffer:
		return s.opts.recvBuffer, nil
	case backend.UserTimeout:
		return s.opts.userTimeout, nil
	case backend.Broadcast:
		if s.opts.broadcast {
			return 1, nil
		}
		return 0, nil
	case backend.TrafficClass:
		return s.opts.class, nil
	case backend.Mark:
		return s.opts.mark, nil
	case backend.DontFragment:
		if s.opts.dontFragment {
			return 1, nil
		}
		return 0, nil
	case backend.MulticastHops:
		if s.opts.hops == 0 {
			return 1, nil
		}
		return s.opts.hops - 1, nil
	case backend.MulticastLoop:
		if s.opts.quiet {
			return 0, nil
		}
		return 1, nil
	case backend.FastOpen:
		return s.opts.fastOpen, nil
	case backend.Unanswered:
		if !b.w.cfg.Unanswered {
			return 0, backend.ErrUnsupported
		}
		if f := &s.out; s.kind == tcp && f.retrying && f.tries > 1 {
			return int((b.w.now - f.since) / 1e6), nil
		}
		return 0, nil
	case backend.Patience:
		if s.opts.userTimeout > 0 {
			return 0, nil
		}
		return s.opts.keepAlive * (1 + keepAliveProbes), nil
	case backend.UnreadBytes:
		return s.unread(), nil
	case backend.UnsentBytes:
		if s.state == dead {
			return 0, nil
		}
		return s.opts.sendBuffer - s.room(), nil
	case backend.PendingError:
		if s.told {
			return 0, nil
		}
		s.told = s.err != 0
		return int(s.err), nil
	}
	return 0, backend.ErrUnsupported
}
