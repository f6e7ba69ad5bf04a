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
	most   int          // bytes of a datagram that are taken
	info   PacketInfo   // of the one being handed over

	// asked is the datagram that is being handed over: who sent it, and which of
	// this machine's addresses was asked, where that is not the endpoint's only one.
	asked struct {
		from   PacketAddr
		local  netip.Addr
		device int
	}
}

var _ backend.Owner = (*packetReader)(nil)

// heldPacket is a datagram that came while reading was paused.
type heldPacket struct {
	data      []byte
	from      PacketAddr
	truncated bool
	info      PacketInfo
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
		p := heldPacket{data: c.Buf, truncated: c.Truncated, info: e.infoOf(c.Info)}
		if c.Peer != nil {
			p.from = packetAddr(c.Peer)
		}
		if own := e.peer.IP; own.IsValid() && p.from.IP != own {
			return // it came before the socket was connected
		}
		size := int(c.Segment)
		if size <= 0 {
			r.arrived(&p)
			return
		}
		for rest := c.Buf; len(rest) > 0 && !e.ended(); {
			n := min(size, len(rest))
			p.data, rest = rest[:n:n], rest[n:]
			r.arrived(&p)
		}
	case errors.Is(c.Err, backend.ErrAgain) || errors.Is(c.Err, backend.ErrCanceled):
	case c.Peer != nil && errors.Is(c.Err, syscall.EMSGSIZE):
		e.failed(&MTUError{MTU: c.N}, packetAddr(c.Peer))
	case c.Peer != nil:
		e.failed(sysError("recvfrom", c.Err), packetAddr(c.Peer))
	case errors.Is(c.Err, syscall.EBADF) || errors.Is(c.Err, os.ErrClosed) || errors.Is(c.Err, net.ErrClosed):
		e.lose(sysError("recvfrom", c.Err))
	default:
		r.errors++
		e.failed(sysError("recvfrom", c.Err), PacketAddr{})
	}
}

// arrived hands over p, or keeps a copy of it.
func (r *packetReader) arrived(p *heldPacket) {
	if r.paused || len(r.held) > 0 {
		kept := *p
		kept.data = append([]byte(nil), p.data...)
		r.held = append(r.held, kept)
		return
	}
	r.deliver(p)
}

// delivered forgets whose datagram was handed over; it is deferred around that.
func (r *packetReader) delivered() { r.asked.local = netip.Addr{} }

