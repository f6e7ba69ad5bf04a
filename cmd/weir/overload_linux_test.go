package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/race"
)

var overloadFor = flag.Duration("overload", 4*time.Second, "how long TestOverload attacks; from 30s on haproxy is attacked too, if it is installed, and the innocent client's times are compared")

// greedyServer sends without end to a client that says b, and what it says back to all others.
func greedyServer(t *testing.T) string {
	return server(t, func(c *net.TCPConn) {
		_ = c.SetWriteBuffer(64 << 10)
		p := make([]byte, 64<<10)
		for {
			n, err := c.Read(p)
			if err != nil {
				return
			}
			for p[0] == 'b' && err == nil {
				_, err = c.Write(p)
			}
			if _, err := c.Write(p[:n]); err != nil {
				return
			}
		}
	})
}

// attackers are clients of one address that do all that exhausts a server, until stop is
// closed.
type attackers struct {
	addr   string
	stop   chan struct{}
	wg     sync.WaitGroup
	served atomic.Int32 // greedy connections that were established
	enough chan struct{}
}

// attackLeast is how many greedy connections keep more than half of the budget of
// TestOverload, 24 MiB at most as follows from --memory 64m: each has its high mark of
// 64 KiB, and some more.
const attackLeast = 220

func (a *attackers) each(n int, f func(c net.Conn)) {
	for range n {
		a.wg.Go(func() {
			if c, err := a.dial(); err == nil { // or it is refused
				defer c.Close() //nolint:errcheck // it is an attacker
				f(c)
			}
		})
	}
}

func (a *attackers) dial() (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, Timeout: time.Second, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) // as small as it can be
		})
	}}
	c, err := d.Dial("tcp", a.addr)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(*overloadFor + patience))
	}
	return c, err
}

// greedy asks for everything, and reads nothing of it until the attack is over. Its result is
// not nil if it was served: a slow machine may have ended its handshake.
func (a *attackers) greedy() error {
	c, err := a.dial()
	if err != nil {
		return nil
	}
	defer c.Close()                                           //nolint:errcheck // it is an attacker
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // an attacker does not mind
	if _, err := t.Write([]byte("b")); err != nil {
		return nil
	}
	if a.served.Add(1) == attackLeast {
		close(a.enough)
	}
	<-a.stop
	return errServed
}

var errServed = errors.New("served")

// paced calls f again and again, with a pause, until the attack is over or f fails.
func (a *attackers) paced(pause time.Duration, f func() error) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-a.stop:
			return
		case <-tick.C:
			if f() != nil {
				return
			}
		}
	}
}

// attack begins all of it, as soon as those that are greedy are in, or after patience.
func attack(addr string) *attackers {
	a := &attackers{addr: addr, stop: make(chan struct{}), enough: make(chan struct{})}
	for range 300 {
		a.wg.Go(func() {
			if a.greedy() == nil {
				a.paced(500*time.Millisecond, a.greedy)
			}
		})
	}
	select {
	case <-a.enough:
	case <-time.After(patience):
	}
	// Some never begin their handshake, and some never end it.
	a.each(150, func(net.Conn) { <-a.stop })
	a.each(50, func(c net.Conn) {
		hello := slices.Concat([]byte{22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3}, make([]byte, 200))
		a.paced(200*time.Millisecond, func() error {
			_, err := c.Write(hello[:1])
			hello = hello[1:]
			return err
		})
	})
	// Some connect and are gone.
	for range 4 {
		a.wg.Go(func() {
			a.paced(2*time.Millisecond, func() error {
				if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
				}
				return nil
			})
		})
	}
	return a
}

func (a *attackers) end() (served int) {
	close(a.stop)
	a.wg.Wait()
	return int(a.served.Load())
}

// innocent is what a client of another address met.
type innocent struct {
	echoes, sessions, refused, lost int
	times                           []time.Duration // of echoes
	why                             error
}

// innocentClient says something every few milliseconds, and connects again every 20 times,
// for d.
func innocentClient(addr string, d time.Duration) (r innocent) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: patience}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	p := bytes.Repeat([]byte("e"), 64)
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		<-tick.C
		c, err := tls.DialWithDialer(dialer, "tcp", addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a self-signed one
		if err != nil {
			r.refused++
			continue
		}
		r.sessions++
		_ = c.SetDeadline(time.Now().Add(patience))
		for range 20 {
			<-tick.C
			began := time.Now()
			if _, err = c.Write(p); err == nil {
				_, err = io.ReadFull(c, p)
			}
			if err != nil {
				r.lost++
				r.why = err
				break
			}
			r.echoes++
			r.times = append(r.times, time.Since(began))
		}
		_ = c.Close()
	}
	slices.Sort(r.times)
	return r
}

