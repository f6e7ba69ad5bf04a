// Package hosttest is what the tests of hosts share: a server to download from, programs
// that are built, run and read line by line, and an X server without a screen.
//
// The examples speak one language, so that one test fits all of them. Flags: -url says
// what to download, -alone for how long the host's timer is measured first, and -idle for
// how long nothing is done afterwards. Lines of their output:
//
//	alone ticks=… p50=… p99=… max=…
//	downloaded bytes=… sum=…
//	busy ticks=… p50=… p99=… max=…
//	idle
//	closed
package hosttest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/internal/download"
)

// patience is how long a program may take for a line.
const patience = 60 * time.Second

// Need skips the test, and names what is missing, unless each program is installed.
func Need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("skipped: %s is not installed", p)
		}
	}
}

// NeedLibrary skips the test, and names what is missing, unless pkg-config finds it.
func NeedLibrary(t *testing.T, names ...string) {
	t.Helper()
	Need(t, "pkg-config")
	for _, n := range names {
		if exec.Command("pkg-config", "--exists", n).Run() != nil {
			t.Skipf("skipped: the library %s is not installed", n)
		}
	}
}

// Backends runs f on each backend, as a test of its own; it skips those that the system
// refuses. f makes a loop with option.
func Backends(t *testing.T, f func(t *testing.T, option weir.LoopOption)) {
	t.Helper()
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			option := weir.WithBackendName(name)
			l, err := weir.NewLoop(option)
			if err != nil {
				t.Skipf("skipped: the system refuses %s: %v", name, err)
			}
			got := l.Backend().Name
			_ = l.Close()
			if got != name {
				t.Skipf("skipped: the system refuses %s", name)
			}
			f(t, option)
		})
	}
}

// Flags is what pkg-config says about a library.
func Flags(t *testing.T, names ...string) []string {
	t.Helper()
	out, err := exec.Command("pkg-config", append([]string{"--cflags", "--libs"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// Do runs a command to its end, which must be a success, and returns its output.
func Do(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Build builds a program of the test's module and returns its path.
func Build(t *testing.T, pkg string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	Do(t, "go", append(append([]string{"build", "-o", out}, args...), pkg)...)
	return out
}

// Serve starts a server in this process and returns the URL of its files' directory.
func Serve(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: download.Handler()}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-gone
	})
	return "http://" + ln.Addr().String() + "/"
}

// Size is how much the tests download: 1 GiB, or what HOSTS_BYTES says, and with -short
// 64 MiB.
func Size(t *testing.T) int64 {
	t.Helper()
	if s := os.Getenv("HOSTS_BYTES"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return 64 << 20
	}
	return 1 << 30
}

// IdleFor is how long a program must do nothing: ten seconds, and with -short one.
func IdleFor() time.Duration {
	if testing.Short() {
		return time.Second
	}
	return 10 * time.Second
}

// A Program is a running program.
type Program struct {
	t     *testing.T
	Cmd   *exec.Cmd
	lines chan string
	mu    sync.Mutex
	all   bytes.Buffer // all of its output, for messages
}

// Start starts a program. It is killed if it still runs when the test ends.
func Start(t *testing.T, cmd *exec.Cmd) *Program {
	t.Helper()
	p := &Program{t: t, Cmd: cmd, lines: make(chan string, 64)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		r.Close()
	})
	go func() {
		defer close(p.lines)
		in := bufio.NewScanner(r)
		for in.Scan() {
			p.mu.Lock()
			p.all.WriteString(in.Text() + "\n")
			p.mu.Unlock()
			p.lines <- in.Text()
		}
	}()
	return p
}

// Output is what the program has written so far.
func (p *Program) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.String()
}

// Line waits for a line that begins with a word and returns the rest of it.
func (p *Program) Line(word string) string {
	p.t.Helper()
	late := time.After(patience)
	for {
		select {
		case s, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("%s ended without a line %q:\n%s", p.Cmd.Path, word, p.Output())
			}
			if rest, found := strings.CutPrefix(s, word); found {
				return strings.TrimSpace(rest)
			}
		case <-late:
			p.t.Fatalf("%s: no line %q within %v:\n%s", p.Cmd.Path, word, patience, p.Output())
		}
	}
}

// End waits until the program ends, which must be a success.
func (p *Program) End() {
	p.t.Helper()
	if err := p.Cmd.Wait(); err != nil {
		p.t.Fatalf("%s: %v\n%s", p.Cmd.Path, err, p.Output())
	}
}

