package endpoint

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/layer/proxy"
)

// packetLayers are the entries that only datagrams have.
func packetLayers() []*Layer {
	chance := func(name, summary, doc, does string, faults func(chance float64) packet.Faults) *Layer {
		return &Layer{
			Name: name, Summary: summary, Doc: doc,
			Arg:     Arg{Name: "chance", Type: Chance},
			Example: "udp-listen:5353+" + name + ":0.05,seed=7",
			Options: []OptionDoc{direction, seedDoc()},
			Describe: func(p *Part, _ Role) string {
				return does + " with a chance of " + p.ArgText() + describeWays(p)
			},
			Packets: func(env *Env, p *Part, _ Role, c *packet.Counts) (packet.Layer, error) {
				f, err := strconv.ParseFloat(p.ArgText(), 64)
				if err != nil {
					return nil, err
				}
				return packetFaults(env, p, c, faults(f)), nil
			},
		}
	}
	const drawn = `Random choices are drawn for each peer's address separately, so that with the same seed
a client loses the same datagrams, whatever other clients do.`
	return []*Layer{
		chance("loss", "drops datagrams at random", drawn, "drops datagrams",
			func(c float64) packet.Faults { return packet.Faults{Loss: c} }),
		chance("duplicate", "sends datagrams twice, at random", drawn, "sends datagrams twice",
			func(c float64) packet.Faults { return packet.Faults{Duplicate: c} }),
		chance("reorder", "lets the next datagram overtake one, at random",
			"A datagram waits until the next of its peer has passed, for at most 100 ms.\n"+drawn, "lets the next datagram overtake one",
			func(c float64) packet.Faults { return packet.Faults{Reorder: c} }),
		chance("corrupt", "changes a bit of a datagram, at random", drawn, "changes a bit of a datagram",
			func(c float64) packet.Faults { return packet.Faults{Corrupt: c} }),
		accessLayer(),
	}
}

func accessLayer() *Layer {
	return &Layer{
		Name:    "access",
		Summary: "lets datagrams pass only from and to some networks",
		Doc: `What comes from others is dropped and counted. Link-local and multicast addresses are
refused unless an allow names them. On streams, --allow and --deny are for dial.`,
		Example: "udp-listen::5353+access,allow=10.0.0.0/8,deny=10.1.0.0/16",
		Options: []OptionDoc{
			{Name: "allow", Type: networkType, Many: true, Doc: "a network to allow; the default is all"},
			{Name: "deny", Type: networkType, Many: true, Doc: "a network to deny"},
		},
		Check: func(p *Part, _ Role) *Fault {
			if !p.Has("allow") && !p.Has("deny") {
				return &Fault{Problem: "access needs a rule", Hint: "add ,allow=10.0.0.0/8 or ,deny=10.0.0.0/8"}
			}
			return nil
		},
		Describe: func(p *Part, _ Role) string {
			var d []string
			if p.Has("allow") {
				d = append(d, "only "+strings.Join(p.Values("allow"), ", "))
			}
			if p.Has("deny") {
				d = append(d, "not "+strings.Join(p.Values("deny"), ", "))
			}
			return "lets peers pass: " + strings.Join(d, "; ")
		},
		Packets: func(_ *Env, p *Part, _ Role, c *packet.Counts) (packet.Layer, error) {
			rules := proxy.Access{Private: true}
			for name, to := range map[string]*[]netip.Prefix{"allow": &rules.Allow, "deny": &rules.Deny} {
				for _, s := range p.Values(name) {
					n, err := ParseNetwork(s)
					if err != nil {
						return nil, err
					}
					*to = append(*to, n)
				}
			}
			return packet.Access(rules.CheckAddrPort, c), nil
		},
	}
}

func seedDoc() OptionDoc {
	return OptionDoc{Name: "seed", Type: Int, Doc: "make random choices the same in every run"}
}

