package layer

import (
	"crypto/tls"
	"sync"
	"time"

	"github.com/weir-io/weir"
)

// TLS is a client's TLS (RFC 8446, and RFC 5246 for 1.2), by crypto/tls, with
// what cfg says: as for tls.Client it has to name the server, or to say that
// nobody is to be verified. cfg is copied; nil is an empty one. Without a
// ClientSessionCache of its own it gets one that all connections of the Layer
// share, so that whoever connects again resumes its session.
//
// The protocol above gets ConnectionMade after the handshake. Its peer's
// close_notify is its end of stream; a stream that ends without one is lost
// with a *TruncatedError. It can end writing alone: see WithReplyBeforeEOF for
// servers that do not expect that. A handshake that
// fails gives an *AttemptError of StageHandshake, whose cause may be a
// *CertificateError, an *AlertError, a *weir.PanicError from one of cfg's
// functions, or whatever crypto/tls says.
//
// weir.As finds the state of the connection:
//
//	s, ok := weir.As[interface{ ConnectionState() tls.ConnectionState }](t)
//
// cfg's functions run on a goroutine that the loop waits for: they must not
// block, and must not call the loop's methods.
func TLS(cfg *tls.Config, opts ...TLSOption) Layer { return newTLS(cfg, true, opts) }

// TLSServer is a server's TLS: see TLS. cfg needs a certificate, or a function
// that finds one.
func TLSServer(cfg *tls.Config, opts ...TLSOption) Layer { return newTLS(cfg, false, opts) }

// TLSOption is an option of TLS and TLSServer.
type TLSOption func(*tlsShared)

// WithHandshakeTimeout bounds the handshake, from the moment the transport below
// is connected; the default is 10 s, below 0 is no bound.
func WithHandshakeTimeout(d time.Duration) TLSOption {
	return func(s *tlsShared) { s.handshakeTimeout = d }
}

// WithCloseTimeout bounds how long a Close waits for the peer to answer its
// close_notify, once everything has left; the default is a second. An answer is
// not needed for anything: the connection ends cleanly without one.
func WithCloseTimeout(d time.Duration) TLSOption {
	return func(s *tlsShared) { s.closeTimeout = max(d, 1) }
}

// WithSilentEOF keeps WriteEOF to ourselves: no close_notify tells the peer that
// we have said everything, until the connection is closed. It is for servers that
// take a close_notify for a hang-up and drop their answer, however late that
// comes. A peer that waits for our end waits for ever: see WithReplyBeforeEOF.
func WithSilentEOF() TLSOption { return func(s *tlsShared) { s.silent = true } }

// WithHandshakeCap bounds how many of a server's handshakes are in progress on
// one loop; the default is 1,024. Beyond it new ones wait, within their timeout, and where
// the peer of the one that has not moved for longest has been silent for a
// second, that one is ended with ErrStalled. Connections on which nothing was received
// yet do not count: they cost nothing.
func WithHandshakeCap(n int) TLSOption {
	return func(s *tlsShared) { s.cap = max(n, 1) }
}

// WithHandshakeWorkers lets up to n steps of handshakes, per loop, run on
// goroutines beside the loop's, which serves others meanwhile. Without it they
// run one a turn while the loop waits: up to a fifth of a millisecond for an
// ECDSA key, and more than one for RSA. Functions of the configuration may then
// be called at the same time as the loop's callbacks. In the simulator
// there are none.
func WithHandshakeWorkers(n int) TLSOption {
	return func(s *tlsShared) { s.workers = max(n, 0) }
}

// The defaults of TLS.
const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultCloseTimeout     = time.Second
	defaultHandshakeCap     = 1024
)

// tlsShared is what the connections of one Layer share.
type tlsShared struct {
	cfg                            *tls.Config
	client, silent                 bool
	marks                          bool // markTickets was called
	handshakeTimeout, closeTimeout time.Duration
	silence                        time.Duration // of WithReplyBeforeEOF
	cap, workers                   int
	rules                          PeerRules
	clientCAs                      *AuthorityFile
	bufs                           sync.Pool // of *tlsBuffer
	joins                          sync.Pool // of *tlsJoined

	mu    sync.Mutex
	gates map[*weir.Loop]*gate
}

// tlsBuffer holds the plaintext of the records that are decrypted together. Each
// gets more room than it can need, so that a Read that fills it never happens.
type tlsBuffer struct {
	b      [128<<10 + pieceMax + 1]byte
	pieces [][]byte // of b, one for each record
}

// piecesMax is how many records are decrypted before they are delivered.
const piecesMax = 64

// joinedMax is how many bytes of records leave in one write.
const joinedMax = 4 * (16<<10 + 256)

// tlsJoined holds records that are to leave together.
type tlsJoined struct{ b []byte }

func newTLS(cfg *tls.Config, client bool, opts []TLSOption) Layer {
	if cfg == nil {
		cfg = &tls.Config{}
	}
	s := &tlsShared{
		cfg: cfg.Clone(), client: client,
		handshakeTimeout: defaultHandshakeTimeout, closeTimeout: defaultCloseTimeout, cap: defaultHandshakeCap,
		gates: map[*weir.Loop]*gate{},
	}
	s.joins.New = func() any { return &tlsJoined{make([]byte, 0, joinedMax)} }
	s.bufs.New = func() any { return &tlsBuffer{pieces: make([][]byte, 0, piecesMax)} }
	s.cfg.Renegotiation = tls.RenegotiateNever
	if client && s.cfg.ClientSessionCache == nil {
		s.cfg.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	for _, o := range opts {
		o(s)
	}
	if !client && s.cfg.WrapSession == nil && s.cfg.UnwrapSession == nil && s.cfg.GetConfigForClient == nil {
		s.marks = true
		markTickets(s.cfg)
	}
	s.applyRules()
	s.followAuthorities()
	return func(a Above) Above {
		return Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			c := &tlsConn{shared: s}
			return c.Init(c, "tls", a)
		}}
	}
}
