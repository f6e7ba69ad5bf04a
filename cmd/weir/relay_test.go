package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// TestReplyAfterInput: printf request | weir - host:port prints the whole reply
// although the input ended first, and however long the server thinks.
func TestReplyAfterInput(t *testing.T) {
	reply := strings.Repeat("all of the reply\n", 1000)
	addr := server(t, answer(func(request string) string {
		if request != "request" {
			return "bad request"
		}
		<-time.After(600 * time.Millisecond) // longer than socat waits
		return reply
	}))
	p := prepare(t, "weir", "-", addr)
	p.Stdin = strings.NewReader("request")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	if code := p.end(); code != exitOK || out.String() != reply {
		t.Errorf("code %d, %d of %d bytes: %.40q", code, out.Len(), len(reply), out.String())
	}
	p.line("close #1 stdio -> "+addr+": 7 B out, 17 kB back", 1)
}

// TestFiles: standard input and output can be plain files (behaviour 61).
func TestFiles(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	text := strings.Repeat("abc\n", 100_000)
	if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := prepare(t, "weir", addr, "-")
	var err error
	var stdin, stdout *os.File
	if stdin, err = os.Open(in); err != nil {
		t.Fatal(err)
	}
	if stdout, err = os.Create(out); err != nil {
		t.Fatal(err)
	}
	p.Stdin, p.Stdout = stdin, stdout
	p.begin()
	code := p.end()
	got, err := os.ReadFile(out)
	if code != exitOK || err != nil || string(got) != strings.ToUpper(text) {
		t.Errorf("code %d, %d of %d bytes, %v", code, len(got), len(text), err)
	}
	_, _ = stdin.Close(), stdout.Close()
}

// TestHalfCloseBothWays: each direction ends by itself, in either order.
func TestHalfCloseBothWays(t *testing.T) {
	for _, first := range []string{"client", "server"} {
		t.Run(first, func(t *testing.T) {
			errs := make(chan error, 1)
			addr := server(t, func(c *net.TCPConn) {
				errs <- func() error {
					if first == "server" {
						if err := errors.Join(write(c, "early"), c.CloseWrite()); err != nil {
							return err
						}
						return want(c, "late")
					}
					return errors.Join(want(c, "early"), write(c, "late"), c.CloseWrite())
				}()
			})
			p := start(t, "tcp-listen:127.0.0.1:0", addr)
			c := dial(t, p.listening())
			var err error
			if first == "server" {
				err = errors.Join(want(c, "early"), write(c, "late"), c.CloseWrite())
			} else {
				err = errors.Join(write(c, "early"), c.CloseWrite(), want(c, "late"))
			}
			if err := errors.Join(err, <-errs); err != nil {
				t.Fatal(err)
			}
			p.line("close #1", 1)
		})
	}
}

func write(c net.Conn, s string) error {
	_, err := io.WriteString(c, s)
	return err
}

// want reads to the end and compares.
func want(c net.Conn, s string) error {
	got, err := io.ReadAll(c)
	if err == nil && string(got) != s {
		return errors.New("got " + string(got) + ", want " + s)
	}
	return err
}

// TestFourMegabytes: each way, at once, through TCP and through a UNIX socket.
func TestFourMegabytes(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	for _, listen := range []string{"tcp-listen:127.0.0.1:0", "unix-listen:" + filepath.Join(t.TempDir(), "s")} {
		addr := server(t, func(c *net.TCPConn) {
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = c.Write(data); _ = c.CloseWrite() })
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("the server got %d bytes, %v", len(got), err)
			}
			wg.Wait()
		})
		p := start(t, listen, addr)
		p.line("ready", 1)
		var c net.Conn
		var err error
		if path, ok := strings.CutPrefix(listen, "unix-listen:"); ok {
			c, err = net.Dial("unix", path)
		} else {
			c, err = net.Dial("tcp", p.listening())
		}
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Write(data); _ = c.(interface{ CloseWrite() error }).CloseWrite() })
		got, err := io.ReadAll(c)
		wg.Wait()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: the client got %d bytes, %v", listen, len(got), err)
		}
		_ = c.Close() // it has ended both ways
		p.line("4.2 MB out, 4.2 MB back", 1)
	}
}

// TestNettest runs golang.org/x/net's stream tests between two
// standard-library ends with a whole weir process in between.
func TestNettest(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	p := start(t, "tcp-listen:127.0.0.1:0", l.Addr().String())
	addr := p.listening()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		if c1, err = net.Dial("tcp", addr); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, nil
	})
}

