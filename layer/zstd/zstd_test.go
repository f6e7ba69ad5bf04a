package zstd

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	kzstd "github.com/klauspost/compress/zstd"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/weirtest"
)

func must(t testing.TB, c Config) layer.Layer {
	t.Helper()
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestStreams: R41, behaviours 20 to 47 through compression.
func TestStreams(t *testing.T) {
	l := []layer.Layer{must(t, Config{Window: 16 << 10})}
	layertest.SuiteIn(t, weirtest.Everywhere, l, l)
}

// TestSteady: bytes through compression on both ends cost no allocation once
// traffic is steady (R6), on backends that do not allocate themselves.
func TestSteady(t *testing.T) {
	l := []layer.Layer{must(t, Config{})}
	for _, backend := range weir.Backends() {
		if backend == "portable" {
			continue // package net allocates
		}
		if n := layertest.Allocs(t, backend, l, l); n != 0 {
			t.Errorf("%s: %v allocations a message", backend, n)
		}
	}
}

// keeper keeps what it gets; its transport is a Recorder's, below the layer.
type keeper struct {
	weir.NopProtocol
	got  bytes.Buffer
	eof  bool
	lost bool
	err  error
}

func (k *keeper) DataReceived(p []byte) (int, error) { return k.got.Write(p) }
func (k *keeper) EOFReceived(int) (bool, error)      { k.eof = true; return true, nil }
func (k *keeper) ConnectionLost(err error)           { k.lost, k.err = true, err }

// read gives wire to a server of the layer, in pieces of size bytes, and then
// the end.
func read(t *testing.T, wire []byte, size int) *keeper {
	t.Helper()
	s := weirtest.NewSim(t, 1)
	k := &keeper{}
	if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol { return k }, must(t, Config{}))); err != nil {
		t.Fatal(err)
	}
	cut := layer.Fault(rand.New(rand.NewPCG(1, 1)), layer.FaultConfig{Out: layer.Faults{Slice: size}})
	s.Host("client").Loop().Connect("tcp", "server:7", layer.Client(&sender{p: wire}, cut))
	s.Until("the end", func() bool { return k.eof || k.lost })
	return k
}

type sender struct {
	weir.NopProtocol
	p []byte
}

func (p *sender) ConnectionMade(t weir.Transport) { _, _ = t.Write(p.p); _ = t.WriteEOF() }

// TestForeign: the output of another encoder can be read, in any pieces:
// several frames, checksums, skippable frames, an empty frame.
func TestForeign(t *testing.T) {
	text := []byte(strings.Repeat("weir and what flows over it; ", 20_000))
	var wire bytes.Buffer
	w, err := kzstd.NewWriter(&wire)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{text[:100_000], {}, text[100_000:]} {
		_, _ = w.Write(p)
		_ = w.Flush()
		_ = w.Flush()
		_ = w.Close()
		wire.WriteString("\x53\x2a\x4d\x18\x05\x00\x00\x00skip!")
		w.Reset(&wire)
	}
	for _, size := range []int{1 << 20, 1000, 7, 1} {
		k := read(t, wire.Bytes(), size)
		if !bytes.Equal(k.got.Bytes(), text) || !k.eof {
			t.Errorf("in pieces of %d: %d bytes of %d, end %v, %v", size, k.got.Len(), len(text), k.eof, k.err)
		}
	}
	k := read(t, wire.Bytes()[:wire.Len()/2], 1000)
	if !errors.Is(k.err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(text, k.got.Bytes()) {
		t.Errorf("cut off: %d bytes, %v", k.got.Len(), k.err)
	}
	k = read(t, []byte("GET / HTTP/1.1\r\n\r\n"), 1000)
	if !errors.Is(k.err, errNoZstd) {
		t.Errorf("what is no zstd: %v", k.err)
	}
}

// FuzzScanner: blocks are found in the same places however the bytes are cut
// (behaviour 92).
func FuzzScanner(f *testing.F) {
	for _, text := range []string{"", "weir", strings.Repeat("weir ", 1000)} {
		var wire bytes.Buffer
		w, _ := kzstd.NewWriter(&wire)
		_, _ = w.Write([]byte(text))
		_ = w.Flush()
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		f.Add(wire.Bytes())
	}
	f.Add([]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00ab\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"))
	scan := func(wire []byte, size int) (places []int, found []scanned, failed bool) {
		var s scanner
		at := 0
		for at < len(wire) {
			piece := wire[at:min(at+size, len(wire))]
			for len(piece) > 0 {
				n, what, err := s.next(piece)
				if n > len(piece) || n == 0 && err == nil && what == scanNone {
					f.Fatal("no progress")
				}
				at += n
				piece = piece[n:]
				if err != nil {
					return places, found, true
				}
				if what != scanNone {
					places, found = append(places, at), append(found, what)
				}
			}
		}
		return places, found, false
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		places, found, failed := scan(wire, len(wire)+1)
		for _, size := range []int{1, 3} {
			p, w, e := scan(wire, size)
			if len(p) != len(places) || e != failed {
				t.Fatalf("in pieces of %d: %v %v, whole: %v %v", size, p, e, places, failed)
			}
			for i := range p {
				if p[i] != places[i] || w[i] != found[i] {
					t.Fatalf("in pieces of %d: %v %v, whole: %v %v", size, p, w, places, found)
				}
			}
		}
	})
}

// TestWindowOf: the window that a header asks for is read as the decoder reads it.
func TestWindowOf(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		wire := []byte{0x28, 0xb5, 0x2f, 0xfd, byte(r.Uint32()) &^ 0x18, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}
		wire = append(wire, make([]byte, 12)...)
		wire = append(wire, 1, 0, 0)
		var h kzstd.Header
		if err := h.Decode(wire); err != nil {
			continue
		}
		var s scanner
		for n := 0; s.state != scanBlockHeader; n++ {
			if _, _, err := s.next(wire[n : n+1]); err != nil {
				t.Fatal(err)
			}
		}
		want := h.WindowSize
		if h.SingleSegment {
			want = max(h.FrameContentSize, 1<<10)
		}
		if s.window != want {
			t.Fatalf("%x: %d, want %d", wire, s.window, want)
		}
	}
}

