package certs

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// PeerRules say whose certificates are accepted, among those that an authority we trust
// has signed. One match of any kind is enough. If several names of a kind would leave
// it open whose certificate it is, there may be only one of them: a subject with two
// common names matches nothing, nor does a SPIFFE ID next to another URI (X509-SVID,
// 2). An authority's own certificate is refused. The zero value has no rules.
type PeerRules struct {
	CommonNames []string // the subject's common name, compared exactly
	DNSNames    []string // a name that the certificate is for; the * in *.example.com stands for one label
	// URIs are names such as a SPIFFE ID, spiffe://example.org/billing. Scheme and host
	// are compared without regard to case, a path segment * stands for any one segment,
	// and ** as the last one for any number, including none.
	URIs []string
}

// Empty reports whether there are no rules.
func (r PeerRules) Empty() bool { return len(r.CommonNames)+len(r.DNSNames)+len(r.URIs) == 0 }

// String lists the rules, for messages.
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

// Allow reports whether a certificate satisfies the rules. It does not check who signed
// it.
func (r PeerRules) Allow(c *x509.Certificate) bool { return r.Check(c) == nil }

// The reasons why Check refuses a valid certificate.
var (
	// ErrNotAllowed: the rules allow none of its names.
	ErrNotAllowed = errors.New("the certificate is valid, but not one that is allowed")
	// ErrCommonNames and ErrURIs: the rules allow one of its names, but it has several
	// names of a kind of which only one may be present.
	ErrCommonNames = errors.New("it has more than one common name, so that none of them says whose it is")
	ErrURIs        = errors.New("it has more than one URI, and a SPIFFE ID stands alone")
	// ErrAuthority: it is an authority's own certificate.
	ErrAuthority = errors.New("it may sign others, and is not a peer's own")
)

// Check is Allow with the reason: nil, ErrNotAllowed, ErrCommonNames, ErrURIs or
// ErrAuthority.
func (r PeerRules) Check(c *x509.Certificate) error {
	if r.Empty() {
		return nil
	}
	if c.BasicConstraintsValid && c.IsCA {
		return ErrAuthority
	}
	if slices.ContainsFunc(c.DNSNames, func(n string) bool {
		return slices.ContainsFunc(r.DNSNames, func(rule string) bool { return matchDNS(rule, n) })
	}) {
		return nil
	}
	var ambiguous error
	switch names := commonNames(c); {
	case !slices.ContainsFunc(names, func(n string) bool { return n != "" && slices.Contains(r.CommonNames, n) }):
	case len(names) > 1:
		ambiguous = ErrCommonNames
	default:
		return nil
	}
	switch {
	case !slices.ContainsFunc(c.URIs, func(u *url.URL) bool {
		return slices.ContainsFunc(r.URIs, func(rule string) bool { return matchURI(rule, u) })
	}):
	case len(c.URIs) > 1 && slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return strings.EqualFold(u.Scheme, "spiffe") }):
		ambiguous = ErrURIs
	default:
		return nil
	}
	if ambiguous != nil {
		return ambiguous
	}
	return ErrNotAllowed
}

// commonNames returns all common names of a subject. Subject.CommonName has only the last
// of them.
func commonNames(c *x509.Certificate) []string {
	var names []string
	for _, a := range c.Subject.Names {
		if a.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			names = append(names, fmt.Sprint(a.Value))
		}
	}
	return names
}

// matchDNS reports whether a rule fits a name in a certificate. A wildcard in the
// certificate matches only the same wildcard in the rule.
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