// packetFaults is faults for datagrams.
func packetFaults(env *Env, p *Part, c *packet.Counts, f packet.Faults) packet.Layer {
	seed := uint64(p.Int("seed"))
	if seed == 0 && f.Loss+f.Corrupt+f.Duplicate+f.Reorder+float64(f.Jitter) > 0 {
		seed = 1 + rand.Uint64N(1<<31-2)
		env.note(fmt.Sprintf("%s: to repeat this run add ,seed=%d", p.Name.Text, seed))
	}
	in, out := ways(p, f)
	return packet.Fault(packet.FaultConfig{In: in, Out: out, Seed: seed, Counts: c})
}

func packetLatency(env *Env, p *Part, _ Role, c *packet.Counts) (packet.Layer, error) {
	d, err := time.ParseDuration(p.ArgText())
	return packetFaults(env, p, c, packet.Faults{Latency: d, Jitter: p.Duration("jitter"), Window: int(p.Size("window"))}), err
}

func packetBandwidth(env *Env, p *Part, _ Role, c *packet.Counts) (packet.Layer, error) {
	n, _ := parseUnits(p.ArgText(), rateUnits)
	return packetFaults(env, p, c, packet.Faults{Bandwidth: n, Window: int(p.Size("window"))}), nil
}

func packetBlackHole(env *Env, p *Part, _ Role, c *packet.Counts) (packet.Layer, error) {
	return packetFaults(env, p, c, packet.Faults{BlackHole: true, BlackHoleAfter: p.Size("after")}), nil
}

func packetRateLimit(_ *Env, p *Part, _ Role, c *packet.Counts) (packet.Layer, error) {
	n, _ := parseUnits(p.ArgText(), rateUnits)
	in, out := ways(p, layer.Rate{PerSecond: n, Burst: p.Size("burst")})
	if p.Has("shared") {
		return packet.RateLimitShared(sharedBucket(in), sharedBucket(out), c), nil
	}
	return packet.RateLimit(in, out, c), nil
}

func packetLimit(_ *Env, p *Part, _ Role, c *packet.Counts) (packet.Layer, error) {
	n, _ := strconv.Atoi(p.ArgText()) // 0 without an argument
	return packet.Limit(packet.LimitConfig{LimitConfig: layer.LimitConfig{Total: n, PerAddress: int(p.Int("per-address"))}, Counts: c}), nil
}

// MakePacketLayers makes the layers of an endpoint that carries datagrams, nearest the wire
// first, once. The error is a *LayerError. A PacketWay is none of them: see
// Associations. Call it on the loop's goroutine, or before the loop runs.
func (e *Endpoint) MakePacketLayers(env *Env) ([]packet.Layer, error) {
	for i := len(e.counts); i < len(e.layers); i++ {
		c := &packet.Counts{}
		if e.layers[i].Packets != nil {
			l, err := e.layers[i].Packets(env, e.Layers[i], e.Role(), c)
			if err != nil {
				return nil, &LayerError{Layer: e.layers[i].Name, Err: err}
			}
			e.packets = append(e.packets, l)
		}
		e.counts = append(e.counts, c)
	}
	return e.packets, nil
}

// PacketIdle is how long a peer of some endpoints that carry datagrams to each other is
// remembered when nothing passes: the shortest time that their bases and layers say, or a
// minute if none says one.
func PacketIdle(all ...*Endpoint) time.Duration {
	var said time.Duration
	say := func(d time.Duration) {
		if d > 0 && (said == 0 || d < said) {
			said = d
		}
	}
	for _, e := range all {
		say(e.kind.Packets(e.Base).Idle)
		for i, l := range e.layers {
			if l.PacketIdle != nil {
				say(l.PacketIdle(e.Layers[i]))
			}
		}
	}
	if said == 0 {
		return packetIdle
	}
	return said
}

// PreparePackets is a kind's Prepare for an endpoint that carries datagrams. The error
// is a *KindError.
func (k *Kind) PreparePackets(env *Env, p *Part) error {
	if k.Prepare == nil {
		return nil
	}
	if err := k.Prepare(env, p); err != nil {
		return &KindError{Kind: k.Name, Err: err}
	}
	return nil
}

