package serial_test

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/serial"
	"github.com/weir-io/weir/weirtest"
	"golang.org/x/sys/unix"
)

// TestCloseBlocks: a driver that blocks while a line is closed stops neither the loop nor
// other lines; the loss comes when it has finished.
func TestCloseBlocks(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		dir := t.TempDir()
		d, other := plug(t, filepath.Join(dir, "a")), plug(t, filepath.Join(dir, "b"))
		begun, goOn := make(chan string, 1), make(chan struct{})
		c := serial.Config{}
		c.CloseBy(func(fd int, e serial.End) bool {
			begun <- ""
			<-goOn
			return serial.CloseSerial(fd, e)
		})
		_, u := open(t, l, d.path, c)
		_, second := open(t, l, other.path, serial.Config{})
		_ = u.t.Close()
		receive(t, l, "the closing", begun)
		_, _ = other.WriteString("still here")
		weirtest.Until(t, l, "the other line's bytes", func() bool { return second.got.String() == "still here" })
		if u.lost {
			t.Error("lost while the line was open")
		}
		close(goOn)
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		if u.err != nil {
			t.Errorf("lost with %v", u.err)
		}
		open(t, l, d.path, serial.Config{}) // it is free at once
	})
}

// TestCloseStuck: a line that cannot be closed ends all the same, with an error; and so does
// its loop, which waits a second for it.
func TestCloseStuck(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		goOn := make(chan struct{})
		defer close(goOn) // before the loop's end has been checked for leaks
		c := serial.Config{CloseWait: time.Millisecond, Shared: true}
		c.CloseBy(func(fd int, e serial.End) bool {
			<-goOn
			return serial.CloseSerial(fd, e)
		})
		_, u := open(t, l, d.path, c)
		_, second := open(t, l, d.path, c)
		_ = u.t.Close()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		if !errors.Is(u.err, serial.ErrStuck) {
			t.Errorf("lost with %v", u.err)
		}
		if err := l.Close(); err != nil || !second.lost {
			t.Errorf("the loop's end: %v; lost %v", err, second.lost)
		}
	})
}

// TestCloseStuckAway: a driver that never finishes the line of a device that is away does not
// keep the connection for longer than Absence.
func TestCloseStuckAway(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		goOn := make(chan struct{})
		defer close(goOn) // before the loop's end has been checked for leaks
		c := serial.Config{Absence: 50 * time.Millisecond}
		c.CloseBy(func(fd int, e serial.End) bool {
			<-goOn
			return serial.CloseSerial(fd, e)
		})
		_, u := open(t, l, d.path, c)
		d.unplug(t)
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		var gone *serial.GoneError
		if !errors.As(u.err, &gone) || gone.Wait != c.Absence {
			t.Errorf("lost with %v", u.err)
		}
	})
}

// TestCutAtLast: bytes that the device did not take in time are no clean end.
func TestCutAtLast(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		c := serial.Config{CloseWait: time.Hour}
		c.CloseBy(func(fd int, e serial.End) bool {
			if e.Drop || e.Wait != time.Hour {
				t.Errorf("closed with %+v", e)
			}
			serial.CloseSerial(fd, e)
			return true
		})
		_, u := open(t, l, d.path, c)
		_ = u.t.Close()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		if !errors.Is(u.err, serial.ErrStopped) {
			t.Errorf("lost with %v", u.err)
		}
	})
}

// TestStopped: a line that the other end stops is given up after CloseWait, and that is no
// clean end either. The terminal's buffers are full, and no one reads.
func TestStopped(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		_, u := open(t, l, d.path, serial.Config{CloseWait: 50 * time.Millisecond})
		_, _ = u.t.Write([]byte(every(300 << 10)))
		_ = u.t.Close()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		if !errors.Is(u.err, serial.ErrStopped) {
			t.Errorf("lost with %v", u.err)
		}
	})
}

// TestGoneAtClose: a device that is unplugged while its line is being closed has not got
// what was written, and that is no clean end.
func TestGoneAtClose(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		_, u := open(t, l, d.path, serial.Config{})
		_, _ = u.t.Write([]byte("never read"))
		d.unplug(t)
		_ = u.t.Close()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		var gone *serial.GoneError
		if !errors.As(u.err, &gone) {
			t.Errorf("lost with %v", u.err)
		}
	})
}

