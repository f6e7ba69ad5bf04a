package weir

import (
	"errors"

	"github.com/weir-io/weir/internal/backend"
)

// Splicer is the ability of a transport to pass on what it receives without
// copying it through user space. Find it with As on the very transport; a layer
// that changes bytes must not be looked through for it.
type Splicer interface {
	// SpliceTo sends everything that comes from now on to dst instead of the
	// protocol, at dst's pace, behind what dst has been given to write before.
	// It ends with the stream: then done gets the number of bytes passed on and
	// nil, and the protocol the end of the stream as usual; or with a failure of
	// either side: then done gets it, and that side is lost with it. done is
	// called once, from the loop. What is written to dst meanwhile queues
	// behind the piece that is on its way. PauseReading holds the splice, and
	// WriteEOF and Close of dst wait for that piece.
	//
	// ErrNoSplice means that this pair cannot, and nothing has changed.
	SpliceTo(dst Transport, done func(n int64, err error)) error
}

// ErrNoSplice is returned by SpliceTo where the backend, the platform or the
// kind of transport cannot splice.
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
// A pipe is borrowed from the loop only while bytes are in it, so ten thousand
// quiet relays hold none.
type splice struct {
	src, dst *stream
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

// kernelPipe is a pipe that bytes pass through.
type kernelPipe struct{ r, w int }

// SpliceTo implements Splicer.
func (s *stream) SpliceTo(dst Transport, done func(int64, error)) error {
	if err := s.loop.check("SpliceTo"); err != nil {
		return err
	}
	d, ok := As[*stream](dst)
	switch {
	case !ok, d.loop != s.loop, !s.loop.caps.Splice, s.rh == backend.None, d.wh == backend.None:
		return ErrNoSplice
	case s.flags&(fClosing|fLost|fEOF) != 0, d.flags&(fClosing|fLost|fWriteEOF|fWriteBroken) != 0:
		return ErrClosed
	case s.x != nil && s.x.splice != nil, d.x != nil && d.x.spliceFrom != nil:
		return ErrSourceRegistered
	}
	p := &splice{src: s, dst: d, done: done}
	for _, op := range [...]*backend.Op{&p.ready, &p.in, &p.out} {
		op.Owner = p
	}
	s.extra().splice = p
	d.extra().spliceFrom = p
	s.touch()
	d.touch()
	return nil
}

// step does what can be done now.
func (p *splice) step() {
	if p.ended {
		return
	}
	s := p.src
	if s.rop.Armed() {
		s.loop.be.Cancel(&s.rop)
		if s.rop.Armed() {
			return // its last result calls sync again
		}
	}
	if s.flags&fReadLater != 0 {
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
	p.dst.flags |= fSpliceOut
	p.out.Peer = backend.Handle(p.pipe.r)
	p.out.Max = int32(p.held)
	p.submit(&p.out, backend.SpliceOut, 0, p.dst.wh)
}

func (p *splice) submit(op *backend.Op, k backend.Kind, f backend.Flags, h backend.Handle) {
	op.Kind, op.Flags, op.Handle, op.Events = k, f, h, backend.Readable
	if c, ok := p.src.loop.submit(op); ok {
		p.result(&c)
	}
}

// OpDone implements backend.Owner.
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
		p.readable = c.N >= pipeSize/16 // else it was most likely all there was
	case again:
	case c.Err != nil:
		p.dst.lose(p.dst.opError("splice", c.Err))
	default:
		p.held -= c.N
		p.total += int64(c.N)
		if p.held <= 0 {
			p.dst.flags &^= fSpliceOut
			p.dst.touch()
		}
	}
}

func (p *splice) busy() bool { return p.ready.Armed() || p.in.Armed() || p.out.Armed() }

// end tells the result. The ops may still be in flight.
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
		p.src.x.splice = nil
		p.dst.x.spliceFrom = nil
		p.dst.flags &^= fSpliceOut
		p.closePipe()
		if p.eof && p.src.flags&(fLost|fClosing) == 0 {
			p.src.flags |= fEOF
			p.src.queue()
		}
		p.src.touch()
		p.dst.touch()
	}
}

// lost ends the splice of a stream that is over, src or dst.
func (p *splice) lost(s *stream) { p.end(s.reason) }

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
	closeFDs(p.pipe.r, p.pipe.w)
	p.pipe = nil
}

func (l *Loop) borrowPipe() *kernelPipe {
	if n := len(l.pipes); n > 0 {
		p := l.pipes[n-1]
		l.pipes = l.pipes[:n-1]
		return p
	}
	return newKernelPipe()
}

func (l *Loop) returnPipe(p *kernelPipe) {
	if len(l.pipes) < pipesKept {
		l.pipes = append(l.pipes, p)
		return
	}
	closeFDs(p.r, p.w)
}

// closePipes releases the free pipes.
func (l *Loop) closePipes() {
	for _, p := range l.pipes {
		closeFDs(p.r, p.w)
	}
	l.pipes = nil
}
