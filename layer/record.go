package layer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/sink"
)

// Cut, in a recording, says that events are missing from this point on, and
// Text says why: events of one connection, or, with the number 0, of all that
// are open.
const Cut TrafficKind = '!'

// RecordingGap is the Gap of sink.Config for a recording: a line of kind Cut.
func RecordingGap(b []byte, g sink.Gap) []byte {
	b = append(b, "0 +0.000000 ! "...)
	return append(appendQuoted(b, []byte(g.String())), '\n')
}

// Record returns a layer that writes a recording to s: the bytes and times of
// every connection, for ReadRecording. See Log for the format. s must be made
// with RecordingGap: if it does not keep up, or its file is full, ReadRecording
// then finds that the connections that were open break off there.
func Record(s *sink.Sink) Layer { return Log(s, LogConfig{Format: LogText}) }

// RecordingError reports a line of a recording that is not valid.
type RecordingError struct {
	Line    int
	Problem string
}

func (e *RecordingError) Error() string {
	return fmt.Sprintf("line %d of the recording: %s", e.Line, e.Problem)
}

// recordingLine is the length of the longest line of a recording, in bytes:
// that of a line with 4 MiB, all escaped.
const recordingLine = 16<<20 + 1<<10

// ReadRecording reads the events of one connection, by its number; 0 means the
// first in the recording. The recording may be cut off, even in the middle of a
// line: see Replay. It keeps all events; Recording reads them one by one.
func ReadRecording(r io.Reader, conn uint64) ([]Traffic, error) {
	var events []Traffic
	rec := NewRecording(r, conn)
	for {
		t, err := rec.Next()
		switch {
		case errors.Is(err, io.EOF):
			return events, nil
		case err != nil:
			return nil, err
		}
		events = append(events, t)
	}
}

// Recording reads the events of one connection in a recording, in order. It
// keeps only one line in memory.
type Recording struct {
	s       *bufio.Scanner
	conn    uint64
	n       int             // lines read so far
	last    time.Duration   // the connection's latest event
	some    bool            // it has had one
	cut     bool            // the line has no end
	torn    *RecordingError // the line before, unless a Cut explains it
	missing bool            // something is missing
	err     error           // after the last event
}

// NewRecording makes a Recording of a connection, by its number; 0 means the
// first in the recording. It reads r in pieces, as Next needs them.
func NewRecording(r io.Reader, conn uint64) *Recording {
	rec := &Recording{s: bufio.NewScanner(r), conn: conn}
	rec.s.Buffer(nil, recordingLine)
	rec.s.Split(func(data []byte, atEOF bool) (advance int, token []byte, err error) {
		advance, token, err = bufio.ScanLines(data, atEOF)
		rec.cut = advance > 0 && data[advance-1] != '\n'
		return advance, token, err
	})
	return rec
}

// Next returns the next event, whose Data the caller may keep. After the last
// event the error is io.EOF, immediately if the recording says how the
// connection ended; a line that is not valid gives a *RecordingError; other
// errors are those of r.
func (r *Recording) Next() (Traffic, error) {
	for r.err == nil {
		t, found, err := r.line()
		if err != nil {
			r.err = err
		}
		if found {
			return t, nil
		}
	}
	return Traffic{}, r.err
}

// line reads one line. The error applies after the event that was found.
func (r *Recording) line() (t Traffic, found bool, err error) {
	if !r.s.Scan() {
		return t, false, r.over()
	}
	r.n++
	t, problem := parseTraffic(r.s.Text())
	if problem != "" && r.cut && r.n > 1 {
		return t, false, r.over()
	}
	if r.torn != nil && (problem != "" || t.What != Cut) {
		return t, false, r.torn
	}
	r.torn = nil
	switch {
	case problem != "" && r.n > 1:
		r.torn = &RecordingError{r.n, problem}
	case problem != "":
		return t, false, &RecordingError{r.n, problem}
	case t.What == Cut && (t.Conn == 0 || t.Conn == r.conn):
		r.missing = true
		if r.some {
			t.Conn, t.After = r.conn, r.last
			return t, true, io.EOF
		}
	case t.What == Cut, r.missing && !r.some && t.What != Made:
		// Another connection's; or its beginning is missing.
	case r.conn == 0 || t.Conn == r.conn:
		r.conn, r.last, r.some = t.Conn, t.After, true
		if t.What == Lost {
			err = io.EOF
		}
		return t, true, err
	}
	return t, false, nil
}

// over is why there are no more lines.
func (r *Recording) over() error {
	switch err := r.s.Err(); {
	case r.torn != nil:
		return r.torn
	case errors.Is(err, bufio.ErrTooLong):
		return &RecordingError{r.n + 1, "it is longer than a line of a recording can be"}
	case err != nil:
		return err
	case r.conn == 0:
		return errors.New("the recording is empty")
	case !r.some:
		return fmt.Errorf("the recording has no connection %d", r.conn)
	}
	return io.EOF
}

