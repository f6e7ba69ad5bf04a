package weir

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/chunk"
)

// packetReader is an endpoint's receiving half.
type packetReader struct {
	e      *PacketEndpoint
	op     backend.Op
	paused bool
	errors int // in a row
	retry  *Timer
	held   []heldPacket // came in one batch with the one that paused
}

// heldPacket is a datagram that came while reading was paused.
type heldPacket struct {
	data      []byte
	from      PacketAddr
	truncated bool
}

// arm makes the backend receive.
func (r *packetReader) arm() {
	if r.e.feed != nil {
		r.e.feed.resume()
		return
	}
	for !r.op.Armed() && !r.paused && !r.e.ended() && r.e.made && len(r.held) == 0 {
		c, ok := r.e.loop.submit(&r.op)
		if !ok {
			return
		}
		r.take(&c)
		if r.errors >= packetErrors {
			return
		}
	}
}

// OpDone implements backend.Owner.
func (r *packetReader) OpDone(c *backend.Completion) {
	r.take(c)
	switch {
	case r.e.ended():
	case r.errors < packetErrors:
		r.arm()
	default:
		// The system cannot receive for now: not the peers' doing.
		if r.retry == nil {
			r.retry = r.e.loop.NewTimer(func() {
				r.errors = 0
				r.arm()
			})
		}
		r.retry.Set(packetRetry)
	}
}

func (r *packetReader) take(c *backend.Completion) {
	e := r.e
	switch {
	case e.ended():
	case c.Err == nil:
		r.errors = 0
		p := heldPacket{c.Buf, PacketAddr{}, c.Truncated}
		if c.Peer != nil {
			p.from = packetAddr(c.Peer)
		}
		if r.paused || len(r.held) > 0 {
			p.data = append([]byte(nil), p.data...)
			r.held = append(r.held, p)
			return
		}
		r.deliver(p)
	case errors.Is(c.Err, backend.ErrAgain) || errors.Is(c.Err, backend.ErrCanceled):
	case c.Peer != nil:
		e.failed(sysError("recvfrom", c.Err), packetAddr(c.Peer))
	case errors.Is(c.Err, syscall.EBADF) || errors.Is(c.Err, os.ErrClosed) || errors.Is(c.Err, net.ErrClosed):
		e.lose(sysError("recvfrom", c.Err))
	default:
		r.errors++
		e.failed(sysError("recvfrom", c.Err), PacketAddr{})
	}
}

func (r *packetReader) deliver(p heldPacket) {
	e := r.e
	switch {
	case !p.truncated:
		defer e.guard("PacketReceived")
		e.proto.PacketReceived(p.data, p.from)
	case e.cutter != nil:
		defer e.guard("PacketTruncated")
		e.cutter.PacketTruncated(p.data, p.from)
	default:
		e.failed(ErrTruncated, p.from)
	}
}

// resume hands out what was held, then goes on.
func (r *packetReader) resume() {
	for !r.paused && !r.e.ended() && len(r.held) > 0 {
		p := r.held[0]
		r.held = r.held[1:]
		r.deliver(p)
	}
	if len(r.held) == 0 {
		r.held = nil
	}
	r.arm()
}

// stop ends receiving for good.
func (r *packetReader) stop() {
	r.held = nil
	if r.retry != nil {
		r.retry.Stop()
	}
	if r.op.Armed() {
		r.e.loop.be.Cancel(&r.op)
	}
}

// packetWriter is an endpoint's sending half: at most one datagram is with the
// backend, others wait behind it.
type packetWriter struct {
	e         *PacketEndpoint
	op        backend.Op
	to        backend.Addr // of op
	vec       [1][]byte
	queue     []queuedPacket // from head on; the first is op's while that is armed
	head      int
	mem       []byte
	bytes     int // in the queue
	high, low int
	paused    bool // PauseWriting was called, ResumeWriting was not
}

// queuedPacket is a datagram that waits to be sent: mem[off:end].
type queuedPacket struct {
	off, end int
	to       PacketAddr
}

// limitMarks is how many times the high mark may be buffered.
const limitMarks = 4

// Datagrams are counted too, since an empty one has no bytes: so many make the
// high mark, a quarter of them the low one.
const packetsHigh = 1024

func (w *packetWriter) idle() bool { return w.head == len(w.queue) }

// waiting is how many datagrams are in the queue.
func (w *packetWriter) waiting() int { return len(w.queue) - w.head }

// SendTo sends p, which may be empty, as one datagram, or copies what cannot be
// sent at once: the caller may use p again. It never blocks. An error is about
// this datagram, which is dropped, and the endpoint lives on: the system's own
// as a *net.OpError, ErrSendBufferFull past four times the high mark (64 KiB, see
// WithWriteMarks) or 4096 datagrams, or ErrClosed after the close.
func (e *PacketEndpoint) SendTo(p []byte, to PacketAddr) error {
	if err := e.loop.check("SendTo"); err != nil {
		return err
	}
	if e.ended() {
		return ErrClosed
	}
	if e.feed != nil {
		return e.feed.sendTo(p, to)
	}
	if err := e.fits(to); err != nil {
		return e.sendError(err, to)
	}
	w := &e.wr
	waited := !w.idle()
	if waited && (w.bytes+len(p) > max(limitMarks*w.high, 1) || w.waiting() >= limitMarks*packetsHigh) {
		return ErrSendBufferFull
	}
	w.push(p, to)
	if waited {
		w.crossed()
		return nil
	}
	c, done := w.submit()
	if !done {
		w.crossed()
		return nil
	}
	w.pop()
	if c.Err != nil {
		return e.sendError(c.Err, to)
	}
	return nil
}

