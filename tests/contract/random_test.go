package contract

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/tests/internal/rig"
)

// actor is one end of a connection that does at random anything that a protocol
// may do, and checks what it is promised (G1, G2, G4).
type actor struct {
	t    *testing.T
	name string
	r    *rand.Rand
	tr   weir.Transport
	loop *weir.Loop

	toSend, sent int // bytes
	got          int
	made, lost   int
	paused       bool // told to pause writing
	ended        bool // we sent our end
	peerEnded    bool
	closed       bool
	err          error
	resume       *weir.Timer
	next         *weir.Timer
	done         func()
}

func (a *actor) errorf(format string, args ...any) {
	a.t.Helper()
	a.t.Errorf(a.name+": "+format, args...)
}

func (a *actor) ConnectionMade(t weir.Transport) {
	a.made++
	a.tr, a.loop = t, t.Loop()
	a.resume = a.loop.NewTimer(func() { a.tr.ResumeReading() })
	a.next = a.loop.NewTimer(a.work)
	if a.r.IntN(3) == 0 {
		high := a.r.IntN(200_000)
		if err := t.SetWriteMarks(high, a.r.IntN(high+1)); err != nil {
			a.errorf("SetWriteMarks: %v", err)
		}
	}
	a.work()
}

// work sends more, and the end when everything is sent.
func (a *actor) work() {
	for !a.paused && a.sent < a.toSend {
		n := min(a.toSend-a.sent, 1+a.r.IntN(1<<a.r.IntN(18)))
		p := make([]byte, n)
		for i := range p {
			p[i] = rig.Pattern(a.sent + i)
		}
		a.sent += n
		if a.r.IntN(4) == 0 {
			k := a.r.IntN(n + 1)
			if _, err := a.tr.Writev([][]byte{p[:k], nil, p[k:]}); err != nil {
				a.errorf("Writev: %v", err)
				return
			}
		} else if _, err := a.tr.Write(p); err != nil {
			a.errorf("Write: %v", err)
			return
		}
		if a.r.IntN(8) == 0 {
			a.next.Set(time.Duration(a.r.IntN(300)) * time.Microsecond)
			return
		}
	}
	if a.sent == a.toSend && !a.ended {
		a.ended = true
		if err := a.tr.WriteEOF(); err != nil {
			a.errorf("WriteEOF: %v", err)
		}
	}
}

func (a *actor) DataReceived(p []byte) (int, error) {
	if a.made != 1 || a.lost != 0 || a.peerEnded || a.closed || len(p) == 0 {
		a.errorf("DataReceived(%d bytes) at the wrong time", len(p))
	}
	n := len(p)
	if n < 100_000 && a.r.IntN(3) == 0 {
		n = a.r.IntN(n + 1)
	}
	for i, b := range p[:n] {
		if b != rig.Pattern(a.got+i) {
			return 0, fmt.Errorf("byte %d is wrong", a.got+i)
		}
	}
	a.got += n
	if a.r.IntN(20) == 0 {
		a.tr.PauseReading()
		a.resume.Set(time.Duration(a.r.IntN(500)) * time.Microsecond)
	}
	return n, nil
}

func (a *actor) EOFReceived(unused int) (bool, error) {
	if a.peerEnded || a.lost != 0 {
		a.errorf("end at the wrong time")
	}
	if unused > 0 {
		// Whatever is left was declined at random, which is fine.
		a.got += unused
	}
	a.peerEnded = true
	return true, nil
}

func (a *actor) PauseWriting() {
	if a.paused {
		a.errorf("paused twice")
	}
	a.paused = true
}

func (a *actor) ResumeWriting() {
	if !a.paused {
		a.errorf("resumed while not paused")
	}
	a.paused = false
	a.work()
}

func (a *actor) ConnectionLost(err error) {
	a.lost++
	if a.lost != 1 || a.made != 1 {
		a.errorf("ConnectionLost number %d", a.lost)
	}
	a.err = err
	a.resume.Stop()
	a.next.Stop()
	a.done()
}

func (a *actor) ConnectFailed(err *weir.ConnectError) {
	a.errorf("%v", err)
	a.done()
}

// TestRandomStreams runs pairs of actors over every kind of stream: everything
// arrives, whatever the two do.
func TestRandomStreams(t *testing.T) {
	for _, kind := range []string{"tcp", "unix", "pair"} {
		t.Run(kind, func(t *testing.T) {
			for seed := range uint64(20) {
				l := newLoop(t)
				left := 0
				done := func() {
					if left--; left == 0 {
						l.Stop()
					}
				}
				var actors []*actor
				actors1 := func(side string, i uint64) *actor {
					r := rand.New(rand.NewPCG(seed, uint64(len(actors))))
					a := &actor{t: t, name: fmt.Sprintf("seed %d %s %d", seed, side, i), r: r, toSend: r.IntN(1 << r.IntN(22)), done: done}
					actors = append(actors, a)
					left++
					return a
				}
				pairs := uint64(3)
				switch kind {
				case "pair":
					for i := range pairs {
						if _, _, err := l.SocketPair(
							func(weir.Transport) weir.Protocol { return actors1("a", i) },
							func(weir.Transport) weir.Protocol { return actors1("b", i) }); err != nil {
							t.Fatal(err)
						}
					}
				default:
					address := "127.0.0.1:0"
					if kind == "unix" {
						address = fmt.Sprintf("%s/s%d", t.TempDir(), seed)
					}
					ln, err := l.Listen(kind, address, func(weir.Transport) weir.Protocol { return actors1("server", 0) })
					if err != nil {
						t.Fatal(err)
					}
					for i := range pairs {
						l.Connect(kind, ln.Addr().String(), actors1("client", i))
					}
				}
				run(t, l)
				sent, got := 0, 0
				for _, a := range actors {
					if a.err != nil {
						a.errorf("lost: %v", a.err)
					}
					sent, got = sent+a.toSend, got+a.got
				}
				if sent != got || len(actors) != int(2*pairs) {
					t.Errorf("seed %d: %d actors sent %d bytes and got %d", seed, len(actors), sent, got)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}
