package weirtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
)

// failures is a testing.TB that notes failures instead of failing.
type failures struct {
	testing.TB
	texts []string
}

func (f *failures) Helper() {}
func (f *failures) Errorf(format string, args ...any) {
	f.texts = append(f.texts, fmt.Sprintf(format, args...))
}

func (f *failures) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

// failing returns what fn tells its testing.TB.
func failing(t *testing.T, fn func(tb testing.TB)) string {
	f := &failures{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(f)
	}()
	<-done
	return strings.Join(f.texts, "\n")
}

// script is a protocol whose callbacks a test sets.
type script struct {
	t    weir.Transport
	made func(t weir.Transport)
	data func(p []byte) (int, error)
	lost []error
}

func (s *script) ConnectionMade(t weir.Transport) {
	s.t = t
	if s.made != nil {
		s.made(t)
	}
}

func (s *script) DataReceived(p []byte) (int, error) {
	if s.data == nil {
		return len(p), nil
	}
	return s.data(p)
}

func (s *script) ConnectionLost(err error) { s.lost = append(s.lost, err) }

// full adds every optional callback.
type full struct {
	script
	eof     func(unused int) (bool, error)
	pause   func()
	resume  func()
	drained func()
}

func (f *full) EOFReceived(unused int) (bool, error) { return f.eof(unused) }
func (f *full) PauseWriting()                        { f.pause() }
func (f *full) ResumeWriting()                       { f.resume() }
func (f *full) WriteDrained()                        { f.drained() }

func wantLost(t *testing.T, r *Recorder, target error) {
	t.Helper()
	lost, err := r.Lost()
	if !lost || !errors.Is(err, target) {
		t.Errorf("lost %v with %v, want it lost with %v", lost, err, target)
	}
}

func wantTrace(t *testing.T, r *Recorder, want ...string) {
	t.Helper()
	if got := r.Trace(); !slices.Equal(got, want) {
		t.Errorf("trace:\n%swant:\n%s", indent(got), indent(want))
	}
}

// R59: a protocol is tested by calling its methods.
func TestCallMethodsDirectly(t *testing.T) {
	r := NewRecorder(t)
	echo := weir.DataFunc(r.Write)
	echo.ConnectionMade(r)
	if n, err := echo.DataReceived([]byte("hello")); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if got := r.TakeWritten(); got != "hello" {
		t.Errorf("written %q", got)
	}
	wantTrace(t, r, `Write "hello"`)
}

func TestTraceShowsWhoCalledWhat(t *testing.T) {
	r := NewRecorder(t)
	p := &script{made: func(t weir.Transport) { t.Write([]byte("hi")) }}
	p.data = func([]byte) (int, error) {
		p.t.Close()
		return 1, nil
	}
	r.Connect(p)
	r.DeliverString("abc")
	wantTrace(t, r,
		"ConnectionMade", `  Write "hi"`,
		`DataReceived "abc"`, "  Close", "used 1 of 3, error <nil>",
		"ConnectionLost <nil>")
	if len(p.lost) != 1 || p.lost[0] != nil || r.Protocol() != nil || r.Sent() != 2 {
		t.Errorf("lost %v, protocol %v, sent %d", p.lost, r.Protocol(), r.Sent())
	}
}

// Behaviour 35.
func TestTails(t *testing.T) {
	r := NewRecorder(t)
	var got []string
	use := []int{2, 0, 3, 0, 1}
	p := &script{}
	p.data = func(b []byte) (int, error) {
		got = append(got, string(b))
		n := use[0]
		use = use[1:]
		return n, nil
	}
	r.Connect(p)
	r.DeliverString("abcd")
	r.DeliverString("efg")
	if want := []string{"abcd", "cd", "cdefg", "fg"}; !slices.Equal(got, want) {
		t.Fatalf("offered %q, want %q", got, want)
	}
	// Behaviour 36: offered once more before the end, which counts the rest.
	r.DeliverEOF()
	if want := []string{"abcd", "cd", "cdefg", "fg", "fg"}; !slices.Equal(got[:5], want) {
		t.Fatalf("offered %q, want %q", got, want)
	}
}

