package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudoterminal: the person's end and the program's.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = person.Close(), program.Close() })
	return person, program
}

// typing starts weir on a terminal, which is its controlling one: Ctrl-C works.
func typing(t *testing.T, args ...string) (*process, *os.File) {
	t.Helper()
	person, program := terminal(t)
	p := prepare(t, "weir", args...)
	p.Stdin, p.Stdout = program, program
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.begin()
	return p, person
}

func enter(t *testing.T, person *os.File, text string) {
	t.Helper()
	if _, err := person.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// TestTyped: after the first Ctrl-C, or SIGTERM, nothing more that is typed is
// passed on; a one-shot ends at once.
func TestTyped(t *testing.T) {
	for _, how := range []string{"Ctrl-C", "SIGTERM"} {
		stop := func(p *process, person *os.File) {
			if how == "Ctrl-C" {
				enter(t, person, "\x03")
			} else {
				p.signal(syscall.SIGTERM)
			}
		}
		t.Run("one-shot/"+how, func(t *testing.T) {
			lines := make(chan string, 10)
			addr := server(t, func(c *net.TCPConn) {
				buf := make([]byte, 100)
				for {
					n, err := c.Read(buf)
					if n > 0 {
						lines <- string(buf[:n])
					}
					if err != nil {
						close(lines)
						return
					}
				}
			})
			p, person := typing(t, "-", addr)
			p.line("open #1", 1)
			enter(t, person, "hello\n")
			if l := <-lines; l != "hello\n" {
				t.Errorf("the server got %q", l)
			}
			stop(p, person)
			if code := p.end(); code != exitFailure {
				t.Errorf("code %d after the connection was cut", code)
			}
			if l, more := <-lines; more {
				t.Errorf("the server got %q after that", l)
			}
		})
		t.Run("listening/"+how, func(t *testing.T) {
			p, person := typing(t, "tcp-listen:127.0.0.1:0", "-")
			c := dial(t, p.listening())
			p.line("open #1", 1)
			enter(t, person, "hello\n")
			if got := make([]byte, 6); errors.Join(readFull(c, got)) != nil || string(got) != "hello\n" {
				t.Errorf("the client got %q", got)
			}
			stop(p, person)
			p.line("draining", 1)
			enter(t, person, "a password\n")
			// What comes back is still shown, and its end is the end.
			if err := errors.Join(want(c, ""), write(c, "bye"), c.CloseWrite()); err != nil {
				t.Error(err)
			}
			if code := p.end(); code != exitOK {
				t.Errorf("code %d", code)
			}
			// It comes in pieces: what was typed, and then what came back.
			var seen []byte
			for !bytes.Contains(seen, []byte("bye")) {
				piece := make([]byte, 4096)
				n, err := person.Read(piece)
				if seen = append(seen, piece[:n]...); err != nil {
					t.Fatalf("the person saw %q, %v", seen, err)
				}
			}
		})
	}
}

func readFull(c net.Conn, b []byte) error {
	for len(b) > 0 {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// TestContainerStopConnecting: a connect that waits for an answer is ended at once.
func TestContainerStopConnecting(t *testing.T) {
	addr := fullListener(t)
	for _, retry := range []string{"", ",retry=1h"} {
		p := startIdle(t, "-", addr+retry)
		p.connecting(addr)
		if code := p.stopped(); code != exitFailure {
			t.Errorf("code %d without a connection", code)
		}
		notDrained(t, p)
		p.line("stopped 1 connection not made yet", 1)
	}
	p := start(t, "tcp-listen:127.0.0.1:0", addr)
	c := dial(t, p.listening())
	p.connecting(addr)
	if code := p.stopped(); code != exitFailure {
		t.Errorf("code %d after a client was turned away", code)
	}
	notDrained(t, p)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %v, want a reset", err)
	}
}

// connecting waits until the process has sent its SYN to addr.
func (p *process) connecting(addr string) {
	p.t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	var n int
	_, _ = fmt.Sscan(port, &n) // it is a number
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		b, err := os.ReadFile("/proc/self/net/tcp")
		if err != nil {
			p.t.Skip(err)
		}
		if strings.Contains(string(b), fmt.Sprintf(" 0100007F:%04X 02 ", n)) { // SYN_SENT
			return
		}
		select {
		case <-p.ended:
			p.t.Fatalf("it ended: %s", p.said())
		case <-time.After(10 * time.Millisecond):
		}
	}
	p.t.Fatalf("it does not connect: %s", p.said())
}

// manager is a service manager's socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// hears returns a manager's next message that is not the watchdog's.
func hears(t *testing.T, c *net.UnixConn, watchdogs *int) string {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		switch text := string(buf[:n]); text {
		case "WATCHDOG=1":
			*watchdogs++
		case "filler":
		default:
			return text
		}
	}
}

