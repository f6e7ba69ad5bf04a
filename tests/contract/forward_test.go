package contract

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// handsOn is a protocol that a layer delivers to; the test decides what it does
// with each piece.
type handsOn struct {
	t    weir.Transport
	data func(i int, p []byte)
	n    int
}

func (h *handsOn) ConnectionMade(t weir.Transport) { h.t = t }
func (h *handsOn) DataReceived(p []byte) (int, error) {
	h.n++
	h.data(h.n-1, p)
	return len(p), nil
}
func (h *handsOn) ConnectionLost(error) {}

// sinkProto takes everything, and notes the end.
type sinkProto struct {
	t       weir.Transport
	got     []byte
	ended   bool
	lost    bool
	err     error
	pauses  int
	onPause func()
	resumes int
}

func (s *sinkProto) ConnectionMade(t weir.Transport) { s.t = t }
func (s *sinkProto) DataReceived(p []byte) (int, error) {
	s.got = append(s.got, p...)
	return len(p), nil
}

func (s *sinkProto) EOFReceived(int) (bool, error) {
	s.ended = true
	return true, nil
}

func (s *sinkProto) ConnectionLost(err error) { s.lost, s.err = true, err }
func (s *sinkProto) PauseWriting() {
	if s.pauses++; s.onPause != nil {
		s.onPause()
	}
}
func (s *sinkProto) ResumeWriting() { s.resumes++ }

// idleCarrier moves nothing.
type idleCarrier struct{ f *weir.Feed }

func (c *idleCarrier) Write(bufs [][]byte) (n int, err error) {
	for _, b := range bufs {
		n += len(b)
	}
	return n, nil
}
func (c *idleCarrier) CloseWrite() error   { return nil }
func (c *idleCarrier) CanCloseWrite() bool { return true }
func (c *idleCarrier) PauseReading()       {}
func (c *idleCarrier) ResumeReading()      {}
func (c *idleCarrier) Close(bool)          { c.f.Closed(nil) }

// forwardRig has a layer that delivers, and two connections to forward to.
type forwardRig struct {
	*testing.T
	l       *weir.Loop
	step    func(cond func() bool)
	feed    *weir.Feed
	up      handsOn
	out, in [2]*sinkProto // the near and the far ends of the connections
	sent    [2][]byte     // what the far ends must get
	mem     []byte
}

func (r *forwardRig) dst(i int) forwarder { return r.out[i].t.(forwarder) }

type forwarder interface {
	weir.Transport
	weir.Forwarder
}

// forward forwards p to connection i.
func (r *forwardRig) forward(i int, p []byte) {
	r.Helper()
	r.sent[i] = append(r.sent[i], p...) // before anything that PauseWriting may write
	if n, err := r.dst(i).Forward(p); n != len(p) || err != nil {
		r.Fatalf("Forward: %d, %v", n, err)
	}
}

// write writes p to connection 0.
func (r *forwardRig) write(p string) {
	r.Helper()
	r.sent[0] = append(r.sent[0], p...)
	if _, err := r.dst(0).Write([]byte(p)); err != nil {
		r.Fatal(err)
	}
}

// marks sets the marks of connection 0 to n.
func (r *forwardRig) marks(n int) {
	r.Helper()
	if err := r.dst(0).SetWriteMarks(n, n); err != nil {
		r.Fatal(err)
	}
}

// deliver delivers pieces of those sizes, and overwrites their memory afterwards.
func (r *forwardRig) deliver(sizes ...int) {
	total := 0
	for _, n := range sizes {
		total += n
	}
	r.mem = make([]byte, total+100)
	for i := range r.mem {
		r.mem[i] = byte(i>>10 + i)
	}
	free := r.mem
	var pieces [][]byte
	for _, n := range sizes {
		pieces = append(pieces, free[:n])
		free = free[n:]
	}
	done := false
	r.l.Soon(func() {
		r.feed.DeliverMany(pieces)
		clear(r.mem)
		done = true
	})
	r.step(func() bool { return done })
}