// Buffered is how many bytes wait to be handed to the system, in layers too.
func (e *PacketEndpoint) Buffered() int {
	if e.feed != nil {
		return e.wr.bytes + e.feed.buffered()
	}
	return e.wr.bytes
}

// fits reports whether the endpoint's socket can send to an address.
func (e *PacketEndpoint) fits(to PacketAddr) error {
	unix := e.addr.Family == backend.Unix
	ip := to.IP.Addr()
	switch {
	case unix && to.IP.IsValid(), !unix && !to.IP.IsValid():
		return &net.AddrError{Err: "address is of another family than the endpoint", Addr: to.String()}
	case unix && to.Path == "", !unix && to.IP.Port() == 0:
		return &net.AddrError{Err: "address cannot be sent to", Addr: to.String()}
	case unix:
	case ip.Unmap().Is4() == e.v6 && !e.dual:
		return &net.AddrError{Err: "address is of another family than the endpoint", Addr: to.String()}
	}
	return nil
}

func (e *PacketEndpoint) sendError(err error, to PacketAddr) error {
	return &net.OpError{Op: "write", Net: e.netw, Source: e.LocalAddr(), Addr: to.NetAddr(), Err: sysError("sendto", err)}
}

func (w *packetWriter) push(p []byte, to PacketAddr) {
	if w.idle() {
		w.queue, w.head, w.mem = w.queue[:0], 0, w.mem[:0]
	} else if len(w.mem) > 2*limitMarks*w.high+chunk.Size || w.head > limitMarks*packetsHigh {
		w.compact()
	}
	off := len(w.mem)
	w.mem = append(w.mem, p...)
	w.queue = append(w.queue, queuedPacket{off, len(w.mem), to})
	w.bytes += len(p)
}

// compact moves what waits to new memory; what is with the backend stays where
// it is, in the old.
func (w *packetWriter) compact() {
	first := w.queue[w.head].off
	w.mem = append(make([]byte, 0, len(w.mem)-first), w.mem[first:]...)
	n := copy(w.queue, w.queue[w.head:])
	w.queue, w.head = w.queue[:n], 0
	for i := range w.queue {
		w.queue[i].off -= first
		w.queue[i].end -= first
	}
}

// submit hands the first of the queue to the backend.
func (w *packetWriter) submit() (backend.Completion, bool) {
	q := &w.queue[w.head]
	w.vec[0] = w.mem[q.off:q.end:q.end]
	w.op.Vec = w.vec[:]
	if q.to.IP.IsValid() {
		w.to = backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(q.to.IP.Addr().Unmap(), q.to.IP.Port())}
	} else {
		w.to = backend.Addr{Family: backend.Unix, Path: q.to.Path}
	}
	return w.e.loop.submit(&w.op)
}

func (w *packetWriter) pop() {
	q := &w.queue[w.head]
	w.bytes -= q.end - q.off
	q.to = PacketAddr{}
	w.head++
	w.vec[0] = nil
}

// drop forgets what waits.
func (w *packetWriter) drop() {
	if w.op.Armed() {
		w.e.loop.be.Cancel(&w.op)
	}
	w.queue, w.head, w.bytes = nil, 0, 0
}

// OpDone implements backend.Owner.
func (w *packetWriter) OpDone(c *backend.Completion) {
	e := w.e
	if e.lost {
		return
	}
	for {
		to := w.queue[w.head].to
		again := errors.Is(c.Err, backend.ErrAgain) || errors.Is(c.Err, backend.ErrCanceled)
		if !again {
			w.pop()
		}
		if c.Err != nil && !again {
			e.failed(e.sendError(c.Err, to), to)
		}
		if e.lost || w.idle() {
			break
		}
		if w.op.Armed() {
			break // a callback sent
		}
		next, done := w.submit()
		if !done {
			break
		}
		*c = next
	}
	if !e.lost {
		w.eased()
	}
}

// crossed announces that too much is buffered.
func (w *packetWriter) crossed() {
	e := w.e
	if (w.bytes > w.high || w.waiting() > packetsHigh) && !w.paused && e.pauser != nil {
		w.paused = true
		defer e.guard("PauseWriting")
		e.pauser.PauseWriting()
	}
}

// eased announces that there is room again.
func (w *packetWriter) eased() {
	e := w.e
	if w.paused && w.bytes <= w.low && w.waiting() <= packetsHigh/4 {
		w.paused = false
		func() {
			defer e.guard("ResumeWriting")
			e.pauser.ResumeWriting()
		}()
	}
	if !w.idle() || e.lost {
		return
	}
	if e.closing {
		e.flushed()
		return
	}
	if e.feed != nil {
		e.feed.Drained()
		return
	}
	if e.drainer != nil {
		defer e.guard("WriteDrained")
		e.drainer.WriteDrained()
	}
}
