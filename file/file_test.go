package file

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/weirtest"
)

// rig is a loop with what Open needs.
type rig struct {
	t *testing.T
	l *weir.Loop
	s *future.Scheduler
	e *executor.Executor
}

// onBackends runs f with each backend that this machine has, and looks for what is left.
func onBackends(t *testing.T, f func(r *rig)) {
	t.Helper()
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != name {
				t.Skip("WEIR_BACKEND asks for ", asked)
			}
			weirtest.CheckLeaks(t)
			l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
			if err != nil || l.Backend().Name != name {
				t.Skipf("the system refuses %s: %v", name, err)
			}
			r := &rig{t: t, l: l, s: future.On(l), e: executor.New("files", 4, 1024)}
			f(r)
			if err := r.l.Close(); err != nil {
				t.Errorf("closing the loop: %v", err)
			}
			_ = r.e.Close() // always nil
			r.e.Wait()
		})
	}
}

func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	weirtest.Until(r.t, r.l, what, cond)
}

// try opens a file.
func (r *rig) try(c *Config, f weir.Factory) error {
	r.t.Helper()
	var err error
	done := false
	Open(r.s, r.e, c, f).OnDone(func(_ weir.Transport, e error) { err, done = e, true })
	r.until("an open file", func() bool { return done })
	return err
}

func (r *rig) open(c *Config) *taker {
	r.t.Helper()
	k := &taker{}
	if err := r.try(c, k.factory); err != nil {
		r.t.Fatal(err)
	}
	return k
}

// path makes a file with what it has.
func (r *rig) path(has []byte) string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "file")
	if err := os.WriteFile(path, has, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *rig) has(path string, want []byte) {
	r.t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		r.t.Errorf("the file has %d bytes, want %d; %v", len(got), len(want), err)
	}
}

// taker takes what a file has.
type taker struct {
	t         weir.Transport
	got       []byte
	full      bool
	eof, lost bool
	err       error
}

func (k *taker) factory(weir.Transport) weir.Protocol     { return k }
func (k *taker) ConnectionMade(t weir.Transport)          { k.t = t }
func (k *taker) PauseWriting()                            { k.full = true }
func (k *taker) ResumeWriting()                           { k.full = false }
func (k *taker) EOFReceived(int) (keepOpen bool, e error) { k.eof = true; return true, nil }
func (k *taker) ConnectionLost(err error)                 { k.lost, k.err = true, err }
func (k *taker) DataReceived(p []byte) (int, error) {
	k.got = append(k.got, p...)
	return len(p), nil
}

// random is n bytes of a seed.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // it cannot fail
	return b
}

// sizes are around what is read and written at once.
var sizes = []int{0, 1, readPiece - 1, readPiece, readPiece + 1, 2 * readPiece, 3<<20 + 7}

// TestRead: all of a file arrives, then its end, then the connection's.
func TestRead(t *testing.T) {
	onBackends(t, func(r *rig) {
		for _, n := range sizes {
			all := random(n)
			k := r.open(&Config{Path: r.path(all), Read: true})
			r.until("the end", func() bool { return k.lost })
			if !bytes.Equal(k.got, all) || !k.eof || k.err != nil {
				t.Errorf("%d of %d bytes, end of stream %v, lost with %v", len(k.got), n, k.eof, k.err)
			}
		}
		all := random(sizes[len(sizes)-1])
		k := r.open(&Config{Path: r.path(all), Read: true, At: 1000})
		r.until("the end", func() bool { return k.lost })
		if !bytes.Equal(k.got, all[1000:]) {
			t.Errorf("from 1000: %d bytes", len(k.got))
		}
	})
}

// TestReadPaused: a reader that is paused gets no bytes, and at most one piece is read
// for it.
func TestReadPaused(t *testing.T) {
	onBackends(t, func(r *rig) {
		all := random(1 << 20)
		k := r.open(&Config{Path: r.path(all), Read: true})
		for rounds := 0; !k.lost; rounds++ {
			k.t.PauseReading()
			r.until("quiet", func() bool {
				running, queued := r.e.Load()
				return running+queued == 0
			})
			had := len(k.got)
			weirtest.Until(t, r.l, "a turn", turns(3))
			if len(k.got) != had {
				t.Fatalf("%d bytes came to a paused reader", len(k.got)-had)
			}
			k.t.ResumeReading()
			r.until("more", func() bool { return len(k.got) > had || k.lost })
		}
		if !bytes.Equal(k.got, all) || k.err != nil {
			t.Errorf("%d bytes, %v", len(k.got), k.err)
		}
	})
}

// turns is true the nth time.
func turns(n int) func() bool {
	return func() bool { n--; return n < 0 }
}