// ParseTraffic reads a line of a recording, without its newline. The error is a
// *RecordingError without the line's number.
func ParseTraffic(line string) (Traffic, error) {
	t, problem := parseTraffic(line)
	if problem != "" {
		return Traffic{}, &RecordingError{Problem: problem}
	}
	return t, nil
}

func parseTraffic(line string) (t Traffic, problem string) {
	number, rest, _ := strings.Cut(line, " ")
	after, rest, _ := strings.Cut(rest, " ")
	what, rest, _ := strings.Cut(rest, " ")
	var err error
	if t.Conn, err = strconv.ParseUint(number, 10, 64); err != nil || t.Conn == 0 && what != string(Cut) {
		return t, "it does not begin with a connection's number"
	}
	seconds, micros, ok := strings.Cut(strings.TrimPrefix(after, "+"), ".")
	sec, err1 := strconv.ParseUint(seconds, 10, 32)
	mic, err2 := strconv.ParseUint(micros, 10, 32)
	if !ok || err1 != nil || err2 != nil || len(micros) != 6 || !strings.HasPrefix(after, "+") {
		return t, "its time is not in seconds with six digits after the point"
	}
	t.After = time.Duration(sec)*time.Second + time.Duration(mic)*time.Microsecond
	if len(what) != 1 {
		return t, "it does not say what happened"
	}
	t.What = TrafficKind(what[0])
	switch t.What {
	case Received, Sent:
		size, quoted, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(size, 10, 32)
		data, unquoteErr := strconv.Unquote(quoted)
		if err != nil || unquoteErr != nil || uint64(len(data)) != n {
			return t, "its bytes are incomplete; a recording is a text log without a limit on bytes"
		}
		t.Data = []byte(data)
	case Made:
		t.Text = rest
	case Lost, Cut:
		if rest != "" {
			if t.Text, err = strconv.Unquote(rest); err != nil {
				return t, "its reason is not quoted"
			}
		}
	case PeerEnd, OurEnd:
	default:
		return t, "it does not say what happened"
	}
	return t, ""
}

// ReplayConfig says how a recording is played.
type ReplayConfig struct {
	// Sent plays what we sent instead of what was received.
	Sent bool
	// Fast ignores the recorded times: everything comes as fast as it is taken.
	Fast bool
}

// ErrReplayLost is the reason when the recorded connection was lost with an
// error.
var ErrReplayLost = errors.New("as in the recording")

// ErrReplayCut is the reason when the recording does not say how the connection
// ended, because recording stopped before that.
var ErrReplayCut = errors.New("the recording breaks off here")

// Replay makes a transport on l that behaves as the connection of a recording
// did: it gives the protocol that f makes the recorded bytes at the recorded
// times, then their end or the loss; if the recording has neither, a loss with
// ErrReplayCut. What is written to it is accepted and discarded. While the
// protocol wants no bytes the recording waits, and goes on from there. Replay
// belongs to l's goroutine, and never calls back before it returns.
func Replay(l *weir.Loop, events []Traffic, c ReplayConfig, f weir.Factory) error {
	return replay(l, &player{l: l, c: c, events: events, whole: true}, f)
}

// How much of a recording is read at once, and how much is kept at most, beyond
// its last event.
const (
	replayBytes  = 256 << 10
	replayEvents = 1 << 10
)

// ReplayRecording is Replay for a recording that is read while it is played.
// first holds the first events. When they have been played, more is called; it
// must read the next piece off the loop and call got with it, on any goroutine,
// as Recording.Piece returned it; and so on until the error is io.EOF. closed,
// unless it is nil, is called once, on any goroutine, when nothing more will be
// read.
func ReplayRecording(l *weir.Loop, first []Traffic, more func(got func([]Traffic, error)), c ReplayConfig, closed func(), f weir.Factory) error {
	p := &player{l: l, c: c, events: first, more: more, closed: closed}
	p.ready = l.NewNotifier(p.arrived)
	return replay(l, p, f)
}

// Piece returns the next events, at least one, with up to 256 KiB of bytes.
// After the last it returns none and io.EOF.
func (r *Recording) Piece() ([]Traffic, error) {
	var events []Traffic
	for size := 0; size < replayBytes && len(events) < replayEvents; {
		t, err := r.Next()
		if err != nil {
			if len(events) > 0 {
				return events, nil // Next will return the error again
			}
			return nil, err
		}
		size += len(t.Data)
		events = append(events, t)
	}
	return events, nil
}