func TestEndWithUnusedTail(t *testing.T) {
	r := NewRecorder(t)
	calls := 0
	r.Connect(&script{data: func([]byte) (int, error) { calls++; return 0, nil }})
	r.DeliverString("ab")
	r.DeliverEOF()
	wantLost(t, r, io.ErrUnexpectedEOF)
	var unused *weir.UnusedError
	if _, err := r.Lost(); !errors.As(err, &unused) || unused.Unused != 2 || calls != 2 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// Behaviours 35 and 37.
func TestBadCounts(t *testing.T) {
	for _, n := range []int{-1, 4} {
		r := NewRecorder(t)
		r.Connect(&script{data: func([]byte) (int, error) { return n, nil }})
		r.DeliverString("abc")
		var used *weir.UsedError
		if _, err := r.Lost(); !errors.As(err, &used) || used.N != n || used.Len != 3 {
			t.Errorf("using %d of 3: lost with %v", n, err)
		}
	}
	r := NewRecorder(t)
	r.SetTailLimit(4)
	r.Connect(&script{data: func([]byte) (int, error) { return 0, nil }})
	r.DeliverString("abcd")
	if lost, _ := r.Lost(); lost {
		t.Fatal("lost at the limit")
	}
	r.DeliverString("e")
	var tail *weir.TailError
	if _, err := r.Lost(); !errors.As(err, &tail) || tail.Limit != 4 || tail.Unused != 5 {
		t.Errorf("past the limit: lost with %v", err)
	}
}

// Behaviour 38.
func TestPausedReadingHoldsEverything(t *testing.T) {
	r := NewRecorder(t)
	var got []byte
	p := &script{made: func(t weir.Transport) { t.PauseReading(); t.PauseReading() }}
	p.data = func(b []byte) (int, error) {
		got = append(got, b[0])
		p.t.PauseReading()
		return 1, nil
	}
	r.Connect(p)
	r.DeliverString("abc")
	r.DeliverEOF()
	for i, want := range []string{"", "a", "ab", "abc"} {
		if string(got) != want {
			t.Fatalf("after %d resumes: %q, want %q", i, got, want)
		}
		if lost, _ := r.Lost(); lost {
			t.Fatalf("the end came through the pause, after %d resumes", i)
		}
		r.ResumeReading()
		r.Run()
	}
	wantLost(t, r, nil)
	if len(p.lost) != 1 {
		t.Errorf("ConnectionLost called %d times", len(p.lost))
	}
}

// Behaviours 39 and 40, G4.
func TestMarksAlternate(t *testing.T) {
	r := NewRecorder(t)
	r.SetRoom(0)
	var log []string
	p := &full{}
	p.pause = func() { log = append(log, fmt.Sprint("pause at ", r.Buffered())) }
	p.drained = func() { log = append(log, "drained") }
	p.resume = func() {
		log = append(log, fmt.Sprint("resume at ", r.Buffered()))
		if len(log) < 3 {
			p.t.Write(make([]byte, 20))
		}
	}
	r.Connect(p)
	if err := r.SetWriteMarks(2, 3); !errors.Is(err, weir.ErrBadMarks) {
		t.Errorf("low above high: %v", err)
	}
	if err := r.SetWriteMarks(10, 4); err != nil {
		t.Fatal(err)
	}
	r.Write(make([]byte, 10))
	r.Writev([][]byte{nil, {1}, {2, 3}})
	r.Write(make([]byte, 5))
	r.SetRoom(13) // 5 left
	if want := []string{"pause at 11"}; !slices.Equal(log, []string{"pause at 13"}) {
		t.Fatalf("%q, want something like %q", log, want)
	}
	r.SetRoom(1) // 4 left, and ResumeWriting writes 20
	r.SetRoom(-1)
	want := []string{"pause at 13", "resume at 4", "pause at 24", "resume at 0", "drained"}
	if !slices.Equal(log, want) {
		t.Errorf("%q, want %q", log, want)
	}
}

func TestProtocolThatCannotPauseIsHeldBack(t *testing.T) {
	r := NewRecorder(t)
	r.SetRoom(0)
	r.SetWriteMarks(3, 0)
	r.Connect(weir.DataFunc(r.Write))
	for range 5 {
		r.DeliverString("ab")
	}
	if r.Buffered() != 4 {
		t.Errorf("%d bytes echoed into a buffer with mark 3, want 4", r.Buffered())
	}
	r.SetRoom(-1)
	if got := r.TakeWritten(); got != "ababababab" {
		t.Errorf("written %q", got)
	}
}

// Behaviours 21, 22, 23 and 33: the end comes once, never from inside.
func TestEndings(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		do   func(t weir.Transport) (int, error)
		want error
	}{
		{"close", func(t weir.Transport) (int, error) { t.Close(); t.Close(); return 0, nil }, nil},
		{"abort", func(t weir.Transport) (int, error) { t.Abort(); t.Abort(); t.Close(); return 0, nil }, weir.ErrAborted},
		{"close, abort", func(t weir.Transport) (int, error) { t.Close(); t.Abort(); return 0, nil }, weir.ErrAborted},
		{"error", func(weir.Transport) (int, error) { return 0, boom }, boom},
		{"panic", func(weir.Transport) (int, error) { panic(boom) }, boom},
		{"abort, panic", func(t weir.Transport) (int, error) { t.Abort(); panic(boom) }, boom},
		{"close, error", func(t weir.Transport) (int, error) { t.Close(); return 1, boom }, boom},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewRecorder(t)
			p := &script{}
			p.data = func([]byte) (int, error) {
				defer func() {
					if len(p.lost) != 0 {
						t.Error("ConnectionLost from inside")
					}
				}()
				return c.do(p.t)
			}
			r.Connect(p)
			r.DeliverString("abc")
			r.DeliverString("more")
			r.DeliverEOF()
			r.Lose(syscall.ECONNRESET)
			wantLost(t, r, c.want)
			if len(p.lost) != 1 {
				t.Errorf("ConnectionLost called %d times", len(p.lost))
			}
			if _, err := r.Write([]byte("x")); !errors.Is(err, weir.ErrClosed) {
				t.Errorf("Write after the end: %v", err)
			}
			if r.RemoteAddr().String() != "there" || r.LocalAddr().Network() != "memory" {
				t.Errorf("addresses after the end: %v %v", r.LocalAddr(), r.RemoteAddr())
			}
		})
	}
}