// TestWrite: what is written is in the file when the connection is lost, and the writer
// is held up meanwhile.
func TestWrite(t *testing.T) {
	onBackends(t, func(r *rig) {
		for _, n := range sizes {
			all := random(n)
			path := filepath.Join(t.TempDir(), "new")
			k := r.open(&Config{Path: path, Create: true, Mode: 0o640})
			paused := false
			for left := all; len(left) > 0; {
				part := left[:min(len(left), 50_000)]
				if _, err := k.t.Write(part); err != nil {
					t.Fatal(err)
				}
				left = left[len(part):]
				paused = paused || k.full
				r.until("room", func() bool { return !k.full })
			}
			if err := k.t.WriteEOF(); err != nil {
				t.Fatal(err)
			}
			r.until("the end", func() bool { return k.lost })
			if k.err != nil || n > 1<<20 && !paused {
				t.Errorf("%d bytes: lost with %v, writer paused: %v", n, k.err, paused)
			}
			r.has(path, all)
			if st, err := os.Stat(path); err != nil || st.Mode()&^0o22 != 0o640&^0o22 {
				t.Errorf("mode %v, %v", st.Mode(), err)
			}
		}
	})
}

// TestWriteHow: where what is written goes.
func TestWriteHow(t *testing.T) {
	onBackends(t, func(r *rig) {
		for _, c := range []struct {
			c    Config
			want string
		}{
			{Config{Write: true}, "new old old"},
			{Config{Write: true, At: 4}, "old new old"},
			{Config{Write: true, At: 12}, "old old old\x00new"},
			{Config{Append: true}, "old old oldnew"},
			{Config{Truncate: true}, "new"},
			{Config{Create: true}, "new old old"},
		} {
			c.c.Path = r.path([]byte("old old old"))
			k := r.open(&c.c)
			if _, err := k.t.Write([]byte("new")); err != nil {
				t.Fatal(err)
			}
			_ = k.t.Close() // always nil
			r.until("the end", func() bool { return k.lost })
			if k.err != nil {
				t.Error(k.err)
			}
			r.has(c.c.Path, []byte(c.want))
		}
	})
}

// TestBoth: a file that is read and written is a stream each way, with an end each.
func TestBoth(t *testing.T) {
	onBackends(t, func(r *rig) {
		path := r.path([]byte("first line\n"))
		k := r.open(&Config{Path: path, Read: true, Append: true})
		r.until("the end of reading", func() bool { return k.eof })
		if string(k.got) != "first line\n" || k.lost {
			t.Fatalf("%q, lost %v", k.got, k.lost)
		}
		if _, err := k.t.Write([]byte("second line\n")); err != nil {
			t.Fatal(err)
		}
		if err := k.t.WriteEOF(); err != nil {
			t.Fatal(err)
		}
		r.until("the end", func() bool { return k.lost })
		if k.err != nil {
			t.Error(k.err)
		}
		r.has(path, []byte("first line\nsecond line\n"))
	})
}

// TestReadOnly: what is written to a file that is only read is dropped.
func TestReadOnly(t *testing.T) {
	onBackends(t, func(r *rig) {
		all := random(1 << 20)
		path := r.path(all)
		k := r.open(&Config{Path: path, Read: true})
		if _, err := k.t.Write([]byte("not for the file")); err != nil {
			t.Fatal(err)
		}
		r.until("the end", func() bool { return k.lost })
		if k.err != nil || len(k.got) != len(all) {
			t.Errorf("%d bytes, %v", len(k.got), k.err)
		}
		r.has(path, all)
	})
}

