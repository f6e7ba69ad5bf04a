package layer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/certs"
)

// TLS returns a client's TLS (RFC 8446, and RFC 5246 for 1.2), implemented by
// crypto/tls and configured by cfg. As for tls.Client, cfg has to name the
// server, or to turn verification off. cfg is copied; nil means an empty one.
// If cfg has no CipherSuites, TLS 1.2 uses only those with forward secrecy and
// authenticated encryption, and none with CBC. If cfg has no
// ClientSessionCache, it gets one that all connections of the Layer share, so
// that a client that connects again resumes its session.
//
// The protocol above gets ConnectionMade after the handshake. Its peer's
// close_notify is its end of stream; a stream that ends without one is lost
// with a *TruncatedError. It can end its own direction alone: see
// WithReplyBeforeEOF for servers that do not expect that. A handshake that
// fails gives an *AttemptError of StageHandshake, whose cause may be a
// *CertificateError, an *AlertError, a *weir.PanicError from one of cfg's
// functions, or any other error of crypto/tls.
//
// weir.As finds the state of the connection:
//
//	s, ok := weir.As[interface{ ConnectionState() tls.ConnectionState }](t)
//
// The functions in cfg run on a goroutine that the loop waits for: they must
// not block, and must not call the loop's methods.
func TLS(cfg *tls.Config, opts ...TLSOption) Layer { return newTLS(cfg, true, opts) }

// TLSServer returns a server's TLS: see TLS. cfg needs a certificate, or a
// function that finds one.
func TLSServer(cfg *tls.Config, opts ...TLSOption) Layer { return newTLS(cfg, false, opts) }

// TLSOption is an option of TLS and TLSServer.
type TLSOption func(*tlsShared)

// WithHandshakeTimeout bounds the handshake, from the moment the transport
// below is connected; the default is 10 s, and a negative value means no bound.
func WithHandshakeTimeout(d time.Duration) TLSOption {
	return func(s *tlsShared) { s.handshakeTimeout = d }
}

// WithCloseTimeout bounds how long a Close waits for the peer to answer its
// close_notify, once everything has left; the default is a second. The answer
// is not needed: the connection ends cleanly without one.
func WithCloseTimeout(d time.Duration) TLSOption {
	return func(s *tlsShared) { s.closeTimeout = max(d, 1) }
}

// WithSilentEOF makes WriteEOF send nothing: no close_notify tells the peer
// that we have sent everything, until the connection is closed. It is for
// servers that take a close_notify for a hang-up and drop their answer, however
// late it comes. A peer that waits for our end of stream waits for ever: see
// WithReplyBeforeEOF.
func WithSilentEOF() TLSOption { return func(s *tlsShared) { s.silent = true } }

// WithHandshakeCap bounds how many of a server's handshakes are in progress on
// one loop; the default is 1,024. Beyond that, new handshakes wait, within
// their timeout. They are served in turn by address (an IPv6 address counts as
// its /64), and a place becomes free when a handshake ends by itself or is
// ended:
//
//   - with ErrCrowded, from the address with the most places, the handshake
//     whose peer has been silent for longest; this happens at once if a peer
//     whose address has fewer places wants one;
//   - with ErrStalled, the handshake whose peer has sent no whole record for
//     longest, if that is at least a second.
//
// Connections on which nothing has been received yet do not count: they cost
// nothing.
func WithHandshakeCap(n int) TLSOption {
	return func(s *tlsShared) { s.cap = max(n, 1) }
}

// WithHandshakeWorkers lets up to n handshake steps per loop run on other
// goroutines, while the loop serves other connections. The functions of the
// configuration may then be called at the same time as the loop's callbacks.
// Without this option the steps run one per turn while the loop waits: up to a
// fifth of a millisecond for an ECDSA key, and more than one for RSA. With it the
// last step of a TLS 1.3 server that asks for no client's certificate still runs
// there, a few in each turn: it takes hardly longer than to hand it over. The
// simulator has no workers.
func WithHandshakeWorkers(n int) TLSOption {
	return func(s *tlsShared) { s.workers = max(n, 0) }
}

// WithProtocolRequired makes an application protocol (ALPN, RFC 7301) mandatory
// if the configuration's NextProtos has any: a server refuses clients that
// offer none, with the alert no_application_protocol, and a client refuses
// servers that choose none. Without this option such connections go on without
// a protocol, as in RFC 7301. The cause of a refusal is ErrProtocols. If
// NextProtos has "http/1.1" the option has no effect, since that is what HTTP
// without ALPN speaks (RFC 9112).
func WithProtocolRequired() TLSOption { return func(s *tlsShared) { s.needsProtocol = true } }

// The defaults of TLS.
const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultCloseTimeout     = time.Second
	defaultHandshakeCap     = 1024
)

// tlsShared holds what the connections of one Layer share.
type tlsShared struct {
	cfg                            *tls.Config
	client, silent                 bool
	marks                          bool // markTickets was called
	foreign                        bool // functions of the caller's run after a server's first step
	handshakeTimeout, closeTimeout time.Duration
	silence                        time.Duration // of WithReplyBeforeEOF
	cap, workers                   int
	rules                          certs.PeerRules
	clientCAs                      *certs.AuthorityFile
	needsProtocol                  bool
	bufs                           sync.Pool // of *tlsBuffer
	joins                          sync.Pool // of *tlsJoined

	mu    sync.Mutex
	gates map[*weir.Loop]*gate
}

