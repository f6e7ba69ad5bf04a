package sim

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/tests/internal/rig"
)

// loopEnd is a loop that ends among its connections, in one of many ways, while
// others post to it. Another loop serves afterwards.
type loopEnd struct {
	s      *seedRun
	l      *weir.Loop
	after  *weir.Loop
	served []*talker
	mk     func() *talker
	calm   bool // no connection breaks by itself

	ended   <-chan struct{} // Shutdown's
	due     bool            // Close is to be called
	inside  bool            // Close is called in another loop's callback
	done    bool
	cut     *weir.CutError
	posted  int // that were accepted
	ran     int
	dropped int // that Close reported
}

// playLoopEnds: what a loop has accepted when it ends is delivered, or reported
// as cut; so are its posts.
func playLoopEnds(s *seedRun) {
	e := &loopEnd{s: s, after: s.server, calm: s.r.IntN(2) == 0, inside: s.r.IntN(3) == 0}
	if e.calm {
		f := s.sim.Faults()
		f.Reset, f.Silence, f.ResetPaused, f.WriteError, f.ShutError, f.Partition = 0, 0, 0, 0, 0, 0
		s.sim.SetFaults(f)
	}
	flush := time.Duration(s.r.Int64N(int64(time.Millisecond) << s.r.IntN(14)))
	e.l = s.sim.Host("server").NewLoop(weir.WithFlushTime(flush), weir.WithErrorHandler(e.report))
	s.server = e.l
	e.mk = func() *talker {
		p := s.talker()
		p.size = s.r.IntN(1 << s.r.IntN(20))
		p.slow = s.r.IntN(6)
		p.end = endNot + s.r.IntN(ends)
		p.onEnd = func(p *talker) { p.end = endHalf; p.work() }
		return p
	}
	s.serve(func() *talker {
		p := e.mk()
		e.served = append(e.served, p)
		p.onWork = func(*talker) bool {
			if s.r.IntN(8) == 0 {
				e.post()
			}
			return false
		}
		return p
	})
	s.dial(1+s.r.IntN(6), time.Second, e.mk)
	at := time.Duration(s.r.Int64N(int64(10*time.Millisecond) << s.r.IntN(9)))
	s.client.After(at, e.begin)
	for range s.r.IntN(20) {
		s.client.After(at/2+time.Duration(s.r.Int64N(int64(at+time.Second))), e.post)
	}
	s.sim.OnStep(func() {
		if !e.inside {
			e.close()
		}
	})
	s.finish = e.finish
}

func (e *loopEnd) report(err error) {
	var d *weir.DroppedError
	if errors.As(err, &d) {
		e.dropped += d.Callbacks
		return
	}
	e.s.sim.Failures = append(e.s.sim.Failures, err)
}

func (e *loopEnd) post() {
	_, err := e.l.Post(func() { e.ran++ })
	switch {
	case err == nil && e.done:
		e.s.bad("a post is accepted after Close")
	case err == nil:
		e.posted++
	case !errors.Is(err, weir.ErrLoopClosed):
		e.s.bad("Post: %v", err)
	}
}

// begin begins the end, in a callback of the client.
func (e *loopEnd) begin() {
	s := e.s
	d := time.Duration(s.r.Int64N(int64(time.Millisecond) << s.r.IntN(24)))
	switch s.r.IntN(4) {
	case 0:
		e.ended = e.l.Shutdown(d)
	case 1:
		_, err := e.l.Post(func() {
			if err := e.l.Close(); !errors.Is(err, weir.ErrLoopRunning) {
				s.bad("Close in a callback of the loop's own: %v", err)
			}
			e.ended = e.l.Shutdown(d)
		})
		if err != nil {
			s.bad("Post: %v", err)
		}
	case 2:
		e.l.Stop()
		e.due = true
	default:
		e.due = true
	}
	if e.inside {
		e.poll(time.Millisecond)
	}
}

// poll closes the loop, when it is time, in a callback of the client.
func (e *loopEnd) poll(wait time.Duration) {
	if e.close(); !e.done {
		e.s.client.After(wait, func() { e.poll(2 * wait) })
	}
}

func (e *loopEnd) close() {
	if e.ended != nil && !e.due {
		select {
		case <-e.ended:
			e.due = true
		default:
		}
	}
	if !e.due || e.done {
		return
	}
	e.due = false
	err := e.l.Close()
	e.done = true
	if !errors.As(err, &e.cut) && err != nil {
		e.s.bad("Close: %v", err)
	}
	e.post()
	if e.ran+e.dropped != e.posted {
		e.s.bad("%d posts were accepted, %d ran and %d were told as dropped", e.posted, e.ran, e.dropped)
	}
	for _, p := range e.served {
		if p.t != nil && !p.lost {
			e.s.bad("a connection outlives its loop (G1)")
		}
	}
	e.s.server = e.after
	e.s.serveAgain(e.mk)
}

// finish checks, at rest, what became of the bytes.
func (e *loopEnd) finish() {
	if !e.done {
		e.s.bad("the loop did not end (G10)")
		return
	}
	accepted, made := 0, 0
	for _, p := range e.served {
		if p.t == nil {
			continue
		}
		q := p.peer()
		lost := p.accepted
		if q != nil {
			lost -= q.got
		}
		accepted, made = accepted+p.accepted, made+1
		// A connection that reads nothing when a reset comes, and waits for room to
		// write, is lost with what its system holds.
		if lost > 0 && e.calm && e.cut == nil && q != nil && !q.quit && !(q.asleep && q.reason != nil) &&
			(p.reason == nil || errors.Is(p.reason, weir.ErrLoopClosed)) && !errors.Is(q.reason, syscall.ETIMEDOUT) {
			e.s.bad("%d of %d bytes that the loop had accepted did not come, and nothing was said to be cut (G2); the ends were lost with %v and %v",
				lost, p.accepted, p.reason, q.reason)
		}
	}
	if e.cut != nil && (e.cut.Bytes > accepted || e.cut.Connections > made) {
		e.s.bad("%v, of %d bytes and %d connections", e.cut, accepted, made)
	}
}

