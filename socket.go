package weir

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// socket is the lower half that works with handles of the loop's backend: a socket, a
// terminal, one or two pipes.
//
// The read Op is in one of three uses: Read while bytes are wanted; Hangup while they
// are not, so that a reset is noticed; idle for the moment between.
type socket struct {
	stream
	rop    backend.Op
	rh, wh backend.Handle // the same except for pairs of pipes; None if that direction does not exist

	net       network
	readLater bool // the read Op's result came at once and waits in the loop
	hungUp    bool // a hang-up without error was seen: do not wait for it again
	spliceOut bool // another stream's bytes are being spliced into this one
	watched   bool // it is in the loop's list of unacked
	isCut     bool // it ends: unlist was called
	apart     bool // WithSeparateEnds
	adopted   bool // by Attach: there may be a duplicate elsewhere

	local, remote endpoint
}

var (
	_ backend.Owner = (*socket)(nil)
	_ lower         = (*socket)(nil)
)

// endpoint is an IP address and a port, in less memory than a netip.AddrPort. A zone
// is in the extras.
type endpoint struct {
	addr [16]byte
	port uint16
	is   uint8 // the address's size in bytes; 0 if there is none
}

func endpointOf(a netip.AddrPort) endpoint {
	return endpoint{addr: a.Addr().As16(), port: a.Port(), is: uint8(a.Addr().BitLen() / 8)}
}

func (e *endpoint) ip() netip.Addr {
	switch e.is {
	case 0:
		return netip.Addr{}
	case 4:
		return netip.AddrFrom16(e.addr).Unmap()
	}
	return netip.AddrFrom16(e.addr)
}

// newSocket makes a stream over open handles and puts it in the loop's list.
func newSocket(l *Loop, rh, wh backend.Handle, n network, c *connConfig) *socket {
	k := &socket{rh: rh, wh: wh, net: n, apart: c.apart && rh != wh && rh != backend.None && wh != backend.None}
	k.rop.Owner = k
	k.init(l, k, c)
	if wh == backend.None {
		k.flags |= fReadOnly
	}
	l.conns.n++
	return k
}

func (k *socket) OpDone(c *backend.Completion) {
	switch {
	case c.Op == &k.rop:
		k.readDone(c)
	case k.out != nil && c.Op == &k.out.op:
		k.writeDone(c)
	case k.x.writeEnd != nil && c.Op == &k.x.writeEnd.op:
		k.writeEndDone(c)
	}
	k.sync()
}

// want implements lower: it arms the read Op, or stops it.
func (k *socket) want(w wish) {
	switch {
	case k.readLater:
	case k.rh == backend.None:
		k.watchWriteEnd()
	case k.x.splice != nil && k.phase < phaseClosing:
		k.x.splice.step()
	case k.phase == phaseBroken:
		k.drain()
	case k.x.room && w == wantBytes:
		k.armReady(backend.Readable | backend.Writable)
	case k.x.room:
		k.armReady(backend.Writable)
	case w == wantBytes && k.receives():
		k.armReady(backend.Readable)
	case w == wantBytes:
		k.armRead()
	case w == wantDrop && !k.x.shared:
		k.armDrop()
	case w == wantLater, k.net == netTTY && k.phase == phaseClosing && k.writing():
		k.watchRead()
	default:
		k.cancel(&k.rop)
	}
	k.watchPair()
}

// cancel cancels op, if it is armed, and reports whether it is idle now.
func (k *socket) cancel(op *backend.Op) bool {
	if op.Armed() {
		k.loop.be.Cancel(op)
	}
	return !op.Armed()
}

