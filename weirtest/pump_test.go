package weirtest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

func chops() []func() Chop {
	all := []func() Chop{Whole, ByteByByte, func() Chop { return Pieces(3, 1, 4) }}
	for seed := range uint64(20) {
		all = append(all, func() Chop { return Random(seed) })
	}
	return all
}

// sink collects, and replies with what it got when the end comes.
type sink struct {
	script
	got []byte
}

func newSink() *sink {
	s := &sink{}
	s.data = func(p []byte) (int, error) {
		s.got = append(s.got, p...)
		return len(p), nil
	}
	return s
}

func (s *sink) EOFReceived(int) (bool, error) {
	s.t.Write([]byte(hex.EncodeToString(s.got)))
	s.t.Close()
	return true, nil
}

// Behaviours 27 and 44, over every way of chopping: a request, half-close, the
// reply, a clean end at both.
func TestPumpHalfClose(t *testing.T) {
	for _, chop := range chops() {
		var reply []byte
		a := &script{made: func(t weir.Transport) {
			t.Write([]byte("request"))
			t.WriteEOF()
		}}
		a.data = func(p []byte) (int, error) {
			reply = append(reply, p...)
			return len(p), nil
		}
		b := newSink()
		p := NewPump(t, a, b, chop())
		p.SetCapacity(5)
		errA, errB := p.Finish()
		if errA != nil || errB != nil || string(reply) != hex.EncodeToString([]byte("request")) {
			t.Errorf("%s: ends %v and %v, reply %q", p.chop, errA, errB, reply)
		}
	}
}

// G2 and G3: much data, a small capacity, pausing reader: all of it arrives and
// the writer's buffer stays within bounds.
func TestPumpFlowControl(t *testing.T) {
	for _, chop := range chops() {
		data := make([]byte, 20000)
		r := rand.New(rand.NewPCG(1, 1))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		a := &full{eof: func(int) (bool, error) { return false, nil }, drained: func() {}}
		rest, paused := data, false
		write := func() {
			for len(rest) > 0 && !paused {
				n := min(len(rest), 100)
				a.t.Write(rest[:n])
				rest = rest[n:]
				if a.t.Buffered() > 1100 {
					t.Fatalf("%d bytes buffered", a.t.Buffered())
				}
			}
			if len(rest) == 0 {
				a.t.Close()
			}
		}
		a.pause = func() { paused = true }
		a.resume = func() { paused = false; write() }
		a.made = func(t weir.Transport) {
			t.SetWriteMarks(1000, 100)
			write()
		}
		b := newSink()
		p := NewPump(t, a, b, chop())
		p.SetCapacity(500)
		errA, errB := p.Finish()
		if errA != nil || errB != nil || !bytes.Equal(b.got, data) {
			t.Errorf("%s: ends %v and %v, %d bytes", p.chop, errA, errB, len(b.got))
		}
	}
}

// Behaviour 29: abort is a reset at the other end; so is a failed protocol.
func TestPumpAbort(t *testing.T) {
	for _, chop := range chops() {
		a := &script{made: func(t weir.Transport) { t.Write([]byte("hello")) }}
		b := &script{}
		b.data = func([]byte) (int, error) { b.t.Abort(); return 0, nil }
		p := NewPump(t, a, b, chop())
		errA, errB := p.Finish()
		if !errors.Is(errA, syscall.ECONNRESET) || !errors.Is(errB, weir.ErrAborted) {
			t.Errorf("%s: ends %v and %v", p.chop, errA, errB)
		}
	}
}

// The peer has closed, the protocol keeps the connection open and writes on.
func TestPumpWriteToClosed(t *testing.T) {
	a := &full{drained: func() {}}
	a.eof = func(int) (bool, error) {
		a.t.Write([]byte("to nobody"))
		return true, nil
	}
	b := &script{made: func(t weir.Transport) { t.Close() }}
	errA, errB := NewPump(t, a, b, Whole()).Finish()
	if !errors.Is(errA, syscall.ECONNRESET) || errB != nil {
		t.Errorf("ends %v and %v", errA, errB)
	}
}