// TestFollow: a file that grows is read on, and from its beginning once it is shorter.
func TestFollow(t *testing.T) {
	onBackends(t, func(r *rig) {
		path := r.path([]byte("one "))
		k := r.open(&Config{Path: path, Follow: true})
		say := func(flag int, text string) {
			t.Helper()
			f, err := os.OpenFile(path, os.O_WRONLY|flag, 0)
			if err == nil {
				_, err = f.WriteString(text)
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		r.until("one", func() bool { return string(k.got) == "one " })
		for range 50 {
			k.got = nil
			say(os.O_APPEND, "two ")
			r.until("two", func() bool { return string(k.got) == "two " })
		}
		k.got = nil
		say(os.O_TRUNC, "three ")
		r.until("three", func() bool { return string(k.got) == "three " })
		if k.eof || k.lost {
			t.Error("it has ended")
		}
		_ = k.t.Close() // always nil
		r.until("the end", func() bool { return k.lost })
	})
}

// TestFollowRotated: a file that was moved away or removed is read to its end, and then the
// one that has its name; none is left open.
func TestFollowRotated(t *testing.T) {
	onBackends(t, func(r *rig) {
		path := r.path([]byte("1 "))
		k := r.open(&Config{Path: path, Follow: true})
		begin := func(text string) {
			t.Helper()
			if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		want := "1 "
		for i := range 6 {
			r.until("what it has", func() bool { return string(k.got) == want })
			switch i % 3 {
			case 0: // the last line comes to the old one, just before
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(path, path+".old"); err != nil {
					t.Fatal(err)
				}
				_, err = f.WriteString("last ")
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
				begin("2 ")
				want += "last 2 "
			case 1:
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				weirtest.Until(t, r.l, "turns", turns(3))
				begin("3 ")
				want += "3 "
			default:
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(path, 0o700); err != nil { // not for long
					t.Fatal(err)
				}
				weirtest.Until(t, r.l, "turns", turns(3))
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				begin("4 ")
				want += "4 "
			}
		}
		r.until("what it has", func() bool { return string(k.got) == want })
		if k.eof || k.lost {
			t.Error("it has ended")
		}
		k.t.Abort()
		r.until("the end", func() bool { return k.lost })
	})
}

// TestOpenFails: the failure says what is wrong, and leaves nothing open.
func TestOpenFails(t *testing.T) {
	onBackends(t, func(r *rig) {
		dir := t.TempDir()
		k := &taker{}
		for _, c := range []struct {
			c    Config
			want error
		}{
			{Config{Path: filepath.Join(dir, "none"), Read: true}, fs.ErrNotExist},
			{Config{Path: filepath.Join(dir, "none"), Append: true}, fs.ErrNotExist},
			{Config{Path: filepath.Join(dir, "none", "at", "all"), Create: true}, fs.ErrNotExist},
		} {
			if err := r.try(&c.c, k.factory); !errors.Is(err, c.want) {
				t.Errorf("%+v: %v", c.c, err)
			}
		}
		for _, path := range []string{dir, os.DevNull} {
			if _, ok := errors.AsType[*NotFileError](r.try(&Config{Path: path, Read: true}, k.factory)); !ok {
				t.Errorf("%s was opened", path)
			}
		}
		if err := r.try(&Config{Path: "x"}, k.factory); err == nil {
			t.Error("neither read nor written")
		}
		if err := r.try(&Config{Path: r.path(nil), Read: true}, func(weir.Transport) weir.Protocol { return nil }); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("refused: %v", err)
		}
		e := r.e
		r.e = nil
		if err := r.try(&Config{Path: "x", Read: true}, k.factory); !errors.Is(err, ErrNoExecutor) {
			t.Errorf("no executor: %v", err)
		}
		r.e = e
		f := Open(r.s, r.e, &Config{Path: r.path(nil), Read: true}, k.factory)
		f.Cancel()
		done := false
		f.OnDone(func(_ weir.Transport, err error) { done = errors.Is(err, future.ErrCanceled) })
		r.until("a canceled open", func() bool { return done })
		if k.t != nil {
			t.Error("a connection was made")
		}
	})
}

// TestLoopGoesOn: while the executor is held up, so is the file, and not the
// loop (R68).
func TestLoopGoesOn(t *testing.T) {
	onBackends(t, func(r *rig) {
		slow := executor.New("slow", 1, 1)
		r.e, slow = slow, r.e
		all := random(5 * readPiece)
		path := r.path(all)
		k := r.open(&Config{Path: path, Read: true, Append: true})
		k.t.PauseReading()
		r.until("quiet", func() bool { running, _ := r.e.Load(); return running == 0 })
		release := make(chan struct{})
		for range 2 { // one runs, one fills the queue
			executor.Go(t.Context(), r.e, r.s, func(context.Context) (struct{}, error) { <-release; return struct{}{}, nil }).OnDone(func(struct{}, error) {})
		}
		had := len(k.got)
		k.t.ResumeReading()
		if _, err := k.t.Write([]byte("more")); err != nil {
			t.Fatal(err)
		}
		weirtest.Until(t, r.l, "turns", turns(100))
		if n := len(k.got) - had; n > readPiece || k.t.Buffered() == 0 {
			t.Errorf("%d bytes were read and %d left to write while the executor was held up", n, k.t.Buffered())
		}
		close(release)
		r.until("the rest", func() bool { return len(k.got) >= len(all) && k.t.Buffered() == 0 })
		if !bytes.Equal(k.got[:len(all)], all) {
			t.Error("other bytes came")
		}
		k.t.Abort()
		r.until("the end", func() bool { return k.lost })
		r.has(path, append(all, "more"...))
		_ = slow.Close() // always nil
	})
}

// TestReset: what was written before a reset is in the file.
func TestReset(t *testing.T) {
	all := random(1 << 20)
	onBackends(t, func(r *rig) {
		path := filepath.Join(t.TempDir(), "new")
		k := r.open(&Config{Path: path, Create: true})
		if _, err := k.t.Write(all); err != nil {
			t.Fatal(err)
		}
		reset, ok := weir.As[weir.Resetter](k.t)
		if !ok {
			t.Fatal("it cannot be reset")
		}
		reset.Reset()
		r.until("the end", func() bool { return k.lost })
		r.has(path, all)
	})
}

// TestLoopClose: what was written before the loop is closed is in the file.
func TestLoopClose(t *testing.T) {
	all := random(1 << 20)
	onBackends(t, func(r *rig) {
		path := filepath.Join(t.TempDir(), "new")
		k := r.open(&Config{Path: path, Create: true})
		if _, err := k.t.Write(all); err != nil {
			t.Fatal(err)
		}
		if err := r.l.Close(); err != nil {
			t.Errorf("closing the loop: %v", err)
		}
		if !k.lost {
			t.Error("not lost")
		}
		r.has(path, all)
	})
}

// TestLoopCloseOpening: a file that is being opened when the loop is closed is not left
// open.
func TestLoopCloseOpening(t *testing.T) {
	onBackends(t, func(r *rig) {
		path := r.path(nil)
		for range 20 {
			k := &taker{}
			f := Open(r.s, r.e, &Config{Path: path, Read: true}, k.factory)
			f.OnDone(func(weir.Transport, error) {})
		}
	})
}

// TestLoopCloseFollowing: a file that is followed, and one that is paused, are let go when
// the loop is closed.
func TestLoopCloseFollowing(t *testing.T) {
	onBackends(t, func(r *rig) {
		path := r.path([]byte("one"))
		k, p := r.open(&Config{Path: path, Follow: true}), r.open(&Config{Path: path, Read: true})
		p.t.PauseReading()
		r.until("one", func() bool { return string(k.got) == "one" })
		if err := r.l.Close(); err != nil {
			t.Errorf("closing the loop: %v", err)
		}
		if !k.lost || !p.lost {
			t.Errorf("lost: %v, %v", k.lost, p.lost)
		}
	})
}

// TestAbort: a file is let go in the middle of everything.
func TestAbort(t *testing.T) {
	onBackends(t, func(r *rig) {
		path := r.path(random(10 * readPiece))
		for i := range 200 {
			k := r.open(&Config{Path: path, Follow: i%2 == 0, Read: true, Append: true})
			_, _ = k.t.Write(random(1000 * (i % 7))) // it is open
			n := i % 5
			weirtest.Until(t, r.l, "some turns", turns(n))
			switch i % 3 {
			case 0:
				k.t.Abort()
			case 1:
				_ = k.t.Close() // always nil
			default:
				_ = k.t.WriteEOF()
				k.t.Abort()
			}
			r.until("the end", func() bool { return k.lost })
		}
	})
}

// TestTenant: a file that is opened with a tenant's scheduler belongs to the tenant and ends
// with it, as does one that is being opened, of which nothing stays open.
func TestTenant(t *testing.T) {
	bankrupt := errors.New("bankrupt")
	onBackends(t, func(r *rig) {
		tn := r.l.NewTenant("one")
		loops := r.s
		r.s = future.On(tn)
		k := r.open(&Config{Path: r.path([]byte("one")), Follow: true})
		r.until("one", func() bool { return string(k.got) == "one" })
		if got := weir.TenantOf(k.t); got != tn {
			t.Errorf("it belongs to %v", got)
		}
		late := &taker{}
		opening := Open(r.s, r.e, &Config{Path: r.path(nil), Read: true}, late.factory)
		tn.Close(bankrupt)
		r.until("the ends", func() bool { return k.lost && opening.Settled() })
		if _, err, _ := opening.Result(); !errors.Is(err, bankrupt) || !errors.Is(k.err, bankrupt) || late.t != nil {
			t.Errorf("lost with %v, opening failed with %v", k.err, err)
		}
		r.e.Wait()
		r.until("what was opened meanwhile", turns(3))
		opening = Open(r.s, r.e, &Config{Path: r.path(nil), Read: true}, late.factory)
		if _, err, _ := opening.Result(); !errors.Is(err, bankrupt) {
			t.Errorf("of a closed tenant: %v", err)
		}
		r.s = loops
		if _, err := AttachPair(future.On(tn), r.e, -1, -1, "pair", late.factory); !errors.Is(err, bankrupt) {
			t.Errorf("a pair of a closed tenant: %v", err)
		}
	})
}
