package serial_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/serial"
	"github.com/weir-io/weir/weirtest"
	"golang.org/x/sys/unix"
)

// onBackends runs f with a loop on each backend that this machine has.
func onBackends(t *testing.T, f func(t *testing.T, l *weir.Loop)) {
	t.Helper()
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != name {
				t.Skip("WEIR_BACKEND asks for ", asked)
			}
			weirtest.CheckLeaks(t)
			l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
			if err != nil || l.Backend().Name != name {
				t.Skipf("the system refuses %s: %v", name, err)
			}
			defer l.Close()
			f(t, l)
		})
	}
}

// device is the other end of a line: the master of a pseudo-terminal.
type device struct {
	*os.File
	path string
}

// plug makes a device at path, a link to what it is in fact.
func plug(t *testing.T, path string) *device {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("no pseudo-terminals: ", err)
	}
	d := &device{os.NewFile(uintptr(fd), "master"), path}
	t.Cleanup(func() { d.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = os.Symlink("/dev/pts/"+strconv.Itoa(n), path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// unplug takes the device away.
func (d *device) unplug(t *testing.T) {
	t.Helper()
	if err := errors.Join(os.Remove(d.path), d.Close()); err != nil {
		t.Fatal(err)
	}
}

// took reads n bytes of what was sent to the device.
func (d *device) took(n int) <-chan string {
	c := make(chan string, 1)
	go func() {
		b := make([]byte, n)
		m, err := io.ReadFull(d, b)
		if err != nil {
			c <- err.Error() + " after " + string(b[:m])
			return
		}
		c <- string(b)
	}()
	return c
}

// user is the protocol above a line.
type user struct {
	t    weir.Transport
	got  bytes.Buffer
	eof  bool
	lost bool
	err  error
}

func (u *user) ConnectionMade(t weir.Transport)    { u.t = t }
func (u *user) DataReceived(b []byte) (int, error) { return u.got.Write(b) }
func (u *user) EOFReceived(int) (bool, error)      { u.eof = true; return true, nil }
func (u *user) ConnectionLost(err error)           { u.lost, u.err = true, err }
func (u *user) made(weir.Transport) weir.Protocol  { return u }
func open(t *testing.T, l *weir.Loop, path string, c serial.Config) (*serial.Port, *user) {
	t.Helper()
	u := &user{}
	p, err := serial.Open(l, path, c, u.made)
	if err != nil {
		t.Fatal(err)
	}
	return p, u
}

// every is each byte there is, many times over: more than a line's buffers hold.
func every(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

// receive turns the loop until something comes from c.
func receive(t *testing.T, l *weir.Loop, what string, c <-chan string) (s string) {
	t.Helper()
	weirtest.Until(t, l, what, func() bool {
		select {
		case s = <-c:
			return true
		default:
			return false
		}
	})
	return s
}

// TestBytes: every byte passes both ways as it is, more than the buffers hold, and a close
// waits for what was written (R27).
func TestBytes(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		p, u := open(t, l, d.path, serial.Config{Speed: 115200})
		if a := u.t.RemoteAddr(); a.Network() != "serial" || a.String() != d.path {
			t.Errorf("its address is %s %s", a.Network(), a)
		}
		if u.t.CanWriteEOF() {
			t.Error("CanWriteEOF is true without Reply")
		}
		text := every(200 << 10)
		go func() { _, _ = d.WriteString(text) }()
		weirtest.Until(t, l, "the device's bytes", func() bool { return u.got.Len() >= len(text) })
		if u.got.String() != text {
			t.Error("the device's bytes came changed")
		}
		_, _ = u.t.Write([]byte(text))
		_ = u.t.Close()
		taken := d.took(len(text))
		if got := receive(t, l, "our bytes", taken); got != text {
			t.Errorf("%d bytes reached the device", len(got))
		}
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		if u.err != nil || p.Away() {
			t.Errorf("lost with %v, away %v", u.err, p.Away())
		}
		if _, err := p.Kept(); !errors.Is(err, serial.ErrAway) {
			t.Errorf("settings of a closed line: %v", err)
		}
	})
}

// TestKept: a pseudo-terminal keeps any speed, and no parity; what is kept is told.
func TestKept(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		for _, speed := range []int{50, 9600, 31250, 115200, 123457, 4000000} {
			p, u := open(t, l, d.path, serial.Config{Speed: speed, StopBits: 2, Flow: serial.Software})
			kept, err := p.Kept()
			if err != nil || kept.Speed != speed || kept.Flow != serial.Software || kept.StopBits != 2 {
				t.Errorf("%d: kept %v, %v", speed, kept, err)
			}
			if err := p.SetConfig(serial.Config{Speed: 2 * speed, Bits: 7, Parity: serial.Even, Flow: serial.Hardware}); err != nil {
				t.Error(err)
			}
			kept, err = p.Kept()
			if err != nil || kept.String() != strconv.Itoa(2*speed)+" 8n1 rtscts" {
				t.Errorf("%d: kept %v, %v", speed, kept, err)
			}
			if _, err := p.Lines(); err == nil {
				t.Error("a pseudo-terminal has modem lines")
			}
			if err := p.Break(time.Millisecond); err != nil {
				t.Error(err)
			}
			u.t.Abort()
			weirtest.Until(t, l, "the end", func() bool { return u.lost })
			// What was before is put back: a terminal for a shell, at 38400.
			v, err := unix.IoctlGetTermios(int(d.Fd()), unix.TCGETS2)
			if err != nil || v.Lflag&unix.ICANON == 0 || v.Ospeed != 38400 || v.Cflag&unix.CRTSCTS != 0 || v.Iflag&unix.IXON == 0 {
				t.Errorf("%d: left as %+v, %v", speed, v, err)
			}
		}
	})
}

