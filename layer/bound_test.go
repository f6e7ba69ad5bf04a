package layer_test

import (
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/weirtest"
)

// pusher writes pieces until it is paused and goes on when it is resumed, and
// records the most that each transport of its stack held.
type pusher struct {
	layertest.Ear
	left   int
	paused bool
	most   []int // from the top down
}

const pushed = 16 << 10

func (p *pusher) push() {
	for p.left > 0 && !p.paused {
		p.left -= pushed
		_, _ = p.Tr.Write(make([]byte, pushed))
		p.note()
	}
	if p.left == 0 {
		_ = p.Tr.WriteEOF()
	}
}

func (p *pusher) note() {
	i := 0
	for t := p.Tr; t != nil; i++ {
		if i == len(p.most) {
			p.most = append(p.most, 0)
		}
		p.most[i] = max(p.most[i], t.Buffered())
		u, ok := t.(interface{ Unwrap() weir.Transport })
		if !ok {
			break
		}
		t = u.Unwrap()
	}
}

func (p *pusher) PauseWriting() { p.paused = true }

func (p *pusher) ResumeWriting() {
	p.paused = false
	p.note()
	p.push()
}

// TestBounded: with a reader that stops and goes on, each transport of a stack
// holds no more than its high mark and one write, and nothing is lost (G3,
// behaviour 43). A layer's own write is at most four records.
func TestBounded(t *testing.T) {
	const total, mark, ownWrite = 4 << 20, 64 << 10, 4 * (16<<10 + 256)
	for i, l := range every(t) {
		t.Run(l.name, func(t *testing.T) {
			sim := weirtest.NewSim(t, uint64(i+1), weirtest.WithFaults(weirtest.Faults{CutRead: 0.1, CutWire: 0.1}))
			here, there := sim.Host("here"), sim.Host("there")
			s := &pusher{left: total}
			s.KeepOpen = true
			s.OnMade = func(tr weir.Transport) { tr.Loop().Soon(s.push) }
			f := layer.Server(func(weir.Transport) weir.Protocol { return s }, l.server)
			if _, err := here.Loop().Listen("tcp", ":7000", f); err != nil {
				t.Fatal(err)
			}
			c := &layertest.Ear{KeepOpen: true}
			stops := 0
			c.OnData = func(p []byte) int {
				if stops < 40 && len(c.Got) >= stops*total/40 {
					stops++
					c.Tr.PauseReading()
					c.Tr.Loop().After(time.Second, c.Tr.ResumeReading)
				}
				return len(p)
			}
			there.Loop().Connect("tcp", "here:7000", layer.Client(c, l.client))
			sim.Until("all of it", func() bool { return c.Ends > 0 || c.Over() })
			if len(c.Got) != total {
				t.Fatalf("%d bytes came of %d; lost with %v, %v", len(c.Got), total, c.Err, c.Failed)
			}
			if stops < 40 {
				t.Fatalf("the reader stopped %d times", stops)
			}
			t.Logf("held at most, from the top down: %d", s.most)
			for depth, most := range s.most {
				write := pushed
				if depth > 0 {
					write = ownWrite
				}
				if most > mark+write {
					t.Errorf("%d below the top: %d bytes were held, want at most %d and a write of %d", depth, most, mark, write)
				}
			}
			if s.most[0] < mark/2 && len(s.most) == 1 {
				t.Errorf("no more than %d bytes were held: the test shows nothing", s.most[0])
			}
			_ = s.Tr.Close()
			_ = c.Tr.Close()
			sim.Until("the end", func() bool { return s.Over() && c.Over() })
		})
	}
}
