package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/weirtest"
)

// openNow is how many descriptors of this process lead to path.
func openNow(t *testing.T, path string) (n int) {
	t.Helper()
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

// busy keeps every goroutine of e and its whole queue busy until release is called.
func (r *rig) busy(goroutines, queue int) (release func()) {
	r.t.Helper()
	hold := make(chan struct{})
	for range goroutines + queue {
		executor.Go(r.t.Context(), r.e, r.s, func(context.Context) (struct{}, error) { <-hold; return struct{}{}, nil }).OnDone(func(struct{}, error) {})
	}
	return func() { close(hold) }
}

// TestClosedOnExecutor: a file is closed on a goroutine of the executor, never on the
// loop, and is not left open whatever becomes of its transport and of the executor
// meanwhile (R68, G6).
func TestClosedOnExecutor(t *testing.T) {
	onBackends(t, func(r *rig) {
		for name, end := range map[string]func(k *taker){
			"Close":            func(k *taker) { _ = k.t.Close() },
			"Abort":            func(k *taker) { k.t.Abort() },
			"Close, and Abort": func(k *taker) { _ = k.t.Close(); k.t.Abort() },
			"Reset":            func(k *taker) { k.t.(weir.Resetter).Reset() },
		} {
			for _, closes := range []bool{false, true} {
				spare := r.e
				r.e = executor.New("slow", 1, 1)
				path := r.path([]byte("some"))
				k := r.open(&Config{Path: path, Follow: true, Append: true})
				r.until("its bytes", func() bool { running, _ := r.e.Load(); return len(k.got) == 4 && running == 0 })
				release := r.busy(1, 1)
				end(k)
				weirtest.Until(t, r.l, "turns", turns(5))
				if n := openNow(t, path); n != 1 {
					t.Errorf("%s: %d descriptors while the executor is held up, want 1: it was closed on the loop", name, n)
				}
				if closes {
					_ = r.e.Close() // always nil
				}
				release()
				r.until("the end", func() bool { return k.lost })
				r.e.Wait()
				if n := openNow(t, path); n != 0 {
					t.Errorf("%s, executor closed: %v: %d descriptors are left", name, closes, n)
				}
				_ = r.e.Close() // always nil
				r.e = spare
			}
		}
	})
}

// TestClosedAfterExecutor: a file whose executor is closed already is closed all the same.
func TestClosedAfterExecutor(t *testing.T) {
	onBackends(t, func(r *rig) {
		path := r.path([]byte("some"))
		k := r.open(&Config{Path: path, Follow: true})
		r.until("its bytes", func() bool { return len(k.got) == 4 })
		_ = r.e.Close() // always nil
		r.e.Wait()
		_ = k.t.Close() // always nil
		r.until("the end", func() bool { return k.lost })
		r.e.Wait()
		if n := openNow(t, path); n != 0 || k.err != nil {
			t.Errorf("%d descriptors are left, lost with %v", n, k.err)
		}
	})
}

// TestLoopClosedBusy: a loop that is closed while the executor has no room leaves no file
// open.
func TestLoopClosedBusy(t *testing.T) {
	onBackends(t, func(r *rig) {
		spare := r.e
		r.e = executor.New("slow", 1, 1)
		path := r.path([]byte("some"))
		k := r.open(&Config{Path: path, Follow: true})
		r.until("its bytes", func() bool { running, _ := r.e.Load(); return len(k.got) == 4 && running == 0 })
		release := r.busy(1, 1)
		_ = k.t.Close() // always nil
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			release()
		}()
		if err := r.l.Close(); err != nil {
			t.Error(err)
		}
		<-closed
		_ = r.e.Close() // always nil
		r.e.Wait()
		if n := openNow(t, path); n != 0 {
			t.Errorf("%d descriptors are left", n)
		}
		r.e = spare
	})
}

// full is a file that takes n bytes and no more, as on a disk that is full.
func full(t *testing.T, n int64) (path string, fd int) {
	t.Helper()
	fd, err := unix.MemfdCreate("full", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		err = unix.Ftruncate(fd, n)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW)
	}
	if err != nil {
		t.Skip("no sealed files:", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), fd
}

// TestLastWriteFails: a failure of the last write, made when the transport is closing, is
// the reason of the loss: no one takes for written what is not (R15).
func TestLastWriteFails(t *testing.T) {
	onBackends(t, func(r *rig) {
		path, fd := full(t, 1000)
		defer unix.Close(fd)
		for name, end := range map[string]func(k *taker){
			"Close":    func(k *taker) { _ = k.t.Close() },
			"WriteEOF": func(k *taker) { _ = k.t.WriteEOF() },
		} {
			k := r.open(&Config{Path: path, Write: true})
			if _, err := k.t.Write(random(5000)); err != nil {
				t.Fatal(err)
			}
			end(k)
			r.until("the end", func() bool { return k.lost })
			if !errors.Is(k.err, syscall.EPERM) {
				t.Errorf("%s: lost with %v, want EPERM", name, k.err)
			}

			k = &taker{}
			out, err := unix.Dup(fd)
			if err != nil {
				t.Fatal(err)
			}
			pr, pw, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := AttachPair(r.s, r.e, number(t, pr), out, "pair", k.factory); err != nil {
				t.Fatal(err)
			}
			if _, err := k.t.Write(random(5000)); err != nil {
				t.Fatal(err)
			}
			end(k)
			r.until("the end", func() bool { return k.lost })
			_ = pw.Close() // nothing was written
			if !errors.Is(k.err, syscall.EPERM) {
				t.Errorf("a pair, %s: lost with %v, want EPERM", name, k.err)
			}
		}
	})
}

// TestPairLeft: descriptors that AttachPair does not take are left as they are.
func TestPairLeft(t *testing.T) {
	onBackends(t, func(r *rig) {
		read, write := r.path([]byte("x")), r.path(nil)
		dir, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(dir)
		for _, c := range []struct {
			name string
			r, w int
		}{
			{"an output to read from", writing(t, filepath.Clean(write)), writing(t, write)},
			{"an input to write to", reading(t, read), reading(t, read)},
			{"a closed input", 1 << 20, writing(t, write)},
			{"a closed output", reading(t, read), 1 << 20},
			{"a directory as input", dir, writing(t, write)},
		} {
			_, err := AttachPair(r.s, r.e, c.r, c.w, "pair", (&taker{}).factory)
			if err == nil || errors.Is(err, weir.ErrClosed) {
				t.Errorf("%s: %v", c.name, err)
			}
			for range 3 {
				_ = r.l.Turn(0)
			}
			for _, fd := range []int{c.r, c.w} {
				if fd == 1<<20 {
					continue
				}
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
					t.Errorf("%s: descriptor %d: %v", c.name, fd, err)
				}
				if fd != dir {
					_ = unix.Close(fd)
				}
			}
		}
	})
}
