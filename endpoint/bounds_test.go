package endpoint

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// partOf parses an endpoint and returns its base.
func partOf(t *testing.T, word string) *Part {
	t.Helper()
	e, err := Default().Parse(word)
	if err != nil {
		t.Fatal(err)
	}
	return e.Base
}

// TestGate: which clients allow= and deny= let in, with IPv4 in all its spellings, scopes,
// and clients without an address.
func TestGate(t *testing.T) {
	for _, c := range []struct {
		options string
		in, out []string
	}{
		{"allow=10.0.0.0/8", []string{"10.1.2.3", "::ffff:10.1.2.3"}, []string{"11.0.0.1", "::ffff:11.0.0.1", "::1", "::10.1.2.3", ""}},
		{"allow=::ffff:10.0.0.0/104", []string{"10.1.2.3", "::ffff:10.1.2.3"}, []string{"11.0.0.1", ""}},
		{"allow=10.1.2.3", []string{"10.1.2.3"}, []string{"10.1.2.4"}},
		{"deny=10.0.0.0/8", []string{"11.0.0.1", "fe80::1%1", "169.254.1.1", "::1", ""}, []string{"10.0.0.1", "::ffff:10.0.0.1"}},
		{"deny=fe80::/10", []string{"10.0.0.1"}, []string{"fe80::1%1", "fe80::1"}},
		{"deny=0.0.0.0/0", []string{"2001:db8::1", ""}, []string{"127.0.0.1", "::ffff:1.2.3.4"}},
		{"deny=::/0", []string{"127.0.0.1", "::ffff:1.2.3.4"}, []string{"2001:db8::1"}},
		{"allow=10.0.0.0/8,allow=2001:db8::/32,deny=10.1.0.0/16", []string{"10.0.0.1", "2001:db8::7"}, []string{"10.1.0.1", "2001:db9::7"}},
		{"allow=10.1.0.0/16,deny=10.0.0.0/8", nil, []string{"10.1.0.1", "10.2.0.1", "11.0.0.1"}},
		{"allow=10.7.7.7/8", []string{"10.1.2.3"}, []string{"11.0.0.1"}},
	} {
		p := partOf(t, "tcp-listen:127.0.0.1:0,"+c.options)
		g := &gate{Limiter: layer.NewLimiter(layer.LimitConfig{}), allow: networks(p, "allow"), deny: networks(p, "deny")}
		for _, all := range []struct {
			peers []string
			in    bool
		}{{c.in, true}, {c.out, false}} {
			for _, peer := range all.peers {
				var a netip.Addr
				if peer != "" {
					a = netip.MustParseAddr(peer)
				}
				before := g.Count()
				err := g.Admit(a)
				var refused *NetworkError
				if (err == nil) != all.in || err != nil && !errors.As(err, &refused) {
					t.Errorf("%s, a client from %q: %v", c.options, peer, err)
				}
				if n := g.Count() - before; n != 0 != all.in {
					t.Errorf("%s, a client from %q counts as %d", c.options, peer, n)
				}
				if err != nil && (g.Patience(err) != 0 || peer != "" && !strings.Contains(err.Error(), a.Unmap().WithZone("").String())) {
					t.Errorf("%s, a client from %q may wait for %v: %v", c.options, peer, g.Patience(err), err)
				}
			}
		}
	}
}

// TestRoom: each loop after the first keeps descriptors, too.
func TestRoom(t *testing.T) {
	for loops, want := range map[int]int{1: (1024 - 64) / 2, 9: (1024 - 64 - 8*4) / 2} {
		if n := roomFor(1024, loops); n != want {
			t.Errorf("on %d loops there is room for %d, want %d", loops, n, want)
		}
	}
	if n := roomFor(10, 100); n != 1 {
		t.Errorf("more loops than descriptors: room for %d", n)
	}
}

// TestTooManyConnections: connections= beyond what the limit of open files has room for is
// said, with both numbers and how to change the limit.
func TestTooManyConnections(t *testing.T) {
	g, err := weir.NewGroup(3)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	room, limit := Room(3)
	if room == 0 {
		t.Skip("there is no limit of open files here")
	}
	said := ""
	env := &Env{Group: g, Warn: func(text string) { said = text }}
	admission(env, partOf(t, "tcp-listen:127.0.0.1:0,connections="+strconv.Itoa(room)), 0)
	if said != "" {
		t.Errorf("for as many as there is room for: %s", said)
	}
	admission(env, partOf(t, "tcp-listen:127.0.0.1:0,connections="+strconv.Itoa(room+1)), 0)
	for _, want := range []string{strconv.Itoa(room + 1), strconv.Itoa(room), strconv.Itoa(int(limit)), "ulimit -n"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q does not say %q", said, want)
		}
	}
}