// tlsBuffer holds the plaintext of the records that are decrypted together.
// Each record gets more room than it can need, so that no Read ever fills it.
type tlsBuffer struct {
	b      [128<<10 + pieceMax + 1]byte
	pieces [][]byte // slices of b, one for each record
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
	s.foreign = cfg.VerifyConnection != nil || cfg.VerifyPeerCertificate != nil || cfg.WrapSession != nil
	s.joins.New = func() any { return &tlsJoined{make([]byte, 0, joinedMax)} }
	s.bufs.New = func() any { return &tlsBuffer{pieces: make([][]byte, 0, piecesMax)} }
	s.cfg.Renegotiation = tls.RenegotiateNever
	if s.cfg.CipherSuites == nil {
		s.cfg.CipherSuites = cipherSuites()
	}
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
	s.requireProtocol()
	return func(a Above) Above {
		return Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			c := &tlsConn{shared: s}
			return c.Init(c, "tls", a)
		}}
	}
}

// WithPeerRules accepts only peers whose certificate satisfies r. On a server
// it makes client certificates mandatory. On a client whose configuration names
// no server the rules take the place of the name: the certificate must be
// signed by a trusted authority, and satisfy r. If verification is off
// (InsecureSkipVerify), every certificate is refused: no one vouches for what
// it says.
func WithPeerRules(r certs.PeerRules) TLSOption {
	r.CommonNames, r.DNSNames, r.URIs = slices.Clone(r.CommonNames), slices.Clone(r.DNSNames), slices.Clone(r.URIs)
	return func(s *tlsShared) { s.rules = r }
}

// applyRules puts the rules into the configuration. They apply to resumed
// sessions, too. A server that verifies clients' certificates refuses those of
// authorities, with or without rules.
func (s *tlsShared) applyRules() {
	if s.rules.Empty() && s.client {
		return
	}
	cfg := s.cfg
	if !s.rules.Empty() && !s.client && cfg.ClientAuth < tls.RequireAndVerifyClientCert {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	byRulesAlone := s.client && cfg.ServerName == "" && !cfg.InsecureSkipVerify
	if byRulesAlone {
		cfg.InsecureSkipVerify = true // skips the name; the chain is verified below
	}
	before := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if byRulesAlone {
			if err := verifyChain(cs.PeerCertificates, cfg); err != nil {
				return err
			}
		}
		if err := s.checkPeer(cs, byRulesAlone); err != nil {
			return err
		}
		if before != nil {
			return before(cs)
		}
		return nil
	}
}

// checkPeer checks a certificate whose chain has been verified by crypto/tls
// or, if verified is true, by us.
func (s *tlsShared) checkPeer(cs tls.ConnectionState, verified bool) error {
	verified = verified || len(cs.VerifiedChains) > 0
	switch {
	case len(cs.PeerCertificates) == 0 && !s.rules.Empty():
		return &CertificateError{Problem: Missing, Err: certs.ErrNotAllowed}
	case len(cs.PeerCertificates) == 0:
		return nil
	}
	leaf := cs.PeerCertificates[0]
	err := s.rules.Check(leaf)
	problem := problemOf(err)
	switch {
	case !verified && !s.rules.Empty():
		problem, err = NotAllowed, fmt.Errorf("%w: it was not verified", certs.ErrNotAllowed)
	case err == nil && verified && !s.client && leaf.BasicConstraintsValid && leaf.IsCA:
		problem, err = OfAuthority, certs.ErrAuthority
	case err == nil:
		return nil
	}
	e := certificateError(cs.PeerCertificates, err)
	e.Problem, e.Want = problem, s.rules.String()
	return e
}

// problemOf returns the problem that an error of certs.PeerRules.Check stands
// for.
func problemOf(err error) CertificateProblem {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, certs.ErrAuthority):
		return OfAuthority
	case errors.Is(err, certs.ErrCommonNames), errors.Is(err, certs.ErrURIs):
		return Ambiguous
	}
	return NotAllowed
}

// verifyChain verifies a server's certificate without checking any name.
func verifyChain(chain []*x509.Certificate, cfg *tls.Config) error {
	opts := x509.VerifyOptions{Roots: cfg.RootCAs, Intermediates: x509.NewCertPool()}
	if cfg.Time != nil {
		opts.CurrentTime = cfg.Time()
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

// WithClientAuthorities makes a server require its clients' certificates and
// verify them with the authorities that a holds at each handshake. A session
// ticket cannot be resumed once the authorities do not vouch for its
// certificate any more.
func WithClientAuthorities(a *certs.AuthorityFile) TLSOption {
	return func(s *tlsShared) { s.clientCAs = a }
}

// followAuthorities makes the configuration follow the changes of a file of
// authorities.
func (s *tlsShared) followAuthorities() {
	if s.clientCAs == nil {
		return
	}
	s.cfg.ClientCAs = s.clientCAs.Pool()
	s.cfg.ClientAuth = tls.RequireAndVerifyClientCert
	var mu sync.Mutex
	latest := s.cfg
	s.cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool := s.clientCAs.Pool()
		mu.Lock()
		defer mu.Unlock()
		if pool != latest.ClientCAs {
			latest = s.cfg.Clone()
			latest.GetConfigForClient = nil
			latest.ClientCAs = pool
			if s.marks {
				markTickets(latest) // sealed with its own keys, so that old tickets are refused
			}
		}
		return latest, nil
	}
}