// armRead reads, or goes on reading.
func (k *socket) armRead() {
	if k.rop.Armed() {
		stale := k.flags&fStale != 0 && k.rop.Buf != nil
		if k.rop.Kind == backend.Read && (k.rop.Buf == nil) == (k.caps&capBuffer == 0) && !stale {
			return
		}
		// It waits for something else, or would read into memory that is not this
		// protocol's, which was set in the middle of a read.
		if !k.loop.be.Cancel(&k.rop) {
			return // its last result calls sync again
		}
	}
	k.flags &^= fStale
	if k.caps&capBuffer == 0 {
		k.arm(backend.Read, backend.Multi, nil)
		return
	}
	buf := k.callReadBuffer()
	switch {
	case k.phase >= phaseLost:
	case len(buf) == 0:
		k.lose(ErrNoBuffer)
	default:
		k.arm(backend.Read, 0, buf)
	}
}

// armDrop reads bytes that no one wants.
func (k *socket) armDrop() {
	if k.rop.Armed() && (k.rop.Kind != backend.Read || k.rop.Buf != nil) {
		k.loop.be.Cancel(&k.rop)
	}
	if !k.rop.Armed() {
		k.arm(backend.Read, backend.Multi, nil)
	}
}

// watchRead waits for a reset while nothing is read and, perhaps, nothing written. A
// terminal is watched only after its end of stream: its hang-up may come before its
// last bytes.
func (k *socket) watchRead() {
	if k.rop.Armed() && k.rop.Kind == backend.Read {
		k.loop.be.Cancel(&k.rop)
	}
	ended := k.flags&fEOFDone != 0 || k.flags&fEOF != 0 && k.phase == phaseClosing
	if !k.rop.Armed() && !k.hungUp && (!k.net.pipe() || k.net == netTTY && ended) {
		k.arm(backend.Hangup, 0, nil)
	}
}

// watchWriteEnd waits for the reader of a pipe to go away.
func (k *socket) watchWriteEnd() {
	switch {
	case k.phase >= phaseClosing || k.hungUp:
		k.cancel(&k.rop)
	case !k.rop.Armed():
		k.arm(backend.Hangup, 0, nil)
	}
}

// arm submits the read Op. A result at once is handled as if it came later.
func (k *socket) arm(kind backend.Kind, f backend.Flags, buf []byte) {
	k.rop.Kind, k.rop.Flags, k.rop.Handle, k.rop.Buf = kind, f, k.rh, buf
	if k.rh == backend.None {
		k.rop.Handle = k.wh
	}
	if c, ok := k.loop.submit(&k.rop); ok {
		k.readLater = true
		k.loop.later(c)
	}
}

// later keeps a result that Submit had at once, to be handed out with the next turn's.
func (l *Loop) later(c backend.Completion) {
	c.Op.Due, c.Last = true, true
	l.early = append(l.early, c)
	l.stir()
}

// readDone takes a result of the read Op.
func (k *socket) readDone(c *backend.Completion) {
	k.readLater = false
	if k.x.writeEnd != nil && c.N > 0 {
		k.x.writeEnd.came = true
	}
	if k.phase >= phaseLost {
		return
	}
	if k.x.room {
		k.x.room = false // flush tries again
	}
	op := "read"
	if k.rh == backend.None {
		op = "write"
	}
	hangup := c.Op.Kind == backend.Hangup
	switch {
	case c.Err == backend.ErrAgain && k.phase == phaseBroken:
		k.lose(k.reason())
	case c.Err == backend.ErrAgain, c.Err == backend.ErrCanceled, errors.Is(c.Err, syscall.ECANCELED):
		// Nothing happened; want submits the Op again if it is still wanted.
	case k.phase == phaseClosing:
		if c.Err != nil && k.writing() {
			k.lose(k.opError(op, c.Err))
		} else if hangup && k.net == netTTY && k.writing() {
			// A master takes nothing more once it is full, and does not fail either.
			k.lose(k.opError("write", syscall.EIO))
		} else if c.Err != nil || c.N == 0 && !hangup {
			k.flags |= fEOF // nothing more can come: no need to linger
		}
	case hangup && k.phase == phaseBroken && k.rh == k.wh:
		// The write that failed has reported it. What had come before is read when
		// reading resumes.
	case k.phase == phaseBroken && (c.Err != nil || c.N == 0):
		k.brokenEnd()
	case c.Err != nil && (hangup || k.held()):
		k.failed(k.opError(op, c.Err))
	case c.Err != nil:
		k.lose(k.opError(op, c.Err))
	case hangup && k.rh == backend.None:
		k.lose(k.opError(op, syscall.EPIPE))
	case hangup:
		k.hungUp = true
	case c.Op.Kind == backend.Ready:
		k.readyDone()
	case c.N == 0:
		k.ended(nil)
	default:
		if k.tie != nil {
			k.tie.came(c.N)
		}
		k.deliver(c.Buf)
	}
}

