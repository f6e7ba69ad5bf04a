package epoll

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

var loopback = backend.Addr{Family: backend.Inet, IP: netip.MustParseAddrPort("127.0.0.1:0")}

// echo is a number of connections over which messages go to and fro, both ends
// on one backend.
type echo struct {
	b    *Backend
	ends []*end // clients at even indexes, each followed by its server
	done []backend.Completion
}

type end struct {
	rd, wr backend.Op
	server bool
	vec    [1][]byte
	buf    [64]byte
}

// newEcho makes n connected pairs, of TCP or of Unix sockets.
func newEcho(t testing.TB, edge, tcp bool, n int) *echo {
	t.Helper()
	b := open(t, edge)
	t.Cleanup(func() { b.Close() })
	e := &echo{b: b, done: make([]backend.Completion, 512)}
	var l backend.Handle
	var addr backend.Addr
	if tcp {
		l, addr = listenTCP(t, b)
	}
	for range n {
		var c, s backend.Handle
		if tcp {
			c, s = dialTCP(t, b, l, addr)
		} else {
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			c, s = adopt(t, b, p[0]), adopt(t, b, p[1])
		}
		for i, h := range [...]backend.Handle{c, s} {
			x := &end{server: i == 1}
			x.rd = backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h, Owner: x}
			x.wr = backend.Op{Kind: backend.Write, Handle: h}
			x.wr.Vec = x.vec[:]
			x.vec[0] = x.buf[:]
			e.ends = append(e.ends, x)
			var done backend.Completion
			if b.Submit(&x.rd, &done) {
				t.Fatal(done.Err)
			}
		}
	}
	return e
}

func (e *echo) send(t testing.TB, x *end) {
	var c backend.Completion
	if !e.b.Submit(&x.wr, &c) || c.N != len(x.buf) {
		t.Fatalf("write: %+v", c)
	}
}

// run makes trips round trips on every connection.
func (e *echo) run(t testing.TB, trips int) {
	left := trips * len(e.ends) / 2
	for i := 0; i < len(e.ends); i += 2 {
		e.send(t, e.ends[i])
	}
	started := len(e.ends) / 2
	for left > 0 {
		n, err := e.b.Wait(10*time.Second, e.done)
		if err != nil || n == 0 {
			t.Fatalf("%d messages are missing: %v", left, err)
		}
		for i := range e.done[:n] {
			c := &e.done[i]
			x := c.Op.Owner.(*end)
			if c.Err != nil || c.N != len(x.buf) || !c.More {
				t.Fatalf("read: %+v", c)
			}
			if !x.server {
				left--
				if started == trips*len(e.ends)/2 {
					continue
				}
				started++
			}
			e.send(t, x)
		}
	}
}

// OpDone makes an end the owner of its Ops, so that results lead back to it.
func (x *end) OpDone(*backend.Completion) {}

func listenTCP(t testing.TB, b *Backend) (backend.Handle, backend.Addr) {
	t.Helper()
	l, err := b.Open(&backend.Spec{Family: backend.Inet, Bind: true, Local: loopback, Backlog: 1024})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := b.Name(l, false)
	if err != nil {
		t.Fatal(err)
	}
	return l, addr
}

func dialTCP(t testing.TB, b *Backend, l backend.Handle, addr backend.Addr) (c, s backend.Handle) {
	t.Helper()
	c, err := b.Open(&backend.Spec{Family: backend.Inet})
	if err != nil {
		t.Fatal(err)
	}
	connect := backend.Op{Kind: backend.Connect, Handle: c, Addr: &addr}
	accept := backend.Op{Kind: backend.Accept, Handle: l}
	for _, op := range []*backend.Op{&connect, &accept} {
		var done backend.Completion
		if b.Submit(op, &done) && done.Err != nil {
			t.Fatal(done.Err)
		}
	}
	s = backend.None
	var done [4]backend.Completion
	for s == backend.None || connect.Armed() {
		n, err := b.Wait(5*time.Second, done[:])
		if err != nil || n == 0 {
			t.Fatalf("connect: %d results, %v", n, err)
		}
		for _, r := range done[:n] {
			if r.Err != nil && (r.Op == &accept || r.Op == &connect) {
				t.Fatal(r.Err)
			}
			if r.Op == &accept {
				s = backend.Handle(r.N)
			}
		}
	}
	return c, s
}

func adopt(t testing.TB, b *Backend, fd int) backend.Handle {
	t.Helper()
	h, err := b.Adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func BenchmarkPingPong(b *testing.B) {
	for _, style := range styles {
		for _, kind := range []string{"unix", "tcp"} {
			b.Run(style.name+"/"+kind, func(b *testing.B) {
				e := newEcho(b, style.edge, kind == "tcp", 1)
				e.run(b, 100)
				b.ReportAllocs()
				before := e.b.Calls()
				b.ResetTimer()
				e.run(b, b.N)
				b.StopTimer()
				after := e.b.Calls()
				n := float64(b.N)
				b.ReportMetric(float64(after.Read-before.Read)/n, "reads/op")
				b.ReportMetric(float64(after.Write-before.Write)/n, "writes/op")
				b.ReportMetric(float64(after.Wait-before.Wait)/n, "waits/op")
				b.ReportMetric(float64(after.Ctl-before.Ctl)/n, "ctls/op")
			})
		}
	}
}

// BenchmarkEcho sends a message of 64 bytes to and fro on many connections at once.
func BenchmarkEcho(b *testing.B) {
	for _, style := range styles {
		for _, conns := range []int{64, 1000} {
			b.Run(fmt.Sprintf("%s/%d", style.name, conns), func(b *testing.B) {
				e := newEcho(b, style.edge, true, conns)
				e.run(b, 5)
				b.ReportAllocs()
				before := e.b.Calls()
				trips := b.N/conns + 1
				b.ResetTimer()
				e.run(b, trips)
				b.StopTimer()
				after := e.b.Calls()
				messages := float64(2 * trips * conns)
				calls := after.Read + after.Write + after.Wait + after.Ctl - before.Read - before.Write - before.Wait - before.Ctl
				b.ReportMetric(float64(calls)/messages, "calls/message")
			})
		}
	}
}
