package endpoint

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/packet"
)

// replayLinger is how long a replay of datagrams waits for answers to the last.
const replayLinger = 2 * time.Second

func udpReplayKind() *Kind {
	return &Kind{
		Name:    "udp-replay",
		Role:    Listen,
		Summary: "plays the datagrams of a recording made by +record",
		Doc: `They come from the recorded peers at the recorded times; each peer gets a port of its own
on the way out. Answers are counted and discarded. weir ends when the recording has ended
and its last answers have had time to arrive. The file is checked at the start, and read
in pieces while it is played.`,
		Arg: Arg{Name: "path", Type: Path},
		Options: []OptionDoc{
			{Name: "sent", Type: Flag, Doc: "play what was sent instead of what was received"},
			{Name: "fast", Type: Flag, Doc: "do not wait: ignore the recorded times"},
			{Name: "linger", Type: Duration, Doc: "how long to wait for answers to the last datagram; the default is 2s"},
		},
		Example: "udp-replay:queries.rec,fast",
		Describe: func(p *Part) string {
			return replayDescribe(p)
		},
		Prepare: func(env *Env, p *Part) error {
			f, err := os.Open(env.Path(p.ArgText()))
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // only read from
			rec := packet.NewRecording(f, p.Has("sent"))
			for err == nil {
				_, err = rec.Next()
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		},
		Packets: func(p *Part) PacketSpec {
			return PacketSpec{
				Addresses: []string{p.ArgText()},
				Open: func(env *Env, proto weir.PacketProtocol) (*weir.PacketEndpoint, error) {
					r := &packetReplaying{path: env.Path(p.ArgText()), sent: p.Has("sent")}
					c := packet.ReplayConfig{Fast: p.Has("fast"), Linger: replayLinger}
					if p.Has("linger") {
						c.Linger = p.Duration("linger")
					}
					return packet.Replay(env.Loop, r.more, c, r.close, proto)
				},
			}
		},
	}
}

// packetReplaying reads a recording away from the loop, one piece at a time.
type packetReplaying struct {
	path string
	sent bool
	file *os.File
	rec  *packet.Recording
}

// more reads the next piece, on a goroutine that ends with it.
func (r *packetReplaying) more(got func([]packet.Event, error)) {
	go func() {
		if r.rec == nil {
			f, err := os.Open(r.path)
			if err != nil {
				got(nil, err)
				return
			}
			r.file, r.rec = f, packet.NewRecording(f, r.sent)
		}
		got(r.rec.Piece())
	}()
}

func (r *packetReplaying) close() {
	if r.file != nil {
		_ = r.file.Close() // only read from
	}
}
