package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/bench/internal/load"
	"github.com/weir-io/weir/bench/internal/side"
)

// A process is a child that talks in lines. It dies with the benchmark.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	err   bytes.Buffer
}

// spawn starts a program on one CPU, or on all for cpu below 0. It must be
// called on the main thread, which ends last: the kernel kills the child when
// the thread that made it is gone.
func spawn(cpu int, path string, args ...string) (*process, error) {
	return spawnOn(cpu, runtime.NumCPU(), path, args...)
}

// spawnOn is spawn with a GOMAXPROCS for the program.
func spawnOn(cpu, procs int, path string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(path, args...), lines: make(chan string, 64)}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// Go's runtime would take the one CPU that a program is tied to here for the
	// machine's only CPU.
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(procs))
	p.cmd.Stderr = &p.err
	p.cmd.WaitDelay = 2 * time.Second // for what its own children hold open
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// A child inherits the CPUs of the thread that makes it.
	if cpu >= 0 {
		var all unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			return nil, err
		}
		if err := load.Pin(cpu); err != nil {
			return nil, err
		}
		defer func() { _ = unix.SchedSetaffinity(0, &all) }()
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		in := bufio.NewScanner(out)
		for in.Scan() {
			p.lines <- in.Text()
		}
		close(p.lines)
	}()
	return p, nil
}

var errSilent = errors.New("no answer")

// line waits for one line.
func (p *process) line(limit time.Duration) (string, error) {
	select {
	case s, ok := <-p.lines:
		if !ok {
			_ = p.cmd.Wait()
			first, _, _ := strings.Cut(strings.TrimSpace(p.err.String()), "\n")
			return "", fmt.Errorf("%s ended: %s", p.cmd.Path, first)
		}
		return s, nil
	case <-time.After(limit):
		return "", fmt.Errorf("%s: %w in %v", p.cmd.Path, errSilent, limit)
	}
}

// runFor lets the process do its work for d; it must print nothing and not end.
func (p *process) runFor(d time.Duration) error {
	s, err := p.line(d)
	switch {
	case errors.Is(err, errSilent):
		return nil
	case err == nil:
		return fmt.Errorf("%s: %q, unasked", p.cmd.Path, s)
	}
	return err
}

// after waits for a line that begins with prefix. Some peers log on standard
// output; such lines are passed over.
func (p *process) after(prefix string, limit time.Duration) (string, error) {
	for {
		s, err := p.line(limit)
		if err != nil || strings.HasPrefix(s, prefix) {
			return s, err
		}
	}
}

// object waits for a line of JSON.
func (p *process) object(v any, limit time.Duration) error {
	s, err := p.after("{", limit)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(s), v)
}

func (p *process) say(s string) error {
	_, err := io.WriteString(p.in, s+"\n")
	return err
}

// end kills the process and everything that it started.
func (p *process) end() {
	tree := load.Tree([]int{p.cmd.Process.Pid})
	_ = p.in.Close()
	for _, pid := range tree {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = p.cmd.Wait()
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stats asks a server about its memory.
func (p *process) stats(verb string) (side.Stats, error) {
	var s side.Stats
	if err := p.say(verb); err != nil {
		return s, err
	}
	return s, p.object(&s, 20*time.Second)
}

// freeAddr is a loopback address that no one listens on.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// listening waits until a process of the system listens on addr: such programs
// do not report when they do.
func listening(addr string, p *process, datagrams bool) error {
	_, port, _ := strings.Cut(addr, ":")
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	table, want := "/proc/net/tcp", fmt.Sprintf(":%04X 00000000:0000 0A", n)
	if datagrams {
		table, want = "/proc/net/udp", fmt.Sprintf(":%04X 00000000:0000 07", n)
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-look.C {
		b, err := os.ReadFile(table)
		if err != nil {
			return err
		}
		if strings.Contains(string(b), want) {
			return nil
		}
		if syscall.Kill(p.pid(), 0) != nil {
			break
		}
	}
	return errSilent
}

// CPUs of one-loop runs: the server has one to itself and so has the load. With
// one CPU in all they share it.
func serverCPU() int { return 0 }

func loadCPU() int { return min(1, runtime.NumCPU()-1) }

// server starts a peer and waits until it listens.
func (b *bench) server(p peer, c *testCase, target string) (*process, string, error) {
	path, err := b.build.path(p)
	if err != nil {
		return nil, "", err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	cpu := serverCPU()
	if c.loops > 1 {
		cpu = -1
	}
	srv, err := spawnOn(cpu, p.gomaxprocs(), path, p.argv(start{addr: addr, target: target, dir: b.tmp, loops: c.loops, buf: c.buf(), frame: c.frame})...)
	if err != nil {
		return nil, "", err
	}
	if strings.HasPrefix(p.build, "c/") || strings.Contains(p.build, "servers/") {
		s, err := srv.after("ready ", 10*time.Second)
		if err != nil {
			srv.end()
			return nil, "", err
		}
		return srv, strings.TrimPrefix(s, "ready "), nil
	}
	if err := listening(addr, srv, c.datagrams()); err != nil {
		srv.end() // and with it the writing of srv.err
		return nil, "", fmt.Errorf("%s does not listen: %w: %s", p.name, err, strings.TrimSpace(srv.err.String()))
	}
	return srv, addr, nil
}