// TestDrain: the first Ctrl-C stops accepting and lets what is open finish; the
// second quits.
func TestDrain(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		p := start(t, "tcp-listen:127.0.0.1:0", addr)
		at := p.listening()
		c := dial(t, at)
		p.line("open #1", 1)
		p.signal(sig)
		p.line("draining 1 connection open", 1)
		if late, err := net.Dial("tcp", at); err == nil {
			_ = late.Close()
			t.Error("it accepts while it drains")
		}
		if err := errors.Join(write(c, "still served"), c.CloseWrite(), want(c, "STILL SERVED")); err != nil {
			t.Error(err)
		}
		if code := p.end(); code != exitOK {
			t.Errorf("code %d after draining", code)
		}
		p.line("done 1 connection, 12 B out, 12 B back", 1)
	}
	p := start(t, "tcp-listen:127.0.0.1:0", addr)
	c := dial(t, p.listening())
	p.line("open #1", 1)
	p.signal(os.Interrupt)
	p.line("draining", 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitFailure {
		t.Errorf("code %d after quitting with a connection open", code)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %v, want a reset", err)
	}
	p.line("quitting 1 connection cut", 1)
	// With nothing open the first is enough.
	p = start(t, "tcp-listen:127.0.0.1:0", addr)
	p.line("ready", 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestExitCodes: 0 clean, 1 runtime failure, 2 usage.
func TestExitCodes(t *testing.T) {
	closed := server(t, func(*net.TCPConn) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	reset := server(t, func(c *net.TCPConn) { _ = c.SetLinger(0) })
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"- " + closed, exitOK, "close #1"},
		{"- " + free, exitFailure, "cannot connect to " + free + ": refused"},
		{"- " + reset, exitFailure, reset + ": reset"},
		{"- nowhere.invalid:1", exitFailure, "cannot connect to nowhere.invalid:1: name not found"},
		{"- /nowhere/s", exitFailure, "There is no such socket. To wait for it: add ,retry=30s"},
		{"fd:250 " + closed, exitFailure, "descriptor 250 was not passed to weir"},
		{"tcp-listen:" + closed + " " + free, exitFailure, "cannot listen on " + closed + ": already in use by weir.test (pid "},
		{"80x " + closed, exitUsage, "bad port"},
		{"tcp-listen:192.0.2.99:0 " + free, exitFailure, "not an address of this machine"},
		{"unix-listen:/nowhere/s " + free, exitFailure, "cannot listen on /nowhere/s: no such file"},
	} {
		p := start(t, strings.Fields(c.args)...)
		if code := p.end(); code != c.code || !strings.Contains(p.said(), c.says) {
			t.Errorf("weir %s: code %d, want %d with %q:\n%s", c.args, code, c.code, c.says, p.said())
		}
	}
}

// TestErrorsAsShown are COMMAND.md's examples of failures, to the letter but for
// numbers.
func TestErrorsAsShown(t *testing.T) {
	if _, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 loopback here")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	p := start(t, "-", "localhost:"+port)
	if code := p.end(); code != exitFailure {
		t.Errorf("code %d", code)
	}
	lines := strings.Split(p.said(), "\n")
	if len(lines) != 3 || lines[0] != "weir: cannot connect to localhost:"+port+": refused" ||
		lines[2] != "  Nothing is listening on that port. To wait for it: add ,retry=30s" {
		t.Errorf("got\n%s", p.said())
	}
	tried := strings.Split(strings.TrimPrefix(lines[1], "  tried "), ", ")
	for _, a := range []string{"[::1]:", "127.0.0.1:"} {
		if w := a + port + " refused"; len(tried) != 2 || tried[0] != w && tried[1] != w {
			t.Errorf("%q is not among %q", w, tried)
		}
	}
}

// TestJSON: each line is an object, with both sides, bytes each way, the time
// and who closed.
func TestJSON(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	p := start(t, "--log", "json", "tcp-listen:127.0.0.1:0", addr)
	var ready struct {
		Msg       string
		Listening []string
	}
	if err := json.Unmarshal([]byte(p.line("ready", 1)), &ready); err != nil || len(ready.Listening) != 1 {
		t.Fatalf("%v, %+v", err, ready)
	}
	c := dial(t, ready.Listening[0])
	if err := errors.Join(write(c, "abc"), c.CloseWrite(), want(c, "ABC")); err != nil {
		t.Fatal(err)
	}
	p.line(`"close"`, 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	var msgs []string
	for _, line := range strings.Split(p.said(), "\n") {
		var ev map[string]any
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		msg, _ := ev["msg"].(string)
		msgs = append(msgs, msg)
		if msg != "close" {
			continue
		}
		if ev["a"] != c.LocalAddr().String() || ev["b"] != addr || ev["bytes_out"] != 3.0 || ev["bytes_back"] != 3.0 ||
			ev["closed_by"] != c.LocalAddr().String() || ev["id"] != 1.0 {
			t.Errorf("got %v", ev)
		}
		if s, ok := ev["seconds"].(float64); !ok || s <= 0 || s > patience.Seconds() {
			t.Errorf("seconds: %v", ev["seconds"])
		}
	}
	if got := strings.Join(msgs, " "); got != "ready open close done" {
		t.Errorf("events %s", got)
	}
}

// TestQuiet: nothing is said but errors.
func TestQuiet(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	p := prepare(t, "weir", "-q", "-", addr)
	p.Stdin = strings.NewReader("x")
	p.begin()
	if code := p.end(); code != exitOK || p.said() != "" {
		t.Errorf("code %d, said %q", code, p.said())
	}
}

// TestMissingBackend: a listening relay survives it, says so once, and says when
// it is back.
func TestMissingBackend(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := start(t, "tcp-listen:127.0.0.1:0", addr)
	at := p.listening()
	for range 3 {
		c := dial(t, at)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client got %v, want a reset: an end would be an empty reply", err)
		}
	}
	p.line("cannot connect to "+addr+": refused", 1)
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go serveOn(l, answer(strings.ToUpper))
	c := dial(t, at)
	if err := errors.Join(write(c, "abc"), c.CloseWrite(), want(c, "ABC")); err != nil {
		t.Error(err)
	}
	p.line("back "+addr, 1)
	p.line("3 connections turned away", 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	if n := strings.Count(p.said(), "refused"); n != 2 { // the line, and what was tried
		t.Errorf("it was said %d times:\n%s", n, p.said())
	}
}

// TestRetry: what is asked to wait for its backend waits.
func TestRetry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p := prepare(t, "weir", "-", path+",retry=50s")
	p.Stdin = strings.NewReader("early")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	select { // the first attempts fail
	case <-p.ended:
	case <-time.After(200 * time.Millisecond):
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c) // the test sees what comes back
		_, _ = c.Write(bytes.ToUpper(b))
		_ = c.Close()
	}()
	if code := p.end(); code != exitOK || out.String() != "EARLY" {
		t.Errorf("code %d, got %q", code, out.String())
	}
}

