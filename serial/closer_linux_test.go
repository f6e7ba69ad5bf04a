package serial_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
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

// TestOpenBlocks: a driver that blocks while a line is opened stops neither the loop nor other
// lines, and the line is open when it has finished. What is given up meanwhile is closed again.
func TestOpenBlocks(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		dir := t.TempDir()
		d, other := plug(t, filepath.Join(dir, "a")), plug(t, filepath.Join(dir, "b"))
		begun, goOn := make(chan string, 1), make(chan struct{})
		var c serial.Config
		c.OpenBy(func(path string, s *serial.Settings) (int, serial.State, error) {
			begun <- path
			<-goOn
			return serial.OpenSerial(path, s)
		})
		s := future.On(l)
		u := &user{}
		opening := serial.Start(s, d.path, c, u.made)
		receive(t, l, "the opening", begun)
		_, second := open(t, l, other.path, serial.Config{})
		_, _ = other.WriteString("still here")
		weirtest.Until(t, l, "the other line's bytes", func() bool { return second.got.String() == "still here" })
		if opening.Settled() || u.t != nil {
			t.Error("it is open before the driver has opened it")
		}
		goOn <- struct{}{}
		weirtest.Until(t, l, "the line", func() bool { return opening.Settled() })
		if _, err, _ := opening.Result(); err != nil || u.t == nil {
			t.Fatalf("it was not opened: %v", err)
		}
		_, _ = d.WriteString("open")
		weirtest.Until(t, l, "its bytes", func() bool { return u.got.String() == "open" })
		u.t.Abort()
		weirtest.Until(t, l, "the end", func() bool { return u.lost })

		// Canceled, and with its tenant closed: at once, and the line is free afterwards.
		bankrupt := errors.New("bankrupt")
		tn := l.NewTenant("one")
		for _, giveUp := range []struct {
			s    *future.Scheduler
			by   func(*future.Future[*serial.Port])
			want error
		}{
			{s, func(f *future.Future[*serial.Port]) { f.Cancel() }, future.ErrCanceled},
			{future.On(tn), func(*future.Future[*serial.Port]) { tn.Close(bankrupt) }, bankrupt},
		} {
			closed := make(chan string, 1)
			c.CloseBy(func(fd int, e serial.End) bool {
				defer func() { closed <- "" }()
				return serial.CloseSerial(fd, e)
			})
			u = &user{}
			opening = serial.Start(giveUp.s, d.path, c, u.made)
			receive(t, l, "the opening", begun)
			giveUp.by(opening)
			weirtest.Until(t, l, "the failure", func() bool { return opening.Settled() })
			if _, err, _ := opening.Result(); !errors.Is(err, giveUp.want) || u.t != nil {
				t.Errorf("given up: %v, want %v", err, giveUp.want)
			}
			goOn <- struct{}{}
			receive(t, l, "the closing", closed)
			open(t, l, d.path, serial.Config{Shared: true}) // no one has locked it
		}
	})
}

// TestOpenStuckAway: a driver that never finishes opening a device that is back stops no loop,
// and does not keep the connection for longer than Absence; nor does the loop's end wait for it
// for long.
func TestOpenStuckAway(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		path := filepath.Join(t.TempDir(), "tty")
		d := plug(t, path)
		goOn := make(chan struct{})
		defer close(goOn) // before the loop's end has been checked for leaks
		begun, openings := make(chan string, 2), 0
		c := serial.Config{Absence: 500 * time.Millisecond}
		c.OpenBy(func(path string, s *serial.Settings) (int, serial.State, error) {
			if openings++; openings > 1 {
				begun <- path
				<-goOn
			}
			return serial.OpenSerial(path, s)
		})
		_, u := open(t, l, path, c)
		d.unplug(t)
		receive(t, l, "the opening", begun)
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		var gone *serial.GoneError
		if !errors.As(u.err, &gone) || !strings.Contains(u.err.Error(), "has not finished opening") {
			t.Errorf("lost with %v", u.err)
		}
		opening := serial.Start(future.On(l), path, c, u.made)
		receive(t, l, "another opening", begun)
		if err := l.Close(); err != nil || !errors.Is(result(opening), weir.ErrLoopClosed) {
			t.Errorf("the loop's end: %v, of the opening %v", err, result(opening))
		}
	})
}

func result(f *future.Future[*serial.Port]) error {
	_, err, _ := f.Result()
	return err
}

