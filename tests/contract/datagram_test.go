package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
	"github.com/weir-io/weir/weirtest"
)

// packets is a PacketProtocol that records everything.
type packets struct {
	e      *weir.PacketEndpoint
	trace  []string
	got    [][]byte
	from   []weir.PacketAddr
	failed []error
	about  []weir.PacketAddr
	lost   int
	err    error
	on     func(p []byte, from weir.PacketAddr)
	gone   func()
}

func (p *packets) EndpointMade(e *weir.PacketEndpoint) {
	p.e = e
	p.trace = append(p.trace, "made")
}

func (p *packets) PacketReceived(b []byte, from weir.PacketAddr) {
	p.trace = append(p.trace, "packet")
	p.got = append(p.got, bytes.Clone(b))
	p.from = append(p.from, from)
	if p.on != nil {
		p.on(b, from)
	}
}

func (p *packets) PacketFailed(err error, to weir.PacketAddr) {
	p.failed = append(p.failed, err)
	p.about = append(p.about, to)
}

func (p *packets) EndpointLost(err error) {
	p.trace = append(p.trace, "lost")
	p.lost++
	p.err = err
	if p.gone != nil {
		p.gone()
	}
}

// cutPackets also takes truncated datagrams.
type cutPackets struct {
	packets
	cut [][]byte
}

func (p *cutPackets) PacketTruncated(b []byte, _ weir.PacketAddr) {
	p.cut = append(p.cut, bytes.Clone(b))
}

// endpoint opens an endpoint on a loopback address.
func endpoint(t *testing.T, l *weir.Loop, network string, p weir.PacketProtocol, opts ...weir.PacketOption) *weir.PacketEndpoint {
	t.Helper()
	address := "127.0.0.1:0"
	switch network {
	case "udp6":
		address = "[::1]:0"
	case "unixgram":
		address = filepath.Join(t.TempDir(), "d")
	}
	e, err := l.ListenPacket(network, address, p, opts...)
	if err != nil {
		if network == "unixgram" && (l.Backend().Name == "sim" || !unixSockets) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	return e
}

// TestPacketMode: the file of an endpoint has the mode that WithMode asks for, whatever
// the umask is.
func TestPacketMode(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		for _, mode := range []fs.FileMode{0o600, 0o666} {
			e := endpoint(t, l, "unixgram", &packets{}, weir.WithMode(mode))
			st, err := os.Stat(e.Local().Path)
			if err != nil {
				t.Fatal(err)
			}
			if st.Mode().Perm() != mode {
				t.Errorf("mode %v, want %v", st.Mode().Perm(), mode)
			}
			e.Abort()
		}
	})
}

// TestEmptyDatagramsAreBounded: waiting datagrams are counted too, since empty
// ones have no bytes to count.
func TestEmptyDatagramsAreBounded(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		slow, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "slow")})
		if err != nil {
			t.Skip(err)
		}
		defer slow.Close()
		p := &markedPackets{}
		e := endpoint(t, l, "unixgram", p)
		to := weir.PacketAddr{Path: slow.LocalAddr().String()}
		n := 0
		for ; n < 10_000; n++ {
			if err = e.SendTo(nil, to); err != nil {
				break
			}
		}
		if !errors.Is(err, weir.ErrSendBufferFull) || p.paused != 1 {
			t.Fatalf("after %d empty datagrams: %v, paused %d times", n, err, p.paused)
		}
		e.Abort()
	})
}

// markedPackets counts what an endpoint reports about its queue.
type markedPackets struct{ paused int }

func (p *markedPackets) EndpointMade(*weir.PacketEndpoint)      {}
func (p *markedPackets) PacketReceived([]byte, weir.PacketAddr) {}
func (p *markedPackets) EndpointLost(error)                     {}
func (p *markedPackets) PacketFailed(error, weir.PacketAddr)    {}
func (p *markedPackets) PauseWriting()                          { p.paused++ }
func (p *markedPackets) ResumeWriting()                         {}