// TestExclusive: a second one may not open a line, unless both share it.
func TestExclusive(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		_, u := open(t, l, d.path, serial.Config{})
		if _, err := serial.Open(l, d.path, serial.Config{}, new(user).made); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "another program has locked it") {
			t.Errorf("a second one: %v, want EBUSY and what to do", err)
		}
		if os.Getuid() != 0 {
			if f, err := os.OpenFile(d.path, os.O_RDWR|unix.O_NOCTTY, 0); err == nil {
				f.Close()
				t.Error("another program could open it")
			}
		}
		u.t.Abort()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		_, a := open(t, l, d.path, serial.Config{Shared: true})
		_, b := open(t, l, d.path, serial.Config{Shared: true})
		for _, u := range []*user{a, b} {
			u.t.Abort()
			weirtest.Until(t, l, "the end", func() bool { return u.lost })
		}
	})
}

// TestErrors: what is no line, and what is no setting.
func TestErrors(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		dir := t.TempDir()
		if _, err := serial.Open(l, filepath.Join(dir, "none"), serial.Config{}, new(user).made); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no device: %v", err)
		}
		if _, err := serial.Open(l, "/dev/null", serial.Config{}, new(user).made); !errors.Is(err, syscall.ENOTTY) {
			t.Errorf("/dev/null: %v", err)
		}
		d := plug(t, filepath.Join(dir, "tty"))
		for _, c := range []serial.Config{{Speed: -1}, {Bits: 9}, {StopBits: 3}, {Parity: 5}, {Flow: 3}, {Raise: serial.CTS}, {Raise: serial.DTR, Drop: serial.DTR}, {Reply: -1}} {
			if _, err := serial.Open(l, d.path, c, new(user).made); err == nil {
				t.Errorf("%+v was taken", c)
			}
		}
		if _, err := serial.Open(l, d.path, serial.Config{}, func(weir.Transport) weir.Protocol { return nil }); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("refused: %v", err)
		}
		if _, u := open(t, l, d.path, serial.Config{}); u.t == nil {
			t.Error("what was refused keeps the line")
		}
	})
}

