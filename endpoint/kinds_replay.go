package endpoint

import (
	"errors"
	"io"
	"os"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

func replayKind() *Kind {
	return &Kind{
		Name:    "replay",
		Role:    Dial,
		Summary: "plays a connection of a recording made by +record",
		Doc: `It sends what the peer of the recorded connection sent, at the recorded times, and then
the end. What it receives is discarded. Every connection plays it from the beginning. The
file is checked at the start, and read in pieces for each connection while it is played.`,
		Arg:     Arg{Name: "path", Type: Path},
		Example: "replay:session.rec,fast",
		Options: []OptionDoc{
			{Name: "conn", Type: Int, Doc: "the connection's number in the recording; the default is its first"},
			{Name: "sent", Type: Flag, Doc: "play what was sent instead of what was received"},
			{Name: "fast", Type: Flag, Doc: "do not wait: ignore the recorded times"},
		},
		Describe: replayDescribe,
		Prepare: func(env *Env, p *Part) error {
			if st, err := os.Stat(env.Path(p.ArgText())); err == nil && !st.Mode().IsRegular() && !st.IsDir() {
				return nil // bytes read from a pipe are gone
			}
			f, err := os.Open(env.Path(p.ArgText()))
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // only read from
			rec := layer.NewRecording(f, uint64(p.Int("conn")))
			for err == nil {
				_, err = rec.Next()
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		},
		Connect: func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
			r := &replaying{env: env, p: p, path: env.Path(p.ArgText()), proto: proto}
			r.ready = env.Loop.NewNotifier(r.begin)
			go r.open()
			return func() { r.stopped = true }
		},
	}
}

// replaying opens a recording off the loop, which must not stop for a slow disk
// or for a pipe that no one has written to yet.
type replaying struct {
	env     *Env
	p       *Part
	path    string
	proto   weir.Protocol
	ready   *weir.Notifier
	stopped bool

	// These belong to open until ready is called.
	file  *os.File
	rec   *layer.Recording
	first []layer.Traffic
	err   error
}

func (r *replaying) open() {
	if r.file, r.err = os.Open(r.path); r.err == nil {
		r.rec = layer.NewRecording(r.file, uint64(r.p.Int("conn")))
		r.first, r.err = r.rec.Piece()
	}
	if r.ready.Notify() != nil { // the loop is closed
		r.close()
	}
}

func (r *replaying) close() {
	if r.file != nil {
		_ = r.file.Close() // only read from
	}
}

// more reads the next piece, on a goroutine that ends with that piece.
func (r *replaying) more(got func([]layer.Traffic, error)) {
	go func() { got(r.rec.Piece()) }()
}

// begin runs on the loop.
func (r *replaying) begin() {
	if r.stopped {
		r.close()
		return
	}
	err := r.err
	if err == nil {
		err = layer.ReplayRecording(r.env.Loop, r.first, r.more, layer.ReplayConfig{Sent: r.p.Has("sent"), Fast: r.p.Has("fast")}, r.close,
			func(weir.Transport) weir.Protocol { return r.proto })
		r.first = nil
	} else {
		r.close()
	}
	if f, ok := r.proto.(weir.ConnectFailer); ok && err != nil {
		f.ConnectFailed(&weir.ConnectError{Network: "replay", Address: r.p.ArgText(), Stage: weir.StageSocket, Err: err})
	}
}
