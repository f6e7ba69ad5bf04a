package relay_test

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// names is a resolver whose answers a test sets.
type names struct {
	addrs []netip.Addr
	err   error
	asked int
}

func (n *names) LookupNetIP(l *weir.Loop, _, _ string, done func([]netip.Addr, error)) func() {
	n.asked++
	c := l.Soon(func() { done(n.addrs, n.err) })
	return func() { c.Cancel() }
}

// flowRig is a relay in a simulated world between a host of clients and one of
// servers, whose addresses are 10.0.0.3, 10.0.0.4 and fd00::3; fd00::9 is no one's.
type flowRig struct {
	t        *testing.T
	s        *weirtest.Sim
	client   *weir.Loop
	server   *weir.Loop
	relay    *relay.Packets
	names    *names
	short    []relay.PacketShortage
	troubles []error
	lost     int
}

var (
	four3  = netip.MustParseAddr("10.0.0.3")
	four4  = netip.MustParseAddr("10.0.0.4")
	six3   = netip.MustParseAddr("fd00::3")
	absent = netip.MustParseAddr("fd00::9")
)

func newFlowRig(t *testing.T, c relay.PacketConfig) *flowRig {
	t.Helper()
	s := weirtest.NewSim(t, 1)
	r := &flowRig{t: t, s: s, names: &names{}}
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	r.client = s.Host("client", a("10.0.0.1"), a("10.0.1.1"), a("10.0.2.1")).Loop()
	middle := s.Host("relay", a("10.0.0.2"), a("fd00::2")).Loop()
	r.server = s.Host("server", four3, four4, six3).Loop()
	c.Resolver = r.names
	full := c.Full
	c.Full = func(s relay.PacketShortage) {
		r.short = append(r.short, s)
		if full != nil {
			full(s)
		}
	}
	c.Trouble = func(err error, _ weir.PacketAddr) { r.troubles = append(r.troubles, err) }
	c.Lost = func(error) { r.lost++ }
	var err error
	if r.relay, err = relay.NewPackets(middle, "udp4", "10.0.0.2:53", c); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *flowRig) box(l *weir.Loop, at string, answer bool) *box {
	r.t.Helper()
	b := &box{answer: answer}
	network := "udp4"
	if at[0] == '[' {
		network = "udp6"
	}
	e, err := l.ListenPacket(network, at, b)
	if err != nil {
		r.t.Fatal(err)
	}
	b.e = e
	return b
}

