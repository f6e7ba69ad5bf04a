package layer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// cipherSuites returns the cipher suites of TLS 1.2 that encrypt and
// authenticate at once, and whose keys die with the connection (RFC 9325, 4.2).
// crypto/tls keeps others for old peers: those with SHA-1, and those with CBC,
// whose padding has leaked secrets repeatedly.
func cipherSuites() []uint16 {
	var ids []uint16
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS12) && strings.HasPrefix(s.Name, "TLS_ECDHE_") && !strings.Contains(s.Name, "_CBC_") {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// The alerts of RFC 8446, 6.2, that report a refusal.
const (
	alertRecord        = 21
	alertInternalError = 80
	alertNoProtocol    = 120
)

var (
	errOffersNone  = fmt.Errorf("%w: the client offers none", ErrProtocols)
	errChoosesNone = fmt.Errorf("%w: the server chose none", ErrProtocols)
)

// requireProtocol refuses peers without an application protocol: see
// WithProtocolRequired.
func (s *tlsShared) requireProtocol() {
	needed := func(cfg *tls.Config) bool {
		return len(cfg.NextProtos) > 0 && !slices.Contains(cfg.NextProtos, "http/1.1")
	}
	if !s.needsProtocol {
		return
	}
	if !s.client {
		before := s.cfg.GetConfigForClient
		s.cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			cfg := s.cfg
			if before != nil {
				own, err := before(hello)
				if err != nil {
					return nil, err
				}
				if own != nil {
					cfg = own
				}
			}
			if len(hello.SupportedProtos) == 0 && needed(cfg) {
				return nil, errOffersNone
			}
			if cfg == s.cfg {
				cfg = nil
			}
			return cfg, nil
		}
		return
	}
	before := s.cfg.VerifyConnection
	s.cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol == "" && needed(s.cfg) {
			return errChoosesNone
		}
		if before != nil {
			return before(cs)
		}
		return nil
	}
}

// sayWhy replaces the alert internal_error, which crypto/tls sends whatever
// error GetConfigForClient returned, with no_application_protocol. The answer
// to a client's hello is in the clear.
func sayWhy(out []byte, err error) {
	if errors.Is(err, errOffersNone) && len(out) == headerLen+2 && out[0] == alertRecord && out[headerLen+1] == alertInternalError {
		out[headerLen+1] = alertNoProtocol
	}
}
