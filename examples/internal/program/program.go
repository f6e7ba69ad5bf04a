// Package program runs the examples for their tests, unchanged except for the
// address that they listen on.
package program

import (
	"bytes"
	"encoding/json"
	"go/format"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// patience is how long a program may take to build, to listen and to answer.
const patience = time.Minute

// Source returns the example's main.go, and fails the test unless it is
// formatted and has exactly that many lines.
func Source(tb testing.TB, lines int) []byte {
	tb.Helper()
	src, err := os.ReadFile("main.go")
	if err != nil {
		tb.Fatal(err)
	}
	formatted, err := format.Source(src)
	if err != nil || !bytes.Equal(src, formatted) {
		tb.Fatalf("main.go is not formatted: %v", err)
	}
	if n := bytes.Count(src, []byte("\n")); n != lines {
		tb.Errorf("main.go has %d lines, want %d", n, lines)
	}
	return src
}

var listens = regexp.MustCompile(`"127\.0\.0\.1:\d+"`)

// Start builds the example in the working directory, with a free port in place
// of the one address that main.go names, and runs it until the test ends. It
// returns the address, on which the program accepts.
func Start(tb testing.TB) string {
	tb.Helper()
	return Run(tb).Addr
}

// Program is a running example.
type Program struct {
	Addr  string // where it listens
	cmd   *exec.Cmd
	out   bytes.Buffer // until ended is closed the program's
	ended chan struct{}
	err   error // Wait's, once ended is closed
}

// PID is the program's process.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Terminate sends SIGTERM.
func (p *Program) Terminate(tb testing.TB) {
	tb.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		tb.Skip("no SIGTERM here: ", err)
	}
}

// Ended waits until the program has ended by itself, and returns what it printed.
// It fails the test if the program ended with an error.
func (p *Program) Ended(tb testing.TB) string {
	tb.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		tb.Fatal("the program goes on")
	}
	if p.err != nil {
		tb.Errorf("the program ended with %v", p.err)
	}
	return p.out.String()
}

// Run is Start for a program that takes arguments or has to be ended.
func Run(tb testing.TB, args ...string) *Program {
	tb.Helper()
	src, err := os.ReadFile("main.go")
	if err != nil {
		tb.Fatal(err)
	}
	if n := len(listens.FindAll(src, -1)); n != 1 {
		tb.Fatalf("main.go names %d addresses, want 1", n)
	}
	// The port may be taken between here and there.
	for range 5 {
		addr := freeAddr(tb)
		exe := build(tb, listens.ReplaceAll(src, []byte(strconv.Quote(addr))))
		if p := run(tb, exe, addr, args); p != nil {
			return p
		}
	}
	tb.Fatal("the program never came to listen")
	return nil
}

func freeAddr(tb testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func build(tb testing.TB, src []byte) string {
	dir := tb.TempDir()
	changed := filepath.Join(dir, "main.go")
	if err := os.WriteFile(changed, src, 0o600); err != nil {
		tb.Fatal(err)
	}
	original, err := filepath.Abs("main.go")
	if err != nil {
		tb.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		tb.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		tb.Fatal(err)
	}
	exe := filepath.Join(dir, "example.exe")
	out, err := exec.Command("go", "build", "-overlay", overlayFile, "-o", exe, ".").CombinedOutput()
	if err != nil {
		tb.Fatalf("go build: %v\n%s", err, out)
	}
	return exe
}

// run starts exe and waits until addr accepts; nil if the program ended before
// that.
func run(tb testing.TB, exe, addr string, args []string) *Program {
	p := &Program{Addr: addr, cmd: exec.Command(exe, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	tb.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if tb.Failed() {
			tb.Logf("the program printed: %s", p.out.Bytes())
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return p
		}
		select {
		case <-p.ended:
			return nil
		case <-deadline:
			tb.Fatalf("nothing listens on %s", addr)
		case <-tick.C:
		}
	}
}

// Dial connects to addr until the test ends. Reading and writing fail after a
// minute.
func Dial(tb testing.TB, addr string) *net.TCPConn {
	tb.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	return c.(*net.TCPConn)
}
