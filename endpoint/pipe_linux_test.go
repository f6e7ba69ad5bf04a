package endpoint

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// opener is a protocol that only tells.
type opener struct {
	weir.NopProtocol
	t      weir.Transport
	lost   bool
	failed *weir.ConnectError
}

func (o *opener) ConnectionMade(t weir.Transport)      { o.t = t }
func (o *opener) ConnectionLost(error)                 { o.lost = true }
func (o *opener) ConnectFailed(err *weir.ConnectError) { o.failed = err }

// namedPipe is a new named pipe, and how many descriptors of this process lead to it.
func namedPipe(t *testing.T) (path string, open func() int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() (n int) {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range all {
			if to, err := os.Readlink("/proc/self/fd/" + d.Name()); err == nil && to == path {
				n++
			}
		}
		return n
	}
}

// TestPipeLeavesNothing: a named pipe that no one has written to is closed with its
// connection, and one that cannot be joined with its output is closed at once (G6).
func TestPipeLeavesNothing(t *testing.T) {
	weirtest.CheckLeaks(t)
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func(text string) *opener {
		t.Helper()
		e, err := Default().Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		o := &opener{}
		e.Connect(&Env{Loop: l}, o)
		weirtest.Until(t, l, "a connection, or none", func() bool { return o.t != nil || o.failed != nil })
		return o
	}
	in, open := namedPipe(t)
	o := connect("pipe:" + in)
	if o.t == nil || open() == 0 {
		t.Fatalf("%v", o.failed)
	}
	o.t.Abort()
	weirtest.Until(t, l, "the end", func() bool { return o.lost })
	weirtest.Until(t, l, "the pipe closed", func() bool { return open() == 0 })

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := connect("pipe:" + in + ",out=" + file); o.failed == nil || open() != 0 {
		t.Errorf("%v, %d descriptors are left", o.failed, open())
	}
}
