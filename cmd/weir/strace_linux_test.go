package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"golang.org/x/sys/unix"
)

// strace starts weir as a process whose system calls strace watches, and
// perhaps makes fail. options are strace's, trace is where it writes. weir is
// still our own child, so its signals and its end reach us.
func strace(t *testing.T, backend, options string, p *process) (trace string) {
	t.Helper()
	if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != backend {
		t.Skip("WEIR_BACKEND asks for ", asked)
	}
	exe, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	trace = filepath.Join(t.TempDir(), "trace")
	args := append([]string{"-D", "-I1", "-f", "-o", trace}, strings.Fields(options)...)
	args = append(append(args, p.Path), p.Args[1:]...)
	env, stdin, stdout := append(p.Env, "WEIR_BACKEND="+backend), p.Stdin, p.Stdout
	for {
		p.Cmd = exec.Command(exe, args...)
		p.Env, p.Stdin, p.Stdout = env, stdin, stdout
		p.begin()
		if !p.gaveUp() {
			break
		}
		if s, ok := stdin.(io.Seeker); ok {
			_, _ = s.Seek(0, io.SeekStart) // the tests' are texts
		}
		p.grown, p.ended, p.err = make(chan struct{}, 1), make(chan struct{}), nil
	}
	p.line("", 1) // the first line of either
	if said := p.said(); strings.Contains(said, "PTRACE") {
		t.Skip("strace is not allowed here: ", said)
	}
	return trace
}

// gaveUp reports whether a traced process ended before its first line because its
// tracer did not come in time: strace -D allows 3 s, and a busy machine may need more.
func (p *process) gaveUp() bool {
	p.t.Helper()
	select {
	case <-p.grown:
	case <-p.ended:
		s, ok := p.ProcessState.Sys().(syscall.WaitStatus)
		return ok && s.Signaled() && s.Signal() == syscall.SIGALRM
	case <-time.After(patience):
		p.t.Fatal("strace says nothing")
	}
	return false
}

// summary reads what strace -c counted once the process has ended: calls and
// failed ones, by name.
func summary(t *testing.T, file string) (calls, failed map[string]int) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	calls, failed = map[string]int{}, map[string]int{}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		n, err := strconv.Atoi(f[3])
		if err != nil {
			continue // the heading
		}
		name := f[len(f)-1]
		if name == "total" {
			continue
		}
		calls[name] = n
		if len(f) == 6 {
			if failed[name], err = strconv.Atoi(f[4]); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
	}
	return calls, failed
}

// echoServer sends everything back.
func echoServer(t *testing.T) string {
	return server(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
}

// TestSteadyTraffic counts the system calls of a whole relay: a message costs
// one read and one write, and no epoll_ctl (R20).
func TestSteadyTraffic(t *testing.T) {
	for _, backend := range []string{"epoll", "epoll-et"} {
		t.Run(backend, func(t *testing.T) {
			const messages = 500
			p := prepare(t, "weir", "tcp-listen:127.0.0.1:0", echoServer(t))
			trace := strace(t, backend, "-c", p)
			c := dial(t, p.listening())
			b := make([]byte, 64)
			for i := range messages {
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c, b); err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
			}
			p.signal(os.Interrupt)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if code := p.end(); code != exitOK {
				t.Errorf("code %d", code)
			}
			calls, _ := summary(t, trace)
			t.Logf("%d messages there and back: %d recvfrom, %d sendto, %d epoll_pwait, %d epoll_ctl in the life of the process",
				messages, calls["recvfrom"], calls["sendto"], calls["epoll_pwait"], calls["epoll_ctl"])
			// Each message passes twice; the rest is setup and teardown.
			for _, name := range []string{"recvfrom", "sendto"} {
				if n := calls[name] - 2*messages; n < 0 || n > 20 {
					t.Errorf("%d %s for %d messages", calls[name], name, 2*messages)
				}
			}
			if n := calls["epoll_ctl"]; n == 0 || n > 25 {
				t.Errorf("%d epoll_ctl for one connection", n)
			}
		})
	}
}