// TestNotify: a service manager is told when weir is ready, that it is alive, and
// that it stops (sd_notify).
func TestNotify(t *testing.T) {
	for i, socket := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@weir-test-%d", os.Getpid())} {
		m := manager(t, socket)
		p := prepare(t, "weir", "tcp-listen:127.0.0.1:0", echoServer(t), "--drain", "7s")
		p.Env = append(p.Env, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=20000")
		if i == 1 {
			p.Env = append(p.Env, "WATCHDOG_PID=1") // which is another process
		}
		p.begin()
		dogs := 0
		if text := hears(t, m, &dogs); !strings.HasPrefix(text, "READY=1\nSTATUS=127.0.0.1:") {
			t.Errorf("%q instead of READY=1", text)
		}
		c := dial(t, p.listening())
		alive(t, c)
		for i == 0 && dogs < 3 {
			if n, err := m.Read(make([]byte, 100)); err != nil || n != len("WATCHDOG=1") {
				t.Fatalf("%d bytes, %v", n, err)
			}
			dogs++
		}
		p.signal(syscall.SIGTERM)
		if text := hears(t, m, &dogs); text != "STOPPING=1\nSTATUS=draining for at most 7s\nEXTEND_TIMEOUT_USEC=8000000" {
			t.Errorf("%q instead of STOPPING=1", text)
		}
		if i == 1 && dogs > 0 {
			t.Error("it answers for another process")
		}
		_ = c.Close()
		if code := p.end(); code != exitOK {
			t.Errorf("code %d", code)
		}
	}
}

// TestNotifyFull: a manager that does not read holds up nothing, and gets everything
// later. A missing manager is not a failure.
func TestNotifyFull(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	m := manager(t, socket)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(fd) }()
	for err == nil {
		err = syscall.Sendto(fd, []byte("filler"), 0, &syscall.SockaddrUnix{Name: socket})
	}
	if !errors.Is(err, syscall.EAGAIN) {
		t.Fatal(err)
	}
	for _, s := range []string{socket, socket + ".none", "/", "vsock:2:1"} {
		p := prepare(t, "weir", "tcp-listen:127.0.0.1:0", echoServer(t))
		p.Env = append(p.Env, "NOTIFY_SOCKET="+s)
		p.begin()
		alive(t, dial(t, p.listening()))
		if s == socket {
			dogs := 0
			if text := hears(t, m, &dogs); !strings.HasPrefix(text, "READY=1\n") {
				t.Errorf("%q instead of READY=1", text)
			}
		}
	}
}

// TestDroppedTarget: a target that drops its packets holds up no client, with checks
// or without, and a check finds it.
func TestDroppedTarget(t *testing.T) {
	dropped, serves := fullListener(t), echoServer(t)
	p := start(t, "tcp-listen:127.0.0.1:0", dropped, serves, "--pick", "first")
	alive(t, dial(t, p.listening()))
	p.line("cannot connect to "+dropped+": timed out", 1)
	p = start(t, "tcp-listen:127.0.0.1:0", dropped, serves, "--check", "50ms")
	p.line("cannot connect to "+dropped+": timed out", 1)
	for range 4 {
		alive(t, dial(t, p.listening()))
	}
}