// TestUnplugged: a device that is gone ends the connection, after its last bytes, with a
// *GoneError.
func TestUnplugged(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		_, u := open(t, l, d.path, serial.Config{})
		_, _ = d.WriteString("last words")
		weirtest.Until(t, l, "its last words", func() bool { return u.got.Len() == len("last words") })
		d.unplug(t)
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		var gone *serial.GoneError
		if !errors.As(u.err, &gone) || gone.Path != d.path {
			t.Errorf("lost with %v", u.err)
		}
	})
}

// TestBack: a device that comes back is set again, and the connection goes on; what was
// written meanwhile is sent then. If it does not come back, the connection ends.
func TestBack(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		path := filepath.Join(t.TempDir(), "tty")
		d := plug(t, path)
		var told []error
		p, u := open(t, l, path, serial.Config{Speed: 31250, Absence: time.Hour, Changed: func(err error) { told = append(told, err) }})
		for i := 1; i <= 3; i++ {
			d.unplug(t)
			weirtest.Until(t, l, "the device to be missed", p.Away)
			if _, err := p.Lines(); !errors.Is(err, serial.ErrAway) {
				t.Errorf("lines of a device that is away: %v", err)
			}
			if _, err := u.t.Write([]byte("waiting")); err != nil {
				t.Fatal(err)
			}
			d = plug(t, path)
			weirtest.Until(t, l, "the device to be back", func() bool { return !p.Away() })
			if got := receive(t, l, "what was written", d.took(len("waiting"))); got != "waiting" {
				t.Errorf("it got %q", got)
			}
			_, _ = d.WriteString("back")
			weirtest.Until(t, l, "its bytes", func() bool { return u.got.Len() == i*len("back") })
			if kept, err := p.Kept(); err != nil || kept.Speed != 31250 {
				t.Errorf("it is set to %v, %v", kept, err)
			}
			if len(told) != 2*i || told[2*i-2] == nil || told[2*i-1] != nil {
				t.Errorf("told %v", told)
			}
		}
		if err := p.SetConfig(serial.Config{Absence: 300 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		d.unplug(t)
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		var gone *serial.GoneError
		if !errors.As(u.err, &gone) || gone.Wait != 300*time.Millisecond {
			t.Errorf("lost with %v", u.err)
		}
	})
}

// TestCloseAway: a line whose device is away closes at once, and so does one that sends
// nothing and is aborted.
func TestCloseAway(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		path := filepath.Join(t.TempDir(), "tty")
		d := plug(t, path)
		p, u := open(t, l, path, serial.Config{Absence: time.Hour})
		d.unplug(t)
		weirtest.Until(t, l, "the device to be missed", p.Away)
		_ = u.t.Close()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		plug(t, path)
		_, u = open(t, l, path, serial.Config{})
		_, _ = u.t.Write([]byte(every(300 << 10)))
		_ = u.t.Close()
		u.t.Abort()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		// The third is open when its loop ends.
		open(t, l, path, serial.Config{Absence: time.Hour})
	})
}

// TestPaused: bytes wait while reading is paused, also those of a device that came back
// meanwhile.
func TestPaused(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		path := filepath.Join(t.TempDir(), "tty")
		d := plug(t, path)
		back := 0
		p, u := open(t, l, path, serial.Config{Absence: time.Hour, Changed: func(err error) {
			if err == nil {
				back++
			}
		}})
		d.unplug(t)
		weirtest.Until(t, l, "the device to be missed", p.Away)
		u.t.PauseReading()
		d = plug(t, path)
		weirtest.Until(t, l, "the device to be back", func() bool { return back == 1 })
		_, _ = d.WriteString("held")
		passed := false
		l.After(50*time.Millisecond, func() { passed = true })
		weirtest.Until(t, l, "time to pass", func() bool { return passed })
		if u.got.Len() > 0 {
			t.Errorf("%q came while reading was paused", u.got.String())
		}
		u.t.ResumeReading()
		weirtest.Until(t, l, "what was held", func() bool { return u.got.String() == "held" })
	})
}

