package weir

import (
	"errors"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// Splicer is the ability of a transport to pass on what it receives without copying it
// through user space. Find it with As, on the transport itself that is to be spliced:
// do not look for it through a layer that changes bytes.
type Splicer interface {
	// SpliceTo sends everything that comes from now on to dst instead of to the
	// protocol, at dst's pace and after what dst was given to write before. When the
	// stream ends, done gets the number of bytes passed on and nil, and the protocol
	// gets the end of the stream as usual. When either side fails, done gets the
	// failure, and that side is lost with it. done is called once, from the loop. What
	// is written to dst meanwhile is sent after the piece that is on its way.
	// PauseReading suspends the splice, and WriteEOF and Close of dst wait for that
	// piece.
	//
	// ErrNoSplice means that this pair cannot be spliced, and that nothing has changed.
	SpliceTo(dst Transport, done func(n int64, err error)) error
}

// ErrNoSplice is returned by SpliceTo if the backend, the platform or this kind of
// transport cannot splice.
var ErrNoSplice = errors.New("weir: these transports cannot be spliced")

const (
	pipeSize     = 1 << 20 // bytes a splice may have on its way
	pipesKept    = 16      // free pipes a loop keeps
	spliceRounds = 4       // rounds before others get their turn
)

// splice moves bytes from one stream to another through a pipe.
//
//	      readable          SpliceIn Now         SpliceOut
//	wait ─────────▶ borrow ─────────────▶ held ───────────▶ empty ─┐
//	  ▲              pipe                  ▲  └── more left ──┘    │
//	  └───────── give the pipe back ◀──────────────────────────────┘
//
// A pipe is borrowed from the loop only while bytes are in it, so ten thousand idle
// relays hold none.
type splice struct {
	src, dst *socket
	ready    backend.Op // waits for src to be readable
	in, out  backend.Op
	pipe     *kernelPipe
	held     int // bytes in the pipe
	total    int64
	readable bool
	eof      bool
	ended    bool
	done     func(int64, error)
}

var _ backend.Owner = (*splice)(nil)

// kernelPipe is a pipe that bytes pass through.
type kernelPipe struct{ r, w int }

func (s *stream) SpliceTo(dst Transport, done func(int64, error)) error {
	if err := s.loop.check("SpliceTo"); err != nil {
		return err
	}
	k, ok := s.lower.(*socket)
	if !ok {
		return ErrNoSplice
	}
	t, ok := As[*stream](dst)
	if !ok {
		return ErrNoSplice
	}
	d, ok := t.lower.(*socket)
	switch {
	case !ok, d.loop != s.loop, !s.loop.caps.Splice, !k.net.splices(), !d.net.splices(), k.rh == backend.None, d.wh == backend.None:
		return ErrNoSplice
	case s.phase >= phaseClosing, s.flags&fEOF != 0, d.phase != phaseOpen, d.flags&fWriteEOF != 0:
		return ErrClosed
	case k.x.splice != nil, d.x.spliceFrom != nil:
		return ErrSourceRegistered
	}
	if k.blocks(k.rh) || d.blocks(d.wh) || k.receives() || k.x.passes > 0 {
		return ErrNoSplice
	}
	p := &splice{src: k, dst: d, done: done}
	for _, op := range [...]*backend.Op{&p.ready, &p.in, &p.out} {
		op.Owner = p
	}
	k.extra().splice = p
	d.extra().spliceFrom = p
	s.touch()
	d.touch()
	return nil
}

// blocks reports whether h was passed to the process in blocking mode, in which a
// splice could block.
func (k *socket) blocks(h backend.Handle) bool {
	v, err := k.loop.be.GetOption(h, backend.Blocks)
	return err == nil && v != 0
}

// step does what can be done now.
func (p *splice) step() {
	if p.ended {
		return
	}
	s := p.src
	if s.rop.Armed() && s.rop.Kind != backend.Hangup {
		s.loop.be.Cancel(&s.rop)
		if s.rop.Armed() {
			return // its last result calls sync again
		}
	}
	defer p.watch()
	if s.readLater {
		return
	}
	for range spliceRounds {
		if p.ended || p.busy() {
			return
		}
		switch {
		case p.held > 0:
			p.move()
		case p.eof:
			p.end(nil)
			return
		case s.paused() || s.flags&fOffer != 0 || len(s.tail) > 0:
			p.giveBack()
			return
		case p.dst.writing():
			p.giveBack()
			return // its drained buffer calls step again
		case p.readable:
			p.fill()
		default:
			p.giveBack()
			p.submit(&p.ready, backend.Ready, 0, s.rh)
		}
	}
	if !p.ended && !p.busy() {
		s.queue()
	}
}

// watch makes sure that a reset of the source is noticed while nothing is read from it,
// because bytes wait for the destination or reading is paused.
func (p *splice) watch() {
	if s := p.src; !p.ended && !p.ready.Armed() && !p.in.Armed() && !s.rop.Armed() && !s.hungUp && !s.readLater && s.phase == phaseOpen && !s.net.pipe() {
		s.arm(backend.Hangup, 0, nil)
	}
}

func (p *splice) fill() {
	if p.pipe == nil {
		if p.pipe = p.src.loop.borrowPipe(); p.pipe == nil {
			// No descriptor for a pipe: go on by copying.
			p.end(ErrNoSplice)
			return
		}
	}
	p.in.Peer = backend.Handle(p.pipe.w)
	p.in.Max = pipeSize
	p.submit(&p.in, backend.SpliceIn, backend.Now, p.src.rh)
}

func (p *splice) move() {
	p.dst.spliceOut = true
	p.out.Peer = backend.Handle(p.pipe.r)
	p.out.Max = int32(p.held)
	p.submit(&p.out, backend.SpliceOut, 0, p.dst.wh)
	if p.out.Armed() {
		p.dst.touch() // something waits: see recount
	}
}

func (p *splice) submit(op *backend.Op, k backend.Kind, f backend.Flags, h backend.Handle) {
	op.Kind, op.Flags, op.Handle, op.Events = k, f, h, backend.Readable
	if c, ok := p.src.loop.submit(op); ok {
		p.result(&c)
	}
}

func (p *splice) OpDone(c *backend.Completion) {
	p.result(c)
	p.src.sync()
	p.dst.sync()
}

func (p *splice) result(c *backend.Completion) {
	if p.ended {
		if !p.busy() {
			p.release()
		}
		return
	}
	again := c.Err == backend.ErrAgain || c.Err == backend.ErrCanceled
	switch {
	case c.Op == &p.ready:
		p.readable = !again
	case c.Op == &p.in && again:
		p.readable = false
	case c.Op == &p.in && c.Err != nil:
		p.src.lose(p.src.opError("splice", c.Err))
	case c.Op == &p.in && c.N == 0:
		p.eof = true
	case c.Op == &p.in:
		p.held = c.N
		if t := p.src.tie; t != nil {
			t.came(c.N)
		}
		p.src.x.idle.movedThen(DirectionRead)
		p.readable = c.N >= pipeSize/16 // otherwise that was most likely everything
	case again:
	case c.Err != nil:
		// What the destination had sent is still to be delivered.
		d := p.dst
		reason := d.opError("splice", c.Err)
		p.end(reason)
		d.writeFailed(reason)
	default:
		p.held -= c.N
		if t := p.dst.tie; t != nil {
			t.left(c.N)
			t.moved = p.src.loop.now
		}
		p.dst.x.idle.movedThen(DirectionWrite)
		p.total += int64(c.N)
		if p.held <= 0 {
			p.dst.spliceOut = false
			p.dst.touch()
		}
	}
}

func (p *splice) busy() bool { return p.ready.Armed() || p.in.Armed() || p.out.Armed() }

// end reports the result. The ops may still be in flight.
func (p *splice) end(err error) {
	if p.ended {
		return
	}
	p.ended = true
	l := p.src.loop
	for _, op := range [...]*backend.Op{&p.ready, &p.in, &p.out} {
		if op.Armed() {
			l.be.Cancel(op)
		}
	}
	if !p.busy() {
		p.release()
	}
	done, total := p.done, p.total
	l.internalCall(func() { done(total, err) })
}

// release frees both streams and the pipe.
func (p *splice) release() {
	if p.src.x.splice == p {
		p.src.extra().splice = nil
		p.dst.extra().spliceFrom = nil
		p.dst.spliceOut = false
		p.closePipe()
		if p.eof && p.src.phase < phaseClosing {
			if p.src.phase == phaseBroken {
				p.src.lose(p.src.reason()) // the hang-up consumed the system's only report of it
				return
			}
			p.src.flags |= fEOF
			p.src.queue()
		}
		p.src.touch()
		p.dst.touch()
	}
}

func (p *splice) giveBack() {
	if p.pipe != nil && p.held == 0 {
		p.src.loop.returnPipe(p.pipe)
		p.pipe = nil
	}
}

// closePipe drops the pipe; one that still holds bytes is not used again.
func (p *splice) closePipe() {
	if p.pipe == nil {
		return
	}
	if p.held == 0 {
		p.giveBack()
		return
	}
	sys.CloseAll(p.pipe.r, p.pipe.w)
	p.pipe = nil
}

// borrowPipe returns an empty pipe, or nil if there is no descriptor for one.
func (l *Loop) borrowPipe() *kernelPipe {
	if n := len(l.pipes); n > 0 {
		p := l.pipes[n-1]
		l.pipes = l.pipes[:n-1]
		return p
	}
	r, w, err := sys.SplicePipe(pipeSize)
	if err != nil {
		return nil
	}
	return &kernelPipe{r, w}
}

func (l *Loop) returnPipe(p *kernelPipe) {
	if len(l.pipes) < pipesKept {
		l.pipes = append(l.pipes, p)
		return
	}
	sys.CloseAll(p.r, p.w)
}

// closePipes releases the free pipes.
func (l *Loop) closePipes() {
	for _, p := range l.pipes {
		sys.CloseAll(p.r, p.w)
	}
	l.pipes = nil
}

// Forwarder is the ability of a transport to send, without a copy, bytes that were lent
// to another transport's protocol. Find it with a type assertion on the transport
// itself, not with As: a Forwarder found below a transport that changes bytes would
// send them unchanged.
type Forwarder interface {
	// Forward is Write for p, which is all or part of the bytes that a DataReceived was
	// lent. No one may change those bytes any more: neither the caller nor anyone they
	// are lent to next. If a layer delivers many pieces at once (Feed.DeliverMany),
	// what is forwarded of them is sent together, when the last one has been delivered.
	// Until then it counts as buffered, and PauseWriting may come as late as that.
	Forward(p []byte) (int, error)
}

// gather holds what was forwarded of the pieces that a layer is delivering. Their
// memory does not change until all are delivered, so that they can be sent in one write
// without a copy.
type gather struct {
	on  bool  // a layer is delivering
	end *byte // the last byte of the piece lent to the protocol
	to  *stream
	vec [][]byte
	n   int // bytes in vec
}

// gatherMax is how many bytes may wait for the last piece.
const gatherMax = 256 << 10

// takes reports whether p, forwarded to s, may wait for the last piece.
func (g *gather) takes(s *stream, p []byte) bool {
	switch {
	case len(p) == 0 || !g.on || lastByte(p) != g.end:
		return false
	case !s.loop.caps.Inline || s.out != nil:
		return false // it would be buffered
	}
	if k, ok := s.lower.(*socket); !ok || k.spliceOut {
		return false // a carrier gets it at once, or it would be buffered
	}
	if g.to == nil {
		return len(p) >= directMin
	}
	return g.to == s && len(g.vec) < vecMax && g.n+len(p) <= gatherMax
}

// lastByte is the last byte of the memory that p is part of; nil if p has none.
func lastByte(p []byte) *byte {
	if cap(p) == 0 {
		return nil
	}
	return &p[:cap(p)][cap(p)-1]
}

func (s *stream) Forward(p []byte) (int, error) {
	if err := s.writable("Forward"); err != nil {
		return 0, err
	}
	if g := &s.loop.gather; g.takes(s, p) {
		g.to = s
		g.vec = append(g.vec, p)
		g.n += len(p)
		s.x.idle.movedNow(DirectionWrite)
	} else {
		s.send(p)
	}
	return len(p), nil
}

// sendGathered sends as much as the system takes of what was forwarded to s and not yet
// sent, and buffers the rest. It makes no callbacks: the caller has to call overflow.
func (s *stream) sendGathered() {
	g := &s.loop.gather
	if g.to != s {
		return
	}
	sent := s.lower.(*socket).direct(g.vec) //nolint:forcetypeassert // takes has checked it
	for _, p := range g.vec {
		k := min(sent, len(p))
		sent -= k
		if k < len(p) {
			s.buffer(p[k:])
		}
	}
	g.drop()
	if s.out == nil {
		s.drainLater()
	}
}

// drop forgets what was forwarded.
func (g *gather) drop() {
	clear(g.vec)
	g.to, g.vec, g.n = nil, g.vec[:0], 0
}

// DeliverMany is Deliver for many pieces: the protocol gets one DataReceived for each.
// Whatever it forwards of them is sent together. Their memory must not change until
// DeliverMany returns.
func (f *Feed) DeliverMany(pieces [][]byte) {
	g := &f.k.loop.gather
	mine := !g.on && len(pieces) > 1
	g.on = g.on || mine
	for _, p := range pieces {
		p = p[:len(p):len(p)] // appending to one must not change the next
		if mine {
			g.end = lastByte(p)
		}
		f.Deliver(p)
	}
	if !mine {
		return
	}
	g.on, g.end = false, nil
	if s := g.to; s != nil {
		s.sendGathered()
		s.overflow()
	}
}
