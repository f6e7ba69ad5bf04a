package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// maker makes a Decoder of one kind.
type maker struct {
	name string
	make func(f func([]byte) error, opts ...Option) *Decoder
	enc  func(dst, body []byte) ([]byte, error)
	size int // of every frame; 0 for any
}

func makers() []maker {
	ms := []maker{
		{name: "lines", make: Lines, enc: func(dst, b []byte) ([]byte, error) { return AppendLine(dst, b, "") }},
		{name: "netstrings", make: Netstrings, enc: func(dst, b []byte) ([]byte, error) { return AppendNetstring(dst, b), nil }},
		{
			name: "fixed", size: 7,
			make: func(f func([]byte) error, opts ...Option) *Decoder { return Fixed(7, f, opts...) },
			enc:  func(dst, b []byte) ([]byte, error) { return append(dst, b...), nil },
		},
	}
	for _, delim := range []string{"\r\n", "\n", "aab", "--\r\n--"} {
		ms = append(ms, maker{
			name: fmt.Sprintf("lines by %q", delim),
			make: func(f func([]byte) error, opts ...Option) *Decoder {
				return Lines(f, append(opts, WithDelimiter(delim))...)
			},
			enc: func(dst, b []byte) ([]byte, error) { return AppendLine(dst, b, delim) },
		})
	}
	for _, p := range []Prefix{Uint8, Uint16BE, Uint16LE, Uint32BE, Uint32LE, Uvarint} {
		ms = append(ms, maker{
			name: fmt.Sprintf("prefix %d", p),
			make: func(f func([]byte) error, opts ...Option) *Decoder { return Prefixed(p, f, opts...) },
			enc:  func(dst, b []byte) ([]byte, error) { return AppendPrefixed(dst, p, b) },
		})
	}
	return ms
}

// feed is the smallest transport: it keeps the tail and calls again.
type feed struct {
	d    *Decoder
	tail []byte
}

func (f *feed) give(p []byte) error {
	f.tail = append(f.tail, p...)
	for len(f.tail) > 0 {
		n, err := f.d.DataReceived(f.tail)
		if err != nil {
			return err
		}
		if n < 0 || n > len(f.tail) {
			return &weir.UsedError{N: n, Len: len(f.tail)}
		}
		if n == 0 {
			return nil
		}
		f.tail = f.tail[n:]
	}
	return nil
}

func (f *feed) end() error {
	unused := len(f.tail)
	keep, err := f.d.EOFReceived(unused)
	switch {
	case err != nil:
		return err
	case keep:
		return errors.New("a Decoder keeps nothing open")
	case unused > 0:
		return &weir.UnusedError{Unused: unused}
	}
	return nil
}

// bodies are the frames of round trips.
func bodies(m maker) [][]byte {
	if m.size > 0 {
		return [][]byte{[]byte("1234567"), []byte("\r\n\r\n:,\x00")}
	}
	return [][]byte{
		{},
		[]byte("x"), []byte("hello, world"), []byte("0:,1:,"), bytes.Repeat([]byte{0}, 255),
		{},
		bytes.Repeat([]byte("long "), 50), []byte("aa"), []byte("--"),
		{0x80, 0x80, 1},
	}
}

// R42, behaviour 92: what was encoded comes back, however the stream was cut.
func TestRoundTripEveryChop(t *testing.T) {
	for _, m := range makers() {
		t.Run(m.name, func(t *testing.T) {
			var (
				stream []byte
				want   [][]byte
			)
			for _, b := range bodies(m) {
				next, err := m.enc(stream, b)
				if errors.Is(err, ErrDelimiter) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				stream = next
				want = append(want, b)
			}
			var got [][]byte
			f := &feed{d: m.make(func(b []byte) error { got = append(got, bytes.Clone(b)); return nil })}
			if err := f.give(stream); err != nil {
				t.Fatal(err)
			}
			if err := f.end(); err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("got %q, want %q", got, want)
			}
			weirtest.EveryChop(t, stream, func(log func(string, ...any)) weir.Protocol {
				return m.make(func(b []byte) error { log("%q", b); return nil })
			})
		})
	}
}

