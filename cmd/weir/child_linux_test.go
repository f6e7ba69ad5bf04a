package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/future"
	proc "github.com/weir-io/weir/process"
	"github.com/weir-io/weir/weirtest"
	"golang.org/x/sys/unix"
)

// children are the programs that a process has started and not reaped.
func (p *process) children() []string {
	p.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.Process.Pid))
	if err != nil || len(tasks) == 0 {
		p.t.Skip("the kernel does not say which children there are")
	}
	var all []string
	for _, f := range tasks {
		text, err := os.ReadFile(f)
		if err == nil { // else the thread has ended
			all = append(all, strings.Fields(string(text))...)
		}
	}
	return all
}

// asked writes to a server, ends its direction, and returns the whole reply.
func asked(t *testing.T, addr, text string) string {
	t.Helper()
	c := dial(t, addr)
	if err := write(c, text); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// TestExec: a server starts a program for each connection, says who its peer is, and
// keeps its reply after the client has ended its direction.
func TestExec(t *testing.T) {
	p := start(t, "tcp-listen:127.0.0.1:0", "exec,stderr=out", "--", "sh", "-c", "echo $WEIR_LOCAL $NOTIFY_SOCKET >&2; sort -r; echo $1", "sh", "a b+c,%")
	addr := p.listening()
	if got, want := asked(t, addr, "1\n2\n"), addr+"\n2\n1\na b+c,%\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c := dial(t, addr)
	if err := write(c, "x"); err != nil {
		t.Fatal(err)
	}
	p.line("open #2", 1)
	if kids := p.children(); len(kids) == 0 {
		t.Error("no program runs")
	}
	p.signal(syscall.SIGTERM)
	p.line("draining", 1)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), "a b+c,%") {
		t.Errorf("while draining: %q, %v", got, err)
	}
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestExecPeer: WEIR_PEER is the client's address.
func TestExecPeer(t *testing.T) {
	p := start(t, "tcp-listen:127.0.0.1:0", "exec,shell", "--", "echo $WEIR_PEER")
	c := dial(t, p.listening())
	// The program has ended: so does the connection, though the client has not.
	got, err := io.ReadAll(c)
	if err != nil || string(got) != c.LocalAddr().String()+"\n" {
		t.Errorf("%q, %v; want %s", got, err, c.LocalAddr())
	}
	if l := p.line("close #1", 1); !strings.Contains(l, "closed by exec sh") {
		t.Error(l)
	}
}

// TestExecTLS: a program is told the version of TLS, which server its client asked for, and
// the subject of its certificate, but nothing that weir's own environment says of that.
func TestExecTLS(t *testing.T) {
	a := newAuthority(t)
	until := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name, listen, dial, want string
	}{
		{"certificate", "+tls,client-ca=" + a.ca() + a.issue("server", until, "server.test"), "+tls,name=server.test,ca=" + a.ca() + a.issue("billing", until), "TLS 1.3/server.test/CN=billing\n"},
		{"none", "+tls" + a.issue("server", until, "server.test"), "+tls,name=server.test,ca=" + a.ca(), "TLS 1.3/server.test/\n"},
		{"no TLS", "", "", "//\n"},
	} {
		p := prepare(t, "weir", "tcp-listen:127.0.0.1:0"+c.listen, "exec,shell", "--", `echo "$WEIR_TLS_VERSION/$WEIR_TLS_SERVER_NAME/$WEIR_CERTIFICATE"`)
		p.Env = append(p.Env, "WEIR_TLS_VERSION=SSL 2", "WEIR_TLS_SERVER_NAME=forged", "WEIR_CERTIFICATE=CN=root")
		p.begin()
		q := prepare(t, "weir", "-", p.listening()+c.dial)
		var out bytes.Buffer
		q.Stdout = &out
		q.begin()
		if code := q.end(); code != exitOK || out.String() != c.want {
			t.Errorf("%s: code %d, %q, want %q; it said\n%s", c.name, code, out.String(), c.want, q.said())
		}
	}
}