func (r *flowRig) send(b *box, text string) {
	r.t.Helper()
	if err := b.e.SendTo([]byte(text), r.relay.Local()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *flowRig) pass(d time.Duration) {
	r.t.Helper()
	if err := r.s.RunFor(d); err != nil {
		r.t.Fatal(err)
	}
}

// ask sends one datagram a second until one is answered, and returns how many that
// took.
func (r *flowRig) ask(b *box) int {
	r.t.Helper()
	had := len(b.got)
	for n := 1; n < 20; n++ {
		r.send(b, "q")
		r.pass(time.Second)
		if len(b.got) > had {
			return n
		}
	}
	r.t.Fatal("no answer")
	return 0
}

// TestPacketsNames: the first datagrams wait for the name. Each address is tried,
// whether the one before is silent, refuses or cannot be sent to, and the one that
// answers is where the next peers begin. When a target moves, its name is looked up
// again.
func TestPacketsNames(t *testing.T) {
	r := newFlowRig(t, relay.PacketConfig{Targets: []string{"name.test:7"}})
	server := r.box(r.server, "10.0.0.3:7", true)
	r.names.addrs = []netip.Addr{absent, six3, four4, four3}
	a := r.box(r.client, "10.0.0.1:0", false)
	tries := r.ask(a)
	t.Logf("%d datagrams until an answer", tries)
	if tries > 6 {
		t.Errorf("%d datagrams until an answer", tries)
	}
	b := r.box(r.client, "10.0.0.1:0", false)
	if n := r.ask(b); n != 1 {
		t.Errorf("the next peer needed %d", n)
	}
	// The target goes elsewhere.
	server.e.Abort()
	r.box(r.server, "10.0.0.4:7", true)
	r.names.addrs = []netip.Addr{four4}
	asked := r.names.asked
	if n := r.ask(a); n > 8 {
		t.Errorf("%d datagrams until the target was found at its new address", n)
	}
	if r.names.asked == asked {
		t.Error("the name was not looked up again")
	}
	// A failed lookup takes nothing away.
	r.names.addrs, r.names.err = nil, errors.New("no name server")
	r.pass(2 * time.Second)
	c := r.box(r.client, "10.0.0.1:0", false)
	if n := r.ask(c); n != 1 {
		t.Errorf("while no name server answers: %d", n)
	}
}

// TestPacketsNameMoves: a peer whose target has never answered reaches it once its name has
// the address where it is.
func TestPacketsNameMoves(t *testing.T) {
	r := newFlowRig(t, relay.PacketConfig{Targets: []string{"name.test:7"}})
	r.box(r.server, "10.0.0.3:7", false)
	r.box(r.server, "10.0.0.4:7", true)
	r.names.addrs = []netip.Addr{four3}
	a := r.box(r.client, "10.0.0.1:0", false)
	for range 20 {
		r.send(a, "q")
		r.pass(time.Second)
	}
	r.names.addrs = []netip.Addr{four4}
	if n := r.ask(a); n > 3 {
		t.Errorf("%d datagrams until the target was found at its new address", n)
	}
}

// TestPacketsOldAddress: a peer that began before the name moved stays where it is answered,
// and the next peers begin at the new address.
func TestPacketsOldAddress(t *testing.T) {
	r := newFlowRig(t, relay.PacketConfig{Targets: []string{"name.test:7"}})
	before, after := r.box(r.server, "10.0.0.3:7", true), r.box(r.server, "10.0.0.4:7", true)
	r.names.addrs = []netip.Addr{four3}
	old := r.box(r.client, "10.0.0.1:0", false)
	r.ask(old)
	r.names.addrs = []netip.Addr{four4}
	r.pass(2 * time.Second)
	r.ask(r.box(r.client, "10.0.0.1:0", false)) // which has the name looked up
	r.ask(old)
	had, moved := len(before.got), len(after.got)
	if n := r.ask(r.box(r.client, "10.0.0.1:0", false)); n != 1 || len(before.got) != had || len(after.got) != moved+1 {
		t.Errorf("%d datagrams until an answer, %d of them to the old address", n, len(before.got)-had)
	}
}

// TestPacketsNamesLater: a relay whose name cannot be found begins all the same, and
// finds it when it can.
func TestPacketsNamesLater(t *testing.T) {
	r := newFlowRig(t, relay.PacketConfig{Targets: []string{"name.test:7"}})
	r.box(r.server, "10.0.0.3:7", true)
	r.names.err = errors.New("no such name")
	a := r.box(r.client, "10.0.0.1:0", false)
	r.send(a, "q")
	r.pass(time.Second)
	if len(r.troubles) != 1 || r.relay.Total().Lost[relay.A].NoTarget != 1 {
		t.Errorf("troubles %v, %+v", r.troubles, r.relay.Total())
	}
	r.names.addrs, r.names.err = []netip.Addr{four3}, nil
	r.pass(time.Second)
	for range 3 { // what comes before the answer waits for it
		r.send(a, "q")
	}
	r.pass(time.Second)
	if len(a.got) != 3 {
		t.Errorf("%d answers", len(a.got))
	}
}

// TestPacketsOneWay: a target that never answers is not moved away from for ever:
// what is only sent, such as a log, arrives at one address.
func TestPacketsOneWay(t *testing.T) {
	r := newFlowRig(t, relay.PacketConfig{Targets: []string{"name.test:7"}})
	first, second := r.box(r.server, "10.0.0.3:7", false), r.box(r.server, "10.0.0.4:7", false)
	r.names.addrs = []netip.Addr{four3, four4}
	a := r.box(r.client, "10.0.0.1:0", false)
	for range 30 {
		r.send(a, "log")
		r.pass(time.Second)
	}
	if n, m := len(first.got), len(second.got); n+m != 30 || min(n, m) > 3 {
		t.Errorf("%d at the first address, %d at the second", n, m)
	}
}

// TestPacketsFair: when there is no room, the address that holds most gives up the
// flow that has been idle for longest, and no other address loses one. What happened
// is said at once, and then once a period.
func TestPacketsFair(t *testing.T) {
	r := newFlowRig(t, relay.PacketConfig{Target: weir.PacketAddr{IP: netip.AddrPortFrom(four3, 7)}, Most: 10})
	r.box(r.server, "10.0.0.3:7", true)
	quiet := r.box(r.client, "10.0.1.1:0", false)
	r.ask(quiet)
	for range 30 {
		b := r.box(r.client, "10.0.0.1:0", false)
		r.send(b, "q")
		r.pass(20 * time.Millisecond)
		if len(b.got) != 1 {
			t.Fatal("a new flow has no answer")
		}
	}
	if r.relay.Peers() != 10 || r.relay.Served() != 31 {
		t.Errorf("%d flows, %d served", r.relay.Peers(), r.relay.Served())
	}
	served := r.relay.Served()
	r.ask(quiet) // as before
	if r.relay.Served() != served {
		t.Error("the quiet address lost its flow to the greedy one")
	}
	other := r.box(r.client, "10.0.2.1:0", false)
	if n := r.ask(other); n != 1 {
		t.Errorf("another address got in after %d", n)
	}
	r.ask(quiet)
	if r.relay.Served() != served+1 {
		t.Errorf("%d served, and two addresses have one flow each", r.relay.Served())
	}
	r.pass(30 * time.Second)
	evicted := int64(0)
	for _, s := range r.short {
		evicted += s.Evicted
	}
	if len(r.short) != 2 || r.short[0].Evicted != 1 || evicted != 22 || r.short[1].Flows != 10 {
		t.Errorf("said: %+v", r.short)
	}
}

// TestPacketsDescriptors: the same where it is the system that has no more room. What
// is refused although all else was given up is counted.
func TestPacketsDescriptors(t *testing.T) {
	r := newFlowRig(t, relay.PacketConfig{Target: weir.PacketAddr{IP: netip.AddrPortFrom(four3, 7)}})
	r.box(r.server, "10.0.0.3:7", true)
	a := r.box(r.client, "10.0.0.1:0", false)
	r.ask(a)
	b := r.box(r.client, "10.0.0.1:0", false)
	r.s.Fail(weirtest.OpenCall, 1, syscall.EMFILE)
	r.send(b, "q")
	r.pass(time.Second)
	if len(b.got) != 1 || r.relay.Peers() != 1 || len(r.short) != 1 || r.short[0].Evicted != 1 || !errors.Is(r.short[0].Err, syscall.EMFILE) {
		t.Errorf("%d answers, %d flows, %+v", len(b.got), r.relay.Peers(), r.short)
	}
	r.s.Fail(weirtest.OpenCall, 1, syscall.EMFILE)
	r.s.Fail(weirtest.OpenCall, 2, syscall.EMFILE)
	r.send(a, "q")
	r.pass(11 * time.Second)
	if len(r.short) != 2 || r.short[1].Evicted != 1 || r.short[1].Refused != 1 || r.relay.Peers() != 0 {
		t.Errorf("%d flows, %+v", r.relay.Peers(), r.short)
	}
	if n := r.ask(a); n != 1 {
		t.Errorf("afterwards: %d", n)
	}
	if len(r.troubles) != 0 {
		t.Errorf("troubles %v", r.troubles)
	}
}

// TestPacketsPick: each flow has the target that was picked for it, and another one
// when that refuses.
func TestPacketsPick(t *testing.T) {
	next, said := 0, []string{}
	r := newFlowRig(t, relay.PacketConfig{
		Targets: []string{"10.0.0.4:7", "10.0.0.3:7"},
		Pick: func(weir.PacketAddr) (int, func(error)) {
			n := next % 2
			next++
			return n, func(err error) { said = append(said, fmt.Sprint(n, err != nil)) }
		},
		Idle: 10 * time.Second,
	})
	r.box(r.server, "10.0.0.3:7", true) // 10.0.0.4 refuses
	a, b := r.box(r.client, "10.0.0.1:0", false), r.box(r.client, "10.0.0.1:0", false)
	if n, m := r.ask(a), r.ask(b); n != 2 || m != 2 && m != 1 {
		t.Errorf("answers after %d and %d datagrams", n, m)
	}
	r.pass(11 * time.Second)
	if n := len(said); n != next || said[0] != "0 true" || said[n-1] != "1 false" {
		t.Errorf("%d picked, said %v", next, said)
	}
	r.relay.Close()
	r.s.Until("the end", func() bool { return r.lost == 1 })
}

// TestPacketsAllow: what the rules forbid is not sent to, whatever a name says.
func TestPacketsAllow(t *testing.T) {
	forbidden := errors.New("forbidden")
	r := newFlowRig(t, relay.PacketConfig{Targets: []string{"name.test:7"}, Allow: func(a netip.AddrPort) error {
		if a.Addr() == four3 {
			return forbidden
		}
		return nil
	}})
	server := r.box(r.server, "10.0.0.3:7", true)
	r.names.addrs = []netip.Addr{four3}
	a := r.box(r.client, "10.0.0.1:0", false)
	r.send(a, "q")
	r.pass(time.Second)
	if len(server.got) != 0 || len(r.troubles) != 1 || !errors.Is(r.troubles[0], forbidden) {
		t.Errorf("%v arrived, troubles %v", server.got, r.troubles)
	}
}
