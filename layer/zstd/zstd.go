// Package zstd implements compression as a layer: each direction is a Zstandard
// stream (RFC 8878), as the zstd tool reads and writes it. Both ends need the
// layer.
//
//	Write ──▶ one block or several, complete and on their way
//	DataReceived ──▶ whole blocks ──▶ what they hold
//
// What is written leaves when the callback that wrote it returns, so that a
// request is not held back; many small writes compress worse than a few large
// ones. A stream ends with the end of a frame and then the end of the transport
// below: without the former it was cut off.
package zstd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// Config says how to compress, and what to accept. The zero value is usable.
type Config struct {
	// Level is the compression level, as for the zstd tool, 1 to 22; 0 means 1.
	Level int
	// Window is how far back the compressor looks, in bytes: a power of two, at
	// least 1 KiB; 0 means 128 KiB. It costs a connection a few times as much
	// memory.
	Window int
	// MaxWindow is the largest window that is accepted from the peer; 0 means 8
	// MiB. A frame that wants more ends the connection with a *WindowError.
	MaxWindow int
	// Windows is how many bytes the windows of all connections of the Layer may
	// take together; 0 means 128 MiB, and it is at least one MaxWindow. Windows
	// of up to 128 KiB, which is what this package writes, are not counted. A
	// frame that wants more than is left ends its connection with a
	// *WindowError, so that peers that ask for large windows take nothing from
	// others.
	Windows int
}

// windowFree is the size up to which a window is not counted.
const windowFree = 128 << 10

// The defaults of a Config.
const (
	defaultMaxWindow = 8 << 20
	defaultWindows   = 128 << 20
)

// WindowError is the reason when a connection's peer wants a larger window than
// it may have.
type WindowError struct {
	Window uint64 // the window it wants, in bytes
	Limit  int    // Config.MaxWindow, or Config.Windows
	Shared bool   // other connections have the rest of Limit
}

func (e *WindowError) Error() string {
	if e.Shared {
		return fmt.Sprintf("a window of %d bytes; all connections together may use %d", e.Window, e.Limit)
	}
	return fmt.Sprintf("a window of %d bytes; the limit is %d", e.Window, e.Limit)
}

// New returns the layer, which is the same on both ends. It returns an error
// for a Config that the compressor does not accept.
func New(c Config) (layer.Layer, error) {
	if c.Level <= 0 {
		c.Level = 1
	}
	if c.Window <= 0 {
		c.Window = 128 << 10
	}
	if c.MaxWindow <= 0 {
		c.MaxWindow = defaultMaxWindow
	}
	if c.Windows <= 0 {
		c.Windows = defaultWindows
	}
	c.Windows = max(c.Windows, c.MaxWindow)
	if _, err := newEncoder(nil, c); err != nil {
		return nil, err
	}
	windows := new(atomic.Int64)
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			z := &squeezer{c: c, windows: windows}
			return z.Init(z, "zstd", a)
		}}
	}, nil
}

// newEncoder makes an encoder that works within its calls and starts no
// goroutine.
func newEncoder(w io.Writer, c Config) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(c.Level)), zstd.WithWindowSize(c.Window))
}

func newDecoder(r io.Reader, c Config) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(uint64(c.MaxWindow)), zstd.WithDecoderMaxMemory(1<<62))
}

// squeezer is the layer of one connection.
type squeezer struct {
	layer.Base
	c   Config
	enc *zstd.Encoder
	dec *zstd.Decoder

	wire  scanner
	in    []byte // a whole block, for the decoder
	plain []byte // what the block is decoded to

	windows *atomic.Int64 // bytes that the connections of the layer have together
	window  int64         // what this one has of them

	failing error // of a write to the transport below
}

var (
	_ weir.Carrier     = (*squeezer)(nil)
	_ weir.Resetter    = (*squeezer)(nil)
	_ weir.Protocol    = (*squeezer)(nil)
	_ weir.EOFReceiver = (*squeezer)(nil)
)

// plainMax is the most bytes that a block holds (RFC 8878, 3.1.1.2.3).
const plainMax = 128 << 10

// turnMax is how many bytes are handed up in one turn.
const turnMax = 128 << 10

// below is the writer that the encoder writes to.
type below struct{ z *squeezer }

func (b below) Write(p []byte) (int, error) {
	n, err := b.z.Below().Write(p)
	if err != nil {
		b.z.failing = err
	}
	return n, err
}

func (z *squeezer) Write(bufs [][]byte) (int, error) {
	if z.Blocked() {
		return 0, nil
	}
	if z.enc == nil {
		enc, err := newEncoder(below{z}, z.c)
		if err != nil {
			return 0, err
		}
		z.enc = enc
	}
	total := 0
	for _, p := range bufs {
		n, err := z.enc.Write(p)
		total += n
		if err != nil {
			return total, z.writeError(err)
		}
	}
	return total, z.writeError(z.enc.Flush())
}