// arrived waits until the far ends have everything that was sent.
func (r *forwardRig) arrived() {
	r.Helper()
	r.step(func() bool { return len(r.in[0].got) >= len(r.sent[0]) && len(r.in[1].got) >= len(r.sent[1]) })
	for i := range r.in {
		if !bytes.Equal(r.in[i].got, r.sent[i]) {
			r.Errorf("connection %d: %d bytes sent, %d came, others", i, len(r.sent[i]), len(r.in[i].got))
		}
	}
}

const (
	whole = 16 << 10
	four  = 4 * whole
)

// forwardCases are what can happen to forwarded bytes (R6, R29).
var forwardCases = map[string]func(r *forwardRig){
	"all of four": func(r *forwardRig) {
		r.up.data = func(_ int, p []byte) { r.forward(0, p) }
		r.deliver(whole, whole, whole, whole)
	},
	"a writing between": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) {
			r.forward(0, p)
			if i == 1 {
				r.write("between")
			}
		}
		r.deliver(whole, whole, whole, whole)
	},
	"several pieces between": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) {
			r.forward(0, p)
			if i == 2 {
				if _, err := r.dst(0).Writev([][]byte{[]byte("one"), []byte("two")}); err != nil {
					r.Fatal(err)
				}
				r.sent[0] = append(r.sent[0], "onetwo"...)
			}
		}
		r.deliver(whole, whole, whole, whole)
	},
	"a writing before": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) {
			if i == 0 {
				r.write("before")
			}
			r.forward(0, p)
		}
		r.deliver(whole, whole)
	},
	"to two": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) { r.forward(i%2, p) }
		r.deliver(whole, whole, whole, whole, whole)
	},
	"to both": func(r *forwardRig) {
		r.up.data = func(_ int, p []byte) {
			r.forward(0, p)
			r.forward(1, p)
		}
		r.deliver(whole, whole, whole)
	},
	"small ones": func(r *forwardRig) {
		r.up.data = func(_ int, p []byte) { r.forward(0, p) }
		r.deliver(slices.Repeat([]int{100}, 200)...)
	},
	"small ones after a large": func(r *forwardRig) {
		r.up.data = func(_ int, p []byte) { r.forward(0, p) }
		r.deliver(append([]int{whole}, slices.Repeat([]int{100}, 200)...)...)
	},
	"parts of it": func(r *forwardRig) {
		r.up.data = func(_ int, p []byte) {
			r.forward(0, p[:len(p)/2])
			r.forward(0, p[len(p)/2:])
		}
		r.deliver(2*whole, 2*whole, 2*whole)
	},
	"who appends to what is lent": func(r *forwardRig) {
		r.up.data = func(_ int, p []byte) {
			r.forward(0, p)
			_ = append(p, "of another"...)
		}
		r.deliver(whole, whole, whole)
		for i, b := range r.sent[0] {
			if b != byte(i>>10+i) {
				r.Fatalf("byte %d of what was delivered was changed", i)
			}
		}
	},
	"a pause that is told within a write": func(r *forwardRig) {
		r.in[0].t.PauseReading()
		r.marks(0)
		r.out[0].onPause = func() { r.write("paused") }
		r.up.data = func(i int, p []byte) {
			if i%8 < 7 {
				r.forward(0, p)
			} else {
				r.write("behind")
			}
		}
		for r.out[0].pauses == 0 {
			r.deliver(four, four, four, four, four, four, four, 100)
		}
		r.in[0].t.ResumeReading()
	},
	"an abort in a pause": func(r *forwardRig) {
		r.in[0].t.PauseReading()
		r.marks(0)
		r.out[0].onPause = func() { r.dst(0).Abort() }
		r.up.data = func(i int, p []byte) {
			if i%8 < 7 {
				_, _ = r.dst(0).Forward(p)
			} else {
				_, _ = r.dst(0).Write([]byte("behind"))
			}
		}
		for r.out[0].pauses == 0 {
			r.deliver(four, four, four, four, four, four, four, 100)
		}
		r.step(func() bool { return r.out[0].lost })
		if n := r.dst(0).Buffered(); n > 0 {
			r.Errorf("%d bytes stay with a transport that is lost", n)
		}
		r.in[0].got = nil
	},
	"more than may wait": func(r *forwardRig) {
		r.in[0].t.PauseReading()
		r.marks(0)
		most := 0
		r.up.data = func(_ int, p []byte) {
			for range 63 {
				r.forward(0, p)
				if r.out[0].pauses == 0 {
					most = max(most, r.dst(0).Buffered())
				}
			}
		}
		for r.out[0].pauses == 0 {
			r.deliver(four, 100)
		}
		if most > 4*four {
			r.Errorf("%d bytes waited, and nobody heard of a pause", most)
		}
		r.in[0].t.ResumeReading()
	},
	"who appends to a part of one": func(r *forwardRig) {
		got := []byte(nil)
		r.up.data = func(_ int, p []byte) {
			got = append(got, p...)
			_ = append(p, "of another"...)
		}
		r.deliver(four+four, 1) // comes in more calls than pieces
		for i, b := range got {
			if b != byte(i>>10+i) {
				r.Fatalf("byte %d of what was delivered was changed", i)
			}
		}
		if r.up.n != 3 {
			r.Errorf("%d calls", r.up.n)
		}
	},
	"memory of others": func(r *forwardRig) {
		own := make([]byte, whole)
		r.up.data = func(i int, _ []byte) {
			for k := range own {
				own[k] = byte(i)
			}
			r.forward(0, own)
		}
		r.deliver(whole, whole, whole)
	},
	"what is buffered": func(r *forwardRig) {
		r.up.data = func(_ int, p []byte) {
			before := r.dst(0).Buffered()
			r.forward(0, p)
			if n := r.dst(0).Buffered(); n != before+len(p) {
				r.Errorf("Buffered: %d after %d and %d more", n, before, len(p))
			}
		}
		r.deliver(whole, whole)
	},
	"the end": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) {
			r.forward(0, p)
			if i == 1 {
				if err := r.dst(0).WriteEOF(); err != nil {
					r.Fatal(err)
				}
				if _, err := r.dst(0).Forward(p); !errors.Is(err, weir.ErrWriteAfterEOF) {
					r.Errorf("Forward after WriteEOF: %v", err)
				}
			}
		}
		r.deliver(whole, whole)
		r.step(func() bool { return r.in[0].ended })
	},
	"a close": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) {
			r.forward(0, p)
			if i == 1 {
				_ = r.dst(0).Close()
				if _, err := r.dst(0).Forward(p); !errors.Is(err, weir.ErrClosed) {
					r.Errorf("Forward after Close: %v", err)
				}
			}
		}
		r.deliver(whole, whole)
		r.step(func() bool { return r.in[0].ended && r.out[0].lost })
		if r.out[0].err != nil {
			r.Error(r.out[0].err)
		}
	},
	"an abort": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) {
			if i == 2 {
				r.dst(0).Abort()
				return
			}
			_, _ = r.dst(0).Forward(p)
		}
		r.deliver(whole, whole, whole)
		r.step(func() bool { return r.in[0].lost && r.out[0].lost })
		if r.in[0].err == nil || !errors.Is(r.out[0].err, weir.ErrAborted) {
			r.Errorf("the ends heard %v and %v", r.in[0].err, r.out[0].err)
		}
		if n := len(r.in[0].got); n > 0 {
			r.Errorf("%d bytes left after an abort", n)
		}
	},
	"a panic": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) {
			r.forward(0, p)
			if i == 1 {
				panic("of the protocol")
			}
		}
		r.deliver(whole, whole, whole)
	},
	"a producer": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) {
			r.forward(0, p)
			if i == 1 {
				if err := r.dst(0).RegisterProducer(&oneShot{t: r.dst(0)}); err != nil {
					r.Fatal(err)
				}
				r.sent[0] = append(r.sent[0], "produced"...)
			}
		}
		r.deliver(whole, whole)
	},
	"a peer that does not read": func(r *forwardRig) {
		r.in[0].t.PauseReading()
		r.up.data = func(_ int, p []byte) { r.forward(0, p) }
		for r.out[0].pauses == 0 {
			r.deliver(four, four, four, four)
		}
		if n := r.dst(0).Buffered(); n > 16*whole+64<<10 {
			r.Errorf("paused with %d bytes buffered", n)
		}
		r.in[0].t.ResumeReading()
		r.step(func() bool { return r.out[0].resumes == 1 })
	},
	"marks": func(r *forwardRig) {
		r.up.data = func(i int, p []byte) {
			r.forward(0, p)
			if i == 1 {
				if err := r.dst(0).SetWriteMarks(0, 0); err != nil {
					r.Fatal(err)
				}
			}
		}
		r.deliver(whole, whole, whole)
	},
}

