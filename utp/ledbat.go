package utp

import "time"

const (
	// target is the delay that a connection lets queues add (RFC 6817, section 2.3;
	// BEP 29).
	target = 100 * time.Millisecond
	// gainMax is how many bytes the window grows in a round trip without any queue.
	gainMax = 3000
	// baseHistory is how many minutes the base delay remembers.
	baseHistory = 10
	// currentFilter is how many samples the current delay is the least of.
	currentFilter = 4
	// driftMax is how far one correction for clocks that run apart may go.
	driftMax = 10 * time.Millisecond
	// restEvery is the least time from one rest to the next, and restShare how many times
	// as long as a rest it is at least.
	restEvery = 10 * time.Second
	restShare = 9
	// windowMin is how small the window may get, in packets.
	windowMin = 2
	// windowFirst is how large it is at first, in packets.
	windowFirst = 4
)

// delays is the history of one-way delays of one direction: differences of two clocks
// in microseconds, which wrap, and of which only changes mean anything.
type delays struct {
	base    [baseHistory]uint32 // the least of each minute
	n       int                 // how many of them there are
	minute  time.Duration       // when the newest began
	current [currentFilter]uint32
	at      int
	seen    bool
}

func less(a, b uint32) bool { return int32(a-b) < 0 }

// add notes a sample.
func (d *delays) add(sample uint32, now time.Duration) {
	switch {
	case !d.seen:
		d.seen = true
		d.base[0], d.n, d.minute = sample, 1, now
		for i := range d.current {
			d.current[i] = sample
		}
	case now-d.minute >= time.Minute:
		copy(d.base[1:], d.base[:])
		d.base[0], d.minute = sample, now
		d.n = min(d.n+1, baseHistory)
	case less(sample, d.base[0]):
		d.base[0] = sample
	}
	d.current[d.at] = sample
	d.at = (d.at + 1) % currentFilter
}

// least is the base delay.
func (d *delays) least() uint32 {
	m := d.base[0]
	for _, b := range d.base[1:d.n] {
		if less(b, m) {
			m = b
		}
	}
	return m
}

// shift moves the base: the clocks have moved apart.
func (d *delays) shift(by uint32) {
	for i := range d.n {
		d.base[i] += by
	}
}

// queueing is how much of the current delay is not the path's own.
func (d *delays) queueing() time.Duration {
	if !d.seen {
		return 0
	}
	m := d.current[0]
	for _, c := range d.current[1:] {
		if less(c, m) {
			m = c
		}
	}
	if base := d.least(); less(base, m) {
		return time.Duration(m-base) * time.Microsecond
	}
	return 0
}

// ledbat is the congestion control of one connection (RFC 6817).
type ledbat struct {
	window   float64 // bytes that may be in flight
	ssthresh float64
	slow     bool   // slow start
	ours     delays // of what we send, measured by the peer
	theirs   delays // of what the peer sends
	largest  float64

	// Now and then the window shrinks to its least, so that a queue of our own making
	// empties and the path's own delay is seen. A sender that came while others had filled the
	// queue, and takes that for the path's delay, would otherwise leave them nothing
	// (LEDBAT++, draft-irtf-iccrg-ledbat-plus-plus, section 4.4).
	rtt     time.Duration // the last round trip
	restAt  time.Duration // when the next rest begins; 0: not set
	resting bool
	rested  time.Duration // when the last one began
	before  float64       // what the window was
}

func (c *ledbat) init(mss, largest int) {
	c.largest = float64(largest)
	c.window = float64(min(windowFirst*mss, largest))
	c.ssthresh = c.largest
	c.slow = true
}

// heard notes the delay of a packet that came.
func (c *ledbat) heard(sample uint32, now time.Duration) {
	if !c.theirs.seen {
		c.theirs.add(sample, now)
		return
	}
	before := c.theirs.least()
	c.theirs.add(sample, now)
	// The base delay of a path does not fall while nothing but queues change. If that
	// of the other direction falls, the peer's clock is the slower one, and our own
	// base rises by as much.
	if after := c.theirs.least(); less(after, before) {
		if by := before - after; time.Duration(by)*time.Microsecond <= driftMax {
			c.ours.shift(by)
		}
	}
}

// acked grows or shrinks the window. bytes were acknowledged; sample is the delay that
// the peer measured, 0 for none; rtt is the least round trip, 0 for unknown, which
// bounds it; full says that the window was the limit.
func (c *ledbat) acked(bytes, mss int, sample uint32, rtt, now time.Duration, full bool) {
	if sample != 0 {
		c.ours.add(sample, now)
	}
	queue := c.ours.queueing()
	if rtt > 0 {
		queue = min(queue, rtt)
	}
	if bytes == 0 || c.rest(mss, rtt, now, full) {
		return
	}
	if c.slow && queue > target*9/10 {
		c.slow = false
		c.ssthresh = c.window
	}
	switch {
	case c.slow && full:
		c.window += float64(bytes)
		if c.window >= c.ssthresh {
			c.slow = false
		}
	case c.slow:
	default:
		off := float64(target-queue) / float64(target)
		off = max(off, -1)
		switch {
		case off < 0:
			// By a share of itself, so that of two the larger one gives more.
			c.window += off * float64(bytes) / 2
		case full:
			c.window += gainMax * off * float64(bytes) / max(c.window, float64(bytes))
		}
	}
	c.clamp(mss)
}

// rest begins and ends rests, and reports whether there is one.
func (c *ledbat) rest(mss int, rtt, now time.Duration, full bool) bool {
	if rtt > 0 {
		c.rtt = rtt
	}
	switch {
	case c.resting && now-c.rested < 2*c.rtt:
		return true
	case c.resting:
		c.resting, c.restAt = false, 0
		c.ssthresh, c.slow = c.before, true
	case c.slow:
	case c.restAt == 0 && c.rested == 0:
		c.restAt = now + 2*c.rtt // after the first slow start
	case c.restAt == 0:
		c.restAt = now + max(restEvery, restShare*(now-c.rested))
	case now >= c.restAt && full:
		c.resting, c.rested, c.before = true, now, c.window
		c.window = float64(windowMin * mss)
		return true
	}
	return false
}

// lost halves the window, once for what one round trip lost.
func (c *ledbat) lost(mss int) {
	if c.resting {
		c.before /= 2
		return
	}
	c.window /= 2
	c.ssthresh = c.window
	c.slow = false
	c.clamp(mss)
}

// timedOut begins again with one packet.
func (c *ledbat) timedOut(mss int) {
	c.ssthresh = max(c.window/2, float64(windowMin*mss))
	c.window = float64(mss)
	c.slow, c.resting = true, false
}

// idle is called when nothing was sent for a while: what the window was says nothing
// about the path now.
func (c *ledbat) idle(mss int) {
	if first := float64(windowFirst * mss); c.window > first {
		c.ssthresh = max(c.ssthresh, c.window)
		c.window = first
		c.slow = true
	}
}

func (c *ledbat) clamp(mss int) {
	c.window = min(max(c.window, float64(windowMin*mss)), c.largest)
}
