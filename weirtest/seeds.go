package weirtest

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Seeds runs f in n simulated worlds, with the seeds 1 to n, each as a subtest of
// its own with a name such as "seed=7". f builds hosts in s, lets something
// happen, and reports failures to t. Nothing is printed about worlds that pass;
// the first that fails is explained in words: what its faults were, what its
// loops reported, what happened last, and the command that replays it.
//
//	func TestReplies(t *testing.T) {
//		weirtest.Seeds(t, 200, func(t *testing.T, s *weirtest.Sim) {
//			…
//			s.Until("the reply", func() bool { return p.done })
//		}, weirtest.WithSwarm())
//	}
//
// With -weir.seed=N or WEIR_SEED=N there is only the world of that seed, and a
// failure shows its whole trace too. A world is calm unless opts say otherwise.
func Seeds(t *testing.T, n int, f func(t *testing.T, s *Sim), opts ...SimOption) {
	t.Helper()
	first, last := uint64(1), uint64(max(n, 0))
	if asked, ok := Seed(); ok {
		first, last = asked, asked
	}
	failed := 0
	for seed := first; ; seed++ {
		if seed > last {
			break
		}
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s := newSim(t, seed, opts, failed == 0)
			s.said = failed > 0
			f(t, s)
		})
		if !ok {
			failed++
		}
	}
	if failed > 0 {
		t.Logf("%d of %d seeds failed; the first is explained", failed, last-first+1)
	}
}

// recentLines is how many of a world's last lines an explanation shows.
const recentLines = 40

// recent keeps the last lines that are written to it.
type recent struct {
	lines [recentLines][]byte
	n     int
}

// Write implements io.Writer; the world writes a line at a time.
func (r *recent) Write(p []byte) (int, error) {
	at := &r.lines[r.n%recentLines]
	*at = append((*at)[:0], p...)
	r.n++
	return len(p), nil
}

// String is what is kept, the oldest first.
func (r *recent) String() string {
	var b bytes.Buffer
	for i := max(r.n-recentLines, 0); i < r.n; i++ {
		b.Write(r.lines[i%recentLines])
	}
	return b.String()
}

// faultWords say in words what a field of Faults does when it is set; a chance
// follows as "1 in 20", a time or a number of bytes as it is.
var faultWords = map[string]string{
	"Latency": "one way between hosts takes", "Jitter": "and up to so much more", "Loopback": "one way within a host takes",
	"Loss": "a segment is lost and sent again", "CutWire": "a segment is cut in two",
	"SendBuffer": "buffers to send have", "ReceiveBuffer": "buffers to receive have",
	"NoInline": "no operation ends at once", "Eager": "an operation ends at once when it could wait",
	"Defer": "an operation waits when it could end at once", "CutRead": "a read takes less than there is",
	"CutWrite": "a write takes less than fits", "Again": "an operation says that it would wait when it would not",
	"EarlyEnd": "a lasting operation ends with its result", "EmptyWait": "a wait ends with nothing",
	"Shuffle": "results come in any order", "LateCancel": "what is canceled ends later", "LateBy": "and as late as",
	"Reset": "a connection is refused or reset", "Silence": "a connection falls silent forever",
	"Slow":        "a peer shuts its window for a while",
	"ResetPaused": "a connection is reset while reading is paused", "ConnectError": "connecting fails at once",
	"WriteError": "a write fails for lack of memory", "ShutError": "the end of writing cannot be sent", "AcceptError": "accepting fails", "OpenError": "opening a socket fails", "SelfConnect": "a connect meets itself",
	"Drop": "a datagram is lost", "Duplicate": "a datagram arrives twice", "Reorder": "a datagram is overtaken",
	"CutDatagram": "a datagram is truncated", "SendNoBuffer": "there is no buffer for a datagram", "SendWait": "a datagram has to wait",
	"MTU":       "links between hosts take packets of at most",
	"Joined":    "datagrams are received and sent as one",
	"Partition": "two hosts lose sight of each other", "Crash": "a host crashes", "Shortage": "a host runs out of handles",
	"WallJump": "the wall clock jumps", "Stall": "the whole world is suspended", "LoopStall": "a loop does not get to run",
	"StartError": "a program cannot be started", "StartDelay": "starting a program takes up to", "ExitDelay": "the news of an exit takes up to", "Killed": "a program is killed",
}

// tell says in words which faults are on.
func tell(faults Faults) string {
	calm := reflect.ValueOf(Faults{Latency: time.Millisecond, Loopback: 10 * time.Microsecond, SendBuffer: 512 << 10, ReceiveBuffer: 128 << 10})
	var b strings.Builder
	v := reflect.ValueOf(faults)
	for i := range v.NumField() {
		f := v.Field(i)
		if f.IsZero() || f.Equal(calm.FieldByName(v.Type().Field(i).Name)) {
			continue
		}
		words := faultWords[v.Type().Field(i).Name]
		switch x := f.Interface().(type) {
		case float64:
			fmt.Fprintf(&b, "  %s: 1 in %.4g times\n", words, 1/x)
		case time.Duration:
			fmt.Fprintf(&b, "  %s %v\n", words, x)
		case int:
			fmt.Fprintf(&b, "  %s %d bytes\n", words, x)
		default:
			fmt.Fprintf(&b, "  %s\n", words)
		}
	}
	if b.Len() == 0 {
		return "  nothing goes wrong\n"
	}
	return b.String()
}
