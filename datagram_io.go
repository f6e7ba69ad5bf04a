package weir

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/chunk"
	"github.com/weir-io/weir/internal/zone"
)

// packetReader is an endpoint's receiving half.
type packetReader struct {
	e      *PacketEndpoint
	op     backend.Op
	paused bool
	parked bool // receiving waits for the tenant's turn: see dealer
	errors int  // in a row
	retry  *Timer
	held   []heldPacket // came in one batch with the one that paused
	most   int          // bytes of a datagram that are taken
	info   PacketInfo   // of the one being handed over
	rest   []byte       // of the datagrams that came as one, what follows the one being handed over

	dropped     uint64 // by the system, for lack of room
	droppedLast uint32 // what the system said last, which wraps

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
	for !r.op.Armed() && !r.paused && !r.parked && !r.e.ended() && r.e.made && len(r.held) == 0 {
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
		if t := e.of.tenant; t != nil {
			t.came(len(c.Buf))
		}
		if c.Info != nil {
			r.drops(c.Info.Dropped)
		}
		p := heldPacket{data: c.Buf, truncated: c.Truncated}
		if e.knower != nil || e.addr.IP.Addr().IsUnspecified() {
			p.info = e.infoOf(c.Info)
		}
		if c.Peer != nil {
			p.from = packetAddr(c.Peer)
		}
		if own := e.peer.IP; own.IsValid() && p.from.IP != own {
			return // it came before the socket was connected
		}
		if c.Segment <= 0 {
			r.arrived(&p)
			return
		}
		r.parts(&p, int(c.Segment))
	case errors.Is(c.Err, backend.ErrAgain) || errors.Is(c.Err, backend.ErrCanceled):
	case c.Peer != nil && errors.Is(c.Err, syscall.EMSGSIZE):
		to := packetAddr(c.Peer)
		e.failed(e.tooLong(c.N, to), to)
	case c.Peer != nil:
		e.failed(sysError("recvfrom", c.Err), packetAddr(c.Peer))
	case errors.Is(c.Err, syscall.EBADF) || errors.Is(c.Err, os.ErrClosed) || errors.Is(c.Err, net.ErrClosed):
		e.lose(sysError("recvfrom", c.Err))
	default:
		r.errors++
		e.failed(sysError("recvfrom", c.Err), PacketAddr{})
	}
}

// drops takes what the system says of all datagrams that it has dropped: 0 where it says
// nothing.
func (r *packetReader) drops(n uint32) {
	if more := n - r.droppedLast; int32(more) > 0 {
		r.dropped += uint64(more)
		r.droppedLast = n
	}
}

// parts hands over p, which is datagrams of size bytes, one by one.
func (r *packetReader) parts(p *heldPacket, size int) {
	l := r.e.loop
	follows := l.follows
	defer func() { l.follows, l.lent, r.rest = follows, nil, nil }()
	plain := r.e.knower == nil && size <= r.most && !p.truncated && !r.tells(p)
	for r.rest = p.data; len(r.rest) > 0 && !r.e.ended(); {
		if plain && !r.paused && len(r.held) == 0 {
			r.run(p.from, size, follows)
			continue
		}
		n := min(size, len(r.rest))
		l.lent = r.rest[:n]
		p.data, r.rest = r.rest[:n:n], r.rest[n:]
		l.follows = follows || len(r.rest) > 0
		r.arrived(p)
	}
}