// writeError prefers the error of the transport below, such as ErrClosed, which
// says more.
func (z *squeezer) writeError(err error) error {
	if err != nil && z.failing != nil {
		return z.failing
	}
	return err
}

// endFrame writes the end of the frame.
func (z *squeezer) endFrame() error {
	if z.enc == nil {
		return nil
	}
	err := z.writeError(z.enc.Close())
	z.enc = nil
	return err
}

func (z *squeezer) CloseWrite() error {
	if err := z.endFrame(); err != nil {
		return err
	}
	return z.Base.CloseWrite()
}

func (z *squeezer) Close(abort bool) {
	if !abort {
		_ = z.endFrame() // a loss is reported by ConnectionLost
	}
	z.Base.Close(abort)
}

// Reset implements weir.Resetter. The frame stays open: the stream ends within it.
func (z *squeezer) Reset() {
	if z.enc != nil {
		_ = z.enc.Flush() // a loss is reported by ConnectionLost
		z.enc = nil
	}
	z.Base.Reset()
}

// DataReceived implements weir.Protocol: as many whole blocks as are wanted.
func (z *squeezer) DataReceived(p []byte) (int, error) {
	used, given := 0, 0
	for used < len(p) {
		if z.Paused() || given >= turnMax {
			z.Yield()
			return used, nil
		}
		n, block, err := z.wire.next(p[used:])
		used += n
		z.in = append(z.in, p[used-n:used]...)
		if err == nil && block == scanNone {
			break
		}
		if err == nil {
			n, err = z.decode(block)
			given += n
		}
		if err != nil {
			z.Fail(err)
			return len(p), nil
		}
	}
	return used, nil
}

// ErrCutOff is the reason when a stream ended within a frame. It also matches
// io.ErrUnexpectedEOF.
var ErrCutOff = fmt.Errorf("the stream ended within a frame: %w", io.ErrUnexpectedEOF)

func (z *squeezer) EOFReceived(unused int) (bool, error) {
	if z.wire.open() || len(z.in) > 0 {
		z.End(ErrCutOff)
		return true, nil
	}
	return z.Base.EOFReceived(unused)
}

func (z *squeezer) ConnectionLost(err error) {
	z.endDecoder()
	z.enc, z.in, z.plain = nil, nil, nil
	z.Base.ConnectionLost(err)
}

// Read is what the decoder reads from: it is never asked for more than there
// is, because the decoder is given whole blocks.
func (z *squeezer) Read(p []byte) (int, error) {
	if len(z.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, z.in)
	z.in = z.in[:copy(z.in, z.in[n:])]
	return n, nil
}

// decode hands up what the block in z.in contains.
func (z *squeezer) decode(block scanned) (int, error) {
	switch block {
	case scanSkip:
		z.in = z.in[:0]
		return 0, nil
	case scanEmpty:
		// A block without content means nothing, but it costs the decoder a
		// read, which would go beyond what there is.
		z.in = z.in[:len(z.in)-3]
		return 0, nil
	default:
	}
	if !z.wire.decoding {
		if err := z.takeWindow(); err != nil {
			return 0, err
		}
	}
	if z.dec == nil {
		dec, err := newDecoder(nil, z.c)
		if err != nil {
			return 0, err
		}
		z.dec = dec
		z.plain = make([]byte, plainMax)
	}
	if !z.wire.decoding {
		z.wire.decoding = true
		if err := z.dec.Reset(z); err != nil {
			return 0, err
		}
	}
	total := 0
	for {
		n, err := z.dec.Read(z.plain)
		total += n
		z.Deliver(z.plain[:n])
		switch {
		case errors.Is(err, io.EOF) && block == scanLast:
			z.wire.decoding = false
			z.in = z.in[:0]
			if z.window > 0 {
				z.endDecoder() // the decoder keeps its window as long as it exists
			}
			return total, nil
		case err != nil:
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return total, err
		case block == scanLast:
			continue // go on to its end, which is checked
		}
		return total, nil // a block's content fits into plain
	}
}

// takeWindow reserves the window of the frame that begins.
func (z *squeezer) takeWindow() error {
	w := z.wire.window
	switch {
	case w > uint64(z.c.MaxWindow):
		return &WindowError{Window: w, Limit: z.c.MaxWindow}
	case w <= windowFree:
		return nil
	case z.windows.Add(int64(w)) > int64(z.c.Windows):
		z.windows.Add(-int64(w))
		return &WindowError{Window: w, Limit: z.c.Windows, Shared: true}
	}
	z.window = int64(w)
	return nil
}

// endDecoder ends the decoder, and gives its window back.
func (z *squeezer) endDecoder() {
	if z.dec != nil {
		z.dec.Close()
		z.dec = nil
	}
	z.windows.Add(-z.window)
	z.window = 0
}