func TestPacketEndpoint(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		for _, network := range []string{"udp4", "udp6", "unixgram"} {
			t.Run("50 question and answer, everyone a server "+network, func(t *testing.T) {
				l := mk()
				a, b := &packets{}, &packets{}
				ea, eb := endpoint(t, l, network, a), endpoint(t, l, network, b)
				b.on = func(p []byte, from weir.PacketAddr) {
					if err := b.e.SendTo(append([]byte("re: "), p...), from); err != nil {
						t.Error(err)
					}
				}
				for _, s := range []string{"one", "", "three"} {
					if err := ea.SendTo([]byte(s), eb.Local()); err != nil {
						t.Fatal(err)
					}
				}
				turns(t, l, "answers", func() bool { return len(a.got) == 3 })
				if got := fmt.Sprintf("%q", a.got); got != `["re: one" "re: " "re: three"]` {
					t.Errorf("got %s", got)
				}
				if a.from[0] != eb.Local() || b.from[0] != ea.Local() {
					t.Errorf("from %v and %v, not %v and %v", a.from[0], b.from[0], eb.Local(), ea.Local())
				}
				_, _ = ea.Close(), eb.Close()
				turns(t, l, "the ends", func() bool { return a.lost == 1 && b.lost == 1 })
				if a.err != nil || b.err != nil || a.trace[0] != "made" || a.trace[len(a.trace)-1] != "lost" {
					t.Errorf("%v, %v, %v", a.err, b.err, a.trace)
				}
				if err := ea.SendTo([]byte("x"), eb.Local()); !errors.Is(err, weir.ErrClosed) || !errors.Is(err, net.ErrClosed) {
					t.Errorf("SendTo after the close: %v", err)
				}
				if ea.LocalAddr().String() == "" {
					t.Error("no address after the close")
				}
			})
		}
		t.Run("57 a refusal has its peer, the endpoint lives", func(t *testing.T) {
			l := mk()
			if name := l.Backend().Name; name == "portable" || name == "iocp" {
				t.Skip("neither package net nor Winsock says whom a refusal is about")
			}
			a, b, c := &packets{}, &packets{}, &packets{}
			ea, eb, ec := endpoint(t, l, "udp4", a), endpoint(t, l, "udp4", b), endpoint(t, l, "udp4", c)
			nobody := eb.Local()
			_ = eb.Close()
			turns(t, l, "the close", func() bool { return b.lost == 1 })
			for range 3 {
				for _, to := range []weir.PacketAddr{nobody, ec.Local()} {
					if err := ea.SendTo([]byte("hello"), to); err != nil {
						t.Fatal(err)
					}
				}
			}
			turns(t, l, "refusals", func() bool { return len(a.failed) == 3 && len(c.got) == 3 })
			for i, err := range a.failed {
				if !errors.Is(err, syscall.ECONNREFUSED) || a.about[i] != nobody {
					t.Errorf("failed with %v about %v, want ECONNREFUSED about %v", err, a.about[i], nobody)
				}
			}
			if err := ec.SendTo([]byte("still there?"), ea.Local()); err != nil {
				t.Fatal(err)
			}
			turns(t, l, "a datagram", func() bool { return len(a.got) == 1 })
			if a.lost != 0 {
				t.Error("the endpoint was lost")
			}
		})
		t.Run("57 a failing callback does not end the endpoint", func(t *testing.T) {
			var reported []error
			l := mk(weir.WithErrorHandler(func(err error) { reported = append(reported, err) }))
			a, b := &packets{}, &packets{}
			ea, eb := endpoint(t, l, "udp4", a), endpoint(t, l, "udp4", b)
			b.on = func(p []byte, _ weir.PacketAddr) {
				if len(b.got) == 1 {
					panic("first")
				}
			}
			for range 2 {
				if err := ea.SendTo([]byte("x"), eb.Local()); err != nil {
					t.Fatal(err)
				}
			}
			turns(t, l, "both", func() bool { return len(b.got) == 2 })
			var pe *weir.PanicError
			if len(reported) != 1 || !errors.As(reported[0], &pe) || pe.Where != "PacketReceived" || pe.Value != "first" {
				t.Errorf("reported %v", reported)
			}
		})
		t.Run("58 truncation is flagged", func(t *testing.T) {
			l := mk()
			a, b, c := &packets{}, &packets{}, &cutPackets{}
			ea := endpoint(t, l, "udp4", a)
			eb, ec := endpoint(t, l, "udp4", b, weir.WithMaxDatagram(4)), endpoint(t, l, "udp4", c, weir.WithMaxDatagram(4))
			for _, e := range []*weir.PacketEndpoint{eb, ec} {
				for _, s := range []string{"longer", "fits"} {
					if err := ea.SendTo([]byte(s), e.Local()); err != nil {
						t.Fatal(err)
					}
				}
			}
			turns(t, l, "the short ones", func() bool { return len(b.got) == 1 && len(c.got) == 1 })
			if len(b.failed) != 1 || !errors.Is(b.failed[0], weir.ErrTruncated) || b.about[0] != ea.Local() {
				t.Errorf("failed %v about %v", b.failed, b.about)
			}
			if len(c.cut) != 1 || string(c.cut[0]) != "long" || string(c.got[0]) != "fits" {
				t.Errorf("cut %q, got %q", c.cut, c.got)
			}
		})
		t.Run("58 what cannot be sent is an error, the endpoint lives", func(t *testing.T) {
			l := mk()
			a, b := &packets{}, &packets{}
			ea, eb := endpoint(t, l, "udp4", a), endpoint(t, l, "udp4", b)
			for _, to := range []weir.PacketAddr{
				{IP: netip.MustParseAddrPort("[::1]:9")}, {Path: "/x"}, {}, {IP: netip.MustParseAddrPort("127.0.0.1:0")},
			} {
				var oe *net.OpError
				if err := ea.SendTo([]byte("x"), to); !errors.As(err, &oe) {
					t.Errorf("SendTo %v: %v", to, err)
				}
			}
			if err := ea.SendTo(make([]byte, 66000), eb.Local()); !errors.Is(err, syscall.EMSGSIZE) {
				if err != nil || l.Backend().Name == "epoll" {
					t.Errorf("SendTo of 66000 bytes: %v", err)
				}
			}
			if err := ea.SendTo([]byte("well"), eb.Local()); err != nil {
				t.Fatal(err)
			}
			turns(t, l, "one", func() bool { return len(b.got) == 1 })
		})
		t.Run("pause and resume", func(t *testing.T) {
			l := mk()
			a, b := &packets{}, &packets{}
			ea, eb := endpoint(t, l, "udp4", a), endpoint(t, l, "udp4", b)
			b.on = func([]byte, weir.PacketAddr) { eb.PauseReading() }
			const n = 20
			for i := range n {
				if err := ea.SendTo([]byte{byte(i)}, eb.Local()); err != nil {
					t.Fatal(err)
				}
			}
			for i := range n {
				turns(t, l, "one more", func() bool { return len(b.got) > i })
				for range 3 {
					if err := l.Turn(0); err != nil {
						t.Fatal(err)
					}
				}
				if len(b.got) != i+1 {
					t.Fatalf("%d datagrams while reading is paused, want %d", len(b.got), i+1)
				}
				if b.got[i][0] != byte(i) {
					t.Fatalf("datagram %d is %d", i, b.got[i][0])
				}
				eb.ResumeReading()
			}
		})
		t.Run("abort and loop's end", func(t *testing.T) {
			l := mk()
			a, b := &packets{}, &packets{}
			ea := endpoint(t, l, "udp4", a)
			endpoint(t, l, "udp4", b)
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			ea.Abort()
			ea.Abort()
			if a.lost != 0 {
				t.Error("lost inside Abort")
			}
			turns(t, l, "the end", func() bool { return a.lost == 1 })
			if !errors.Is(a.err, weir.ErrAborted) {
				t.Error(a.err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if b.lost != 1 || !errors.Is(b.err, weir.ErrLoopClosed) {
				t.Errorf("lost %d times, %v", b.lost, b.err)
			}
		})
		t.Run("two endpoints on one port", func(t *testing.T) {
			l := mk()
			ea := endpoint(t, l, "udp4", &packets{})
			_, err := l.ListenPacket("udp4", ea.Local().String(), &packets{})
			var oe *net.OpError
			if !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &oe) {
				t.Errorf("the second: %v", err)
			}
			if _, err := l.ListenPacket("upd", ":0", &packets{}); err == nil {
				t.Error("an unknown network: no error")
			}
		})
		t.Run("both families on one", func(t *testing.T) {
			l := mk()
			a, b := &packets{}, &packets{}
			ea, err := l.ListenPacket("udp", ":0", a)
			if err != nil {
				t.Fatal(err)
			}
			eb := endpoint(t, l, "udp4", b)
			if err := ea.SendTo([]byte("x"), eb.Local()); err != nil {
				t.Fatal(err)
			}
			turns(t, l, "it", func() bool { return len(b.got) == 1 })
			if !b.from[0].IP.Addr().Is4() {
				t.Errorf("from %v", b.from[0])
			}
		})
	})
}