func replay(l *weir.Loop, p *player, f weir.Factory) error {
	feed, err := l.Carry(p)
	if err != nil {
		p.ended()
		return err
	}
	p.feed = feed
	p.timer = l.NewTimer(p.play)
	p.start = l.NewTimer(func() {
		if feed.Begin(f) {
			p.from = l.Now()
			p.wait()
		}
	})
	p.start.Set(0)
	return nil
}

// player is the carrier of a recording.
type player struct {
	l            *weir.Loop
	c            ReplayConfig
	events       []Traffic
	last         time.Duration // the recorded time of the latest event
	made         time.Duration // the recorded time at from
	from         time.Time
	feed         *weir.Feed
	timer, start *weir.Timer
	paused, over bool

	whole   bool // events holds all there are
	more    func(got func([]Traffic, error))
	closed  func()
	ready   *weir.Notifier
	reading bool  // more was called, and its piece has not arrived
	got     piece // of more, until ready is called
}

var _ weir.Carrier = (*player)(nil)

type piece struct {
	events []Traffic
	err    error
}

// next returns the next event to be played. If there is none yet, it has more
// read, and wait is called once it arrives. If the recording stops without an
// end, the event is of kind brokenOff.
func (p *player) next() (t *Traffic) {
	want, end := Received, PeerEnd
	if p.c.Sent {
		want, end = Sent, OurEnd
	}
	for len(p.events) > 0 {
		e := &p.events[0]
		p.last = e.After
		switch e.What { //nolint:exhaustive // the rest is the other direction's
		case want, end, Lost:
			return e
		case Cut:
			p.whole = true
			p.events = nil
			continue
		}
		p.events = p.events[1:]
	}
	if p.whole {
		p.events = []Traffic{{What: brokenOff, After: p.last}}
		return &p.events[0]
	}
	p.read()
	return nil
}

// read starts reading the next piece.
func (p *player) read() {
	if p.reading {
		return
	}
	p.reading = true
	p.more(func(events []Traffic, err error) {
		p.got = piece{events, err}
		if p.ready.Notify() != nil { // the loop is closed
			p.ended()
		}
	})
}

// arrived is called on the loop with a piece.
func (p *player) arrived() {
	got := p.got
	p.got, p.reading = piece{}, false
	switch {
	case p.over:
		p.ended()
		return
	case got.err == nil:
		p.events = got.events
	case errors.Is(got.err, io.EOF):
		p.whole = true
	default: // the file has changed meanwhile, or cannot be read
		p.feed.End(fmt.Errorf("the rest of the recording cannot be read: %w", got.err))
		return
	}
	p.wait()
}

// ended is called when nothing more will be read.
func (p *player) ended() {
	if f := p.closed; f != nil {
		p.closed = nil
		f()
	}
}

// brokenOff marks the end of a recording that does not say how the connection
// ended.
const brokenOff TrafficKind = 0

// wait sets the timer for the next event.
func (p *player) wait() {
	if p.over || p.paused {
		return
	}
	e := p.next()
	if e == nil {
		return
	}
	d := time.Duration(0)
	if !p.c.Fast {
		d = e.After - p.made - p.l.Now().Sub(p.from)
	}
	p.timer.Set(max(d, 0))
}

// play plays one event.
func (p *player) play() {
	if p.over || p.feed.Paused() || len(p.events) == 0 {
		return
	}
	e := p.events[0]
	p.events = p.events[1:]
	switch {
	case e.What == brokenOff:
		p.feed.End(ErrReplayCut)
	case e.What == PeerEnd, e.What == OurEnd, e.What == Lost && e.Text == "":
		p.feed.End(nil)
	case e.What == Lost:
		p.feed.End(fmt.Errorf("%w: %q", ErrReplayLost, e.Text))
	default:
		if len(e.Data) > 0 {
			p.feed.Deliver(e.Data)
		}
		p.wait()
	}
}

func (p *player) Write(bufs [][]byte) (int, error) {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	return n, nil
}

func (p *player) CloseWrite() error { return nil }

func (p *player) CanCloseWrite() bool { return true }

// PauseReading implements weir.Carrier: the recording stands still.
func (p *player) PauseReading() {
	p.paused = true
	p.timer.Stop()
	p.made += p.l.Now().Sub(p.from)
}

func (p *player) ResumeReading() {
	p.paused = false
	p.from = p.l.Now()
	p.wait()
}

func (p *player) Close(bool) {
	p.over = true
	p.timer.Stop()
	if !p.reading {
		p.ended()
	}
	p.feed.Closed(nil)
}

// LocalAddr and RemoteAddr name the recording.
func (p *player) LocalAddr() net.Addr { return &weir.FileAddr{Net: "replay", Name: "replay"} }

// RemoteAddr is LocalAddr.
func (p *player) RemoteAddr() net.Addr { return p.LocalAddr() }
