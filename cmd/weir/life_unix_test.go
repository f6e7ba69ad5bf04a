//go:build unix

package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// containerKill is when a container runtime follows SIGTERM with SIGKILL. What still
// has to end is cut after drainTime, which is less.
const containerKill = 10 * time.Second

// stopped sends SIGTERM as a container runtime does, and SIGKILL after it, though not
// before a busy machine has had its time, and returns the exit code.
func (p *process) stopped() int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	kill := time.AfterFunc(patience/2, func() { _ = p.Process.Kill() }) // it may have ended
	defer kill.Stop()
	code := p.end()
	if code < 0 {
		p.t.Fatalf("it had to be killed; it said\n%s", p.said())
	}
	return code
}

// holds serves a connection that does not end until the test is over.
func holds(t *testing.T) func(*net.TCPConn) {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	return func(*net.TCPConn) { <-over }
}

// TestContainerStop: whatever weir is doing, a container runtime never has to kill
// it, with no option given.
func TestContainerStop(t *testing.T) {
	if drainTime+2*cutTime >= containerKill {
		t.Errorf("a drain takes %v, with %v for layers, and a container's stop kills after %v", drainTime, cutTime, containerKill)
	}
	t.Run("idle server", func(t *testing.T) {
		t.Parallel()
		p := start(t, "tcp-listen:127.0.0.1:0", "127.0.0.1:1")
		p.line("ready", 1)
		if code := p.stopped(); code != exitOK {
			t.Errorf("code %d", code)
		}
	})
	t.Run("idle client", func(t *testing.T) {
		t.Parallel()
		p := start(t, "tcp-listen:127.0.0.1:0", server(t, holds(t)))
		dial(t, p.listening())
		p.line("open #1", 1)
		if code := p.stopped(); code != exitFailure {
			t.Errorf("code %d after a connection was cut", code)
		}
		p.line("draining 1 connection open, for at most 8s; Ctrl-C again cuts", 1)
		p.line("quitting 1 connection cut after 8s", 1)
	})
	t.Run("busy server", func(t *testing.T) {
		t.Parallel()
		p := start(t, "tcp-listen:127.0.0.1:0", server(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
		c := dial(t, p.listening())
		var wg sync.WaitGroup
		wg.Go(func() { // both until they are cut
			for buf := make([]byte, 64<<10); ; {
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		})
		wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
		p.line("open #1", 1)
		if code := p.stopped(); code != exitFailure {
			t.Errorf("code %d after a connection was cut", code)
		}
		wg.Wait()
		p.line("draining", 1)
	})
	t.Run("retrying one-shot", func(t *testing.T) {
		t.Parallel()
		tried := make(chan bool, 100)
		addr := server(t, func(c *net.TCPConn) { _ = c.SetLinger(0); tried <- true })
		p := startIdle(t, "-", addr+",retry=1h+tls,insecure")
		<-tried
		<-tried
		if code := p.stopped(); code != exitFailure {
			t.Errorf("code %d without a connection", code)
		}
		p.line("stopped 1 connection not made yet", 1)
		notDrained(t, p)
	})
	t.Run("retrying server", func(t *testing.T) {
		t.Parallel()
		tried := make(chan bool, 100)
		addr := server(t, func(c *net.TCPConn) { _ = c.SetLinger(0); tried <- true })
		p := start(t, "tcp-listen:127.0.0.1:0", addr+",retry=1h+tls,insecure")
		c := dial(t, p.listening())
		<-tried
		<-tried
		if code := p.stopped(); code != exitFailure {
			t.Errorf("code %d after a client was turned away", code)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client got %v, want a reset", err)
		}
		notDrained(t, p)
	})
	t.Run("one-shot", func(t *testing.T) {
		t.Parallel()
		p := startIdle(t, "-", server(t, holds(t)))
		p.line("open #1", 1)
		if code := p.stopped(); code != exitFailure {
			t.Errorf("code %d after the connection was cut", code)
		}
		notDrained(t, p)
	})
}

func notDrained(t *testing.T, p *process) {
	t.Helper()
	if strings.Contains(p.said(), "draining") {
		t.Errorf("it drained, and there was nothing to drain:\n%s", p.said())
	}
}

// startIdle starts weir with a standard input that stays silent.
func startIdle(t *testing.T, args ...string) *process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	p := prepare(t, "weir", args...)
	p.Stdin = r
	p.begin()
	return p
}

// TestDrainTime: --drain is how long open connections may continue, and 0 cuts at once.
func TestDrainTime(t *testing.T) {
	for drain, says := range map[string]string{
		"100ms": "quitting 1 connection cut after 100ms",
		"0":     "quitting 1 connection cut",
	} {
		p := start(t, "tcp-listen:127.0.0.1:0", echoing(t), "--drain", drain)
		c := dial(t, p.listening())
		alive(t, c)
		p.signal(syscall.SIGTERM)
		if code := p.end(); code != exitFailure {
			t.Errorf("--drain %s: code %d", drain, code)
		}
		p.line(says, 1)
		if drain != "0" {
			p.line("#1 "+c.LocalAddr().String()+" -> ", 2) // what it waits for
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client got %v, want a reset", err)
		}
	}
	for _, bad := range []string{"-1s", "8", "25h", "x"} {
		if r := call(t, "--drain", bad, "8080", "a:1"); r.code != exitUsage || !strings.Contains(r.err, "from 0 to 24h") {
			t.Errorf("--drain %s: %+v", bad, r)
		}
	}
}

// TestSignalsTogether: signals within a moment count as one, because timeout(1)
// sends its signal to its child and to the child's group.
func TestSignalsTogether(t *testing.T) {
	p := start(t, "tcp-listen:127.0.0.1:0", echoing(t))
	c := dial(t, p.listening())
	alive(t, c)
	p.signal(syscall.SIGSTOP) // so that they arrive together
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGINT)
	p.signal(syscall.SIGCONT)
	p.line("draining", 1)
	p.signal(syscall.SIGQUIT)
	p.line("draining 1 connection open, 1 since", 1) // all of them were heard
	alive(t, c)
	if err := errors.Join(c.CloseWrite(), want(c, "")); err != nil {
		t.Error(err)
	}
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestHangup: SIGHUP drains like SIGTERM, unless it was ignored at the start, as by
// nohup; SIGINT always drains.
func TestHangup(t *testing.T) {
	// A signal that is caught here has its default in the child, even if nohup runs
	// the tests.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	addr := echoing(t)
	p := start(t, "tcp-listen:127.0.0.1:0", addr)
	c := dial(t, p.listening())
	alive(t, c)
	p.signal(syscall.SIGHUP)
	p.line("draining", 1)
	alive(t, c)
	_ = c.Close() // the test is over
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}

	p = prepare(t, "weir", "tcp-listen:127.0.0.1:0", addr)
	p.Path, p.Args = "/bin/sh", append([]string{"sh", "-c", `trap "" HUP INT; exec "$0" "$@"`, p.Path}, p.Args[1:]...)
	p.begin()
	c = dial(t, p.listening())
	alive(t, c)
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGQUIT)
	p.line("serving 1 connection open", 1)
	alive(t, dial(t, p.listening()))
	notDrained(t, p)
	p.signal(syscall.SIGINT) // as a script does for what it starts with &
	p.line("draining", 1)
}

// TestQuitSignal: SIGQUIT says what is open, in words, and changes nothing.
func TestQuitSignal(t *testing.T) {
	p := start(t, "tcp-listen:127.0.0.1:0", echoing(t), "--log", "json")
	at := p.listeningJSON()
	c := dial(t, at)
	alive(t, c)
	p.signal(syscall.SIGQUIT)
	if l := p.line(`"serving"`, 1); !strings.Contains(l, `"listening":["`+at+`"]`) || !strings.Contains(l, "#1 "+c.LocalAddr().String()) {
		t.Error(l)
	}
	alive(t, c)
	if strings.Contains(p.said(), "goroutine") {
		t.Error("it shows goroutines")
	}
}