// TestPacketBuffer: datagrams that cannot leave are buffered up to a bound, in
// order, with PauseWriting and ResumeWriting alternating, and Close sends them
// (R50, behaviour 39).
func TestPacketBuffer(t *testing.T) {
	for seed := range uint64(20) {
		s := weirtest.NewSim(t, seed+1, weirtest.WithFaults(weirtest.Faults{SendWait: 0.9, Loopback: -1}))
		l := s.Host("a").NewLoop()
		a, b := &pausedPackets{}, &packets{}
		ea := endpoint(t, l, "udp4", a, weir.WithWriteMarks(1000, 100))
		eb := endpoint(t, l, "udp4", b)
		sent, full := 0, false
		for i := range 100 {
			err := ea.SendTo(bytes.Repeat([]byte{byte(i)}, 100), eb.Local())
			if errors.Is(err, weir.ErrSendBufferFull) {
				full = true
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			sent++
		}
		if !full || ea.Buffered() > 4*1000 {
			t.Errorf("seed %d: full %t with %d bytes buffered", seed, full, ea.Buffered())
		}
		_ = ea.Close()
		turns(t, l, "all", func() bool { return len(b.got) == sent && a.lost == 1 })
		for i, p := range b.got {
			if p[0] != byte(i) {
				t.Fatalf("seed %d: datagram %d is %d", seed, i, p[0])
			}
		}
		if a.err != nil || a.pauses != 1 || a.resumes != 1 {
			t.Errorf("seed %d: %v, %d pauses, %d resumes", seed, a.err, a.pauses, a.resumes)
		}
	}
}

type pausedPackets struct {
	packets
	pauses, resumes int
}

func (p *pausedPackets) PauseWriting()  { p.pauses++ }
func (p *pausedPackets) ResumeWriting() { p.resumes++ }

// TestPacketSeeds: whatever happens to datagrams, each one that arrives was
// sent, and by that sender; each endpoint is lost once, and nothing is left
// over (G1, G6).
func TestPacketSeeds(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		packetSeed(t, seed+1)
	}
}