// oneShot is a pull producer of one piece.
type oneShot struct{ t weir.Transport }

func (p *oneShot) Streaming() bool { return false }
func (p *oneShot) ResumeProducing() {
	_, _ = p.t.Write([]byte("produced"))
	p.t.UnregisterProducer()
}
func (p *oneShot) PauseProducing() {}
func (p *oneShot) StopProducing()  {}

// connect gives the rig its connections and its layer.
func (r *forwardRig) connect(listen, dial *weir.Loop, at, to string) {
	r.Helper()
	k := 0
	ln, err := listen.Listen("tcp", at, func(weir.Transport) weir.Protocol {
		r.in[k] = &sinkProto{}
		k++
		return r.in[k-1]
	})
	if err != nil {
		r.Fatal(err)
	}
	if to == "" {
		to = ln.Addr().String()
	}
	for i := range r.out {
		r.out[i] = &sinkProto{}
		dial.Connect("tcp", to, r.out[i])
		r.step(func() bool { return r.out[i].t != nil && r.in[i] != nil && r.in[i].t != nil })
	}
	c := &idleCarrier{}
	if r.feed, err = dial.Carry(c); err != nil {
		r.Fatal(err)
	}
	c.f = r.feed
	r.feed.Begin(func(weir.Transport) weir.Protocol { return &r.up })
}

