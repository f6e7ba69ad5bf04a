package layer

import (
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir"
)

// Traffic is one event of a connection, as a traffic log has it.
type Traffic struct {
	Conn  uint64        // the connection's number, from 1 on, in the order they were made
	After time.Duration // since the connection was made
	What  TrafficKind
	Data  []byte // of Received and Sent; lent
	Text  string // of Made: both addresses; of Lost: the reason, "" for a clean end
}

// TrafficKind says what happened.
type TrafficKind byte

// The kinds of traffic. Their values are the signs of the log's lines.
const (
	Made     TrafficKind = '+'
	Received TrafficKind = '<'
	Sent     TrafficKind = '>'
	PeerEnd  TrafficKind = '[' // the peer ended its direction
	OurEnd   TrafficKind = ']' // we ended ours
	Lost     TrafficKind = '-'
)

// Observe is the layer that shows everything that passes to f and changes
// nothing. f is called on the loop's goroutine, of each loop that the Layer is
// used on, before the bytes go on.
func Observe(f func(Traffic)) Layer {
	var count atomic.Uint64
	return func(a Above) Above {
		return Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			o := &observer{f: f, conn: count.Add(1)}
			return o.Init(o, "log", a)
		}}
	}
}

type observer struct {
	Base
	f    func(Traffic)
	conn uint64
	from time.Time
}

func (o *observer) see(what TrafficKind, data []byte, text string) {
	o.f(Traffic{Conn: o.conn, After: o.Below().Loop().Now().Sub(o.from), What: what, Data: data, Text: text})
}

// ConnectionMade implements weir.Protocol.
func (o *observer) ConnectionMade(t weir.Transport) {
	o.Begin(t)
	o.from = t.Loop().Now()
	o.see(Made, nil, t.LocalAddr().String()+" "+t.RemoteAddr().String())
	o.Ready()
}

// DataReceived implements weir.Protocol.
func (o *observer) DataReceived(p []byte) (int, error) {
	o.see(Received, p, "")
	return o.Base.DataReceived(p)
}

// EOFReceived implements weir.EOFReceiver.
func (o *observer) EOFReceived(unused int) (bool, error) {
	o.see(PeerEnd, nil, "")
	return o.Base.EOFReceived(unused)
}

// Write implements weir.Carrier.
func (o *observer) Write(bufs [][]byte) (int, error) {
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

// CloseWrite implements weir.Carrier.
func (o *observer) CloseWrite() error {
	o.see(OurEnd, nil, "")
	return o.Base.CloseWrite()
}

// ConnectionLost implements weir.Protocol.
func (o *observer) ConnectionLost(err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	o.see(Lost, nil, reason)
	o.Base.ConnectionLost(err)
}

// LogFormat is how a traffic log shows bytes.
type LogFormat byte

// The formats. In each an event is one line, whatever the bytes are.
const (
	LogText  LogFormat = iota // "GET / HTTP/1.1\r\n": all but printable ASCII is escaped
	LogHex                    // 47 45 54 and, behind it, the text
	LogCount                  // no bytes, only how many
)

// LogConfig is how traffic is written.
type LogConfig struct {
	Format LogFormat
	// Limit is how many bytes of an event are shown, 0 for all: the line says how
	// many there were.
	Limit int
}

// Log is the layer that writes what passes to w, each event as one line in one
// Write, under a lock:
//
//	1 +0.000000 + 127.0.0.1:8080 127.0.0.1:51234
//	1 +0.000130 < 18 "GET / HTTP/1.0\r\n\r\n"
//	1 +0.001210 > 5 "hello"
//	1 +0.001300 -
//
// The number is the connection's, the time is in seconds since it was made, and
// behind the sign of a TrafficKind come the length and the bytes. Everything that
// a peer can choose is escaped. An error of w ends the log, not the connection.
// Log with LogText and no limit is what ReadRecording reads.
func Log(w io.Writer, c LogConfig) Layer {
	l := &logger{w: w, c: c}
	return Observe(l.see)
}

type logger struct {
	c    LogConfig
	mu   sync.Mutex
	w    io.Writer
	line []byte
	dead bool
}

func (l *logger) see(t Traffic) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return
	}
	l.line = append(appendTraffic(l.line[:0], t, l.c), '\n')
	if _, err := l.w.Write(l.line); err != nil {
		l.dead = true
	}
	if cap(l.line) > 64<<10 {
		l.line = nil
	}
}

// appendTraffic writes an event without the newline.
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
		default: // the count is all
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

const hexDigits = "0123456789abcdef"

// appendQuoted writes p between quotes, printable ASCII as it is and all else
// escaped as Go does, byte by byte.
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