// TestExecCodes: a one-shot ends with its program's exit code.
func TestExecCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-", "exec", "--", "cat"}, 0, "close #1"},
		{[]string{"-", "exec", "--", "head", "-n", "1"}, 0, "close #1"},
		{[]string{"exec", "-", "--", "sh", "-c", "exit 7"}, 7, "exit code 7"},
		{[]string{"-", "exec", "--", "sh", "-c", "exec >&-; read x; kill -9 $$"}, 137, "signal: killed"},
		{[]string{"-", "exec", "--", "no-such-program"}, exitFailure, "cannot start no-such-program: no such file or directory (looked in"},
		{[]string{"-", "exec,dir=/no/such", "--", "cat"}, exitFailure, "cannot start"},
		{[]string{"-", "exec,user=no-such-user", "--", "cat"}, exitFailure, "unknown user"},
		{[]string{"-", "exec"}, exitUsage, "has no program to run"},
		{[]string{"-", "exec", "--"}, exitUsage, "has no program to run"},
		{[]string{"exec", "pty", "--", "cat"}, exitUsage, "two endpoints would run the program"},
		{[]string{"-", "localhost:1", "--", "cat"}, exitUsage, "no endpoint here runs one"},
		{[]string{"-", "exec:cat"}, exitUsage, "write exec -- cat"},
		{[]string{"127.0.0.1:1", "exec", "--", "cat"}, exitFailure, "cannot connect"},
	} {
		p := prepare(t, "weir", c.args...)
		p.Stdin = strings.NewReader(strings.Repeat("in\n", 100_000))
		p.begin()
		if code := p.end(); code != c.code || !strings.Contains(p.said(), c.says) {
			t.Errorf("%q: code %d, want %d; it said\n%s", c.args, code, c.code, p.said())
		}
	}
}

