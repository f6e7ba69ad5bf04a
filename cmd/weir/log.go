package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/sink"
)

// reporter reports events on standard error: one line for each, or one JSON object.
// Everything that a peer can choose is escaped. For each kind of event a bounded
// number is reported, and then how many were left out.
type reporter struct {
	w      io.Writer
	json   *slog.Logger // nil for text
	quiet  bool
	colour bool
	rates  *rates
}

// newReporter makes the reporter of a command.
func newReporter(c *command, f flags) *reporter {
	r := &reporter{w: c.stderr, quiet: f.quiet}
	c.rep = r
	r.rates = newRates(f.logRate, r.leftOut)
	if f.json {
		r.json = slog.New(slog.NewJSONHandler(c.stderr, nil))
		return r
	}
	if v, set := c.lookupEnv("NO_COLOR"); !set || v == "" { // no-color.org
		r.colour = c.terminal
	}
	return r
}

// The colours, as ANSI escape sequences.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	dim    = "\x1b[2m"
	plain  = "\x1b[0m"
)

func (r *reporter) paint(colour, s string) string {
	if !r.colour {
		return s
	}
	return colour + s + plain
}

// line writes an event: in text the word and the sentence, in JSON the word and
// the fields.
func (r *reporter) line(colour, word, sentence string, fields ...any) {
	r.list(colour, word, sentence, nil, fields...)
}

// list is line with more lines below it, which JSON has among the fields.
func (r *reporter) list(colour, word, sentence string, below []string, fields ...any) {
	if !r.quiet {
		r.always(slog.LevelInfo, colour, word, sentence, below, fields...)
	}
}

// always is list, quiet or not.
func (r *reporter) always(level slog.Level, colour, word, sentence string, below []string, fields ...any) {
	if r.rates.allow(word) {
		r.put(level, colour, word, sentence, below, fields...)
	}
}

// takes reports whether a line of a kind is to be written, and counts it: put then writes it.
// It is for lines that come with every connection and whose text takes time to make.
func (r *reporter) takes(word string) bool { return !r.quiet && r.rates.allow(word) }

// put writes a line that was asked for.
func (r *reporter) put(level slog.Level, colour, word, sentence string, below []string, fields ...any) {
	if r.json != nil {
		r.json.Log(context.Background(), level, word, fields...)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "weir: %s %s\n", r.paint(colour, word), endpoint.Printable(sentence))
	for _, l := range below {
		fmt.Fprintf(&b, "  %s\n", endpoint.Printable(l))
	}
	_, _ = io.WriteString(r.w, b.String()) // there is no one to tell
}

// leftOut reports how many events of a kind were left out.
func (r *reporter) leftOut(kind string, n int64) {
	if r.json != nil {
		r.json.Warn("left out", "kind", kind, "entries", n)
		return
	}
	fmt.Fprintf(r.w, "weir: … and %s more lines %q, left out (--log-rate)\n", grouped(n), kind)
}

// fail reports a failure, quiet or not.
func (r *reporter) fail(level slog.Level, f *advice.Failure) {
	kind := f.Kind
	if kind == "" {
		kind = strings.ToLower(level.String())
	}
	if !r.rates.allow(kind) {
		return
	}
	if r.json != nil {
		r.json.Log(context.Background(), level, endpoint.Printable(f.Problem), f.Fields()...)
		return
	}
	colour := red
	if level < slog.LevelError {
		colour = yellow
	}
	lines := f.Lines()
	fmt.Fprintf(r.w, "weir: %s%s\n", r.paint(colour, endpoint.Printable(lines[0])), tail(lines[1:]))
}

// tail are the further lines of a failure: all of it is one write, and so one entry of
// the sink.
func tail(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("\n  " + endpoint.Printable(l))
	}
	return b.String()
}

// logger is what the loop logs with.
func (r *reporter) logger() *slog.Logger {
	if r.json != nil {
		return slog.New(&ratedHandler{Handler: r.json.Handler(), rates: r.rates})
	}
	return slog.New(&ratedHandler{Handler: &textHandler{r: r}, rates: r.rates})
}

// textHandler writes a record of the loop's as one line.
type textHandler struct {
	r     *reporter
	attrs []slog.Attr
}

var _ slog.Handler = (*textHandler)(nil)

func (h *textHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || !h.r.quiet && level >= slog.LevelInfo
}

func (h *textHandler) Handle(_ context.Context, rec slog.Record) error {
	var b strings.Builder
	b.WriteString(strings.TrimPrefix(rec.Message, "weir: "))
	add := func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	rec.Attrs(add)
	_, err := fmt.Fprintf(h.r.w, "weir: %s\n", endpoint.Printable(b.String()))
	return err
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &textHandler{r: h.r, attrs: append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

// WithGroup implements slog.Handler; groups are not shown.
func (h *textHandler) WithGroup(string) slog.Handler { return h }

// size writes a number of bytes for people.
func size(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1000, 0
	for v >= 999.5 && i < len(units)-1 {
		v /= 1000
		i++
	}
	if v < 9.95 {
		return fmt.Sprintf("%.1f %cB", v, units[i])
	}
	return fmt.Sprintf("%.0f %cB", v, units[i])
}

// span writes a length of time for people: three digits are enough.
func span(d time.Duration) string {
	unit := time.Nanosecond
	for d >= 1000*unit && unit < time.Second {
		unit *= 10
	}
	return d.Round(unit).String()
}

// trouble reports that a log or a recording cannot be written, or does not keep up,
// and with nil that all is well again. Any goroutine may call it.
func (r *reporter) trouble(path string, lossless bool, err error) {
	f := &advice.Failure{Next: "Traffic continues; what is left out is counted, and the count is written there once that is possible again."}
	switch {
	case err == nil:
		r.line(green, "back", path+" can be written to again", "path", path)
		return
	case errors.Is(err, sink.ErrFull):
		f.Problem, f.Facts = path+" does not keep up", []any{"path", path, "reason", "does not keep up"}
	default:
		f.Problem, f.Facts = "cannot write to "+path+": "+advice.Why(err), []any{"path", path, "reason", advice.Why(err)}
	}
	switch {
	case lossless && noRoom(err):
		f.Next = "With ,lossless its connections wait until there is room."
	case lossless:
		f.Next = "With ,lossless its connections end."
	}
	r.fail(slog.LevelWarn, f)
}

// noRoom reports whether a write failed for lack of room, which may become free.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// missing reports at the end what a log or a recording lacks.
func (r *reporter) missing(s *sink.Sink) {
	st := s.Stats()
	entries, bytes := st.DroppedEntries+int64(st.Entries), st.DroppedBytes+int64(st.Bytes)
	if entries == 0 {
		return
	}
	r.fail(slog.LevelWarn, &advice.Failure{
		Problem: fmt.Sprintf("%s lacks %d entries, %s, that could not be written", s.Name(), entries, size(bytes)),
		Facts:   []any{"path", s.Name(), "entries", entries, "bytes", bytes},
	})
}