func packetSeed(t *testing.T, seed uint64) {
	w := sim.New(seed, sim.Config{Swarm: true})
	var all []*packets
	var loops []*weir.Loop
	for _, name := range []string{"a", "b", "c"} {
		be, err := w.Host(name).Backend()
		if err != nil {
			t.Fatal(err)
		}
		l := newLoop(t, weir.WithBackend(be), weir.WithLogger(discard()))
		be.Drive(l)
		loops = append(loops, l)
		p := &packets{}
		for range 50 {
			if _, err = l.ListenPacket("udp4", ":7", p); err == nil {
				break
			}
		}
		if err != nil {
			return // no socket available under this seed
		}
		all = append(all, p)
	}
	addr := func(i int) weir.PacketAddr {
		return weir.PacketAddr{IP: netip.AddrPortFrom(w.Host(string(rune('a' + i))).Addrs()[0], 7)}
	}
	for i, p := range all {
		left := 20
		var tick *weir.Timer
		tick = loops[i].NewTimer(func() {
			for j := range all {
				_ = p.e.SendTo(fmt.Appendf(nil, "%d>%d %d", i, j, left), addr(j))
			}
			if left--; left > 0 {
				tick.Set(10 * time.Millisecond)
			}
		})
		tick.Set(time.Millisecond)
	}
	if err := w.RunFor(time.Minute); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	w.HealAll()
	for i, p := range all {
		for k, data := range p.got {
			var from, to, n int
			if _, err := fmt.Sscanf(string(data), "%d>%d %d", &from, &to, &n); err != nil || to != i || p.from[k] != addr(from) && from != i {
				t.Errorf("seed %d: %q from %v at %d", seed, data, p.from[k], i)
			}
		}
		_ = p.e.Close()
	}
	if err := w.RunFor(time.Minute); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	for i, p := range all {
		if p.lost != 1 || p.trace[len(p.trace)-1] != "lost" {
			t.Errorf("seed %d: endpoint %d was lost %d times", seed, i, p.lost)
		}
	}
	if u := w.Usage(); u != (sim.Usage{}) {
		t.Errorf("seed %d: left over %+v", seed, u)
	}
	if v := w.Violations(); len(v) > 0 {
		t.Errorf("seed %d: %v", seed, v)
	}
	for _, l := range loops {
		_ = l.Close()
	}
}