// TestExecInputClosed: a program may close its input and answer later; what its client
// goes on to send is dropped.
func TestExecInputClosed(t *testing.T) {
	p := start(t, "tcp-listen:127.0.0.1:0", "exec", "--", "sh", "-c", "exec <&-; sleep 0.4; echo late")
	c := dial(t, p.listening())
	if err := write(c, strings.Repeat("unwanted ", 50_000)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "late\n" {
		t.Errorf("%q, %v", got, err)
	}
	if l := p.line("close #1", 1); !strings.Contains(l, "closed by exec sh") {
		t.Error(l)
	}
}

// TestExecBound: no more programs run than children= says, and one whose client has
// gone is asked to end, and killed if it does not.
func TestExecBound(t *testing.T) {
	p := start(t, "tcp-listen:127.0.0.1:0", "exec,children=1,grace=50ms", "--", "sh", "-c", "trap '' TERM HUP; echo ready; for i in $(seq 3000); do sleep 0.02; done")
	addr := p.listening()
	first := dial(t, addr)
	if err := readFull(first, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if second, err := net.Dial("tcp", addr); err == nil { // the reset may come as early as that
		if err := second.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(second); err == nil || len(got) > 0 {
			t.Errorf("the second got %q, %v", got, err)
		}
		_ = second.Close()
	}
	p.line("1 programs of this endpoint are running already", 1)
	if err := first.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	p.line("signal: killed", 1)
	patiently(t, "end of the program", func() bool { return len(p.children()) == 0 })
	third := dial(t, addr)
	if err := readFull(third, make([]byte, 6)); err != nil {
		t.Errorf("after it has ended: %v", err)
	}
	p.signal(syscall.SIGTERM)
	p.line("draining", 1)
	kids := p.children()
	patiently(t, "end of what counts as one signal", func() bool {
		p.signal(syscall.SIGTERM)
		return strings.Contains(p.said(), "quitting")
	})
	p.end()
	for _, kid := range kids {
		patiently(t, "end of the program", func() bool {
			st, err := os.ReadFile("/proc/" + kid + "/stat")
			return err != nil || strings.Contains(string(st), ") Z ")
		})
	}
}

// TestExecInterruptedLate: a program that works on when its connection is over is asked to
// end by a signal, as one whose connection is open, and has not done its job.
func TestExecInterruptedLate(t *testing.T) {
	p := prepare(t, "weir", "-", "exec", "--", "sh", "-c",
		"trap 'echo ended >&2; exit 0' TERM; exec >&- <&-; echo begun >&2; for i in $(seq 3000); do sleep 0.02; done")
	p.Stdin = strings.NewReader("")
	p.begin()
	p.line("begun", 1)
	p.line("close #1", 1)
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != exitFailure {
		t.Errorf("code %d", code)
	}
	p.line("ended", 1)
}

// TestExecInterrupted: a signal ends a one-shot and its program.
func TestExecInterrupted(t *testing.T) {
	p := prepare(t, "weir", "-", "exec", "--", "sh", "-c", "trap 'exit 0' TERM; echo $$; for i in $(seq 3000); do sleep 0.02; done")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	p.Stdout = w
	p.begin()
	buf := make([]byte, 20)
	n, err := r.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != exitFailure {
		t.Errorf("code %d", code)
	}
	var pid int
	if _, err := fmt.Sscan(string(buf[:n]), &pid); err != nil {
		t.Fatal(err)
	}
	patiently(t, "end of the program", func() bool { return unix.Kill(pid, 0) != nil })
}

// TestPtyServer: a program on a terminal, to a client that ends its direction.
func TestPtyServer(t *testing.T) {
	p := start(t, "tcp-listen:127.0.0.1:0", "pty", "--", "sh", "-c", "test -t 0 && test -t 2 && stty -echo && echo terminal; cat; tty </dev/tty >/dev/null && echo end")
	c := dial(t, p.listening())
	if got := make([]byte, len("terminal\r\n")); readFull(c, got) != nil || string(got) != "terminal\r\n" {
		t.Fatalf("got %q", got)
	}
	if err := write(c, "a\nb"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "a\r\nbend\r\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestPtyTyped: standard input that is a terminal goes raw, its window's size is the
// program's and follows, the escape key ends weir, and the terminal is as before.
func TestPtyTyped(t *testing.T) {
	person, program := terminal(t)
	size := func(rows, cols uint16) {
		t.Helper()
		if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			t.Fatal(err)
		}
	}
	size(12, 34)
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	p := prepare(t, "weir", "-", "pty", "--", "sh", "-c", "trap 'stty size' WINCH; trap 'echo interrupted' INT; stty -echo; stty size; sleep 60 & while kill -0 $!; do wait $!; done")
	p.Stdin, p.Stdout = program, program
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.begin()
	var seen bytes.Buffer
	see := func(text string) {
		t.Helper()
		buf := make([]byte, 1000)
		for !strings.Contains(seen.String(), text) {
			n, err := person.Read(buf)
			if err != nil {
				t.Fatalf("%v; seen %q", err, seen.String())
			}
			seen.Write(buf[:n])
		}
	}
	see("12 34\r\n")
	size(56, 78)
	see("56 78\r\n")
	enter(t, person, "\x03")
	see("interrupted\r\n")
	if raw, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS); err != nil || raw.Lflag&unix.ICANON != 0 {
		t.Errorf("the terminal is not raw: %+v, %v", raw, err)
	}
	enter(t, person, "\x1d")
	if code := p.end(); code != exitFailure || !strings.Contains(p.said(), ", ended by the escape key") ||
		!strings.Contains(p.said(), "stdio -> pty sh, Ctrl-] ends it") {
		t.Errorf("code %d; it said\n%s", code, p.said())
	}
	if after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS); err != nil || *after != *before {
		t.Errorf("the terminal is %+v, was %+v; %v", after, before, err)
	}
}

// TestExplainExec: explain names the program and starts none.
func TestExplainExec(t *testing.T) {
	r := call(t, "explain", ":2323", "pty,user=nobody", "--", "bash", "-l")
	if r.code != exitOK || !strings.Contains(r.out, "starts bash as nobody on a terminal of its own") {
		t.Errorf("%+v", r)
	}
}

// TestPtyStopped: weir that is stopped leaves the terminal as it was, and sets it raw again
// when it goes on; the way back is then to what the terminal was meanwhile.
func TestPtyStopped(t *testing.T) {
	person, program := terminal(t)
	mode := func() unix.Termios {
		t.Helper()
		v, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return *v
	}
	before := mode()
	p := prepare(t, "weir", "-", "pty", "--", "sh", "-c", "trap 'stty size' WINCH; stty -echo; echo ready; sleep 60 & while kill -0 $!; do wait $!; done")
	p.Stdin, p.Stdout = program, program
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.begin()
	see := sees(t, person)
	see("ready")
	p.signal(syscall.SIGTSTP)
	patiently(t, "the stop", func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		return strings.Contains(string(text), ") T ")
	})
	if mode() != before {
		t.Errorf("while it is stopped the terminal is %+v, was %+v", mode(), before)
	}
	changed := before
	changed.Lflag ^= unix.ECHOK
	if err := unix.IoctlSetTermios(int(program.Fd()), unix.TCSETS, &changed); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 21, Col: 43}); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGCONT)
	see("21 43")
	if mode().Lflag&unix.ICANON != 0 {
		t.Errorf("it went on, and the terminal is not raw: %+v", mode())
	}
	enter(t, person, "\x1d")
	p.end()
	if mode() != changed {
		t.Errorf("the terminal is %+v, was %+v", mode(), changed)
	}
}

