package contract

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/backendtest"
	"github.com/weir-io/weir/internal/race"
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
			if d.name == "named pipes" && (race.Enabled || !asked(backend)) {
				continue // to weir they are pipes
			}
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

// asked reports whether a backend is the default, or the one that WEIR_BACKEND asks for.
func asked(backend string) bool {
	return os.Getenv("WEIR_BACKEND") == backend || backend == weir.Backends()[0]
}

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
	if race.Enabled {
		t.Skip("it is what TestDescriptorStreams runs on, with other numbers")
	}
	c := exec.Command(os.Args[0], "-test.run=^TestStandardStreams$", "-test.timeout=9m")
	c.Env = append(os.Environ(), stdioChild+"=1")
	c.Stdin, c.Stdout = nil, nil
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = out
	err = c.Run()
	said, readErr := os.ReadFile(out.Name())
	said = said[:min(len(said), 4<<10)]
	if err := errors.Join(err, readErr, out.Close()); err != nil {
		t.Errorf("%v:\n%s", err, said)
	}
	if !strings.Contains(string(said), "suites: ") {
		t.Errorf("it did not run:\n%s", said)
	}
	t.Logf("%s", said)
}

// TestMain keeps package testing off standard output in that process.
func TestMain(m *testing.M) {
	if os.Getenv(stdioChild) != "" {
		os.Stdout = os.Stderr
	}
	os.Exit(m.Run())
}

// standardStreams is the child. What it reports goes to standard error.
func standardStreams(t *testing.T) {
	ran := 0
	moved := 0
	onBackends(t, func(t *testing.T, backend string) {
		if !asked(backend) {
			t.Skip("WEIR_BACKEND=" + backend + " asks for it")
		}
		for _, d := range append(descriptorStreams, descriptorStream{name: "socket", make: func(t *testing.T) (e sides) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return sides{[2]int{fds[0], fds[0]}, [2]int{fds[1], fds[1]}}
		}}) {
			if d.name == "named pipes" {
				continue
			}
			from := d.make
			d.make = func(t *testing.T) sides {
				e := from(t)
				e.client = standard(t, e.client, &moved)
				return e
			}
			t.Run(d.name, func(t *testing.T) { weirtest.TestStreams(t, d.streams(backend)) })
			ran++
		}
	})
	fmt.Fprintf(os.Stderr, "suites: %d, with %d streams on 0 and 1\n", ran, moved)
}

// standard moves two descriptors to 0 and 1, unless those are still in use.
func standard(t *testing.T, fds [2]int, moved *int) [2]int {
	t.Helper()
	for to := range fds {
		var st unix.Stat_t
		if err := unix.Fstat(to, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
			return fds
		}
	}
	for to, fd := range fds {
		if err := unix.Dup3(fd, to, 0); err != nil {
			t.Fatal(err)
		}
	}
	_ = unix.Close(fds[0])
	if fds[1] != fds[0] {
		_ = unix.Close(fds[1])
	}
	*moved++
	t.Cleanup(func() {
		// No one else may get their numbers.
		for fd := 0; fd <= 1; {
			var err error
			if fd, err = unix.Open(os.DevNull, unix.O_RDWR, 0); err != nil {
				t.Fatal(err)
			}
			if fd > 1 {
				_ = unix.Close(fd)
			}
		}
	})
	return [2]int{0, 1}
}