// TestTwoListeners: each waits for one peer, whichever comes first.
func TestTwoListeners(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, order := range [][2]string{{a, b}, {b, a}} {
		p := start(t, "unix-listen:"+a, "unix-listen:"+b)
		p.line("ready", 1)
		first, err := net.Dial("unix", order[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := write(first, "early"); err != nil {
			t.Fatal(err)
		}
		second, err := net.Dial("unix", order[1])
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(first.(*net.UnixConn).CloseWrite(), want(second, "early"), write(second, "late"), second.Close(), want(first, "late"), first.Close()); err != nil {
			t.Error(err)
		}
		if code := p.end(); code != exitOK {
			t.Errorf("code %d", code)
		}
		for _, path := range []string{a, b} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left behind: %v", path, err)
			}
		}
	}
}

// TestListenerAndStdio: standard input and output go to the first peer only.
func TestListenerAndStdio(t *testing.T) {
	p := prepare(t, "weir", "tcp-listen:127.0.0.1:0", "-")
	p.Stdin = strings.NewReader("to the peer")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	at := p.listening()
	c := dial(t, at)
	if err := errors.Join(write(c, "from the peer"), c.CloseWrite(), want(c, "to the peer")); err != nil {
		t.Error(err)
	}
	if code := p.end(); code != exitOK || out.String() != "from the peer" {
		t.Errorf("code %d, got %q", code, out.String())
	}
}