// TestPtyRestored: however weir ends that is told of it, by a signal or by a panic on the loop's
// goroutine, the terminal is as it was; and what does not end it leaves the terminal raw.
func TestPtyRestored(t *testing.T) {
	for _, c := range []struct {
		name, as, panics string
		signal           syscall.Signal
		goesOn           bool
		code             int
	}{
		{"SIGTERM", "weir", "", syscall.SIGTERM, false, exitFailure},
		{"SIGHUP", "weir", "", syscall.SIGHUP, false, exitFailure},
		{"SIGINT", "weir", "", syscall.SIGINT, false, exitFailure},
		{"SIGQUIT", "weir", "", syscall.SIGQUIT, true, exitFailure},
		{"a panic outside of callbacks", "weir, which panics", "begin", 0, false, 2},
		{"a panic in a callback", "weir, which panics", "turn", 0, true, exitFailure},
	} {
		t.Run(c.name, func(t *testing.T) {
			person, program := terminal(t)
			mode := func() unix.Termios {
				t.Helper()
				v, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
				if err != nil {
					t.Fatal(err)
				}
				return *v
			}
			before := mode()
			p := prepare(t, c.as, "-", "pty", "--", "sh", "-c", "stty -echo; echo ready; read x")
			p.Env = append(p.Env, "WEIR_TEST_PANIC="+c.panics)
			p.Stdin, p.Stdout = program, program
			p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			p.begin()
			see := sees(t, person)
			switch {
			case c.signal != 0:
				see("ready")
				if mode().Lflag&unix.ICANON != 0 {
					t.Fatal("the terminal is not raw")
				}
				p.signal(c.signal)
				if c.goesOn {
					p.line("running", 1)
				}
			case c.goesOn:
				p.line("as planned", 1)
				see("ready")
			}
			if c.goesOn {
				if mode().Lflag&unix.ICANON != 0 {
					t.Error("it goes on, and the terminal is not raw")
				}
				enter(t, person, "\x1d")
			}
			if code := p.end(); code != c.code || c.panics != "" && !strings.Contains(p.said(), "as planned") {
				t.Errorf("code %d, want %d; it said\n%s", code, c.code, p.said())
			}
			if mode() != before {
				t.Errorf("the terminal is %+v, was %+v", mode(), before)
			}
		})
	}
}

// TestPtyEarlySignal: a signal that comes while the terminal is being made raw is heard, and
// the terminal is as it was. strace sends one with each of the calls that do that.
func TestPtyEarlySignal(t *testing.T) {
	person, program := terminal(t)
	mode := func() unix.Termios {
		t.Helper()
		v, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return *v
	}
	before := mode()
	p := prepare(t, "weir", "-", "pty", "--", "sh", "-c", "echo ready; read x")
	p.Stdin, p.Stdout = program, program
	// The first two only ask.
	trace := strace(t, "epoll", "-e trace=ioctl -e inject=ioctl:signal=SIGTERM:when=3+", p)
	enter(t, person, "\x1d") // it would wait if no signal came
	code := p.end()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "TCSETS") || !strings.Contains(string(text), "--- SIGTERM") {
		t.Fatalf("no signal came while the terminal was being made raw:\n%s", text)
	}
	if code != exitFailure {
		t.Errorf("code %d; it said\n%s", code, p.said())
	}
	if mode() != before {
		t.Errorf("the terminal is %+v, was %+v\n%s", mode(), before, text)
	}
}

