package process

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"golang.org/x/sys/unix"
)

// visit opens a console as a program would.
func visit(t *testing.T, path string) *os.File {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), path)
}

func hear(t *testing.T, r *rig, f *os.File, n int) string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		b := make([]byte, n)
		n, _ := f.Read(b)
		got <- string(b[:n])
	}()
	var s string
	r.until("what was written", func() bool {
		select {
		case s = <-got:
			return true
		default:
			return false
		}
	})
	return s
}

// TestConsole: programs find a terminal at a link, with no echo and every byte as it is; they
// come and go. At the end the link is gone, and they are hung up.
func TestConsole(t *testing.T) {
	onBackends(t, func(r *rig) {
		link := filepath.Join(r.t.TempDir(), "modem")
		if err := os.Symlink("/dev/pts/99999999", link); err != nil { // of one that was killed
			r.t.Fatal(err)
		}
		out := &sink{keep: true}
		k, err := OpenConsole(r.l, ConsoleConfig{Link: link, Mode: 0o666, Size: Size{Rows: 9, Columns: 8}}, out.factory())
		if err != nil {
			r.t.Fatal(err)
		}
		if i, err := os.Stat(k.Path()); err != nil || i.Mode().Perm() != 0o666 {
			r.t.Errorf("%v, %v", i.Mode(), err)
		}
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		for i := 1; i <= 3; i++ {
			f := visit(r.t, link)
			if z, err := WindowSize(int(f.Fd())); err != nil || z != (Size{Rows: 9, Columns: 8}) {
				r.t.Error(z, err)
			}
			_ = unix.SetNonblock(int(f.Fd()), true) // Fd has it block
			if _, err := f.Write(every); err != nil {
				r.t.Fatal(err)
			}
			r.until("its bytes", func() bool { return len(out.got) == i*256 })
			if _, err := out.t.Write(every); err != nil {
				r.t.Fatal(err)
			}
			if got := hear(r.t, r, f, 1000); got != string(every) {
				r.t.Errorf("%q came", got)
			}
			f.Close()
		}
		if string(out.got) != strings.Repeat(string(every), 3) {
			r.t.Errorf("%q came, with an echo or changed", out.got)
		}
		if _, err := OpenConsole(r.l, ConsoleConfig{Link: link}, out.factory()); !errors.Is(err, fs.ErrExist) {
			r.t.Errorf("a second one at the link: %v", err)
		}
		if out.lost {
			r.t.Fatal("lost when a program closed it")
		}
		f := visit(r.t, link)
		defer f.Close()
		out.t.Abort()
		r.until("the end", func() bool { return out.lost })
		k.Release()
		k.Release()
		if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
			r.t.Errorf("the link is there: %v", err)
		}
		if n, err := f.Read(make([]byte, 1)); n > 0 || err == nil {
			r.t.Errorf("it was not hung up: %d, %v", n, err)
		}
	})
}

// TestConsoleOnce: what the last program wrote comes before the end, which is its own.
func TestConsoleOnce(t *testing.T) {
	onBackends(t, func(r *rig) {
		link := filepath.Join(r.t.TempDir(), "modem")
		out := &sink{}
		k, err := OpenConsole(r.l, ConsoleConfig{Link: link, Once: true}, out.factory())
		if err != nil {
			r.t.Fatal(err)
		}
		out.t.PauseReading()
		f := visit(r.t, link)
		go func() {
			_, _ = f.Write(make([]byte, 20<<10))
			f.Close()
		}()
		out.t.ResumeReading()
		r.until("the end", func() bool { return out.lost })
		if out.n != 20<<10 || !out.eof || out.err != nil {
			r.t.Errorf("%d bytes, end %v, lost with %v", out.n, out.eof, out.err)
		}
		k.Release()
		if _, err := OpenConsole(r.l, ConsoleConfig{Link: link}, func(weir.Transport) weir.Protocol { return nil }); !errors.Is(err, weir.ErrClosed) {
			r.t.Errorf("refused: %v", err)
		}
		if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
			r.t.Errorf("what was refused left its link: %v", err)
		}
	})
}

// TestNoEcho: a terminal's echo is off before the child runs.
func TestNoEcho(t *testing.T) {
	onBackends(t, func(r *rig) {
		out := &sink{keep: true}
		s := Terminal(Size{}, out.factory())
		s.NoEcho()
		p := r.start(sh("read x; echo got $x", map[int]File{0: s.In(), 1: s.Out(), 2: s.Out()}))
		if _, err := out.t.Write([]byte("secret\n")); err != nil {
			r.t.Fatal(err)
		}
		r.exit(p)
		r.until("the end", func() bool { return out.lost })
		if string(out.got) != "got secret\r\n" {
			r.t.Errorf("got %q", out.got)
		}
	})
}
