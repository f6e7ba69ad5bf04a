// Package ws is WebSocket (RFC 6455) as a layer, client and server, with
// permessage-deflate (RFC 7692).
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
// As a stream, each Write is a binary message or several, and the bytes of every
// message that comes, text or binary, are the stream; a large message is handed
// over as it arrives. For messages, a protocol has the method of Receiver and
// sends through Messenger.
//
// # The end of a stream
//
// A WebSocket's close ends both directions. Two ends of this package agree, by an
// extension named weir-end, on a frame that ends one: an empty binary frame with
// the reserved bit 2 set. With other peers the end of what is written cannot be
// told alone: after WriteEOF the connection stays open for the reply, until
// nothing has moved for Config.EOFWait, and is then closed both ways. A close of
// the peer's ends both directions too, and is answered at once: what was written
// before leaves first. A stream that ends without a close is broken
// (CodeAbnormal), as a truncated one of TLS is.
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

// Config is how a WebSocket is spoken. The zero value is of use. It must not be
// changed once given away.
type Config struct {
	// Path is what a client asks for, "/" without one. A server refuses every
	// other path, none if it is empty; a query is not looked at.
	Path string
	// Host is the Host field of a client's request; the remote address without
	// one. Header are further fields, names and values.
	Host   string
	Header [][2]string
	// Origins are what a server accepts besides its own Host, where a browser
	// says which page it acts for: "https://example.com", or "*" for all.
	Origins []string
	// Hosts are what a server accepts as the Host that is asked for, without its
	// port: names and addresses, or "*" for all; all without any.
	Hosts []string
	// GuardLoopback makes a server accept, from a client that came over loopback
	// and not through TLS, only Hosts and what is a name or address of loopback:
	// localhost, *.localhost, 127.0.0.0/8, ::1. Without it a page of any site can
	// reach a server that only this machine should reach: the site has its name
	// lead to 127.0.0.1, and page and Host then agree (DNS rebinding). A server
	// that stands behind a proxy on its own machine names its public host in Hosts.
	GuardLoopback bool
	// Subprotocols are what a client offers, or a server knows, best first. A
	// server takes the client's first that it knows, and none otherwise.
	Subprotocols []string
	// Compress offers, or accepts, permessage-deflate. Every message is then
	// compressed alone, so that an idle connection holds no window.
	Compress bool
	// MaxMessage is the longest message that is handed over whole, and the longest
	// compressed one, before and after, in bytes; 16 MiB without one. Messages of
	// a stream that are not compressed have no limit: they are not kept.
	MaxMessage int
	// Text sends what is written as text messages and not as binary ones, each
	// Write as one where it is not too long. A letter that is cut off waits for its
	// rest; what is not UTF-8 loses the connection with ErrNotUTF8.
	Text bool
	// MaxHead is the longest head of a request or an answer, in bytes; 64 KiB
	// without one, and at most 128 KiB.
	MaxHead int
	// Timeout is how long the upgrade may take, 10 s without one. CloseTimeout is
	// how long to wait for the peer's answer to a close, 2 s without one.
	Timeout, CloseTimeout time.Duration
	// EOFWait is for peers that do not know weir-end: how long after WriteEOF
	// nothing must have moved for the connection to be closed both ways; 5 s
	// without one, and 1 ns is at once. Time in which reading is paused here, or in
	// which bytes wait to be sent, does not count. Below 0 it never is, and
	// CanWriteEOF is false.
	EOFWait time.Duration
	// MessageTimeout is how long a message that is kept, because it is compressed
	// or for a Receiver, may take from its first bytes to its last; 1 min without
	// one, below 0 no limit. Time in which reading is paused here does not count.
	MessageTimeout time.Duration
	// PingEvery is how often a peer that sends nothing is pinged; the connection
	// is lost with a *PongError if it has not answered by the next time. 0 is never.
	PingEvery time.Duration
	// Rand is where keys and masks come from; crypto/rand without one. It is used
	// under a lock.
	Rand io.Reader
}

// The defaults of a Config.
const (
	defaultCloseTimeout   = 2 * time.Second
	defaultEOFWait        = 5 * time.Second
	defaultMessageTimeout = time.Minute
)

// Receiver is a protocol above that takes messages whole. Its DataReceived is not
// called. It is looked for at every message, so it may be exchanged.
type Receiver interface {
	// MessageReceived hands over a message. p is lent until it returns. An error
	// loses the connection with that error.
	MessageReceived(k Kind, p []byte) error
}

// Messenger is the ability to send messages, of the transport above: weir.As
// finds it. Its methods belong to the loop's goroutine.
type Messenger interface {
	// SendMessage sends a message behind everything written before. It is
	// buffered, announced and flushed as Write's bytes are; p is copied. Long ones
	// leave in fragments. Text that is not UTF-8 is ErrNotUTF8.
	SendMessage(k Kind, p []byte) error
	// Ping sends a ping with at most 125 bytes; whatever the peer answers counts
	// for PingEvery and is not reported.
	Ping(p []byte) error
	// CloseWith closes as Close does, with a code and a reason, of which at most
	// 123 bytes are sent.
	CloseWith(c Code, reason string) error
	// Subprotocol is what both agreed on, "" for none.
	Subprotocol() string
	// RequestPath is what was asked for, with its query.
	RequestPath() string
	// PeerClose is what the peer's close said; 0 before it came.
	PeerClose() (Code, string)
}

// Server is the layer of a WebSocket's server.
func Server(c Config) layer.Layer { return newLayer(c, true) }

// Client is the layer of a WebSocket's client.
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

// shared is what the connections of one Layer share; they may be of several
// loops.
type shared struct {
	Config
	server    bool
	scratch   sync.Pool // *[scratchLen]byte
	writers   sync.Pool // *flate.Writer
	inflaters sync.Pool // *inflater

	mu   sync.Mutex
	rand io.Reader
	pool [256]byte // random, drawn at once because each draw may be a system call
	left int
}

// random fills p.
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