// deserted reports whether nothing that is written can reach anyone. On TCP a hang-up
// does not mean that: the peer may have ended only its writing.
func (s *stream) deserted() bool {
	k, ok := s.lower.(*socket)
	return ok && k.hungUp && (k.net == netUnix || k.net == netTTY)
}

// brokenEnd handles the end of what could be read after a write had failed.
func (k *socket) brokenEnd() {
	if k.net.resets() && errors.Is(k.reason(), syscall.EPIPE) {
		// A write failed before the end of the stream was read: TCP was reset. The
		// system reports that once, and a canceled Hangup consumed the report.
		k.setReason(k.opError("write", syscall.ECONNRESET))
	}
	if k.rh != backend.None && k.held() {
		k.flags |= fEOF // what is kept is offered when reading goes on
		return
	}
	k.lose(k.reason())
}

// failed takes a failure that came while reading was paused. What the peer had sent
// before is still there, for when reading resumes; but a protocol that waits for its
// writes to drain would wait for ever.
func (k *socket) failed(err error) {
	if k.rh != k.wh {
		k.lose(err)
		return
	}
	k.broke(err)
}

// broke ends writing, because of reason.
func (k *socket) broke(reason error) {
	k.breakWriting(reason)
	if k.phase == phaseBroken && k.x.spliceFrom != nil {
		k.x.spliceFrom.end(reason)
	}
}

// How much is read after a failed write, in one go and in all: a peer that ended only
// its reading may send for ever.
const (
	drainMax   = 64       // reads
	drainBytes = 64 << 20 // more than systems buffer
)

// drain delivers what had arrived before a write failed, and then loses the
// connection.
func (k *socket) drain() {
	if !k.cancel(&k.rop) {
		return
	}
	for range drainMax {
		if k.held() {
			return // goes on when reading does
		}
		if k.flags&fEOF != 0 || k.x.drained > drainBytes {
			k.lose(k.reason())
			return
		}
		if k.receives() {
			switch n, err := k.receiveOnce(); {
			case err == backend.ErrAgain:
				k.lose(k.reason())
			case err != nil:
				k.brokenEnd()
			default:
				k.extra().drained += n
			}
			if k.phase >= phaseClosing {
				return
			}
			continue
		}
		buf := k.loop.pool.Get()
		k.rop.Kind, k.rop.Flags, k.rop.Handle, k.rop.Buf = backend.Read, backend.Now, k.rh, buf
		c, ok := k.loop.submit(&k.rop)
		if !ok {
			return // its result calls sync again
		}
		k.extra().drained += max(c.N, 0)
		k.readDone(&c)
		k.loop.pool.Put(buf)
		if k.phase >= phaseClosing {
			return
		}
	}
	k.queue()
}

func (k *socket) write(p []byte) int {
	if k.spliceOut {
		return 0
	}
	k.loop.one[0] = p
	n := k.direct(k.loop.one[:])
	k.loop.one[0] = nil
	return n
}

