package portable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// Open makes a socket. A socket that is not to listen is made when it is connected,
// which is when package net makes it, so a local address that is not available is
// reported by the Connect. The backlog is the largest that the system allows.
func (b *Backend) Open(spec *backend.Spec) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	kept := *spec
	kept.Options = slices.Clone(spec.Options)
	e := &entry{spec: &kept, local: backend.Addr{Family: spec.Family}}
	switch {
	case spec.Family == backend.Vsock, spec.Family == backend.RFCOMM, spec.SCTP != nil:
		return backend.None, backend.ErrUnsupported
	case spec.Family != backend.Inet && spec.Family != backend.Unix:
		return backend.None, errInvalid
	}
	if err := unspeakable(spec); err != nil {
		return backend.None, err
	}
	if spec.Datagram {
		return b.openPacket(&kept)
	}
	if spec.Backlog <= 0 {
		if spec.Bind {
			e.local = spec.Local
		}
		return b.add(e), nil
	}
	ln, err := listen(&kept)
	if err != nil {
		return backend.None, errno(err)
	}
	e.local = addrOf(ln.Addr())
	e.ln = newAcceptor(b, e, ln)
	if spec.Family == backend.Unix && isFile(spec.Local.Path) {
		e.ln.also = ownFile(spec.Local.Path)
	}
	return b.add(e), nil
}

// widen sets the mode of a UNIX socket's file after bind. The mode was narrowed already
// if that can be done before; the umask may have narrowed it too far.
func widen(spec *backend.Spec) error {
	if spec.Mode == 0 || !isFile(spec.Local.Path) {
		return nil
	}
	return os.Chmod(spec.Local.Path, fs.FileMode(spec.Mode))
}

// isFile reports whether the name of a Unix socket is in the file system.
func isFile(path string) bool { return path != "" && path[0] != '@' }

// ownFile returns a function that removes a listener's file if it is still the
// listener's.
func ownFile(path string) func() {
	own, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	return func() {
		if now, err := os.Lstat(path); err == nil && os.SameFile(own, now) {
			_ = os.Remove(path)
		}
	}
}

// network is package net's name for spec's family, and the family's unspecified address.
func network(spec *backend.Spec) (name string, unspecified netip.Addr) {
	switch {
	case spec.Family == backend.Unix:
		return "unix", netip.Addr{}
	case !spec.IPv6:
		return "tcp4", netip.IPv4Unspecified()
	case spec.Dual:
		return "tcp", netip.IPv6Unspecified()
	default:
		return "tcp6", netip.IPv6Unspecified()
	}
}

func listen(spec *backend.Spec) (net.Listener, error) {
	name, any := network(spec)
	config := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, rc syscall.RawConn) error {
		return prepareListener(rc, spec)
	}}
	config.SetMultipathTCP(false) // its sockets lack options that TCP's have
	if spec.Family == backend.Unix {
		ln, err := config.Listen(context.Background(), name, spec.Local.Path)
		if err != nil {
			return nil, err
		}
		unix := ln.(*net.UnixListener)
		// Package net would remove whatever has that name by then: see ownFile.
		unix.SetUnlinkOnClose(false)
		if err := widen(spec); err != nil {
			_ = unix.Close()
			_ = os.Remove(spec.Local.Path)
			return nil, err
		}
		return unix, nil
	}
	at := netip.AddrPortFrom(any, 0)
	if spec.Bind {
		at = spec.Local.IP
	}
	return config.Listen(context.Background(), name, at.String())
}

// An acceptor waits for a listener's connections on one goroutine, which starts with
// the first Accept and hands over one connection or error at a time. So a persistent
// error such as EMFILE is reported once per Accept.
type acceptor struct {
	b  *Backend
	e  *entry
	ln net.Listener

	polled port // what a Ready asks, of an adopted listener; nil until there was one

	also func()       // closes or removes whatever else is needed; may be nil
	peer backend.Addr // of the last one; lent until the next Accept result
	next chan struct{}
	done chan struct{}

	mu      sync.Mutex
	conn    net.Conn
	err     error
	have    bool // conn or err is one
	started bool
	closed  bool
}

func newAcceptor(b *Backend, e *entry, ln net.Listener) *acceptor {
	return &acceptor{b: b, e: e, ln: ln, next: make(chan struct{}, 1), done: make(chan struct{})}
}

// run accepts until the listener is closed.
func (a *acceptor) run() {
	for {
		conn, err := a.ln.Accept()
		a.mu.Lock()
		if a.closed {
			a.mu.Unlock()
			if conn != nil {
				_ = conn.Close()
			}
			return
		}
		a.conn, a.err, a.have = conn, err, true
		a.mu.Unlock()
		a.b.notify(a.e)
		select {
		case <-a.next:
		case <-a.done:
			return
		}
	}
}

// start makes sure that the goroutine waits, and reports whether something has come.
func (a *acceptor) start() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.started {
		a.started = true
		a.b.waiting.Go(a.run)
	}
	return a.have
}

func (a *acceptor) take() (conn net.Conn, err error, ok bool) { //nolint:staticcheck // ok qualifies the other two
	a.mu.Lock()
	conn, err, ok = a.conn, a.err, a.have
	a.conn, a.err, a.have = nil, nil, false
	a.mu.Unlock()
	if ok {
		a.next <- struct{}{}
	}
	return conn, err, ok
}

