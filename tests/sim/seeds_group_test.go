package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/balance"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// groupFaults lose nothing that was accepted: what is late, short, cut or out of order is
// what several loops disagree about.
var groupFaults = weirtest.Faults{
	Latency: time.Millisecond, Jitter: 20 * time.Millisecond, Loopback: 10 * time.Microsecond, Loss: 0.02, CutWire: 0.1,
	SendBuffer: 64 << 10, ReceiveBuffer: 64 << 10,
	CutRead: 0.1, CutWrite: 0.1, Again: 0.05, EarlyEnd: 0.05, EmptyWait: 0.05, Shuffle: true, LateCancel: 0.2,
	LateBy: 10 * time.Millisecond, LoopStall: 0.05,
}

// TestGroupSeeds: a relay on two to four loops, with bounds on its connections, several
// targets and a drain at some moment. Across the loops (R79): no bound is ever exceeded, and
// each place is given back; targets are chosen as one loop would choose; a target that one
// loop found down is left alone by all; nothing that was accepted is cut before the
// deadline; and the deadline ends the rest, on every loop (R78).
func TestGroupSeeds(t *testing.T) {
	weirtest.Seeds(t, int(seedCount()), groups, weirtest.WithFaults(groupFaults))
}

const (
	groupTargets = 3
	groupEject   = 2 * time.Second
)

// groupRun is one seed.
type groupRun struct {
	t       *testing.T
	s       *weirtest.Sim
	r       *rand.Rand
	total   int // the bounds; 0: none
	each    int
	limiter *layer.Limiter
	policy  balance.Policy
	group   *weir.Group
	ln      *weir.Listener
	pick    map[*weir.Loop]*balance.Balancer
	leases  int
	picked  [groupTargets]int
	targets []*weir.Listener
	failing bool               // target 1 does not listen any more
	down    time.Duration      // when it was found down last; 0: it was not
	open    map[netip.Addr]int // sessions, by the client's address
	all     int
	most    int                 // sessions at once that there were
	used    map[*weir.Loop]bool // loops that have served
	taken   map[string]bool     // sessions by the client's address; true: the target was lost
	ends    time.Duration       // when the drain cuts; 0: it has not begun
	over    []<-chan struct{}   // closed as each loop ends
	clients []*groupClient
}

func groups(t *testing.T, s *weirtest.Sim) {
	r := rand.New(rand.NewPCG(s.Seed(), 16))
	g := &groupRun{
		t: t, s: s, r: r, pick: map[*weir.Loop]*balance.Balancer{}, open: map[netip.Addr]int{},
		used: map[*weir.Loop]bool{}, taken: map[string]bool{},
		policy: []balance.Policy{balance.RoundRobin, balance.Least}[r.IntN(2)],
	}
	if r.IntN(2) == 0 { // and the deadline is exact
		f := s.Faults()
		f.LoopStall = 0
		s.SetFaults(f)
	}
	c := layer.LimitConfig{Total: 2 + r.IntN(12)}
	if r.IntN(2) == 0 {
		c.PerAddress = 1 + r.IntN(c.Total)
	}
	if r.IntN(2) == 0 {
		c.Wait = 30 * time.Second // connections wait for a place that any loop gives back
	}
	g.total, g.each, g.limiter = c.Total, c.PerAddress, layer.NewLimiter(c)
	g.serve()
	s.OnStep(g.step)

	for i := range 10 + r.IntN(40) {
		c := &groupClient{g: g, size: r.IntN(20_000), stays: r.IntN(12) == 0}
		g.clients = append(g.clients, c)
		l := s.Host([]string{"ann", "bob", "eve"}[i%3]).Loop()
		l.After(time.Duration(r.Int64N(int64(3*time.Second))), func() { l.Connect("tcp", "relay:7", c) })
	}
	if r.IntN(3) == 0 {
		g.s.Host("relay").Loop().After(time.Duration(r.Int64N(int64(2*time.Second))), g.fail)
	}
	if err := s.RunFor(time.Duration(r.Int64N(int64(5 * time.Second)))); err != nil {
		t.Fatal(err)
	}
	g.drain(time.Duration(r.Int64N(int64(4 * time.Second))))
	g.rest()
}

