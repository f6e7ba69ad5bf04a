package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/weirtest"
)

// passed is a descriptor of a file as another process would have passed it.
func passed(t *testing.T, path string) int {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestFileByNumber: a descriptor that is a file is read and written by the executor, not on
// the loop.
func TestFileByNumber(t *testing.T) {
	weirtest.CheckLeaks(t)
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(t.TempDir(), "file")
	text := bytes.Repeat([]byte("it is a file "), 1000)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Default().Parse(fmt.Sprintf("fd:%d", passed(t, path)))
	if err != nil {
		t.Fatal(err)
	}
	disk := executor.New("disk", 1, 8)
	gate := make(chan struct{})
	if err := executor.Do(disk, future.On(l), func() { <-gate }, func(error) {}); err != nil {
		t.Fatal(err)
	}
	k := &taker{send: []byte("and more")}
	e.Connect(&Env{Loop: l, Executor: disk}, k)
	weirtest.Until(t, l, "a connection", func() bool { return k.t != nil })
	turns := 0
	l.Soon(func() { l.Soon(func() { turns = 2 }) })
	weirtest.Until(t, l, "two turns", func() bool { return turns == 2 })
	if len(k.got) > 0 || k.eof {
		t.Errorf("%d bytes were read on the loop", len(k.got))
	}
	close(gate)
	weirtest.Until(t, l, "the end", func() bool { return k.lost })
	// Both use one position, so what was written first is not read.
	got, err := os.ReadFile(path)
	if err := errors.Join(err, k.reason); err != nil || len(got) < len(text) || !bytes.Contains(got, k.send) {
		t.Errorf("%d bytes came, the file has %d; %v", len(k.got), len(got), err)
	}
	disk.Wait()
}

// TestNamedSocketsFail: of several sockets with one name from a service manager, those that
// listen already are closed when a later one cannot: their clients are not left in a queue
// that no one takes from.
func TestNamedSocketsFail(t *testing.T) {
	weirtest.CheckLeaks(t)
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const first = 200 // above what the test has open
	at := make([]string, 3)
	for i := range at {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at[i] = ln.Addr().String()
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		fd := int(f.Fd())
		if i == 2 { // it does not listen
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			fd = int(null.Fd())
		}
		if err := errors.Join(syscall.Dup3(fd, first+i, 0), f.Close(), ln.Close()); err != nil {
			t.Fatal(err)
		}
	}
	env := &Env{Loop: l, LookupEnv: func(key string) (string, bool) {
		switch key {
		case "LISTEN_PID":
			return strconv.Itoa(os.Getpid()), true
		case "LISTEN_FDS":
			return strconv.Itoa(first + len(at) - firstPassed), true
		case "LISTEN_FDNAMES":
			return strings.Repeat("other:", first-firstPassed) + "web:web:web", true
		}
		return "", false
	}}
	e, err := Default().Parse("fd:web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Listen(env, func(weir.Transport) weir.Protocol { return nil }); err == nil {
		t.Fatal("it listens on the null device")
	}
	for _, addr := range at[:2] {
		weirtest.Until(t, l, "the closing of "+addr, func() bool {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				_ = c.Close() // it was only a try
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
	}
	// What was not taken stays the caller's.
	if err := syscall.Close(first + 2); err != nil {
		t.Errorf("the descriptor that does not listen: %v", err)
	}
}
