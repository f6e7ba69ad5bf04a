package layer_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/weirtest"
)

// TestLimiterAdmission: one address that opens as many connections as it can
// never gets the last places of a listener, while others do. Nothing is made
// for a refused connection. The first refusal is reported at once, and those
// that follow in one report after 10 s.
func TestLimiterAdmission(t *testing.T) {
	const total, share = 160, 15
	limiter := layer.NewLimiter(layer.LimitConfig{Total: total, Share: share})
	s := weirtest.NewSim(t, 1)
	var served []*layertest.Keeper
	ln, err := s.Host("server").Loop().Listen("tcp", ":7", func(weir.Transport) weir.Protocol {
		k := &layertest.Keeper{Sim: s}
		served = append(served, k)
		return k
	}, weir.WithAdmission(limiter))
	if err != nil {
		t.Fatal(err)
	}
	dial := func(host string, n int) (all []*layertest.Keeper) {
		for range n {
			k := &layertest.Keeper{Sim: s}
			all = append(all, k)
			s.Host(host).Loop().Connect("tcp", "server:7", k)
		}
		return all
	}
	lost := func(all []*layertest.Keeper) (n int) {
		for _, k := range all {
			if k.Lost {
				n++
			}
		}
		return n
	}
	most := total * share / (share + 1)
	many := dial("greedy", 2*total)
	s.Until("the refusals", func() bool { return lost(many) == 2*total-most })
	if len(served) != most || ln.Conns() != most || limiter.Count() != most {
		t.Errorf("%d served, %d connections, %d counted; want %d each", len(served), ln.Conns(), limiter.Count(), most)
	}
	one := dial("other", 1)
	s.Until("one from another address", func() bool { return len(served) == most+1 })
	if lost(one) != 0 {
		t.Error("the other address was refused")
	}
	reports := s.Failures
	if len(reports) != 1 {
		t.Fatalf("%d reports: %v", len(reports), reports)
	}
	var refused *weir.AdmissionError
	var limit *layer.LimitError
	if !errors.As(reports[0], &refused) || !errors.As(reports[0], &limit) || refused.Count != 1 || limit.Limit != most || limit.Free != total-most {
		t.Errorf("reported %#v", reports[0])
	}
	if err := s.RunFor(11 * time.Second); err != nil {
		t.Fatal(err)
	}
	if len(s.Failures) != 2 || !errors.As(s.Failures[1], &refused) || refused.Count != 2*total-most-1 {
		t.Errorf("reported after 10 s: %v", s.Failures)
	}
	for _, k := range served {
		k.T.Abort()
	}
	s.Until("all gone", func() bool { return limiter.Count() == 0 && ln.Conns() == 0 })
	n := len(served)
	dial("greedy", 1)
	s.Until("room again", func() bool { return len(served) == n+1 })
	s.Failures = nil
}

// TestLimiterAddresses: what counts as one address. A host has a whole /64, but
// not all of a link; a peer without an address counts only towards the total.
func TestLimiterAddresses(t *testing.T) {
	for _, c := range []struct {
		a, b string
		one  bool
	}{
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"fe80::1%eth0", "fe80::2%eth0", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		l := layer.NewLimiter(layer.LimitConfig{PerAddress: 1})
		if err := l.Admit(netip.MustParseAddr(c.a)); err != nil {
			t.Fatal(err)
		}
		if err := l.Admit(netip.MustParseAddr(c.b)); (err != nil) != c.one {
			t.Errorf("%s and then %s: %v", c.a, c.b, err)
		}
		l.Left(netip.MustParseAddr(c.a))
		if err := l.Admit(netip.MustParseAddr(c.a)); err != nil {
			t.Errorf("%s when it has left: %v", c.a, err)
		}
	}
	l := layer.NewLimiter(layer.LimitConfig{Total: 2, PerAddress: 1, Share: 1})
	for i := range 3 {
		if err := l.Admit(netip.Addr{}); (err != nil) != (i == 2) {
			t.Errorf("without an address, the %d. time: %v", i+1, err)
		}
	}
}