// TestGroups: everyone in a multicast group gets what is sent there, and no one
// else (R51).
func TestGroups(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		l := mk()
		group := netip.MustParseAddr("239.77.69.73")
		device := "lo"
		a, b, c, d := &packets{}, &packets{}, &packets{}, &packets{}
		ea, err := l.ListenPacket("udp4", "0.0.0.0:0", a, weir.WithGroups(device, group))
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip("no groups on this backend")
		}
		if err != nil {
			t.Fatal(err)
		}
		at := fmt.Sprintf("0.0.0.0:%d", ea.Local().IP.Port())
		eb, err := l.ListenPacket("udp4", at, b, weir.WithReuseAddr())
		if err != nil {
			t.Fatal(err)
		}
		ec, err := l.ListenPacket("udp4", "0.0.0.0:0", c, weir.WithGroups(device, group))
		if err != nil {
			t.Fatal(err)
		}
		if err := eb.JoinGroup(group, device); err != nil {
			t.Fatal(err)
		}
		if err := eb.JoinGroup(group, device); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("joining twice: %v", err)
		}
		if err := eb.JoinGroup(netip.MustParseAddr("192.0.2.1"), device); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("joining what is no group: %v", err)
		}
		ed := endpoint(t, l, "udp4", d)
		to := weir.PacketAddr{IP: netip.AddrPortFrom(group, ea.Local().IP.Port())}
		if err := ec.SendTo([]byte("all"), to); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "two", func() bool { return len(a.got) == 1 && len(b.got) == 1 })
		if err := eb.LeaveGroup(group, device); err != nil {
			t.Fatal(err)
		}
		if err := ec.SendTo([]byte("again"), to); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "one", func() bool { return len(a.got) == 2 })
		if err := ed.SendTo([]byte("last"), weir.PacketAddr{IP: netip.AddrPortFrom(ed.Local().IP.Addr(), ed.Local().IP.Port())}); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the last", func() bool { return len(d.got) == 1 })
		if len(b.got) > 1 || len(c.got) != 0 {
			t.Errorf("who had left got %q, who listens elsewhere %q", b.got, c.got)
		}
		_ = ea.Close()
		if err := ea.JoinGroup(group, device); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("joining after the close: %v", err)
		}
	})
}
