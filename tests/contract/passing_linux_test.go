package contract

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// taker takes bytes and descriptors.
type taker struct {
	halfOpen
	t     weir.Transport
	fds   []int
	had   []int // how many bytes had come when each came
	cut   error
	batch func()
}

func (k *taker) ConnectionMade(t weir.Transport) { k.t = t }

func (k *taker) DescriptorsReceived(fds []int, err error) {
	k.cut = err
	for _, fd := range fds {
		k.fds, k.had = append(k.fds, fd), append(k.had, len(k.got))
	}
	if k.batch != nil {
		k.batch()
	}
}

func (k *taker) factory(weir.Transport) weir.Protocol { return k }

// passPair is two ends of a socket pair on one loop.
func passPair(t *testing.T, l *weir.Loop) (a, b *taker) {
	t.Helper()
	a, b = &taker{}, &taker{}
	if _, _, err := l.SocketPair(a.factory, b.factory); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// pipeToken is the write end of a pipe, and whether no one has it open any more.
func pipeToken(t *testing.T) (w int, gone func() bool) {
	t.Helper()
	r, w := pipeFDs(t)
	t.Cleanup(func() { _ = unix.Close(r) })
	return w, func() bool {
		p := []unix.PollFd{{Fd: int32(r), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n == 1 && err == nil && p[0].Revents&unix.POLLHUP != 0
	}
}

// passer is the ability of a transport to pass descriptors.
func passer(t *testing.T, tr weir.Transport) weir.DescriptorWriter {
	t.Helper()
	w, ok := weir.As[weir.DescriptorWriter](tr)
	if !ok {
		t.Fatal("it passes no descriptors")
	}
	return w
}

// TestPassed: descriptors go both ways among bytes of all sizes, come in their order and
// no later than their bytes, are close-on-exec, and no copy of them stays here (R28,
// behaviour 87).
func TestPassed(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		a, b := passPair(t, l)
		const rounds = 40
		var gone []func() bool
		for _, end := range []*taker{a, b} {
			w := passer(t, end.t)
			for i := range rounds {
				if _, err := end.t.Write(bytes.Repeat([]byte{'.'}, i*997)); err != nil {
					t.Fatal(err)
				}
				fds := make([]int, 1+i%3)
				for j := range fds {
					fd, over := pipeToken(t)
					fds[j], gone = fd, append(gone, over)
				}
				if _, err := w.WriteDescriptors([]byte(fmt.Sprintf("%d.", len(fds))), fds...); err != nil {
					t.Fatal(err)
				}
			}
			if err := end.t.WriteEOF(); err != nil {
				t.Fatal(err)
			}
		}
		turns(t, l, "all", func() bool { return a.lost && b.lost })
		for _, end := range []*taker{a, b} {
			n := 0 // descriptors that are due
			for i, c := range end.got {
				if c == '.' {
					continue
				}
				for range c - '0' {
					if n >= len(end.fds) || end.had[n] > i {
						t.Fatalf("descriptor %d came after byte %d (%v)", n, i, end.had)
					}
					n++
				}
			}
			if n != len(end.fds) || n != len(gone)/2 || end.err != nil {
				t.Errorf("%d of %d descriptors came, %v", len(end.fds), n, end.err)
			}
			for _, fd := range end.fds {
				if fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
					t.Errorf("descriptor %d: %v, %v", fd, fl, err)
				}
			}
		}
		if slices.ContainsFunc(gone, func(g func() bool) bool { return g() }) {
			t.Error("one was closed")
		}
		for _, fd := range slices.Concat(a.fds, b.fds) {
			_ = unix.Close(fd)
		}
		for i, g := range gone {
			if !g() {
				t.Errorf("descriptor %d is still open somewhere", i)
			}
		}
	})
}

// TestPassedBothFull: both ends have more to send than the system takes, and read, one of
// them as a protocol that wants no descriptors.
func TestPassedBothFull(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		deaf, b := &halfOpen{}, &taker{}
		a, _, err := l.SocketPair(deaf.factory, b.factory)
		if err != nil {
			t.Fatal(err)
		}
		const size, rounds = 1 << 20, 3
		for range rounds {
			for _, end := range []weir.Transport{a, b.t} {
				if _, err := end.Write(make([]byte, size)); err != nil {
					t.Fatal(err)
				}
				fd, _ := pipeToken(t)
				if _, err := passer(t, end).WriteDescriptors([]byte("x"), fd); err != nil {
					t.Fatal(err)
				}
			}
		}
		turns(t, l, "all bytes", func() bool { return len(deaf.got) == rounds*(size+1) && len(b.got) == rounds*(size+1) })
		if len(b.fds) != rounds {
			t.Errorf("%d descriptors came", len(b.fds))
		}
		for _, fd := range b.fds {
			_ = unix.Close(fd)
		}
		_ = a.Close()
		_ = b.t.Close()
		turns(t, l, "the ends", func() bool { return deaf.lost && b.lost })
	})
}

