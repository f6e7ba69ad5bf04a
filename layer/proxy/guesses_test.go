package proxy_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/weirtest"
)

// guessing is a proxy whose clients try passwords.
type guessing struct {
	*weirtest.Sim
	failures []error
	served   int
	say      func(password string) []byte
}

func newGuessing(t *testing.T, server layer.Layer) *guessing {
	t.Helper()
	g := &guessing{Sim: weirtest.NewSim(t, 1)}
	_, err := g.Host("server").Loop().Listen("tcp", ":7", layer.ServerFunc(
		func(weir.Transport) weir.Protocol { g.served++; return &layertest.Keeper{Sim: g.Sim} },
		func(_ weir.Transport, err *weir.AttemptError) { g.failures = append(g.failures, err) }, server))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// guess connects from a host and sends a password.
func (g *guessing) guess(host, password string) *layertest.Keeper {
	k := &layertest.Keeper{Sim: g.Sim, Send: g.say(password)}
	g.Host(host).Loop().Connect("tcp", "server:7", k)
	return k
}

// guessWires says how the two protocols send a password, and what they answer.
var guessWires = []struct {
	name    string
	server  func(...proxy.ServerOption) layer.Layer
	say     func(password string) []byte
	yes, no []byte
}{
	{"socks5", func(o ...proxy.ServerOption) layer.Layer { return proxy.SOCKSServer(proxy.Version5, o...) }, func(p string) []byte {
		return []byte("\x05\x01\x02\x01\x01u" + string(rune(len(p))) + p + "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50")
	}, []byte{1, 0}, []byte{1, 1}},
	{"connect", func(o ...proxy.ServerOption) layer.Layer { return proxy.ConnectServer(o...) }, func(p string) []byte {
		return fmt.Appendf(nil, "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\nProxy-Authorization: Basic %s\r\n\r\n", base64.StdEncoding.EncodeToString([]byte("u:"+p)))
	}, []byte(" 200 "), []byte(" 407 ")},
}

// TestGuesses: one address may try ten wrong passwords at once and then one a
// second, on one connection after another or on many; a right one is accepted
// in its turn, and other addresses never wait (S9).
func TestGuesses(t *testing.T) {
	users := proxy.WithUsers(proxy.NewUsers(map[string]string{"u": "secret"}))
	for _, w := range guessWires {
		t.Run(w.name, func(t *testing.T) {
			g := newGuessing(t, w.server(users))
			g.say = w.say
			lost := func(all []*layertest.Keeper) func() bool {
				return func() bool {
					for _, k := range all {
						if !k.Lost {
							return false
						}
					}
					return true
				}
			}
			var all []*layertest.Keeper
			for i := range 200 {
				all = append(all, g.guess("greedy", fmt.Sprint("wrong", i)))
			}
			g.Until("200 guesses at once", lost(all))
			throttled := 0
			for _, err := range g.failures {
				if !errors.Is(err, proxy.ErrAuth) {
					t.Errorf("failed with %v", err)
				}
				if errors.Is(err, proxy.ErrThrottled) {
					throttled++
				}
			}
			if want := 200 - 10 - 5; throttled != want || len(g.failures) != 200 {
				t.Errorf("%d of %d were not looked at, want %d", throttled, len(g.failures), want)
			}
			for _, k := range all {
				if !bytes.Contains(k.Got, w.no) {
					t.Fatalf("a guess was answered %q", k.Got)
				}
			}
			if d := g.Now(); d > 6*time.Second {
				t.Errorf("it took %v until all were answered", d)
			}
			// One after another: one a second.
			began := g.Now()
			for i := range 20 {
				k := g.guess("greedy", fmt.Sprint("wrong again", i))
				g.Until("a guess", lost([]*layertest.Keeper{k}))
			}
			if d := g.Now() - began; d < 18*time.Second {
				t.Errorf("20 guesses took %v", d)
			}
			began = g.Now()
			k := g.guess("other", "secret")
			g.Until("another address", func() bool { return bytes.Contains(k.Got, w.yes) })
			if d := g.Now() - began; d > 100*time.Millisecond {
				t.Errorf("another address waited %v", d)
			}
			k = g.guess("greedy", "secret")
			g.Until("the right one, in its turn", func() bool { return bytes.Contains(k.Got, w.yes) })
			began = g.Now()
			for range 100 {
				k := g.guess("other", "secret")
				g.Until("right ones", func() bool { return bytes.Contains(k.Got, w.yes) })
			}
			if d := g.Now() - began; d > 10*time.Second {
				t.Errorf("right passwords waited: 100 took %v", d)
			}
		})
	}
}

// TestGuessesSlow: a client that hangs up while it waits for its turn, or whose
// time runs out, leaves nothing behind; without a bound nothing waits.
func TestGuessesSlow(t *testing.T) {
	users := proxy.WithUsers(proxy.NewUsers(map[string]string{"u": "secret"}))
	w := guessWires[0]
	g := newGuessing(t, w.server(users, proxy.WithRequestTimeout(2*time.Second)))
	g.say = w.say
	for i := range 14 {
		g.guess("greedy", fmt.Sprint("wrong", i))
	}
	g.Until("the time of those that wait", func() bool { return len(g.failures) == 14 })
	late := 0
	for _, err := range g.failures {
		if errors.Is(err, layer.ErrTimeout) {
			late++
		}
	}
	if late == 0 || g.Now() > 3*time.Second {
		t.Errorf("%d timed out, after %v", late, g.Now())
	}
	g = newGuessing(t, w.server(users, proxy.WithGuesses(0)))
	g.say = w.say
	for i := range 100 {
		g.guess("greedy", fmt.Sprint("wrong", i))
	}
	g.Until("100 without a bound", func() bool { return len(g.failures) == 100 })
	for _, err := range g.failures {
		if errors.Is(err, proxy.ErrThrottled) {
			t.Fatal(err)
		}
	}
	if g.Now() > time.Second {
		t.Errorf("it took %v", g.Now())
	}
}

// TestGuessersBounded: however many addresses guess, a bounded number is
// remembered, and one that keeps guessing is not forgotten.
func TestGuessersBounded(t *testing.T) {
	if got := proxy.RememberedGuessers(func(i int) netip.Prefix {
		if i%2 == 0 {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 32)
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	}, 100_000); got.Most != 4096 || got.Taken > 15 {
		t.Errorf("%+v", got)
	}
}
