package file

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"golang.org/x/sys/unix"
)

// number is a descriptor of its own for what f is.
func number(t *testing.T, f *os.File) int {
	t.Helper()
	raw, err := f.SyscallConn()
	fd := -1
	if err == nil {
		bad := raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
		err = errors.Join(err, bad, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// reading and writing open a file.
func reading(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return number(t, f)
}

func writing(t *testing.T, path string) int {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return number(t, f)
}

// TestPair: what comes from one descriptor arrives, and what is written is in the other
// when the connection is lost, whichever of them is a file.
func TestPair(t *testing.T) {
	all, more := random(1<<20), random(700_000)
	onBackends(t, func(r *rig) {
		for _, c := range []struct{ inFile, outFile bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
			in, out := r.path(all), r.path(nil)
			got := make(chan []byte, 2)
			var rfd, wfd int
			if c.inFile {
				rfd = reading(t, in)
			} else {
				pr, pw, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				rfd = number(t, pr)
				go func() {
					_, _ = pw.Write(all) // what does not arrive is found
					_ = pw.Close()
				}()
			}
			if c.outFile {
				wfd = writing(t, out)
			} else {
				pr, pw, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				wfd = number(t, pw)
				go func() {
					b, _ := io.ReadAll(pr) // as above
					_ = pr.Close()
					got <- b
				}()
			}
			k := &taker{}
			if _, err := AttachPair(r.s, r.e, rfd, wfd, "pair", k.factory); err != nil {
				t.Fatal(err)
			}
			if _, err := k.t.Write(more); err != nil {
				t.Fatal(err)
			}
			r.until("the end of reading", func() bool { return k.eof })
			if !bytes.Equal(k.got, all) || k.lost {
				t.Errorf("%+v: %d bytes came, lost %v", c, len(k.got), k.lost)
			}
			if err := k.t.WriteEOF(); err != nil {
				t.Fatal(err)
			}
			r.until("the end", func() bool { return k.lost })
			if k.err != nil {
				t.Errorf("%+v: lost with %v", c, k.err)
			}
			if c.outFile {
				r.has(out, more)
			} else if b := <-got; !bytes.Equal(b, more) {
				t.Errorf("%+v: %d bytes were written", c, len(b))
			}
		}
	})
}

// TestPairClose: what was written before a close, or a reset, is in the file.
func TestPairClose(t *testing.T) {
	all := random(1 << 20)
	onBackends(t, func(r *rig) {
		for _, reset := range []bool{false, true} {
			in, out := r.path(all), r.path(nil)
			k := &taker{}
			if _, err := AttachPair(r.s, r.e, reading(t, in), writing(t, out), "pair", k.factory); err != nil {
				t.Fatal(err)
			}
			if _, err := k.t.Write(all); err != nil {
				t.Fatal(err)
			}
			if reset {
				k.t.(weir.Resetter).Reset()
			} else {
				_ = k.t.Close() // always nil
			}
			r.until("the end", func() bool { return k.lost })
			r.has(out, all)
		}
	})
}

// TestPairOne: a file that is both descriptors, or the only one, is read and written as it was
// opened for, at its position, while the loop goes on.
func TestPairOne(t *testing.T) {
	both := func(t *testing.T, path string) int {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return number(t, f)
	}
	all, more := random(300_000), random(200_000)
	onBackends(t, func(r *rig) {
		for _, c := range []struct {
			what          string
			open          func(*testing.T, string) int
			r, w          bool // it is given as that
			reads, writes bool
		}{
			{"both", both, true, true, true, true},
			{"both, for reading", reading, true, true, true, false},
			{"both, for writing", writing, true, true, false, true},
			{"to read", both, true, false, true, false},
			{"to write", both, false, true, false, true},
		} {
			path := r.path(all)
			rfd, wfd := -1, -1
			fd := c.open(t, path)
			if c.r {
				rfd = fd
			}
			if c.w {
				wfd = fd
			}
			one := executor.New("one", 1, 8)
			gate := make(chan struct{})
			if err := executor.Do(one, r.s, func() { <-gate }, func(error) {}); err != nil {
				t.Fatal(err)
			}
			k := &taker{}
			if _, err := AttachPair(r.s, one, rfd, wfd, "one", k.factory); err != nil {
				t.Fatal(err)
			}
			turns := 0
			for range 3 {
				r.l.Soon(func() { turns++ })
				r.until("a turn", func() bool { return turns > 0 })
				turns = 0
			}
			if len(k.got) > 0 || k.eof {
				t.Errorf("%s: it was read on the loop", c.what)
			}
			close(gate)
			want := all
			if c.reads {
				r.until("the end of reading", func() bool { return k.eof })
				if !bytes.Equal(k.got, all) {
					t.Errorf("%s: %d bytes came", c.what, len(k.got))
				}
				want = append(bytes.Clone(all), more...)
			}
			if !k.lost { // one that is only read ends with its end
				if _, err := k.t.Write(more); err != nil {
					t.Fatal(err)
				}
				_ = k.t.Close() // always nil
			}
			r.until("the end", func() bool { return k.lost })
			switch {
			case k.err != nil:
				t.Errorf("%s: lost with %v", c.what, k.err)
			case !c.writes:
				want = all
			case !c.reads:
				want = append(bytes.Clone(more), all[len(more):]...)
			}
			r.has(path, want)
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
				t.Errorf("%s: it is open: %v", c.what, err)
			}
			one.Wait()
		}
	})
}

// TestPairOneLeft: a file that was not opened for what it is to do stays the caller's, one that
// is refused is closed.
func TestPairOneLeft(t *testing.T) {
	onBackends(t, func(r *rig) {
		path := r.path(nil)
		rfd, wfd := reading(t, path), writing(t, path)
		for _, c := range [][2]int{{wfd, -1}, {-1, rfd}} {
			if _, err := AttachPair(r.s, r.e, c[0], c[1], "one", (&taker{}).factory); err == nil || errors.Is(err, weir.ErrClosed) {
				t.Errorf("%v: %v", c, err)
			}
		}
		var none *executor.Executor
		if _, err := AttachPair(r.s, none, rfd, rfd, "one", (&taker{}).factory); !errors.Is(err, ErrNoExecutor) {
			t.Errorf("no executor: %v", err)
		}
		if err := errors.Join(unix.Close(wfd), unix.Close(rfd)); err != nil {
			t.Error(err)
		}
		if _, err := AttachPair(r.s, r.e, reading(t, path), -1, "one", func(weir.Transport) weir.Protocol { return nil }); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("refused: %v", err)
		}
	})
}

// TestPairPosition: a file is read and written at the position that it has, and leaves it
// behind what was written.
func TestPairPosition(t *testing.T) {
	onBackends(t, func(r *rig) {
		in, out := r.path([]byte("not this, but this")), r.path([]byte("kept, lost"))
		rfd, wfd := reading(t, in), writing(t, out)
		other, err := unix.Dup(wfd)
		if err != nil {
			t.Fatal(err)
		}
		_, err = unix.Seek(rfd, 10, io.SeekStart)
		_, err2 := unix.Seek(wfd, 6, io.SeekStart)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		k := &taker{}
		if _, err := AttachPair(r.s, r.e, rfd, wfd, "pair", k.factory); err != nil {
			t.Fatal(err)
		}
		if _, err := k.t.Write([]byte("new")); err != nil {
			t.Fatal(err)
		}
		r.until("the end of reading", func() bool { return k.eof })
		_ = k.t.Close() // always nil
		r.until("the end", func() bool { return k.lost })
		if string(k.got) != "but this" {
			t.Errorf("read %q", k.got)
		}
		if _, err := unix.Write(other, []byte("er")); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(other) // nothing depends on it
		r.has(out, []byte("kept, newer"))
	})
}

// TestPairReaderGone: the reader of the output has gone, with nothing being written and
// with much.
func TestPairReaderGone(t *testing.T) {
	onBackends(t, func(r *rig) {
		for _, n := range []int{0, 1 << 20} {
			pr, pw, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			k := &taker{}
			if _, err := AttachPair(r.s, r.e, reading(t, r.path(nil)), number(t, pw), "pair", k.factory); err != nil {
				t.Fatal(err)
			}
			r.until("the end of reading", func() bool { return k.eof })
			if _, err := k.t.Write(random(n)); err != nil {
				t.Fatal(err)
			}
			_ = pr.Close() // it is only read from
			r.until("the loss", func() bool { return k.lost })
			if !errors.Is(k.err, syscall.EPIPE) {
				t.Errorf("%d bytes: lost with %v", n, k.err)
			}
		}
	})
}

// TestPairRefused: a transport that is refused leaves nothing open, nor does a loop that is
// closed, and without an executor the descriptors stay the caller's.
func TestPairRefused(t *testing.T) {
	onBackends(t, func(r *rig) {
		in, out := r.path(random(1000)), r.path(nil)
		_, err := AttachPair(r.s, r.e, reading(t, in), writing(t, out), "pair", func(weir.Transport) weir.Protocol { return nil })
		if !errors.Is(err, weir.ErrClosed) {
			t.Errorf("refused: %v", err)
		}
		rfd, wfd := reading(t, in), writing(t, out)
		var none *executor.Executor
		if _, err := AttachPair(r.s, none, rfd, wfd, "pair", (&taker{}).factory); !errors.Is(err, ErrNoExecutor) {
			t.Errorf("no executor: %v", err)
		}
		if err := errors.Join(unix.Close(rfd), unix.Close(wfd)); err != nil {
			t.Error(err)
		}
		if _, err := AttachPair(r.s, r.e, reading(t, in), writing(t, out), "pair", (&taker{}).factory); err != nil {
			t.Error(err)
		}
	})
}

// TestPairTenant: a pair that is attached with a tenant's scheduler belongs to the tenant and
// ends with it, whatever its two sides are.
func TestPairTenant(t *testing.T) {
	bankrupt := errors.New("bankrupt")
	onBackends(t, func(r *rig) {
		tn := r.l.NewTenant("one")
		var all []*taker
		attach := func(rfd, wfd int) {
			t.Helper()
			k := &taker{}
			tr, err := AttachPair(future.On(tn), r.e, rfd, wfd, "pair", k.factory)
			if err != nil {
				t.Fatal(err)
			}
			if got := weir.TenantOf(tr); got != tn {
				t.Errorf("it belongs to %v", got)
			}
			all = append(all, k)
		}
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		attach(fds[0], writing(t, r.path(nil)))                  // a pipe and a file
		attach(reading(t, r.path(random(3*readPiece))), -1)      // a file
		attach(reading(t, r.path(nil)), writing(t, r.path(nil))) // two files
		defer func() { _ = unix.Close(fds[1]) }()
		tn.Close(bankrupt)
		r.until("the ends", func() bool { return all[0].lost && all[1].lost && all[2].lost })
		for i, k := range all {
			if !errors.Is(k.err, bankrupt) {
				t.Errorf("pair %d was lost with %v", i, k.err)
			}
		}
	})
}