// Behaviours 23 and 24.
func TestCloseFlushes(t *testing.T) {
	r := NewRecorder(t)
	r.SetRoom(3)
	p := &script{made: func(t weir.Transport) {
		t.Write([]byte("hello"))
		t.Close()
		if _, err := t.Write([]byte("x")); !errors.Is(err, weir.ErrClosed) {
			panic(err)
		}
	}}
	r.Connect(p)
	if lost, _ := r.Lost(); lost || r.Sent() != 3 {
		t.Fatalf("lost %v after %d bytes", lost, r.Sent())
	}
	r.SetRoom(2)
	wantLost(t, r, nil)
	if string(r.Written()) != "hello" || r.Sent() != 5 {
		t.Errorf("written %q, sent %d", r.Written(), r.Sent())
	}
}

// Behaviours 27, 44, 45.
func TestHalfClose(t *testing.T) {
	r := NewRecorder(t)
	p := &full{eof: func(unused int) (bool, error) {
		if unused != 0 {
			t.Errorf("%d unused", unused)
		}
		return true, nil
	}, drained: func() {}}
	r.Connect(p)
	r.DeliverEOF()
	r.Write([]byte("reply"))
	if err := r.WriteEOF(); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteEOF(); err != nil {
		t.Fatal("again:", err)
	}
	if _, err := r.Write(nil); !errors.Is(err, weir.ErrWriteAfterEOF) {
		t.Errorf("write after the end: %v", err)
	}
	if lost, _ := r.Lost(); lost || !r.EOFWritten() {
		t.Errorf("lost %v, end written %v", lost, r.EOFWritten())
	}
	r.Run() // both directions are over
	wantLost(t, r, nil)

	r = NewRecorder(t)
	r.SetHalfClose(false)
	if err := r.WriteEOF(); r.CanWriteEOF() || !errors.Is(err, weir.ErrNoHalfClose) {
		t.Errorf("%v, %v", r.CanWriteEOF(), err)
	}
}

// Behaviour 46.
func TestFailureInEOFReceived(t *testing.T) {
	boom := errors.New("boom")
	r := NewRecorder(t)
	r.Connect(&full{eof: func(int) (bool, error) { return true, boom }})
	r.DeliverEOF()
	wantLost(t, r, boom)
}

// Behaviour 31.
func TestProtocolExchange(t *testing.T) {
	r := NewRecorder(t)
	var second []byte
	p := &script{}
	p.data = func(b []byte) (int, error) {
		p.t.SetProtocol(weir.DataFunc(func(b []byte) (int, error) {
			second = append(second, b...)
			return len(b), nil
		}))
		return 2, nil
	}
	r.Connect(p)
	r.DeliverString("abcd")
	r.DeliverString("ef")
	if string(second) != "cdef" || len(p.lost) != 0 {
		t.Errorf("the second got %q, the first was told of %d losses", second, len(p.lost))
	}
}

// Behaviour 31, G4: the writer is paused, whichever protocol writes.
func TestProtocolExchangeWhilePaused(t *testing.T) {
	r := NewRecorder(t)
	var log []string
	named := func(name string) *full {
		return &full{
			pause:   func() { log = append(log, name+" paused") },
			resume:  func() { log = append(log, name+" resumed") },
			drained: func() {},
		}
	}
	r.SetRoom(0)
	if err := r.SetWriteMarks(3, 0); err != nil {
		t.Fatal(err)
	}
	r.Connect(named("old"))
	r.Write(make([]byte, 4))
	r.SetProtocol(named("new"))
	r.Write([]byte{1})
	r.SetRoom(-1)
	r.SetRoom(0)
	r.SetProtocol(named("late"))
	r.Write(make([]byte, 4))
	r.SetRoom(-1)
	if want := []string{"old paused", "new paused", "new resumed", "late paused", "late resumed"}; !slices.Equal(log, want) {
		t.Errorf("%q, want %q", log, want)
	}
}