// Frames larger than any tail limit, whole and in pieces of every size that
// matters.
func TestLargeFrames(t *testing.T) {
	for _, m := range makers() {
		if m.size > 0 {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			body := bytes.Repeat([]byte("0123456789"), 60_000)
			stream, err := m.enc(nil, body)
			if err != nil {
				var limit *LimitError
				if !errors.As(err, &limit) || limit.Limit >= len(body) {
					t.Fatal(err)
				}
				body = body[:limit.Limit]
				stream, _ = m.enc(nil, body)
			}
			stream = slices.Concat(stream, stream)
			for _, piece := range []int{1000, 4095, 4096, 16384, 70_000, len(stream)} {
				frames := 0
				d := m.make(func(b []byte) error {
					frames++
					if !bytes.Equal(b, body) {
						return errors.New("another body")
					}
					return nil
				}, WithLimit(len(body)))
				r := weirtest.NewRecorder(t)
				r.SetTailLimit(8 << 10)
				r.Connect(d)
				for p := range slices.Chunk(stream, piece) {
					r.Deliver(p)
				}
				if lost, err := r.Lost(); lost || frames != 2 || d.Held() != 0 {
					t.Errorf("in pieces of %d: %d frames, %d held, lost %v: %v", piece, frames, d.Held(), lost, err)
				}
			}
		})
	}
}

func TestLineEnds(t *testing.T) {
	for _, c := range []struct {
		stream string
		opts   []Option
		want   []string
		err    string
	}{
		{stream: "a\nb\r\n\n\r\nc\rd\n", want: []string{"a", "b", "", "", "c\rd"}},
		{stream: "a\r\r\n", want: []string{"a\r"}},
		{stream: "a\nrest", want: []string{"a"}, err: "4 bytes unused"},
		{stream: "a\nrest", opts: []Option{WithLastLine()}, want: []string{"a", "rest"}},
		{stream: "a\nrest\r", opts: []Option{WithLastLine()}, want: []string{"a", "rest"}},
		{stream: "a\n", opts: []Option{WithLastLine()}, want: []string{"a"}},
		{stream: "a;b\n;c", opts: []Option{WithDelimiter(";"), WithLastLine()}, want: []string{"a", "b\n", "c"}},
		{stream: "a\x00b\x00", opts: []Option{WithDelimiter("\x00")}, want: []string{"a", "b"}},
		{stream: "abcde;", opts: []Option{WithLastLine(), WithDelimiter(";;"), WithLimit(5)}, err: "limit of 5"},
	} {
		for _, piece := range []int{1, 2, 100} {
			var got []string
			f := &feed{d: Lines(func(b []byte) error { got = append(got, string(b)); return nil }, c.opts...)}
			var err error
			for p := range slices.Chunk([]byte(c.stream), piece) {
				if err = f.give(p); err != nil {
					break
				}
			}
			if err == nil {
				err = f.end()
			}
			if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q in pieces of %d: %q, %v", c.stream, piece, got, err)
			}
		}
	}
}

// Behaviour 83: the limit is exact, even if the buffer ends in half a delimiter; a
// frame that is too long is never delivered.
func TestLimits(t *testing.T) {
	const limit = 5
	for _, c := range []struct {
		name   string
		d      func(f func([]byte) error, opts ...Option) *Decoder
		stream string
		want   []string
		err    bool
	}{
		{"at it", Lines, "hello\nhello\r\n", []string{"hello", "hello"}, false},
		{"over it", Lines, "ok\nhello!\nno\n", []string{"ok"}, true},
		{"over it, no end", Lines, "hello!", nil, true},
		{"half an end", Lines, "hello\r", nil, false},
		{"half an end that is none", Lines, "hello\rx", nil, true},
		{"two halves", Lines, "hello\r\r", nil, true},
		{"delimiter, at it", crlf, "hello\r\n", []string{"hello"}, false},
		{"delimiter, half", crlf, "hello\r", nil, false},
		{"delimiter, over it", crlf, "hello!\r\n", nil, true},
		{"delimiter, half that is none", crlf, "hello\rx\r\n", nil, true},
		{"netstring, at it", Netstrings, "5:hello,", []string{"hello"}, false},
		{"netstring, over it", Netstrings, "1:x,6:", []string{"x"}, true},
		{"netstring, far over it", Netstrings, "99999999999999999999999", nil, true},
		{"8-bit, over it", prefixed(Uint8), "\x05hello\x06", []string{"hello"}, true},
		{"32-bit, over it", prefixed(Uint32BE), "\x00\x00\x00\x05hello\xff\xff\xff\xff", []string{"hello"}, true},
		{"varint, over it", prefixed(Uvarint), "\x05hello\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", []string{"hello"}, true},
	} {
		for _, hold := range []int{0, leave} {
			for _, piece := range []int{1, 2, 3, 100} {
				var got []string
				d := c.d(func(b []byte) error { got = append(got, string(b)); return nil }, WithLimit(limit))
				d.leave = hold
				f := &feed{d: d}
				var err error
				for p := range slices.Chunk([]byte(c.stream), piece) {
					if err = f.give(p); err != nil {
						break
					}
				}
				var over *LimitError
				if !slices.Equal(got, c.want) || (err != nil) != c.err || err != nil && (!errors.As(err, &over) || over.Limit != limit) {
					t.Errorf("%s, in pieces of %d, holding from %d: %q, %v", c.name, piece, hold, got, err)
				}
			}
		}
	}
}