// serve makes the relay and its targets.
func (g *groupRun) serve() {
	for i := range groupTargets {
		echo := func(weir.Transport) weir.Protocol { return &groupEcho{} }
		ln, err := g.s.Host(fmt.Sprintf("target%d", i)).Loop().Listen("tcp", ":9", echo)
		if err != nil {
			g.t.Fatal(err)
		}
		g.targets = append(g.targets, ln)
	}
	relay := g.s.Host("relay")
	loops := []*weir.Loop{relay.Loop()}
	for range 1 + g.r.IntN(3) {
		loops = append(loops, relay.NewLoop())
	}
	first := balance.New(loops[0], groupTargets, balance.Config{Policy: g.policy, Eject: groupEject})
	for i, l := range loops {
		if g.pick[l] = first; i > 0 {
			g.pick[l] = first.On(l)
		}
	}
	var err error
	if g.group, err = weir.GroupOf(loops...); err != nil {
		g.t.Fatal(err)
	}
	if g.ln, err = g.group.Listen("tcp", ":7", g.session, weir.WithAdmission(g.limiter)); err != nil {
		g.t.Fatal(err)
	}
}

// fail takes a target away; what is connected goes on.
func (g *groupRun) fail() {
	g.failing = true
	_ = g.targets[1].Close() // always nil
}

// session relays a connection on the loop that it was placed on.
func (g *groupRun) session(t weir.Transport) weir.Protocol {
	l := t.Loop()
	b := g.pick[l]
	before := [groupTargets]int{}
	for i := range before {
		before[i] = b.Active(i)
	}
	lease, err := b.Pick(0)
	if err != nil {
		g.t.Errorf("Pick: %v", err)
		return nil
	}
	g.chosen(lease.Target(), before)
	g.leases++
	g.used[l] = true
	client := t.RemoteAddr().String()
	from := netip.MustParseAddrPort(client).Addr()
	g.open[from]++
	g.all++
	g.most = max(g.most, g.all)
	g.taken[client] = false
	var up *weir.Connector
	held := true
	release := func() {
		if held {
			held = false
			g.leases--
		}
	}
	r := relay.New(relay.Config{
		Abandon: func(relay.Side) { up.Stop() },
		Failed: func(_ relay.Side, err *weir.ConnectError) bool {
			if (!g.failing || lease.Target() != 1) && !errors.Is(err, weir.ErrLoopClosed) {
				g.t.Errorf("target %d cannot be reached: %v", lease.Target(), err)
			}
			lease.Failed(err)
			release()
			if g.down == 0 || g.s.Now() >= g.down+groupEject { // or it was tried before that was known
				g.down = g.s.Now()
			}
			g.taken[client] = true
			return false
		},
		Done: func(r relay.Result) {
			if g.failing && lease.Target() == 1 && r.Why != nil {
				g.taken[client] = true // the target had not accepted it
			}
			lease.Release()
			release()
			g.open[from]--
			g.all--
		},
	})
	up = l.Connect("tcp", fmt.Sprintf("target%d:9", lease.Target()), r.Protocol(relay.B))
	return r.Protocol(relay.A)
}

// chosen compares a choice with what one loop that does everything would choose.
func (g *groupRun) chosen(target int, before [groupTargets]int) {
	g.picked[target]++
	if g.failing {
		if target == 1 && g.down > 0 && g.s.Now()-g.down < groupEject {
			g.t.Errorf("target 1 was chosen %v after it was found down", g.s.Now()-g.down)
		}
		return
	}
	for i := range before {
		if g.policy == balance.Least && before[i] < before[target] {
			g.t.Errorf("target %d was chosen with %d connections, where another has %d", target, before[target], before[i])
		}
		if d := g.picked[target] - g.picked[i]; g.policy == balance.RoundRobin && (d > 1 || d < -1) {
			g.t.Errorf("in turn, %v were chosen", g.picked)
		}
	}
}

// step looks at the bounds.
func (g *groupRun) step() {
	if n := g.limiter.Count(); n > g.total || n < g.all {
		g.t.Fatalf("%d connections are counted, %d are open, %d is the bound", n, g.all, g.total)
	}
	for from, n := range g.open { // any order: nothing is done with it
		if g.each > 0 && n > g.each {
			g.t.Fatalf("%d connections of %v, where %d is the bound", n, from, g.each)
		}
	}
	active := 0
	for i := range groupTargets {
		active += g.pick[g.group.Loops()[0]].Active(i)
	}
	if active != g.leases {
		g.t.Fatalf("%d leases are counted, %d are held", active, g.leases)
	}
}

