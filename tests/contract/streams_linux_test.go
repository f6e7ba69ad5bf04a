package contract

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/backendtest"
	"github.com/weir-io/weir/process"
	"github.com/weir-io/weir/weirtest"
)

// sides are the descriptors of two connected ends, each with one to read from and one to
// write to.
type sides struct{ server, client [2]int }

// descriptorStream is a kind of stream that is made of descriptors.
type descriptorStream struct {
	name string
	make func(t *testing.T) sides
	// lacks is what the kind cannot do.
	lacks func(s *weirtest.Streams)
}

var descriptorStreams = []descriptorStream{
	{"pipes", pipes, watched},
	{"named pipes", namedPipes, watched},
	{"terminals", terminals, func(s *weirtest.Streams) { s.HalfClose, s.HangsUp, s.Unnoticed = false, true, true }},
}

// TestDescriptorStreams runs what stream transports promise on pipes, named pipes,
// pseudo-terminals and UNIX sockets that pass descriptors, on every backend (R2, R28,
// behaviours 20 to 47).
func TestDescriptorStreams(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		for _, d := range descriptorStreams {
			t.Run(d.name, func(t *testing.T) { weirtest.TestStreams(t, d.streams(backend)) })
		}
		t.Run("passing", func(t *testing.T) {
			weirtest.TestStreams(t, func(t *testing.T) *weirtest.Streams {
				s := weirtest.LoopStreams("pair", weir.WithBackendName(backend))(t)
				s.Descriptor = descriptorSource(t)
				return s
			})
		})
	})
}

// watched: the reader of one pipe is gone before the other is closed.
func watched(s *weirtest.Streams) { s.Watched = true }

// streams makes what a case of the suite runs on.
func (d *descriptorStream) streams(backend string) weirtest.Maker {
	return func(t *testing.T) *weirtest.Streams {
		s := weirtest.LoopStreams("pair", weir.WithBackendName(backend))(t)
		if d.lacks != nil {
			d.lacks(s)
		}
		s.Connect = func(server weir.Factory, client weir.Protocol, opts ...weir.StreamOption) {
			t.Helper()
			e := d.make(t)
			if backend == "portable" {
				// It cannot take a goroutine back that waits in a read.
				for _, fd := range []int{e.server[0], e.server[1], e.client[0], e.client[1]} {
					if err := unix.SetNonblock(fd, true); err != nil {
						t.Fatal(err)
					}
				}
			}
			attach := func(fds [2]int, f weir.Factory) {
				t.Helper()
				_, err := s.Server.AttachPair(fds[0], fds[1], d.name, f, weir.JoinOptions(opts...))
				if err != nil && !errors.Is(err, weir.ErrClosed) {
					t.Fatal(err)
				}
			}
			attach(e.server, server)
			attach(e.client, func(weir.Transport) weir.Protocol { return client })
		}
		return s
	}
}

// pipes are two, in blocking mode as those of programs are.
func pipes(t *testing.T) (e sides) {
	e.client[0], e.server[1] = pipeFDs(t)
	e.server[0], e.client[1] = pipeFDs(t)
	return e
}

// namedPipes are two with names.
func namedPipes(t *testing.T) (e sides) {
	dir := t.TempDir()
	one := func(name string) (r, w int) {
		path := filepath.Join(dir, name)
		err := unix.Mkfifo(path, 0o600)
		if err == nil {
			r, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		}
		if err == nil {
			w, err = unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	e.client[0], e.server[1] = one("to client")
	e.server[0], e.client[1] = one("to server")
	return e
}

// terminals are the ends of a pseudo-terminal in raw mode; the server has the master.
func terminals(t *testing.T) (e sides) {
	master, slave := backendtest.Terminal(t)
	if _, err := process.Raw(slave); err != nil {
		t.Fatal(err)
	}
	return sides{[2]int{master, master}, [2]int{slave, slave}}
}

// descriptorSource makes descriptors to pass, and checks at the end of a case that none is
// left open anywhere.
func descriptorSource(t *testing.T) func() int {
	r, w := pipeFDs(t)
	t.Cleanup(func() {
		_ = unix.Close(w)
		p := []unix.PollFd{{Fd: int32(r), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 10_000); n != 1 || err != nil || p[0].Revents&unix.POLLHUP == 0 {
			t.Errorf("a descriptor that was passed is left open (%d, %v)", n, err)
		}
		_ = unix.Close(r)
	})
	return func() int { return dupFD(t, w) }
}

// stdioChild is set in the process that TestStandardStreams starts.
const stdioChild = "WEIR_TEST_STDIO"

// TestStandardStreams runs the stream suite on standard input and output in a process of
// its own: one end is on descriptors 0 and 1, which are pipes, a socket or a terminal in
// blocking mode that the process has inherited, and whose numbers stay open.
func TestStandardStreams(t *testing.T) {
	if os.Getenv(stdioChild) != "" {
		standardStreams(t)
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestStandardStreams$", "-test.timeout=5m")
	c.Env = append(os.Environ(), stdioChild+"=1")
	c.Stdin, c.Stdout = nil, nil
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = out
	err = c.Run()
	said, readErr := os.ReadFile(out.Name())
	if err := errors.Join(err, readErr, out.Close()); err != nil {
		t.Errorf("%v:\n%s", err, said)
	}
	if !strings.Contains(string(said), "suites: ") {
		t.Errorf("it did not run:\n%s", said)
	}
}

// standardStreams is the child. What it reports goes to standard error.
func standardStreams(t *testing.T) {
	os.Stdout = os.Stderr
	ran := 0
	onBackends(t, func(t *testing.T, backend string) {
		for _, d := range append(descriptorStreams, descriptorStream{name: "socket", make: func(t *testing.T) (e sides) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return sides{[2]int{fds[0], fds[0]}, [2]int{fds[1], fds[1]}}
		}}) {
			from := d.make
			d.make = func(t *testing.T) sides {
				e := from(t)
				e.client = standard(t, e.client)
				return e
			}
			t.Run(d.name, func(t *testing.T) { weirtest.TestStreams(t, d.streams(backend)) })
			ran++
		}
	})
	fmt.Fprintln(os.Stderr, "suites: "+strconv.Itoa(ran))
}

// standard moves two descriptors to 0 and 1, unless one that was moved there before is
// still in use.
func standard(t *testing.T, fds [2]int) [2]int {
	t.Helper()
	for to, fd := range fds {
		var st unix.Stat_t
		null := unix.Fstat(to, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
		if !null {
			return fds
		}
		if err := unix.Dup3(fd, to, 0); err != nil {
			t.Fatal(err)
		}
	}
	_ = unix.Close(fds[0])
	if fds[1] != fds[0] {
		_ = unix.Close(fds[1])
	}
	return [2]int{0, 1}
}
