package epoll

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// A script is a list of bytes that says what happens to a few connections. It
// is played on a backend of each style and checked against a model of what a
// stream is: every byte once, in order, an end only after the last of them, and
// nothing for an Op that is not armed. Scripts that never fill a buffer must
// give the same trace in both styles, step by step (R2).

// FuzzStyles (best run with -fuzzminimizetime 1x, as the kernel's timing makes coverage differ from
// run to run) plays any script: on Unix sockets with small writes for the trace, and on TCP with
// large ones for the model.
func FuzzStyles(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(script(seed, 120))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 2000 {
			t.Skip("too long to be looked at")
		}
		playBoth(t, script)
	})
}

// TestRandomScripts plays scripts from seeds; a failure names the seed.
func TestRandomScripts(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { playBoth(t, script(seed, 400)) })
		if t.Failed() {
			return
		}
	}
}

func script(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func playBoth(t *testing.T, script []byte) {
	t.Helper()
	var traces [2][]string
	for i, style := range styles {
		w := newWorld(t, style.edge, false)
		w.play(script)
		traces[i] = w.trace
		newWorld(t, style.edge, true).play(script)
	}
	if !slices.Equal(traces[0], traces[1]) {
		for i := range traces[0] {
			if traces[0][i] != traces[1][i] {
				t.Fatalf("step %d differs:\nlevel %s\nedge  %s", i, traces[0][i], traces[1][i])
			}
		}
	}
}

// world is the model next to the backend.
type world struct {
	t      *testing.T
	b      *Backend
	tcp    bool // on TCP, with large writes; else on Unix sockets, with small ones
	l      backend.Handle
	addr   backend.Addr
	ops    [2]backend.Op // a connect and its accept
	dialed [2]backend.Handle
	pairs  [3][2]*side
	ids    uint32
	done   []backend.Completion
	step   int
	trace  []string
	want   []byte // a buffer
}

// side is one end of a connection and what it has been through.
type side struct {
	w              *world
	id             uint32
	h              backend.Handle
	peer           *side
	rd, wr, hup    backend.Op
	ready          backend.Op
	sent, got      int // bytes written, as reported; bytes read
	writes         int // since the peer last read
	ended, closed  bool
	shut           bool // for writing
	lossy          bool // what the peer sends may be lost
	fired, hungUp  bool
	events         string // since the step began
	block, readBuf []byte
}

// OpDone makes a side an owner of its Ops.
func (*side) OpDone(*backend.Completion) {}

func newWorld(t *testing.T, edge, tcp bool) *world {
	t.Helper()
	w := &world{t: t, b: open(t, edge), tcp: tcp, done: make([]backend.Completion, 5)}
	t.Cleanup(func() { w.b.Close() })
	if tcp {
		w.l, w.addr = listenTCP(t, w.b)
	}
	for i := range w.pairs {
		w.connect(i)
	}
	return w
}

func (w *world) connect(i int) {
	w.t.Helper()
	var h [2]backend.Handle
	if w.tcp {
		h[0], h[1] = w.dial()
	} else {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		h[0], h[1] = adopt(w.t, w.b, p[0]), adopt(w.t, w.b, p[1])
	}
	for k := range h {
		w.ids++
		s := &side{w: w, id: w.ids, h: h[k], readBuf: make([]byte, 700)}
		s.rd = backend.Op{Kind: backend.Read, Handle: s.h, Owner: s}
		s.wr = backend.Op{Kind: backend.Write, Handle: s.h, Owner: s}
		s.hup = backend.Op{Kind: backend.Hangup, Handle: s.h, Owner: s}
		s.ready = backend.Op{Kind: backend.Ready, Handle: s.h, Owner: s}
		w.pairs[i][k] = s
	}
	w.pairs[i][0].peer, w.pairs[i][1].peer = w.pairs[i][1], w.pairs[i][0]
}

// dial makes a TCP connection while the others go on.
func (w *world) dial() (c, s backend.Handle) {
	w.t.Helper()
	c, err := w.b.Open(&backend.Spec{Family: backend.Inet})
	if err != nil {
		w.t.Fatal(err)
	}
	w.dialed = [2]backend.Handle{backend.None, backend.None}
	w.ops[0] = backend.Op{Kind: backend.Connect, Handle: c, Addr: &w.addr}
	w.ops[1] = backend.Op{Kind: backend.Accept, Handle: w.l}
	for i := range w.ops {
		var done backend.Completion
		if w.b.Submit(&w.ops[i], &done) {
			w.result(&done)
		}
	}
	for start := time.Now(); w.ops[0].Armed() || w.ops[1].Armed(); {
		w.wait(time.Second)
		if time.Since(start) > 30*time.Second {
			w.t.Fatalf("step %d: no connection", w.step)
		}
	}
	return c, w.dialed[1]
}

// stream appends to p the n bytes that a side sends from offset i on. They repeat with
// a period that no read's length has, so that a lost read shows.
func (s *side) stream(p []byte, i, n int) []byte {
	for n > 0 {
		at := (i + int(s.id)*7919) % noisePeriod
		k := min(n, noisePeriod-at)
		p = append(p, noise[at:at+k]...)
		i, n = i+k, n-k
	}
	return p
}

const noisePeriod = 65521

// noise is noisePeriod random bytes.
var noise = script(1, noisePeriod)

func (w *world) play(script []byte) {
	w.t.Helper()
	for len(script) >= 2 {
		w.step++
		what, arg := script[0], int(script[1])
		script = script[2:]
		i := int(what>>4) % len(w.pairs)
		s := w.pairs[i][int(what>>3)&1]
		w.act(i, s, int(what&7), arg)
		w.record()
	}
	w.finish()
}

// act does one step. Steps that make no sense for the state do nothing.
func (w *world) act(i int, s *side, what, arg int) {
	switch {
	case s.closed && s.peer.closed:
		w.connect(i)
	case s.closed:
	case what <= 1:
		w.write(s, arg)
	case what == 2:
		w.read(s, arg)
	case what == 3:
		w.cancel(s, arg)
	case what == 4:
		if !s.hup.Armed() && !s.hungUp {
			w.submit(&s.hup)
		}
	case what == 5 && arg < 60:
		if !s.ready.Armed() {
			s.ready.Flags = backend.Flags(arg & int(backend.Multi))
			s.ready.Events = backend.Events(arg>>1) & (backend.Readable | backend.Writable)
			w.submit(&s.ready)
		}
	case what == 6 && arg < 50:
		w.shut(s, arg)
	}
	if arg%5 == 0 {
		w.wait(0) // just one, so that results are left over
	}
	if w.tcp && arg%3 != 0 {
		return
	}
	for range 8 {
		w.wait(0)
	}
}

func (w *world) submit(op *backend.Op) {
	var c backend.Completion
	if w.b.Submit(op, &c) {
		w.result(&c)
	}
}

func (w *world) write(s *side, arg int) {
	if s.wr.Armed() || !w.tcp && s.writes >= 40 {
		return
	}
	n := arg * 3
	if w.tcp {
		n = arg * 1500
	}
	s.writes++
	s.block = s.stream(s.block[:0], s.sent, n)
	s.wr.Flags = 0
	if arg%7 == 0 {
		s.wr.Flags = backend.Now
	}
	k := n / 3
	s.wr.Vec = [][]byte{s.block[:k], nil, s.block[k:]}
	w.submit(&s.wr)
}

func (w *world) read(s *side, arg int) {
	if s.rd.Armed() || s.ended {
		return
	}
	s.rd.Flags, s.rd.Buf = 0, nil
	switch arg % 4 {
	case 0, 1:
		s.rd.Flags = backend.Multi
	case 2:
		s.rd.Flags = backend.Now
	}
	if arg%4 >= 2 && arg&16 != 0 {
		s.rd.Buf = s.readBuf[:1+arg]
	}
	w.submit(&s.rd)
}

func (w *world) cancel(s *side, arg int) {
	op := [...]*backend.Op{&s.rd, &s.rd, &s.wr, &s.hup, &s.ready}[arg%5]
	if armed := op.Armed(); w.b.Cancel(op) != armed || op.Armed() {
		w.t.Fatalf("step %d: Cancel of an Op that was armed: %t", w.step, armed)
	}
}

// shut ends s in one of the ways.
func (w *world) shut(s *side, arg int) {
	how := backend.ShutWrite
	switch {
	case arg < 10:
		how = backend.CloseFlat
	case arg < 20:
		how = backend.CloseReset
	}
	if s.wr.Armed() || how == backend.ShutWrite && s.shut {
		return
	}
	if how == backend.ShutWrite {
		// After a reset there is nothing left to shut.
		if err := w.b.Shut(s.h, how); err != nil && !s.peer.closed {
			w.t.Fatalf("step %d: ShutWrite: %v", w.step, err)
		}
		s.shut = true
		return
	}
	for _, op := range []*backend.Op{&s.rd, &s.hup, &s.ready} {
		w.b.Cancel(op)
	}
	// Closing with bytes unread resets, on TCP and on Unix sockets alike.
	if how == backend.CloseReset || s.got < s.peer.sent || s.peer.wr.Armed() || !s.peer.shut {
		s.peer.lossy = true
	}
	s.closed, s.shut = true, true
	if err := w.b.Shut(s.h, how); err != nil {
		w.t.Fatalf("step %d: close: %v", w.step, err)
	}
}

func (w *world) wait(timeout time.Duration) int {
	n, err := w.b.Wait(timeout, w.done)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range w.done[:n] {
		w.result(&w.done[i])
	}
	return n
}

// result checks a result against the model.
func (w *world) result(c *backend.Completion) {
	for i := range w.ops {
		if c.Op == &w.ops[i] {
			if c.Err != nil {
				w.t.Fatalf("step %d: connecting: %v", w.step, c.Err)
			}
			w.dialed[i] = backend.Handle(c.N)
			return
		}
	}
	s := c.Op.Owner.(*side)
	bad := func(format string, args ...any) {
		w.t.Helper()
		w.t.Fatalf("step %d, side %d: %s (kind %d, %d, %v, more %t; %d sent, %d read of %d)",
			w.step, s.id, fmt.Sprintf(format, args...), c.Op.Kind, c.N, c.Err, c.More, s.sent, s.got, s.peer.sent)
	}
	if s.closed {
		bad("a result after close")
	}
	if c.More != c.Op.Armed() {
		bad("More and Armed differ")
	}
	p := s.peer
	switch c.Op {
	case &s.rd:
		switch {
		case errors.Is(c.Err, backend.ErrAgain):
			if s.rd.Flags != backend.Now {
				bad("ErrAgain without Now")
			}
		case c.Err != nil:
			if !p.closed {
				bad("an error from nowhere")
			}
			s.ended = true
			s.events += fmt.Sprintf(" error(%v)", c.Err)
		case c.N == 0:
			if !p.shut || s.got != p.sent && !s.lossy {
				bad("an early end: %d of %d bytes", s.got, p.sent)
			}
			s.ended = true
			s.events += " end"
		default:
			limit := p.sent
			if p.wr.Armed() || w.tcp {
				limit += len(p.block) // its result may come later
			}
			if len(c.Buf) != c.N || s.got+c.N > limit {
				bad("%d bytes too many", s.got+c.N-limit)
			}
			if w.want = p.stream(w.want[:0], s.got, c.N); !bytes.Equal(c.Buf, w.want) {
				bad("wrong bytes from %d on", s.got)
			}
			s.got += c.N
			p.writes = 0
		}
	case &s.wr:
		switch {
		case errors.Is(c.Err, backend.ErrAgain):
			if s.wr.Flags != backend.Now {
				bad("ErrAgain without Now")
			}
		case c.Err != nil:
			if !s.shut && !p.closed {
				bad("an error from nowhere")
			}
			s.events += fmt.Sprintf(" unwritten(%v)", c.Err)
		case c.N < 0 || c.N > len(s.block) || c.N == 0 && len(s.block) > 0:
			bad("a count out of range")
		default:
			s.sent += c.N
		}
	case &s.hup:
		if !p.closed && !(s.shut && p.shut) {
			bad("a hang-up from nowhere")
		}
		s.hungUp = true
		s.events += " hang-up"
	case &s.ready:
		e := backend.Events(c.N)
		if e&^(s.ready.Events|backend.Failed) != 0 || e == 0 {
			bad("events that were not asked for")
		}
		if e&backend.Readable != 0 && s.got == p.sent && !p.shut && !p.closed && !p.wr.Armed() {
			bad("readable without anything to read")
		}
		s.fired = true
	}
}

// record adds what a step did to the trace. On TCP the kernel chooses the moment when
// something happens.
func (w *world) record() {
	line := fmt.Sprint(w.step)
	for i := range w.pairs {
		for _, s := range w.pairs[i] {
			line += fmt.Sprintf(" [%d: %d/%d%s ready=%t]", s.id, s.got, s.peer.sent, s.events, s.fired)
			s.events, s.fired = "", false
			if !w.tcp && !s.closed && s.rd.Armed() && s.got < s.peer.sent {
				w.t.Fatalf("step %d: side %d waits for bytes that are there (%d of %d)", w.step, s.id, s.got, s.peer.sent)
			}
		}
	}
	w.trace = append(w.trace, line)
}

// finish reads everything that must still arrive.
func (w *world) finish() {
	w.t.Helper()
	start := time.Now()
	for i := range w.pairs {
		for _, s := range w.pairs[i] {
			w.b.Cancel(&s.ready)
			if s.closed {
				continue
			}
			for !s.lossy && (s.got < s.peer.sent || s.peer.wr.Armed() || s.peer.shut && !s.ended) {
				if !s.rd.Armed() && !s.ended {
					s.rd.Flags, s.rd.Buf = backend.Multi, nil
					w.submit(&s.rd)
				}
				w.wait(50 * time.Millisecond)
				if time.Since(start) > 30*time.Second {
					w.t.Fatalf("side %d got %d of %d bytes, end %t of %t, and no more comes", s.id, s.got, s.peer.sent, s.ended, s.peer.shut)
				}
			}
		}
	}
}