// direct tries to send vec without copying it and returns how many bytes were sent.
func (k *socket) direct(vec [][]byte) int {
	o := k.loop.pool.getOut()
	o.vec = append(o.vec[:0], vec...)
	if k.net == netSCTP {
		o.limit(k.message())
	}
	o.op.Kind, o.op.Flags, o.op.Handle, o.op.Vec, o.op.Owner = backend.Write, backend.Now, k.wh, o.vec, k
	c, inline := k.loop.submit(&o.op)
	if !inline {
		// Caps.Inline promises an answer to a Now op at once; a backend that breaks the
		// promise is treated as one that cannot send. The caller buffers vec, and
		// whatever of it was sent after all is taken off there.
		k.loop.be.Cancel(&o.op)
		k.out = o
		return 0
	}
	o.release(&k.loop.pool)
	if c.Err != nil {
		return 0 // an error comes back, and is handled, at the next flush
	}
	k.wrote()
	if k.tie != nil {
		k.tie.left(c.N)
	}
	return c.N
}

func (k *socket) flush() {
	if k.out.op.Flags&backend.Quiet != 0 && k.out.op.Armed() && !k.quiet() {
		k.out.op.Flags &^= backend.Quiet
	}
	for k.out != nil && k.out.n > 0 && !k.out.op.Armed() && !k.spliceOut && k.phase != phaseBroken && k.phase < phaseLost {
		o := k.out
		o.vec = append(o.vec[:0], o.chunks[:min(len(o.chunks), vecMax)]...)
		o.asked = o.n
		if len(o.chunks) > vecMax {
			o.asked = 0
		}
		if len(k.x.passing) > 0 {
			if k.x.passing[0].after == 0 {
				if !k.pass() {
					return
				}
				continue
			}
			o.limit(k.x.passing[0].after)
		}
		if k.net == netSCTP {
			o.limit(k.message())
		}
		o.op.Kind, o.op.Flags, o.op.Handle, o.op.Vec, o.op.Owner = backend.Write, 0, k.wh, o.vec, k
		if k.quiet() {
			o.op.Flags = backend.Quiet
		}
		c, ok := k.loop.submit(&o.op)
		if !ok {
			return
		}
		k.writeDone(&c)
	}
}

// writeDone takes a result of the write Op.
func (k *socket) writeDone(c *backend.Completion) {
	switch {
	case k.phase >= phaseLost:
	case len(k.out.vec) == 0 && c.Err == nil: // the empty write of flushed
		k.dropOut()
	case k.x.noReader != nil:
		k.dropUnwanted()
	case c.Err == nil:
		k.wrote()
		if k.tie != nil {
			k.tie.left(c.N)
		}
		k.took(c.N)
		k.sent(c.N)
	case c.Err == backend.ErrAgain, c.Err == backend.ErrCanceled:
		k.sent(0)
	case k.net == netSCTP && !k.x.short && errors.Is(c.Err, syscall.EMSGSIZE):
		k.extra().short = true
		k.sent(0)
	default:
		k.writeFailed(c.Err)
	}
	if k.out == nil && k.x.spliceFrom != nil {
		k.x.spliceFrom.src.touch()
	}
}

// writeFailed ends the connection, but not before what the peer had sent is
// delivered: a server that answers early and closes makes our write fail
// while its answer is still to be read.
func (k *socket) writeFailed(err error) {
	reason := k.opError("write", err)
	if k.phase == phaseBroken {
		reason = k.reason() // the hang-up's, which consumed the system's only report of a reset
	}
	switch {
	case k.apart && k.phase < phaseClosing && errors.Is(err, syscall.EPIPE):
		k.readerGone()
	case k.rh == backend.None || k.phase == phaseClosing:
		k.lose(reason)
	default:
		k.broke(reason)
	}
}

// readerGone ends writing alone: the reader of what is written has gone.
func (k *socket) readerGone() {
	reason := k.opError("write", errReaderGone)
	if p := k.x.spliceFrom; p != nil {
		p.end(reason)
	}
	if k.out != nil {
		k.cancel(&k.out.op)
	}
	k.endWriting(reason)
}