// TestUTPBatches: the packets of uTP leave many by one call, and those of one size as
// one message that the kernel takes apart (UDP GSO), on epoll. 8 MiB are 5,800 packets.
func TestUTPBatches(t *testing.T) {
	sink := start(t, "utp-listen:127.0.0.1:0", "discard")
	p := prepare(t, "weir", "-", "utp:"+sink.listening())
	p.Stdin = bytes.NewReader(make([]byte, 8<<20))
	trace := strace(t, "epoll", "-e trace=sendmmsg", p)
	if code := p.end(); code != exitOK {
		t.Fatalf("code %d", code)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	calls := bytes.Count(b, []byte("sendmmsg("))
	joined := bytes.Count(b, []byte("cmsg_type=0x67")) + bytes.Count(b, []byte("cmsg_type=UDP_SEGMENT"))
	t.Logf("%d calls, %d messages of several packets", calls, joined)
	if calls == 0 || calls > 1500 {
		t.Errorf("%d calls", calls)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT); err == nil && joined < 30 {
		t.Errorf("%d messages of several packets", joined)
	}
}

// TestInterrupted makes a third of the calls that wait or move bytes fail with
// EINTR: neither side notices (R25).
func TestInterrupted(t *testing.T) {
	const calls = "read,write,readv,writev,recvfrom,sendto,recvmsg,sendmsg,splice,accept4,epoll_wait,epoll_pwait,epoll_pwait2,io_uring_enter"
	const options = "-c -e trace=" + calls + " -e inject=" + calls + ":error=EINTR:when=2+3"
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)
	for _, backend := range []string{"epoll", "epoll-et", "uring", "portable"} {
		t.Run(backend, func(t *testing.T) {
			p := prepare(t, "weir", "tcp-listen:127.0.0.1:0", echoServer(t))
			trace := strace(t, backend, options, p)
			var wg sync.WaitGroup
			for i := range 5 {
				c := dial(t, p.listening())
				wg.Go(func() {
					for j := range 20 {
						line := fmt.Sprintf("message %d of %d", j, i)
						got := make([]byte, len(line))
						if err := write(c, line); err != nil {
							t.Error(err)
						}
						if _, err := io.ReadFull(c, got); err != nil || string(got) != line {
							t.Errorf("got %q, %v", got, err)
							return
						}
					}
					wg.Go(func() {
						_, _ = c.Write(data) // what arrives is looked at
						_ = c.CloseWrite()
					})
					if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%d of %d bytes came back, %v", len(got), len(data), err)
					}
					_ = c.Close() // both directions have ended
				})
			}
			wg.Wait()
			p.line("close #5", 1)
			p.signal(os.Interrupt)
			if code := p.end(); code != exitOK {
				t.Errorf("code %d", code)
			}
			interrupted(t, p, trace)

			// The same with pipes.
			p = prepare(t, "weir", "-", server(t, answer(strings.ToUpper)))
			p.Stdin = strings.NewReader(strings.Repeat("some words ", 100_000))
			var out bytes.Buffer
			p.Stdout = &out
			trace = strace(t, backend, options, p)
			if code := p.end(); code != exitOK || out.String() != strings.Repeat("SOME WORDS ", 100_000) {
				t.Errorf("code %d, %d bytes", code, out.Len())
			}
			interrupted(t, p, trace)
		})
	}
}

// interrupted checks that calls did fail and that weir did not report it.
func interrupted(t *testing.T, p *process, trace string) {
	t.Helper()
	if said := p.said(); strings.Contains(said, "interrupted") || strings.Contains(said, "EINTR") {
		t.Errorf("it says %s", said)
	}
	_, failed := summary(t, trace)
	total := 0
	for _, n := range failed {
		total += n
	}
	if total < 10 {
		t.Errorf("only %d calls failed", total)
	}
	t.Logf("failed calls: %v", failed)
}

