package ws

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// frames returns what a parser makes of bytes that come in pieces of size
// bytes, with the pieces of a frame joined: it is in terms of RFC 6455,
// whatever the cuts.
func frames(server bool, wire []byte, size int) string {
	p := parser{server: server, rsv: rsvDefl | rsvEnd, maxData: 1 << 20}
	var out strings.Builder
	var payload []byte
	for len(wire) > 0 {
		b := wire[:min(size, len(wire))]
		wire = wire[len(b):]
		for len(b) > 0 {
			n, c, err := p.next(b)
			b = b[n:]
			if errors.Is(err, errMore) {
				break
			}
			if err != nil {
				fmt.Fprintf(&out, "error: %v", err)
				return out.String()
			}
			if c.start {
				payload = payload[:0]
			}
			if c.at != int64(len(payload)) {
				fmt.Fprintf(&out, "a piece at %d behind %d bytes\n", c.at, len(payload))
			}
			at := len(payload)
			payload = append(payload, c.payload...)
			if c.masked {
				mask(payload[at:], c.payload, c.key, int(c.at))
			}
			if c.end {
				fmt.Fprintf(&out, "%v %x %d %q\n", c.fin, c.rsv, c.op, payload)
			}
		}
	}
	return out.String()
}

// FuzzFrames: any bytes parse to the same whole as byte by byte (behaviour 92),
// and what is parsed is what appendHeader writes.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x81\x05hello"), false)
	f.Add([]byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), true) // RFC 6455, 5.7
	f.Add([]byte("\x01\x03Hel\x80\x02lo"), false)
	f.Add([]byte("\x89\x05Hello\x8a\x00\x88\x02\x03\xe8"), false)
	f.Add([]byte("\x82\x7e\x01\x00"+strings.Repeat("x", 256)), false)
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"+strings.Repeat("x", 70000)), false)
	f.Add([]byte("\xa2\x00\x88\x00"), false)
	f.Fuzz(func(t *testing.T, wire []byte, server bool) {
		whole := frames(server, wire, len(wire)+1)
		for _, n := range []int{1, 2, 3, 7} {
			if cut := frames(server, wire, n); cut != whole {
				t.Errorf("in pieces of %d:\n%s\nwhole:\n%s", n, cut, whole)
			}
		}
	})
}

