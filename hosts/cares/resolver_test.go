package cares_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/cares"
	"github.com/weir-io/weir/hosts/internal/hosttest"
)

// serve starts a server for names that end in "test." and returns its address. A name that
// begins with n and a number has that as its IPv4 address, "both.test." has one of each
// family, "self.test." is 127.0.0.1; "silent.test." gets no answer, and there are no others.
func serve(t *testing.T) string {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(1 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b [1500]byte
		for {
			n, from, err := c.ReadFromUDPAddrPort(b[:])
			if err != nil {
				return
			}
			if r := answer(b[:n]); r != nil {
				_, _ = c.WriteToUDPAddrPort(r, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return c.LocalAddr().String()
}

func answer(q []byte) []byte {
	const a, aaaa = 1, 28
	name, at := "", 12
	for at < len(q) && q[at] != 0 {
		n := int(q[at])
		name += string(q[at+1:at+1+n]) + "."
		at += 1 + n
	}
	kind := binary.BigEndian.Uint16(q[at+1:])
	var addr []byte
	code := byte(0)
	var i uint32
	switch label := strings.ToLower(strings.TrimSuffix(name, "test.")); {
	case label == "silent.":
		return nil
	case label == "self.":
		addr = []byte{127, 0, 0, 1}
	case label == "both.":
		addr = []byte{192, 0, 2, 1}
		if kind == aaaa {
			addr = net.ParseIP("2001:db8::1")
		}
	default:
		if _, err := fmt.Sscanf(label, "n%d.", &i); err != nil {
			code = 3 // NXDOMAIN
			break
		}
		addr = binary.BigEndian.AppendUint32(nil, i)
	}
	r := append([]byte(nil), q[:at+5]...)
	binary.BigEndian.PutUint16(r[2:], 0x8180|uint16(code)) // a reply, recursion desired and available
	clear(r[6:12])
	if len(addr) == 4 && kind == a || len(addr) == 16 && kind == aaaa {
		r[7] = 1
		r = append(r, 0xc0, 12) // the name of the question
		r = binary.BigEndian.AppendUint16(r, kind)
		r = append(r, 0, 1, 0, 0, 0, 60, 0, byte(len(addr)))
		r = append(r, addr...)
	}
	return r
}

func open(t *testing.T, backend weir.LoopOption, opts ...cares.Option) (*weir.Loop, *cares.Resolver) {
	t.Helper()
	stop := func() {}
	loop, err := weir.NewLoop(backend, weir.WithErrorHandler(func(err error) { t.Error(err); stop() }))
	if err != nil {
		t.Fatal(err)
	}
	stop = loop.Stop
	r, err := cares.New(loop, opts...)
	if err != nil {
		t.Fatal(err)
	}
	late := loop.After(100*time.Second, func() { t.Error("the answers stopped"); loop.Stop() })
	t.Cleanup(func() {
		late.Stop()
		_ = loop.Close()
	})
	return loop, r
}

// TestMany: a hundred thousand answers arrive over c-ares's sockets in a weir loop, with no
// polling (R14), on the first backend; on the others a few thousand do.
func TestMany(t *testing.T) {
	server, n := serve(t), 100_000
	hosttest.Backends(t, func(t *testing.T, backend weir.LoopOption) {
		if testing.Short() {
			n = 5_000
		}
		many(t, backend, server, n)
		n = 5_000
	})
}

func many(t *testing.T, backend weir.LoopOption, server string, n int) {
	t.Helper()
	const parallel = 64
	loop, r := open(t, backend, cares.WithServers(server))
	begun, done := 0, 0
	var next func()
	next = func() {
		if begun == n {
			return
		}
		i := begun + 0x0a000000
		want := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(i))))
		begun++
		r.LookupNetIP(loop, "ip4", fmt.Sprintf("n%d.test.", i), func(addrs []netip.Addr, err error) {
			if err != nil || len(addrs) != 1 || addrs[0] != want {
				t.Errorf("%v, %v, want %v", addrs, err, want)
				loop.Stop()
			}
			if done++; done == n {
				loop.Stop()
			}
			next()
		})
	}
	for range parallel {
		next()
	}
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if done != n {
		t.Fatalf("%d answers, want %d", done, n)
	}
	c := r.Counts()
	t.Logf("%+v", c)
	if c.Actions > 2*n || c.Questions != n {
		t.Errorf("c-ares was called %d times for %d answers, and counts %d questions", c.Actions, n, c.Questions)
	}
	// Nothing is asked, and nothing wakes c-ares.
	loop.After(time.Second, loop.Stop)
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if n := r.Counts().Actions - c.Actions; n > 1 {
		t.Errorf("c-ares was called %d times in a second in which nothing was to be done", n)
	}
}

type made struct {
	weir.NopProtocol
	done   func()
	failed error
}

func (m *made) ConnectionMade(t weir.Transport)      { _ = t.Close(); m.done() }
func (m *made) ConnectFailed(err *weir.ConnectError) { m.failed = err; m.done() }

// TestConnect: a connect asks c-ares for its name, and fails with what it said.
func TestConnect(t *testing.T) {
	server := serve(t)
	hosttest.Backends(t, func(t *testing.T, backend weir.LoopOption) {
		loop, r := open(t, backend, cares.WithServers(server))
		ln, err := loop.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return weir.NopProtocol{} })
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		for _, host := range [...]string{"self.test.", "missing.test."} {
			m := &made{done: loop.Stop}
			loop.Connect("tcp", net.JoinHostPort(host, port), m, weir.WithConnectResolver(r))
			if err := loop.Run(); err != nil {
				t.Fatal(err)
			}
			var e *cares.Error
			if found := host == "self.test."; found && m.failed != nil || !found && (!errors.As(m.failed, &e) || e.Code != 4) {
				t.Errorf("%s: failed with %v", host, m.failed)
			}
		}
		// At the loop's end a connect fails with that, though its resolver ends first.
		m := &made{done: func() {}}
		loop.Connect("tcp", net.JoinHostPort("silent.test.", port), m, weir.WithConnectResolver(r))
		if err := loop.Turn(0); err != nil {
			t.Fatal(err)
		}
		if err := loop.Close(); err != nil {
			t.Error(err)
		}
		if !errors.Is(m.failed, weir.ErrLoopClosed) {
			t.Errorf("at the loop's end: %v", m.failed)
		}
	})
}

