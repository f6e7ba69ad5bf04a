package ws

import (
	"bytes"
	stdflate "compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// inflateAll returns what an inflater makes of bytes in pieces of size bytes.
func inflateAll(z *inflater, p []byte, size int) (out []byte, done bool, err error) {
	z.reset()
	for len(p) > 0 {
		piece := p[:min(size, len(p))]
		p = p[len(piece):]
		for {
			n, got, err := z.next(piece)
			if err != nil {
				return out, false, err
			}
			piece = piece[n:]
			if len(got) == 0 {
				break
			}
			if out = append(out, got...); len(out) > 4<<20 {
				return out, false, io.ErrShortBuffer
			}
		}
		if len(piece) > 0 {
			return out, false, errors.New("an inflater left something")
		}
	}
	return out, z.done(), nil
}

// deflated returns p as package flate compresses it.
func deflated(level int, p []byte) []byte {
	var b bytes.Buffer
	w, _ := stdflate.NewWriter(&b, level)
	_, _ = w.Write(p)
	_ = w.Close()
	return b.Bytes()
}

// samples returns bytes of each kind: runs, text, noise, and copies from as far
// back as possible.
func samples() [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	far := append(append(append([]byte{}, noise[:windowLen]...), noise[:300]...), noise[:5]...)
	text := make([]byte, 200_000)
	for i := range text {
		text[i] = "etaoin shrdlu\n"[min(13, int(r.ExpFloat64()*4))]
	}
	return [][]byte{nil, []byte("x"), bytes.Repeat([]byte("x"), 300_000), text, noise, far, []byte(strings.Repeat("weir and some more. ", 5000))}
}

// TestInflate: what package flate writes at any level is read back, in any pieces.
func TestInflate(t *testing.T) {
	z := new(inflater)
	for i, p := range samples() {
		for _, level := range []int{stdflate.HuffmanOnly, 0, 1, 6, 9} {
			packed := deflated(level, p)
			for _, size := range []int{1, 3, 7, 1000, len(packed)} {
				if got, done, err := inflateAll(z, packed, size); err != nil || !done || !bytes.Equal(got, p) {
					t.Fatalf("sample %d, level %d, pieces of %d: %d bytes of %d, done %v, %v", i, level, size, len(got), len(p), done, err)
				}
			}
		}
	}
}

// FuzzInflate: an inflater agrees with package flate about what is valid
// deflate and what it contains, whatever the cuts.
func FuzzInflate(f *testing.F) {
	for _, p := range samples() {
		for _, level := range []int{stdflate.HuffmanOnly, 1, 9} {
			packed := deflated(level, p[:min(len(p), 2000)])
			f.Add(packed, 3)
			f.Add(packed[:len(packed)/2], 1)
		}
	}
	f.Add([]byte{0x05, 0xe0, 0x81}, 1)
	f.Fuzz(func(t *testing.T, p []byte, size int) {
		if len(p) == 0 {
			return
		}
		want, wantErr := io.ReadAll(io.LimitReader(stdflate.NewReader(bytes.NewReader(p)), 4<<20))
		got, done, err := inflateAll(new(inflater), p, max(1, size&0xffff))
		switch {
		case len(want) == 4<<20:
		case wantErr == nil && (err != nil || !done || !bytes.Equal(got, want)):
			t.Errorf("%d bytes, done %v, %v; want %d", len(got), done, err, len(want))
		case wantErr != nil && done:
			t.Errorf("taken; package flate says %v", wantErr)
		case errors.Is(wantErr, io.ErrUnexpectedEOF) && !bytes.HasPrefix(got, want):
			t.Errorf("what came before a cut differs: %d bytes, %d", len(got), len(want))
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	for i, p := range samples()[2:5] {
		packed := deflated(6, p)
		b.Run([]string{"run", "text", "noise"}[i], func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			z := new(inflater)
			for b.Loop() {
				z.reset()
				for q := packed; ; {
					n, got, _ := z.next(q)
					if q = q[n:]; len(got) == 0 {
						break
					}
				}
			}
		})
		b.Run([]string{"run", "text", "noise"}[i]+"/flate", func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			r := stdflate.NewReader(nil)
			for b.Loop() {
				_ = r.(stdflate.Resetter).Reset(bytes.NewReader(packed), nil)
				_, _ = io.Copy(io.Discard, r)
			}
		})
	}
}
