package advice

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/layer"
)

// whyName says why a name did not resolve; "" for other errors.
func whyName(err error) string {
	e, ok := errors.AsType[*net.DNSError](err)
	if !ok {
		return ""
	}
	switch {
	case errors.Is(err, dns.ErrBusy):
		return "too many names are being looked up at a time"
	case e.IsTimeout:
		return "the name servers do not answer"
	case e.IsTemporary:
		return "the name servers cannot say"
	}
	return "name not found"
}

// serversTried are the name servers that were asked in vain, each with its last
// result.
func serversTried(err error) (all []string) {
	var e *dns.Error
	if !errors.As(err, &e) {
		return nil
	}
	for i, a := range e.Tried {
		if !slices.ContainsFunc(e.Tried[i+1:], func(b dns.Attempt) bool { return b.Server == a.Server }) {
			all = append(all, "name server "+a.Server.String()+": "+a.Err.Error())
		}
	}
	return all
}

const certificateNamesShown = 6

// certificateNames are the names that a certificate is for. Its CN comes before
// them if CNs were expected, and alone if it has no other name.
func certificateNames(e *layer.CertificateError) string {
	if len(e.Names) == 0 {
		return fmt.Sprintf("%.300q", e.Subject)
	}
	var names []string
	if leaf := leafOf(e); leaf != nil && e.Problem == layer.NotAllowed && strings.HasPrefix(e.Want, "CN ") {
		names = append(names, commonName(leaf))
	}
	for _, n := range e.Names[:min(len(e.Names), certificateNamesShown)] {
		names = append(names, shortName(n))
	}
	if more := len(e.Names) - certificateNamesShown; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

func commonName(c *x509.Certificate) string {
	if c.Subject.CommonName == "" {
		return "no CN"
	}
	return "CN " + shortName(c.Subject.CommonName)
}

// shortName is a name that a peer chose: in quotes unless it is a plain one.
func shortName(n string) string {
	quoted := fmt.Sprintf("%.200q", n)
	if plain := strings.Trim(quoted, `"`); plain == n && !strings.Contains(n, ", ") {
		return plain
	}
	return quoted
}

// leafOf is the peer's own certificate, nil if it sent none.
func leafOf(e *layer.CertificateError) *x509.Certificate {
	if len(e.Chain) == 0 {
		return nil
	}
	return e.Chain[0]
}

func nextForCertificate(e *layer.CertificateError, server bool) string {
	switch {
	case server && e.Problem == layer.UnknownAuthority:
		return "If that authority is yours: add its certificate to the file of client-ca."
	case e.Problem == layer.NotAllowed:
		return "If that is who you mean: add an allow-cn, allow-dns or allow-uri that names it."
	case e.Problem == layer.Ambiguous:
		return "Its issuer has to leave one name of that kind in it, or you allow it by another kind: allow-cn, allow-dns, allow-uri."
	case e.Problem == layer.OfAuthority:
		return "It needs a certificate of its own, issued without CA:TRUE (openssl: -addext basicConstraints=critical,CA:FALSE)."
	case server && e.Problem == layer.Missing:
		return "It has to send one: the client's side needs a certificate and its key."
	case e.Problem == layer.UnknownAuthority:
		return "If that authority is yours: add ,ca=FILE with its certificate."
	case e.Problem == layer.WrongName:
		return nextForName(e)
	case e.Problem == layer.Expired && !server:
		return "Whoever runs it has to renew the certificate, unless this machine's clock is wrong."
	case e.Problem == layer.Expired, e.Problem == layer.NotYetValid:
		return "Look at the clocks of both machines, and renew the certificate if they are right."
	}
	return ""
}

// nextForName says what to do about a certificate for another name.
func nextForName(e *layer.CertificateError) string {
	leaf := leafOf(e)
	if leaf == nil {
		return ""
	}
	for _, n := range leaf.DNSNames {
		if net.ParseIP(n) == nil && !strings.Contains(n, "*") {
			return fmt.Sprintf("If it is %.200q that you mean: add ,name=%.200s", n, n)
		}
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) > 0 {
		return "If that is who you mean: add ,name=NAME with a name from the certificate."
	}
	only := "no name at all"
	switch {
	case len(e.Names) > 0:
		only = "no host name and no address"
	case leaf.Subject.CommonName != "":
		only = fmt.Sprintf("only the subject's CN=%.200s", shortName(leaf.Subject.CommonName))
	}
	san := fmt.Sprintf("DNS:%.200s", e.Want)
	if net.ParseIP(e.Want) != nil {
		san = "IP:" + e.Want
	}
	return "Clients check the names of a certificate's SAN, never its CN, and it has " + only +
		": whoever runs it needs a new one, with subjectAltName=" + san
}