type buffered struct {
	script
	buf []byte
}

func (b *buffered) ReadBuffer() []byte { return b.buf }

// Behaviour 32, R5.
func TestSuppliedBuffer(t *testing.T) {
	r := NewRecorder(t)
	b := &buffered{buf: make([]byte, 3)}
	var got []byte
	b.data = func(p []byte) (int, error) {
		if &p[0] != &b.buf[0] {
			t.Error("not the buffer that was supplied")
		}
		got = append(got, p...)
		return len(p), nil
	}
	r.Connect(b)
	r.DeliverString("abcdefgh")
	if string(got) != "abcdefgh" {
		t.Errorf("got %q", got)
	}
	b.buf = nil
	r.DeliverString("x")
	if lost, err := r.Lost(); !lost || err == nil {
		t.Errorf("no buffer: lost %v, %v", lost, err)
	}
}

type producer struct {
	t         weir.Transport
	streaming bool
	pieces    int
	log       []string
}

func (p *producer) Streaming() bool { return p.streaming }
func (p *producer) PauseProducing() { p.log = append(p.log, "pause") }
func (p *producer) StopProducing()  { p.log = append(p.log, "stop") }
func (p *producer) ResumeProducing() {
	p.log = append(p.log, "resume")
	if p.streaming {
		return
	}
	if p.pieces == 0 {
		p.t.UnregisterProducer()
		return
	}
	p.pieces--
	p.t.Write([]byte("piece"))
}

// Behaviour 42, R31.
func TestProducers(t *testing.T) {
	r := NewRecorder(t)
	r.SetWriteMarks(4, 0)
	pull := &producer{t: r, pieces: 2}
	r.Connect(&script{made: func(t weir.Transport) {
		if err := t.RegisterProducer(pull); err != nil {
			panic(err)
		}
		if err := t.RegisterProducer(pull); !errors.Is(err, weir.ErrProducerRegistered) {
			panic(err)
		}
		t.Close() // waits for the producer
	}})
	wantLost(t, r, nil)
	if string(r.Written()) != "piecepiece" || strings.Join(pull.log, " ") != "resume resume resume" {
		t.Errorf("written %q, producer was told %q", r.Written(), pull.log)
	}

	r = NewRecorder(t)
	r.SetRoom(0)
	r.SetWriteMarks(4, 0)
	push := &producer{t: r, streaming: true}
	r.Connect(&script{made: func(t weir.Transport) { t.RegisterProducer(push) }})
	r.Write([]byte("12345"))
	r.SetRoom(-1)
	r.Lose(syscall.EPIPE)
	if got := strings.Join(push.log, " "); got != "pause resume stop" {
		t.Errorf("producer was told %q", got)
	}
	late := &producer{}
	if err := r.RegisterProducer(late); err != nil || len(late.log) != 0 {
		t.Errorf("registered on a dead transport: %v, told %q from inside", err, late.log)
	}
	r.Run()
	if got := strings.Join(late.log, " "); got != "stop" {
		t.Errorf("a producer on a dead transport was told %q", got)
	}
}

// The checks of the protocol: lent bytes.
func TestLentBytes(t *testing.T) {
	text := failing(t, func(tb testing.TB) {
		r := NewRecorder(tb)
		r.Connect(&script{data: func(p []byte) (int, error) { p[0] = 'X'; return len(p), nil }})
		r.DeliverString("abc")
	})
	if !strings.Contains(text, "changed the bytes") {
		t.Errorf("a protocol that changes what it is lent: %q", text)
	}
	var kept []byte
	r := NewRecorder(t)
	r.Connect(&script{data: func(p []byte) (int, error) { kept = p; return len(p), nil }})
	r.DeliverString("abc")
	if !bytes.Equal(kept, []byte{0xdb, 0xdb, 0xdb}) {
		t.Errorf("kept bytes still read %q", kept)
	}
}

func TestRunThatNeverRests(t *testing.T) {
	text := failing(t, func(tb testing.TB) {
		r := NewRecorder(tb)
		r.SetLimit(1000)
		p := &full{eof: func(int) (bool, error) { return false, nil }}
		p.drained = func() { p.t.Write([]byte("again")) }
		r.Connect(p)
		r.Write([]byte("x"))
		r.Run()
	})
	if !strings.Contains(text, "did not come to rest in 1000 events") || !strings.Contains(text, `Write "again"`) {
		t.Errorf("message: %s", text)
	}
}