// flushed reports whether the system has taken everything that the backend was given to
// write. If not, the result of an empty write says when it has, or that it never will,
// for example because the connection is lost.
func (k *socket) flushed() bool {
	if !k.loop.caps.Behind || k.wh == backend.None || k.x.noReader != nil {
		return true
	}
	if k.out == nil {
		k.out = k.loop.pool.getOut()
	}
	o := k.out
	o.vec, o.asked = o.vec[:0], 0
	o.op.Kind, o.op.Flags, o.op.Handle, o.op.Vec, o.op.Owner = backend.Write, 0, k.wh, o.vec, k
	c, ok := k.loop.submit(&o.op)
	if ok {
		k.writeDone(&c)
	}
	return ok && c.Err == nil
}

func (k *socket) canCloseWrite() bool {
	if k.wh == backend.None && k.phase < phaseShut {
		return k.flags&fWriteEOFSent != 0
	}
	return k.net.halfCloses()
}

func (k *socket) closeWrite() bool {
	if k.spliceOut || !k.leavePair() || !k.flushed() {
		return false // its last result calls sync again
	}
	if k.rh != k.wh {
		if k.rh == backend.None {
			k.closeWith(nil) // a write-only pipe has nothing left to do
			return true
		}
		k.loop.shutHandle(k.wh, backend.CloseFlat)
		k.wh = backend.None
		return true
	}
	if k.closesNext() {
		return true // which ends both directions
	}
	switch err := k.loop.be.Shut(k.wh, backend.ShutWrite); {
	case err == nil:
	case !errors.Is(err, syscall.ENOTCONN):
		// The peer will never see our end, so waiting for its end could last for ever.
		k.lose(k.opError("shutdown", err))
	case k.flags&fEOF == 0:
		// The peer's reset came first. A read reports it, once; if nothing is read, the
		// Hangup does.
		k.hungUp = false
	}
	return true
}

// closesNext reports whether, now that everything has left, sync closes the connection: the
// peer has ended its own stream, and nothing is under way. A connection that has a duplicate
// elsewhere stays open, so closing would not tell the peer of our end.
func (k *socket) closesNext() bool {
	return k.flags&fEOFDone != 0 && k.phase < phaseClosing && k.net == netTCP && !k.adopted &&
		(!k.rop.Armed() || k.rop.Kind == backend.Hangup) &&
		k.x.producer == nil && k.x.splice == nil && k.x.spliceFrom == nil && !k.x.resets
}

// close implements lower. It is called again when an Op that is armed has ended.
func (k *socket) close(how closeHow) {
	now, reason := how >= closeQuiet, ErrClosed
	if now {
		k.cutOff()
		reason = k.reason()
	} else if k.rop.Armed() || k.spliceOut {
		return
	}
	for _, p := range [...]*splice{k.x.splice, k.x.spliceFrom} {
		if p != nil {
			p.end(reason)
		}
	}
	switch {
	case k.rop.Armed():
	case k.x.splice != nil || k.x.spliceFrom != nil: // its end calls sync again
	case !k.leavePair():
	case k.out != nil && k.out.op.Armed():
	case !now && !k.flushed():
	case now:
		k.shutHandles(how == closeCut)
	case how == closeReset:
		k.resetLater()
	case k.mustLinger():
		ended := k.flags&fWriteEOFSent != 0
		linger(k.loop, k.tenant(), k.giveUp(), ended)
	default:
		k.shutHandles(false)
	}
}

// cutOff cancels what is under way.
func (k *socket) cutOff() {
	k.unlist()
	k.cancel(&k.rop)
	if k.out != nil {
		k.cancel(&k.out.op)
	}
}

// unlist records in the loop's lists that the socket ends.
func (k *socket) unlist() {
	if k.watched && !k.isCut {
		k.loop.unacked.unwatched()
	}
	k.isCut = true
	k.grown()
}

// resetLater closes with a reset, after what the system still has to send.
func (k *socket) resetLater() {
	if k.net.resets() {
		if n, err := k.loop.be.GetOption(k.rh, backend.UnsentBytes); err == nil && n > 0 {
			lingerReset(k.loop, k.tenant(), k.giveUp(), n)
			return
		}
	}
	k.shutHandles(true)
}

