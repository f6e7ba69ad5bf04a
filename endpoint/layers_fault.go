package endpoint

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/weir-io/weir/layer"
)

// faultLayers returns the entries for faults made on purpose.
func faultLayers() []*Layer {
	window := OptionDoc{Name: "window", Type: SizeUpTo(1 << 30), Doc: "how much may be on its way at once; the default is 64k, which at 200ms is 320k a second, and 1m for datagrams; those without room are dropped"}
	seed := seedDoc()
	return []*Layer{
		{
			Name:    "latency",
			Summary: "delays everything",
			Doc: `Bytes stay in order, and the end of the stream comes last. With jitter, datagrams may
overtake each other.`,
			Arg:     Arg{Name: "duration", Type: Duration},
			Example: "8080+latency:200ms,jitter=50ms",
			Options: []OptionDoc{
				{Name: "jitter", Type: Duration, Doc: "up to this much more, at random, for each piece"},
				window, direction, seed,
			},
			Describe: func(p *Part, _ Role) string {
				d := p.ArgText() + " later" + describeWays(p)
				if p.Has("jitter") {
					d += ", and up to " + p.Value("jitter") + " more"
				}
				return d
			},
			Prepare: func(env *Env, p *Part, _ Role) (Prepared, error) {
				d, _ := time.ParseDuration(p.ArgText())
				return faults(env, p, layer.Faults{Latency: d, Jitter: p.Duration("jitter"), Window: int(p.Size("window"))}), nil
			},
			Packets: packetLatency,
		},
		{
			Name:    "bandwidth",
			Summary: "a slow line: bytes cross it one after another",
			Doc:     "Unlike ratelimit, it allows no burst, and what is on the line has left the sender.",
			Arg:     Arg{Name: "rate", Type: Rate},
			Example: "8080+bandwidth:64kbit",
			Options: []OptionDoc{window, direction},
			Describe: func(p *Part, _ Role) string {
				return "a line of " + p.ArgText() + " a second" + describeWays(p)
			},
			Prepare: func(env *Env, p *Part, _ Role) (Prepared, error) {
				n, _ := parseUnits(p.ArgText(), rateUnits)
				return faults(env, p, layer.Faults{Bandwidth: n, Window: int(p.Size("window"))}), nil
			},
			Packets: packetBandwidth,
			DescribePackets: func(p *Part, _ Role) string {
				return "a line of " + p.ArgText() + " a second for each peer" + describeWays(p)
			},
		},
		{
			Name:    "slice",
			Summary: "cuts what passes into small pieces",
			Arg:     Arg{Name: "size", Type: SizeUpTo(1 << 30)},
			Example: "8080+slice:10,delay=5ms",
			Options: []OptionDoc{
				{Name: "delay", Type: Duration, Doc: "the shortest time between two pieces"},
				direction,
			},
			Describe: func(p *Part, _ Role) string {
				return "in pieces of at most " + p.ArgText() + " bytes" + describeWays(p)
			},
			Prepare: func(env *Env, p *Part, _ Role) (Prepared, error) {
				n, _ := parseUnits(p.ArgText(), sizeUnits)
				return faults(env, p, layer.Faults{Slice: int(n), SliceDelay: p.Duration("delay")}), nil
			},
		},
		{
			Name:    "reset",
			Summary: "resets connections, at random or after some bytes",
			Doc: `Without after, chance applies to each piece that passes. With after, a connection is reset
once that many bytes have passed, and chance says how many connections are.`,
			Example: "8080+reset,chance=0.01",
			Options: []OptionDoc{
				{Name: "chance", Type: Chance, Doc: "how likely a reset is"},
				{Name: "after", Type: Size, Doc: "reset after this many bytes"},
				direction, seed,
			},
			Check: func(p *Part, _ Role) *Fault {
				if !p.Has("chance") && !p.Has("after") {
					return &Fault{Problem: "reset needs a chance or a number of bytes", Hint: "add ,chance=0.01 or ,after=1k"}
				}
				return nil
			},
			Describe: func(p *Part, _ Role) string {
				d := "resets"
				if p.Has("after") {
					d += " after " + p.Value("after") + " bytes" + describeWays(p)
				}
				if p.Has("chance") {
					d += " with a chance of " + p.Value("chance")
				}
				return d
			},
			Prepare: func(env *Env, p *Part, _ Role) (Prepared, error) {
				return faults(env, p, layer.Faults{ResetChance: p.Chance("chance"), ResetAfter: p.Size("after")}), nil
			},
		},
		{
			Name:    "blackhole",
			Summary: "discards everything that arrives, and does not tell the peer",
			Doc:     "The end of the stream is discarded too.",
			Example: "8080+blackhole,after=1m",
			Options: []OptionDoc{
				{Name: "after", Type: Size, Doc: "begin after this many bytes have passed; the default is at once"},
				direction,
			},
			Describe: func(p *Part, _ Role) string {
				d := "discards everything" + describeWays(p)
				if p.Has("after") {
					d += " after " + p.Value("after") + " bytes"
				}
				return d
			},
			Prepare: func(env *Env, p *Part, _ Role) (Prepared, error) {
				return faults(env, p, layer.Faults{BlackHole: true, BlackHoleAfter: p.Size("after")}), nil
			},
			Packets: packetBlackHole,
			DescribePackets: func(p *Part, _ Role) string {
				d := "discards every datagram" + describeWays(p)
				if p.Has("after") {
					d += " after " + p.Value("after") + " bytes of a peer"
				}
				return d
			},
		},
	}
}

// faults makes the layer of a part; its seed repeats the random choices.
func faults(env *Env, p *Part, f layer.Faults) Prepared {
	seed := uint64(p.Int("seed"))
	if (f.Jitter > 0 || f.ResetChance > 0) && seed == 0 {
		seed = 1 + rand.Uint64N(1<<31-2)
		env.note(fmt.Sprintf("%s: to repeat this run add ,seed=%s", p.Name.Text, strconv.FormatUint(seed, 10)))
	}
	in, out := ways(p, f)
	return Always(layer.Fault(rand.New(rand.NewPCG(seed, 0)), layer.FaultConfig{In: in, Out: out}))
}
