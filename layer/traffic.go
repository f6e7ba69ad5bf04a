package layer

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/sink"
)

// Traffic is one event of a connection, as in a traffic log.
type Traffic struct {
	Conn  uint64        // the connection's number, from 1 on, in the order they were made
	After time.Duration // since the connection was made
	At    time.Time     // by the loop's clock; zero in events read from a recording
	What  TrafficKind
	Data  []byte // of Received and Sent; lent
	Text  string // of Made: both addresses; of Lost: the reason, "" for a clean end
}

// TrafficKind says what happened.
type TrafficKind byte

// The kinds of traffic. Their values are the signs in the lines of a log.
const (
	Made     TrafficKind = '+'
	Received TrafficKind = '<'
	Sent     TrafficKind = '>'
	PeerEnd  TrafficKind = '[' // the peer ended its direction
	OurEnd   TrafficKind = ']' // we ended ours
	Lost     TrafficKind = '-'
)

// Observe returns a layer that shows f everything that passes and changes
// nothing. f is called before the bytes go on, on the goroutine of the
// connection's loop.
func Observe(f func(Traffic)) Layer { return observe(f, nil) }

// observe is Observe with a gate: unless it is nil, the connections wait while
// it is shut.
func observe(f func(Traffic), gate *roomGate) Layer {
	var count atomic.Uint64
	return func(a Above) Above {
		return Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			o := &observer{f: f, gate: gate, count: &count}
			return o.Init(o, "log", a)
		}}
	}
}

type observer struct {
	Base
	f     func(Traffic)
	count *atomic.Uint64
	conn  uint64 // 0: its events are not shown yet
	from  time.Time

	gate *roomGate // nil: it never waits
	wait *roomWait // made when it first waits
}

var (
	_ weir.Protocol    = (*observer)(nil)
	_ weir.EOFReceiver = (*observer)(nil)
	_ weir.Carrier     = (*observer)(nil)
)

func (o *observer) see(what TrafficKind, data []byte, text string) {
	at := o.Below().Loop().Now()
	o.f(Traffic{Conn: o.conn, After: at.Sub(o.from), At: at, What: what, Data: data, Text: text})
}

func (o *observer) ConnectionMade(t weir.Transport) {
	o.Begin(t)
	if o.shut() {
		o.HoldReading() // it begins when there is room
		return
	}
	o.begin()
}

// begin shows the connection and makes what is above.
func (o *observer) begin() {
	t := o.Below()
	o.conn = o.count.Add(1)
	o.from = t.Loop().Now()
	o.see(Made, nil, t.LocalAddr().String()+" "+t.RemoteAddr().String())
	o.Ready()
}

func (o *observer) DataReceived(p []byte) (int, error) {
	if o.conn == 0 {
		return 0, nil
	}
	o.see(Received, p, "")
	n, err := o.Base.DataReceived(p)
	if o.shut() {
		o.HoldReading()
	}
	return n, err
}

func (o *observer) EOFReceived(unused int) (bool, error) {
	if o.conn != 0 {
		o.see(PeerEnd, nil, "")
	}
	return o.Base.EOFReceived(unused)
}

func (o *observer) Write(bufs [][]byte) (int, error) {
	if o.gate != nil {
		return o.writeGated(bufs)
	}
	n, err := o.Base.Write(bufs)
	left := n
	for _, p := range bufs {
		if left == 0 {
			break
		}
		p = p[:min(len(p), left)]
		left -= len(p)
		o.see(Sent, p, "")
	}
	return n, err
}

// gatedPiece is how many bytes pass at once when they may have to wait.
const gatedPiece = 64 << 10