// TestNoPipes makes every pipe fail with EMFILE, and every second one: bytes that
// would be spliced through it are copied, and nothing is lost.
func TestNoPipes(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	for _, backend := range []string{"epoll", "epoll-et", "uring"} {
		for _, when := range []string{"1+", "1+2"} {
			t.Run(backend+" "+when, func(t *testing.T) {
				p := prepare(t, "weir", "tcp-listen:127.0.0.1:0", echoServer(t))
				trace := strace(t, backend, "-c -e trace=pipe2 -e inject=pipe2:error=EMFILE:when="+when, p)
				var wg sync.WaitGroup
				for range 3 {
					c := dial(t, p.listening())
					wg.Go(func() {
						_, _ = c.Write(data) // what arrives is looked at
						_ = c.CloseWrite()
					})
					wg.Go(func() {
						if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
							t.Errorf("%d of %d bytes came back, %v", len(got), len(data), err)
						}
					})
				}
				wg.Wait()
				p.signal(os.Interrupt)
				if code := p.end(); code != exitOK {
					t.Errorf("code %d: %s", code, p.said())
				}
				if _, failed := summary(t, trace); failed["pipe2"] == 0 {
					t.Error("no pipe was asked for")
				}
			})
		}
	}
}

// TestShortageInjected makes every accept fail with EMFILE for a while. The
// relay does not spin, reports it once, and serves soon after (behaviour 73).
func TestShortageInjected(t *testing.T) {
	for _, backend := range []string{"epoll", "epoll-et", "portable"} {
		t.Run(backend, func(t *testing.T) {
			p := prepare(t, "weir", "tcp-listen:127.0.0.1:0", echoServer(t))
			trace := strace(t, backend, "-e trace=accept4 -e inject=accept4:error=EMFILE", p)
			began := time.Now()
			c := dial(t, p.listening())
			shortage(t, p, c, func() {
				// Without its tracer the process continues as if nothing had happened.
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
				if err != nil {
					t.Fatal(err)
				}
				_, rest, _ := strings.Cut(string(status), "TracerPid:\t")
				id, _, _ := strings.Cut(rest, "\n")
				tracer, err := strconv.Atoi(id)
				if err != nil || tracer == 0 {
					t.Fatalf("no tracer in %s", status)
				}
				if err := syscall.Kill(tracer, syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			})
			b, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			n, took := bytes.Count(b, []byte("INJECTED")), time.Since(began)
			if most := 40 * (1 + int(took/time.Second)); n == 0 || n > most {
				t.Errorf("accept4 failed %d times in %v, want at most %d", n, took, most)
			}
			t.Logf("accept4 failed %d times in %v", n, took)
		})
	}
}

// TestShortage takes a relay's descriptors away for real, on the backend that
// this runs on.
func TestShortage(t *testing.T) {
	loop, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	backend := loop.Backend().Name
	if err := loop.Close(); err != nil {
		t.Fatal(err)
	}
	if backend == "uring" {
		t.Skip("the kernel holds a ring's accept to the limit of when it began")
	}
	p := start(t, "tcp-listen:127.0.0.1:0", echoServer(t))
	at := p.listening()
	first := dial(t, at) // everything that is opened late is open now
	if err := write(first, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	var was unix.Rlimit
	if err := unix.Prlimit(p.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 4096}, &was); err != nil {
		t.Skip("the limit of a process cannot be set here: ", err)
	}
	c := dial(t, at)
	shortage(t, p, c, func() {
		if err := unix.Prlimit(p.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4096, Max: 4096}, nil); err != nil {
			t.Fatal(err)
		}
	})
	p.signal(os.Interrupt)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// shortage watches a relay that cannot accept c for a second, calls end, and
// expects c to be served within the next.
func shortage(t *testing.T, p *process, c *net.TCPConn, end func()) {
	t.Helper()
	p.line("no descriptors left", 1)
	cpu := func() time.Duration {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')'):]))
		user, err := strconv.Atoi(f[12])
		if err != nil {
			t.Fatal(err)
		}
		system, err := strconv.Atoi(f[13])
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(user+system) * (time.Second / 100) // USER_HZ is 100 on Linux
	}
	before := cpu()
	if err := write(c, "still there?"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !os.IsTimeout(err) {
		t.Fatalf("%d bytes, %v from a connection that cannot be accepted", n, err)
	}
	if spent := cpu() - before; spent > 300*time.Millisecond {
		t.Errorf("a second of shortage took %v of processor time: it spins (G9)", spent)
	}
	end()
	// The simulator shows that it is within a second (TestAcceptShortage), without
	// a busy machine in between.
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("still there?"))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "still there?" {
		t.Fatalf("got %q, %v", got, err)
	}
	if n := strings.Count(p.said(), "no descriptors left"); n > 2 {
		t.Errorf("it said so %d times in a second", n)
	}
}