// TestBreak: a break that runs when a line is closed ends with it, one of Config comes
// before anything else, and one that is refused fails Open before the protocol hears of it.
func TestBreak(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		var ends []bool
		closed := make(chan bool, 1)
		c := serial.Config{Break: time.Hour}
		c.BreakBy(func(_ int, on bool) error {
			ends = append(ends, on)
			return nil
		})
		c.CloseBy(func(fd int, e serial.End) bool {
			closed <- e.Break
			return serial.CloseSerial(fd, e)
		})
		_, u := open(t, l, d.path, c)
		if len(ends) != 1 || !ends[0] {
			t.Errorf("breaks at the beginning: %v", ends)
		}
		u.t.Abort()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		if !<-closed {
			t.Error("the break goes on")
		}
		c.Break = time.Nanosecond
		ends = nil
		_, u = open(t, l, d.path, c)
		weirtest.Until(t, l, "the end of the break", func() bool { return len(ends) == 2 })
		u.t.Abort()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		if <-closed || ends[1] {
			t.Errorf("a break that is over was ended again, or not at all: %v", ends)
		}
		c.BreakBy(func(int, bool) error { return syscall.EIO })
		u = &user{}
		if _, err := serial.Open(l, d.path, c, u.made); !errors.Is(err, syscall.EIO) || u.t != nil {
			t.Errorf("a break that is refused: %v; the protocol has %v", err, u.t)
		}
		<-closed
		open(t, l, d.path, serial.Config{})
	})
}

// TestLines: changes of the lines are told, until the line is closed, and first what they are
// at each opening. The goroutine that looks at them ends.
func TestLines(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		path := filepath.Join(t.TempDir(), "tty")
		d := plug(t, path)
		var raised atomic.Int64
		var told []serial.Line
		raised.Store(int64(serial.CTS))
		c := serial.Config{Absence: time.Hour, LinesChanged: func(now serial.Line) { told = append(told, now) }}
		c.LinesBy(func(fd int) (int, error) {
			if _, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ); err != nil {
				return 0, err
			}
			return int(raised.Load()), nil
		})
		p, u := open(t, l, path, c)
		if len(told) != 1 || told[0] != serial.CTS {
			t.Errorf("told at first: %v", told)
		}
		raised.Store(int64(serial.CTS | serial.DCD))
		weirtest.Until(t, l, "a change", func() bool { return len(told) == 2 })
		if told[1] != serial.CTS|serial.DCD {
			t.Errorf("told %v", told)
		}
		d.unplug(t)
		weirtest.Until(t, l, "the device to be missed", p.Away)
		raised.Store(0)
		plug(t, path)
		weirtest.Until(t, l, "the device to be back", func() bool { return !p.Away() })
		if len(told) != 3 || told[2] != 0 {
			t.Errorf("told when it was back: %v", told)
		}
		if now, err := p.Lines(); now != 0 || err != nil {
			t.Errorf("lines %v, %v", now, err)
		}
		u.t.Abort()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		raised.Store(int64(serial.RI))
		passed := false
		l.After(150*time.Millisecond, func() { passed = true })
		weirtest.Until(t, l, "time to pass", func() bool { return passed })
		if len(told) != 3 {
			t.Errorf("told after the end: %v", told)
		}
	})
}

// TestCarrier: a device that drops carrier detect ends the connection, although it is waited
// for when it is unplugged. A pseudo-terminal has no such line, but can be hung up.
func TestCarrier(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		_, u := open(t, l, d.path, serial.Config{Carrier: true, Absence: time.Hour, Shared: true})
		fd, err := unix.Open(d.path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlSetInt(fd, unix.TIOCVHANGUP, 0)
		unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			t.Skip("only root can hang a terminal up")
		}
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		if !errors.Is(u.err, serial.ErrCarrier) {
			t.Errorf("lost with %v", u.err)
		}
	})
}
