package packet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// Event is a datagram of a recording.
type Event struct {
	After time.Duration // since the recording began
	Peer  weir.PacketAddr
	Data  []byte
}

// Bounds of reading a recording.
const (
	recordingLine = 512 << 10 // a datagram of 64 KiB, all escaped, and more
	pieceBytes    = 256 << 10
	pieceEvents   = 1 << 10
)

// Recording reads the datagrams of a recording, in their order. It keeps one line and
// the addresses of 16,384 flows.
type Recording struct {
	s       *bufio.Scanner
	want    layer.TrafficKind
	peers   map[uint64]weir.PacketAddr
	n       int // lines that were read
	cut     bool
	missing bool // something is
	err     error
}

// NewRecording reads what Record wrote to r: the datagrams that were received or, with
// sent, those that were sent.
func NewRecording(r io.Reader, sent bool) *Recording {
	rec := &Recording{s: bufio.NewScanner(r), want: layer.Received, peers: map[uint64]weir.PacketAddr{}}
	if sent {
		rec.want = layer.Sent
	}
	rec.s.Buffer(nil, recordingLine)
	rec.s.Split(func(data []byte, atEOF bool) (advance int, token []byte, err error) {
		advance, token, err = bufio.ScanLines(data, atEOF)
		rec.cut = advance > 0 && data[advance-1] != '\n'
		return advance, token, err
	})
	return rec
}

// Next returns the next datagram, whose Data is the caller's to keep. After the last
// the error is io.EOF, even if the recording breaks off in the middle of a line; a
// malformed line is a *layer.RecordingError, and other errors are r's.
func (r *Recording) Next() (Event, error) {
	for r.err == nil {
		if e, found := r.line(); found {
			return e, nil
		}
	}
	return Event{}, r.err
}

func (r *Recording) line() (e Event, found bool) {
	if !r.s.Scan() {
		switch err := r.s.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			r.fail(r.n+1, "it is longer than a line of a recording can be")
		case err != nil:
			r.err = err
		case r.n == 0:
			r.err = errors.New("the recording is empty")
		default:
			r.err = io.EOF
		}
		return e, false
	}
	r.n++
	t, err := layer.ParseTraffic(r.s.Text())
	if err != nil {
		var bad *layer.RecordingError
		if r.cut && r.n > 1 {
			r.err = io.EOF
		} else if errors.As(err, &bad) {
			r.fail(r.n, bad.Problem)
		}
		return e, false
	}
	switch t.What {
	case layer.Cut:
		r.missing = true
	case layer.Made:
		_, peer, _ := strings.Cut(t.Text, " ")
		if len(r.peers) >= flowsMost {
			r.fail(r.n, "it has more flows at once than a recording may have")
			return e, false
		}
		r.peers[t.Conn] = parsePeer(peer)
	case layer.Lost:
		delete(r.peers, t.Conn)
	case r.want:
		peer, ok := r.peers[t.Conn]
		if !ok && !r.missing {
			r.fail(r.n, fmt.Sprintf("flow %d has a datagram but no beginning", t.Conn))
		}
		return Event{After: t.After, Peer: peer, Data: t.Data}, ok
	default: // the other direction, or a stream's
	}
	return e, false
}

func (r *Recording) fail(line int, problem string) {
	r.err = &layer.RecordingError{Line: line, Problem: problem}
}

func parsePeer(s string) weir.PacketAddr {
	if ip, err := netip.ParseAddrPort(s); err == nil {
		return plain(weir.PacketAddr{IP: ip})
	}
	return weir.PacketAddr{Path: s}
}

// Piece returns the next datagrams, at least one, up to 256 KiB; none with io.EOF after
// the last.
func (r *Recording) Piece() ([]Event, error) {
	var events []Event
	for size := 0; size < pieceBytes && len(events) < pieceEvents; {
		e, err := r.Next()
		if err != nil {
			if len(events) > 0 {
				return events, nil // Next says it again
			}
			return nil, err
		}
		size += len(e.Data)
		events = append(events, e)
	}
	return events, nil
}

