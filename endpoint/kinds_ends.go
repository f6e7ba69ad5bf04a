package endpoint

import (
	"encoding/binary"
	"math"
	"net"
	"strconv"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/splitmix"
)

// endPiece is how many bytes an end without a peer makes in a turn, and how many echo
// keeps.
const endPiece = 64 << 10

// endKinds are ends without a peer, to try other ends and layers with.
func endKinds() []*Kind {
	bytes := []OptionDoc{{Name: "bytes", Type: Size, Doc: "how many to send before the end; without it there is no end"}}
	return []*Kind{
		endKind(&Kind{
			Name: "null", Summary: "ends at once, and discards what arrives", Example: "null",
			Describe: func(*Part) string { return "ends at once; what arrives is discarded" },
		}, func(*Part) *ending { return &ending{} }),
		endKind(&Kind{
			Name: "discard", Summary: "discards what arrives, and ends when the other side has", Example: "discard",
			Describe: func(*Part) string { return "discards what arrives" },
		}, func(*Part) *ending { return &ending{left: -1, ends: true} }),
		endKind(&Kind{
			Name: "echo", Summary: "sends back what it receives", Example: "echo",
			Describe: func(*Part) string { return "sends back what arrives" },
		}, func(*Part) *ending { return &ending{left: -1, ends: true, echo: true} }),
		endKind(&Kind{
			Name: "zero", Summary: "sends zeros, and discards what arrives", Example: "zero,bytes=1g", Options: bytes,
			Describe: func(p *Part) string { return "sends " + howMany(p) + " of zeros" },
		}, func(p *Part) *ending { return &ending{left: sizeOrEndless(p), fill: func([]byte, int64) {}} }),
		endKind(&Kind{
			Name: "random", Summary: "sends random bytes, always the same for a seed, and discards what arrives", Example: "random:7,bytes=10m", Options: bytes,
			Doc:      "They are the outputs of SplitMix64 for the seed, eight bytes each, in little-endian order.",
			Arg:      Arg{Name: "seed", Type: Number(0, math.MaxInt64)},
			Describe: func(p *Part) string { return "sends " + howMany(p) + " of random bytes from seed " + p.ArgText() },
		}, func(p *Part) *ending {
			seed, _ := strconv.ParseUint(p.ArgText(), 10, 64) // Parse has checked it
			return &ending{left: sizeOrEndless(p), fill: func(b []byte, at int64) { randomBytes(b, seed, at) }}
		}),
		endKind(&Kind{
			Name: "text", Summary: "sends a text and then the end, and discards what arrives", Example: "text:hello",
			Arg:      Arg{Name: "text", Type: Text},
			Describe: func(p *Part) string { return "sends " + strconv.Quote(p.ArgText()) },
		}, func(p *Part) *ending {
			text := p.ArgText()
			return &ending{left: int64(len(text)), fill: func(b []byte, at int64) { copy(b, text[at:]) }}
		}),
	}
}

func howMany(p *Part) string {
	if p.Has("bytes") {
		return p.Value("bytes")
	}
	return "no end"
}

// sizeOrEndless is bytes=, or -1.
func sizeOrEndless(p *Part) int64 {
	if p.Has("bytes") {
		return p.Size("bytes")
	}
	return -1
}

// randomBytes fills b with what a seed's stream has at an offset.
func randomBytes(b []byte, seed uint64, at int64) {
	var word [8]byte
	for i := 0; i < len(b); {
		n := uint64(at) / 8 //nolint:gosec // an offset is not negative
		binary.LittleEndian.PutUint64(word[:], splitmix.Mix(seed+splitmix.Gamma*(n+1)))
		k := copy(b[i:], word[at%8:])
		i += k
		at += int64(k)
	}
}

func endKind(k *Kind, made func(*Part) *ending) *Kind {
	k.Role, k.OnLoops = Dial, true
	k.Connect = func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
		return soon(env, k.Name, p.ArgText(), proto, func() error {
			e := made(p)
			e.name = k.Name
			feed, err := env.Loop.Carry(e)
			if err != nil {
				return err
			}
			e.feed, e.timer = feed, env.Loop.NewTimer(e.turn)
			if feed.Begin(func(weir.Transport) weir.Protocol { return proto }) && !e.over {
				e.timer.Set(0)
			}
			return nil
		})
	}
	return k
}

// ending is the carrier of a transport without a peer. What it sends comes from fill, or
// from what was written to it.
type ending struct {
	name  string
	feed  *weir.Feed
	timer *weir.Timer // the next piece
	buf   []byte

	fill func(b []byte, at int64) // makes what comes at an offset; b is zero the first time
	at   int64
	left int64 // before the end; below 0: there is none
	ends bool  // it ends when the other side has
	echo bool

	paused, done, over bool
}

var _ weir.Carrier = (*ending)(nil)

// turn delivers a piece.
func (e *ending) turn() {
	if e.over || e.done || e.paused || e.feed.Paused() {
		return
	}
	if e.echo {
		full := len(e.buf) == endPiece
		if len(e.buf) > 0 {
			b := e.buf
			e.buf = e.buf[:0]
			e.feed.Deliver(b)
		}
		if full && !e.over {
			e.feed.Writable()
		}
	}
	if e.fill != nil && e.left != 0 {
		n := int64(endPiece)
		if e.left >= 0 {
			n = min(n, e.left)
		}
		if int64(cap(e.buf)) < n {
			e.buf = make([]byte, n)
		}
		e.buf = e.buf[:n]
		e.fill(e.buf, e.at)
		e.at += n
		if e.left >= 0 {
			e.left -= n
		}
		e.feed.Deliver(e.buf)
	}
	switch {
	case e.over:
	case e.left == 0 && (!e.echo || len(e.buf) == 0):
		e.done = true
		e.feed.End(nil)
	case e.fill != nil:
		e.timer.Set(0)
	}
}

func (e *ending) Write(bufs [][]byte) (n int, err error) {
	for _, b := range bufs {
		if e.echo {
			b = b[:min(len(b), endPiece-len(e.buf))]
			e.buf = append(e.buf, b...)
		}
		n += len(b)
	}
	if e.echo && len(e.buf) > 0 {
		e.timer.Set(0)
	}
	return n, nil
}

func (e *ending) CanCloseWrite() bool { return true }

func (e *ending) CloseWrite() error {
	if e.ends {
		e.left = 0
		e.timer.Set(0)
	}
	return nil
}

func (e *ending) PauseReading() { e.paused = true }

func (e *ending) ResumeReading() {
	e.paused = false
	e.timer.Set(0)
}

func (e *ending) Close(bool) {
	if e.over {
		return
	}
	e.over = true
	e.timer.Stop()
	e.feed.Closed(nil)
}

// LocalAddr and RemoteAddr name the kind.
func (e *ending) LocalAddr() net.Addr { return &weir.FileAddr{Net: e.name, Name: e.name} }

// RemoteAddr is LocalAddr.
func (e *ending) RemoteAddr() net.Addr { return e.LocalAddr() }