// mustLinger reports whether closing now could cost the peer bytes. That is so while
// the peer has not ended its stream and has either sent something that we did not read
// or not acknowledged everything.
func (k *socket) mustLinger() bool {
	if k.rh != k.wh || k.rh == backend.None || !k.net.socket() || k.net == netRFCOMM || k.flags&fEOF != 0 {
		return false
	}
	for _, o := range [...]backend.Option{backend.UnreadBytes, backend.UnsentBytes} {
		if n, err := k.loop.be.GetOption(k.rh, o); n > 0 || err == backend.ErrUnsupported {
			return true
		}
	}
	return false
}

// giveUp ends the socket and returns its handle, which then belongs to the caller.
func (k *socket) giveUp() backend.Handle {
	k.captureLocal()
	h := k.rh
	k.rh, k.wh = backend.None, backend.None
	k.closed(nil)
	k.unlist()
	return h
}

// shutHandles ends the socket and closes its handles. The socket has already ended when
// the error handler hears of a failed close.
func (k *socket) shutHandles(reset bool) {
	wh := k.wh
	rh := k.giveUp()
	how := backend.CloseFlat
	if reset && !k.net.pipe() {
		how = backend.CloseReset
	}
	if rh != backend.None {
		k.loop.shutHandle(rh, how)
	}
	if wh != backend.None && wh != rh {
		k.loop.shutHandle(wh, how)
	}
}

// shutHandle closes a handle of the loop's. An error can only mean that someone closed
// the descriptor behind our back, which its owner must hear of.
func (l *Loop) shutHandle(h backend.Handle, how backend.How) {
	if err := l.be.Shut(h, how); err != nil {
		l.report(os.NewSyscallError("close", err))
	}
	if l.short.waits() {
		l.relieve()
	}
}

// writeEnd watches the handle that is written to, if it differs from the one that is
// read: the reader of a pair of pipes, such as standard input and output, may go away.
type writeEnd struct {
	k    *socket
	op   backend.Op // a Hangup
	gone *Timer     // set once the reader has gone: see writeEndDone
	came bool       // bytes came since gone was set
}

// writeEndWait is how long a stream whose output has lost its reader waits for more
// input, or for the end of its input.
const writeEndWait = 100 * time.Millisecond

// watchPair waits for the reader of a pair's write end to go away.
func (k *socket) watchPair() {
	if k.rh == k.wh || k.rh == backend.None || k.wh == backend.None || k.flags&fWriteEOF != 0 || k.phase >= phaseClosing {
		return
	}
	if k.net == netTTY && k.flags&fEOFDone == 0 {
		return // as in watchRead
	}
	w := k.x.writeEnd
	if w == nil {
		w = &writeEnd{k: k, op: backend.Op{Owner: k, Kind: backend.Hangup, Handle: k.wh}}
		k.extra().writeEnd = w
	}
	if w.op.Armed() || w.gone != nil {
		return
	}
	if c, ok := k.loop.submit(&w.op); ok {
		k.loop.later(c)
	}
}

// leavePair ends what watchPair began and reports whether its Op is idle, as it must
// be before the handle is closed.
func (k *socket) leavePair() bool {
	w := k.x.writeEnd
	if w == nil {
		return true
	}
	if k.phase >= phaseClosing && w.gone != nil {
		w.gone.Stop()
	}
	return k.cancel(&w.op)
}

// writeEndDone takes a result of watchPair.
func (k *socket) writeEndDone(c *backend.Completion) {
	if k.phase >= phaseClosing || k.flags&fWriteEOFSent != 0 || c.Err == backend.ErrAgain || c.Err == backend.ErrCanceled || errors.Is(c.Err, syscall.ECANCELED) {
		return
	}
	err := c.Err
	if err == nil {
		err = syscall.EPIPE
	}
	if k.apart && errors.Is(err, syscall.EPIPE) {
		k.readerGone()
		return
	}
	reason := k.opError("write", err)
	if k.flags&fEOFDone != 0 {
		k.lose(reason)
		return
	}
	// A peer that closes both of its ends closes one of them first. What it sent, and
	// its end of stream, are delivered before this counts as a failure.
	w := k.x.writeEnd
	w.came = false
	w.gone = k.loop.NewTimer(func() { w.late(reason) })
	w.gone.Set(writeEndWait)
}

