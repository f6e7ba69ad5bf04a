package address

import (
	"os"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

func replayKind() *Kind {
	return &Kind{
		Name:    "replay",
		Role:    Dial,
		Summary: "plays a connection that record recorded",
		Doc: `It sends what came from the peer of the recorded connection, when it came, and then the
end. What is written to it goes nowhere. Every connection plays it from the beginning.
The file is looked through at the start, and read anew for each connection.`,
		Arg:     Arg{Name: "path", Type: Path},
		Example: "replay:session.rec,fast",
		Options: []OptionDoc{
			{Name: "conn", Type: Int, Doc: "the connection's number in the recording; the default is its first"},
			{Name: "sent", Type: Flag, Doc: "play what was sent instead of what was received"},
			{Name: "fast", Type: Flag, Doc: "keep no times"},
		},
		Describe: replayDescribe,
		Prepare: func(env *Env, p *Part) error {
			if st, err := os.Stat(env.Path(p.ArgText())); err == nil && !st.Mode().IsRegular() && !st.IsDir() {
				return nil // what is read from a pipe is gone
			}
			_, err := readRecording(env, p)
			return err
		},
		Connect: func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
			return soon(env, "replay", p.ArgText(), proto, func() error {
				events, err := readRecording(env, p)
				if err != nil {
					return err
				}
				return layer.Replay(env.Loop, events, layer.ReplayConfig{Sent: p.Has("sent"), Fast: p.Has("fast")},
					func(weir.Transport) weir.Protocol { return proto })
			})
		},
	}
}

// readRecording reads the connection that a part names.
func readRecording(env *Env, p *Part) ([]layer.Traffic, error) {
	f, err := os.Open(env.Path(p.ArgText()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	return layer.ReadRecording(f, uint64(p.Int("conn")))
}
