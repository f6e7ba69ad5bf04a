package endpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/sink"
)

// flowLayers returns the entries for limits and logs.
func flowLayers() []*Layer {
	return []*Layer{rateLimitLayer(), idleLayer(), limitLayer(), logLayer(), recordLayer(), zstdLayer()}
}

// direction is the option that says in which direction something applies.
var direction = OptionDoc{Name: "direction", Type: Choice("in", "out"), Doc: "only what is received, or only what is sent; the default is both, each separately"}

// ways returns v for each direction that a part applies to.
func ways[T any](p *Part, v T) (in, out T) {
	d := p.Value("direction")
	if d != "out" {
		in = v
	}
	if d != "in" {
		out = v
	}
	return in, out
}

func describeWays(p *Part) string {
	switch p.Value("direction") {
	case "in":
		return " of what is received"
	case "out":
		return " of what is sent"
	}
	return " each way"
}

func rateLimitLayer() *Layer {
	return &Layer{
		Name:    "ratelimit",
		Summary: "lets bytes pass no faster than a rate",
		Doc: `A token bucket for each connection, or one for all with "shared". Nothing is dropped: a
sender that is too fast has to wait. Senders of datagrams cannot be made to wait: each
peer has a bucket, and what does not fit is dropped.`,
		Arg:     Arg{Name: "rate", Type: Rate},
		Example: "8080+ratelimit:10mbit,burst=64k",
		Options: []OptionDoc{
			{Name: "burst", Type: Size, Doc: "how much may pass at once after a pause; the default is a tenth of a second's worth"},
			direction,
			{Name: "shared", Type: Flag, Doc: "one rate for all connections together"},
		},
		Describe: func(p *Part, _ Role) string {
			d := "at most " + p.ArgText() + " a second" + describeWays(p)
			if p.Has("shared") {
				d += ", all connections together"
			}
			return d
		},
		Prepare: func(_ *Env, p *Part, _ Role) (Prepared, error) {
			n, _ := parseUnits(p.ArgText(), rateUnits)
			r := layer.Rate{PerSecond: n, Burst: p.Size("burst")}
			if p.Has("shared") {
				in, out := ways(p, r)
				return Always(layer.RateLimitShared(sharedBucket(in), sharedBucket(out))), nil
			}
			return Always(layer.RateLimit(ways(p, r))), nil
		},
		Packets: packetRateLimit,
		DescribePackets: func(p *Part, _ Role) string {
			whose := " from and to a peer"
			if p.Has("shared") {
				whose = " of all peers together"
			}
			return "drops what exceeds " + p.ArgText() + " a second" + describeWays(p) + "," + whose
		},
	}
}

func sharedBucket(r layer.Rate) *layer.Bucket {
	if r.PerSecond == 0 {
		return nil
	}
	return layer.NewBucket(r)
}

func idleLayer() *Layer {
	return &Layer{
		Name:    "idle",
		Summary: "ends connections on which nothing moves",
		Doc: `Every byte, in either direction, starts the time again, and a backlog that leaves slowly
counts as traffic. stall is for peers that do not read. min-rate is for peers that should
send steadily: one that sends a byte now and then, or nothing, is too slow. Its
window's clock stops while the other side accepts nothing. On datagrams, idle forgets each
peer separately, as udp's idle= does; the shortest time of both sides counts.`,
		Arg:     Arg{Name: "duration", Type: Duration, Optional: true},
		Example: "8080+idle:5m,stall=30s",
		Options: []OptionDoc{
			{Name: "stall", Type: Duration, Only: Streams, Doc: "how long bytes may wait while the peer accepts none"},
			{Name: "min-rate", Type: Rate, Only: Streams, Doc: "how much the peer must send, on average over each window"},
			{Name: "window", Type: Duration, Only: Streams, Doc: "the time over which min-rate is measured; the default is 10s"},
		},
		Check: func(p *Part, _ Role) *Fault {
			if p.Arg == nil && !p.Has("stall") && !p.Has("min-rate") {
				return &Fault{Problem: "idle needs a time", Hint: "write idle:5m, or add ,stall=30s or ,min-rate=1k"}
			}
			if o := p.Option("window"); o != nil && !p.Has("min-rate") {
				return &Fault{Token: &o.Key, Problem: "window= needs min-rate=", Hint: "add ,min-rate=1k"}
			}
			return nil
		},
		Describe: func(p *Part, _ Role) string {
			var d []string
			if p.Arg != nil {
				d = append(d, "ends after "+p.ArgText()+" without traffic")
			}
			if p.Has("stall") {
				d = append(d, "after "+p.Value("stall")+" in which the peer accepts nothing")
			}
			if p.Has("min-rate") {
				d = append(d, "below "+p.Value("min-rate")+" a second")
			}
			return strings.Join(d, "; ")
		},
		Prepare: func(_ *Env, p *Part, _ Role) (Prepared, error) {
			d, _ := time.ParseDuration(p.ArgText())
			return Always(layer.Idle(layer.IdleConfig{
				Idle: d, WriteStall: p.Duration("stall"), MinRate: p.Rate("min-rate"), Window: p.Duration("window"),
			})), nil
		},
		PacketIdle: func(p *Part) time.Duration {
			d, _ := time.ParseDuration(p.ArgText()) // it was checked
			return d
		},
		DescribePackets: func(p *Part, _ Role) string {
			return "forgets a peer after " + p.ArgText() + " without a datagram, either way"
		},
	}
}