// TestForward: forwarded bytes arrive complete, in order, whatever happens in
// between, and nothing needs their memory afterwards.
func TestForward(t *testing.T) {
	for _, name := range []string{"epoll", "epoll-et", "uring", "portable"} {
		for what, f := range forwardCases {
			t.Run(name+"/"+what, func(t *testing.T) {
				l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(error) {}))
				if err != nil {
					t.Skip(err)
				}
				defer l.Close()
				r := &forwardRig{T: t, l: l}
				r.step = func(cond func() bool) {
					t.Helper()
					weirtest.Until(t, l, "what is waited for", cond)
				}
				r.connect(l, l, "127.0.0.1:0", "")
				f(r)
				r.arrived()
			})
		}
	}
}

// TestForwardSim is TestForward with writes cut short, deferred and refused.
func TestForwardSim(t *testing.T) {
	seeds := uint64(100)
	if testing.Short() {
		seeds = 5
	}
	for what, f := range forwardCases {
		t.Run(what, func(t *testing.T) {
			for seed := range seeds {
				s := weirtest.NewSim(t, seed+1, weirtest.WithFaults(weirtest.Faults{
					CutRead: 0.2, CutWrite: 0.3, CutWire: 0.3, Again: 0.2, Defer: 0.2, Shuffle: true, NoInline: seed%4 == 3,
				}))
				here, there := s.Host("here").Loop(), s.Host("there").Loop()
				r := &forwardRig{T: t, l: here, step: func(cond func() bool) {
					t.Helper()
					s.Until("what is waited for", cond)
				}}
				r.connect(there, here, ":7000", "there:7000")
				f(r)
				r.arrived()
				if t.Failed() {
					return
				}
				s.Close()
			}
		})
	}
}