// Behaviour 93: two echoes never settle.
func TestPumpThatNeverSettles(t *testing.T) {
	text := failing(t, func(tb testing.TB) {
		a, b := &script{}, &script{}
		a.made = func(t weir.Transport) { t.Write([]byte("ball")) }
		a.data = func(p []byte) (int, error) { return a.t.Write(p) }
		b.data = func(p []byte) (int, error) { return b.t.Write(p) }
		p := NewPump(tb, a, b, Random(7))
		p.SetLimit(500)
		p.Run()
	})
	for _, want := range []string{"did not settle in 500 events", "seed 7", `  Write "ba"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the message lacks %q: %s", want, text)
		}
	}
}

func TestFinishWantsAnEnd(t *testing.T) {
	text := failing(t, func(tb testing.TB) { NewPump(tb, &script{}, &script{}, Whole()).Finish() })
	if !strings.Contains(text, "still open at A") {
		t.Errorf("message: %s", text)
	}
}

// The same seed gives the same traces (behaviour 94).
func TestPumpReplays(t *testing.T) {
	run := func() string {
		a := &script{made: func(t weir.Transport) {
			t.Write(bytes.Repeat([]byte("abc"), 100))
			t.WriteEOF()
		}}
		p := NewPump(t, a, newSink(), Random(42))
		p.Finish()
		return strings.Join(append(p.A.Trace(), p.B.Trace()...), "\n")
	}
	if first, second := run(), run(); first != second || !strings.Contains(first, "DataReceived") {
		t.Errorf("two runs with one seed:\n%s\n\n%s", first, second)
	}
}

// Behaviour 92: a correct parser passes, wrong ones are found.
func TestEveryChop(t *testing.T) {
	stream := []byte("one\ntwo\n\nthree\nrest")
	right := func(log func(string, ...any)) weir.Protocol {
		return weir.DataFunc(func(p []byte) (int, error) {
			i := bytes.IndexByte(p, '\n')
			if i >= 0 {
				log("line %q", p[:i])
			}
			return i + 1, nil
		})
	}
	EveryChop(t, stream, right)

	forgets := func(log func(string, ...any)) weir.Protocol {
		return weir.DataFunc(func(p []byte) (int, error) {
			for line := range bytes.SplitSeq(p, []byte("\n")) {
				log("line %q", line)
			}
			return len(p), nil
		})
	}
	if text := failing(t, func(tb testing.TB) { EveryChop(tb, stream, forgets) }); !strings.Contains(text, "understood differently from call 0") {
		t.Errorf("a parser that takes a read for a message: %q", text)
	}
	silent := func(func(string, ...any)) weir.Protocol {
		return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
	}
	if text := failing(t, func(tb testing.TB) { EveryChop(tb, stream, silent) }); !strings.Contains(text, "logs and writes nothing") {
		t.Errorf("a protocol that does nothing: %q", text)
	}
}

// Behaviour 93: leaks are found, and named.
func TestLeaks(t *testing.T) {
	CheckLeaks(t)
	before := TakeSnapshot()
	if left := before.Leaks(0); len(left) != 0 {
		t.Fatalf("nothing leaks, yet: %q", left)
	}

	started, stop, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go leakyGoroutine(started, stop, ended)
	<-started
	left := before.Leaks(0)
	if len(left) != 1 || !strings.Contains(left[0], "leakyGoroutine") {
		t.Errorf("a goroutine: %q", left)
	}
	close(stop)
	<-ended

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	left = before.Leaks(0)
	all := strings.Join(left, "\n")
	if len(left) != 2 || !strings.Contains(all, "at "+ln.Addr().String()) || !strings.Contains(all, os.DevNull) {
		t.Errorf("a listener on %v and a file: %q", ln.Addr(), left)
	}
	ln.Close()
	f.Close()
	if left := before.Leaks(time.Second); len(left) != 0 {
		t.Errorf("all is closed, yet: %q", left)
	}
}

func leakyGoroutine(started, stop, ended chan struct{}) {
	close(started)
	<-stop
	close(ended)
}
