package main

import (
	"crypto/md5" //nolint:gosec // to compare files
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/weir-io/weir"
)

// TestLastWrite: a failed write is a failure that names what and why, even if it is
// the very last of a connection, or follows a short write: on a full device, on a disk
// that fills up, and in a file that may not grow. Everything that fits is written
// (L16).
func TestLastWrite(t *testing.T) {
	const room = 52 << 10 // of the disk, and of the file: not a multiple of what is read at once
	for _, backend := range weir.Backends() {
		t.Run(backend, func(t *testing.T) {
			if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != backend {
				t.Skip("WEIR_BACKEND asks for ", asked)
			}
			for _, size := range []int{1, room, room + 1, 300_000} {
				data := make([]byte, size)
				_, _ = rand.Read(data) // never fails
				back := server(t, func(c *net.TCPConn) {
					_, _ = c.Write(data) // it may end before
					_ = c.CloseWrite()
					_, _ = io.Copy(io.Discard, c)
				})
				dir := t.TempDir()
				for _, where := range []struct {
					name, shell string
					room        int
					why         string
				}{
					{"device", `"$@" >/dev/full; code=$?; md5sum </dev/null >&2; exit $code`, 0, "no space left on device"},
					{"disk", `mount -t tmpfs -o size=52k none "$DIR" || exit 77; "$@" >"$DIR/out"; code=$?; md5sum <"$DIR/out" >&2; exit $code`, room, "no space left on device"},
					{"limit", `trap "" XFSZ; (ulimit -f 104; exec "$@" >"$DIR/out"); code=$?; md5sum <"$DIR/out" >&2; exit $code`, room, "file too large"},
				} {
					for _, args := range [][]string{{"-", back}, {back, "fd:0,out=1"}} {
						t.Run(fmt.Sprintf("%d to a %s, %s", size, where.name, strings.ReplaceAll(strings.Join(args, " "), back, "HOST:PORT")), func(t *testing.T) {
							p := prepare(t, "weir")
							run := []string{"sh", "-c", where.shell, "sh", p.Path}
							if where.name == "disk" {
								if out, err := exec.Command("unshare", "-rm", "true").CombinedOutput(); err != nil {
									t.Skipf("no mount namespaces here: %v %s", err, out)
								}
								run = append([]string{"unshare", "-rm"}, run...)
							}
							env := append(p.Env, "DIR="+dir, "WEIR_BACKEND="+backend)
							p.Cmd = exec.Command(run[0], append(run[1:], args...)...)
							p.Env = env
							p.begin()
							code := p.end()
							if code == 77 {
								t.Skip("no small disk can be made here")
							}
							want := exitOK
							if size > where.room {
								want = exitFailure
								if name := strings.NewReplacer("-", "stdio", ",out=1", "").Replace(strings.ReplaceAll(strings.Join(args, ""), back, "")); !strings.Contains(p.said(), name+": "+where.why) {
									t.Errorf("it does not say %q of %s", where.why, name)
								}
							}
							if code != want {
								t.Errorf("code %d, want %d", code, want)
							}
							if sum := fmt.Sprintf("%x", md5.Sum(data[:min(size, where.room)])); !strings.Contains(p.said(), sum) { //nolint:gosec // as above
								t.Error("what fits was not written, or not as it was")
							}
						})
					}
				}
			}
		})
	}
}