func limitLayer() *Layer {
	return &Layer{
		Name:    "limit",
		Roles:   []Role{Listen},
		Summary: "refuses connections beyond a number",
		Doc: `An IPv6 address counts together with the rest of its /64. On datagrams, peers are counted,
each until it has been idle for a minute, and datagrams of further peers are dropped.`,
		Arg:     Arg{Name: "number", Type: Int, Optional: true},
		Example: "8080+limit:1000,per-address=20",
		Options: []OptionDoc{
			{Name: "per-address", Type: Int, Doc: "how many one address may have at once"},
		},
		Check: func(p *Part, _ Role) *Fault {
			if p.Arg == nil && !p.Has("per-address") {
				return &Fault{Problem: "limit needs a number", Hint: "write limit:1000 or limit,per-address=20"}
			}
			return nil
		},
		Describe: describeLimit,
		Prepare: func(_ *Env, p *Part, _ Role) (Prepared, error) {
			n, _ := strconv.Atoi(p.ArgText())
			return Always(layer.Limit(layer.LimitConfig{Total: n, PerAddress: int(p.Int("per-address"))})), nil
		},
		Packets: packetLimit,
		DescribePackets: func(p *Part, role Role) string {
			return strings.ReplaceAll(describeLimit(p, role), "connections", "peers")
		},
	}
}

func describeLimit(p *Part, _ Role) string {
	var d []string
	if p.Arg != nil {
		d = append(d, "at most "+p.ArgText()+" connections at once")
	}
	if p.Has("per-address") {
		d = append(d, "at most "+p.Value("per-address")+" from one address")
	}
	return strings.Join(d, ", ")
}

func logLayer() *Layer {
	return &Layer{
		Name:    "log",
		Summary: "logs what passes",
		Doc: `Each event is one line: the connection's number, the seconds since it was made, a sign (+
made, < received, > sent, [ the peer ended, ] we ended, - lost), the number of bytes, and
the bytes. Everything but printable ASCII is escaped.`,
		Example: "8080+log,format=hex,limit=256",
		Options: []OptionDoc{
			{Name: "format", Type: Choice("text", "hex", "count"), Doc: "how bytes are shown; the default is text, count shows none"},
			{Name: "limit", Type: SizeUpTo(1 << 30), Doc: "how many bytes of an event are shown; the default is 1k"},
			{Name: "to", Type: Path, Doc: "append to this file; the default is standard error"},
			lossless,
		},
		Check: func(p *Part, _ Role) *Fault {
			if o := p.Option("lossless"); o != nil && !p.Has("to") {
				return &Fault{Token: &o.Key, Problem: "lossless needs a file: weir never waits for standard error", Hint: "add ,to=FILE"}
			}
			return nil
		},
		Describe: func(p *Part, _ Role) string {
			to := "standard error"
			if p.Has("to") {
				to = p.Value("to")
			}
			return "logs what passes to " + to
		},
		Prepare: func(env *Env, p *Part, _ Role) (Prepared, error) {
			s, c, err := logSink(env, p)
			if err != nil {
				return nil, err
			}
			return Always(layer.Log(s, c)), nil
		},
		Packets: func(env *Env, p *Part, _ Role, _ *packet.Counts) (packet.Layer, error) {
			s, c, err := logSink(env, p)
			if err != nil {
				return nil, err
			}
			return packet.Log(s, c), nil
		},
	}
}

