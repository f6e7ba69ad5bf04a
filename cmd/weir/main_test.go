package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds a test's waits.
const patience = 60 * time.Second

// TestMain lets the test binary act as weir, or a client of it, in a process of
// its own, so that signals, exit codes, descriptors and the ends of pipes are
// real.
func TestMain(m *testing.M) {
	switch os.Getenv("WEIR_TEST_AS") {
	case "weir":
		main()
	case "weir, which panics":
		// Where no callback of the loop's is running, and in one.
		c := called()
		if os.Getenv("WEIR_TEST_PANIC") == "begin" {
			c.lookupAll = func() []string { panic("as planned") }
		} else {
			c.started = func() { panic("as planned") }
		}
		os.Exit(c.run())
	case "flood":
		flood(os.Args[1], os.Args[2])
	default:
		os.Exit(m.Run())
	}
}

func mustDuration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// process is a weir, or a helper, that runs.
type process struct {
	*exec.Cmd
	t     *testing.T
	mu    sync.Mutex
	lines []string // of standard error
	grown chan struct{}
	ended chan struct{}
	err   error
}

func prepare(t *testing.T, as string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(exe, args...), t: t, grown: make(chan struct{}, 1), ended: make(chan struct{})}
	// The race detector would have each process sleep for a second at its end.
	p.Env = append(os.Environ(), "WEIR_TEST_AS="+as, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return p
}

// start starts weir with args.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := prepare(t, "weir", args...)
	p.begin()
	return p
}

func (p *process) begin() {
	p.t.Helper()
	stderr, err := p.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	leash(p.Cmd)
	if err := p.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		sc := bufio.NewScanner(stderr)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, sc.Text())
			p.mu.Unlock()
			select {
			case p.grown <- struct{}{}:
			default:
			}
		}
		p.err = p.Wait()
		close(p.ended)
	}()
	p.t.Cleanup(func() {
		select {
		case <-p.ended:
		default:
			_ = p.Process.Kill() // it may have ended this moment
			<-p.ended
		}
		if p.t.Failed() {
			said := strings.Split(p.said(), "\n")
			p.t.Logf("%v said:\n%s", p.Args[1:], strings.Join(said[max(0, len(said)-20):], "\n"))
		}
	})
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// line waits for the n-th line of standard error that contains a word, from 1.
func (p *process) line(word string, n int) string {
	p.t.Helper()
	deadline := time.After(patience)
	for ended := false; ; {
		p.mu.Lock()
		seen := 0
		for _, l := range p.lines {
			if strings.Contains(l, word) {
				if seen++; seen == n {
					p.mu.Unlock()
					return l
				}
			}
		}
		p.mu.Unlock()
		if ended {
			p.t.Fatalf("it ended (%v) and did not say %q for the %d. time:\n%s", p.err, word, n, p.said())
		}
		select {
		case <-p.grown:
		case <-p.ended:
			ended = true // what it has printed since is searched once more
		case <-deadline:
			p.t.Fatalf("it did not say %q for the %d. time:\n%s", word, n, p.said())
		}
	}
}

// listening returns the address that a TCP listener of the process is ready on.
func (p *process) listening() string {
	p.t.Helper()
	l := p.line("ready", 1)
	_, rest, _ := strings.Cut(l, "ready ")
	addr, _, _ := strings.Cut(rest, " ")
	addr = strings.TrimSuffix(addr, ",")
	if _, _, err := net.SplitHostPort(addr); err != nil {
		p.t.Fatalf("no address in %q: %v", l, err)
	}
	return addr
}

// end waits for the process to end and returns its exit code.
func (p *process) end() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("it does not end; it said\n%s", p.said())
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		p.t.Fatal(p.err)
	}
	return p.ProcessState.ExitCode()
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// server accepts TCP connections on loopback and serves each with f.
func server(t *testing.T, f func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // a test may have closed it
	go serveOn(l, f)
	return l.Addr().String()
}

func serveOn(l net.Listener, f func(*net.TCPConn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			f(c.(*net.TCPConn))
		}()
	}
}

// answer reads a whole request and then replies with what f makes of it.
func answer(f func(request string) string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		b, err := io.ReadAll(c)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, f(string(b))) // the test sees what arrives
	}
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := tryDial(t, addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tryDial is dial to a listener that may refuse.
func tryDial(t *testing.T, addr string) (*net.TCPConn, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), nil
}