// run is deliver for many datagrams, until one of their callbacks panics, or pauses or ends
// the endpoint.
func (r *packetReader) run(from PacketAddr, size int, follows bool) {
	e := r.e
	defer e.guard("PacketReceived")
	for len(r.rest) > 0 && !r.paused && !e.ended() {
		n := min(size, len(r.rest))
		p := r.rest[:n:n]
		e.loop.lent = r.rest[:n]
		r.rest = r.rest[n:]
		e.loop.follows = follows || len(r.rest) > 0
		e.proto.PacketReceived(p, from)
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

// tells reports whether p says which of this machine's addresses was asked, and whether that
// is news.
func (r *packetReader) tells(p *heldPacket) bool {
	return p.info.Local.IsValid() && r.e.addr.IP.Addr().IsUnspecified()
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
	if r.tells(p) {
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
// backend, and others wait after them. What is sent while more datagrams are about to be
// handed over waits until they have been, and what is sent after another datagram in the
// same turn waits for its end, so that one call can send all of it.
type packetWriter struct {
	e         *PacketEndpoint
	op        backend.Op
	packets   []backend.Packet // of op
	queue     []queuedPacket   // from head on; op's are the first of them
	head      int
	mem       []byte
	bytes     int // in the queue
	lent      int // of them, in memory that is lent
	count     int // datagrams in the queue
	high, low int
	paused    bool // PauseWriting was called, ResumeWriting was not

	turn     uint64 // of the loop, in which a datagram was sent last
	held     bool   // what is in the queue waits for flushing, or for the burst's end
	listed   bool   // in Loop.bursts
	flushing Call
	failures []packetFailure // that SendTo found out about others
}

var _ backend.Owner = (*packetWriter)(nil)

// packetFailure is a datagram that could not be sent.
type packetFailure struct {
	err error
	to  PacketAddr
}

// queuedPacket is datagrams of one size to one place that wait to be sent: mem[off:end],
// or lent. The last of them may be shorter.
type queuedPacket struct {
	lent     []byte // a part of a message that was received; until the burst's end
	off, end int
	size     int // of a datagram
	to       PacketAddr
	info     backend.PacketInfo
	same     bool // to and info are those of the one before
	whole    bool // the last datagram has size bytes too, so that others may follow
	plain    bool // info is zero
}

// takes reports whether p can be one of q's datagrams, as far as its length goes.
func (q *queuedPacket) takes(p []byte) bool { return q.whole && 0 < len(p) && len(p) <= q.size }

// first is where the first datagram ends.
func (q *queuedPacket) first() int { return min(q.off+q.size, q.end) }

// bytes is how many q has.
func (q *queuedPacket) bytes() int { return q.end - q.off + len(q.lent) }

// data is q's bytes. mem is the queue's.
func (q *queuedPacket) data(mem []byte) []byte {
	if q.lent != nil {
		return q.lent
	}
	return mem[q.off:q.end:q.end]
}

// packets is how many datagrams q is.
func (q *queuedPacket) packets() int {
	if q.bytes() <= q.size {
		return 1
	}
	return (q.bytes() + q.size - 1) / q.size
}

// extend adds p to a q that takes it, or returns false if its bytes cannot be put after the
// others. p is lent if lent is not nil; mem is the queue's.
func (q *queuedPacket) extend(p, lent []byte, mem *[]byte) bool {
	n := len(q.lent)
	switch {
	case q.lent == nil && lent == nil:
		*mem = append(*mem, p...)
		q.end = len(*mem)
	case q.lent != nil && lent != nil && n < cap(q.lent) && &q.lent[:n+1][n] == &lent[0]:
		q.lent = q.lent[:n+len(p)]
	default:
		return false
	}
	q.whole = len(p) == q.size
	return true
}

// packetBatch is how many messages, each of one or more datagrams of one size to one
// place, a backend is given at once, and how many wait for the end of a turn or burst.
const packetBatch = 64

// limitMarks is how many times the high mark may be buffered.
const limitMarks = 4

// Datagrams are counted too, since an empty one has no bytes: so many make the
// high mark, a quarter of them the low one.
const packetsHigh = 1024

func (w *packetWriter) idle() bool { return w.head == len(w.queue) }

// waiting is how many datagrams are in the queue.
func (w *packetWriter) waiting() int { return w.count }

// crowded reports whether n bytes more are too many to be held. What is lent needs memory
// only if it cannot be sent.
func (w *packetWriter) crowded(n int) bool {
	return w.bytes-w.lent+n > w.high || w.bytes+n > limitMarks*w.high || len(w.queue)-w.head >= packetBatch || w.waiting() >= packetsHigh
}

// lend returns the datagram being handed over, as far as its memory goes on, if p is all of
// it and will leave before that memory is used again, and nil otherwise. Since no one may
// change it, it need not be copied.
func (w *packetWriter) lend(p []byte) []byte {
	l := w.e.loop
	if len(p) == 0 || len(p) != len(l.lent) || &p[0] != &l.lent[0] || len(p) > w.high {
		return nil
	}
	if !l.follows && !w.listed || !w.held && !w.idle() {
		return nil
	}
	return l.lent
}

// keep copies what is lent.
func (w *packetWriter) keep() {
	if w.lent == 0 {
		return
	}
	mem := make([]byte, 0, w.bytes)
	for i := w.head; i < len(w.queue); i++ {
		q := &w.queue[i]
		off := len(mem)
		mem = append(mem, q.data(w.mem)...)
		q.lent, q.off, q.end = nil, off, len(mem)
	}
	w.mem, w.lent = mem, 0
}

// SendTo sends p, which may be empty, as one datagram, or copies what cannot be
// sent at once: the caller may use p again. It never blocks. An error is about
// this datagram, which is dropped, and the endpoint lives on: the system's own
// as a *net.OpError, ErrSendBufferFull past four times the high mark (64 KiB, see
// WithWriteMarks) or 4096 datagrams, or ErrClosed after the close.
//
// The first datagram of a turn leaves at once, unless other datagrams that came together
// with the one being handed over are still to be: then it waits for what is sent inside
// their callbacks. Those after the first wait until the callbacks of the turn are through.
// What waits leaves by one system call, or by more where it is more than the write marks
// allow, 1,024 datagrams, or 64 runs of datagrams of one size to one address; what
// the system says against those goes to a PacketFailer.
//
// On an endpoint without an address of its own (":53") the system chooses from which
// of this machine's a datagram leaves, with one exception: inside
// PacketReceived, or the callbacks that stand for it, a datagram to the sender of the one being
// handed over leaves from the address that the sender asked, as it expects. An
// answer that is given later needs SendInfo with what AnswerInfo said.
func (e *PacketEndpoint) SendTo(p []byte, to PacketAddr) error {
	if e.rd.asked.local.IsValid() {
		info := e.answer(to)
		return e.send("SendTo", p, to, &info)
	}
	return e.send("SendTo", p, to, nil)
}

// Send is SendTo to the Peer of an endpoint that is connected; on others it fails with
// ENOTCONN.
func (e *PacketEndpoint) Send(p []byte) error {
	if err := e.loop.check("Send"); err != nil {
		return err
	}
	if !e.connected {
		return &net.OpError{Op: "write", Net: e.netw, Source: e.LocalAddr(), Err: sysError("sendto", syscall.ENOTCONN)}
	}
	return e.send("Send", p, e.peer, nil)
}

// send sends p; a nil info asks for nothing.
func (e *PacketEndpoint) send(method string, p []byte, to PacketAddr, info *backend.PacketInfo) error {
	if err := e.loop.check(method); err != nil {
		return err
	}
	if e.ended() {
		return ErrClosed
	}
	if e.feed != nil {
		return e.feed.sendTo(p, to, info, method == "SendInfo")
	}
	w := &e.wr
	lent := w.lend(p)
	if w.held && info == nil && e.loop.follows && w.extend(p, lent, &to) {
		return nil
	}
	if err := e.fits(p, to); err != nil {
		return e.sendError(err, to, len(p))
	}
	if w.held && w.crowded(len(p)) {
		w.pump()
		lent = w.lend(p) // what the backend keeps waits past the burst
	}
	waited := !w.idle()
	if waited && (w.bytes+len(p) > max(limitMarks*w.high, 1) || w.waiting() >= limitMarks*packetsHigh) {
		return ErrSendBufferFull
	}
	w.push(p, lent, to, info)
	switch l := e.loop; {
	case waited && !w.held:
		w.crossed()
		return nil
	case (l.follows || w.listed) && len(p) <= w.high:
		w.held = true
		if !w.listed {
			w.listed = true
			l.bursts = append(l.bursts, w)
		}
		return nil
	case w.held:
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
	if c.Err != nil {
		w.remove(1)
		return e.sendError(c.Err, to, len(p))
	}
	w.pop(1)
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
	case e.connected && to != e.peer && (!to.IP.IsValid() || zone.NamedPort(to.IP) != e.peer.IP):
		return &net.AddrError{Err: "the endpoint is connected to " + e.peer.String() + " and sends nowhere else", Addr: to.String()}
	case unix && to.IP.IsValid(), !unix && !to.IP.IsValid():
		return &net.AddrError{Err: "address is of another family than the endpoint", Addr: to.String()}
	case unix && to.Path == "", !unix && to.IP.Port() == 0:
		return &net.AddrError{Err: "address cannot be sent to", Addr: to.String()}
	case unix:
	case ip.Unmap().Is4() == e.v6 && !e.dual:
		return &net.AddrError{Err: "address is of another family than the endpoint", Addr: to.String()}
	case len(p) > maxUDP4 && ip.Unmap().Is4():
		return &MTUError{Most: maxUDP4}
	case len(p) > maxUDP6:
		return &MTUError{Most: maxUDP6}
	}
	return nil
}

// The least MTUs that the system believes, which anyone who guesses a port can send: with a
// smaller one it sends packets of these sizes (Linux's ip_rt_min_pmtu, RFC 8200 section 5).
const (
	leastMTU4 = 552
	leastMTU6 = 1280
)

// tooLong is what a router said of a datagram to an address.
func (e *PacketEndpoint) tooLong(mtu int, to PacketAddr) *MTUError {
	m := &MTUError{MTU: mtu}
	if v, err := e.loop.be.GetOption(e.h, backend.DontFragment); mtu <= 0 || err != nil || v != 1 {
		return m
	}
	if to.IP.Addr().Is4() {
		m.Most = max(mtu, leastMTU4) - 20 - 8
	} else {
		m.Most = max(mtu, leastMTU6) - 40 - 8
	}
	return m
}

// sendError is err, which the system returned for a datagram of n bytes.
func (e *PacketEndpoint) sendError(err error, to PacketAddr, n int) error {
	cause := sysError("sendto", err)
	if m, ok := errors.AsType[*MTUError](err); ok {
		cause = m
	} else if errors.Is(err, syscall.EMSGSIZE) {
		m := &MTUError{}
		if to.IP.IsValid() {
			m.Most = max(0, n-1)
		}
		cause = m
	}
	return &net.OpError{Op: "write", Net: e.netw, Source: e.LocalAddr(), Addr: to.NetAddr(), Err: cause}
}

// extend adds p to what is held, where it is a datagram like the one before, which asked for
// nothing either.
func (w *packetWriter) extend(p, lent []byte, to *PacketAddr) bool {
	q := &w.queue[len(w.queue)-1]
	if !q.plain || !q.takes(p) || !q.to.equal(to) || w.crowded(len(p)) || !q.extend(p, lent, &w.mem) {
		return false
	}
	w.added(p, lent)
	return true
}

// added counts a datagram.
func (w *packetWriter) added(p, lent []byte) {
	w.bytes += len(p)
	w.lent += len(lent)
	w.count++
}

// push adds p to the queue, copied unless it is lent; a nil info asks for nothing.
func (w *packetWriter) push(p, lent []byte, to PacketAddr, info *backend.PacketInfo) {
	var none backend.PacketInfo
	if info == nil {
		info = &none
	}
	if w.idle() {
		w.queue, w.head, w.mem = w.queue[:0], 0, w.mem[:0]
	} else if len(w.mem) > 2*limitMarks*w.high+chunk.Size || w.head > limitMarks*packetsHigh {
		w.compact()
	}
	w.added(p, lent)
	same := false
	if n := len(w.queue); n > w.head {
		last := &w.queue[n-1]
		same = last.to.equal(&to) && last.info == *info
		if same && last.takes(p) && last.extend(p, lent, &w.mem) {
			return
		}
	}
	off := len(w.mem)
	if lent == nil {
		w.mem = append(w.mem, p...)
	}
	w.queue = append(w.queue, queuedPacket{lent: lent, off: off, end: len(w.mem), size: len(p), to: to, info: *info, same: same, whole: true, plain: *info == none})
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
	n := min(len(w.queue)-w.head, packetBatch)
	if cap(w.packets) < n {
		w.packets = make([]backend.Packet, 0, min(2*n-1, packetBatch)) // most send one at a time
	}
	w.packets = w.packets[:n]
	w.op.Flags = 0
	if w.lent > 0 {
		w.op.Flags = backend.Now // the backend may not keep it
	}
	for i := range w.packets {
		q, k := &w.queue[w.head+i], &w.packets[i]
		k.Data, k.Segment = q.data(w.mem), 0
		if len(k.Data) > q.size {
			k.Segment = q.size
		}
		k.ToPeer = w.e.connected
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

// pop removes the first n datagrams of the queue, which the system has taken.
func (w *packetWriter) pop(n int) {
	before := w.bytes
	w.remove(n)
	if t := w.e.of.tenant; t != nil && w.e.feed == nil {
		t.left(before - w.bytes)
	}
}

// remove is pop for those that were not sent.
func (w *packetWriter) remove(n int) {
	w.count -= n
	for n > 0 {
		q := &w.queue[w.head]
		k := q.packets()
		if n < k {
			w.bytes -= n * q.size
			if q.lent == nil {
				q.off += n * q.size
			} else {
				q.lent = q.lent[n*q.size:]
				w.lent -= n * q.size
			}
			return
		}
		n -= k
		w.bytes -= q.bytes()
		w.lent -= len(q.lent)
		q.to, q.lent = PacketAddr{}, nil
		w.head++
	}
}

// settle takes a result: as many datagrams as it says are gone, or the first
// has failed.
func (w *packetWriter) settle(c *backend.Completion) {
	switch {
	case errors.Is(c.Err, backend.ErrAgain), errors.Is(c.Err, backend.ErrCanceled):
	case c.Err != nil:
		q := &w.queue[w.head]
		to, n := q.to, min(q.size, q.bytes())
		w.remove(1)
		w.failures = append(w.failures, packetFailure{w.e.sendError(c.Err, to, n), to})
	default:
		w.pop(max(1, min(c.N, w.waiting())))
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
		if errors.Is(c.Err, backend.ErrAgain) {
			w.keep()
		}
	}
	w.keep()
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
	if w.held || w.lent > 0 {
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
	w.queue, w.head, w.bytes, w.lent, w.count, w.held, w.failures = nil, 0, 0, 0, 0, false, nil
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
