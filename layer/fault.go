package layer

import (
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/weir-io/weir"
)

// Faults says what goes wrong with the bytes of one direction. The zero value
// means nothing does.
type Faults struct {
	// Latency delays every byte, and every piece is delayed further by a time
	// drawn evenly from 0 to Jitter. Bytes never overtake each other.
	Latency, Jitter time.Duration
	// Bandwidth is how many bytes a second go over the line; 0 means no bound.
	Bandwidth int64
	// Slice cuts the bytes into pieces of at most Slice bytes, which are handed
	// on in different turns and at least SliceDelay apart; 0 cuts nothing.
	Slice      int
	SliceDelay time.Duration
	// ResetChance is the probability, from 0 to 1, that a piece that passes
	// resets the connection. With ResetAfter, the connection is reset once that
	// many bytes have passed, and ResetChance is the probability that this
	// happens to a connection; 0 then means always.
	ResetChance float64
	ResetAfter  int64
	// BlackHole discards everything after BlackHoleAfter bytes have passed,
	// even the end of the stream: neither side is told.
	BlackHole      bool
	BlackHoleAfter int64
	// Window is how many bytes may be on their way at once, as in TCP; 0 means
	// 64 KiB. With Latency it bounds the rate: 64 KiB at 200 ms make 320 KiB a
	// second.
	Window int
}

// FaultConfig holds the faults of both directions: In for what is received, Out
// for what is sent.
type FaultConfig struct{ In, Out Faults }

// Fault returns a layer that does to connections what bad networks do. r makes
// all random choices; each connection seeds a generator of its own from it, so
// the same r and the same order of connections give the same faults. r is used
// under a lock.
func Fault(r *rand.Rand, c FaultConfig) Layer {
	var mu sync.Mutex
	for _, f := range []*Faults{&c.In, &c.Out} {
		if f.Window <= 0 {
			f.Window = 64 << 10
		}
	}
	return func(a Above) Above {
		return Above{Failed: a.Failed, Make: func(t weir.Transport) weir.Protocol {
			mu.Lock()
			draw := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
			mu.Unlock()
			f := &faulty{}
			f.in = newLane(t.Loop(), c.In, draw, f.pumpIn)
			f.out = newLane(t.Loop(), c.Out, draw, f.pumpOut)
			return f.Init(f, "fault", a)
		}}
	}
}

// ErrFault is the cause when Fault reset a connection. It also matches
// ECONNRESET.
var ErrFault error = faultError{}

type faultError struct{}

func (faultError) Error() string { return "reset on purpose" }
func (faultError) Unwrap() error { return syscall.ECONNRESET }

type faulty struct {
	Base
	in, out *lane
	closing bool // what is above has closed; out is being flushed
	resets  bool // and then what is below is reset
	gone    bool // what is below is lost; in is being flushed
	why     error
	over    bool // there is nothing more to flush
	starved bool // Write did not take everything
}

var (
	_ weir.Protocol    = (*faulty)(nil)
	_ weir.Carrier     = (*faulty)(nil)
	_ weir.Holder      = (*faulty)(nil)
	_ weir.Resetter    = (*faulty)(nil)
	_ weir.EOFReceiver = (*faulty)(nil)
	_ weir.WritePauser = (*faulty)(nil)
)

func (f *faulty) DataReceived(p []byte) (int, error) {
	if f.closing {
		return len(p), nil
	}
	swallows := f.in.swallows()
	n, reset := f.in.pass(len(p))
	switch {
	case swallows:
		n = len(p)
	case f.in.straight():
		f.Deliver(p[:n])
	default:
		if n = f.in.put(p[:n], f.Below().Loop().Now()); n < len(p) {
			f.HoldReading()
		}
		f.pumpIn()
	}
	if reset {
		f.Fail(ErrFault)
		return len(p), nil
	}
	return n, nil
}

func (f *faulty) Write(bufs [][]byte) (int, error) {
	total := 0
	for _, p := range bufs {
		for len(p) > 0 {
			if f.out.straight() && f.Blocked() {
				return total, nil
			}
			swallows := f.out.swallows()
			n, reset := f.out.pass(len(p))
			switch {
			case swallows:
				n = len(p)
			case n == 0 && !reset:
				f.starved = true
				return total, nil
			case f.out.straight():
				if _, err := f.Below().Write(p[:n]); err != nil {
					return total, err
				}
			default:
				f.out.put(p[:n], f.Below().Loop().Now())
				f.pumpOut()
			}
			if reset {
				return total, f.wrap(ErrFault)
			}
			total += n
			p = p[n:]
		}
	}
	return total, nil
}

