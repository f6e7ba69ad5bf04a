package epoll

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/backendtest"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

// child is the variable that tells a process started by these tests what to do.
const child = "WEIR_EPOLL_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(child) {
	case "":
		os.Exit(m.Run())
	case "broken":
		os.Exit(writeBroken())
	case "close":
		os.Exit(closeStandard())
	}
	os.Exit(9)
}

func startChild(t *testing.T, what string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), child+"="+what)
	return cmd
}

// TestNoSIGPIPE: writing to a standard output that no one reads is an error and does
// not kill the process, neither through a reopened descriptor nor through number 1
// itself (R25).
func TestNoSIGPIPE(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := startChild(t, "broken")
	cmd.Stdout = w
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the writer of a broken standard output ended with %v", err)
	}
}

// writeBroken is a child whose standard output has no reader.
func writeBroken() int {
	b, err := New(false)
	if err != nil {
		return 2
	}
	// The parent may not have closed its end yet.
	p := []unix.PollFd{{Fd: 1}}
	if _, err := unix.Poll(p, 5000); err != nil || p[0].Revents&unix.POLLERR == 0 {
		return 3
	}
	if _, errno := sys.WriteSlow(1, []byte("x")); errno != unix.EPIPE {
		return 4
	}
	if _, errno := sys.Write(1, []byte("x")); errno != unix.EPIPE {
		return 5
	}
	h, err := b.Adopt(1)
	if err != nil || h == 1 {
		return 6
	}
	var c backend.Completion
	if !b.Submit(&backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{[]byte("x")}}, &c) || !errors.Is(c.Err, unix.EPIPE) {
		return 7
	}
	return 0
}

// TestCloseStandardOutput: closing the handle of an adopted standard output shows its
// reader the end while the process lives on, and anything printed afterwards is lost.
func TestCloseStandardOutput(t *testing.T) {
	cmd := startChild(t, "close")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(out) // ends before the child does
	if err != nil || string(got) != "said" {
		t.Errorf("read %q, %v", got, err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func closeStandard() int {
	b, err := New(true)
	if err != nil {
		return 2
	}
	h, err := b.Adopt(1)
	if err != nil {
		return 3
	}
	var c backend.Completion
	if !b.Submit(&backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{[]byte("said")}}, &c) || c.N != 4 {
		return 4
	}
	if err := b.Shut(h, backend.CloseFlat); err != nil {
		return 5
	}
	if _, err := os.Stdout.WriteString("unsaid"); err != nil {
		return 6
	}
	fd, err := unix.Dup(0)
	if err != nil {
		return 7
	}
	if fd <= 2 {
		return 8 // the number became free
	}
	if _, err := io.ReadAll(os.Stdin); err != nil {
		return 10
	}
	return 0
}

// TestTerminal: a terminal is a stream on both sides; the flags of the side
// that other processes share stay as they were, and the end of the other side
// is the end of the stream, after the data (behaviour 60, R27).
func TestTerminal(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		m, s := backendtest.Terminal(t)
		shared, err := unix.Dup(s)
		if err != nil {
			t.Fatal(err)
		}
		before, _ := unix.FcntlInt(uintptr(shared), unix.F_GETFL, 0)
		master, slave := adopt(t, b, m), adopt(t, b, s)
		if after, _ := unix.FcntlInt(uintptr(shared), unix.F_GETFL, 0); after != before {
			t.Errorf("the flags of a shared terminal went from %#x to %#x", before, after)
		}
		unix.Close(shared)
		atMaster := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: master}
		atSlave := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: slave}
		submit(t, b, atMaster)
		submit(t, b, atSlave)
		send(t, b, master, "one\ntwo\n")
		var line, screen []byte
		for len(line) < 8 || len(screen) < 10 {
			got := wait(t, b, time.Second)
			if len(got) == 0 {
				t.Fatalf("typed %q, shown %q", line, screen)
			}
			for _, c := range got {
				if c.Op == atSlave {
					line = append(line, c.Buf...)
				} else {
					screen = append(screen, c.Buf...)
				}
			}
		}
		if string(line) != "one\ntwo\n" || string(screen) != "one\r\ntwo\r\n" {
			t.Errorf("typed %q, shown %q", line, screen)
		}
		b.Cancel(atSlave)
		// More than the line discipline hands over at once.
		last := strings.Repeat("last words", 900)
		for rest := []byte(last); len(rest) > 0; { // a signal to the thread ends a terminal's write early
			var c backend.Completion
			if !b.Submit(&backend.Op{Kind: backend.Write, Handle: slave, Vec: [][]byte{rest}}, &c) || c.Err != nil {
				t.Fatalf("write: %+v", c)
			}
			rest = rest[c.N:]
		}
		if err := b.Shut(slave, backend.CloseFlat); err != nil {
			t.Fatal(err)
		}
		screen = nil
		for {
			got := wait(t, b, time.Second)
			if len(got) != 1 || got[0].Err != nil {
				t.Fatalf("at the end: %+v", got)
			}
			screen = append(screen, got[0].Buf...)
			if got[0].N == 0 {
				break
			}
		}
		if string(screen) != last {
			t.Errorf("before the end: %d bytes, want %d", len(screen), len(last))
		}
	})
}

