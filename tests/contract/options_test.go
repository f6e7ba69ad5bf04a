package contract

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// quietly takes everything.
func quietly(weir.Transport) weir.Protocol {
	return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
}

// kinds is one option as each call takes it; nil where the call does not.
type kinds struct {
	listen  weir.ListenOption
	connect weir.ConnectOption
	packet  weir.PacketOption
	stream  weir.StreamOption
	carried weir.CarryPacketsOption
}

func listening(o weir.ListenOption) kinds     { return kinds{listen: o} }
func connecting(o weir.ConnectOption) kinds   { return kinds{connect: o} }
func carried(o weir.CarryPacketsOption) kinds { return kinds{packet: o, carried: o} }
func tcp(o weir.TCPOption) kinds              { return kinds{listen: o, connect: o} }
func bound(o weir.BindOption) kinds           { return kinds{listen: o, packet: o} }
func socket(o weir.SocketOption) kinds        { return kinds{listen: o, connect: o, packet: o} }
func stream(o weir.StreamOption) kinds        { return kinds{listen: o, connect: o, stream: o} }

// TestOptionRanges: a number outside an option's range is refused with the
// option's name and its range, by every call that takes it; none is changed
// silently.
func TestOptionRanges(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	most := math.MaxInt
	for _, c := range []struct {
		name string
		opt  kinds
		want string // "" if the value is good
	}{
		{"WithKeepAlive", tcp(weir.WithKeepAlive(32768 * time.Second)), "at most 9h6m7s"},
		{"WithKeepAlive", tcp(weir.WithKeepAlive(math.MaxInt64)), "at most 9h6m7s"},
		{"WithKeepAlive", tcp(weir.WithKeepAlive(32767 * time.Second)), ""},
		{"WithKeepAlive", tcp(weir.WithKeepAlive(1)), ""},
		{"WithKeepAlive", tcp(weir.WithKeepAlive(-1)), ""},
		{"WithUserTimeout", tcp(weir.WithUserTimeout(-1)), "0 or above"},
		{"WithUserTimeout", tcp(weir.WithUserTimeout(math.MaxInt64)), "from 0 to"},
		{"WithSocketBuffers", socket(weir.WithSocketBuffers(-1, 0)), "from 0 to 1073741824"},
		{"WithSocketBuffers", socket(weir.WithSocketBuffers(0, most)), "from 0 to 1073741824"},
		{"WithBacklog", listening(weir.WithBacklog(0)), "from 1 to 65535"},
		{"WithBacklog", listening(weir.WithBacklog(65536)), "from 1 to 65535"},
		{"WithFastOpen", tcp(weir.WithFastOpen(-1)), "from 0 to 65535"},
		{"WithTailLimit", stream(weir.WithTailLimit(0)), "from 1 to 1073741824"},
		{"WithTailLimit", stream(weir.WithTailLimit(most)), "from 1 to 1073741824"},
		{"WithWriteMarks", stream(weir.WithWriteMarks(1, 2)), "0 <= low <= high"},
		{"WithWriteMarks", stream(weir.WithWriteMarks(1<<30+1, 0)), "high <= 1 GiB"},
		{"WithWriteMarks", stream(weir.WithWriteMarks(0, -1)), "0 <= low"},
		{"WithMaxDatagram", carried(weir.WithMaxDatagram(0)), "from 1 to 65536"},
		{"WithMaxDatagram", carried(weir.WithMaxDatagram(65537)), "from 1 to 65536"},
		{"WithDSCP", tcp(weir.WithDSCP(64)), "from 0 to 63"},
		{"WithMode", bound(weir.WithMode(fs.ModeSetuid | 0o600)), "permission bits"},
		{"WithTimeout", connecting(weir.WithTimeout(-1)), "0 or above"},
		{"WithConnectTimeout", connecting(weir.WithConnectTimeout(-1)), "0 or above"},
		{"WithNameTimeout", connecting(weir.WithNameTimeout(-1)), "0 or above"},
		{"WithRaceDelay", connecting(weir.WithRaceDelay(-1)), "0 or above"},
	} {
		check := func(call string, err error) {
			t.Helper()
			var bad *weir.OptionError
			switch {
			case c.want == "" && errors.As(err, &bad):
				t.Errorf("%s: %s is refused: %v", call, c.name, err)
			case c.want == "":
			case !errors.As(err, &bad) || bad.Option != c.name || !strings.Contains(err.Error(), c.want):
				t.Errorf("%s: %s: %v, want its range %q", call, c.name, err, c.want)
			}
		}
		if c.opt.listen != nil {
			ln, err := l.Listen("tcp", "127.0.0.1:0", quietly, c.opt.listen)
			if check("Listen", err); err == nil {
				_ = ln.Close()
			}
		}
		if c.opt.packet != nil {
			e, err := l.ListenPacket("udp", "127.0.0.1:0", weir.PacketFunc(func(*weir.PacketEndpoint, []byte, weir.PacketAddr) {}).Protocol(), c.opt.packet)
			if check("ListenPacket", err); err == nil {
				e.Abort()
			}
		}
		if c.opt.stream != nil && c.want != "" { // before the descriptor and the carrier are examined
			_, err := l.ListenFD(-1, quietly, c.opt.stream)
			check("ListenFD", err)
			_, err = l.Attach(-1, "none", quietly, c.opt.stream)
			check("Attach", err)
			_, err = l.AttachPair(-1, -1, "none", quietly, c.opt.stream)
			check("AttachPair", err)
			_, err = l.Carry(&scriptCarrier{}, c.opt.stream)
			check("Carry", err)
		}
		if c.opt.carried != nil && c.want != "" {
			_, err := l.CarryPackets(nil, nil, c.opt.carried)
			check("CarryPackets", err)
		}
		if c.opt.connect != nil {
			p := &dialed{}
			l.Connect("tcp", "127.0.0.1:1", p, c.opt.connect)
			turns(t, l, "the connect has ended", func() bool { return p.ended > 0 })
			check("Connect", p.err)
		}
	}
	if _, err := weir.NewLoop(weir.WithDebug(-1)); err == nil || !strings.Contains(err.Error(), "WithDebug") {
		t.Errorf("WithDebug(-1): %v", err)
	}
}

