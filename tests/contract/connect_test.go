package contract

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
	"github.com/weir-io/weir/layer"
)

// names is a resolver that knows some names, after a while.
type names struct {
	addrs map[string][]netip.Addr
	after time.Duration
	asked int
	gone  int // canceled
}

func (n *names) LookupNetIP(l *weir.Loop, _, host string, done func([]netip.Addr, error)) func() {
	n.asked++
	t := l.After(n.after, func() {
		if n.addrs[host] == nil {
			done(nil, errors.New("no such name"))
			return
		}
		done(n.addrs[host], nil)
	})
	return func() { n.gone++; t.Stop() }
}

// caller is a protocol that records how a connect ended.
type dialed struct {
	weir.NopProtocol
	t     weir.Transport
	err   *weir.ConnectError
	ended int
	lost  error
	tried []attemptNote
	quit  func() // when an attempt has failed
}

// attemptNote is an AttemptFailed.
type attemptNote struct {
	addr string
	err  error
	next []string
}

func (d *dialed) AttemptFailed(err *weir.AttemptError, next []net.Addr) {
	n := attemptNote{addr: err.Addr.String(), err: err}
	for _, a := range next {
		n.next = append(n.next, a.String())
	}
	d.tried = append(d.tried, n)
	if d.quit != nil {
		d.quit()
	}
}

func (d *dialed) ConnectionMade(t weir.Transport)      { d.t = t; d.ended++ }
func (d *dialed) ConnectionLost(err error)             { d.lost = err }
func (d *dialed) ConnectFailed(err *weir.ConnectError) { d.err = err; d.ended++ }

// dialWorld is a simulated network of a client and hosts that answer or not.
type dialWorld struct {
	t      *testing.T
	w      *sim.World
	l      *weir.Loop
	names  *names
	client *sim.Host
}

func newDialWorld(t *testing.T) *dialWorld {
	t.Helper()
	d := &dialWorld{t: t, w: sim.New(1, sim.Config{}), names: &names{addrs: map[string][]netip.Addr{}, after: time.Millisecond}}
	d.client = d.w.Host("client")
	be, err := d.client.Backend()
	if err != nil {
		t.Fatal(err)
	}
	d.l = newLoop(t, weir.WithBackend(be), weir.WithResolver(d.names), weir.WithLogger(discard()))
	be.Drive(d.l)
	return d
}

// host makes a host and returns its IPv4 and IPv6 address; it accepts on port 7
// if listens says so.
func (d *dialWorld) host(name string, listens bool) (v4, v6 netip.Addr) {
	d.t.Helper()
	h := d.w.Host(name)
	be, err := h.Backend()
	if err != nil {
		d.t.Fatal(err)
	}
	l := newLoop(d.t, weir.WithBackend(be), weir.WithLogger(discard()))
	be.Drive(l)
	if listens {
		if _, err := l.Listen("tcp", ":7", func(weir.Transport) weir.Protocol { return &dialed{} }); err != nil {
			d.t.Fatal(err)
		}
	}
	return h.Addrs()[0], h.Addrs()[1]
}

func (d *dialWorld) run(p *dialed) time.Duration {
	d.t.Helper()
	start := d.w.Now()
	if err := d.w.Run(func() bool { return p.ended > 0 }); err != nil {
		d.t.Fatal(err)
	}
	return d.w.Now() - start
}

// rest lets everything end and checks that nothing is left except the
// connections (G6, behaviour 66).
func (d *dialWorld) rest(handles int, p *dialed) {
	d.t.Helper()
	if err := d.w.RunFor(10 * time.Minute); err != nil {
		d.t.Fatal(err)
	}
	if u := d.client.Usage(); u.Handles != handles || u.Sockets != handles {
		d.t.Errorf("left over: %+v, want %d", u, handles)
	}
	if p.ended != 1 {
		d.t.Errorf("the connect ended %d times", p.ended)
	}
	if v := d.w.Violations(); len(v) > 0 {
		d.t.Error(v)
	}
}

