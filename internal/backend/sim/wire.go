package sim

import (
	"math"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// How long TCP tries. Linux's figures.
const (
	retryFirst  = 200 * time.Millisecond
	retryLast   = 2 * time.Minute
	retryMax    = 15
	orphanMax   = 8 // of a closed socket
	synFirst    = time.Second
	synMax      = 6
	routeFailed = 3 * time.Second // how long finding out takes that there is no such host
)

// after is a moment from now, which does not overflow.
func (w *World) after(d time.Duration) int64 {
	if d > time.Duration(math.MaxInt64-w.now) {
		return math.MaxInt64
	}
	return w.now + int64(max(0, d))
}

// push puts an event of a socket into the queue and its host's books.
func (w *World) push(at int64, ev event) {
	ev.host = ev.s.host
	ev.host.pending++
	w.queue.push(at, ev)
}

// current reports whether an event still counts.
func (ev *event) current() bool {
	switch ev.kind {
	case evHeal, evRestart, evDatagram, evUnreachable, evProgram:
		return true
	case evArrive, evAck, evEstablish:
		return ev.gen == ev.s.out.epoch
	case evLate:
		return ev.gen == ev.s.opGen[ev.place]
	default:
		return ev.gen == ev.s.gen
	}
}

// cut reports whether nothing that s sends reaches its peer.
func (w *World) cut(s *socket) bool {
	if s.fate != nil && s.fate.kind == fateSilent && s.fate.met && !w.healed {
		return true
	}
	if s.peer != nil {
		return w.hostsCut(s.host, s.peer.host)
	}
	return false
}

func (w *World) hostsCut(a, b *Host) bool {
	if a == b {
		return a.down
	}
	return a.down || b.down || len(w.cuts) > 0 && w.cuts[link(a, b)]
}

// delay draws how long a segment from a to b takes.
func (w *World) delay(a, b *Host) time.Duration {
	f := &w.faults
	if a == b {
		return max(0, f.Loopback)
	}
	d := f.Latency
	if len(w.latencies) > 0 {
		if own, ok := w.latencies[link(a, b)]; ok {
			d = own
		}
	}
	if f.Jitter > 0 {
		d += w.random[forLatency].upTo(f.Jitter)
	}
	return d
}

// arrival returns when something that s sends now arrives. What one socket
// sends arrives in the order it was sent.
func (w *World) arrival(s *socket) int64 {
	at := max(w.after(w.delay(s.host, s.peer.host)), s.out.lastAt)
	s.out.lastAt = at
	return at
}

// transmit puts on the wire what the window allows.
func (w *World) transmit(s *socket) {
	f := &s.out
	if s.state != open || s.peer == nil || f.retrying {
		return
	}
	for {
		n := int64(min(f.written, f.edge)) - int64(f.sent)
		if n < 0 {
			n = 0
		}
		whole := f.sent+uint64(n) == f.written
		fin := f.fin && !f.finSent && whole
		if n == 0 && !fin {
			break
		}
		again := false
		if n > 1 && w.random[forCuts].chance(w.faults.CutWire) {
			n = int64(w.random[forCuts].cut(int(n)))
			again = f.sent+uint64(n) != f.written
			fin = fin && !again
		}
		f.sent += uint64(n)
		f.finSent = f.finSent || fin
		w.push(w.arrival(s), event{kind: evArrive, s: s, gen: f.epoch, pos: f.sent, fin: fin})
		if !again {
			break
		}
	}
	if f.written > f.sent && f.sent == f.edge && s.kind == tcp {
		w.openWindow(s)
	}
}

// window is how far the peer of s lets it send.
func (w *World) window(s *socket) uint64 {
	f := &s.out
	if s.kind != tcp {
		return noEdge
	}
	if f.shutUntil > w.now && !w.healed {
		return f.edge
	}
	return max(f.edge, f.read+uint64(s.peer.opts.recvBuffer))
}

// openWindow tells s of more window, if there is some that it does not know of.
func (w *World) openWindow(s *socket) {
	if !s.out.ackPending && s.state == open && s.peer != nil && w.window(s) > s.out.edge {
		w.acknowledge(s)
	}
}

// acknowledge sends s word of what has reached its peer. One such word at a
// time is under way.
func (w *World) acknowledge(s *socket) {
	f := &s.out
	if s.kind != tcp || s.gone || s.state != open {
		return
	}
	if f.ackPending {
		f.ackAgain = true
		return
	}
	f.ackPending = true
	at := w.after(w.delay(s.peer.host, s.host))
	w.push(at, event{kind: evAck, s: s, gen: f.epoch, pos: f.arrived, edge: w.window(s), fin: f.finArrived})
}

// arrive is evArrive: bytes of s reach its peer.
func (w *World) arrive(ev *event) {
	s := ev.s
	r, f := s.peer, &s.out
	if w.cut(s) || s.host != r.host && w.random[forLoss].chance(w.faults.Loss) {
		w.lose(s)
		return
	}
	if r.gone && !r.closed || r.gone && r.state == dead {
		// A crashed host that is back, or a connection that was reset, knows
		// nothing of it.
		w.answerReset(s)
		return
	}
	if r.state == embryo {
		w.enqueue(r)
	}
	if r.state == dead {
		w.answerReset(s)
		return
	}
	if r.closed && ev.pos > f.arrived {
		if r.kind == tcp {
			w.answerReset(s)
			if r.state == open {
				r.out.void()
				r.out.written = r.out.arrived
				r.state = dead
				r.settle()
			}
		}
		f.arrived = max(f.arrived, ev.pos)
		r.discard()
		return
	}
	f.arrived = max(f.arrived, ev.pos)
	if ev.fin {
		f.finArrived = true
	}
	r.kick()
	w.acknowledge(s)
	if s.fate != nil && !w.healed {
		w.meet(s)
	}
}

// acked is evAck.
func (w *World) acked(ev *event) {
	s := ev.s
	f := &s.out
	f.ackPending = false
	if s.state != open {
		return
	}
	if w.cut(s) {
		w.lose(s)
		return
	}
	if ev.pos > f.acked || ev.fin {
		f.tries = 0
	}
	f.acked = max(f.acked, ev.pos)
	f.edge = max(f.edge, ev.edge)
	f.finAcked = f.finAcked || ev.fin
	w.transmit(s)
	if f.ackAgain {
		f.ackAgain = false
		w.acknowledge(s)
	}
	if s.closed {
		s.settle()
	} else if s.ops[placeWrite] != nil || s.ops[placeReady] != nil {
		s.kick()
	}
}

// lose loses what s has on the wire, to be sent again after a while.
func (w *World) lose(s *socket) {
	f := &s.out
	w.record(Dropped, s.host, s.id, int64(f.sent-f.arrived), 0)
	f.void()
	if f.retrying {
		return
	}
	if f.tries == 0 {
		f.since = w.now
	}
	w.retryLater(s)
}

func (w *World) retryLater(s *socket) {
	f := &s.out
	d := min(retryLast, retryFirst<<min(f.tries, 20))
	f.retrying = true
	w.push(w.after(d), event{kind: evRetry, s: s, gen: s.gen})
}

// retry is evRetry.
func (w *World) retry(s *socket) {
	f := &s.out
	f.retrying = false
	if s.state != open {
		return
	}
	f.tries++
	patience := time.Duration(s.opts.userTimeout) * time.Millisecond
	lapsed := f.tries > retryMax || s.closed && f.tries > orphanMax
	if patience > 0 {
		lapsed = time.Duration(w.now-f.since) >= patience
	}
	if lapsed {
		s.die(syscall.ETIMEDOUT)
		return
	}
	if w.cut(s) {
		w.retryLater(s)
		return
	}
	f.lastAt = w.now
	if s.peer.gone || s.peer.state == dead || f.greet && s.peer.state == embryo {
		// A segment without bytes finds out, or tells.
		w.push(w.arrival(s), event{kind: evArrive, s: s, gen: f.epoch, pos: f.arrived})
	}
	w.transmit(s)
	w.acknowledge(s)
}

// sendReset resets s's peer, behind what is on its way to it.
func (w *World) sendReset(s *socket) {
	if s.peer == nil || s.peer.gone && s.peer.state == dead {
		return
	}
	w.push(w.arrival(s), event{kind: evReset, s: s.peer, gen: s.peer.gen})
}

// answerReset resets s, which has sent to somebody who is not there.
func (w *World) answerReset(s *socket) {
	if s.gone || s.state == dead {
		return
	}
	w.push(w.after(w.delay(s.peer.host, s.host)), event{kind: evReset, s: s, gen: s.gen})
}

// reset is evReset.
func (w *World) reset(s *socket) {
	if s.peer != nil && w.cut(s) {
		// A reset is not sent twice. But a sender whose bytes were not acknowledged
		// sends them again, and gets another one in answer.
		if f := &s.out; s.state == open && (f.acked < f.sent || f.finSent && !f.finAcked) {
			w.lose(s)
		}
		return
	}
	switch {
	case s.state == embryo:
		w.dropEmbryo(s)
	case s.state != open:
	case s.closed:
		s.die(syscall.ECONNRESET)
	case s.peer.out.finArrived && s.out.finAcked:
		// Both ends are over: the connection only waits for stragglers.
	case s.peer.out.finArrived && !s.wshut:
		s.die(syscall.EPIPE)
	default:
		s.die(syscall.ECONNRESET)
	}
}

// connect begins a connect. It returns EINPROGRESS, or how it ended.
func (w *World) connect(s *socket, to *backend.Addr) syscall.Errno {
	switch {
	case to == nil:
		return syscall.EINVAL
	case s.state == dialing:
		return syscall.EALREADY
	case s.state == open:
		return syscall.EISCONN
	case s.state == listening:
		return syscall.EOPNOTSUPP
	case s.kind == local && to.Family == backend.Unix:
		return w.connectLocal(s, to.Path)
	case s.kind != tcp || to.Family != backend.Inet:
		return syscall.EAFNOSUPPORT
	}
	return w.dial(s, to)
}

// syn is evSyn: the wish reaches the other host.
func (w *World) syn(ev *event) {
	s := ev.s
	h := w.dest(s)
	if w.hostsCut(s.host, h) || s.fate != nil && s.fate.kind == fateSilent && s.fate.after == 0 && !w.healed {
		w.synLater(s)
		return
	}
	back := w.after(w.delay(h, s.host))
	l := h.find(s.remote.IP)
	if l == nil && s.local.IP == s.remote.IP {
		w.dialItself(s)
		return
	}
	if l == nil || s.fate != nil && s.fate.kind == fateRefused && !w.healed {
		w.push(back, event{kind: evRefuse, s: s, gen: s.gen})
		return
	}
	if l.listener.full() {
		w.synLater(s)
		return
	}
	c := w.newSocket(h, tcp)
	c.state, c.v6, c.opts, c.fate = embryo, l.v6, l.opts, s.fate
	c.local, c.remote = s.remote, s.local // IPv4 through an IPv6 socket looks like what it is
	c.via = l
	l.listener.embryos++
	join(s, c)
	w.push(back, event{kind: evSynAck, s: s, gen: s.gen})
}

// dialItself connects s with itself, as TCP does where its own port is the one
// that it asks for. Its stand-in for a peer says nothing and takes nothing.
func (w *World) dialItself(s *socket) {
	c := w.newSocket(s.host, tcp)
	c.v6, c.opts = s.v6, s.opts
	c.local, c.remote = s.remote, s.local
	join(s, c)
	s.state, c.state = open, open
	c.closed, c.wshut, c.out.fin = true, true, true
	w.transmit(c)
	s.kick()
}

func (w *World) synLater(s *socket) {
	w.push(w.after(synFirst<<s.tries), event{kind: evSynRetry, s: s, gen: s.gen})
}

// synRetry is evSynRetry.
func (w *World) synRetry(s *socket) {
	if s.tries++; s.tries > synMax {
		w.failDial(s, syscall.ETIMEDOUT)
		return
	}
	w.push(w.after(w.delay(s.host, w.dest(s))), event{kind: evSyn, s: s, gen: s.gen})
}

// failDial ends a connect in vain. The socket may connect again.
func (w *World) failDial(s *socket, errno syscall.Errno) {
	s.gen++
	s.state = idle
	s.err = errno
	s.host.unpair(s)
	s.kick()
	s.settle()
}

// synAcked is evSynAck.
func (w *World) synAcked(s *socket) {
	c := s.peer
	if w.cut(s) || c.state != embryo {
		if c.state == embryo {
			w.dropEmbryo(c)
		}
		s.peer = nil
		w.synLater(s)
		return
	}
	s.state = open
	s.out.greet = true
	w.push(w.arrival(s), event{kind: evEstablish, s: s, gen: s.out.epoch})
	s.kick()
}

// established is evEstablish.
func (w *World) established(s *socket) {
	c := s.peer
	switch {
	case w.cut(s):
		w.lose(s)
	case c.state == embryo:
		w.enqueue(c)
		if c.fate != nil && !w.healed {
			w.meet(s)
		}
	case c.gone:
		w.answerReset(s)
	}
}

// enqueue puts a connection into its listener's queue.
func (w *World) enqueue(c *socket) {
	l := c.via
	c.peer.out.greet = false
	c.via = nil
	c.state = open
	if l.state != listening {
		w.sendReset(c)
		w.shutDown(c)
		return
	}
	l.listener.embryos--
	l.listener.push(c)
	l.kick()
}

// dropEmbryo forgets a connection that never came to be.
func (w *World) dropEmbryo(c *socket) {
	if l := c.via; l != nil && l.state == listening {
		l.listener.embryos--
	}
	c.via = nil
	c.state, c.closed = dead, true
	c.forget()
}

// shutDown ends a socket of which nothing more is to be sent.
func (w *World) shutDown(s *socket) {
	s.closed, s.wshut = true, true
	s.state = dead
	s.out.void()
	s.out.written = s.out.arrived
	s.out.tidy(&w.pool)
	s.discard()
	s.forget()
}
