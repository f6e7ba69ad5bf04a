package frame

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// The invariant of every target: whether it is fed whole, byte by byte or cut at
// random, and whether unfinished frames are left to the feed or held, a stream gives
// the same frames and the same error; and no frame is over the limit.

func decoded(m maker, stream []byte, limit, hold int, pieces func(n int) int) []string {
	var got []string
	d := m.make(func(b []byte) error {
		got = append(got, fmt.Sprintf("%q", b))
		if m.size == 0 && len(b) > limit {
			got = append(got, "OVER THE LIMIT")
		}
		if bytes.HasPrefix(b, []byte("stop")) {
			return errors.New("stopped by a frame")
		}
		return nil
	}, WithLimit(limit))
	d.leave = hold
	f := &feed{d: d}
	var err error
	for rest := stream; len(rest) > 0 && err == nil; {
		n := pieces(len(rest))
		err = f.give(rest[:n])
		rest = rest[n:]
	}
	if err == nil {
		err = f.end()
	}
	return append(got, fmt.Sprint("end: ", err))
}

func invariant(t *testing.T, m maker, stream []byte, limit int) {
	want := decoded(m, stream, limit, leave, func(n int) int { return n })
	if slices.Contains(want, "OVER THE LIMIT") {
		t.Fatalf("%s, limit %d: %q", m.name, limit, want)
	}
	r := rand.New(rand.NewPCG(uint64(len(stream)), uint64(limit)))
	for _, hold := range []int{0, 1, 5, leave} {
		for name, pieces := range map[string]func(int) int{
			"whole":        func(n int) int { return n },
			"byte by byte": func(int) int { return 1 },
			"random":       func(n int) int { return 1 + r.IntN(n) },
		} {
			if got := decoded(m, stream, limit, hold, pieces); !slices.Equal(got, want) {
				t.Fatalf("%s, limit %d, holding from %d, %s: %q, want %q", m.name, limit, hold, name, got, want)
			}
		}
	}
}

// roundTrip cuts data into bodies, encodes them and checks that they come back.
func roundTrip(t *testing.T, m maker, data []byte) {
	var (
		stream []byte
		want   []string
		err    error
	)
	for len(data) > 0 {
		n := min(int(data[0]), len(data)-1)
		if m.size > 0 {
			n = m.size
			if len(data)-1 < n {
				break
			}
		}
		body := data[1 : 1+n]
		data = data[1+n:]
		if stream, err = m.enc(stream, body); err != nil {
			if errors.Is(err, ErrDelimiter) {
				continue
			}
			t.Fatal(err)
		}
		want = append(want, string(body))
	}
	var got []string
	f := &feed{d: m.make(func(b []byte) error { got = append(got, string(b)); return nil })}
	if err := errors.Join(f.give(stream), f.end()); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%s: encoded %q, decoded %q, %v", m.name, want, got, err)
	}
}

func fuzz(f *testing.F, ms []maker, seeds ...string) {
	for i, s := range seeds {
		f.Add([]byte(s), uint8(0), uint16(5))
		f.Add([]byte(s), uint8(i+1), uint16(70))
	}
	f.Fuzz(func(t *testing.T, data []byte, which uint8, limit uint16) {
		if len(data) > 1<<12 {
			return
		}
		m := ms[int(which)%len(ms)]
		invariant(t, m, data, int(limit))
		roundTrip(t, m, data)
	})
}

func named(names ...string) (ms []maker) {
	for _, m := range makers() {
		for _, n := range names {
			if len(m.name) >= len(n) && m.name[:len(n)] == n {
				ms = append(ms, m)
			}
		}
	}
	return ms
}

func FuzzLines(f *testing.F) {
	fuzz(f, named("lines"), "one\ntwo\r\n\nrest", "hello\r\r\nstop\nmore\n", "aaab--\r\n----\r\n--\r\n\r\n", "aaaaabaab\r")
}

func FuzzNetstrings(f *testing.F) {
	fuzz(f, named("netstrings"), "5:hello,0:,3:a,b,", "01:x,", "4:stop,1:x,", "99999999999999999999:", "5:hello;")
}

func FuzzPrefixed(f *testing.F) {
	fuzz(f, named("prefix"), "\x03abc\x00\x04stop", "\x00\x03abc\x00\x00", "\x03\x00abc", "\x00\x00\x00\x02ab", "\x02\x00\x00\x00ab",
		"\x80\x01abc", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x80\x00\x80")
}

func FuzzFixed(f *testing.F) {
	fuzz(f, named("fixed"), "12345671234567123", "stop...after..")
}