// scanned says what a scanner has found.
type scanned byte

const (
	scanNone  scanned = iota // more bytes are needed
	scanBlock                // a whole block, with the frame's header if it is the first
	scanEmpty                // a block without content, which is not the last
	scanLast                 // the last block, with the frame's checksum
	scanSkip                 // a skippable frame
)

// scanner finds where blocks end (RFC 8878, 3.1.1), in bytes that come in any
// pieces. Their content is left to the decoder.
type scanner struct {
	state    scanState
	head     [18]byte
	have     int
	skip     int // bytes of a block's or a skippable frame's content to come
	found    scanned
	checksum bool
	window   uint64 // of the frame
	decoding bool   // the decoder is within the frame
}

type scanState byte

const (
	scanMagic scanState = iota
	scanSkipSize
	scanHeader
	scanBlockHeader
	scanContent
)

var errNoZstd = errors.New("the input is not zstd")

// open reports whether a frame has begun and not ended.
func (s *scanner) open() bool { return s.state != scanMagic || s.have > 0 }

// next takes bytes off b until something ends.
func (s *scanner) next(b []byte) (int, scanned, error) {
	used := 0
	for {
		if s.state == scanContent {
			n := min(s.skip, len(b)-used)
			used += n
			if s.skip -= n; s.skip > 0 {
				return used, scanNone, nil
			}
			s.have = 0
			s.state = scanBlockHeader
			if s.found == scanLast || s.found == scanSkip {
				s.state = scanMagic
			}
			return used, s.found, nil
		}
		want := s.want()
		n := copy(s.head[s.have:want], b[used:])
		s.have += n
		used += n
		if s.have < want {
			return used, scanNone, nil
		}
		if err := s.step(); err != nil {
			return used, scanNone, err
		}
	}
}

// want returns how many bytes of a header the state needs, as far as the bytes
// that have come tell.
func (s *scanner) want() int {
	switch s.state {
	case scanMagic, scanSkipSize:
		return 4
	case scanBlockHeader:
		return 3
	default:
	}
	if s.have == 0 {
		return 1
	}
	d := s.head[0]
	n := 1
	if d&0x20 == 0 {
		n++ // not a single segment: there is a window descriptor
	}
	n += [4]int{0, 1, 2, 4}[d&3]
	size := [4]int{0, 2, 4, 8}[d>>6]
	if size == 0 && d&0x20 != 0 {
		size = 1
	}
	return n + size
}

// windowOf returns the window that a complete frame header asks for (RFC 8878,
// 3.1.1.1.2) or, for a single segment, the size of its content.
func (s *scanner) windowOf() uint64 {
	d := s.head[0]
	if d&0x20 == 0 {
		base := uint64(1) << (10 + s.head[1]>>3)
		return base + base/8*uint64(s.head[1]&7)
	}
	size := s.head[1+[4]int{0, 1, 2, 4}[d&3] : s.have]
	var n [8]byte
	copy(n[:], size)
	w := binary.LittleEndian.Uint64(n[:])
	if len(size) == 2 {
		w += 256
	}
	return max(w, 1<<10)
}

// step acts on a complete header.
func (s *scanner) step() error {
	switch s.state {
	case scanMagic:
		switch m := binary.LittleEndian.Uint32(s.head[:]); {
		case m == 0xFD2FB528:
			s.state = scanHeader
		case m&^0xf == 0x184D2A50:
			s.state = scanSkipSize
		default:
			return errNoZstd
		}
		s.have = 0
	case scanSkipSize:
		n := binary.LittleEndian.Uint32(s.head[:])
		if n > 1<<20 {
			return fmt.Errorf("a skippable frame of %d bytes", n)
		}
		s.skip, s.found, s.state = int(n), scanSkip, scanContent
	case scanHeader:
		if s.have == 1 && s.want() > 1 {
			return nil
		}
		s.checksum = s.head[0]&4 != 0
		s.window = s.windowOf()
		s.have, s.state = 0, scanBlockHeader
	case scanBlockHeader:
		h := int(s.head[0]) | int(s.head[1])<<8 | int(s.head[2])<<16
		last, kind, size := h&1 != 0, h>>1&3, h>>3
		if kind == 3 || size > plainMax {
			return errNoZstd
		}
		s.found, s.skip = scanBlock, size
		if size == 0 {
			s.found = scanEmpty
		}
		if kind == 1 {
			s.skip = 1
		}
		if kind == 1 && size == 0 || kind == 2 && size == 0 {
			return errNoZstd
		}
		if last {
			s.found = scanLast
			if s.checksum {
				s.skip += 4
			}
		}
		s.state = scanContent
	default: // content has no header
	}
	return nil
}
