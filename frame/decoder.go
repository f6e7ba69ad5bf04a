package frame

import (
	"fmt"
	"math"

	"github.com/weir-io/weir"
)

// DefaultLimit is the longest frame that a Decoder takes unless told
// otherwise, in bytes, delimiter and prefix not counted.
const DefaultLimit = 64 << 10

const (
	// leave is how much of an unfinished frame is left to the transport.
	leave = 4 << 10
	// keepBuffer is how large a buffer for unfinished frames may be to be kept; a
	// larger one is dropped after keepFrames frames that did not need it.
	keepBuffer = 4 << 10
	keepFrames = 250
)

// LimitError is the reason when a frame is longer than the Decoder takes.
type LimitError struct {
	Format string // "line", "netstring", ...
	Size   uint64 // what the frame claims, in bytes; 0 if it claims nothing
	Limit  int    // bytes
}

func (e *LimitError) Error() string {
	if e.Size == 0 {
		return fmt.Sprintf("frame: %s is longer than the limit of %d bytes", e.Format, e.Limit)
	}
	return fmt.Sprintf("frame: %s of %d bytes is longer than the limit of %d", e.Format, e.Size, e.Limit)
}

// SyntaxError is the reason when the bytes are not in the format.
type SyntaxError struct {
	Format string // "netstring", ...
	Text   string // what is wrong
}

func (e *SyntaxError) Error() string { return "frame: bad " + e.Format + ": " + e.Text }

// span is where a frame lies: the bytes around its body.
type span struct {
	head, body, tail int
}

func (s span) size() int { return s.head + s.body + s.tail }

// format knows where frames begin and end.
type format interface {
	// measure says where the frame at the beginning of p lies. known is false while p
	// does not tell. The frame may be longer than p. The first seen bytes of p were
	// already measured, without result.
	measure(p []byte, seen, limit int) (s span, known bool, err error)
	// most is how long a frame may be, delimiter and prefix included.
	most(limit int) int
	// last treats what was left at the end of the stream as a frame, for formats where
	// the end counts as a delimiter.
	last(p []byte, limit int) ([]byte, error)
}

// Decoder splits a stream into frames and hands each to a function. It is a
// weir.Protocol, to be used as it is or embedded in another. It belongs to the
// goroutine that feeds it; a frame is lent until the function returns.
type Decoder struct {
	format  format
	deliver func(frame []byte) error
	raw     func(p []byte) (int, error) // not nil exactly in raw mode
	limit   int
	leave   int

	held   []byte // the beginning of an unfinished frame
	need   int    // how long held is when the frame is whole; 0 while not known
	unheld int    // frames delivered since one was held

	lastLine bool
	onMade   func(t weir.Transport)
	onLost   func(err error)
	onFailed func(err *weir.ConnectError)
}

// Option changes what a Decoder does from the start.
type Option func(*Decoder)

// WithLimit sets the longest frame in bytes, delimiter and prefix not counted. A
// negative value counts as 0: empty frames only. The maximum is an eighth of the
// largest int.
func WithLimit(bytes int) Option {
	return func(d *Decoder) { d.limit = min(max(bytes, 0), math.MaxInt/8) }
}

// OnMade calls f when the connection is made.
func OnMade(f func(t weir.Transport)) Option { return func(d *Decoder) { d.onMade = f } }

// OnFailed calls f if the Decoder was passed to Loop.Connect and the connect failed.
// Without it the failure goes to the loop's error handler.
func OnFailed(f func(err *weir.ConnectError)) Option { return func(d *Decoder) { d.onFailed = f } }

// OnLost calls f when the connection is lost; err is ConnectionLost's.
func OnLost(f func(err error)) Option { return func(d *Decoder) { d.onLost = f } }

func newDecoder(f format, deliver func([]byte) error, opts []Option) *Decoder {
	d := &Decoder{format: f, deliver: deliver, limit: DefaultLimit, leave: leave}
	for _, o := range opts {
		o(d)
	}
	return d
}