func crlf(f func([]byte) error, opts ...Option) *Decoder {
	return Lines(f, append(opts, WithDelimiter("\r\n"))...)
}

func prefixed(p Prefix) func(func([]byte) error, ...Option) *Decoder {
	return func(f func([]byte) error, opts ...Option) *Decoder { return Prefixed(p, f, opts...) }
}

func TestSyntax(t *testing.T) {
	for _, c := range []struct {
		d      *Decoder
		stream string
	}{
		{Netstrings(never(t)), ":"},
		{Netstrings(never(t)), "x"},
		{Netstrings(never(t)), "01:"},
		{Netstrings(never(t)), "00:,"},
		{Netstrings(never(t)), "-1:"},
		{Netstrings(never(t)), "5 :"},
		{Netstrings(never(t)), "5:hello;"},
		{Netstrings(never(t)), "0:x"},
		{Prefixed(Uvarint, never(t)), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
		{Prefixed(0, never(t)), "x"},
		{Fixed(0, never(t)), "x"},
		{Fixed(-1, never(t)), "x"},
	} {
		_, err := c.d.DataReceived([]byte(c.stream))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || syntax.Text == "" {
			t.Errorf("%q: %v", c.stream, err)
		}
	}
}

func never(t *testing.T) func([]byte) error {
	return func(b []byte) error { t.Errorf("delivered %q", b); return nil }
}

func TestEncodersRefuse(t *testing.T) {
	for _, c := range []struct{ line, delim string }{
		{"a\nb", ""}, {"a\r", ""}, {"a\r\nb", "\r\n"}, {"aa", "aab aa"}, {"xa", "aab"}, {"aaba", "aab"},
	} {
		dst, err := AppendLine([]byte("kept"), []byte(c.line), c.delim)
		refused := errors.Is(err, ErrDelimiter)
		if string(dst[:4]) != "kept" || refused != (len(dst) == 4) {
			t.Errorf("%q: %q, %v", c.line, dst, err)
		}
		// A line is refused exactly when it would be read differently.
		stream := c.line + c.delim
		if c.delim == "" {
			stream += "\n"
		}
		var got []string
		_ = (&feed{d: Lines(func(b []byte) error { got = append(got, string(b)); return nil }, WithDelimiter(c.delim))}).give([]byte(stream))
		if same := len(got) == 1 && got[0] == c.line; same == refused {
			t.Errorf("%q by %q: refused %v, read as %q", c.line, c.delim, refused, got)
		}
	}
	var over *LimitError
	if _, err := AppendPrefixed(nil, Uint8, make([]byte, 256)); !errors.As(err, &over) || over.Limit != 255 {
		t.Error(err)
	}
	if _, err := AppendPrefixed(nil, Uint16LE, make([]byte, math.MaxUint16+1)); !errors.As(err, &over) {
		t.Error(err)
	}
	if _, err := AppendPrefixed(nil, 0, nil); err == nil {
		t.Error("an unknown prefix is written")
	}
}

// Behaviour 84: pausing in a frame's function stops further frames until
// resumed, then they come at once.
func TestPauseStopsFrames(t *testing.T) {
	for _, m := range makers() {
		t.Run(m.name, func(t *testing.T) {
			var stream []byte
			for i := range 5 {
				stream, _ = m.enc(stream, fmt.Appendf(nil, "frame %d", i))
			}
			r := weirtest.NewRecorder(t)
			var got int
			r.Connect(m.make(func([]byte) error {
				if got++; got%2 == 0 {
					r.PauseReading()
				}
				return nil
			}))
			r.Deliver(stream)
			for _, want := range []int{2, 4, 5, 5} {
				if got != want {
					t.Fatalf("%d frames, want %d", got, want)
				}
				r.ResumeReading()
				r.Run()
			}
		})
	}
}

// Close and Abort in a frame's function make that frame the last; replacing the
// protocol there hands over exactly what comes after it.
func TestNothingAfterTheLastFrame(t *testing.T) {
	for _, m := range makers() {
		var stream []byte
		for i := range 3 {
			stream, _ = m.enc(stream, fmt.Appendf(nil, "frame %d", i))
		}
		one, _ := m.enc(nil, []byte("frame 0"))
		for name, last := range map[string]func(r *weirtest.Recorder){
			"close": func(r *weirtest.Recorder) { r.Close() },
			"abort": func(r *weirtest.Recorder) { r.Abort() },
		} {
			r := weirtest.NewRecorder(t)
			got := 0
			r.Connect(m.make(func([]byte) error { got++; last(r); return nil }))
			r.Deliver(stream)
			if got != 1 {
				t.Errorf("%s, %s: %d frames", m.name, name, got)
			}
		}
		for _, chop := range []weirtest.Chop{weirtest.Whole(), weirtest.ByteByByte()} {
			r := weirtest.NewRecorder(t)
			var rest []byte
			r.Connect(m.make(func([]byte) error {
				r.SetProtocol(weir.DataFunc(func(p []byte) (int, error) {
					rest = append(rest, p...)
					return len(p), nil
				}))
				return nil
			}))
			if chop.String() == "whole" {
				r.Deliver(stream)
			} else {
				for i := range stream {
					r.Deliver(stream[i : i+1])
				}
			}
			if !bytes.Equal(rest, stream[len(one):]) {
				t.Errorf("%s, %s: the next protocol got %q", m.name, chop, rest)
			}
		}
	}
}

// Lines, raw bytes, lines again: an SMTP-like body of a size that a line
// announces.
func TestRawAndBack(t *testing.T) {
	stream := []byte("HELO\r\nDATA 10\r\n0\r\n34\n6789NOOP\r\nDATA 0\r\nQUIT\r\n")
	weirtest.EveryChop(t, stream, func(log func(string, ...any)) weir.Protocol {
		var (
			d    *Decoder
			left int
			body []byte
		)
		d = Lines(func(line []byte) error {
			log("%s", line)
			if _, err := fmt.Sscanf(string(line), "DATA %d", &left); err != nil || left == 0 {
				return nil
			}
			body = nil
			d.Raw(func(p []byte) (int, error) {
				n := min(len(p), left)
				body = append(body, p[:n]...)
				if left -= n; left == 0 {
					log("body %q", body)
					d.Framed()
				}
				return n, nil
			})
			return nil
		})
		return d
	})
}

func TestErrorLosesTheConnection(t *testing.T) {
	boom := errors.New("boom")
	r := weirtest.NewRecorder(t)
	var lost error
	r.Connect(Lines(func([]byte) error { return boom }, OnLost(func(err error) { lost = err })))
	r.DeliverString("a\nb\n")
	if !errors.Is(lost, boom) {
		t.Errorf("lost with %v", lost)
	}
}

// Behaviour 36: what is held counts as unused at the end.
func TestEndInMidFrame(t *testing.T) {
	for _, size := range []int{3, 10_000} {
		r := weirtest.NewRecorder(t)
		made := false
		d := Prefixed(Uint32BE, never(t), OnMade(func(weir.Transport) { made = true }))
		r.Connect(d)
		frame := append([]byte{0, 0, 0x40, 0}, make([]byte, size)...)
		r.Deliver(frame)
		if held := d.Held() > 0; held != (size > leave) {
			t.Errorf("%d bytes came, %d held", len(frame), d.Held())
		}
		r.DeliverEOF()
		var unused *weir.UnusedError
		if lost, err := r.Lost(); !lost || !made || !errors.As(err, &unused) || unused.Unused != len(frame) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes of a frame: lost %v with %v", len(frame), lost, err)
		}
	}
}