func TestConnecting(t *testing.T) {
	t.Run("65 a failed attempt starts the next at once, a slow one after the delay", func(t *testing.T) {
		for _, sequential := range []bool{false, true} {
			d := newDialWorld(t)
			closed, _ := d.host("closed", false)
			silent, _ := d.host("silent", true)
			good, _ := d.host("good", true)
			d.w.Partition(d.client, d.w.Host("silent"))
			d.names.addrs["refused"] = []netip.Addr{closed, good}
			d.names.addrs["slow"] = []netip.Addr{silent, good}
			var opts []weir.ConnectOption
			if sequential {
				opts = append(opts, weir.WithSequential(), weir.WithConnectTimeout(3*time.Second))
			}
			p := &dialed{}
			d.l.Connect("tcp", "refused:7", p, opts...)
			if took := d.run(p); p.t == nil || took > 50*time.Millisecond {
				t.Errorf("sequential %t: refused: %v after %v", sequential, p.err, took)
			}
			d.rest(1, p)
			p = &dialed{}
			d.l.Connect("tcp", "slow:7", p, opts...)
			took, least, most := d.run(p), 250*time.Millisecond, 300*time.Millisecond
			if sequential {
				least, most = 3*time.Second, 3050*time.Millisecond
			}
			if p.t == nil || took < least || took > most {
				t.Errorf("sequential %t: slow: %v after %v", sequential, p.err, took)
			}
			if ip, _ := netip.ParseAddrPort(p.t.RemoteAddr().String()); ip.Addr() != good {
				t.Errorf("connected to %v", ip)
			}
			d.rest(2, p)
		}
	})
	t.Run("65 one family black-holed", func(t *testing.T) {
		d := newDialWorld(t)
		_, v6 := d.host("six", true)
		v4, _ := d.host("four", true)
		d.w.Partition(d.client, d.w.Host("six"))
		d.names.addrs["both"] = []netip.Addr{v4, v6}
		p := &dialed{}
		d.l.Connect("tcp", "both:7", p)
		if took := d.run(p); p.t == nil || took > 300*time.Millisecond {
			t.Errorf("%v after %v", p.err, took)
		}
		d.rest(1, p)
	})
	t.Run("65 all fail: every error with its address", func(t *testing.T) {
		d := newDialWorld(t)
		a4, a6 := d.host("a", false)
		b4, _ := d.host("b", false)
		c4, _ := d.host("c", true)
		d.w.Partition(d.client, d.w.Host("c"))
		d.names.addrs["x"] = []netip.Addr{a4, a6, b4, c4}
		p := &dialed{}
		d.l.Connect("tcp", "x:7", p, weir.WithConnectTimeout(2*time.Second))
		d.run(p)
		if p.err == nil || len(p.err.Attempts) != 4 {
			t.Fatalf("%+v", p.err)
		}
		seen := map[string]error{}
		for _, a := range p.err.Attempts {
			seen[a.Addr.String()] = a.Err
			if a.Stage != weir.StageConnect {
				t.Errorf("%v", a)
			}
		}
		for _, a := range []netip.Addr{a4, a6, b4} {
			if err := seen[netip.AddrPortFrom(a, 7).String()]; !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%v: %v", a, err)
			}
		}
		if err := seen[netip.AddrPortFrom(c4, 7).String()]; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: %v", c4, err)
		}
		d.rest(0, p)
	})
	t.Run("each failure is told as it comes, with what is tried next (R43)", func(t *testing.T) {
		for _, layers := range []int{0, 1} {
			d := newDialWorld(t)
			a, _ := d.host("a", false)
			b, _ := d.host("b", false)
			c, _ := d.host("c", true)
			d.names.addrs["x"] = []netip.Addr{a, b, c}
			at := func(ip netip.Addr) string { return netip.AddrPortFrom(ip, 7).String() }
			p := &dialed{}
			var q weir.Protocol = p
			if layers > 0 {
				q = layer.Client(p, layer.Idle(layer.IdleConfig{Idle: time.Hour}))
			}
			d.l.Connect("tcp", "x:7", q, weir.WithSequential())
			if d.run(p); p.t == nil || len(p.tried) != 2 {
				t.Fatalf("%v, told %+v", p.err, p.tried)
			}
			for i, want := range []attemptNote{{addr: at(a), next: []string{at(b), at(c)}}, {addr: at(b), next: []string{at(c)}}} {
				got := p.tried[i]
				if got.addr != want.addr || !slices.Equal(got.next, want.next) || !errors.Is(got.err, syscall.ECONNREFUSED) {
					t.Errorf("failure %d: %+v, want %+v", i+1, got, want)
				}
			}
			d.rest(1, p)
			// It may be stopped there, and the last failure goes to ConnectFailed.
			p = &dialed{}
			var x *weir.Connector
			p.quit = func() { x.Stop() }
			x = d.l.Connect("tcp", "x:7", p, weir.WithSequential())
			if d.run(p); !errors.Is(p.err, weir.ErrStopped) || len(p.tried) != 1 || len(p.err.Attempts) != 1 {
				t.Errorf("stopped: %v, told %+v", p.err, p.tried)
			}
			d.rest(1, p)
			d.names.addrs["x"] = []netip.Addr{a, b}
			p = &dialed{}
			d.l.Connect("tcp", "x:7", p)
			if d.run(p); p.err == nil || len(p.tried) != 1 || len(p.err.Attempts) != 2 {
				t.Errorf("all refused: %v, told %+v", p.err, p.tried)
			}
			d.rest(1, p)
		}
	})
	t.Run("66, 69 stopping at each stage, and connecting again", func(t *testing.T) {
		// The name takes 1 ms, then there are two attempts at a time.
		for at := time.Duration(0); at < 600*time.Millisecond; at += 7 * time.Millisecond {
			d := newDialWorld(t)
			a, _ := d.host("a", true)
			b, _ := d.host("b", true)
			d.w.Partition(d.client, d.w.Host("a"))
			d.w.Partition(d.client, d.w.Host("b"))
			d.names.addrs["x"] = []netip.Addr{a, b}
			p := &dialed{}
			c := d.l.Connect("tcp", "x:7", p)
			d.l.After(at, func() {
				if !c.Stop() || c.Stop() {
					t.Error("Stop does not say what it did")
				}
				if p.ended != 0 {
					t.Error("told from inside Stop")
				}
			})
			d.run(p)
			if !errors.Is(p.err, weir.ErrStopped) {
				t.Fatalf("stopped after %v: %v", at, p.err)
			}
			d.rest(0, p)
			d.w.HealAll()
			p = &dialed{}
			d.l.Connect("tcp", "x:7", p)
			if d.run(p); p.t == nil {
				t.Fatalf("again after %v: %v", at, p.err)
			}
			d.rest(1, p)
		}
	})
	t.Run("67 a local address of another family skips the candidate, one in use is named", func(t *testing.T) {
		d := newDialWorld(t)
		v4, v6 := d.host("a", true)
		d.names.addrs["x"] = []netip.Addr{v6, v4}
		own := netip.AddrPortFrom(d.client.Addrs()[0], 0)
		p := &dialed{}
		d.l.Connect("tcp", "x:7", p, weir.WithLocalAddr(own))
		if d.run(p); p.t == nil {
			t.Fatal(p.err)
		}
		d.rest(1, p)
		d.names.addrs["x"] = []netip.Addr{v6}
		p = &dialed{}
		d.l.Connect("tcp", "x:7", p, weir.WithLocalAddr(own))
		if d.run(p); p.err == nil || len(p.err.Attempts) != 1 || p.err.Attempts[0].Stage != weir.StageSocket {
			t.Errorf("%+v", p.err)
		}
		ln, err := d.l.Listen("tcp4", own.Addr().String()+":9", func(weir.Transport) weir.Protocol { return &dialed{} })
		if err != nil {
			t.Fatal(err)
		}
		p = &dialed{}
		d.names.addrs["x"] = []netip.Addr{v4}
		d.l.Connect("tcp", "x:7", p, weir.WithLocalAddr(netip.AddrPortFrom(own.Addr(), 9)))
		if d.run(p); p.err == nil || !errors.Is(p.err, syscall.EADDRINUSE) {
			t.Errorf("%+v", p.err)
		}
		_ = ln.Close()
	})
	t.Run("a name that is not found, or takes too long", func(t *testing.T) {
		d := newDialWorld(t)
		p := &dialed{}
		d.l.Connect("tcp", "nobody:7", p)
		if d.run(p); p.err == nil || p.err.Stage != weir.StageName || len(p.err.Attempts) != 1 {
			t.Errorf("%+v", p.err)
		}
		d.names.after = time.Minute
		p = &dialed{}
		d.l.Connect("tcp", "nobody:7", p, weir.WithNameTimeout(time.Second))
		if took := d.run(p); !errors.Is(p.err, os.ErrDeadlineExceeded) || took != time.Second || d.names.gone != 1 {
			t.Errorf("%v after %v, %d canceled", p.err, took, d.names.gone)
		}
		d.rest(0, p)
	})
}