func (a *acceptor) check(ev backend.Events) backend.Events {
	if a.start() {
		return ev & backend.Readable
	}
	return 0
}

func (a *acceptor) close() {
	a.mu.Lock()
	a.closed = true
	conn := a.conn
	a.conn = nil
	a.mu.Unlock()
	close(a.done)
	if a.polled != nil {
		_ = a.polled.release()
		a.polled.close(false)
	}
	_ = a.ln.Close()
	if a.also != nil {
		a.also()
	}
	if conn != nil {
		_ = conn.Close()
	}
}

func (b *Backend) tryAccept(e *entry, c *backend.Completion) bool {
	if !e.ln.start() {
		return false
	}
	conn, err, _ := e.ln.take()
	if err != nil {
		c.Err = errno(err)
		return true
	}
	got := b.connected(conn)
	undoDefaults(conn)
	if e.spec != nil {
		for _, o := range e.spec.Options {
			// The listener accepted the option; a connection that does not is about to
			// report why by itself.
			_ = got.port.setOption(o.Option, o.Value)
		}
	}
	e.ln.peer = got.peer
	c.N, c.Peer = int(b.add(got)), &e.ln.peer
	return true
}

// undoDefaults undoes the options that package net sets on a connection unasked, so
// that they start out as on the other backends: with the system's defaults.
func undoDefaults(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(false)
	}
}

// A dialer is one Connect in progress.
type dialer struct {
	cancel context.CancelFunc

	mu      sync.Mutex
	conn    net.Conn
	err     error
	have    bool // conn or err is one
	stopped bool
}

// stop ends the attempt; if it has made or will make a connection, that is closed.
func (d *dialer) stop() {
	d.mu.Lock()
	d.stopped = true
	conn := d.conn
	d.conn = nil
	d.mu.Unlock()
	d.cancel()
	if conn != nil {
		_ = conn.Close()
	}
}

func (d *dialer) run(b *Backend, e *entry, spec backend.Spec, to backend.Addr) {
	name, any := network(&spec)
	dial := net.Dialer{KeepAlive: -1, Control: func(_, _ string, rc syscall.RawConn) error {
		return prepareDialer(rc, &spec)
	}}
	dial.SetMultipathTCP(false)
	address := to.Path
	switch {
	case spec.Family == backend.Inet:
		address = to.IP.String()
		if spec.Bind {
			local := spec.Local.IP
			if !local.Addr().IsValid() {
				local = netip.AddrPortFrom(any, local.Port())
			}
			dial.LocalAddr = net.TCPAddrFromAddrPort(local)
		}
	case spec.Bind:
		dial.LocalAddr = &net.UnixAddr{Net: name, Name: spec.Local.Path}
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.mu.Lock()
	d.cancel = cancel
	d.mu.Unlock()
	b.waiting.Go(func() {
		defer cancel()
		conn, err := dial.DialContext(ctx, name, address)
		d.mu.Lock()
		if d.stopped {
			d.mu.Unlock()
			if conn != nil {
				_ = conn.Close()
			}
			return
		}
		d.conn, d.err, d.have = conn, err, true
		d.mu.Unlock()
		b.notify(e)
	})
}

func (b *Backend) tryConnect(e *entry, c *backend.Completion) bool {
	switch {
	case e.port != nil:
		c.Err = errIsConnected
		return true
	case e.spec == nil || e.ln != nil || c.Op.Addr == nil || c.Op.Addr.Family != e.spec.Family:
		c.Err = errInvalid
		return true
	case e.dial == nil:
		e.dial = &dialer{}
		e.dial.run(b, e, *e.spec, *c.Op.Addr)
		return false
	}
	d := e.dial
	d.mu.Lock()
	conn, err, have := d.conn, d.err, d.have
	d.mu.Unlock()
	if !have {
		return false
	}
	e.dial = nil
	if err != nil {
		c.Err = errno(err)
		if call, ok := errors.AsType[*os.SyscallError](err); ok && call.Syscall == "bind" {
			c.Err = os.NewSyscallError("bind", c.Err) // the local address is at fault, not the route
		}
		return true
	}
	undoDefaults(conn)
	b.attach(e, conn)
	for _, o := range e.spec.Options {
		if err := e.port.setOption(o.Option, o.Value); err != nil && !errors.Is(err, backend.ErrUnsupported) {
			c.Err = errno(err)
			return true
		}
	}
	return true
}

// unspeakable finds explicit requests that package net cannot express. They are not
// silently ignored: a mark or a device may be what keeps traffic away from where it
// must not go.
func unspeakable(spec *backend.Spec) error {
	what := ""
	if spec.Device != "" {
		what = "binding to a device"
	}
	for _, o := range spec.Options {
		switch o.Option {
		case backend.Mark:
			what = "marks"
		case backend.FastOpen:
			what = "fast open"
		case backend.TrafficClass:
			what = "traffic classes"
		case backend.UserTimeout:
			if runtime.GOOS != "linux" {
				what = "user timeouts"
			}
		default:
		}
	}
	if what == "" {
		return nil
	}
	return fmt.Errorf("portable: %s: %w", what, backend.ErrUnsupported)
}