var (
	_ weir.Protocol    = (*Decoder)(nil)
	_ weir.EOFReceiver = (*Decoder)(nil)

	_ weir.ConnectFailer = (*Decoder)(nil)
)

// ConnectionMade calls the function that OnMade set.
func (d *Decoder) ConnectionMade(t weir.Transport) {
	if d.onMade != nil {
		d.onMade(t)
	}
}

// ConnectFailed implements weir.ConnectFailer; see OnFailed.
func (d *Decoder) ConnectFailed(err *weir.ConnectError) {
	if d.onFailed == nil {
		err.Pass()
		return
	}
	d.onFailed(err)
}

// ConnectionLost drops an unfinished frame and calls the function that OnLost set.
func (d *Decoder) ConnectionLost(err error) {
	d.held, d.need = nil, 0
	if d.onLost != nil {
		d.onLost(err)
	}
}

// Raw passes the bytes to f as they come, in place of DataReceived, until Framed is
// called. Called from inside a frame's function, it takes effect right after that
// frame. It must not be called from elsewhere while a frame is unfinished (Held is not
// 0).
func (d *Decoder) Raw(f func(p []byte) (n int, err error)) { d.raw = f }

// Framed ends what Raw began: frames start again with the first byte that f did not use.
func (d *Decoder) Framed() { d.raw = nil }

// Held returns how many bytes of an unfinished frame the Decoder has taken.
func (d *Decoder) Held() int { return len(d.held) }

// DataReceived implements weir.Protocol: it delivers at most one frame of p, and
// returns how many bytes it used, 0 if p has no whole frame. The errors are
// *LimitError, *SyntaxError and what the frame's function returns.
func (d *Decoder) DataReceived(p []byte) (n int, err error) {
	if d.raw != nil {
		return d.raw(p)
	}
	if len(d.held) > 0 {
		return d.more(p)
	}
	s, known, err := d.format.measure(p, 0, d.limit)
	if err != nil {
		return 0, err
	}
	if known && s.size() <= len(p) {
		if cap(d.held) > keepBuffer {
			if d.unheld++; d.unheld > keepFrames {
				d.held = nil
			}
		}
		end := s.head + s.body
		return s.size(), d.deliver(p[s.head:end:end])
	}
	if len(p) < d.leave {
		return 0, nil
	}
	d.need = 0
	if known {
		d.need = s.size()
	}
	d.held = append(d.held, p...)
	return len(p), nil
}

// more adds p to the frame that is held.
func (d *Decoder) more(p []byte) (n int, err error) {
	had := len(d.held)
	if d.need == 0 {
		// The format's most bounds what is held while the length is unknown.
		p = p[:min(len(p), d.format.most(d.limit)-had)]
		d.held = append(d.held, p...)
	} else {
		p = p[:min(len(p), d.need-had)]
		d.held = append(d.held, p...)
		if len(d.held) < d.need {
			return len(p), nil
		}
	}
	s, known, err := d.format.measure(d.held, had, d.limit)
	switch {
	case err != nil:
		return 0, err
	case !known:
		return len(p), nil
	case s.size() > len(d.held):
		d.need = s.size()
		return len(p), nil
	}
	frame := d.held[s.head : s.head+s.body : s.head+s.body]
	d.held, d.need, d.unheld = d.held[:0], 0, 0
	return s.size() - had, d.deliver(frame)
}

// EOFReceived implements weir.EOFReceiver: an end in the middle of a frame is a
// *weir.UnusedError, an end between frames closes the connection.
func (d *Decoder) EOFReceived(unused int) (keepOpen bool, err error) {
	held := d.held
	d.held, d.need = nil, 0
	switch {
	case len(held) == 0:
		return false, nil // the transport knows how to treat unused
	case d.lastLine && unused == 0:
		line, err := d.format.last(held, d.limit)
		if err != nil {
			return false, err
		}
		return false, d.deliver(line)
	}
	return false, &weir.UnusedError{Unused: unused + len(held)}
}