// logSink is where the part log writes, and how.
func logSink(env *Env, p *Part) (s *sink.Sink, c layer.LogConfig, err error) {
	c.Limit = 1 << 10
	if p.Has("limit") {
		c.Limit = int(p.Size("limit"))
	}
	switch p.Value("format") {
	case "hex":
		c.Format = layer.LogHex
	case "count":
		c.Format = layer.LogCount
	}
	s = env.Stderr
	switch {
	case p.Has("to"):
		s, err = openSink(env, p.Value("to"), openLog, sink.Config{Lossless: p.Has("lossless")})
	case s == nil:
		s = startSink(env, os.Stderr, sink.Config{Name: "stderr"})
	}
	c.JSON = env.JSON && !p.Has("to")
	return s, c, err
}

// openSink starts a sink in front of a file that records what passed.
func openSink(env *Env, path string, open func(string) (*os.File, error), c sink.Config) (*sink.Sink, error) {
	path = env.Path(path)
	c.Name = path
	if env.Trouble != nil {
		c.Trouble = func(err error) { env.Trouble(path, c.Lossless, err) }
	}
	if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeNamedPipe != 0 {
		return startSink(env, &fifo{path: path}, c), nil
	}
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	return startSink(env, f, c), nil
}

func startSink(env *Env, w io.Writer, c sink.Config) *sink.Sink {
	s := sink.New(w, c)
	s.Start()
	if env.Opened != nil {
		env.Opened(s)
	}
	return s
}

// fifo is a named pipe to write to. The first Write opens it, which waits until
// someone reads from it. It is opened again after the reader has gone.
type fifo struct {
	path string
	f    *os.File
}

func (w *fifo) Write(p []byte) (n int, err error) {
	if w.f == nil {
		if w.f, err = os.OpenFile(w.path, os.O_WRONLY, 0); err != nil {
			w.f = nil
			return 0, err
		}
	}
	n, err = w.f.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		_ = w.f.Close() // the pipe is empty
		w.f = nil
	}
	return n, err
}

// lossless is the option that makes connections wait for a file.
var lossless = OptionDoc{Name: "lossless", Type: Flag, Only: Streams, Doc: "connections wait while the file cannot keep up or its disk is full, and end if it cannot be written to; without it they continue, and the file says what is missing"}

func recordLayer() *Layer {
	return &Layer{
		Name:    "record",
		Summary: "records bytes and times in a file, for replay",
		Doc: `The file is emptied first. Only this user can read it, and only one recording can be
written to it at a time; a symbolic link is refused. It is a text log of everything;
replay:FILE plays it. If the disk was full or too slow, a line of the file says how much
is missing.`,
		Arg:     Arg{Name: "path", Type: Path},
		Example: "8080+record:session.rec",
		Options: []OptionDoc{lossless},
		Describe: func(p *Part, _ Role) string {
			return "records bytes and times to " + p.ArgText()
		},
		Prepare: func(env *Env, p *Part, _ Role) (Prepared, error) {
			s, err := openSink(env, p.ArgText(), openRecording, sink.Config{Gap: layer.RecordingGap, Lossless: p.Has("lossless")})
			if err != nil {
				return nil, err
			}
			return Always(layer.Record(s)), nil
		},
		Packets: func(env *Env, p *Part, _ Role, _ *packet.Counts) (packet.Layer, error) {
			s, err := openSink(env, p.ArgText(), openRecording, sink.Config{Gap: layer.RecordingGap})
			if err != nil {
				return nil, err
			}
			return packet.Record(s), nil
		},
	}
}

// replayDescribe says what a part of kind replay does.
func replayDescribe(p *Part) string {
	what := "received"
	if p.Has("sent") {
		what = "sent"
	}
	return fmt.Sprintf("plays what was %s, from %s", what, p.ArgText())
}