// What a length promises is not allocated before it comes.
func TestPromisesCostNothing(t *testing.T) {
	d := Prefixed(Uint32BE, never(t), WithLimit(1<<30))
	p := append(binary.BigEndian.AppendUint32(nil, 1<<30), make([]byte, 5000)...)
	if n, err := d.DataReceived(p); n != len(p) || err != nil {
		t.Fatal(n, err)
	}
	if cap(d.held) > 4*len(p) {
		t.Errorf("%d bytes came and %d were allocated", len(p), cap(d.held))
	}
}

// A buffer for a large frame is dropped when frames are small again.
func TestLargeBufferGoes(t *testing.T) {
	d := Lines(func([]byte) error { return nil })
	f := &feed{d: d}
	for _, p := range [][]byte{bytes.Repeat([]byte("x"), 50_000), []byte("\n")} {
		if err := f.give(p); err != nil {
			t.Fatal(err)
		}
	}
	if cap(d.held) < 50_000 {
		t.Fatalf("the frame was not held: room for %d", cap(d.held))
	}
	for range keepFrames + 1 {
		if err := f.give([]byte("small\n")); err != nil {
			t.Fatal(err)
		}
	}
	if cap(d.held) != 0 {
		t.Errorf("%d bytes kept", cap(d.held))
	}
}