func (r *packetReader) deliver(p *heldPacket) {
	e := r.e
	if len(p.data) > r.most {
		cut := *p
		cut.data, cut.truncated = p.data[:r.most:r.most], true
		p = &cut
	}
	if own := e.addr.IP.Addr(); own.IsUnspecified() && p.info.Local.IsValid() {
		r.asked.from, r.asked.local, r.asked.device = p.from, p.info.Local, p.info.Interface
		defer r.delivered()
	}
	switch {
	case !p.truncated && e.knower != nil:
		defer e.guard("PacketInfoReceived")
		r.info = p.info
		e.knower.PacketInfoReceived(p.data, p.from, &r.info)
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
		r.deliver(&p)
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

// packetWriter is an endpoint's sending half: some datagrams at most are with the
// backend, and others wait after them. What is sent after another datagram in the same turn
// waits for its end, so that one call can send all of it.
type packetWriter struct {
	e         *PacketEndpoint
	op        backend.Op
	packets   []backend.Packet // of op
	queue     []queuedPacket   // from head on; op's are the first of them
	head      int
	mem       []byte
	bytes     int // in the queue
	high, low int
	paused    bool // PauseWriting was called, ResumeWriting was not

	turn     uint64 // of the loop, in which a datagram was sent last
	held     bool   // what is in the queue waits for flushing
	flushing Call
	failures []packetFailure // that SendTo found out about others
}

var _ backend.Owner = (*packetWriter)(nil)

// packetFailure is a datagram that could not be sent.
type packetFailure struct {
	err error
	to  PacketAddr
}

// queuedPacket is a datagram that waits to be sent: mem[off:end].
type queuedPacket struct {
	off, end int
	to       PacketAddr
	info     backend.PacketInfo
	same     bool // to and info are those of the one before
}

// packetBatch is how many datagrams a backend is given at once, and how many wait
// for the end of a turn.
const packetBatch = 64

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
//
// The first datagram of a turn leaves at once. Those after it wait until the
// callbacks of the turn are through, or some are there (64 of them, or what the high
// mark allows), and leave by one system call; what the system says against those
// goes to a PacketFailer.
//
// On an endpoint without an address of its own (":53") the system chooses from which
// of this machine's a datagram leaves, with one exception: inside
// PacketReceived, or the callbacks that stand for it, a datagram to the sender of the one being
// handed over leaves from the address that the sender asked, as it expects. An
// answer that is given later needs SendInfo with what AnswerInfo said.
func (e *PacketEndpoint) SendTo(p []byte, to PacketAddr) error {
	return e.send("SendTo", p, to, e.answer(to))
}

// Send is SendTo to the Peer of an endpoint that is connected; on others it fails with
// ENOTCONN.
func (e *PacketEndpoint) Send(p []byte) error {
	if err := e.loop.check("Send"); err != nil {
		return err
	}
	if e.peer == (PacketAddr{}) {
		return &net.OpError{Op: "write", Net: e.netw, Source: e.LocalAddr(), Err: sysError("sendto", syscall.ENOTCONN)}
	}
	return e.send("Send", p, e.peer, backend.PacketInfo{})
}

func (e *PacketEndpoint) send(method string, p []byte, to PacketAddr, info backend.PacketInfo) error {
	if err := e.loop.check(method); err != nil {
		return err
	}
	if e.ended() {
		return ErrClosed
	}
	if e.feed != nil {
		return e.feed.sendTo(p, to, info, method == "SendInfo")
	}
	if err := e.fits(p, to); err != nil {
		return e.sendError(err, to)
	}
	w := &e.wr
	if w.held && (w.bytes+len(p) > w.high || w.waiting() >= packetBatch) {
		w.pump()
	}
	waited := !w.idle()
	if waited && (w.bytes+len(p) > max(limitMarks*w.high, 1) || w.waiting() >= limitMarks*packetsHigh) {
		return ErrSendBufferFull
	}
	w.push(p, to, &info)
	switch l := e.loop; {
	case w.held:
		return nil
	case waited:
		w.crossed()
		return nil
	case l.turning && w.turn == l.turns && len(p) <= w.high:
		w.held = true
		w.call()
		return nil
	default:
		w.turn = l.turns
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

// WriteMarks returns the marks of the send buffer, in bytes: see WithWriteMarks.
func (e *PacketEndpoint) WriteMarks() (high, low int) { return e.wr.high, e.wr.low }

// The largest payloads of UDP datagrams, over IPv4 and over IPv6 (RFC 768 with RFC
// 791 and RFC 8200).
const (
	maxUDP4 = 65535 - 20 - 8
	maxUDP6 = 65535 - 8
)

// fits reports whether the endpoint's socket can send p to an address.
func (e *PacketEndpoint) fits(p []byte, to PacketAddr) error {
	unix := e.addr.Family == backend.Unix
	ip := to.IP.Addr()
	switch {
	case e.peer != PacketAddr{} && to != e.peer:
		return &net.AddrError{Err: "the endpoint is connected to " + e.peer.String() + " and sends nowhere else", Addr: to.String()}
	case unix && to.IP.IsValid(), !unix && !to.IP.IsValid():
		return &net.AddrError{Err: "address is of another family than the endpoint", Addr: to.String()}
	case unix && to.Path == "", !unix && to.IP.Port() == 0:
		return &net.AddrError{Err: "address cannot be sent to", Addr: to.String()}
	case unix:
	case ip.Unmap().Is4() == e.v6 && !e.dual:
		return &net.AddrError{Err: "address is of another family than the endpoint", Addr: to.String()}
	case len(p) > maxUDP6, len(p) > maxUDP4 && ip.Unmap().Is4():
		return &MTUError{}
	}
	return nil
}

func (e *PacketEndpoint) sendError(err error, to PacketAddr) error {
	cause := sysError("sendto", err)
	if errors.Is(err, syscall.EMSGSIZE) {
		cause = &MTUError{}
	}
	return &net.OpError{Op: "write", Net: e.netw, Source: e.LocalAddr(), Addr: to.NetAddr(), Err: cause}
}

func (w *packetWriter) push(p []byte, to PacketAddr, info *backend.PacketInfo) {
	if w.idle() {
		w.queue, w.head, w.mem = w.queue[:0], 0, w.mem[:0]
	} else if len(w.mem) > 2*limitMarks*w.high+chunk.Size || w.head > limitMarks*packetsHigh {
		w.compact()
	}
	off := len(w.mem)
	w.mem = append(w.mem, p...)
	same := false
	if n := len(w.queue); n > w.head {
		last := &w.queue[n-1]
		same = last.to == to && last.info == *info
	}
	w.queue = append(w.queue, queuedPacket{off, len(w.mem), to, *info, same})
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

// submit hands the first of the queue to the backend. The result is of one datagram
// that was sent or failed, at least; of as many as N says else.
func (w *packetWriter) submit() (backend.Completion, bool) {
	n := min(w.waiting(), packetBatch)
	if cap(w.packets) < n {
		w.packets = make([]backend.Packet, 0, min(2*n-1, packetBatch)) // most send one at a time
	}
	w.packets = w.packets[:n]
	for i := range w.packets {
		q, k := &w.queue[w.head+i], &w.packets[i]
		k.Data = w.mem[q.off:q.end:q.end]
		k.ToPeer = w.e.peer != PacketAddr{}
		if k.Same = q.same && i > 0; k.Same {
			continue
		}
		k.Info = q.info
		if q.to.IP.IsValid() {
			k.To = backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(q.to.IP.Addr().Unmap(), q.to.IP.Port())}
		} else {
			k.To = backend.Addr{Family: backend.Unix, Path: q.to.Path}
		}
	}
	w.op.Packets = &w.packets
	return w.e.loop.submit(&w.op)
}

func (w *packetWriter) pop() {
	q := &w.queue[w.head]
	w.bytes -= q.end - q.off
	q.to = PacketAddr{}
	w.head++
}

// settle takes a result: as many datagrams as it says are gone, or the first
// has failed.
func (w *packetWriter) settle(c *backend.Completion) {
	switch {
	case errors.Is(c.Err, backend.ErrAgain), errors.Is(c.Err, backend.ErrCanceled):
	case c.Err != nil:
		to := w.queue[w.head].to
		w.pop()
		w.failures = append(w.failures, packetFailure{w.e.sendError(c.Err, to), to})
	default:
		for range max(1, min(c.N, len(w.packets), w.waiting())) {
			w.pop()
		}
	}
}

// pump hands the queue to the backend until that has enough or nothing is left.
// It calls no one.
func (w *packetWriter) pump() {
	w.held = false
	for !w.e.lost && !w.idle() && !w.op.Armed() {
		c, done := w.submit()
		if !done {
			break
		}
		w.settle(&c)
	}
	if len(w.failures) > 0 {
		w.call()
	}
}

// call has flush called in the next turn.
func (w *packetWriter) call() {
	if w.flushing.state.CompareAndSwap(callRan, callQueued) {
		w.e.loop.enqueue(&w.flushing)
	}
}

// flush sends what waited for the end of a turn, and tells what came of it.
func (w *packetWriter) flush() {
	e := w.e
	if e.lost {
		return
	}
	if w.held {
		w.pump()
	}
	w.tell()
	if !e.lost {
		w.crossed()
		w.eased()
	}
}

// tell reports what failed.
func (w *packetWriter) tell() {
	for len(w.failures) > 0 && !w.e.lost {
		f := w.failures[0]
		if w.failures = w.failures[1:]; len(w.failures) == 0 {
			w.failures = nil
		}
		w.e.failed(f.err, f.to)
	}
}

// last sends what waits for the end of a turn although the endpoint ends now: that is
// not what Abort drops.
func (w *packetWriter) last() {
	if w.held {
		w.pump()
	}
}

// drop forgets what waits.
func (w *packetWriter) drop() {
	if w.op.Armed() {
		w.e.loop.be.Cancel(&w.op)
	}
	w.queue, w.head, w.bytes, w.held, w.failures = nil, 0, 0, false, nil
}

func (w *packetWriter) OpDone(c *backend.Completion) {
	if w.e.lost {
		return
	}
	w.settle(c)
	w.pump()
	w.tell()
	if !w.e.lost {
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