// TestPtyStopIgnored: weir that was started with SIGTSTP ignored is not stopped by it.
func TestPtyStopIgnored(t *testing.T) {
	person, program := terminal(t)
	p := prepare(t, "weir")
	p.Path, p.Args = "/bin/sh", []string{"sh", "-c", `trap "" TSTP; exec "$0" "$@"`, p.Path, "-", "pty", "--", "sh", "-c", "stty -echo; echo ready; read x; echo $x; read x"}
	p.Stdin, p.Stdout = program, program
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.begin()
	see := sees(t, person)
	see("ready")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	_, caught, _ := strings.Cut(string(status), "SigCgt:\t")
	var mask uint64
	if _, bad := fmt.Sscanf(caught, "%x", &mask); err != nil || bad != nil {
		t.Fatal(err, bad)
	}
	if mask>>(syscall.SIGTSTP-1)&1 != 0 {
		t.Fatal("weir catches a signal that was ignored")
	}
	p.signal(syscall.SIGTSTP)
	enter(t, person, "it goes on\r")
	see("it goes on")
	enter(t, person, "\x1d")
	p.end()
}

// TestPtyOwnSize: a terminal with a size of its own keeps it when the window of the terminal
// that is typed at changes, and when weir goes on after a stop.
func TestPtyOwnSize(t *testing.T) {
	person, program := terminal(t)
	p := prepare(t, "weir", "-", "pty,size=80x24", "--", "sh", "-c", "stty -echo; echo ready; while read x; do stty size; done")
	p.Stdin, p.Stdout = program, program
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.begin()
	see := sees(t, person)
	see("ready")
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 21, Col: 43}); err != nil {
		t.Fatal(err)
	}
	stopped := func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		return strings.Contains(string(text), ") T ")
	}
	p.signal(syscall.SIGTSTP)
	patiently(t, "the stop", stopped)
	p.signal(syscall.SIGCONT)
	patiently(t, "the terminal to be raw again", func() bool {
		v, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
		return err == nil && v.Lflag&unix.ICANON == 0
	})
	enter(t, person, "\r")
	see("\n")
	see("24 80")
	enter(t, person, "\x1d")
	p.end()
}

// TestPtyResizedEarly: a window that changes while a program is being started is its size.
func TestPtyResizedEarly(t *testing.T) {
	for want, word := range map[string]string{"21 43": "pty", "1 2": "pty,size=2x1"} {
		var said, seen bytes.Buffer
		c := &command{stderr: &said, lookupEnv: func(string) (string, bool) { return "", false }, table: endpoint.Default()}
		p, err := c.plan([]string{"-", word}, []string{"sh", "-c", "read x; stty size"}, flags{})
		if err != nil {
			t.Fatal(err)
		}
		a, err := newApp(c, p, flags{}, newReporter(c, flags{}))
		if err != nil {
			t.Fatal(err)
		}
		s := a.newSession()
		a.env.Raw, a.env.Window = true, proc.Size{Rows: 21, Columns: 43}
		window := &typedAt{seen: &seen}
		tty := proc.Terminal(proc.Size{Rows: 1, Columns: 2}, func(weir.Transport) weir.Protocol { return window })
		files := map[int]proc.File{0: tty.In(), 1: tty.Out(), 2: tty.Out()}
		proc.Start(future.On(a.loop), a.starter, &proc.Command{Path: "sh", Args: []string{"sh", "-c", "read x; stty size"}, Files: files}).OnDone(func(child *proc.Process, err error) {
			if err != nil {
				t.Error(err)
				return
			}
			s.started(child)
			if _, err := window.t.Write([]byte("\n")); err != nil {
				t.Error(err)
			}
		})
		weirtest.Until(t, a.loop, "the program's size", func() bool { return strings.Contains(seen.String(), want+"\r\n") || s.exit != nil && window.lost })
		if !strings.Contains(seen.String(), want+"\r\n") {
			t.Errorf("%s: %q, want %s", word, seen.String(), want)
		}
		weirtest.Until(t, a.loop, "the end", func() bool { return s.exit != nil && window.lost })
		if err := a.loop.Close(); err != nil {
			t.Error(err)
		}
	}
}

