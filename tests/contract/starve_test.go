package contract

import (
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// feeder writes a byte whenever it is asked to, and counts how often it was asked in the
// current turn.
type feeder struct {
	weir.NopProtocol
	t      weir.Transport
	asked  int // in this turn
	most   int // in any
	total  int
	got    int
	begin  func(f *feeder)
	failed bool
}

// askedMost is how often one turn may ask a feeder; after that it feeds no more, so that
// a turn that would never end does end.
const askedMost = 3

func (f *feeder) feed() {
	f.asked++
	f.total++
	f.most = max(f.most, f.asked)
	if f.failed = f.failed || f.asked > askedMost; !f.failed {
		_, _ = f.t.Write([]byte("x"))
	}
}

func (f *feeder) ConnectionMade(t weir.Transport) { f.t = t; f.begin(f) }

func (f *feeder) DataReceived(p []byte) (int, error) { f.got += len(p); return len(p), nil }

// The ways to be asked. ResumeWriting is not one: it waits for the peer.
type (
	drainFeeder   struct{ *feeder }
	produceFeeder struct{ *feeder }
)

func (f drainFeeder) WriteDrained()      { f.feed() }
func (f produceFeeder) ResumeProducing() { f.feed() }
func (f produceFeeder) PauseProducing()  {}
func (f produceFeeder) StopProducing()   {}
func (f produceFeeder) Streaming() bool  { return false }

// TestWritesStarveNoReads: an endless chain of writes, each completion asking for the
// next, holds up no reading, neither on its own transport nor on another: one turn asks
// once or twice, and then handles what has arrived (R18, bug 4).
func TestWritesStarveNoReads(t *testing.T) {
	for _, c := range []struct {
		name  string
		proto func(f *feeder) weir.Protocol
		begin func(f *feeder)
	}{
		{"WriteDrained", func(f *feeder) weir.Protocol { return drainFeeder{f} }, (*feeder).feed},
		{"ResumeProducing", func(f *feeder) weir.Protocol { return f }, func(f *feeder) {
			_ = f.t.RegisterProducer(produceFeeder{f})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onRealLoops(t, func(t *testing.T, l *weir.Loop) {
				f := &feeder{begin: c.begin}
				read := 0
				var peer, other weir.Transport
				ln, err := l.Listen("tcp", "127.0.0.1:0", func(tr weir.Transport) weir.Protocol {
					if peer == nil {
						peer = tr
					} else {
						other = tr
					}
					return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
				})
				if err != nil {
					t.Fatal(err)
				}
				l.Connect("tcp", ln.Addr().String(), c.proto(f))
				turn := func(what string, until func() bool) {
					t.Helper()
					for deadline := time.Now().Add(patience); !until(); {
						f.asked = 0
						if err := l.Turn(time.Millisecond); err != nil {
							t.Fatal(err)
						}
						if f.failed {
							t.Fatalf("asked %d times in one turn", f.most)
						}
						if time.Now().After(deadline) {
							t.Fatalf("no %s, after being asked %d times", what, f.total)
						}
					}
				}
				turn("feeding", func() bool { return f.total > 10 && peer != nil })
				l.Connect("tcp", ln.Addr().String(), weir.DataFunc(func(p []byte) (int, error) { read += len(p); return len(p), nil }))
				turn("other connection", func() bool { return other != nil })
				before := f.total
				_, _ = peer.Write([]byte("to the feeder"))
				_, _ = other.Write([]byte("to another"))
				turn("reads", func() bool { return f.got == len("to the feeder") && read == len("to another") })
				turn("feeding meanwhile", func() bool { return f.total > before })
				for _, tr := range []weir.Transport{f.t, peer, other} {
					tr.Abort()
				}
				_ = ln.Close()
			})
		})
	}
}