// Field is a number in a line such as "ticks=12 p50=16.01ms".
func Field(t *testing.T, line, name string) float64 {
	t.Helper()
	m := regexp.MustCompile(`(?:^| )` + name + `=([0-9.]+)`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("no %s in %q", name, line)
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Watch follows an example to its end: what it downloads is whole, its timer ticked
// meanwhile, and then nothing wakes it. more looks at the line of
// the download.
func (p *Program) Watch(bytes int64, more ...func(downloaded string)) {
	p.t.Helper()
	p.t.Log("alone ", p.Line("alone"))
	got := p.Line("downloaded")
	if want := fmt.Sprintf("bytes=%d sum=%08x", bytes, download.Sum(bytes)); !strings.HasPrefix(got, want) {
		p.t.Fatalf("downloaded %s, want %s", got, want)
	}
	p.t.Log("downloaded ", got)
	for _, f := range more {
		f(got)
	}
	busy := p.Line("busy")
	p.t.Log("busy  ", busy)
	// A tick is due each 16 ms; four of five may be late here, where time is not tested.
	if ticks, ms := Field(p.t, busy, "ticks"), Field(p.t, got, "ms"); ticks < ms/16/5-1 {
		p.t.Errorf("the host's timer of 16 ms fired %.0f times in %.0f ms", ticks, ms)
	}
	p.Line("idle")
	p.Silent(IdleFor())
	p.Line("closed")
	p.End()
}

// Silent fails unless there is a time of length d in which the program, all its threads
// included, makes no system call.
func (p *Program) Silent(d time.Duration) {
	p.t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		p.t.Log("not checked that it idles: strace is not installed")
		return
	}
	out := filepath.Join(p.t.TempDir(), "strace")
	s := exec.Command("strace", "-f", "-ttt", "-o", out, "-p", strconv.Itoa(p.Cmd.Process.Pid))
	var says bytes.Buffer
	s.Stderr = &says
	if err := s.Start(); err != nil {
		p.t.Fatal(err)
	}
	// On a busy machine strace takes a while to begin, and the program may have ended by
	// then what it does when it is idle for long enough: there are calls at both ends.
	<-time.After(d + 3*settling)
	times := []float64{float64(time.Now().UnixMicro()) / 1e6}
	_ = s.Process.Signal(os.Interrupt)
	_ = s.Wait()
	if !strings.Contains(says.String(), "attached") {
		p.t.Logf("not checked that it idles: strace says %s", says.String())
		return
	}
	data, err := os.ReadFile(out)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		at, err := strconv.ParseFloat(f[1], 64)
		if err == nil && at < times[0] {
			times = append(times, at)
		}
	}
	slices.Sort(times)
	longest := 0.0
	for i := 1; i < len(times); i++ {
		longest = max(longest, times[i]-times[i-1])
	}
	if longest < d.Seconds() {
		p.t.Errorf("at most %.2f s without a system call while nothing was to be done, want %v:\n%.3000s", longest, d, data)
		return
	}
	p.t.Logf("%.1f s without a system call", longest)
}

// settling is a third of the time that strace may take to begin.
const settling = time.Second

// Args are the flags of every example. The host's timer is measured alone for a second, or
// for as long as HOSTS_ALONE says.
func Args(url string, bytes int64) []string {
	alone := os.Getenv("HOSTS_ALONE")
	if alone == "" {
		alone = "1s"
	}
	return []string{"-url", url + strconv.FormatInt(bytes, 10), "-alone", alone, "-idle", (IdleFor() + 5*settling).String()}
}

// Display starts an X server without a screen and returns its name.
func Display(t *testing.T) string {
	t.Helper()
	Need(t, "Xvfb")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "800x600x24", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Skipf("skipped: Xvfb does not start: %v", err)
	}
	return ":" + strings.TrimSpace(line)
}

// Screenshot writes a picture of a display to $HOSTS_SHOTS/name.png, if that is set.
func Screenshot(t *testing.T, display, name string) {
	t.Helper()
	dir := os.Getenv("HOSTS_SHOTS")
	if _, err := exec.LookPath("import"); dir == "" || err != nil {
		return
	}
	Do(t, "import", "-display", display, "-window", "root", filepath.Join(dir, name+".png"))
}