// TestPolled: a pipe in blocking mode that cannot be reopened, such as another user's,
// moves its bytes without blocking the loop.
func TestPolled(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		in, err := b.take(p[0], sys.Polled, 0)
		if err != nil {
			t.Fatal(err)
		}
		out, err := b.take(p[1], sys.Polled, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
		rest := want
		wr := &backend.Op{Kind: backend.Write, Handle: backend.Handle(out.fd)}
		rd := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: backend.Handle(in.fd)}
		var got []byte
		var c backend.Completion
		start := time.Now()
		for len(got) < len(want) {
			if time.Since(start) > 30*time.Second {
				t.Fatalf("%d of %d bytes arrived", len(got), len(want))
			}
			for !wr.Armed() && len(rest) > 0 {
				wr.Vec = [][]byte{rest}
				if b.Submit(wr, &c) {
					if c.Err != nil || c.N > sys.PipeAtomic {
						t.Fatalf("write: %d, %v", c.N, c.Err)
					}
					rest = rest[c.N:]
				}
			}
			if !rd.Armed() {
				submit(t, b, rd) // only now: the pipe is full
			}
			for _, c := range wait(t, b, time.Second) {
				if c.Err != nil {
					t.Fatal(c.Err)
				}
				if c.Op == wr {
					rest = rest[c.N:]
				} else {
					got = append(got, c.Buf...)
				}
			}
		}
		if !bytes.Equal(got, want) {
			t.Error("bytes differ")
		}
		if err := b.Shut(backend.Handle(out.fd), backend.CloseFlat); err != nil {
			t.Fatal(err)
		}
		if end := wait(t, b, time.Second); len(end) != 1 || end[0].N != 0 || end[0].Err != nil {
			t.Errorf("at the end: %+v", end)
		}
	})
}

// TestDevices: a device that epoll cannot watch is always ready.
func TestDevices(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		for _, path := range []string{"/dev/null", "/dev/zero"} {
			fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			h := adopt(t, b, fd)
			send(t, b, h, "away")
			op := &backend.Op{Kind: backend.Read, Handle: h}
			submit(t, b, op)
			got := wait(t, b, time.Second)
			if len(got) != 1 || got[0].Err != nil || (got[0].N == 0) != (path == "/dev/null") {
				t.Errorf("%s: %+v", path, got)
			}
			if err := b.Shut(h, backend.CloseFlat); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestAdoptListener: a listener that was passed in does not make accept wait, although
// it was in blocking mode.
func TestAdoptListener(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 8); err != nil {
			t.Fatal(err)
		}
		l := adopt(t, b, fd)
		addr, err := b.Name(l, false)
		if err != nil {
			t.Fatal(err)
		}
		c, s := dialTCP(t, b, l, addr)
		submit(t, b, &backend.Op{Kind: backend.Accept, Flags: backend.Multi, Handle: l})
		submit(t, b, &backend.Op{Kind: backend.Read, Handle: s})
		send(t, b, c, "x")
		if got := wait(t, b, time.Second); len(got) != 1 || string(got[0].Buf) != "x" {
			t.Errorf("got %+v", got)
		}
		if _, err := b.Adopt(int(l)); !errors.Is(err, unix.EEXIST) {
			t.Errorf("adopting a handle: %v, want EEXIST", err)
		}
	})
}