// ReplayConfig says how a recording is played.
type ReplayConfig struct {
	Fast   bool          // ignore the recorded times: one datagram a turn
	Linger time.Duration // how long the endpoint stays open after the last datagram
}

// Replay makes an endpoint whose protocol p gets the datagrams of a recording, from the
// recorded peers and at the recorded times, and then its end, with nil. What is sent to it
// is discarded. While p has paused reading, the recording stands still.
//
// The recording is read while it is played, in pieces, and never on the loop's goroutine:
// more, when it is called, has the next piece read elsewhere, and then calls got with
// what Recording.Piece returned, on any goroutine. It is not called again before. At
// most one piece is kept. closed, unless it is nil, is called once, on any goroutine,
// when nothing is read any more.
func Replay(l *weir.Loop, more func(got func([]Event, error)), c ReplayConfig, closed func(), p weir.PacketProtocol) (*weir.PacketEndpoint, error) {
	r := &player{l: l, c: c, more: more, closed: closed}
	feed, err := l.CarryPackets(r, p)
	if err != nil {
		r.ended()
		return nil, err
	}
	r.feed = feed
	r.timer = l.NewTimer(r.play)
	r.ready = l.NewNotifier(r.arrived)
	l.Soon(func() {
		feed.Begin()
		r.from = l.Now()
		r.wait()
	})
	return feed.Endpoint(), nil
}

// player is the carrier of a recording.
type player struct {
	l      *weir.Loop
	c      ReplayConfig
	feed   *weir.PacketFeed
	timer  *weir.Timer
	ready  *weir.Notifier
	more   func(got func([]Event, error))
	closed func()

	events  []Event
	made    time.Duration // the recorded time at from
	from    time.Time
	reading bool // more was called, and its piece has not arrived
	got     piece
	paused  bool
	last    bool // everything has been read
	over    bool
}

var _ weir.PacketCarrier = (*player)(nil)

type piece struct {
	events []Event
	err    error
}

// wait sets the timer for the next datagram, or has more of them read.
func (r *player) wait() {
	if r.over || r.paused {
		return
	}
	switch {
	case len(r.events) > 0 && r.c.Fast:
		r.timer.Set(0)
	case len(r.events) > 0:
		r.timer.Set(max(0, r.events[0].After-r.made-r.l.Now().Sub(r.from)))
	case r.last:
		r.timer.Set(r.c.Linger)
	case !r.reading:
		r.reading = true
		r.more(func(events []Event, err error) {
			r.got = piece{events, err}
			if r.ready.Notify() != nil { // the loop is closed
				r.ended()
			}
		})
	}
}

// arrived is called on the loop with a piece.
func (r *player) arrived() {
	got := r.got
	r.got, r.reading = piece{}, false
	switch {
	case r.over:
		r.ended()
		return
	case got.err == nil:
		r.events = got.events
	case errors.Is(got.err, io.EOF):
		r.last = true
	default:
		r.feed.Fail(fmt.Errorf("the rest of the recording cannot be read: %w", got.err))
		return
	}
	r.wait()
}

func (r *player) play() {
	switch {
	case r.over || r.paused:
		return
	case len(r.events) > 0:
		e := r.events[0]
		r.events = r.events[1:]
		r.feed.Deliver(e.Data, e.Peer)
		r.wait()
	case r.last:
		r.Close(false)
	}
}

// ended is called when nothing is read any more.
func (r *player) ended() {
	if f := r.closed; f != nil {
		r.closed = nil
		f()
	}
}

func (r *player) SendTo([]byte, weir.PacketAddr) (bool, error) { return true, nil }

// PauseReading implements weir.PacketCarrier: the recording stands still.
func (r *player) PauseReading() {
	r.paused = true
	r.timer.Stop()
	r.made += r.l.Now().Sub(r.from)
}

func (r *player) ResumeReading() {
	r.paused = false
	r.from = r.l.Now()
	r.wait()
}

func (r *player) Close(bool) {
	r.over = true
	r.timer.Stop()
	if !r.reading {
		r.ended()
	}
	r.feed.Closed(nil)
}