// writeGated does what Write does, as far as there is room.
func (o *observer) writeGated(bufs [][]byte) (total int, err error) {
	for _, p := range bufs {
		for len(p) > 0 {
			if o.Blocked() || o.shut() {
				return total, nil
			}
			n, err := o.Below().Write(p[:min(len(p), gatedPiece)])
			if n > 0 {
				o.see(Sent, p[:n], "")
				total += n
				p = p[n:]
			}
			if err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

func (o *observer) CloseWrite() error {
	o.see(OurEnd, nil, "")
	return o.Base.CloseWrite()
}

func (o *observer) ConnectionLost(err error) {
	if o.wait != nil {
		o.gate.leave(o.wait)
	}
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	if o.conn != 0 {
		o.see(Lost, nil, reason)
	}
	o.Base.ConnectionLost(err)
}

// shut reports whether the connection has to wait. If so, it is told when it
// need not any more.
func (o *observer) shut() bool {
	if o.gate == nil || !o.gate.s.Full() && o.gate.s.Err() == nil {
		return false
	}
	if o.wait == nil {
		o.wait = &roomWait{room: o.Below().Loop().NewNotifier(o.room)}
	}
	o.gate.join(o.wait)
	return true
}

// room is called on the loop once there may be room, or the sink broke.
func (o *observer) room() {
	switch err := o.gate.s.Err(); {
	case o.wait.over:
	case err != nil:
		o.Fail(fmt.Errorf("it cannot be recorded: %w", err))
	case o.shut():
	case o.conn == 0:
		o.begin()
		if !o.shut() {
			o.ReleaseReading()
		}
	default:
		o.ReleaseReading()
		o.Writable()
	}
}

// roomGate makes connections wait for a lossless sink.
type roomGate struct {
	s *sink.Sink

	mu    sync.Mutex
	waits []*roomWait
	asked bool // the sink was asked to tell
}

// roomWait is one connection's wait for room. Its fields belong to the loop,
// except in, which belongs to the gate.
type roomWait struct {
	room *weir.Notifier
	over bool
	in   bool
}

// join makes the gate notify w when there is room.
func (g *roomGate) join(w *roomWait) {
	g.mu.Lock()
	if !w.in {
		w.in = true
		g.waits = append(g.waits, w)
	}
	ask := !g.asked
	g.asked = true
	g.mu.Unlock()
	if ask {
		g.s.WhenRoom(g.open)
	}
}

// leave forgets a connection that is gone.
func (g *roomGate) leave(w *roomWait) {
	w.over = true
	g.mu.Lock()
	defer g.mu.Unlock()
	if !w.in {
		return
	}
	w.in = false
	if i := slices.Index(g.waits, w); i >= 0 {
		g.waits = slices.Delete(g.waits, i, i+1)
	}
}

// open notifies all waiting connections, on the sink's goroutine.
func (g *roomGate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = false
	for _, w := range g.waits {
		w.in = false
		_ = w.room.Notify() // a loop that is closed has no connections
	}
	g.waits = nil
}

// LogFormat is how a traffic log shows bytes.
type LogFormat byte

// The formats. In each, an event is one line, whatever the bytes are.
const (
	LogText  LogFormat = iota // "GET / HTTP/1.1\r\n": all but printable ASCII is escaped
	LogHex                    // 47 45 54 and, after it, the text
	LogCount                  // no bytes, only how many
)

// LogConfig says how traffic is written.
type LogConfig struct {
	Format LogFormat
	// Limit is how many bytes of an event are shown, 0 for all; the line says
	// how many there were.
	Limit int
	// JSON writes each event as an object, with the members of a record of slog and
	// conn, seconds, event, bytes, data, hex, text.
	JSON bool
}

// Log returns a layer that writes what passes to s, each event as one line that
// is one entry of s:
//
//	1 +0.000000 + 127.0.0.1:8080 127.0.0.1:51234
//	1 +0.000130 < 18 "GET / HTTP/1.0\r\n\r\n"
//	1 +0.001210 > 5 "hello"
//	1 +0.001300 -
//
// The number is the connection's, the time is in seconds since it was made, and
// the sign of a TrafficKind is followed by the length and the bytes. Everything
// that a peer can choose is escaped. No connection waits for s, unless s is
// lossless: see package sink for what happens when its writer does not keep up
// or fails. While a lossless s is full, up to its bounds and whatever a single
// event adds to them, a connection is not read from and takes nothing; a new
// connection waits before it begins. If s breaks, its connections are lost with
// its error. ReadRecording reads what Log writes with LogText and no limit.
func Log(s *sink.Sink, c LogConfig) Layer {
	l := &logger{s: s, c: c}
	if s.Lossless() {
		return observe(l.see, &roomGate{s: s})
	}
	return observe(l.see, nil)
}

// LogTraffic is what Log writes with: a function that any goroutine may call with an
// event, which is then one entry of s. It never waits for s.
func LogTraffic(s *sink.Sink, c LogConfig) func(Traffic) {
	l := &logger{s: s, c: c}
	return l.see
}

type logger struct {
	c    LogConfig
	mu   sync.Mutex
	s    *sink.Sink
	line []byte
}

func (l *logger) see(t Traffic) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c.JSON {
		l.line = appendJSON(l.line[:0], t, l.c)
	} else {
		l.line = appendTraffic(l.line[:0], t, l.c)
	}
	l.line = append(l.line, '\n')
	_ = l.s.Put(l.line) // the sink counts and reports what has no room
	if cap(l.line) > 64<<10 {
		l.line = nil
	}
}

// appendTraffic appends an event without the newline.
func appendTraffic(b []byte, t Traffic, c LogConfig) []byte {
	b = strconv.AppendUint(b, t.Conn, 10)
	us := t.After.Microseconds()
	b = append(b, " +"...)
	b = strconv.AppendInt(b, us/1e6, 10)
	b = append(b, '.')
	for d := int64(1e5); d > 0; d /= 10 {
		b = append(b, '0'+byte(us/d%10))
	}
	b = append(b, ' ', byte(t.What))
	switch t.What {
	case Received, Sent:
		b = strconv.AppendInt(append(b, ' '), int64(len(t.Data)), 10)
		p := t.Data
		if c.Limit > 0 {
			p = p[:min(len(p), c.Limit)]
		}
		switch c.Format {
		case LogHex:
			for _, x := range p {
				b = append(b, ' ', hexDigits[x>>4], hexDigits[x&15])
			}
			b = appendQuoted(append(b, ' '), p)
		case LogText:
			b = appendQuoted(append(b, ' '), p)
		default: // only the count is shown
		}
		if len(p) < len(t.Data) && c.Format != LogCount {
			b = append(b, "..."...)
		}
	case Made:
		b = appendEscaped(append(b, ' '), t.Text)
	case Lost:
		if t.Text != "" {
			b = appendQuoted(append(b, ' '), []byte(t.Text))
		}
	default: // an end of stream has nothing to add
	}
	return b
}

// appendJSON appends an event as an object, without the newline. Bytes are
// shown as in text: everything but printable ASCII is escaped, as in Go.
func appendJSON(b []byte, t Traffic, c LogConfig) []byte {
	b = append(b, `{"time":"`...)
	b = t.At.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","level":"INFO","msg":"traffic","conn":`...)
	b = strconv.AppendUint(b, t.Conn, 10)
	b = append(b, `,"seconds":`...)
	b = strconv.AppendFloat(b, t.After.Seconds(), 'f', 6, 64)
	b = append(b, `,"event":"`...)
	b = append(append(b, t.What.word()...), '"')
	switch t.What {
	case Received, Sent:
		b = strconv.AppendInt(append(b, `,"bytes":`...), int64(len(t.Data)), 10)
		p := t.Data
		if c.Limit > 0 {
			p = p[:min(len(p), c.Limit)]
		}
		if c.Format == LogHex {
			b = append(b, `,"hex":"`...)
			for _, x := range p {
				b = append(b, hexDigits[x>>4], hexDigits[x&15])
			}
			b = append(b, '"')
		}
		if c.Format != LogCount {
			b = appendText(append(b, `,"data":`...), p)
		}
	case Made, Lost, Cut:
		if t.Text != "" {
			b = appendText(append(b, `,"text":`...), []byte(t.Text))
		}
	default: // an end of stream has nothing to add
	}
	return append(b, '}')
}

// word returns the name of the kind in JSON.
func (k TrafficKind) word() string {
	switch k {
	case Made:
		return "made"
	case Received:
		return "received"
	case Sent:
		return "sent"
	case PeerEnd:
		return "peer ended"
	case OurEnd:
		return "we ended"
	case Lost:
		return "lost"
	case Cut, brokenOff:
	}
	return "cut"
}

// appendText appends p, escaped, as a JSON string.
func appendText(b, p []byte) []byte {
	b = append(b, '"')
	for _, c := range p {
		switch {
		case c == '"':
			b = append(b, `\\\"`...)
		case c == '\\':
			b = append(b, `\\\\`...)
		case c < ' ' || c >= 0x7f:
			b = appendByte(append(b, '\\'), c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

const hexDigits = "0123456789abcdef"

// appendQuoted appends p in quotes, printable ASCII as it is and everything
// else escaped as in Go, byte by byte.
func appendQuoted(b, p []byte) []byte {
	b = append(b, '"')
	for _, c := range p {
		b = appendByte(b, c)
	}
	return append(b, '"')
}

func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		b = appendByte(b, s[i])
	}
	return b
}

func appendByte(b []byte, c byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(b, '\\', c)
	case c >= ' ' && c < 0x7f:
		return append(b, c)
	case c == '\n':
		return append(b, `\n`...)
	case c == '\r':
		return append(b, `\r`...)
	case c == '\t':
		return append(b, `\t`...)
	}
	return append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
}