// TestEnds: the ways in which a question ends, each once and none from inside.
func TestEnds(t *testing.T) {
	server := serve(t)
	hosttest.Backends(t, func(t *testing.T, backend weir.LoopOption) {
		loop, r := open(t, backend, cares.WithServers(server), cares.WithTimeout(20*time.Millisecond, 2))
		inside, left := false, 0
		ask := func(network, host string, check func(addrs []netip.Addr, err error)) (cancel func()) {
			inside = true
			defer func() { inside = false }()
			left++
			told := false
			return r.LookupNetIP(loop, network, host, func(addrs []netip.Addr, err error) {
				if inside || told {
					t.Errorf("%s: told from inside %v, before %v", host, inside, told)
				}
				told = true
				left--
				check(addrs, err)
				if left == 0 {
					loop.Stop()
				}
			})
		}
		fails := func(host string, want func(error) bool) {
			ask("ip4", host, func(addrs []netip.Addr, err error) {
				if len(addrs) > 0 || err == nil || !want(err) {
					t.Errorf("%q: %v, %v", host, addrs, err)
				}
			})
		}
		code := func(n int) func(error) bool {
			return func(err error) bool {
				var e *cares.Error
				return errors.As(err, &e) && e.Code == n && e.Timeout() == (n == 12)
			}
		}
		ask("ip", "both.test.", func(addrs []netip.Addr, err error) {
			slices.SortFunc(addrs, netip.Addr.Compare)
			if err != nil || !slices.Equal(addrs, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}) {
				t.Errorf("both: %v, %v", addrs, err)
			}
		})
		ask("ip6", "both.test.", func(addrs []netip.Addr, err error) {
			if err != nil || len(addrs) != 1 || !addrs[0].Is6() {
				t.Errorf("ip6: %v, %v", addrs, err)
			}
		})
		ask("ip", "192.0.2.7", func(addrs []netip.Addr, err error) { // c-ares has it at once
			if err != nil || len(addrs) != 1 || addrs[0].String() != "192.0.2.7" {
				t.Errorf("a literal: %v, %v", addrs, err)
			}
		})
		ask("ip8", "both.test.", func(addrs []netip.Addr, err error) {
			var unknown net.UnknownNetworkError
			if !errors.As(err, &unknown) {
				t.Errorf("ip8: %v, %v", addrs, err)
			}
		})
		fails("missing.test.", code(4))
		fails("silent.test.", code(12))
		fails("a\x00b.test.", func(err error) bool { return strings.Contains(err.Error(), "byte 0") })
		canceled := ask("ip4", "silent.test.", func([]netip.Addr, error) { t.Error("a canceled question was told") })
		left--
		canceled()
		if err := loop.Run(); err != nil {
			t.Fatal(err)
		}
		if left != 0 {
			t.Fatalf("%d questions are left", left)
		}
		// A done closes all; what is under way then is told.
		closed := func(err error) bool { return errors.Is(err, weir.ErrClosed) }
		for range 3 {
			fails("silent.test.", closed)
		}
		ask("ip4", "n1.test.", func(addrs []netip.Addr, err error) {
			if err != nil {
				t.Error(err)
			}
			inside = true
			if err := loop.RemoveSource(r); err != nil {
				t.Error(err)
			}
			inside = false
			fails("n2.test.", closed)
		})
		if err := loop.Run(); err != nil {
			t.Fatal(err)
		}
		if left != 0 {
			t.Fatalf("%d questions are left", left)
		}
		if err := loop.AddSource(r); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("AddSource afterwards: %v", err)
		}
		r.Close()
	})
}