// late is called when writeEndWait has passed.
func (w *writeEnd) late(reason error) {
	k := w.k
	switch {
	case k.phase >= phaseClosing:
	case w.came || k.paused() && k.flags&fEOFDone == 0:
		w.came = false
		w.gone.Set(writeEndWait)
	default:
		k.lose(reason)
		k.sync()
	}
}

func (k *socket) count(what measure) int {
	var o backend.Option
	h := k.wh
	switch what {
	case bytesHeld:
		return 0
	case bytesUnacked:
		o = backend.UnsentBytes
		if !k.net.socket() {
			return 0
		}
	case bytesUnread:
		o = backend.UnreadBytes
		if h = k.rh; k.flags&fEOF != 0 {
			return 0
		}
	}
	if h == backend.None {
		return 0
	}
	n, err := k.loop.be.GetOption(h, o)
	switch {
	case err == nil:
		return n
	case what == bytesUnread:
		return 1 // cannot be known
	}
	return 0
}

// remoteIP is the IP address of the peer; not valid if it has none.
func (k *socket) remoteIP() netip.Addr {
	if !k.net.inet() {
		return netip.Addr{}
	}
	return k.remote.ip().WithZone(k.x.remote)
}

func (k *socket) addr(remote bool) net.Addr {
	e, text := &k.remote, k.x.remote
	if !remote {
		k.captureLocal()
		e, text = &k.local, k.x.local
	}
	switch k.net {
	case netTCP:
		return net.TCPAddrFromAddrPort(unmap(netip.AddrPortFrom(e.ip().WithZone(text), e.port)))
	case netUnix:
		return &net.UnixAddr{Net: "unix", Name: text}
	case netSCTP:
		return SCTPAddr{unmap(netip.AddrPortFrom(e.ip().WithZone(text), e.port))}
	case netVsock, netRFCOMM:
		a := backend.Addr{Family: backend.Vsock, IP: netip.AddrPortFrom(netip.AddrFrom16(e.addr), e.port)}
		if k.net == netRFCOMM {
			a.Family = backend.RFCOMM
		}
		return netAddr(k.net, &a)
	case netPipe, netTTY, netOther:
	}
	a := &FileAddr{Net: k.net.String(), Name: k.net.String()}
	if k.x.name != "" {
		a.Name = k.x.name
	}
	return a
}

// captureLocal asks for the local address once, at the latest before the close.
func (k *socket) captureLocal() {
	if k.rh == backend.None || k.local.is != 0 || !k.net.socket() || k.net == netUnix && k.x.local != "" {
		return
	}
	if a, err := k.loop.be.Name(k.rh, false); err == nil {
		if k.net == netVsock {
			localCID(&a, &k.remote)
		}
		k.setAddr(&a, true)
	}
}

func (k *socket) setAddr(a *backend.Addr, own bool) {
	e, text := &k.remote, a.Path
	if own {
		e = &k.local
	}
	if a.Family != backend.Unix {
		*e = endpointOf(a.IP)
		text = a.IP.Addr().Zone()
	}
	switch {
	case text == "":
	case own:
		k.extra().local = text
	default:
		k.extra().remote = text
	}
}

// opError is the reason of a loss that a system call reported.
func (k *socket) opError(op string, err error) error {
	var done *net.OpError
	if errors.As(err, &done) {
		return err
	}
	return &net.OpError{Op: op, Net: k.net.String(), Source: k.addr(false), Addr: k.addr(true), Err: sysError(op, err)}
}
