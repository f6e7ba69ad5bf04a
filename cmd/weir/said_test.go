package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

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
		// The kernel may still queue a connection while the loop closes the listener;
		// it is reset, not served.
		if late, err := net.Dial("tcp", at); err == nil {
			err := late.SetDeadline(time.Now().Add(patience))
			if err == nil {
				_, err = late.Read(make([]byte, 1))
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("it accepts while it drains: %v", err)
			}
			_ = late.Close() // reset already
		}
		if err := errors.Join(write(c, "still served"), c.CloseWrite(), want(c, "STILL SERVED")); err != nil {
			t.Error(err)
		}
		if code := p.end(); code != exitOK {
			t.Errorf("code %d after draining", code)
		}
		p.line("done 1 connection, 12 B out, 12 B back", 1)
	}
	echo := server(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }) // it ends with a reset
	p := start(t, "tcp-listen:127.0.0.1:0", echo, "--drain", "1h")
	c := dial(t, p.listening())
	p.line("open #1", 1)
	if err := write(c, "some more"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len("some more"))); err != nil {
		t.Fatal(err)
	}
	p.signal(os.Interrupt)
	p.line("draining", 1)
	<-time.After(2 * signalGap) // an earlier one counts as the same signal
	p.signal(os.Interrupt)
	if code := p.end(); code != exitFailure {
		t.Errorf("code %d after quitting with a connection open", code)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %v, want a reset", err)
	}
	p.line("quitting 1 connection cut", 1)
	// Cut connections are counted, and reported before the sum.
	p.line("done 1 connection, 9 B out, 9 B back", 1)
	if said := p.said(); strings.Index(said, "close #1") > strings.Index(said, "done 1") {
		t.Errorf("the sum comes before what it sums up:\n%s", said)
	}
	// With nothing open the first signal is enough.
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
	free := freePort(t)
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
		{"unix-listen:/nowhere/s " + free, exitFailure, "cannot listen on /nowhere/s: no such directory\n  Make the directory first"},
		{"unix-listen:/" + strings.Repeat("x", 300) + " " + free, exitFailure, "Pick a shorter path"},
		{"- /dev/null", exitFailure, "That is not a socket."},
		{"version extra", exitUsage, `version takes no words, such as "extra"`},
	} {
		p := start(t, strings.Fields(c.args)...)
		if code := p.end(); code != c.code || !strings.Contains(p.said(), c.says) {
			t.Errorf("weir %s: code %d, want %d with %q:\n%s", c.args, code, c.code, c.says, p.said())
		}
	}
}

// TestErrorsAsShown checks the documented examples of failures, to the letter
// except for numbers.
func TestErrorsAsShown(t *testing.T) {
	if _, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 loopback here")
	}
	_, port, _ := strings.Cut(freePort(t), ":")
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

// listeningJSON is listening for a JSON log.
func (p *process) listeningJSON() string {
	p.t.Helper()
	var ready struct {
		Msg       string
		Listening []string
	}
	if err := json.Unmarshal([]byte(p.line("ready", 1)), &ready); err != nil || len(ready.Listening) == 0 {
		p.t.Fatalf("%v, %+v", err, ready)
	}
	return ready.Listening[0]
}

// TestJSON: each line is an object, with both sides, bytes each way, the time
// and who closed.
func TestJSON(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	p := start(t, "--log", "json", "tcp-listen:127.0.0.1:0", addr)
	c := dial(t, p.listeningJSON())
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

// TestQuiet: nothing is printed except errors.
func TestQuiet(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	p := prepare(t, "weir", "-q", "-", addr)
	p.Stdin = strings.NewReader("x")
	p.begin()
	if code := p.end(); code != exitOK || p.said() != "" {
		t.Errorf("code %d, said %q", code, p.said())
	}
}

// TestMissingBackend: a listening relay survives it, reports it once, and
// reports when it is back.
func TestMissingBackend(t *testing.T) {
	addr := freePort(t)
	p := start(t, "tcp-listen:127.0.0.1:0", addr)
	at := p.listening()
	for range 3 {
		// The reset may be there before the dial has looked.
		c, err := net.Dial("tcp", at)
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			_ = c.Close() // reset already
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client got %v, want a reset: an end would be an empty reply", err)
		}
	}
	p.line("cannot connect to "+addr+": refused", 1)
	l, err := net.Listen("tcp", addr)
	if err != nil {
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

// TestRetry: a relay that is told to wait for its backend waits.
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

// TestSeveral: with several endpoints to choose from, one that does not answer
// costs no connection, and --pick says which is used.
func TestSeveral(t *testing.T) {
	say := func(s string) string {
		return server(t, func(c *net.TCPConn) { _ = write(c, s); _, _ = io.ReadAll(c) })
	}
	one, two := say("1"), say("2")
	gone := freePort(t)
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

// TestCheck: --check finds out without a client that an endpoint went away and
// came back.
func TestCheck(t *testing.T) {
	one := server(t, answer(strings.ToUpper))
	two := freePort(t)
	p := start(t, "tcp-listen:127.0.0.1:0", one, two, "--check", "20ms")
	p.line("cannot connect to "+two, 1)
	l, err := net.Listen("tcp", two)
	if err != nil {
		t.Fatal(err)
	}
	go serveOn(l, func(*net.TCPConn) {})
	p.line("back "+two, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p.line("cannot connect to "+two, 2)
}

// TestDemo: it shows the whole thing and exits with 0 when no one watches.
func TestDemo(t *testing.T) {
	p := prepare(t, "weir", "demo")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	if code := p.end(); code != exitOK || p.said() != "" {
		t.Errorf("code %d: %s", code, p.said())
	}
	for _, w := range []string{"1  A web server listens on 127.0.0.1:", "2  A relay forwards to it", "weir ", "200 OK", "Next: weir 8080 localhost:3000"} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("it does not say %q:\n%s", w, out.String())
		}
	}
}