// pumpIn hands up what is due.
func (f *faulty) pumpIn() {
	l := f.in
	for !f.over {
		if !f.closing && f.Paused() {
			if !f.paused && l.len() > 0 {
				l.timer.Set(0) // what is above says so itself when it is told, or when it wants bytes again
			}
			return
		}
		p, ok := l.due(f.Below().Loop().Now())
		if !ok {
			break
		}
		if !f.closing {
			f.Deliver(p)
		}
		l.take(len(p))
		if l.f.Slice > 0 {
			break
		}
	}
	if f.over {
		return
	}
	if f.held && l.len() <= l.f.Window/2 && !f.gone {
		f.ReleaseReading()
	}
	l.wait(f.Below().Loop().Now())
	if l.len() == 0 && l.ended {
		l.ended = false
		f.End(nil)
	}
	if l.len() == 0 && f.gone {
		f.over = true
		f.Base.ConnectionLost(f.why)
	}
}

// pumpOut hands down what is due.
func (f *faulty) pumpOut() {
	l := f.out
	for !f.Blocked() {
		p, ok := l.due(f.Below().Loop().Now())
		if !ok {
			break
		}
		_, err := f.Below().Write(p)
		l.take(len(p))
		if err != nil {
			l.clear()
			return // what is below is lost, and says so
		}
		if l.f.Slice > 0 {
			break
		}
	}
	if !f.Blocked() {
		l.wait(f.Below().Loop().Now())
	}
	if f.starved && l.len() < l.f.Window {
		f.starved = false
		f.Writable()
	}
	f.Moved()
	if l.len() == 0 {
		if l.ended {
			l.ended = false
			_ = f.Base.CloseWrite() // a loss is reported by ConnectionLost
		}
		switch {
		case f.resets:
			f.Base.Reset()
		case f.closing:
			f.Base.Close(false)
		}
	}
}

func (f *faulty) Held() int { return f.out.len() }

func (f *faulty) Reset() {
	f.resets = true
	f.Close(false)
}

func (f *faulty) EOFReceived(unused int) (bool, error) {
	if !f.in.swallows() {
		f.in.ended = true
		f.pumpIn()
	}
	return true, nil
}

func (f *faulty) CloseWrite() error {
	if !f.out.swallows() {
		f.out.ended = true
		f.pumpOut()
	}
	return nil
}

func (f *faulty) ResumeReading() {
	f.Base.ResumeReading()
	f.pumpIn()
}

func (f *faulty) ResumeWriting() {
	f.Base.ResumeWriting()
	f.pumpOut()
}

func (f *faulty) Close(abort bool) {
	if f.gone && !f.over {
		f.over = true
		f.stop()
		f.Base.ConnectionLost(f.why)
		return
	}
	if abort {
		f.over = true
		f.stop()
		f.Base.Close(true)
		return
	}
	f.closing = true
	f.in.timer.Stop()
	f.in.clear()
	f.ReleaseReading()
	f.pumpOut()
}

func (f *faulty) stop() {
	f.in.timer.Stop()
	f.out.timer.Stop()
	f.out.clear()
}

// ConnectionLost implements weir.Protocol. The end, whatever it is, comes after
// the bytes that are still on their way, unless the loop ended or the end was
// asked for here.
func (f *faulty) ConnectionLost(err error) {
	f.stop()
	if !errors.Is(err, weir.ErrLoopClosed) && !errors.Is(err, weir.ErrAborted) && !f.over && !f.closing && f.IsReady() && (f.in.len() > 0 || f.in.ended) {
		f.gone, f.why = true, err
		f.pumpIn()
		return
	}
	f.over = true
	f.Base.ConnectionLost(err)
}