// TestJoinOptions: a joined option does what its parts do, in every call that takes it, and
// keeps no slice of the caller's.
func TestJoinOptions(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	opts := []weir.TCPOption{weir.WithNagle(), weir.WithKeepAlive(math.MaxInt64)}
	joined := weir.JoinOptions(opts...)
	opts[1] = weir.WithNagle()
	var bad *weir.OptionError
	if _, err := l.Listen("tcp", "127.0.0.1:0", quietly, joined); !errors.As(err, &bad) {
		t.Errorf("Listen: %v", err)
	}
	p := &dialed{}
	l.Connect("tcp", "127.0.0.1:1", p, weir.WithSequential(), joined)
	turns(t, l, "the connect has ended", func() bool { return p.ended > 0 })
	if bad = nil; !errors.As(p.err, &bad) {
		t.Errorf("Connect: %v", p.err)
	}
	ln, err := l.Listen("tcp", "127.0.0.1:0", quietly, weir.JoinOptions[weir.StreamOption](), weir.JoinOptions(opts...))
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	type extended interface {
		weir.TCPOption
		More()
	}
	defer func() {
		if text := fmt.Sprint(recover()); !strings.Contains(text, "JoinOptions of contract.extended") {
			t.Errorf("of another type: %s", text)
		}
	}()
	weir.JoinOptions[extended]()
}

// TestOptionSlices: an option keeps no slice of its caller's.
func TestOptionSlices(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	groups := []netip.Addr{netip.MustParseAddr("239.1.2.3")}
	o := weir.WithGroups("", groups...)
	groups[0] = netip.MustParseAddr("127.0.0.1") // no group
	p, err := l.ListenPacket("udp4", "127.0.0.1:0", &quietPackets{}, o)
	if err != nil {
		t.Fatalf("it took what its caller's slice has now: %v", err)
	}
	_ = p.Close()
}

// TestVanishedPeer: a peer that vanishes while bytes are on their way to it is
// detected in about the time that keep-alive takes on an idle connection, and
// one whose window is shut is not mistaken for it.
func TestVanishedPeer(t *testing.T) {
	for _, c := range []struct {
		name        string
		send        int
		cut         bool
		opts        []weir.ConnectOption
		least, most time.Duration
	}{
		{"idle", 0, true, nil, 20 * time.Second, 22 * time.Second},
		{"bytes on their way", 10, true, nil, 20 * time.Second, 30 * time.Second},
		{"its own time", 10, true, []weir.ConnectOption{weir.WithUserTimeout(7 * time.Second)}, 7 * time.Second, 15 * time.Second},
		{"a shut window", 4 << 20, false, nil, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := sim.New(1, sim.Config{Unanswered: true})
			loop := func(host string) *weir.Loop {
				b, err := w.Host(host).Backend()
				if err != nil {
					t.Fatal(err)
				}
				l := newLoop(t, weir.WithBackend(b))
				b.Drive(l)
				return l
			}
			server, here := loop("server"), loop("client")
			if _, err := server.Listen("tcp", ":7", func(tr weir.Transport) weir.Protocol {
				tr.PauseReading()
				return quietly(tr)
			}); err != nil {
				t.Fatal(err)
			}
			var tr weir.Transport
			var lost time.Time
			var why error
			here.Connect("tcp", netip.AddrPortFrom(w.Host("server").Addrs()[0], 7).String(), &madeAndLost{
				made: func(t weir.Transport) { tr = t }, lost: func(err error) { lost, why = here.Now(), err },
			}, append(c.opts, weir.WithKeepAlive(2*time.Second))...)
			if err := w.Run(func() bool { return tr != nil }); err != nil {
				t.Fatal(err)
			}
			w.RunFor(time.Second)
			start := here.Now()
			if c.cut {
				w.Partition(w.Host("server"), w.Host("client"))
			}
			here.Soon(func() { _, _ = tr.Write(make([]byte, c.send)) })
			w.RunFor(10 * time.Minute)
			switch took := lost.Sub(start); {
			case !c.cut && why != nil:
				t.Errorf("lost after %v: %v", took, why)
			case c.cut && (!errors.Is(why, syscall.ETIMEDOUT) || took < c.least || took > c.most):
				t.Errorf("lost after %v with %v, want %v to %v and a timeout", took, why, c.least, c.most)
			}
			cut := (*weir.CutError)(nil) // of a window that is shut
			if err := errors.Join(here.Close(), server.Close()); err != nil && !errors.As(err, &cut) {
				t.Error(err)
			}
		})
	}
}

// madeAndLost reports the beginning and the end of a connection's life.
type madeAndLost struct {
	weir.NopProtocol
	made func(weir.Transport)
	lost func(error)
}

func (p *madeAndLost) ConnectionMade(t weir.Transport)      { p.made(t) }
func (p *madeAndLost) ConnectionLost(err error)             { p.lost(err) }
func (p *madeAndLost) ConnectFailed(err *weir.ConnectError) { p.lost(err) }