// PacketCounts is what the layers that MakePacketLayers made have done so far, in their
// order. A layer that drops nothing has counted nothing.
func (e *Endpoint) PacketCounts() []*packet.Counts { return e.counts }

// Carries says what an endpoint, a layer or an option is for.
type Carries uint8

// What can be carried.
const (
	Both Carries = iota
	Streams
	Packets
)

func (c Carries) String() string {
	switch c {
	case Streams:
		return "streams"
	case Packets:
		return "datagrams"
	default:
		return "both"
	}
}

// Carries is what the layer can carry.
func (l *Layer) Carries() Carries {
	switch {
	case l.Packets == nil && l.PacketIdle == nil && !l.PacketWay:
		return Streams
	case l.Prepare == nil:
		return Packets
	}
	return Both
}

// carries is what the endpoint carries.
func (e *Endpoint) carries() Carries {
	if e.kind.Packets != nil {
		return Packets
	}
	return Streams
}

// DescribeLayer says what e.Layers[i] will do, in a few words.
func (e *Endpoint) DescribeLayer(i int) string {
	l := e.layers[i]
	switch {
	case e.carries() == Packets && l.DescribePackets != nil:
		return l.DescribePackets(e.Layers[i], e.Role())
	case l.Describe != nil:
		return l.Describe(e.Layers[i], e.Role())
	}
	return l.Summary
}

// checkCarries finds a layer or an option of one that is not for what the endpoint
// carries.
func (p *parser) checkCarries(e *Endpoint, part *Part, l *Layer) *Error {
	what, is := e.carries(), "a stream"
	if what == Packets {
		is = "datagrams"
	}
	if c := l.Carries(); c != Both && c != what {
		var there []string
		for _, other := range p.table.Layers {
			if other.Carries() != Streams && (!other.PacketWay || e.Role() == Dial) {
				there = append(there, other.Name)
			}
		}
		hint := "for datagrams there are: " + strings.Join(there, " ")
		if what == Streams {
			hint = "for streams there are: latency bandwidth slice reset blackhole"
		}
		return p.fail(part.Name.Pos, part.Name.End, fmt.Sprintf("layer %q is for %v, but %s carries %s", l.Name, c, e.Base.Name.Text, is), hint, "layers")
	}
	if what == Packets && (l.PacketWay || e.ThroughProxy()) {
		const hint = "udp:proxy:1080+socks5:9.9.9.9:53"
		switch {
		case e.Role() != Dial:
			return p.fail(part.Name.Pos, part.Name.End, fmt.Sprintf("layer %q cannot be used on %s", l.Name, e.Base.Name.Text), "its clients connect over TCP: 1080+socks5,udp", l.Name)
		case l.PacketWay && len(e.Layers) > 0:
			return p.fail(part.Name.Pos, part.Name.End, fmt.Sprintf("layer %q must come first on %s: no other layer can carry what it sends to the proxy", l.Name, e.Base.Name.Text), "layers for the datagrams come after it: "+hint+"+loss:0.1", l.Name)
		case !l.PacketWay && l.Name == "access" && !literalHost(e.Layers[0].ArgText()):
			return p.fail(part.Name.Pos, part.Name.End, "access cannot check an address that only the proxy knows", "give the destination's address: "+hint+"+access,allow=9.9.9.0/24", l.Name)
		case l.PacketWay && part.Arg == nil:
			return p.fail(part.Name.Pos, part.Name.End, fmt.Sprintf("layer %q on %s needs a destination", l.Name, e.Base.Name.Text), hint, l.Name)
		}
	}
	for _, o := range part.Options {
		for _, doc := range l.Options {
			if doc.Name == o.Key.Text && doc.Only != Both && doc.Only != what {
				return p.fail(o.Key.Pos, o.Key.End, fmt.Sprintf("option %q of %s is for %v, but %s carries %s", doc.Name, l.Name, doc.Only, e.Base.Name.Text, is), "leave it out", l.Name)
			}
		}
	}
	return nil
}
