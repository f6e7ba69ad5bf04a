package weirtest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// EveryChop checks that a protocol does the same however the stream that it is fed
// is split (behaviour 92). For each way, make makes a protocol that reports its
// own calls to what is above it through log; stream is fed to it, then the end of
// stream. What was logged, what was written and how the connection ended must be
// the same as for the stream in one piece, and must not be empty. A protocol may
// use its loop: what it posted runs before the next piece comes, and after the end
// of stream a minute passes for its timers.
//
// The ways are: byte by byte, every split in two (a spread of 512 of them if
// the stream is longer), and 64 random ones.
func EveryChop(tb testing.TB, stream []byte, make func(log func(format string, args ...any)) weir.Protocol) {
	tb.Helper()
	want := feed(tb, Whole(), stream, make)
	if len(want) <= 1 {
		tb.Errorf("weirtest: the protocol logs and writes nothing for the stream in one piece, so no cut can differ; it ended with: %s", indent(want))
		return
	}
	try := func(c Chop) bool {
		got := feed(tb, c, stream, make)
		if slices.Equal(got, want) {
			return true
		}
		at := 0
		for at < len(got) && at < len(want) && got[at] == want[at] {
			at++
		}
		tb.Errorf("weirtest: cut %s, the stream is understood differently from call %d on\nwhole:\n%scut:\n%s",
			c, at, indent(want[at:min(at+10, len(want))]), indent(got[at:min(at+10, len(got))]))
		return false
	}
	if !try(ByteByByte()) {
		return
	}
	for at := 1; at < len(stream); at += 1 + len(stream)/512 {
		if !try(Pieces(at)) {
			return
		}
	}
	for seed := range uint64(64) {
		if !try(Random(seed)) {
			return
		}
	}
}

// chopPatience is how much time EveryChop gives a protocol after the end of its
// stream.
const chopPatience = time.Minute

// Feed delivers stream to r, split by c. Between two pieces, what the protocol
// has posted to its loop runs: see Recorder.Pass.
func Feed(r *Recorder, stream []byte, c Chop) {
	r.tb.Helper()
	for len(stream) > 0 {
		n := c.cut(len(stream))
		r.Deliver(stream[:n])
		r.Pass(0)
		stream = stream[n:]
	}
}

// feed returns everything that a protocol does when it is fed the stream in this way.
func feed(tb testing.TB, c Chop, stream []byte, make func(func(string, ...any)) weir.Protocol) []string {
	var calls []string
	r := NewRecorder(tb)
	r.Connect(make(func(format string, args ...any) {
		calls = append(calls, fmt.Sprintf(format, args...))
	}))
	Feed(r, stream, c)
	r.DeliverEOF()
	r.Pass(chopPatience)
	if r.sim != nil {
		defer r.sim.Close()
	}
	if len(r.written) > 0 {
		calls = append(calls, fmt.Sprintf("written %q", r.written))
	}
	lost, err := r.Lost()
	return append(calls, fmt.Sprintf("lost %v, %v", lost, err))
}
