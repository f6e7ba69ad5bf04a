package layer_test

import (
	"errors"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// watched is a protocol that records by its loop's clock when it was made and
// lost.
type watched struct {
	weir.NopProtocol
	t    weir.Transport
	made time.Time
	over time.Duration // after made; 0: it is not lost
	err  error
	held bool // it wants no bytes when it is made
}

func (w *watched) ConnectionMade(t weir.Transport) {
	w.t, w.made = t, t.Loop().Now()
	if w.held {
		t.PauseReading()
	}
}

func (w *watched) ConnectionLost(err error) { w.over, w.err = w.t.Loop().Now().Sub(w.made), err }

// TestMinRateWhen: a peer that is too slow is lost exactly at the end of the
// first window in which it is, and so is one that sends nothing. While no bytes
// are wanted, as by a relay whose other side is not connected yet, the window
// stands still and does not restart.
func TestMinRateWhen(t *testing.T) {
	type hold struct{ from, to time.Duration }
	for _, c := range []struct {
		name string
		rate func(at time.Duration) int // bytes that the peer sends each 10 ms
		hold []hold
		want time.Duration // 0: it stays for the ten seconds of the test
	}{
		{"a steady trickle", func(time.Duration) int { return 1 }, nil, time.Second},
		{"nothing at all", func(time.Duration) int { return 0 }, nil, time.Second},
		{"fast enough", func(time.Duration) int { return 11 }, nil, 0},
		{"fast, and then slow", func(at time.Duration) int {
			if at < 2500*time.Millisecond {
				return 30
			}
			return 1
		}, nil, 4 * time.Second},
		{"held while the other side connects", func(time.Duration) int { return 1 }, []hold{{0, 300 * time.Millisecond}}, 1300 * time.Millisecond},
		{
			"held in between, more often than a window is long",
			func(time.Duration) int { return 1 },
			[]hold{{400 * time.Millisecond, 900 * time.Millisecond}, {1300 * time.Millisecond, 5 * time.Second}},
			5200 * time.Millisecond,
		},
		{"held all the time", func(time.Duration) int { return 0 }, []hold{{0, time.Hour}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := meet(t, nil, nil, nil)
			server := &watched{held: len(c.hold) > 0 && c.hold[0].from == 0}
			watch := layer.Idle(layer.IdleConfig{MinRate: 1000, Window: time.Second})
			_, err := m.Host("server").Loop().Listen("tcp", ":9", layer.Server(func(weir.Transport) weir.Protocol { return server }, watch))
			if err != nil {
				t.Fatal(err)
			}
			client := &watched{}
			m.Host("client").Loop().Connect("tcp", "server:9", client)
			m.Until("the connection", func() bool { return server.t != nil && client.t != nil })
			for _, h := range c.hold {
				if h.from > 0 {
					m.Host("server").Loop().After(h.from, func() { server.t.PauseReading() })
				}
				m.Host("server").Loop().After(h.to, func() { server.t.ResumeReading() })
			}
			for range 1000 {
				if server.over > 0 {
					break
				}
				if n := c.rate(client.t.Loop().Now().Sub(client.made)); n > 0 {
					_, _ = client.t.Write(make([]byte, n))
				}
				m.pass(10 * time.Millisecond)
			}
			if server.over != c.want {
				t.Errorf("lost after %v, want %v (%v)", server.over, c.want, server.err)
			}
			var e *layer.IdleError
			if c.want > 0 && (!errors.As(server.err, &e) || e.What != layer.TooSlow || e.After != time.Second) {
				t.Errorf("lost with %v", server.err)
			}
		})
	}
}

// TestIdleOfOthers: a silence that another asked about is not the layer's to judge if it
// limits none itself.
func TestIdleOfOthers(t *testing.T) {
	m := meet(t, nil, nil, nil)
	server := &watched{}
	serve := layer.Server(func(weir.Transport) weir.Protocol { return server }, layer.Idle(layer.IdleConfig{WriteStall: time.Hour}))
	_, err := m.Host("server").Loop().Listen("tcp", ":9", func(bottom weir.Transport) weir.Protocol {
		p := serve(bottom)
		bottom.Loop().Soon(func() {
			if err := bottom.(weir.IdleTimer).SetIdleTimeout(weir.DirectionBoth, time.Second); err != nil {
				t.Error(err)
			}
		})
		return p
	})
	if err != nil {
		t.Fatal(err)
	}
	client := &watched{}
	m.Host("client").Loop().Connect("tcp", "server:9", client)
	m.Until("the connection", func() bool { return server.t != nil && client.t != nil })
	m.pass(5 * time.Second)
	if server.over != 0 {
		t.Errorf("lost after %v with %v", server.over, server.err)
	}
}
