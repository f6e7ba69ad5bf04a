package layer_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// paired is a layer as both ends use it.
type paired struct {
	name           string
	server, client layer.Layer
}

// every has a line for every layer there is: a new layer needs a new line.
func every(t *testing.T) []paired {
	server, client := tlsPair(t, tls.VersionTLS13)
	idle := layer.Idle(layer.IdleConfig{Idle: time.Hour})
	rate := layer.RateLimit(layer.Rate{PerSecond: 1 << 20}, layer.Rate{PerSecond: 1 << 20})
	slow := layer.Faults{Latency: 50 * time.Millisecond, Jitter: 10 * time.Millisecond, Slice: 10_000}
	src := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:1"))
	any := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	return []paired{
		{"plain", layertest.Plain, layertest.Plain},
		{"tls", layer.TLSServer(server), layer.TLS(client)},
		{"ratelimit", rate, rate},
		{"idle", idle, idle},
		{"limit", layer.Limit(layer.LimitConfig{Total: 100}), layertest.Plain},
		{"fault", fault(layer.FaultConfig{In: slow, Out: slow}), layertest.Plain},
		{"socks5", proxy.SOCKSServer(proxy.Version5), proxy.SOCKS5("a.example:1")},
		{"socks4a", proxy.SOCKSServer(proxy.Version4a), proxy.SOCKS4a("a.example:1")},
		{"socks4", proxy.SOCKSServer(proxy.Version4), proxy.SOCKS4("192.0.2.1:1")},
		{"connect", proxy.ConnectServer(), proxy.Connect("a.example:1")},
		{"proxy v1", proxy.HeaderIn(any, 0), proxy.HeaderOut(proxy.HeaderV1, src, src)},
		{"proxy v2", proxy.HeaderIn(any, 0), proxy.HeaderOut(proxy.HeaderV2, src, src)},
	}
}

const requestSize, replySize = 200_000, 300_000

// asker ends its direction after its request and waits for the reply.
func asker() *layertest.Ear {
	e := &layertest.Ear{}
	e.OnMade = func(t weir.Transport) {
		_, _ = t.Write(make([]byte, requestSize))
		_ = t.WriteEOF()
	}
	return e
}

// thinker replies long after the request has ended.
func thinker() *layertest.Ear {
	e := &layertest.Ear{KeepOpen: true}
	e.OnEnd = func() {
		e.Tr.Loop().After(time.Minute, func() {
			_, _ = e.Tr.Write(make([]byte, replySize))
			_ = e.Tr.Close()
		})
	}
	return e
}

func replied(t *testing.T, sim *weirtest.Sim, c, s *layertest.Ear) {
	t.Helper()
	sim.Until("the end", func() bool { return c.Over() && s.Over() })
	if len(s.Got) != requestSize || len(c.Got) != replySize || c.Err != nil || s.Err != nil || c.Failed != nil {
		t.Errorf("%d bytes of the request and %d of the reply arrived; the client ended with %v %v, the server with %v",
			len(s.Got), len(c.Got), c.Err, c.Failed, s.Err)
	}
}

// TestPairs: a half-close does not lose the reply, however late it comes,
// through every pair of layers, one on top of the other, and through a relay
// with one on each side (R32, behaviour 27).
func TestPairs(t *testing.T) {
	all := every(t)
	for i, below := range all {
		for k, above := range all {
			faults := weirtest.Faults{CutRead: 0.2, CutWire: 0.2, Defer: 0.2, Shuffle: true}
			seed := uint64(i*len(all) + k + 1)
			t.Run(fmt.Sprintf("%s under %s", below.name, above.name), func(t *testing.T) {
				sim := weirtest.NewSim(t, seed, weirtest.WithFaults(faults))
				here, there := sim.Host("here"), sim.Host("there")
				c, s := asker(), thinker()
				serve := layer.Server(func(weir.Transport) weir.Protocol { return s }, below.server, above.server)
				if _, err := here.Loop().Listen("tcp", ":7000", serve); err != nil {
					t.Fatal(err)
				}
				there.Loop().Connect("tcp", "here:7000", layer.Client(c, below.client, above.client))
				replied(t, sim, c, s)
			})
			t.Run(fmt.Sprintf("%s to %s", below.name, above.name), func(t *testing.T) {
				sim := weirtest.NewSim(t, seed, weirtest.WithFaults(faults))
				here, mid, there := sim.Host("here"), sim.Host("mid"), sim.Host("there")
				c, s := asker(), thinker()
				if _, err := here.Loop().Listen("tcp", ":7000", layer.Server(func(weir.Transport) weir.Protocol { return s }, above.server)); err != nil {
					t.Fatal(err)
				}
				r := relay.New(relay.Config{})
				accept := func(tr weir.Transport) weir.Protocol {
					tr.Loop().Connect("tcp", "here:7000", layer.Client(r.Protocol(relay.B), above.client))
					return r.Protocol(relay.A)
				}
				if _, err := mid.Loop().Listen("tcp", ":7001", layer.Server(accept, below.server)); err != nil {
					t.Fatal(err)
				}
				there.Loop().Connect("tcp", "mid:7001", layer.Client(c, below.client))
				replied(t, sim, c, s)
			})
		}
	}
}