// lane is one direction: bytes that are on their way, and when they arrive.
type lane struct {
	f     Faults
	draw  *rand.Rand
	timer *weir.Timer

	bytes []byte
	off   int
	parts []part
	first int
	last  time.Time // when the last of them arrives
	busy  time.Time // until when the line is busy

	passed  int64
	doomed  bool // to be reset after ResetAfter
	ended   bool // the end of the stream comes after them
	decided bool
}

// part is bytes that arrive together.
type part struct {
	at time.Time
	n  int
}

func newLane(l *weir.Loop, f Faults, draw *rand.Rand, pump func()) *lane {
	return &lane{f: f, draw: draw, timer: l.NewTimer(pump)}
}

// straight reports whether bytes pass straight through, so that nothing is ever
// on its way here.
func (l *lane) straight() bool {
	return l.f.Latency <= 0 && l.f.Jitter <= 0 && l.f.Bandwidth <= 0 && l.f.Slice <= 0
}

func (l *lane) swallows() bool { return l.f.BlackHole && l.passed >= l.f.BlackHoleAfter }

// pass decides what happens to n bytes that arrive: how many of them pass, and
// whether the connection is reset after them.
func (l *lane) pass(n int) (pass int, reset bool) {
	if l.swallows() {
		return n, false
	}
	if l.f.BlackHole {
		n = int(min(int64(n), l.f.BlackHoleAfter-l.passed))
	}
	switch {
	case l.f.ResetAfter > 0:
		if !l.decided {
			l.decided = true
			l.doomed = l.f.ResetChance <= 0 || l.draw.Float64() < l.f.ResetChance
		}
		if l.doomed && l.passed+int64(n) >= l.f.ResetAfter {
			n, reset = int(l.f.ResetAfter-l.passed), true
		}
	case l.f.ResetChance > 0:
		reset = l.draw.Float64() < l.f.ResetChance
	}
	if room := l.f.Window - l.len(); !l.straight() && n > room {
		n, reset = max(room, 0), false // the rest is offered again
	}
	l.passed += int64(n)
	return n, reset
}

// put sends p on its way; pass has made sure that there is room.
func (l *lane) put(p []byte, now time.Time) int {
	size := len(p)
	if l.f.Slice > 0 {
		size = l.f.Slice
	}
	for at := 0; at < len(p); at += size {
		n := min(size, len(p)-at)
		when := now
		if l.f.Bandwidth > 0 {
			l.busy = later(l.busy, now).Add(time.Duration(float64(n) / float64(l.f.Bandwidth) * 1e9))
			when = l.busy
		}
		when = when.Add(l.f.Latency)
		if l.f.Jitter > 0 {
			when = when.Add(time.Duration(l.draw.Int64N(int64(l.f.Jitter))))
		}
		if l.len() > 0 {
			l.last = l.last.Add(l.f.SliceDelay)
		}
		l.last = later(l.last, when)
		l.parts = append(l.parts, part{l.last, n})
		l.bytes = append(l.bytes, p[at:at+n]...)
	}
	return len(p)
}

func (l *lane) len() int { return len(l.bytes) - l.off }

// due returns the next bytes that have arrived.
func (l *lane) due(now time.Time) ([]byte, bool) {
	if l.first == len(l.parts) || l.parts[l.first].at.After(now) {
		return nil, false
	}
	return l.bytes[l.off : l.off+l.parts[l.first].n], true
}

// laneKept is the most memory that an empty lane keeps.
const laneKept = 4 << 10

// take forgets the n bytes that due returned.
func (l *lane) take(n int) {
	if l.first == len(l.parts) {
		return // cleared meanwhile
	}
	l.off += n
	l.first++
	switch {
	case l.first == len(l.parts):
		l.clear()
	case l.off > len(l.bytes)/2:
		l.bytes = append(l.bytes[:0], l.bytes[l.off:]...)
		l.parts = append(l.parts[:0], l.parts[l.first:]...)
		l.off, l.first = 0, 0
	}
}

func (l *lane) clear() {
	l.bytes, l.parts, l.off, l.first = l.bytes[:0], l.parts[:0], 0, 0
	if cap(l.bytes) > laneKept {
		l.bytes, l.parts = nil, nil
	}
}

// wait sets the timer for the next arrival.
func (l *lane) wait(now time.Time) {
	if l.first < len(l.parts) {
		l.timer.Set(max(0, l.parts[l.first].at.Sub(now)))
	}
}