func (r *innocent) at(part float64) time.Duration {
	if len(r.times) == 0 {
		return time.Hour
	}
	return r.times[min(int(part*float64(len(r.times))), len(r.times)-1)]
}

func (r *innocent) String() string {
	return fmt.Sprintf("%d echoes, median %v, p99 %v, at most %v; %d sessions, %d refused, %d lost (%v)",
		r.echoes, r.at(0.5), r.at(0.99), r.at(1), r.sessions, r.refused, r.lost, r.why)
}

// peakMemory is the most memory that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// TestOverload: clients that read nothing, that never shake hands, that do so byte by byte
// and that come and go, all at once and more than there are descriptors for, get no more memory
// than --memory says, while a client of another address is served; the log says so once
// in 10 s. With -args -overload=1m haproxy is attacked too (S3).
func TestOverload(t *testing.T) {
	const memory, files = 64 << 20, 800
	ca := newAuthority(t)
	cert := ca.issue("server", time.Now().Add(time.Hour))
	target := greedyServer(t)
	p := limited(t, files, "tcp-listen:127.0.0.1:0+tls"+cert, target, "--memory", "64m")
	p.begin()
	addr := p.listening()
	began := time.Now()
	calm := innocentClient(addr, 500*time.Millisecond)
	a := attack(addr)
	if a.served.Load() >= attackLeast {
		p.line("weir: memory is short", 1)
	}
	r := innocentClient(addr, *overloadFor)
	for deadline := time.Now().Add(patience); r.sessions == 0 && time.Now().Before(deadline); { // it was refused all the time
		r = innocentClient(addr, *overloadFor)
	}
	peak := peakMemory(t, p.Process.Pid)
	served := a.end()
	said := strings.Count(p.said(), "weir: memory is short")
	t.Logf("weir without an attack: %v", &calm)
	t.Logf("weir: %v; %d attackers were served, %d MiB at most", &r, served, peak>>20)
	for line := range strings.Lines(p.said()) {
		if strings.Contains(line, "weir: memory") || strings.Contains(line, " refused ") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if served < attackLeast {
		t.Errorf("only %d attackers came in, want %d: it was no attack", served, attackLeast)
	}
	if r.lost > 0 || r.sessions == 0 {
		t.Errorf("the innocent client lost %d of %d sessions: %v", r.lost, r.sessions, r.why)
	}
	most := memory
	if os.Getenv("WEIR_BACKEND") == "uring" {
		most += memory / 4 // docs/limits.md says so
	}
	if peak > most && !race.Enabled { // whose shadow of the memory is larger than that
		t.Errorf("it took %d MiB, --memory says %d", peak>>20, memory>>20)
	}
	if most := 1 + int(time.Since(began)/pressedEvery); said > most {
		t.Errorf("it said %d times that memory is short, want at most %d", said, most)
	}
	after := innocentClient(addr, 500*time.Millisecond)
	if after.lost > 0 || after.echoes == 0 {
		t.Errorf("after the attack: %v", &after)
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK && code != exitFailure {
		t.Errorf("code %d", code)
	}
	if *overloadFor < 30*time.Second {
		return
	}
	other := attackedHAProxy(t, ca.dir, target, files)
	if other != nil {
		t.Logf("haproxy: %v", other)
		if r.at(0.99) > other.at(0.99) {
			t.Errorf("weir's p99 is %v, haproxy's %v", r.at(0.99), other.at(0.99))
		}
	}
}

// attackedHAProxy is the innocent client's view of haproxy under the same attack; nil if
// there is no haproxy.
func attackedHAProxy(t *testing.T, dir, target string, files int) *innocent {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		t.Log("haproxy is not installed")
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var pem []byte
	for _, name := range []string{"server.pem", "server.key"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		pem = append(pem, b...)
	}
	if err := os.WriteFile(filepath.Join(dir, "both.pem"), pem, 0o600); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global\n  nbthread 1\n  maxconn %d\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n"+
		"frontend f\n  bind %s ssl crt %s/both.pem\n  default_backend b\nbackend b\n  server s %s\n", (files-64)/2, addr, dir, target)
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-f", file)
	leash(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(patience); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	a := attack(addr)
	r := innocentClient(addr, *overloadFor)
	a.end()
	return &r
}
