package sim

import (
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/sim"
)

// buggy is a simulated backend with a bug that shows now and then.
type buggy struct {
	*sim.Backend
	bug   func(*buggy, *backend.Completion) bool // changes a result; false: it is never reported
	shut  func(*buggy) bool                      // false: a close is forgotten
	count int
}

// often is true every so often.
func (b *buggy) often(n int) bool {
	b.count++
	return b.count%n == 0
}

func (b *buggy) Submit(op *backend.Op, c *backend.Completion) bool {
	done := b.Backend.Submit(op, c)
	if done && b.bug != nil {
		b.bug(b, c)
	}
	return done
}

func (b *buggy) Wait(timeout time.Duration, done []backend.Completion) (int, error) {
	n, err := b.Backend.Wait(timeout, done)
	if b.bug == nil {
		return n, err
	}
	k := 0
	for i := range done[:n] {
		if b.bug(b, &done[i]) {
			done[k] = done[i]
			k++
		}
	}
	return k, err
}

func (b *buggy) Shut(h backend.Handle, how backend.How) error {
	if b.shut != nil && how != backend.ShutWrite && !b.shut(b) {
		return nil
	}
	return b.Backend.Shut(h, how)
}

// The checks of the simulated runs find what they are meant to find: each of
// these bugs is noticed within some seeds.
func TestSimFindsBugs(t *testing.T) {
	for _, c := range []struct {
		name string
		bug  func(*buggy, *backend.Completion) bool
		shut func(*buggy) bool
	}{
		{name: "a write says less than it took", bug: func(b *buggy, c *backend.Completion) bool {
			if c.Op.Kind == backend.Write && c.N > 1 && b.often(50) {
				c.N--
			}
			return true
		}},
		{name: "a write says more than it took", bug: func(b *buggy, c *backend.Completion) bool {
			n := 0
			for _, p := range c.Op.Vec {
				n += len(p)
			}
			if c.Op.Kind == backend.Write && c.Err == nil && c.N < n && b.often(20) {
				c.N++
			}
			return true
		}},
		{name: "a read loses its last byte", bug: func(b *buggy, c *backend.Completion) bool {
			if c.Op.Kind == backend.Read && c.N > 1 && b.often(50) {
				c.N--
				c.Buf = c.Buf[:c.N]
			}
			return true
		}},
		{name: "lent memory is somebody else's", bug: func(b *buggy, c *backend.Completion) bool {
			if c.Op.Kind == backend.Read && c.N > 0 && b.often(50) {
				c.Buf = make([]byte, c.N)
			}
			return true
		}},
		{name: "a result is never told", bug: func(b *buggy, c *backend.Completion) bool {
			return c.Op.Kind != backend.Read || c.N == 0 || !b.often(50)
		}},
		{name: "a close is forgotten", shut: func(b *buggy) bool { return !b.often(5) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 200; seed++ {
				s := simEchoOn(t, seed, sim.Config{}, func(b *sim.Backend) backend.Backend {
					return &buggy{Backend: b, bug: c.bug, shut: c.shut}
				})
				if len(s.errs) > 0 {
					t.Logf("found by seed %d: %s", seed, s.errs[0])
					return
				}
			}
			t.Error("200 seeds did not find it")
		})
	}
}
