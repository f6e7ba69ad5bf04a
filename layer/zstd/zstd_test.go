package zstd

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	kzstd "github.com/klauspost/compress/zstd"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

var everywhere = flag.Bool("everywhere", false, "run the stream suite over each layer on every backend")

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
	l := must(t, Config{Window: 16 << 10})
	where := weirtest.OneBackend
	if *everywhere {
		where = weirtest.Everywhere
	}
	weirtest.TestLayers(t, where,
		func(f weir.Factory) weir.Factory { return layer.Server(f, l) },
		func(p weir.Protocol) weir.Protocol { return layer.Client(p, l) })
}

// TestSteady: bytes through compression on both ends cost no allocation once
// traffic is steady (R6), on backends whose own cost is none.
func TestSteady(t *testing.T) {
	l := must(t, Config{})
	for _, backend := range weir.Backends() {
		if backend == "portable" {
			continue // package net's own
		}
		n := weirtest.LayerAllocs(t, backend,
			func(f weir.Factory) weir.Factory { return layer.Server(f, l) },
			func(p weir.Protocol) weir.Protocol { return layer.Client(p, l) })
		if n != 0 {
			t.Errorf("%s: %v allocations a message", backend, n)
		}
	}
}

// keeper keeps what it gets; its transport is a Recorder's, below the layer.
type keeper struct {
	got  bytes.Buffer
	eof  bool
	lost bool
	err  error
}

func (k *keeper) ConnectionMade(weir.Transport)      {}
func (k *keeper) DataReceived(p []byte) (int, error) { return k.got.Write(p) }
func (k *keeper) EOFReceived(int) (bool, error)      { k.eof = true; return true, nil }
func (k *keeper) ConnectionLost(err error)           { k.lost, k.err = true, err }

// read gives wire to a server of the layer, in pieces of size, and the end.
func read(t *testing.T, wire []byte, size int) *keeper {
	t.Helper()
	s := weirtest.NewSim(t, 1)
	k := &keeper{}
	if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol { return k }, must(t, Config{}))); err != nil {
		t.Fatal(err)
	}
	cut := layer.Fault(rand.New(rand.NewPCG(1, 1)), layer.FaultConfig{Out: layer.Faults{Slice: size}})
	s.Host("client").Loop().Connect("tcp", "server:7", layer.Client(&sender{wire}, cut))
	s.Until("the end", func() bool { return k.eof || k.lost })
	return k
}

type sender struct{ p []byte }

func (p *sender) ConnectionMade(t weir.Transport)    { _, _ = t.Write(p.p); _ = t.WriteEOF() }
func (p *sender) DataReceived(b []byte) (int, error) { return len(b), nil }
func (p *sender) ConnectionLost(error)               {}

// TestForeign: what another encoder writes is read, in any pieces: several
// frames, checksums, skippable frames, an empty one.
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

// FuzzScanner: blocks are found in the same places however the bytes come
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
