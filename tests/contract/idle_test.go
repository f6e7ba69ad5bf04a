package contract

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// hush is a protocol that notes the silences it is told of.
type hush struct {
	weir.NopProtocol
	t      weir.Transport
	now    func() time.Duration
	begin  time.Duration
	told   []string
	act    func(weir.Direction)
	got    int
	eof    bool
	lost   bool
	reason error
}

func (p *hush) ConnectionMade(t weir.Transport) { p.t = t }
func (p *hush) ConnectionIdle(d weir.Direction) {
	p.told = append(p.told, fmt.Sprint(d, " ", p.now()-p.begin))
	if p.act != nil {
		p.act(d)
	}
}
func (p *hush) DataReceived(b []byte) (int, error) { p.got += len(b); return len(b), nil }
func (p *hush) EOFReceived(int) (bool, error)      { p.eof = true; return true, nil }
func (p *hush) ConnectionLost(err error)           { p.lost, p.reason = true, err }

// TestIdle: a protocol is told of silence, when it lasts as long as it asked, again while
// it lasts, and not a moment early, with and without layers (R64).
func TestIdle(t *testing.T) {
	hour := layer.Idle(layer.IdleConfig{Idle: time.Hour})
	for name, layers := range map[string][]layer.Layer{
		"socket": nil, "one layer": {hour}, "three": {hour, layer.RateLimit(layer.Rate{}, layer.Rate{}), hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := weirtest.NewSim(t, 1)
			server, client := s.Host("server"), s.Host("client")
			var peers []*hush
			if _, err := server.Loop().Listen("tcp", server.Addr(80), layer.Server(func(weir.Transport) weir.Protocol {
				p := &hush{now: s.Now}
				peers = append(peers, p)
				return p
			}, layers...)); err != nil {
				t.Fatal(err)
			}
			// connect returns both ends, and the silence of one.
			connect := func() (*hush, *hush, weir.IdleTimer) {
				t.Helper()
				p, n := &hush{now: s.Now}, len(peers)
				client.Loop().Connect("tcp", server.Addr(80), layer.Client(p, layers...))
				s.Until("both ends", func() bool { return len(peers) > n && peers[n].t != nil && p.t != nil })
				idle, ok := weir.As[weir.IdleTimer](p.t)
				if !ok {
					t.Fatal("no IdleTimer")
				}
				p.begin = s.Now()
				return p, peers[n], idle
			}
			set := func(i weir.IdleTimer, d weir.Direction, after time.Duration) {
				t.Helper()
				if err := i.SetIdleTimeout(d, after); err != nil {
					t.Fatal(err)
				}
			}
			pass := func(d time.Duration) {
				t.Helper()
				if err := s.RunFor(d); err != nil {
					t.Fatal(err)
				}
			}
			is := func(p *hush, want ...string) {
				t.Helper()
				if !slices.Equal(p.told, want) {
					t.Errorf("told of %q, want %q", p.told, want)
				}
				p.told = nil
			}

			// Reading: the peer's bytes begin the time again, and its own do not.
			p, peer, idle := connect()
			set(idle, weir.DirectionRead, 10*time.Second)
			pass(9900 * time.Millisecond)
			is(p)
			pass(15100 * time.Millisecond) // 25 s
			is(p, "read 10s", "read 20s")
			_, _ = peer.t.Write([]byte("x")) // comes a millisecond later
			_, _ = p.t.Write([]byte("y"))
			pass(9 * time.Second)
			_, _ = p.t.Write([]byte("y"))
			pass(2 * time.Second) // 36 s
			is(p, "read 35.001s")

			// Writing: a keep-alive sent when it is told keeps the peer's side busy.
			set(idle, weir.DirectionRead, 0)
			p.begin = s.Now()
			p.act = func(weir.Direction) { _, _ = p.t.Write([]byte("alive")) }
			peer.got = 0
			set(idle, weir.DirectionWrite, 3*time.Second)
			pass(10 * time.Second)
			is(p, "write 3s", "write 6s", "write 9s")
			if peer.got != 15 {
				t.Errorf("the peer got %d bytes", peer.got)
			}
			p.act = nil
			set(idle, weir.DirectionWrite, 0)

			// Both: either is enough. Three limits at once, each by itself.
			p.begin = s.Now()
			set(idle, weir.DirectionBoth, 4*time.Second)
			for i := range 4 {
				pass(2 * time.Second)
				if i%2 == 0 {
					_, _ = p.t.Write([]byte("z"))
				} else {
					_, _ = peer.t.Write([]byte("z"))
				}
			}
			is(p)
			set(idle, weir.DirectionRead, 2*time.Second)
			set(idle, weir.DirectionWrite, 3*time.Second)
			pass(4500 * time.Millisecond) // since 8.001 s nothing moves
			is(p, "read 10.001s", "write 11s", "read 12.001s", "both 12.001s")

			// While reading is paused the peer's silence is our own; with both it is not.
			set(idle, weir.DirectionWrite, 0)
			set(idle, weir.DirectionBoth, 0)
			p.begin = s.Now()
			p.t.PauseReading()
			pass(7 * time.Second)
			is(p)
			p.t.ResumeReading()
			pass(1900 * time.Millisecond)
			is(p)
			pass(200 * time.Millisecond)
			is(p, "read 9s")

			// What is over cannot be silent.
			set(idle, weir.DirectionWrite, 2*time.Second)
			if p.t.CanWriteEOF() {
				_ = p.t.WriteEOF()
				_ = peer.t.WriteEOF()
				pass(time.Millisecond)
				p.told = nil
			}

			// Closing in the callback, and a panic there.
			for _, panics := range []bool{false, true} {
				p, _, idle := connect()
				set(idle, weir.DirectionBoth, time.Second)
				p.act = func(weir.Direction) {
					if panics {
						panic("planned")
					}
					p.t.Close()
				}
				s.Until("the loss", func() bool { return p.lost })
				is(p, "both 1s")
				if pe := (*weir.PanicError)(nil); errors.As(p.reason, &pe) != panics {
					t.Errorf("lost with %v", p.reason)
				}
				if err := idle.SetIdleTimeout(weir.DirectionRead, time.Second); !errors.Is(err, weir.ErrClosed) {
					t.Errorf("a limit for a lost transport: %v", err)
				}
			}

			// Out of range, and without an effect.
			p, _, idle = connect()
			var opt *weir.OptionError
			for _, err := range []error{idle.SetIdleTimeout(weir.DirectionRead, -1), idle.SetIdleTimeout(7, time.Second)} {
				if !errors.As(err, &opt) {
					t.Error(err)
				}
			}
			set(idle, weir.DirectionRead, 0)
			set(idle, weir.DirectionRead, 1<<63-1)
			pass(time.Hour / 2)
			is(p)
			p.t.SetProtocol(weir.NopProtocol{}) // one that does not hear of it
			set(idle, weir.DirectionRead, time.Second)
			pass(3 * time.Second)
			is(p)

			// Nothing is left of the limits.
			for _, p := range peers {
				p.t.Abort()
			}
			pass(time.Second)
			if d, ok := client.Loop().Next(); ok {
				t.Errorf("a timer of %v is left", d)
			}
		})
	}
}

