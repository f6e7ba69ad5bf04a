//go:build linux

package uring

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/weir-io/weir/internal/backend"
)

// TestShortFileWrite: a file takes a part of a write, here since the process may write no larger
// files. The next write reports the error, and overwrites nothing.
func TestShortFileWrite(t *testing.T) {
	const name, room = "WEIR_SHORT_FILE", 104 * 512 // not a multiple of a page
	if os.Getenv(name) == "" {
		c := exec.Command("sh", "-c", `trap "" XFSZ; ulimit -f 104; exec "$@"`, "sh", os.Args[0], "-test.run=^TestShortFileWrite$")
		c.Env = append(os.Environ(), name+"="+filepath.Join(t.TempDir(), "out"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	fd, err := syscall.Open(os.Getenv(name), syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, Config{})
	h, err := r.Adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	write := func(p []byte) (int, error) {
		op := &backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{p}}
		var c backend.Completion
		if r.Submit(op, &c) {
			return c.N, c.Err
		}
		rec := &record{}
		r.buf[op] = rec
		r.until("the write", func() bool { return rec.ended })
		return rec.n, rec.err
	}
	data := pattern(2*room, 1)
	if n, err := write(data); n != room || err != nil && !errors.Is(err, syscall.EFBIG) {
		t.Errorf("the first write took %d bytes, %v", n, err)
	}
	if n, err := write(data[:10]); n != 0 || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("the second write took %d bytes, %v", n, err)
	}
	if got, err := os.ReadFile(os.Getenv(name)); err != nil || !bytes.Equal(got, data[:room]) {
		t.Errorf("the file has %d bytes, %v; as they were written: %v", len(got), err, bytes.Equal(got, data[:min(room, len(got))]))
	}
}
