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
)

// Record is the layer that writes a recording to w: bytes and times of every
// connection, for ReadRecording. See Log for the form and for errors.
func Record(w io.Writer) Layer { return Log(w, LogConfig{Format: LogText}) }

// RecordingError is a line of a recording that is none.
type RecordingError struct {
	Line    int
	Problem string
}

func (e *RecordingError) Error() string {
	return fmt.Sprintf("line %d of the recording: %s", e.Line, e.Problem)
}

// recordingLine is the longest line of a recording, in bytes: that of 4 MiB, all
// escaped.
const recordingLine = 16<<20 + 1<<10

// ReadRecording reads the events of one connection, by its number; 0 is the
// first there is. The recording may be cut off, in the midst of a line too: see
// Replay.
func ReadRecording(r io.Reader, conn uint64) ([]Traffic, error) {
	var events []Traffic
	s := bufio.NewScanner(r)
	s.Buffer(nil, recordingLine)
	cut := false // the line has no end
	s.Split(func(data []byte, atEOF bool) (advance int, token []byte, err error) {
		advance, token, err = bufio.ScanLines(data, atEOF)
		cut = advance > 0 && data[advance-1] != '\n'
		return advance, token, err
	})
	for n := 1; s.Scan(); n++ {
		t, problem := parseTraffic(s.Text())
		if problem != "" && cut && n > 1 {
			break
		}
		if problem != "" {
			return nil, &RecordingError{n, problem}
		}
		if conn == 0 {
			conn = t.Conn
		}
		if t.Conn == conn {
			events = append(events, t)
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	switch {
	case conn == 0:
		return nil, errors.New("the recording is empty")
	case len(events) == 0:
		return nil, fmt.Errorf("the recording has no connection %d", conn)
	}
	return events, nil
}

func parseTraffic(line string) (t Traffic, problem string) {
	number, rest, _ := strings.Cut(line, " ")
	after, rest, _ := strings.Cut(rest, " ")
	what, rest, _ := strings.Cut(rest, " ")
	var err error
	if t.Conn, err = strconv.ParseUint(number, 10, 64); err != nil || t.Conn == 0 {
		return t, "it does not begin with a connection's number"
	}
	seconds, micros, ok := strings.Cut(strings.TrimPrefix(after, "+"), ".")
	sec, err1 := strconv.ParseUint(seconds, 10, 32)
	mic, err2 := strconv.ParseUint(micros, 10, 32)
	if !ok || err1 != nil || err2 != nil || len(micros) != 6 || !strings.HasPrefix(after, "+") {
		return t, "its time is not in seconds with six digits behind the point"
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
			return t, "its bytes are not whole; a recording is a log as text, without a limit"
		}
		t.Data = []byte(data)
	case Made:
		t.Text = rest
	case Lost:
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

// ReplayConfig is how a recording is played.
type ReplayConfig struct {
	// Sent plays what we sent; without it, what was received.
	Sent bool
	// Fast keeps no times: everything comes as fast as it is taken.
	Fast bool
}

// ErrReplayLost is the reason where the recorded connection was lost with an
// error.
var ErrReplayLost = errors.New("as in the recording")

// ErrReplayCut is the reason where the recording does not say how the connection
// ended: who recorded it was ended first.
var ErrReplayCut = errors.New("the recording breaks off here")

// Replay makes a transport on l that behaves as the connection of a recording
// did: it gives the protocol that f makes the recorded bytes at the recorded times,
// then their end or the loss; where the recording has neither, a loss with
// ErrReplayCut. What is written to it is taken and goes nowhere.
// While the protocol wants no bytes the recording waits, and goes on from there.
// It belongs to l's goroutine, and never calls back from inside.
func Replay(l *weir.Loop, events []Traffic, c ReplayConfig, f weir.Factory) error {
	p := &player{l: l, c: c}
	want, end := Received, PeerEnd
	if c.Sent {
		want, end = Sent, OurEnd
	}
	ended := false
	for _, e := range events {
		if e.What == want || e.What == end || e.What == Lost {
			p.events = append(p.events, e)
		}
		if e.What == end || e.What == Lost {
			ended = true
			break
		}
	}
	if !ended {
		e := Traffic{What: brokenOff}
		if n := len(events); n > 0 {
			e.After = events[n-1].After
		}
		p.events = append(p.events, e)
	}
	feed, err := l.Carry(p)
	if err != nil {
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

// brokenOff is where a recording ends that does not say how the connection did.
const brokenOff TrafficKind = 0

// player is the carrier of a recording.
type player struct {
	l            *weir.Loop
	c            ReplayConfig
	events       []Traffic
	made         time.Duration // the recorded time at from
	from         time.Time
	feed         *weir.Feed
	timer, start *weir.Timer
	paused, over bool
}

// wait sets the timer for the next event.
func (p *player) wait() {
	if p.over || p.paused || len(p.events) == 0 {
		return
	}
	d := time.Duration(0)
	if !p.c.Fast {
		d = p.events[0].After - p.made - p.l.Now().Sub(p.from)
	}
	p.timer.Set(max(d, 0))
}

// play is one event's turn.
func (p *player) play() {
	if p.over || p.feed.Paused() || len(p.events) == 0 {
		return
	}
	e := p.events[0]
	p.events = p.events[1:]
	switch {
	case e.What == brokenOff:
		p.feed.Break(ErrReplayCut)
	case e.What != Lost:
		if len(e.Data) > 0 {
			p.feed.Deliver(e.Data)
		} else if e.What == PeerEnd || e.What == OurEnd {
			p.feed.End()
		}
		p.wait()
	case e.Text == "":
		p.feed.End()
	default:
		p.feed.Break(fmt.Errorf("%w: %q", ErrReplayLost, e.Text))
	}
}

// Write implements weir.Carrier.
func (p *player) Write(bufs [][]byte) (int, error) {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	return n, nil
}

// CloseWrite implements weir.Carrier.
func (p *player) CloseWrite() error { return nil }

// CanCloseWrite implements weir.Carrier.
func (p *player) CanCloseWrite() bool { return true }

// PauseReading implements weir.Carrier: the recording stands still.
func (p *player) PauseReading() {
	p.paused = true
	p.timer.Stop()
	p.made += p.l.Now().Sub(p.from)
}

// ResumeReading implements weir.Carrier.
func (p *player) ResumeReading() {
	p.paused = false
	p.from = p.l.Now()
	p.wait()
}

// Close implements weir.Carrier.
func (p *player) Close(bool) {
	p.over = true
	p.timer.Stop()
	p.feed.Closed(nil)
}

// LocalAddr and RemoteAddr name the recording.
func (p *player) LocalAddr() net.Addr { return &weir.FileAddr{Net: "replay", Name: "replay"} }

// RemoteAddr is LocalAddr.
func (p *player) RemoteAddr() net.Addr { return p.LocalAddr() }