// TestIdleBacklog: a backlog that leaves is no silence, one that does not is.
func TestIdleBacklog(t *testing.T) {
	for name, layers := range map[string][]layer.Layer{"socket": nil, "layer": {layer.RateLimit(layer.Rate{}, layer.Rate{})}} {
		t.Run(name, func(t *testing.T) {
			s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{SendBuffer: 8 << 10, ReceiveBuffer: 8 << 10}))
			server, client := s.Host("server"), s.Host("client")
			var peer *hush
			if _, err := server.Loop().Listen("tcp", server.Addr(80), layer.Server(func(weir.Transport) weir.Protocol {
				peer = &hush{now: s.Now}
				return peer
			}, layers...)); err != nil {
				t.Fatal(err)
			}
			p := &hush{now: s.Now}
			client.Loop().Connect("tcp", server.Addr(80), layer.Client(p, layers...))
			s.Until("both ends", func() bool { return peer != nil && peer.t != nil && p.t != nil })
			idle, _ := weir.As[weir.IdleTimer](p.t)
			if err := idle.SetIdleTimeout(weir.DirectionWrite, time.Second); err != nil {
				t.Fatal(err)
			}
			_, _ = p.t.Write(bytes.Repeat([]byte("x"), 1<<20))
			// The peer takes some every 300 ms: something leaves within each second.
			peer.t.PauseReading()
			for range 20 {
				if err := s.RunFor(300 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
				peer.t.ResumeReading()
				for range 20 {
					s.Step()
				}
				peer.t.PauseReading()
			}
			if len(p.told) > 0 || p.t.Buffered() == 0 || peer.got == 0 {
				t.Fatalf("told of %q with %d bytes buffered, %d arrived", p.told, p.t.Buffered(), peer.got)
			}
			s.Until("the stall", func() bool { return len(p.told) > 0 })
			// What is written counts, even if it cannot leave.
			p.told = nil
			for range 6 {
				_, _ = p.t.Write([]byte("x"))
				if err := s.RunFor(700 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			if len(p.told) > 0 {
				t.Errorf("told of %q while it wrote", p.told)
			}
			p.t.Abort()
		})
	}
}

// TestRoom: how much may be written can be asked, through layers, and is nothing while
// the writer is paused or nothing can be written (R74).
func TestRoom(t *testing.T) {
	for name, layers := range map[string][]layer.Layer{"socket": nil, "layer": {layer.RateLimit(layer.Rate{}, layer.Rate{})}} {
		t.Run(name, func(t *testing.T) {
			s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{SendBuffer: 4 << 10, ReceiveBuffer: 4 << 10}))
			server, client := s.Host("server"), s.Host("client")
			var peer *hush
			if _, err := server.Loop().Listen("tcp", server.Addr(80), layer.Server(func(weir.Transport) weir.Protocol {
				peer = &hush{now: s.Now}
				return peer
			}, layers...)); err != nil {
				t.Fatal(err)
			}
			p := &hush{now: s.Now}
			client.Loop().Connect("tcp", server.Addr(80), layer.Client(p, layers...), weir.WithWriteMarks(50_000, 20_000))
			s.Until("both ends", func() bool { return peer != nil && peer.t != nil && p.t != nil })
			if high, low := p.t.WriteMarks(); high != 50_000 || low != 20_000 || p.t.Room() != 50_000 {
				t.Errorf("marks %d and %d, room for %d", high, low, p.t.Room())
			}
			_, _ = p.t.Write(make([]byte, 100_000))
			between, after := 0, 0
			s.OnStep(func() {
				held, room := p.t.Buffered(), p.t.Room()
				switch {
				case held > 20_000:
					if room != 0 {
						t.Fatalf("room for %d bytes, paused with %d", room, held)
					}
					if held < 50_000 {
						between++
					}
				case room != 0:
					after++
					if room != 50_000-held {
						t.Fatalf("room for %d bytes with %d", room, held)
					}
				}
			})
			s.Until("everything", func() bool { return peer.got == 100_000 && p.t.Room() == 50_000 })
			if between == 0 || after == 0 {
				t.Errorf("%d looks between the marks, %d below", between, after)
			}
			p.t.Close()
			if n := p.t.Room(); n != 0 {
				t.Errorf("room for %d bytes after Close", n)
			}
		})
	}
}
