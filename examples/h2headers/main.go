// Command h2headers answers each HTTP/2 request with the header fields that it came with.
// Its parser of header blocks is not weir's: golang.org/x/net's hpack.Decoder is pushed,
// as DataReceived is, so one feeds the other as the bytes come, however they are cut.
//
//	go run ./examples/h2headers &
//	curl --http2-prior-knowledge -H 'X-Name: value' http://127.0.0.1:7005/
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/net/http2/hpack"

	"github.com/weir-io/weir"
)

func main() {
	fmt.Fprintln(os.Stderr, weir.ListenAndServe("tcp", "127.0.0.1:7005", serve))
	os.Exit(1)
}

// What RFC 9113 calls them.
const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	frameData         = 0
	frameHeaders      = 1
	frameSettings     = 4
	framePing         = 6
	frameContinuation = 9

	flagAck        = 0x1 // SETTINGS, PING
	flagEndStream  = 0x1 // DATA, HEADERS
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	frameMost  = 16 << 10 // bytes of a frame, as long as no one has agreed on more
	fieldsMost = 32 << 10 // bytes of the fields of one request
)

var errProtocol = errors.New("not HTTP/2, or not as RFC 9113 has it")

// serve makes the protocol of a connection.
func serve(weir.Transport) weir.Protocol {
	c := &conn{}
	c.encoder = hpack.NewEncoder(&c.block)
	c.decoder = hpack.NewDecoder(4096, c.field)
	c.decoder.SetMaxStringLength(fieldsMost)
	return c
}

// conn reads frames; a header block goes on to the decoder piece by piece.
//
//	preface ──▶ frame's header ──▶ its payload ──┐
//	                 ▲                           │
//	                 └───────────────────────────┘
type conn struct {
	weir.NopProtocol
	t       weir.Transport
	decoder *hpack.Decoder
	encoder *hpack.Encoder
	block   bytes.Buffer // what encoder writes to
	greeted bool         // the preface has come

	in      bool // inside a frame's payload
	kind    byte
	flags   byte
	stream  uint32
	left    int    // bytes of the payload that have not come
	pad     int    // how many of them are padding
	started bool   // HEADERS: padding and priority have been taken off
	inBlock uint32 // the stream whose header block goes on in CONTINUATION frames; 0: none
	fields  bytes.Buffer
}

// ConnectionMade sends our settings, which are the defaults.
func (c *conn) ConnectionMade(t weir.Transport) {
	c.t = t
	c.frame(frameSettings, 0, 0, nil)
}

// DataReceived takes what there is of a frame. Only what is of no use in pieces is left to
// the transport: the preface, a frame's header and the short payload of a PING.
func (c *conn) DataReceived(p []byte) (used int, err error) {
	if !c.greeted {
		if len(p) < len(preface) {
			return 0, nil
		}
		if string(p[:len(preface)]) != preface {
			return 0, errProtocol
		}
		used, c.greeted = len(preface), true
	}
	for {
		if !c.in {
			if len(p)-used < 9 {
				return used, nil
			}
			if err := c.begin(p[used : used+9]); err != nil {
				return used, err
			}
			used += 9
		}
		n, err := c.payload(p[used:])
		if err != nil {
			return used, err
		}
		if used += n; c.in {
			return used, nil // the rest of it has not come
		}
	}
}

// begin takes a frame's header.
func (c *conn) begin(h []byte) error {
	c.left = int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	c.kind, c.flags, c.stream = h[3], h[4], binary.BigEndian.Uint32(h[5:])&(1<<31-1)
	c.in, c.started, c.pad = true, false, 0
	continues := c.kind == frameContinuation
	switch {
	case c.left > frameMost,
		c.kind == framePing && c.left != 8,
		c.kind == frameHeaders && c.stream == 0,
		continues != (c.inBlock != 0) || continues && c.stream != c.inBlock: // nothing may come between
		return errProtocol
	case c.kind == frameHeaders:
		c.inBlock = c.stream
		c.fields.Reset()
	}
	return nil
}

// payload takes what has come of a frame's payload, and reports how much that was.
func (c *conn) payload(p []byte) (n int, err error) {
	switch c.kind {
	case frameHeaders, frameContinuation:
		if c.kind == frameHeaders && !c.started {
			if n = c.prefix(p); n < 0 {
				return 0, errProtocol
			}
			if !c.started {
				return 0, nil
			}
		}
		// The decoder takes a block in any pieces.
		piece := p[n:min(len(p), n+max(c.left-c.pad, 0))]
		if _, err := c.decoder.Write(piece); err != nil {
			return n, err
		}
		n += len(piece)
		c.left -= len(piece)
		skip := min(len(p)-n, c.left)
		if c.left > c.pad {
			skip = 0
		}
		n += skip
		c.left -= skip
	case framePing:
		if len(p) < 8 {
			return 0, nil
		}
		if n, c.left = 8, 0; c.flags&flagAck == 0 {
			c.frame(framePing, flagAck, 0, p[:8])
		}
	default: // of no interest to us
		n = min(len(p), c.left)
		c.left -= n
	}
	if c.left == 0 {
		c.in = false
		return n, c.end()
	}
	return n, nil
}

// prefix takes off what comes before a header block: the length of the padding after it,
// and a priority. It returns how many bytes that was, below 0 if the frame cannot hold
// them, and leaves started false if they have not all come.
func (c *conn) prefix(p []byte) int {
	n := 0
	if c.flags&flagPadded != 0 {
		n++
	}
	if c.flags&flagPriority != 0 {
		n += 5
	}
	if n > c.left {
		return -1
	}
	if len(p) < n {
		return 0
	}
	if c.flags&flagPadded != 0 {
		c.pad = int(p[0])
	}
	if c.left -= n; c.pad > c.left {
		return -1
	}
	c.started = true
	return n
}

// end is called when a frame is complete.
func (c *conn) end() error {
	switch {
	case c.kind == frameSettings && c.flags&flagAck == 0:
		c.frame(frameSettings, flagAck, 0, nil)
	case c.inBlock != 0 && c.flags&flagEndHeaders != 0:
		if err := c.decoder.Close(); err != nil {
			return err
		}
		if c.fields.Len() > fieldsMost {
			return errors.New("a request with too many header fields")
		}
		c.answer(c.inBlock)
		c.inBlock = 0
	}
	return nil
}

// field is called by the decoder, from inside its Write.
func (c *conn) field(f hpack.HeaderField) {
	if c.fields.Len() <= fieldsMost {
		fmt.Fprintf(&c.fields, "%s: %s\n", f.Name, f.Value)
	}
}

// answer sends a response to the request of a stream.
func (c *conn) answer(stream uint32) {
	c.block.Reset()
	for _, f := range []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "text/plain; charset=utf-8"}} {
		_ = c.encoder.WriteField(f) // into memory
	}
	c.frame(frameHeaders, flagEndHeaders, stream, c.block.Bytes())
	text := c.fields.Bytes()
	for len(text) > frameMost {
		c.frame(frameData, 0, stream, text[:frameMost])
		text = text[frameMost:]
	}
	c.frame(frameData, flagEndStream, stream, text)
}

// frame writes a frame.
func (c *conn) frame(kind, flags byte, stream uint32, payload []byte) {
	h := [9]byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	binary.BigEndian.PutUint32(h[5:], stream)
	_, _ = c.t.Writev([][]byte{h[:], payload}) // if it is lost, so is the connection
}
