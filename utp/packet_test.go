package utp

import (
	"bytes"
	"testing"
)

// walk is a reader of extensions that was written apart from packet.parse.
func walk(b []byte) (data, sack []byte, ok bool) {
	at, next, n := headerSize, b[1], 0
	for next != 0 {
		if n++; n > extensionsMax || at+2 > len(b) {
			return nil, nil, false
		}
		size := int(b[at+1])
		if at+2+size > len(b) {
			return nil, nil, false
		}
		if next == extSack {
			sack = b[at+2 : at+2+min(size, sackMax)]
		}
		next = b[at]
		at += 2 + size
	}
	return b[at:], sack, true
}

func sample(ext byte, rest ...byte) []byte {
	return append([]byte{0x01, ext, 0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 4, 0, 0xff, 0xff, 0, 7}, rest...)
}

// TestPacketShapes: what is a packet, and what is another protocol's datagram.
func TestPacketShapes(t *testing.T) {
	chain := func(n int) []byte {
		var b []byte
		for i := range n {
			next := byte(2)
			if i == n-1 {
				next = 0
			}
			b = append(b, next, 0)
		}
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		ok   bool
		data string
		sack int
	}{
		{"plain", sample(0), true, "", 0},
		{"with data", sample(0, []byte("hello")...), true, "hello", 0},
		{"selective", sample(1, 0, 4, 1, 0, 0, 0, 'x'), true, "x", 4},
		{"selective of one byte, as libtorrent sends it", sample(1, 0, 1, 3), true, "", 1},
		{"selective of nothing", sample(1, 0, 0, 'x'), true, "x", 0},
		{"giant selective", sample(1, append([]byte{0, 255}, make([]byte, 255)...)...), true, "", sackMax},
		{"unknown extension", sample(9, 0, 2, 'a', 'b', 'x'), true, "x", 0},
		{"extension that passes the end", sample(1, 0, 5, 0, 0, 0, 0), false, "", 0},
		{"extension without a length", sample(1, 0), false, "", 0},
		{"as many extensions as allowed", sample(2, chain(extensionsMax)...), true, "", 0},
		{"one more", sample(2, chain(extensionsMax+1)...), false, "", 0},
		{"short", sample(0)[:19], false, "", 0},
		{"empty", nil, false, "", 0},
		{"another version", append([]byte{0x02}, sample(0)[1:]...), false, "", 0},
		{"another type", append([]byte{0x51}, sample(0)[1:]...), false, "", 0},
		{"a query of the DHT", []byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"), false, "", 0},
	} {
		var p packet
		if ok := p.parse(c.b); ok != c.ok {
			t.Errorf("%s: parsed is %v", c.name, ok)
		} else if ok && (string(p.data) != c.data || len(p.sack) != c.sack) {
			t.Errorf("%s: data %q, %d bytes of selective acknowledgement", c.name, p.data, len(p.sack))
		}
	}
}

// TestPadding: every amount of padding has the size that was asked for and reads as
// nothing.
func TestPadding(t *testing.T) {
	for pad := 2; pad < 1400; pad++ {
		in := packet{kind: kindData, id: 7, seq: 9, ack: 8, sack: []byte{1, 2, 3, 4}, data: []byte("abc")}
		b := in.append(nil, pad)
		var out packet
		if len(b) != headerSize+6+pad+3 || !out.parse(b) || string(out.data) != "abc" || len(out.sack) != 4 {
			t.Fatalf("padding of %d: %d bytes, %+v", pad, len(b), out)
		}
	}
}

// FuzzPacket: a packet that is read and written again is the same packet.
func FuzzPacket(f *testing.F) {
	f.Add(sample(0, 'x'))
	f.Add(sample(1, 0, 4, 1, 0, 0, 0, 'x'))
	f.Add(sample(2, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 255, 0, 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, q packet
		if !p.parse(b) {
			return
		}
		again := p.append(nil, 0)
		if !q.parse(again) {
			t.Fatalf("% x was read, and is not when written again: % x", b, again)
		}
		if p.kind != q.kind || p.id != q.id || p.stamp != q.stamp || p.delay != q.delay || p.window != q.window ||
			p.seq != q.seq || p.ack != q.ack || !bytes.Equal(p.sack, q.sack) || !bytes.Equal(p.data, q.data) {
			t.Fatalf("%+v became %+v", p, q)
		}
	})
}

// FuzzExtensions: a chain of extensions is read as a reader that was written apart
// reads it.
func FuzzExtensions(f *testing.F) {
	f.Add(byte(1), []byte{0, 4, 1, 0, 0, 0})
	f.Add(byte(2), []byte{2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 0, 0})
	f.Add(byte(extPadding), []byte{1, 1, 9, 0, 2, 1, 2, 'x'})
	f.Fuzz(func(t *testing.T, first byte, chain []byte) {
		b := sample(first, chain...)
		var p packet
		got := p.parse(b)
		data, sack, want := walk(b)
		if got != want || got && (!bytes.Equal(p.data, data) || !bytes.Equal(p.sack, sack)) {
			t.Fatalf("% x: read %v %+v, want %v, data % x, sack % x", b, got, p, want, data, sack)
		}
	})
}