// TestReply: with Reply the end of our writing is a device's time to answer, and its
// silence is its end.
func TestReply(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		_, u := open(t, l, d.path, serial.Config{Reply: 100 * time.Millisecond})
		if !u.t.CanWriteEOF() {
			t.Fatal("CanWriteEOF is false with Reply")
		}
		_, _ = u.t.Write([]byte("ATI\r"))
		if err := u.t.WriteEOF(); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, l, "the question", d.took(4)); got != "ATI\r" {
			t.Errorf("it got %q", got)
		}
		_, _ = d.WriteString("a modem\r\nOK\r\n")
		weirtest.Until(t, l, "the end", func() bool { return u.eof })
		if u.got.String() != "a modem\r\nOK\r\n" {
			t.Errorf("%q came", u.got.String())
		}
		_ = u.t.Close()
		weirtest.Until(t, l, "the loss", func() bool { return u.lost })
		if u.err != nil {
			t.Error(u.err)
		}
	})
}

// TestSocat: two lines by socat's pseudo-terminals, a device with echo and a menu at the
// other end, and a session as one types it into a terminal program.
func TestSocat(t *testing.T) {
	exe, err := exec.LookPath("socat")
	if err != nil {
		t.Skip("socat is not installed")
	}
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		cmd := exec.Command(exe, "pty,raw,echo=0,link="+a, "pty,raw,echo=0,link="+b)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
		weirtest.Until(t, l, "socat's terminals", func() bool {
			_, ea := os.Stat(a)
			_, eb := os.Stat(b)
			return ea == nil && eb == nil
		})
		_, mine := open(t, l, a, serial.Config{Speed: 57600})
		box := &menu{}
		if _, err := serial.Open(l, b, serial.Config{Speed: 57600}, func(weir.Transport) weir.Protocol { return box }); err != nil {
			t.Fatal(err)
		}
		for _, s := range []struct{ typed, want string }{
			{"\r", "\r\nlogin: "},
			{"root\r", "root\r\n# "},
			{"version\r", "version\r\n1.0\r\n# "},
			{"dump\r", "dump\r\n" + every(20<<10) + "\r\n# "},
			{"exit\r", "exit\r\nlogin: "},
		} {
			mine.got.Reset()
			for i := range s.typed { // one key at a time, each once the last one's echo is there
				echoed := mine.got.Len()
				_, _ = mine.t.Write([]byte(s.typed[i : i+1]))
				weirtest.Until(t, l, "an echo", func() bool { return mine.got.Len() > echoed })
			}
			weirtest.Until(t, l, "the answer to "+strings.TrimSpace(s.typed), func() bool { return mine.got.Len() >= len(s.want) })
			if mine.got.String() != s.want {
				t.Errorf("%q: %d bytes came, want %d", s.typed, mine.got.Len(), len(s.want))
			}
		}
	})
}

// menu is a device with a console: it echoes what is typed, and answers lines.
type menu struct {
	t     weir.Transport
	line  string
	shell bool
}

func (m *menu) ConnectionMade(t weir.Transport) { m.t = t }
func (m *menu) ConnectionLost(error)            {}
func (m *menu) DataReceived(b []byte) (int, error) {
	for _, c := range b {
		if c != '\r' {
			m.line += string(c)
			_, _ = m.t.Write([]byte{c})
			continue
		}
		out := "\r\n"
		switch {
		case !m.shell && m.line != "":
			m.shell = true
		case m.line == "version":
			out += "1.0\r\n"
		case m.line == "dump":
			out += every(20<<10) + "\r\n"
		case m.line == "exit":
			m.shell = false
		}
		if m.line = ""; m.shell {
			out += "# "
		} else {
			out += "login: "
		}
		_, _ = m.t.Write([]byte(out))
	}
	return len(b), nil
}