// TestStart: what Open refuses Start refuses too, with the line free again, and a line of a
// tenant ends with it.
func TestStart(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		dir := t.TempDir()
		d := plug(t, filepath.Join(dir, "tty"))
		start := func(s *future.Scheduler, path string, c serial.Config, f weir.Factory) error {
			opening := serial.Start(s, path, c, f)
			weirtest.Until(t, l, "the line", func() bool { return opening.Settled() })
			return result(opening)
		}
		refuse := func(weir.Transport) weir.Protocol { return nil }
		broken := serial.Config{Break: time.Millisecond}
		broken.BreakBy(func(int, bool) error { return syscall.EIO })
		bankrupt := errors.New("bankrupt")
		tn := l.NewTenant("one")
		u := &user{}
		for _, c := range []struct {
			path string
			c    serial.Config
			f    weir.Factory
			want error
		}{
			{filepath.Join(dir, "none"), serial.Config{}, u.made, syscall.ENOENT},
			{"/dev/null", serial.Config{}, u.made, syscall.ENOTTY},
			{d.path, serial.Config{}, refuse, weir.ErrClosed},
			{d.path, broken, u.made, syscall.EIO},
			{d.path, serial.Config{}, refuse, weir.ErrClosed}, // it is free, or this were EBUSY
		} {
			if err := start(future.On(l), c.path, c.c, c.f); !errors.Is(err, c.want) || u.t != nil {
				t.Errorf("%s: %v, want %v", c.path, err, c.want)
			}
		}
		if err := start(future.On(l), d.path, serial.Config{Bits: 9}, u.made); err == nil {
			t.Error("9 bits were taken")
		}
		if err := start(future.On(tn), d.path, serial.Config{}, u.made); err != nil {
			t.Fatal(err)
		}
		if n := tn.Stats().Connections; n != 1 {
			t.Errorf("the tenant counts %d connections", n)
		}
		tn.Close(bankrupt)
		weirtest.Until(t, l, "the end", func() bool { return u.lost })
		if !errors.Is(u.err, bankrupt) {
			t.Errorf("lost with %v", u.err)
		}
		if err := start(future.On(tn), d.path, serial.Config{}, u.made); !errors.Is(err, bankrupt) {
			t.Errorf("of a closed tenant: %v", err)
		}
	})
}

// TestStartCanceled: a line that Start has handed to the loop is closed once, whoever cancels
// the future and whenever, and the future fails when the line is closed.
func TestStartCanceled(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		d := plug(t, filepath.Join(t.TempDir(), "tty"))
		s := future.On(l)
		var opening *future.Future[*serial.Port]
		cancel := func() { opening.Cancel() }
		for _, c := range []struct {
			name string
			f    func() weir.Protocol
			late bool // canceled while the line is being closed
			want error
		}{
			{"refused, then canceled", func() weir.Protocol { return nil }, true, weir.ErrClosed},
			{"canceled and refused", func() weir.Protocol { cancel(); return nil }, false, weir.ErrClosed},
			{"canceled by the factory", func() weir.Protocol { cancel(); return &user{} }, false, future.ErrCanceled},
			{"canceled in ConnectionMade", func() weir.Protocol { return &canceler{cancel: cancel} }, false, future.ErrCanceled},
		} {
			begun, goOn := make(chan string, 2), make(chan struct{})
			var closes atomic.Int64
			var cfg serial.Config
			cfg.CloseBy(func(fd int, e serial.End) bool {
				closes.Add(1)
				begun <- ""
				<-goOn
				return serial.CloseSerial(fd, e)
			})
			opening = serial.Start(s, d.path, cfg, func(weir.Transport) weir.Protocol { return c.f() })
			receive(t, l, "the closing", begun)
			if c.late {
				cancel()
			}
			if opening.Settled() {
				t.Errorf("%s: it failed while the line was open", c.name)
			}
			close(goOn)
			weirtest.Until(t, l, "the failure", opening.Settled)
			if err := result(opening); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
			open(t, l, d.path, serial.Config{Shared: true}) // no one has locked it
			if n := closes.Load(); n != 1 {
				t.Errorf("%s: closed %d times", c.name, n)
			}
		}
	})
}

// canceler cancels what made it.
type canceler struct {
	user
	cancel func()
}

func (c *canceler) ConnectionMade(weir.Transport) { c.cancel() }

// TestBreakChanged: a break that begins with the opening of a device that is back lasts as
// long as the Config of that opening says, whatever SetConfig says meanwhile.
func TestBreakChanged(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		path := filepath.Join(t.TempDir(), "tty")
		d := plug(t, path)
		begun, goOn := make(chan string, 1), make(chan struct{})
		openings := 0
		var on atomic.Bool
		c := serial.Config{Absence: time.Hour, Break: time.Millisecond}
		c.OpenBy(func(path string, s *serial.Settings) (int, serial.State, error) {
			fd, was, err := serial.OpenSerial(path, s)
			if err == nil {
				if openings++; openings > 1 {
					begun <- ""
					<-goOn
				}
			}
			return fd, was, err
		})
		c.BreakBy(func(_ int, now bool) error {
			on.Store(now)
			return nil
		})
		p, _ := open(t, l, path, c)
		weirtest.Until(t, l, "the end of the first break", func() bool { return !on.Load() })
		d.unplug(t)
		weirtest.Until(t, l, "the device to be missed", p.Away)
		plug(t, path)
		receive(t, l, "the opening", begun)
		without := p.Config()
		without.Break = 0
		if err := p.SetConfig(without); err != nil {
			t.Error(err)
		}
		close(goOn)
		weirtest.Until(t, l, "the device to be back", func() bool { return !p.Away() })
		weirtest.Until(t, l, "the end of the break", func() bool { return !on.Load() })
	})
}
