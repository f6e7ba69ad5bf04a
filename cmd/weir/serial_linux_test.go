package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// plug makes a pseudo-terminal, of which path is a link to one end.
func plug(t *testing.T, path string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("no pseudo-terminals: ", err)
	}
	d := os.NewFile(uintptr(fd), "master")
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

// TestSerial: a question on standard input, and the whole answer, after which the device's
// silence is its end.
func TestSerial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tty")
	d := plug(t, path)
	p := prepare(t, "weir", "-", "serial:"+path+",115200,7e1,lines,reply=200ms")
	p.Stdin = strings.NewReader("ATI\r")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	b := make([]byte, 4)
	if _, err := io.ReadFull(d, b); err != nil || string(b) != "ATI\r" {
		t.Errorf("the device got %q, %v", b, err)
	}
	answer := strings.Repeat("a modem\r\n", 2000) + "OK\r\n"
	if _, err := d.WriteString(answer); err != nil {
		t.Error(err)
	}
	if code := p.end(); code != exitOK || out.String() != answer {
		t.Errorf("code %d, %d bytes of %d\n%s", code, out.Len(), len(answer), p.said())
	}
	if want := path + " is set to 115200 8n1: it does not keep 115200 7e1"; !strings.Contains(p.said(), want) {
		t.Errorf("a pseudo-terminal keeps no parity, and weir said\n%s", p.said())
	}
	if want := path + " has no modem lines"; !strings.Contains(p.said(), want) {
		t.Errorf("weir did not say %q:\n%s", want, p.said())
	}
}

// TestSerialBack: the client stays connected while the device is unplugged.
func TestSerialBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tty")
	p := start(t, "tcp-listen:127.0.0.1:0", "serial:"+path+",retry=1h")
	c := dial(t, p.listening())
	d := plug(t, path) // it was not there yet
	for i := 1; i <= 2; i++ {
		if err := write(c, "ping"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4)
		if _, err := io.ReadFull(d, b); err != nil || string(b) != "ping" {
			t.Fatalf("the device got %q, %v", b, err)
		}
		if _, err := d.WriteString("pong"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "pong" {
			t.Fatalf("the client got %q, %v", b, err)
		}
		if err := errors.Join(os.Remove(path), d.Close()); err != nil {
			t.Fatal(err)
		}
		p.line("is gone; waiting 1h0m0s for it", i)
		d = plug(t, path)
		p.line("is back", i)
	}
	_ = c.Close()
	p.line("close #1", 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestSerialCalls looks at the calls that set a line, for what a pseudo-terminal has not.
func TestSerialCalls(t *testing.T) {
	for i, c := range []struct {
		options string
		code    int
		want    []string
	}{
		{",31250,7o2,flow=rtscts,hangup,break=50ms", exitOK, []string{
			"TIOCEXCL", "TCSETS2, {c_iflag=", "BOTHER|CS7|CSTOPB|CREAD|PARENB|PARODD|HUPCL|CLOCAL", "CRTSCTS", "c_ospeed=31250", "TIOCSBRK", "TIOCCBRK", "TIOCNXCL",
		}},
		{",6m1,flow=xonxoff,carrier,shared", exitOK, []string{"c_iflag=IXON|IXOFF", "CS6|CREAD|PARENB|PARODD", "CMSPAR"}},
		{",dtr=on", exitFailure, []string{"TIOCMBIS, [TIOCM_DTR]"}},
		{",rts=off", exitFailure, []string{"TIOCMBIC, [TIOCM_RTS]"}},
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tty")
			plug(t, path)
			p := prepare(t, "weir", "-", "serial:"+path+c.options+",reply=100ms")
			p.Stdin = strings.NewReader("")
			trace := strace(t, "epoll", "-v -e trace=ioctl", p)
			if code := p.end(); code != c.code {
				t.Errorf("code %d\n%s", code, p.said())
			}
			text, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			missing := false
			for _, want := range c.want {
				if !strings.Contains(string(text), want) {
					t.Errorf("%s: no call with %s", c.options, want)
					missing = true
				}
			}
			if missing {
				t.Logf("%s", text)
			}
			if strings.Contains(c.options, "shared") && strings.Contains(string(text), "TIOCEXCL") {
				t.Error("a shared line is kept from others")
			}
		})
	}
}

// TestSerialFailures: what is said, and the next step.
func TestSerialFailures(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ path, want, next string }{
		{filepath.Join(dir, "none"), "no such file", "Is the device plugged in? To wait for it: add ,retry=1h"},
		{"/dev/null", "", "That is no serial line."},
	} {
		p := prepare(t, "weir", "-", "serial:"+c.path)
		p.Stdin = strings.NewReader("")
		p.begin()
		if code := p.end(); code != exitFailure || !strings.Contains(p.said(), c.want) || !strings.Contains(p.said(), c.next) {
			t.Errorf("%s: code %d\n%s", c.path, code, p.said())
		}
	}
	path := filepath.Join(dir, "tty")
	plug(t, path)
	first := start(t, "tcp-listen:127.0.0.1:0", "serial:"+path)
	c := dial(t, first.listening())
	defer c.Close()
	first.line("open #1", 1)
	second := prepare(t, "weir", "-", "serial:"+path)
	second.Stdin = strings.NewReader("")
	second.begin()
	if code := second.end(); code != exitFailure || !strings.Contains(second.said(), "Another program has it open") {
		t.Errorf("a second one: code %d\n%s", code, second.said())
	}
	first.signal(os.Interrupt)
}

// TestMissingModules: a kind of socket that the kernel lacks is named with its module.
func TestMissingModules(t *testing.T) {
	for _, c := range []struct{ listen, dial, module string }{
		{"sctp-listen:0", "sctp:127.0.0.1:9", "sctp"},
		{"rfcomm-listen:0", "rfcomm:01:23:45:67:89:AB:3", "rfcomm"},
	} {
		for _, args := range [][]string{{c.listen, "echo"}, {"-", c.dial}} {
			t.Setenv("WEIR_BACKEND", "epoll")
			p := prepare(t, "weir", args...)
			p.Stdin = strings.NewReader("")
			p.begin()
			select {
			case <-p.ended:
			case <-p.grown:
				if strings.Contains(p.said(), "ready") {
					p.signal(os.Interrupt)
					t.Skip("this kernel has them")
				}
			}
			if code := p.end(); code != exitFailure || !strings.Contains(p.said(), "this kernel lacks the module "+c.module) || !strings.Contains(p.said(), "modprobe "+c.module) {
				t.Errorf("%q: code %d\n%s", args, code, p.said())
			}
		}
	}
}