// TestFrames: the frames of RFC 6455, 5.7, and frames that are refused.
func TestFrames(t *testing.T) {
	for _, c := range []struct {
		server bool
		wire   string
		want   string
	}{
		{false, "\x81\x05Hello", "true 0 1 \"Hello\"\n"},
		{true, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "true 0 1 \"Hello\"\n"},
		{false, "\x01\x03Hel\x89\x01p\x80\x02lo", "false 0 1 \"Hel\"\ntrue 0 9 \"p\"\ntrue 0 0 \"lo\"\n"},
		{false, "\xc1\x01x", "true 40 1 \"x\"\n"},
		{true, "\x81\x05Hello", "error: a client's frame that is not masked"},
		{false, "\x81\x85\x37\xfa\x21\x3d", "error: a server's frame that is masked"},
		{false, "\x83\x00", "error: a frame of unknown kind 3"},
		{false, "\x8b\x00", "error: a frame of unknown kind 11"},
		{false, "\x91\x00", "error: a frame with reserved bits set"},
		{false, "\xc9\x00", "error: a frame with reserved bits set"},
		{false, "\x09\x00", "error: a control frame in fragments"},
		{false, "\x89\x7e", "error: a control frame that is too long"},
		{false, "\x80\x00", "error: a continuation without a message"},
		{false, "\x01\x00\x81\x00", "false 0 1 \"\"\nerror: a message inside another"},
		{false, "\x01\x00\xc0\x00", "false 0 1 \"\"\nerror: a continuation frame says that it is compressed"},
		{false, "\xa2\x01", "error: a malformed end of the stream"},
		{false, "\x82\x7e\x00\x7d", "error: a length that is not written in the shortest way"},
		{false, "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "error: a length that is not written in the shortest way, or is out of range"},
		{false, "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "error: a length that is not written in the shortest way, or is out of range"},
		{false, "\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01", "error: a frame of 1048577 bytes; the limit is 1048576"},
	} {
		if got := frames(c.server, []byte(c.wire), 1000); got != c.want {
			t.Errorf("%q: got %q, want %q", c.wire, got, c.want)
		}
	}
}

// TestHeader: every length is written in the shortest way and read back.
func TestHeader(t *testing.T) {
	for _, n := range []int64{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		for _, masked := range []bool{false, true} {
			h := header{fin: true, op: opBinary, masked: masked, length: n}
			if masked {
				h.key = [4]byte{1, 2, 3, 4}
			}
			p := parser{server: masked, maxData: 1 << 20}
			k, c, err := p.next(appendHeader(nil, h))
			if err != nil || c.header != h || k > headerMax {
				t.Errorf("%d bytes: got %+v, %v, want %+v", n, c.header, err, h)
			}
		}
	}
}

// TestMask: any position in the payload, any cut.
func TestMask(t *testing.T) {
	key := [4]byte{0x12, 0x34, 0x56, 0x78}
	src := bytes.Repeat([]byte("weir and some more"), 5)
	want := make([]byte, len(src))
	for i := range src {
		want[i] = src[i] ^ key[i%4]
	}
	for cut := range len(src) {
		got := make([]byte, len(src))
		mask(got, src[:cut], key, 0)
		mask(got[cut:], src[cut:], key, cut)
		if !bytes.Equal(got, want) {
			t.Fatalf("cut at %d: %x, want %x", cut, got, want)
		}
	}
}

// FuzzUTF8: the checker agrees with package utf8, even byte by byte.
func FuzzUTF8(f *testing.F) {
	for _, s := range []string{"", "weir", "κόσμε", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\xaf", "\xe0\x80\xaf", "𐍈", "\xf0\x9f\x98"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var whole, cut utf8Check
		got := whole.add(p) && whole.whole()
		ok := true
		for i := range p {
			ok = ok && cut.add(p[i:i+1])
		}
		ok = ok && cut.whole()
		if want := utf8.Valid(p); got != want || ok != want {
			t.Errorf("%q: whole %v, byte by byte %v, want %v", p, got, ok, want)
		}
	})
}

// FuzzHead: a head is found in the same place however it comes, and never
// beyond its limit.
func FuzzHead(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\r\nrest"))
	f.Add([]byte("HTTP/1.1 101 Switching\r\nSec-WebSocket-Extensions: a; b=\"c,d\", e\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01"))
	f.Add([]byte("GET / HTTP/1.1\nHost: a\n\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var once, looked int
		whole, n, err := parseHead(p, headDefault, &once)
		for i := range len(p) + 1 {
			h, k, cutErr := parseHead(p[:i], headDefault, &looked)
			if cutErr != nil {
				if err == nil && n > 0 {
					t.Fatalf("%d bytes: %v; all: %v", i, cutErr, err)
				}
				return
			}
			if k > 0 {
				if err != nil || k != n || h.line != whole.line || len(h.fields) != len(whole.fields) {
					t.Fatalf("%d bytes: %d %+v; all: %d %+v, %v", i, k, h, n, whole, err)
				}
				return
			}
		}
		parseExtensions(whole.list("sec-websocket-extensions"))
	})
}

// TestCloseCodes: RFC 6455, 7.4.
func TestCloseCodes(t *testing.T) {
	for _, c := range []struct {
		p    string
		code Code
		ok   bool
	}{
		{"", CodeNone, true},
		{"\x03", 0, false},
		{"\x03\xe8", 1000, true},
		{"\x03\xe8bye", 1000, true},
		{"\x03\xe8\xff", 0, false},
		{"\x03\xec", 0, false}, // 1004
		{"\x03\xed", 0, false}, // 1005
		{"\x03\xee", 0, false}, // 1006
		{"\x03\xe7", 0, false}, // 999
		{"\x03\xf7", 0, false}, // 1015
		{"\x0b\xb8", 3000, true},
		{"\x13\x88", 0, false}, // 5000
	} {
		code, _, err := parseClose([]byte(c.p))
		if (err == nil) != c.ok || c.ok && code != c.code {
			t.Errorf("%q: %v, %v", c.p, code, err)
		}
	}
	if p := appendClose(nil, CodeNormal, strings.Repeat("é", 100)); len(p) > controlMax || !utf8.Valid(p[2:]) {
		t.Errorf("a long reason takes %d bytes: %q", len(p), p)
	}
}