// typedAt is the other side of a program's terminal.
type typedAt struct {
	weir.NopProtocol
	t    weir.Transport
	seen *bytes.Buffer
	lost bool
}

func (w *typedAt) ConnectionMade(t weir.Transport)    { w.t = t }
func (w *typedAt) DataReceived(b []byte) (int, error) { return w.seen.Write(b) }
func (w *typedAt) ConnectionLost(error)               { w.lost = true }

// TestPtyLink: a terminal that another program opens by a link, as a serial line.
func TestPtyLink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "modem")
	p := prepare(t, "weir", "-", "pty,reply=300ms,mode=0600,size=100x30,link="+link)
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	patiently(t, "the link", func() bool { _, err := os.Stat(link); return err == nil })
	script := `stty size && read x && echo "you said $x" && read y && echo "and $y"`
	cmd := exec.Command("sh", "-c", script)
	if cmd.Stdin, err = os.OpenFile(link, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = cmd.Stdin.(*os.File)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "hello\nagain\n"); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	_ = cmd.Stdin.(*os.File).Close()
	if code := p.end(); code != exitOK || out.String() != "30 100\nyou said hello\nand again\n" {
		t.Errorf("code %d, %q\n%s", code, out.String(), p.said())
	}
	if _, err := os.Lstat(link); err == nil {
		t.Error("the link is there at the end")
	}
	for _, c := range []struct{ args []string }{
		{[]string{"-", "pty,link=" + link, "--", "cat"}},
		{[]string{"-", "pty,once", "--", "cat"}},
		{[]string{"-", "pty,size=80", "--", "cat"}},
		{[]string{"-", "pty,link=" + link + ",dir=/"}},
	} {
		if r := call(t, c.args...); r.code != exitUsage {
			t.Errorf("%q: code %d", c.args, r.code)
		}
	}
	if r := call(t, "-", "pty", "vim", "file"); r.code != exitUsage || !strings.Contains(r.err, "weir - pty -- vim file") {
		t.Errorf("a program without --: code %d\n%s", r.code, r.err)
	}
	if r := call(t, "pty", "--", "vim", "file"); r.code != exitUsage || !strings.Contains(r.err, "weir - pty -- vim file") {
		t.Errorf("one endpoint: code %d\n%s", r.code, r.err)
	}
	if err := os.WriteFile(link, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p = prepare(t, "weir", "-", "pty,link="+link)
	p.Stdin = strings.NewReader("")
	p.begin()
	if code := p.end(); code != exitFailure || !strings.Contains(p.said(), "is there already") {
		t.Errorf("something in the way: code %d\n%s", code, p.said())
	}
}

// TestPtySignals: whatever signal ends weir, its terminal is as before.
func TestPtySignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			person, program := terminal(t)
			before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			p := prepare(t, "weir", "-", "pty", "--", "sh", "-c", "stty -echo; echo ready; exec sleep 60")
			p.Stdin, p.Stdout = program, program
			p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			p.begin()
			b := make([]byte, len("ready"))
			if _, err := io.ReadFull(person, b); err != nil || string(b) != "ready" {
				t.Fatalf("%q, %v", b, err)
			}
			p.signal(sig)
			p.end()
			if after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS); err != nil || *after != *before {
				t.Errorf("the terminal is %+v, was %+v; %v", after, before, err)
			}
		})
	}
}

// sees returns what waits until a terminal has shown a text, now or before.
func sees(t *testing.T, person io.Reader) func(text string) {
	seen := ""
	return func(text string) {
		t.Helper()
		buf := make([]byte, 1000)
		for !strings.Contains(seen, text) {
			n, err := person.Read(buf)
			if err != nil {
				t.Fatalf("%v; seen %q", err, seen)
			}
			seen += string(buf[:n])
		}
	}
}