// filled is the beginning of a frame that fills a window of 8 MiB with 262 bytes.
func filled() []byte {
	wire := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3}
	for range 64 {
		h := 128<<10<<3 | 1<<1 // one byte 128 Ki times
		wire = append(wire, byte(h), byte(h>>8), byte(h>>16), 'x')
	}
	return wire
}

// taker keeps what it gets, and why it ended; it writes at once.
type taker struct {
	keeper
	wire []byte
	t    weir.Transport
}

func (p *taker) ConnectionMade(t weir.Transport) { p.t = t; _, _ = t.Write(p.wire) }

// TestWindows: large windows are counted over all connections of a layer (S2)
// and released at the end of a frame or a connection; small ones are not
// counted.
func TestWindows(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	var served []*keeper
	l := must(t, Config{Windows: 20 << 20})
	if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol {
		served = append(served, &keeper{})
		return served[len(served)-1]
	}, l)); err != nil {
		t.Fatal(err)
	}
	dial := func(wire []byte, l ...layer.Layer) (*keeper, *taker) {
		n, c := len(served), &taker{wire: wire}
		s.Host("client").Loop().Connect("tcp", "server:7", layer.Client(c, l...))
		s.Until("bytes, or the end", func() bool { return len(served) > n && (served[n].lost || served[n].got.Len() >= 3) })
		return served[n], c
	}
	refused := func(k *keeper) bool {
		var e *WindowError
		return k.lost && errors.As(k.err, &e) && e.Shared && e.Window == 8<<20 && e.Limit == 20<<20
	}
	one, c1 := dial(filled())
	two, c2 := dial(filled())
	if one.lost || two.lost {
		t.Fatalf("two windows: %v, %v", one.err, two.err)
	}
	if three, _ := dial(filled()); !refused(three) {
		t.Errorf("the third: lost %v with %v", three.lost, three.err)
	}
	if small, _ := dial([]byte("weir"), must(t, Config{})); small.lost {
		t.Errorf("a small window: %v", small.err)
	}
	_, _ = c1.t.Write([]byte{1, 0, 0}) // an empty last block
	s.Until("the rest of it", func() bool { return one.got.Len() == 8<<20 })
	_, _ = c1.t.Write([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0, 3<<3 | 1, 0, 0, 'e', 'n', 'd'})
	s.Until("another frame", func() bool { return one.got.Len() == 8<<20+3 })
	four, c4 := dial(filled())
	if four.lost {
		t.Errorf("after the end of a frame: %v", four.err)
	}
	if five, _ := dial(filled()); !refused(five) {
		t.Errorf("the fifth: lost %v with %v", five.lost, five.err)
	}
	c2.t.Abort()
	c4.t.Abort()
	s.Until("their ends", func() bool { return two.lost && four.lost })
	for range 2 {
		if k, _ := dial(filled()); k.lost {
			t.Errorf("after the end of a connection: %v", k.err)
		}
	}
	// A window that is too large by itself is reported as such, without
	// mentioning others.
	wire := filled()
	wire[5] = 14 << 3
	k, _ := dial(wire)
	var e *WindowError
	if !errors.As(k.err, &e) || e.Shared || e.Window != 16<<20 || e.Limit != 8<<20 {
		t.Errorf("16 MiB: %v", k.err)
	}
}
