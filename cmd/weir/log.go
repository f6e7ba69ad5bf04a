package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/weir-io/weir/address"
)

// reporter says what happens, on standard error: one line for each event, or
// one JSON object. Everything a peer can choose is escaped.
type reporter struct {
	w      io.Writer
	json   *slog.Logger // nil for text
	quiet  bool
	colour bool
}

func newReporter(c *command, f flags) *reporter {
	r := &reporter{w: c.stderr, quiet: f.quiet}
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
	if r.quiet {
		return
	}
	r.always(slog.LevelInfo, colour, word, sentence, fields...)
}

func (r *reporter) always(level slog.Level, colour, word, sentence string, fields ...any) {
	if r.json != nil {
		r.json.Log(context.Background(), level, word, fields...)
		return
	}
	fmt.Fprintf(r.w, "weir: %s %s\n", r.paint(colour, word), address.Printable(sentence))
}

// fail reports a failure, quiet or not.
func (r *reporter) fail(level slog.Level, f *failure) {
	if r.json != nil {
		r.json.Log(context.Background(), level, address.Printable(f.problem), f.fields()...)
		return
	}
	colour := red
	if level < slog.LevelError {
		colour = yellow
	}
	lines := f.lines()
	fmt.Fprintf(r.w, "weir: %s\n", r.paint(colour, address.Printable(lines[0])))
	for _, l := range lines[1:] {
		fmt.Fprintf(r.w, "  %s\n", address.Printable(l))
	}
}

// logger is what the loop logs with.
func (r *reporter) logger() *slog.Logger {
	if r.json != nil {
		return r.json
	}
	return slog.New(&textHandler{r: r})
}

// textHandler writes a record of the loop's as one line.
type textHandler struct {
	r     *reporter
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (h *textHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || !h.r.quiet && level >= slog.LevelInfo
}

// Handle implements slog.Handler.
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
	_, err := fmt.Fprintf(h.r.w, "weir: %s\n", address.Printable(b.String()))
	return err
}

// WithAttrs implements slog.Handler.
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

func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}
