package layer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// PeerRules say whose certificates are accepted, among those that an authority
// we trust has signed. One match of any kind is enough. The zero value has no
// rules.
type PeerRules struct {
	CommonNames []string // the subject's common name, letter by letter
	DNSNames    []string // a name that the certificate is for; *.example.com stands for one label
	// URIs are names such as a SPIFFE ID, spiffe://example.org/billing. Scheme and
	// host are compared without regard to case, a segment * of the path stands for
	// any one segment, and ** as the last for any number, none included.
	URIs []string
}

func (r PeerRules) empty() bool { return len(r.CommonNames)+len(r.DNSNames)+len(r.URIs) == 0 }

func (r PeerRules) String() string {
	var parts []string
	for _, k := range []struct {
		what string
		all  []string
	}{{"CN ", r.CommonNames}, {"DNS ", r.DNSNames}, {"URI ", r.URIs}} {
		for _, n := range k.all {
			parts = append(parts, k.what+n)
		}
	}
	return strings.Join(parts, " or ")
}

// Allow reports whether a certificate satisfies the rules. It says nothing of
// who signed it.
func (r PeerRules) Allow(c *x509.Certificate) bool {
	if r.empty() || slices.Contains(r.CommonNames, c.Subject.CommonName) && c.Subject.CommonName != "" {
		return true
	}
	for _, n := range c.DNSNames {
		if slices.ContainsFunc(r.DNSNames, func(rule string) bool { return matchDNS(rule, n) }) {
			return true
		}
	}
	for _, u := range c.URIs {
		if slices.ContainsFunc(r.URIs, func(rule string) bool { return matchURI(rule, u) }) {
			return true
		}
	}
	return false
}

// matchDNS reports whether a rule fits a name of a certificate. A wildcard in the
// certificate fits only the same one in the rule.
func matchDNS(rule, name string) bool {
	rule, name = strings.ToLower(strings.TrimSuffix(rule, ".")), strings.ToLower(strings.TrimSuffix(name, "."))
	if rule == name {
		return true
	}
	suffix, ok := strings.CutPrefix(rule, "*.")
	if !ok {
		return false
	}
	label, rest, ok := strings.Cut(name, ".")
	return ok && label != "" && label != "*" && rest == suffix
}

// matchURI reports whether a rule fits a URI of a certificate.
func matchURI(rule string, u *url.URL) bool {
	r, err := url.Parse(rule)
	if err != nil || !strings.EqualFold(r.Scheme, u.Scheme) || !strings.EqualFold(r.Host, u.Host) ||
		r.User.String() != u.User.String() || r.Opaque != u.Opaque || r.RawQuery != u.RawQuery || r.Fragment != u.Fragment {
		return false
	}
	want, have := strings.Split(r.EscapedPath(), "/"), strings.Split(u.EscapedPath(), "/")
	for i, w := range want {
		if w == "**" && i == len(want)-1 {
			return true
		}
		if i >= len(have) || w != have[i] && (w != "*" || have[i] == "") {
			return false
		}
	}
	return len(have) == len(want)
}

// WithPeerRules accepts only peers whose certificate satisfies r. On a server
// it makes clients' certificates required. On a client whose configuration names
// no server the rules take the place of the name: the certificate must be
// signed by an authority that is trusted, and satisfy r. Where verifying is off
// (InsecureSkipVerify) the rules are, too, refused by every certificate: nobody
// vouches for what it says.
func WithPeerRules(r PeerRules) TLSOption {
	r.CommonNames, r.DNSNames, r.URIs = slices.Clone(r.CommonNames), slices.Clone(r.DNSNames), slices.Clone(r.URIs)
	return func(s *tlsShared) { s.rules = r }
}

// errNotAllowed is the cause where the rules do not fit.
var errNotAllowed = errors.New("the certificate is valid, but not one that is allowed")

// applyRules puts the rules into the configuration. They hold for resumed
// sessions, too.
func (s *tlsShared) applyRules() {
	if s.rules.empty() {
		return
	}
	cfg := s.cfg
	if !s.client && cfg.ClientAuth < tls.RequireAndVerifyClientCert {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	byRulesAlone := s.client && cfg.ServerName == "" && !cfg.InsecureSkipVerify
	if byRulesAlone {
		cfg.InsecureSkipVerify = true // of the name; the chain is verified below
	}
	before := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return &CertificateError{Problem: Missing, Err: errNotAllowed}
		}
		verified := len(cs.VerifiedChains) > 0
		if byRulesAlone {
			if err := verifyChain(cs.PeerCertificates, cfg); err != nil {
				return err
			}
			verified = true
		}
		if !verified || !s.rules.Allow(cs.PeerCertificates[0]) {
			e := certificateError(cs.PeerCertificates, errNotAllowed)
			e.Problem, e.Want = NotAllowed, s.rules.String()
			if !verified {
				e.Err = fmt.Errorf("%w: it was not verified", errNotAllowed)
			}
			return e
		}
		if before != nil {
			return before(cs)
		}
		return nil
	}
}

// verifyChain verifies a server's certificate for no name in particular.
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