// drain ends the relay, within d.
func (g *groupRun) drain(d time.Duration) {
	g.ends = g.s.Now() + d
	g.group.Shutdown(d)
	late := 50 * time.Millisecond
	if g.s.Faults().LoopStall > 0 {
		late = 30 * time.Second
	}
	if err := g.s.RunFor(d); err != nil {
		g.t.Fatal(err)
	}
	for _, l := range g.group.Loops() {
		g.over = append(g.over, l.Shutdown(time.Hour)) // it has a deadline before that
	}
	if err := g.s.Run(func() bool { return g.ended() || g.s.Now() > g.ends+late }); err != nil {
		g.t.Fatal(err)
	}
	if !g.ended() {
		g.t.Errorf("the group has not ended %v after the deadline", g.s.Now()-g.ends)
	}
	for _, l := range g.group.Loops() {
		var cut *weir.CutError
		if err := l.Close(); err != nil && !errors.As(err, &cut) {
			g.t.Error(err)
		}
	}
}

// ended reports whether every loop of the relay has ended.
func (g *groupRun) ended() bool {
	for _, over := range g.over {
		select {
		case <-over:
		default:
			return false
		}
	}
	return true
}

// rest lets the world come to rest and checks what is left.
func (g *groupRun) rest() {
	if err := g.s.Run(nil); err != nil {
		g.t.Fatal(err)
	}
	if n, open := g.limiter.Count(), g.ln.Conns(); n != 0 || open != 0 || g.leases != 0 || g.all != 0 {
		g.t.Errorf("at the end %d places, %d connections, %d leases and %d sessions are left", n, open, g.leases, g.all)
	}
	if g.most >= len(g.group.Loops()) && len(g.used) < len(g.group.Loops()) {
		g.t.Errorf("%d connections at once were served by %d of %d loops", g.most, len(g.used), len(g.group.Loops()))
	}
	for _, c := range g.clients {
		c.judge()
	}
}

// groupEcho sends back what comes, and then ends.
type groupEcho struct {
	weir.NopProtocol
	t weir.Transport
}

func (e *groupEcho) ConnectionMade(t weir.Transport) { e.t = t }
func (e *groupEcho) DataReceived(p []byte) (int, error) {
	return e.t.Write(p)
}
func (e *groupEcho) EOFReceived(int) (bool, error) { return false, nil }

// groupClient sends size bytes, ends its direction, and wants them back. One that stays
// keeps its connection until it is cut.
type groupClient struct {
	g     *groupRun
	size  int
	stays bool
	t     weir.Transport
	got   bytes.Buffer
	eof   bool
	lost  bool
	why   error
	at    time.Duration // when it was lost
	never bool          // it was not connected
}

var (
	_ weir.Protocol      = (*groupClient)(nil)
	_ weir.ConnectFailer = (*groupClient)(nil)
	_ weir.EOFReceiver   = (*groupClient)(nil)
)

// sent is what a client of a size sends.
func (c *groupClient) sent() []byte {
	b := make([]byte, c.size)
	for i := range b {
		b[i] = byte(i * (c.size + 1))
	}
	return b
}

func (c *groupClient) ConnectionMade(t weir.Transport) {
	c.t = t
	_, _ = io.Copy(t, bytes.NewReader(c.sent())) // a loss is told
	if !c.stays {
		_ = t.WriteEOF() // likewise
	}
}

func (c *groupClient) DataReceived(p []byte) (int, error) {
	c.got.Write(p)
	return len(p), nil
}

func (c *groupClient) EOFReceived(int) (bool, error) { c.eof = true; return false, nil }

func (c *groupClient) ConnectionLost(err error) {
	c.lost, c.why, c.at = true, err, c.g.s.Now()
}

func (c *groupClient) ConnectFailed(*weir.ConnectError) { c.never = true }

// judge checks how a client fared.
func (c *groupClient) judge() {
	g := c.g
	if c.never || c.t == nil && !c.lost {
		return // it came too late
	}
	if !c.lost {
		g.t.Errorf("a client is left open")
		return
	}
	unreached, taken := g.taken[c.local()]
	if unreached {
		return
	}
	if !taken {
		if c.got.Len() > 0 || c.eof && c.why == nil && !c.stays {
			g.t.Errorf("a client that was not accepted got %d bytes, %v", c.got.Len(), c.why)
		}
		return
	}
	whole := c.eof && c.why == nil && bytes.Equal(c.got.Bytes(), c.sent())
	if !whole && c.at < g.ends {
		g.t.Errorf("a client that was accepted was cut at %v, before the deadline at %v, with %d of %d bytes: %v", c.at, g.ends, c.got.Len(), c.size, c.why)
	}
	if c.stays && c.at < g.ends {
		g.t.Errorf("an idle client was ended at %v, before the deadline at %v", c.at, g.ends)
	}
}

func (c *groupClient) local() string {
	if a, ok := c.t.LocalAddr().(*net.TCPAddr); ok {
		return a.String()
	}
	return ""
}
