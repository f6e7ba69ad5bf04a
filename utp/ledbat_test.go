package utp

import (
	"testing"
	"time"
)

// TestBaseDelay: the base delay is the least of the last minutes, and forgets.
func TestBaseDelay(t *testing.T) {
	var d delays
	for minute := range 3 * baseHistory {
		sample := uint32(50_000)
		if minute == 2 {
			sample = 20_000
		}
		d.add(sample, time.Duration(minute)*time.Minute)
		want := uint32(50_000)
		if minute >= 2 && minute < 2+baseHistory {
			want = 20_000
		}
		if d.least() != want {
			t.Fatalf("minute %d: base delay %d, want %d", minute, d.least(), want)
		}
	}
}

// TestDelaysWrap: the clocks are anything, and their difference wraps.
func TestDelaysWrap(t *testing.T) {
	var d delays
	start := uint32(0xffff_ff00)
	d.add(start, 0)
	for range currentFilter {
		d.add(start+30_000, time.Second) // past 0
	}
	if q := d.queueing(); q != 30*time.Millisecond {
		t.Errorf("queueing is %v, want 30ms", q)
	}
}

// TestLEDBAT: the window grows below the target, shrinks above it, and stays at it
// (RFC 6817, section 2.4.2).
func TestLEDBAT(t *testing.T) {
	const mss = 1400
	grow := func(queue time.Duration) float64 {
		var c ledbat
		c.init(mss, 1<<20)
		c.slow = false
		c.window = 100 * mss
		c.ours.add(1000, 0)
		before := c.window
		now := time.Second
		for range 100 { // one round trip
			c.acked(mss, mss, 1000+uint32(queue/time.Microsecond), time.Second, now, true)
		}
		return c.window - before
	}
	if g := grow(0); g < gainMax*0.8 || g > gainMax {
		t.Errorf("without a queue the window grew by %.0f bytes in a round trip, want nearly %d", g, gainMax)
	}
	if g := grow(target); g < -200 || g > 200 {
		t.Errorf("at the target it changed by %.0f bytes", g)
	}
	if g := grow(2 * target); g > -gainMax/2 {
		t.Errorf("at twice the target it changed by %.0f bytes", g)
	}
}

// TestSlowStart: the window doubles in a round trip, and stops before the target.
func TestSlowStart(t *testing.T) {
	const mss = 1400
	var c ledbat
	c.init(mss, 1<<20)
	c.ours.add(1000, 0)
	before := c.window
	c.acked(int(before), mss, 1000, time.Second, time.Second, true)
	if c.window != 2*before {
		t.Errorf("window %.0f after a round trip of slow start that began with %.0f", c.window, before)
	}
	for range currentFilter {
		c.acked(mss, mss, 1000+95_000, time.Second, time.Second, true)
	}
	if c.slow {
		t.Error("slow start went on at 95 ms")
	}
	full := c.window
	c.acked(mss, mss, 1000, time.Second, time.Second, false)
	if c.window > full {
		t.Error("the window grew though it was not the limit")
	}
}

// TestDrift: a peer's clock that runs slower moves our base delay, and no more than
// that is believed at once.
func TestDrift(t *testing.T) {
	var c ledbat
	c.init(1400, 1<<20)
	c.ours.add(5000, 0)
	c.heard(9000, 0)
	c.heard(8000, time.Second)
	if got := c.ours.least(); got != 6000 {
		t.Errorf("base delay %d after the other direction's fell by 1000, want 6000", got)
	}
	jump := uint32(2 * driftMax / time.Microsecond)
	c.heard(8000-jump, 2*time.Second)
	if got := c.ours.least(); got != 6000 {
		t.Errorf("base delay %d: a jump of twice the most was believed", got)
	}
}
