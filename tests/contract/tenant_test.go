package contract

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/weirtest"
)

var (
	_ future.Loop[*weir.Call, *weir.Timer] = (*weir.Tenant)(nil)
	_                                      = context.Background
)

var errBankrupt = errors.New("bankrupt")

// tenantConn counts how it is told of its connection, and of nothing afterwards.
type tenantConn struct {
	t      *testing.T
	tr     weir.Transport
	turn   *int // the turn in progress
	made   int
	lost   int
	failed int
	reason error
	lostIn int // that turn
}

func (p *tenantConn) ConnectionMade(tr weir.Transport) { p.tr, p.made = tr, p.made+1 }
func (p *tenantConn) DataReceived(b []byte) (int, error) {
	if p.lost > 0 {
		p.t.Error("data after the end")
	}
	return len(b), nil
}

func (p *tenantConn) ConnectionLost(err error) {
	p.lost++
	p.reason, p.lostIn = err, *p.turn
}

func (p *tenantConn) ConnectFailed(err *weir.ConnectError) {
	p.failed++
	p.reason, p.lostIn = err, *p.turn
}

// How many turns after Close the kernel may hold something of a tenant: see
// docs/limits.md. On io_uring it ends at least so many canceled reads in each.
const (
	tenantTurnsMost     = 4
	tenantCanceledLeast = 20
)

// TestTenantClose: closing a tenant tells every loss once, in that turn and with the
// reason, and nothing of it is left a few turns later (R70, G1, G6).
func TestTenantClose(t *testing.T) {
	conns := 1000
	if race.Enabled || testing.Short() {
		conns = 100
	}
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		turn := 0
		step := func(wait time.Duration) {
			t.Helper()
			turn++
			if err := l.Turn(wait); err != nil {
				t.Fatal(err)
			}
		}
		until := func(what string, cond func() bool) {
			t.Helper()
			for deadline := time.Now().Add(patience); !cond(); {
				if step(10 * time.Millisecond); time.Now().After(deadline) {
					t.Fatal("waited in vain for ", what)
				}
			}
		}
		before := weirtest.TakeSnapshot()
		tn := l.NewTenant("shop")
		kids := make([]*weir.Tenant, 10)
		for i := range kids {
			kids[i] = tn.NewTenant("kid")
		}
		var all []*tenantConn
		conn := func() *tenantConn {
			p := &tenantConn{t: t, turn: &turn}
			all = append(all, p)
			return p
		}
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return conn() }, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		other := &tenantConn{t: t, turn: &turn}
		stays, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return other })
		if err != nil {
			t.Fatal(err)
		}
		l.Connect("tcp", stays.Addr().String(), conn(), weir.WithTenant(kids[0]))
		for i := 1; i < conns/2; i++ {
			l.Connect("tcp", ln.Addr().String(), conn(), weir.WithTenant(kids[i%len(kids)]))
			if i%100 == 0 {
				until("some connections", func() bool { return l.Connections() >= 2*i })
			}
		}
		until("the connections", func() bool { return l.Connections() == 2*(conns/2) && other.made == 1 })
		if got := tn.Stats().Connections; got != conns-1 && got != conns/2*2-1 {
			t.Errorf("the tenant counts %d connections", got)
		}
		// More that belongs to it: none of it may be heard of again.
		for range 1000 {
			tn.After(time.Hour, func() { t.Error("a timer fired") })
		}
		told, ran := 0, false
		kids[1].OnClose(func(err error) {
			if told++; !errors.Is(err, errBankrupt) {
				t.Errorf("OnClose is told of %v", err)
			}
		})
		e := &tenantPackets{turn: &turn}
		if _, err := l.ListenPacket("udp", "127.0.0.1:0", e, weir.WithTenant(kids[2])); err != nil {
			t.Fatal(err)
		}
		name := &tenantConn{t: t, turn: &turn}
		// A resolver that never answers.
		l.Connect("tcp", "never.example:1", name, weir.WithTenant(tn), weir.WithConnectResolver(silentResolver{}))
		step(0)
		closedIn, nested := 0, 0
		l.Soon(func() {
			tn.Soon(func() { ran = true })
			tn.After(0, func() { ran = true })
			tn.Close(errBankrupt)
			tn.Close(errors.New("again"))
			closedIn = turn
			for _, p := range all {
				nested += p.lost
			}
			l.Soon(func() {
				if nested > 0 || told != 1 {
					t.Errorf("%d were told from inside Close, OnClose was called %d times", nested, told)
				}
			})
		})
		step(0)
		step(0)
		bad := 0
		for i, p := range all {
			if p.made != 1 || p.lost != 1 || p.lostIn != closedIn || !errors.Is(p.reason, errBankrupt) || !errors.Is(p.reason, weir.ErrTenantClosed) {
				if bad++; bad < 4 {
					t.Errorf("connection %d: made %d, lost %d in turn %d, closed in %d: %v", i, p.made, p.lost, p.lostIn, closedIn, p.reason)
				}
			}
		}
		if e.lost != 1 || e.lostIn != closedIn || !errors.Is(e.reason, errBankrupt) {
			t.Errorf("the endpoint: lost %d in turn %d: %v", e.lost, e.lostIn, e.reason)
		}
		if name.failed != 1 || name.lostIn != closedIn || !errors.Is(name.reason, errBankrupt) {
			t.Errorf("the connect: failed %d in turn %d: %v", name.failed, name.lostIn, name.reason)
		}
		if ran {
			t.Error("a callback ran after Close")
		}
		most := tenantTurnsMost
		if l.Backend().Name == "uring" {
			most += conns / tenantCanceledLeast
		}
		for turn < closedIn+most {
			step(time.Millisecond)
		}
		if n := l.Connections(); n != 1 && n != 0 {
			t.Errorf("%d connections are left after %d turns, want the other's one at most", n, most)
		}
		until("the other side's end", func() bool { return other.lost == 1 })
		for _, k := range append(kids, tn) {
			if s := k.Stats(); s.Connections != 0 || s.Buffered != 0 || !errors.Is(k.Closed(), errBankrupt) {
				t.Errorf("%s: %+v, closed %v", k.Name(), s, k.Closed())
			}
		}
		for what, err := range map[string]error{
			"Listen": func() error {
				_, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return conn() }, weir.WithTenant(kids[0]))
				return err
			}(),
			"Post":               func() error { _, err := tn.Post(func() {}); return err }(),
			"a tenant inside it": tn.NewTenant("late").Closed(),
		} {
			if !errors.Is(err, errBankrupt) || !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s of a closed tenant: %v", what, err)
			}
		}
		if err := stays.Close(); err != nil {
			t.Fatal(err)
		}
		step(0)
		if left := before.Leaks(patience); len(left) > 0 {
			t.Errorf("left over: %v (G6)", left)
		}
	})
}

type silentResolver struct{}

func (silentResolver) LookupNetIP(*weir.Loop, string, string, func([]netip.Addr, error)) func() {
	return func() {}
}

type tenantPackets struct {
	turn   *int
	lost   int
	lostIn int
	reason error
}

func (*tenantPackets) EndpointMade(*weir.PacketEndpoint)      {}
func (*tenantPackets) PacketReceived([]byte, weir.PacketAddr) {}
func (p *tenantPackets) EndpointLost(err error) {
	p.lost++
	p.reason, p.lostIn = err, *p.turn
}

var (
	_ = task.New
	_ = fmt.Sprint
	_ = os.Getenv
	_ = strings.Repeat
)