// R6: no allocation per frame in steady state, for small, cut and held frames.
func TestNoAllocations(t *testing.T) {
	for _, m := range makers() {
		sizes := []int{10, 100, 10_000}
		if m.size > 0 {
			sizes = []int{m.size}
		}
		for _, size := range sizes {
			stream, err := m.enc(nil, bytes.Repeat([]byte("z"), size))
			if err != nil {
				continue // too long for the prefix
			}
			stream = bytes.Repeat(stream, 20)
			frames := 0
			d := m.make(func([]byte) error { frames++; return nil })
			all := func() {
				const piece = 7000
				unused := 0 // in front of at
				for at := 0; at < len(stream); at += piece {
					p := stream[at-unused : min(at+piece, len(stream))]
					for len(p) > 0 {
						n, err := d.DataReceived(p)
						if err != nil {
							t.Fatal(err)
						}
						if n == 0 {
							break
						}
						p = p[n:]
					}
					unused = len(p)
				}
			}
			got := testing.AllocsPerRun(20, all)
			if got != 0 || frames != 21*20 {
				t.Errorf("%s of %d bytes: %v allocations for 20 frames; %d frames in all, want %d", m.name, size, got, frames, 21*20)
			}
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, m := range makers() {
		if m.size > 0 {
			continue
		}
		for _, size := range []int{16, 64, 1024} {
			frame, err := m.enc(nil, bytes.Repeat([]byte("z"), size))
			if err != nil {
				continue
			}
			stream := bytes.Repeat(frame, 64)
			b.Run(fmt.Sprintf("%s/%d", m.name, size), func(b *testing.B) {
				d := m.make(func([]byte) error { return nil })
				b.SetBytes(int64(len(frame)))
				b.ReportAllocs()
				for i := 0; i < b.N; i += 64 {
					for p := stream; len(p) > 0; {
						n, err := d.DataReceived(p)
						if err != nil || n == 0 {
							b.Fatal(n, err)
						}
						p = p[n:]
					}
				}
			})
		}
	}
}

func ExampleLines() {
	d := Lines(func(line []byte) error {
		fmt.Printf("line %q\n", line)
		return nil
	})
	// A transport does this, and keeps the tail until more comes.
	p := []byte("one\ntwo\r\nthr")
	for {
		n, err := d.DataReceived(p)
		if n == 0 || err != nil {
			break
		}
		p = p[n:]
	}
	fmt.Printf("unused %q\n", p)
	// Output:
	// line "one"
	// line "two"
	// unused "thr"
}