// TestStaleSocket: a socket on which nobody answers is replaced, and nothing
// else is (RELIABILITY, Descriptors).
func TestStaleSocket(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := start(t, "unix-listen:"+stale+",mode=0600", addr)
	p.line("note replaced "+stale, 1)
	p.line("ready", 1)
	if st, err := os.Lstat(stale); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	c, err := net.Dial("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(write(c, "abc"), c.(*net.UnixConn).CloseWrite(), want(c, "ABC"), c.Close()); err != nil {
		t.Error(err)
	}
	// A second one finds the first answering.
	second := start(t, "unix-listen:"+stale, addr)
	if code := second.end(); code != exitFailure || !strings.Contains(second.said(), "cannot listen on "+stale+": already in use by weir.test (pid ") {
		t.Errorf("code %d: %s", code, second.said())
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	// A file and a link, to a stale socket even, are left alone.
	if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: stale}); err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "file")
	if err := errors.Join(l.Close(), os.Symlink(stale, link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, what := range map[string]string{link: "a symbolic link", file: "a file", dir: "a directory"} {
		p := start(t, "unix-listen:"+path, addr)
		if code := p.end(); code != exitFailure || !strings.Contains(p.said(), what+" is in the way") {
			t.Errorf("code %d: %s", code, p.said())
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("it is gone: %v", err)
		}
	}
}

// TestDescriptors: listening sockets by number and by a service manager's name,
// and connections by number, alone and in pairs.
func TestDescriptors(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	listen := func() (*os.File, string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err := errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() }) // the test may have closed it
		return f, l.Addr().String()
	}
	f, at := listen()
	p := prepare(t, "weir", "fd:3", addr)
	p.ExtraFiles = []*os.File{f}
	p.begin()
	p.line("ready "+at, 1)
	c := dial(t, at)
	if err := errors.Join(write(c, "abc"), c.CloseWrite(), want(c, "ABC")); err != nil {
		t.Error(err)
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}

	// The shell says LISTEN_PID, as a service manager does.
	other, _ := listen()
	named, at := listen()
	p = prepare(t, "weir")
	p.Path, p.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=other:web exec "$0" "$@"`, p.Path, "fd:web", addr}
	p.ExtraFiles = []*os.File{other, named}
	p.begin()
	p.line("ready "+at, 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}

	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p = prepare(t, "weir", "fd:3,out=4", addr)
	p.ExtraFiles = []*os.File{inR, outW}
	p.begin()
	if err := errors.Join(inR.Close(), outW.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = inW.WriteString("abc")
	if err := errors.Join(err, inW.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(outR)
	if err != nil || string(got) != "ABC" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = outR.Close() // read to its end
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestNamedPipes: both ends may come late, in any order.
func TestNamedPipes(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := errors.Join(syscall.Mkfifo(in, 0o600), syscall.Mkfifo(out, 0o600)); err != nil {
		t.Fatal(err)
	}
	p := start(t, "pipe:"+in+",out="+out, addr)
	r, err := os.Open(out) // waits for weir
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(in, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.WriteString("abc")
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "ABC" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = r.Close() // read to its end
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	// One way only, into a pipe that a client fills through a socket.
	p = start(t, "tcp-listen:127.0.0.1:0", "pipe,out="+out)
	c := dial(t, p.listening())
	if err := errors.Join(write(c, "one way"), c.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if r, err = os.Open(out); err != nil {
		t.Fatal(err)
	}
	if got, err = io.ReadAll(r); err != nil || string(got) != "one way" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = r.Close() // read to its end
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestSeveral: with several endpoints to choose from, one that does not answer
// costs no connection, and --pick says which is asked.
func TestSeveral(t *testing.T) {
	say := func(s string) string {
		return server(t, func(c *net.TCPConn) { _ = write(c, s); _, _ = io.ReadAll(c) })
	}
	one, two := say("1"), say("2")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		hold bool // keep connections open
		want string
	}{
		{one + " " + two, false, "1212"},
		{one + " " + two + " --pick first", false, "1111"},
		{gone + " " + two + " --pick first", false, "2222"},
		{gone + " " + one + " " + two, false, "1212"},
		{one + " " + two + " --pick least", true, "1212"},
		{one + " " + one + " --pick random", false, "1111"},
	} {
		p := start(t, append([]string{"tcp-listen:127.0.0.1:0"}, strings.Fields(c.args)...)...)
		at := p.listening()
		got := ""
		for i := range c.want {
			conn := dial(t, at)
			b := make([]byte, 1)
			if _, err := io.ReadFull(conn, b); err != nil {
				t.Fatal(err)
			}
			got += string(b)
			if !c.hold {
				_ = conn.Close()
				p.line("close #", i+1)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.args, got, c.want)
		}
		if n := strings.Count(p.said(), "cannot connect"); n > 1 {
			t.Errorf("%s: it complained %d times", c.args, n)
		}
	}
}

// TestCheck: --check finds out without a client that an endpoint went and came
// back.
func TestCheck(t *testing.T) {
	one := server(t, answer(strings.ToUpper))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	two := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := start(t, "tcp-listen:127.0.0.1:0", one, two, "--check", "20ms")
	p.line("cannot connect to "+two, 1)
	if l, err = net.Listen("tcp", two); err != nil {
		t.Fatal(err)
	}
	go serveOn(l, func(*net.TCPConn) {})
	p.line("back "+two, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p.line("cannot connect to "+two, 2)
}

// TestManyAtOnce: 9,000 connections at once, with the limit of 20,000
// descriptors per process as it is: three processes share the ends.
func TestManyAtOnce(t *testing.T) {
	n := "9000"
	if testing.Short() {
		n = "900"
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < 18100 {
		t.Skipf("this takes 18,100 descriptors in one process, the limit is %d (%v)", limit.Max, err)
	}
	addr := server(t, func(c *net.TCPConn) {
		// Plain reads and writes: io.Copy would splice, and keep a pipe each.
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	})
	p := start(t, "tcp-listen:127.0.0.1:0", addr)
	client := prepare(t, "flood", p.listening(), n)
	stdin, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	client.Stdout = w
	began := time.Now()
	client.begin()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("all open\n"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "all open\n" {
		t.Fatalf("%q, %v: %s", line, err, client.said())
	}
	t.Logf("%s connections open and served after %v", n, time.Since(began))
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if code := client.end(); code != 0 {
		t.Errorf("the client: code %d: %s", code, client.said())
	}
	_ = out.Close() // nothing more to read
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	p.line("done "+n+" connections", 1)
}

// TestDemo: it shows the whole thing and ends with 0 where nobody watches.
func TestDemo(t *testing.T) {
	p := prepare(t, "weir", "demo")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	if code := p.end(); code != exitOK || p.said() != "" {
		t.Errorf("code %d: %s", code, p.said())
	}
	for _, w := range []string{"1  A web server listens on 127.0.0.1:", "2  A relay leads to it", "weir ", "200 OK", "Next: weir 8080 localhost:3000"} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("it does not say %q:\n%s", w, out.String())
		}
	}
}

// TestBulk sends a stream of pseudo-random bytes each way at once and compares
// every byte as it comes out; WEIR_TEST_BULK sets how many, 64 MiB without it.
func TestBulk(t *testing.T) {
	n := int64(64 << 20)
	if s := os.Getenv("WEIR_TEST_BULK"); s != "" {
		var err error
		if n, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	limit := time.Now().Add(patience + time.Duration(n>>20)*100*time.Millisecond)
	both := func(c *net.TCPConn, say, hear byte) error {
		if err := c.SetDeadline(limit); err != nil {
			return err
		}
		sent := make(chan error, 1)
		go func() {
			_, err := io.CopyN(c, rand.NewChaCha8([32]byte{say}), n)
			sent <- errors.Join(err, c.CloseWrite())
		}()
		return errors.Join(same(c, rand.NewChaCha8([32]byte{hear}), n), <-sent)
	}
	errs := make(chan error, 1)
	addr := server(t, func(c *net.TCPConn) { errs <- both(c, 'b', 'a') })
	p := start(t, "tcp-listen:127.0.0.1:0", addr)
	c := dial(t, p.listening())
	began := time.Now()
	if err := errors.Join(both(c, 'a', 'b'), <-errs); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	p.line(size(n)+" out, "+size(n)+" back", 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	cpu := p.ProcessState.UserTime() + p.ProcessState.SystemTime()
	t.Logf("%s each way in %s, byte for byte: %.2f GB/s in all, the relay took %s of CPU, %.3f s per GB",
		size(n), span(took), 2*float64(n)/1e9/took.Seconds(), span(cpu), cpu.Seconds()/(2*float64(n)/1e9))
}

// same reads r to its end and compares it with n bytes of want.
func same(r, want io.Reader, n int64) error {
	a, b := make([]byte, 256<<10), make([]byte, 256<<10)
	var total int64
	for {
		k, err := r.Read(a)
		if _, werr := io.ReadFull(want, b[:k]); werr != nil {
			return werr
		}
		if !bytes.Equal(a[:k], b[:k]) {
			return fmt.Errorf("other bytes come out after byte %d", total)
		}
		total += int64(k)
		if err == io.EOF && total == n {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w after %d of %d bytes", err, total, n)
		}
	}
}