// exit is a layer below TLS whose side can leave in a way that TLS never would.
type exit struct {
	layer.Base
	deaf bool // nothing more leaves, not even the end
	bare bool // the end left without a close_notify
}

var _ weir.Carrier = (*exit)(nil)

// leave ends the stream in a way that TLS never would.
func (x *exit) leave() {
	x.bare = true
	_ = x.Below().WriteEOF()
}

func (x *exit) Write(bufs [][]byte) (n int, err error) {
	if !x.deaf && !x.bare {
		return x.Base.Write(bufs)
	}
	for _, b := range bufs {
		n += len(b)
	}
	return n, nil
}

func (x *exit) CloseWrite() error {
	if x.deaf || x.bare {
		return nil
	}
	return x.Base.CloseWrite()
}

// Close implements weir.Carrier: a side that answers nothing stays for a while.
func (x *exit) Close(abort bool) {
	if x.deaf && !abort {
		x.Below().Loop().After(20*time.Minute, x.Below().Abort)
		return
	}
	x.Base.Close(abort)
}

// playTLSEnds: the ends of TLS, with its close_notify, without it and without an
// answer to it. Some sides continue to write when the other has left.
func playTLSEnds(s *seedRun) {
	// A fault that makes a handshake take too long does not count as one that ends.
	f := s.sim.Faults()
	f.Latency, f.Jitter = min(f.Latency, 200*time.Millisecond), min(f.Jitter, 200*time.Millisecond)
	f.SendBuffer, f.ReceiveBuffer = max(f.SendBuffer, 512), max(f.ReceiveBuffer, 512)
	s.sim.SetFaults(f)
	own, trust := s.sim.TLS(s.TB.(*testing.T))
	exits := map[[2]string]*exit{}
	way := func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(t weir.Transport) weir.Protocol {
			x := &exit{}
			exits[[2]string{t.LocalAddr().String(), t.RemoteAddr().String()}] = x
			return x.Init(x, "exit", a)
		}}
	}
	s.under, s.underServe = layer.Stack(way, layer.TLS(trust)), layer.Stack(way, layer.TLSServer(own))
	mk := func() *talker {
		p := s.talker()
		p.size = s.r.IntN(1 << s.r.IntN(17))
		p.slow = s.r.IntN(5)
		p.end = endNot + s.r.IntN(ends)
		p.failer = s.r.IntN(2) == 0
		p.late = seesPeerGone
		goes := s.r.IntN(2) == 0
		p.onEnd = func(p *talker) {
			if goes {
				p.drip(time.Duration(1+s.r.IntN(300)) * time.Second)
				return
			}
			p.end = endHalf
			p.work()
		}
		how := s.r.IntN(6)
		p.onWork = func(p *talker) bool {
			x := exits[[2]string{p.t.LocalAddr().String(), p.t.RemoteAddr().String()}]
			switch {
			case how == 0 && p.end != endNot && !x.bare:
				x.leave()
				p.mute = true
			case how == 1:
				x.deaf, p.mute = true, true
			}
			return false
		}
		return p
	}
	s.serve(mk)
	s.dial(1+s.r.IntN(4), time.Second, mk)
}

// drip writes a little every so often, until the connection is lost or two hours
// have passed.
func (p *talker) drip(every time.Duration) {
	left := int(2 * time.Hour / every)
	var next func()
	next = func() {
		if p.lost || p.closed {
			return
		}
		if !p.paused {
			b := make([]byte, 1000)
			for i := range b {
				b[i] = rig.Pattern(p.sent + i)
			}
			p.sent, p.size = p.sent+len(b), p.size+len(b)
			if p.write(b) != nil {
				return
			}
		}
		if left--; left > 0 {
			p.t.Loop().After(every, next)
		}
	}
	next()
}

// seesPeerGone checks a side that continues to write: when the peer has been gone
// for an hour it must have been told.
func seesPeerGone(p *talker) {
	if q := p.peer(); p.futile > 0 && !p.told && !p.mute && p.s.sim.Now()-p.futileAt > time.Hour {
		p.s.bad("the peer left %v ago with %v; %d bytes were taken since, and nothing was told (L3)", p.s.sim.Now()-q.lostAt, q.reason, p.futile)
	}
}

// playPausedReaders: readers that pause for hours and write meanwhile are told
// of their peer's end.
func playPausedReaders(s *seedRun) {
	mk := func() *talker {
		p := s.talker()
		p.size = s.r.IntN(1 << s.r.IntN(16))
		p.end = endNot + s.r.IntN(ends)
		p.failer = s.r.IntN(2) == 0
		p.late = seesPeerGone
		p.onEnd = func(*talker) {}
		pauses, every := s.r.IntN(2) == 0, time.Duration(1+s.r.IntN(10))*time.Minute
		p.onMade = func(p *talker) {
			if p.held = pauses; pauses {
				p.t.PauseReading()
			}
			if p.end == endNot {
				p.drip(every)
			}
		}
		return p
	}
	s.serve(mk)
	s.dial(1+s.r.IntN(4), time.Second, mk)
}