// TestPassedUnwanted: descriptors that no one wants are closed: those for a protocol that
// does not take them, for a layer, for a closing transport, and those that wait when the
// connection dies or is closed by the peer (bug 12).
func TestPassedUnwanted(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		deaf := &halfOpen{}
		over := &halfOpen{}
		for name, f := range map[string]weir.Factory{
			"a protocol": deaf.factory,
			"a layer": func(weir.Transport) weir.Protocol {
				return layer.Client(over, layer.Idle(layer.IdleConfig{}))
			},
		} {
			a := &taker{}
			if _, _, err := l.SocketPair(a.factory, f); err != nil {
				t.Fatal(err)
			}
			fd, gone := pipeToken(t)
			if _, err := passer(t, a.t).WriteDescriptors([]byte("x"), fd); err != nil {
				t.Fatal(err)
			}
			turns(t, l, "the end of what came for "+name, gone)
			a.t.Abort()
		}

		for name, end := range map[string]func(a, b *taker){
			"we abort":          func(a, _ *taker) { a.t.Abort() },
			"the peer aborts":   func(_, b *taker) { b.t.Abort() },
			"the peer closes":   func(_, b *taker) { _ = b.t.Close() },
			"our protocol ends": func(a, _ *taker) { _ = a.t.Close(); a.t.Abort() },
		} {
			a, b := passPair(t, l)
			b.t.PauseReading()
			if _, err := a.t.Write(make([]byte, 4<<20)); err != nil {
				t.Fatal(err)
			}
			fd, gone := pipeToken(t)
			if _, err := passer(t, a.t).WriteDescriptors([]byte("x"), fd); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := l.Turn(0); err != nil {
					t.Fatal(err)
				}
			}
			if gone() {
				t.Fatalf("%s: it was closed before", name)
			}
			end(a, b)
			turns(t, l, "the end of what waited, when "+name, gone)
			b.t.Abort()
			turns(t, l, "both ends", func() bool { return a.lost && b.lost })
		}

		// Passing them fails: the peer is gone.
		a, b := passPair(t, l)
		a.t.PauseReading()
		b.t.Abort()
		fd, gone := pipeToken(t)
		if _, err := passer(t, a.t).WriteDescriptors([]byte("x"), fd); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the end of what could not be passed", gone)
		a.t.Abort()
		turns(t, l, "the end", func() bool { return a.lost })
	})
}

// TestPassedRefused: what cannot be passed is refused at once, and stays the caller's.
func TestPassedRefused(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		a, b := passPair(t, l)
		w := passer(t, a.t)
		fd, gone := pipeToken(t)
		for name, c := range map[string]struct {
			p    string
			fds  []int
			want error
		}{
			"without a byte": {"", []int{fd}, weir.ErrNoBytes},
			"one too many":   {"x", slices.Repeat([]int{fd}, 254), weir.ErrTooManyDescriptors},
			"a closed one":   {"x", []int{fd, 1 << 20}, syscall.EBADF},
		} {
			if _, err := w.WriteDescriptors([]byte(c.p), c.fds...); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		b.t.PauseReading()
		if _, err := a.t.Write(make([]byte, 4<<20)); err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			own := dupFD(t, fd)
			if _, err := w.WriteDescriptors([]byte("x"), own); err != nil {
				if !errors.Is(err, weir.ErrTooManyDescriptors) {
					t.Error(err)
				}
				_ = unix.Close(own)
				break
			}
		}
		if n != 1024 {
			t.Errorf("%d wait", n)
		}
		b.t.ResumeReading()
		turns(t, l, "all of them", func() bool { return len(b.fds) == n })
		for _, fd := range b.fds {
			_ = unix.Close(fd)
		}
		if gone() {
			t.Error("ours was closed")
		}
		_ = unix.Close(fd)
		if !gone() {
			t.Error("it is open elsewhere")
		}

		tcp := &taker{}
		ln, err := l.Listen("tcp", "127.0.0.1:0", tcp.factory)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c := dial(t, ln.Addr(), 1)
		defer func() { _ = c[0].Close() }()
		turns(t, l, "a connection", func() bool { return tcp.t != nil })
		if _, err := passer(t, tcp.t).WriteDescriptors([]byte("x"), 0); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("over TCP: %v", err)
		}
		tcp.t.Abort()
		a.t.Abort()
		b.t.Abort()
		turns(t, l, "the ends", func() bool { return a.lost && b.lost && tcp.lost })
	})
}

