package contract

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/backendtest"
)

// halfOpen is a protocol that continues after the end of the peer's stream.
type halfOpen struct {
	weir.NopProtocol
	got   []byte
	ended bool
	lost  bool
	err   error
}

func (h *halfOpen) DataReceived(p []byte) (int, error) {
	h.got = append(h.got, p...)
	return len(p), nil
}
func (h *halfOpen) EOFReceived(int) (bool, error) { h.ended = true; return true, nil }
func (h *halfOpen) ConnectionLost(err error)      { h.lost, h.err = true, err }

func (h *halfOpen) factory(weir.Transport) weir.Protocol { return h }

func pipeFDs(t *testing.T) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

func socketFDs(t *testing.T) (own int, peer *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "peer")
	t.Cleanup(func() { _ = f.Close() }) // a test may have closed it
	return fds[0], f
}

func dupFD(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestAdoptedDuplicate: the peer of an adopted connection hears of our end although a duplicate
// elsewhere keeps the connection open, also where the peer's own end came first.
func TestAdoptedDuplicate(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		peer, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close() // the duplicate
		f, err := accepted.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := &ending{}
		if _, err := l.Attach(dupFD(t, int(f.Fd())), "ours", p.factory); err != nil {
			t.Fatal(err)
		}
		if err := peer.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "ConnectionLost", func() bool { return p.lost })
		if p.err != nil {
			t.Errorf("lost with %v", p.err)
		}
		_ = peer.SetReadDeadline(time.Now().Add(5 * time.Second))
		if b, err := io.ReadAll(peer); string(b) != "bye" || err != nil {
			t.Errorf("the peer read %q, %v", b, err)
		}
	})
}

// ending is a protocol that answers the end of the peer's stream and ends its own.
type ending struct {
	halfOpen
	t weir.Transport
}

func (e *ending) ConnectionMade(t weir.Transport) { e.t = t }

func (e *ending) EOFReceived(int) (bool, error) {
	_, err := e.t.Write([]byte("bye"))
	return true, errors.Join(err, e.t.WriteEOF())
}

func (e *ending) factory(weir.Transport) weir.Protocol { return e }

// TestReaderGoneIdle: the reader of our output goes away while nothing is
// written, and the connection is lost (behaviour 59), whatever the other
// direction is and does.
func TestReaderGoneIdle(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T) (r, w int, leave func())
	}{
		{"pipe", func(t *testing.T) (int, int, func()) {
			r, w := pipeFDs(t)
			return -1, w, func() { _ = unix.Close(r) }
		}},
		{"pipes", func(t *testing.T) (int, int, func()) {
			in, keep := pipeFDs(t)
			r, w := pipeFDs(t)
			t.Cleanup(func() { _ = unix.Close(keep) })
			return in, w, func() { _ = unix.Close(r) }
		}},
		{"pipe and file", func(t *testing.T) (int, int, func()) {
			in, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			r, w := pipeFDs(t)
			return in, w, func() { _ = unix.Close(r) }
		}},
		{"pipe and socket", func(t *testing.T) (int, int, func()) {
			in, keep := pipeFDs(t)
			t.Cleanup(func() { _ = unix.Close(keep) })
			w, peer := socketFDs(t)
			return in, w, func() { _ = peer.Close() }
		}},
		{"socket alone", func(t *testing.T) (int, int, func()) {
			w, peer := socketFDs(t)
			return -1, w, func() { _ = peer.Close() }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onRealLoops(t, func(t *testing.T, l *weir.Loop) {
				r, w, leave := c.make(t)
				p := &halfOpen{}
				if _, err := l.AttachPair(r, w, "pair", p.factory); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if err := l.Turn(0); err != nil {
						t.Fatal(err)
					}
				}
				if p.lost {
					t.Fatalf("lost at once: %v", p.err)
				}
				leave()
				turns(t, l, "ConnectionLost", func() bool { return p.lost })
				if !errors.Is(p.err, syscall.EPIPE) {
					t.Errorf("lost with %v, want EPIPE", p.err)
				}
			})
		})
	}
}

// TestOneSocketTwice: a socket that is passed as both directions, as inetd does,
// is one stream: the end of writing reaches the peer, and what the peer sends
// afterwards still arrives.
func TestOneSocketTwice(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		fd, peer := socketFDs(t)
		p := &halfOpen{}
		tr, err := l.AttachPair(fd, dupFD(t, fd), "inetd", p.factory)
		if err != nil {
			t.Fatal(err)
		}
		if !tr.CanWriteEOF() {
			t.Fatal("it cannot end its writing")
		}
		if _, err := tr.Write([]byte("bye")); err != nil {
			t.Fatal(err)
		}
		if err := tr.WriteEOF(); err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(peer) // only what was read counts
			_, _ = peer.WriteString("late")
			_ = peer.Close()
			heard <- string(b)
		}()
		turns(t, l, "the peer's answer and its end", func() bool { return p.lost })
		if got := <-heard; got != "bye" || string(p.got) != "late" || p.err != nil {
			t.Errorf("the peer got %q, we got %q and %v", got, p.got, p.err)
		}
	})
}

// TestSpliceOfBlocking: a socket that was passed in blocking mode, as inetd passes
// them, is not spliced in either direction: the system call would wait in it, and a
// splice that has begun could not continue.
func TestSpliceOfBlocking(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		var ends [2]weir.Transport
		for i := range ends {
			fd, _ := socketFDs(t)
			if err := unix.SetNonblock(fd, i == 1); err != nil {
				t.Fatal(err)
			}
			p := &halfOpen{}
			tr, err := l.Attach(fd, "socket", p.factory)
			if err != nil {
				t.Fatal(err)
			}
			ends[i] = tr
		}
		for i, from := range ends {
			sp, ok := weir.As[weir.Splicer](from)
			if !ok {
				t.Fatal("it is no Splicer")
			}
			if err := sp.SpliceTo(ends[1-i], func(int64, error) {}); !errors.Is(err, weir.ErrNoSplice) {
				t.Errorf("from end %d, of which the first blocks: %v, want ErrNoSplice", i, err)
			}
		}
	})
}

// TestPeerDeparted: for a UNIX socket, and for a terminal, weir can tell whether
// the peer has ended its writing or has gone altogether. If it has gone, weir waits
// for nothing.
func TestPeerDeparted(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		fd, peer := socketFDs(t)
		p := &halfOpen{}
		tr, err := l.Attach(fd, "socket", p.factory)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := peer.SyscallConn()
		if err == nil {
			err = errors.Join(err, raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) }))
		}
		if err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the end of the peer's writing", func() bool { return p.ended })
		if _, err := tr.Write([]byte("reply")); err != nil || p.lost {
			t.Fatalf("it takes half an end for a whole one: %v, %v", err, p.err)
		}
		b := make([]byte, len("reply"))
		go func() {
			_, _ = io.ReadFull(peer, b) // the test waits for the close
			_ = peer.Close()
		}()
		turns(t, l, "ConnectionLost", func() bool { return p.lost })
		if p.err != nil {
			t.Errorf("lost with %v, want a clean end", p.err)
		}

		master, slave := backendtest.Terminal(t)
		p = &halfOpen{}
		if _, err := l.AttachPair(slave, dupFD(t, slave), "terminal", p.factory); err != nil {
			t.Fatal(err)
		}
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(master)
		turns(t, l, "the loss of a terminal that hung up", func() bool { return p.lost })
	})
}