// TestBusy: more questions than the bound are refused, and an end of the loop tells all.
func TestBusy(t *testing.T) {
	const most = 10_000
	loop, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	r, err := cares.New(loop, cares.WithServers(serve(t)))
	if err != nil {
		t.Fatal(err)
	}
	busy, closed, other := 0, 0, 0
	for range most + 5 {
		r.LookupNetIP(loop, "ip4", "silent.test.", func(_ []netip.Addr, err error) {
			switch {
			case errors.Is(err, cares.ErrBusy):
				busy++
			case errors.Is(err, weir.ErrClosed):
				closed++
			default:
				other++
			}
		})
	}
	if err := loop.Turn(0); err != nil {
		t.Fatal(err)
	}
	if busy != 5 || other != 0 {
		t.Errorf("%d were refused, want 5; %d ended otherwise", busy, other)
	}
	if err := loop.Close(); err != nil {
		t.Error(err)
	}
	if closed != most {
		t.Errorf("the loop's end told %d of %d", closed, most)
	}
}

// TestPanic: a done that panics is reported, and keeps no one else from being told.
func TestPanic(t *testing.T) {
	var reported []error
	loop, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { reported = append(reported, err) }))
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	r, err := cares.New(loop)
	if err != nil {
		t.Fatal(err)
	}
	r.LookupNetIP(loop, "ip4", "192.0.2.1", func([]netip.Addr, error) { panic("first") })
	r.LookupNetIP(loop, "ip4", "192.0.2.2", func([]netip.Addr, error) { loop.Stop() })
	late := loop.After(20*time.Second, func() { t.Error("the second was not told"); loop.Stop() })
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	late.Stop()
	var p *weir.PanicError
	if len(reported) != 1 || !errors.As(reported[0], &p) || p.Value != "first" {
		t.Errorf("%v was reported", reported)
	}
}

// TestOptions: what is out of range, and a list that is none, are refused.
func TestOptions(t *testing.T) {
	loop, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	for _, o := range []cares.Option{cares.WithTimeout(0, 1), cares.WithTimeout(time.Second, 0), cares.WithTimeout(2*time.Hour, 1), cares.WithTimeout(time.Second, 101)} {
		if _, err := cares.New(loop, o); !errors.Is(err, cares.ErrConfig) {
			t.Errorf("%v, want ErrConfig", err)
		}
	}
	var e *cares.Error
	if _, err := cares.New(loop, cares.WithServers("no address")); !errors.As(err, &e) {
		t.Errorf("a list that is none: %v", err)
	}
}
