package contract

import (
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// pausedReader uses ten bytes, pauses, and continues after a second.
type pausedReader struct {
	t     weir.Transport
	got   int
	first bool // pause before anything is read
	lost  []error
}

func (p *pausedReader) ConnectionMade(t weir.Transport) {
	p.t = t
	if p.first {
		t.PauseReading()
	}
}

func (p *pausedReader) DataReceived(b []byte) (int, error) {
	if p.got == 0 {
		p.t.PauseReading()
		p.got = min(10, len(b))
		return p.got, nil
	}
	p.got += len(b)
	return len(b), nil
}

func (p *pausedReader) ConnectionLost(err error) { p.lost = append(p.lost, err) }

// TestBrokenOrder: a reset ends a write and, in the same batch, the read or the wait for
// a hang-up beside it. In whatever order the two are reported, a reader that has paused
// gets what had arrived before (behaviour 29), whether the stream or the system keeps
// it.
func TestBrokenOrder(t *testing.T) {
	for name, first := range map[string]bool{"kept by the stream": false, "kept by the system": true} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 40; seed++ {
				brokenOrder(t, first, seed)
			}
		})
	}
}

func brokenOrder(t *testing.T, first bool, seed uint64) {
	s := weirtest.NewSim(t, seed, weirtest.WithFaults(weirtest.Faults{
		Latency: time.Millisecond, LateCancel: 1, LateBy: 10 * time.Second, NoInline: true, Shuffle: true,
	}))
	here, there := s.Host("here").Loop(), s.Host("there")
	var server weir.Transport
	if _, err := there.Loop().Listen("tcp", ":7", func(tr weir.Transport) weir.Protocol {
		server = tr
		tr.PauseReading()
		return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
	}); err != nil {
		t.Fatal(err)
	}
	p := &pausedReader{first: first}
	here.Connect("tcp", netip.AddrPortFrom(there.Addrs()[0], 7).String(), p)
	s.Until("the connection", func() bool { return server != nil && p.t != nil })
	there.Loop().Soon(func() { _, _ = server.Write(make([]byte, 100)) })
	// More than the system takes, so that a write waits.
	here.Soon(func() { _, _ = p.t.Write(make([]byte, 4<<20)) })
	if first {
		if err := s.RunFor(time.Second); err != nil {
			t.Fatal(err)
		}
	} else {
		s.Until("ten bytes", func() bool { return p.got > 0 })
	}
	there.Loop().Soon(server.Abort)
	broken := func() bool { return len(p.lost) > 0 || p.t.Buffered() == 0 }
	s.Until("the write broken", broken)
	s.HealAll()
	if err := s.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	if len(p.lost) > 0 {
		t.Errorf("seed %d: lost with %v, after %d bytes", seed, p.lost, p.got)
	}
	here.Soon(p.t.ResumeReading)
	if first { // it pauses once more after ten
		s.Until("ten bytes", func() bool { return p.got > 0 || len(p.lost) > 0 })
		here.Soon(p.t.ResumeReading)
	}
	s.Until("the end", func() bool { return len(p.lost) > 0 })
	if p.got != 100 || p.lost[0] == nil || len(p.lost) != 1 {
		t.Errorf("seed %d: %d bytes came of 100; lost with %v", seed, p.got, p.lost)
	}
}
