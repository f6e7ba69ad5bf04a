package dns

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// TestTorture makes every call of a lookup fail, each once, with every errno
// that it can return: there is one result each time, nothing is left over, and
// the next lookup finds the records. The lookup goes over UDP, is told that the
// answer is too long, and goes over TCP.
func TestTorture(t *testing.T) {
	calls := []struct {
		what  sim.What
		errno []syscall.Errno
	}{
		{sim.OpenCall, []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRINUSE, syscall.EACCES, syscall.EAFNOSUPPORT}},
		{sim.SendToCall, []syscall.Errno{syscall.ENOBUFS, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EPERM, syscall.EMSGSIZE, syscall.ECONNREFUSED, syscall.EINVAL}},
		{sim.RecvFromCall, []syscall.Errno{syscall.ENOMEM, syscall.ENOBUFS, syscall.ECONNREFUSED, syscall.EIO, syscall.EBADF}},
		{sim.NameCall, []syscall.Errno{syscall.ENOBUFS, syscall.EINVAL}},
		{sim.ShutCall, []syscall.Errno{syscall.EIO, syscall.EINTR}},
		{sim.SetCall, []syscall.Errno{syscall.EINVAL, syscall.ENOPROTOOPT}},
		{sim.ConnectCall, []syscall.Errno{syscall.ECONNREFUSED, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.ENOBUFS}},
		{sim.ReadCall, []syscall.Errno{syscall.ECONNRESET, syscall.ETIMEDOUT, syscall.ENOMEM}},
		{sim.WriteCall, []syscall.Errno{syscall.EPIPE, syscall.ECONNRESET, syscall.ENOBUFS}},
	}
	type run struct {
		w      *sim.World
		client *weir.Loop
		r      *Resolver
	}
	begin := func() run {
		w := sim.New(1, sim.Config{})
		loop := func(host string) *weir.Loop {
			be, err := w.Host(host).Backend()
			if err != nil {
				t.Fatal(err)
			}
			l := quietLoop(t, weir.WithBackend(be))
			be.Drive(l)
			return l
		}
		s := newTestServer(t, loop("server"), netip.AddrPortFrom(w.Host("server").Addrs()[0], 53).String())
		s.add("a.test 60 A 192.0.2.1", "a.test 60 AAAA 2001:db8::1", "b.test 60 A 192.0.2.2")
		s.edit = func(m *dnsmessage.Message, tcp bool) {
			m.Truncated = !tcp && m.Questions[0].Type == dnsmessage.TypeA
		}
		r := New(WithConfig(Config{Servers: []netip.AddrPort{s.addr}, Ndots: 1, Timeout: time.Second}), WithHosts(nil), WithRandom(chacha(1)))
		return run{w, loop("client"), r}
	}
	lookup := func(x run, name string) (addrs []netip.Addr, n int, err error) { // n counts results
		x.client.Soon(func() {
			x.r.LookupNetIP(x.client, "ip", name, func(a []netip.Addr, e error) { addrs, err = a, e; n++ })
		})
		if e := x.w.RunFor(time.Minute); e != nil {
			t.Fatal(e)
		}
		return addrs, n, err
	}
	calm := begin()
	if addrs, n, err := lookup(calm, "a.test"); err != nil || len(addrs) != 2 || n != 1 {
		t.Fatalf("%v, %v, %d", addrs, err, n)
	}
	failed, right := 0, 0
	for _, c := range calls {
		count := calm.w.Calls(c.what)
		if count == 0 && c.what != sim.NameCall && c.what != sim.SetCall {
			t.Errorf("%v: no such call", c.what)
		}
		for nth := 1; nth <= count; nth++ {
			for _, errno := range c.errno {
				x := begin()
				x.w.Host("client").Fail(c.what, nth, errno)
				addrs, n, err := lookup(x, "a.test")
				var e *Error
				switch {
				case n != 1:
					t.Errorf("%v %d fails with %v: %d results", c.what, nth, errno, n)
				case err != nil && !errors.As(err, &e):
					t.Errorf("%v %d fails with %v: %T %v", c.what, nth, errno, err, err)
				case err != nil:
					failed++
				case len(addrs) == 0:
					t.Errorf("%v %d fails with %v: no address and no error", c.what, nth, errno)
				default:
					right++
				}
				if u := x.w.Host("client").Usage(); u.Handles != 0 || u.Armed != 0 || u.Sockets != 0 {
					t.Errorf("%v %d fails with %v: left over %+v", c.what, nth, errno, u)
				}
				if cl := x.r.client(x.client); len(cl.open)+cl.waiting+len(cl.askers) != 0 || len(cl.questions) != 0 {
					t.Errorf("%v %d fails with %v: %d exchanges, %d questions", c.what, nth, errno, len(cl.open), len(cl.questions))
				}
				if v := x.w.Violations(); len(v) > 0 {
					t.Errorf("%v %d fails with %v: %v", c.what, nth, errno, v)
				}
				if addrs, n, err := lookup(x, "b.test"); err != nil || len(addrs) != 1 || n != 1 {
					t.Errorf("after %v %d failed with %v: %v, %v, %d", c.what, nth, errno, addrs, err, n)
				}
			}
		}
	}
	t.Logf("%d lookups had an answer all the same, %d an error", right, failed)
}
