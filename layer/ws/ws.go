// Package ws implements WebSocket (RFC 6455) as a layer, client and server,
// with permessage-deflate (RFC 7692).
//
//	    your Protocol
//	 bytes ▲ │    ▲ messages, if it has MessageReceived
//	   Transport ─┴─ Messenger, found by weir.As
//	       ▲ │
//	    session      frames ⇄ bytes, close, ping
//	       ▲ │
//	HTTP/1.1 upgrade, once
//	       ▲ │
//	   Transport
//
// Used as a stream, each Write is one binary message or several, and the bytes
// of all incoming messages, text or binary, form the stream; a large message is
// handed over as it arrives. To use messages, a protocol implements Receiver
// and sends through Messenger.
//
// # The end of a stream
//
// A WebSocket's close ends both directions. Two ends that both use this package
// agree, by an extension named weir-end, on a frame that ends one direction: an
// empty binary frame with the reserved bit 2 set. Other peers cannot be told
// that only our direction has ended: after WriteEOF the connection stays open
// for the reply until nothing has moved for Config.EOFWait, and is then closed
// both ways. A close from the peer ends both directions too, and is answered at
// once, after what was written before it. A stream that ends without a close is
// broken (CodeAbnormal), like a truncated TLS stream.
package ws

import (
	"crypto/rand"
	"io"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// Config configures a WebSocket. The zero value is usable. It must not be
// changed once it has been passed on.
type Config struct {
	// Path is what a client asks for; empty means "/". A server refuses every
	// other path, or none if Path is empty; it ignores a query.
	Path string
	// Host is the Host field of a client's request; empty means the remote
	// address. Header holds further fields, names and values.
	Host   string
	Header [][2]string
	// Origins are the origins that a server accepts besides its own Host, if a
	// browser says which page it acts for: "https://example.com", or "*" for
	// all.
	Origins []string
	// Hosts are the values that a server accepts in the Host field of a
	// request, without the port: names and addresses, or "*" for all; an empty
	// list also means all.
	Hosts []string
	// GuardLoopback makes a server accept, from a client that came over
	// loopback and without TLS, only Hosts and the names and addresses of
	// loopback: localhost, *.localhost, 127.0.0.0/8, ::1. Without it a page of
	// any site can reach a server that only this machine should reach: the site
	// makes its name lead to 127.0.0.1, and the page's origin and the Host
	// field then agree (DNS rebinding). A server behind a proxy on the same
	// machine must list its public host in Hosts.
	GuardLoopback bool
	// Subprotocols are those that a client offers, or a server knows, best
	// first. A server chooses the first of the client's that it knows, or none.
	Subprotocols []string
	// Compress offers, or accepts, permessage-deflate. Every message is then
	// compressed by itself, so that an idle connection keeps no window.
	Compress bool
	// MaxMessage is the greatest length, in bytes, of a message that is handed
	// over whole, and of a compressed one, before and after decompression; 0
	// means 16 MiB. Uncompressed messages of a stream have no limit, since they
	// are not kept.
	MaxMessage int
	// Text sends what is written as text messages and not as binary ones, each
	// Write as one message if it is not too long. A character that is cut off
	// waits for its rest; anything that is not UTF-8 ends the connection with
	// ErrNotUTF8.
	Text bool
	// MaxHead is the greatest length of the head of a request or an answer, in
	// bytes; 0 means 64 KiB, and the most is 128 KiB.
	MaxHead int
	// Timeout is how long the upgrade may take; 0 means 10 s. CloseTimeout is
	// how long to wait for the peer's answer to a close; 0 means 2 s.
	Timeout, CloseTimeout time.Duration
	// EOFWait is for peers that do not know weir-end: how long nothing must
	// move after WriteEOF before the connection is closed both ways. 0 means 5
	// s, and 1 ns in effect at once. Time in which reading is paused on our
	// side, or in which bytes wait to be sent, does not count. With a negative
	// value the connection is never closed for this reason, and CanWriteEOF is
	// false.
	EOFWait time.Duration
	// MessageTimeout is how long a message that has to be kept, because it is
	// compressed or for a Receiver, may take from its first bytes to its last;
	// 0 means 1 min, and a negative value no limit. Time in which reading is
	// paused on our side does not count.
	MessageTimeout time.Duration
	// PingEvery is how often a peer that sends nothing is pinged; the
	// connection is lost with a *PongError if the peer has not answered by the
	// next time. 0 means never.
	PingEvery time.Duration
	// Rand is the source of keys and masks; nil means crypto/rand. It is used
	// under a lock.
	Rand io.Reader
}

// The defaults of a Config.
const (
	defaultCloseTimeout   = 2 * time.Second
	defaultEOFWait        = 5 * time.Second
	defaultMessageTimeout = time.Minute
)

// Receiver is a protocol above that takes whole messages. Its DataReceived is
// not called. Each message looks for it again, so the protocol may be replaced
// between messages.
type Receiver interface {
	// MessageReceived hands over a message. p is lent until it returns. If it
	// returns an error, the connection is lost with that error.
	MessageReceived(k Kind, p []byte) error
}

// Messenger is the transport above in its ability to send messages: weir.As
// finds it. Its methods belong to the loop's goroutine.
type Messenger interface {
	// SendMessage sends a message after everything written before. It is
	// buffered, announced and flushed as the bytes of Write are; p is copied.
	// Long messages leave in fragments. For text that is not UTF-8 the error is
	// ErrNotUTF8.
	SendMessage(k Kind, p []byte) error
	// Ping sends a ping with at most 125 bytes; any answer of the peer counts
	// for PingEvery and is not reported.
	Ping(p []byte) error
	// CloseWith closes as Close does, with a code and a reason; at most 123
	// bytes of the reason are sent.
	CloseWith(c Code, reason string) error
	// Subprotocol returns the one that both sides agreed on, "" for none.
	Subprotocol() string
	// RequestPath returns the path that was asked for, with its query.
	RequestPath() string
	// PeerClose returns what the peer's close said; the code is 0 until it has
	// come.
	PeerClose() (Code, string)
}

// Server returns the layer of a WebSocket server.
func Server(c Config) layer.Layer { return newLayer(c, true) }

// Client returns the layer of a WebSocket client.
func Client(c Config) layer.Layer { return newLayer(c, false) }

func newLayer(c Config, server bool) layer.Layer {
	sh := &shared{Config: c, server: server, rand: c.Rand}
	if sh.MaxMessage <= 0 {
		sh.MaxMessage = 16 << 20
	}
	if sh.Timeout <= 0 {
		sh.Timeout = 10 * time.Second
	}
	if sh.CloseTimeout <= 0 {
		sh.CloseTimeout = defaultCloseTimeout
	}
	if sh.EOFWait == 0 {
		sh.EOFWait = defaultEOFWait
	}
	if sh.MessageTimeout == 0 {
		sh.MessageTimeout = defaultMessageTimeout
	}
	if sh.MaxHead <= 0 {
		sh.MaxHead = headDefault
	}
	sh.MaxHead = min(sh.MaxHead, headMax)
	if sh.rand == nil {
		sh.rand = rand.Reader
	}
	sh.scratch.New = func() any { return new([scratchLen]byte) }
	sh.writers.New = func() any {
		w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is a valid one
		return w
	}
	sh.inflaters.New = func() any { return new(inflater) }
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			s := &session{shared: sh}
			s.parser.server = server
			return s.Init(s, "ws", a)
		}}
	}
}

// scratchLen is how many bytes are masked or inflated at once.
const scratchLen = 16 << 10

// shared is what the connections of one Layer share; they may be on several
// loops.
type shared struct {
	Config
	server    bool
	scratch   sync.Pool // *[scratchLen]byte
	writers   sync.Pool // *flate.Writer
	inflaters sync.Pool // *inflater

	mu   sync.Mutex
	rand io.Reader
	pool [256]byte // random bytes, drawn together because each draw may be a system call
	left int
}

// random fills p with random bytes.
func (sh *shared) random(p []byte) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.left < len(p) {
		if _, err := io.ReadFull(sh.rand, sh.pool[:]); err != nil {
			return err
		}
		sh.left = len(sh.pool)
	}
	sh.left -= copy(p, sh.pool[sh.left-len(p):sh.left])
	return nil
}