// TestPassedPaused: descriptors wait in the system while reading is paused, and 253 come
// at once.
func TestPassedPaused(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		a, b := passPair(t, l)
		b.t.PauseReading()
		fds := make([]int, 253)
		fd, gone := pipeToken(t)
		for i := range fds {
			fds[i] = dupFD(t, fd)
		}
		_ = unix.Close(fd)
		if _, err := passer(t, a.t).WriteDescriptors([]byte("all"), fds...); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		if len(b.fds) > 0 || gone() {
			t.Fatal("they came while reading was paused, or are gone")
		}
		b.batch = b.t.PauseReading // in the middle: the bytes wait
		b.t.ResumeReading()
		turns(t, l, "them", func() bool { return len(b.fds) > 0 })
		if len(b.fds) != 253 || len(b.got) > 0 || b.cut != nil {
			t.Errorf("%d came, and %q, %v", len(b.fds), b.got, b.cut)
		}
		b.batch = nil
		b.t.ResumeReading()
		turns(t, l, "the bytes", func() bool { return string(b.got) == "all" })
		for _, fd := range b.fds {
			_ = unix.Close(fd)
		}
		if !gone() {
			t.Error("one is left")
		}
		a.t.Abort()
		b.t.Abort()
		turns(t, l, "the ends", func() bool { return a.lost && b.lost })
	})
}

// TestDetach: a connection is given away inside ConnectionMade with all its bytes.
func TestDetach(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		given := &giver{}
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return given })
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c := dial(t, ln.Addr(), 1)[0]
		if _, err := c.Write([]byte("early")); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the end of the transport", func() bool { return given.lost })
		if given.errDetach != nil || given.err != nil {
			t.Fatal(given.errDetach, given.err)
		}
		own := &taker{}
		if _, err := l.Attach(given.fd, "given", own.factory); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the bytes", func() bool { return string(own.got) == "early" })
		d, ok := weir.As[weir.Detacher](own.t)
		if !ok {
			t.Fatal("it is no Detacher")
		}
		if _, err := d.Detach(); err == nil {
			t.Error("Detach works after bytes were read")
		}
		_ = c.Close()
		own.t.Abort()
		turns(t, l, "the end", func() bool { return own.lost })
	})
}

type giver struct {
	halfOpen
	fd        int
	errDetach error
}

func (g *giver) ConnectionMade(t weir.Transport) {
	d, ok := weir.As[weir.Detacher](t)
	if !ok {
		g.errDetach = errors.New("it is no Detacher")
		return
	}
	g.fd, g.errDetach = d.Detach()
}

// TestPeerCredentials: who is at the other end of a UNIX socket, also through a layer; TCP
// does not say.
func TestPeerCredentials(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		dir, err := os.MkdirTemp("", "peer")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "s")
		server := &taker{}
		ln, err := l.Listen("unix", path, func(weir.Transport) weir.Protocol {
			return layer.Client(server, layer.Idle(layer.IdleConfig{}))
		})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		turns(t, l, "a connection", func() bool { return server.t != nil })
		p, ok := weir.As[weir.Peered](server.t)
		if !ok {
			t.Fatal("it does not know its peer")
		}
		who, err := p.PeerCredentials()
		if err != nil || who.PID != os.Getpid() || int(who.UID) != os.Getuid() || int(who.GID) != os.Getgid() {
			t.Errorf("%+v, %v", who, err)
		}
		have, err := os.Getgroups()
		if err != nil {
			t.Fatal(err)
		}
		groups, err := p.PeerGroups()
		if err != nil || !slices.Contains(groups, who.GID) || slices.ContainsFunc(have, func(g int) bool { return !slices.Contains(groups, uint32(g)) }) {
			t.Errorf("groups %v, want %v; %v", groups, have, err)
		}
		_ = c.Close()
		server.t.Abort()
		turns(t, l, "the end", func() bool { return server.lost })
		if _, err := p.PeerCredentials(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("after the end: %v", err)
		}
	})
}
