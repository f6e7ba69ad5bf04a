package layer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// TruncatedError is the reason when a TLS peer's stream ended without a
// close_notify: what was received may not be all that was sent. It also matches
// io.ErrUnexpectedEOF.
type TruncatedError struct{}

func (*TruncatedError) Error() string {
	return "truncated: the stream ended without a close_notify"
}

// Unwrap returns io.ErrUnexpectedEOF.
func (*TruncatedError) Unwrap() error { return io.ErrUnexpectedEOF }

// AlertError is the reason when the peer ended TLS with an alert (RFC 8446,
// 6.2). A server that refuses a client's certificate says so with an alert;
// with TLS 1.3 it comes after the client's ConnectionMade.
type AlertError struct {
	Alert uint8  // its number
	Text  string // the name that crypto/tls gives it, such as "bad certificate"
	Err   error  // as crypto/tls reported it
}

func (e *AlertError) Error() string {
	s := "the peer sent the alert " + e.Text
	if e.Certificate() {
		s += ": it does not accept our certificate"
	}
	return s
}

// Unwrap returns what crypto/tls reported.
func (e *AlertError) Unwrap() error { return e.Err }

// ErrProtocols is the cause when a client offers application protocols (ALPN,
// RFC 7301, 3.2) and the server, which has some too, knows none of them, or,
// with WithProtocolRequired, when one side offers or chooses none. The error
// that wraps it quotes those of the client.
var ErrProtocols = errors.New("no application protocol in common (ALPN)")

// ErrRenegotiation is the cause when a peer asks for another handshake within a
// TLS 1.2 connection, which crypto/tls does not support: it answers with the
// alert no_renegotiation as a client, and with unexpected_message as a server.
var ErrRenegotiation = errors.New("the peer asked for a renegotiation, which is not supported")

// The numbers of the alerts about certificates, and of others.
const (
	alertBadRecordMAC           = 20
	alertNoRenegotiation        = 100
	alertBadCertificate         = 42
	alertUnsupportedCertificate = 43
	alertCertificateRevoked     = 44
	alertCertificateExpired     = 45
	alertCertificateUnknown     = 46
	alertUnknownCA              = 48
	alertAccessDenied           = 49
	alertCertificateRequired    = 116
)

// Certificate reports whether the alert says that our certificate, or the lack
// of one, is the reason.
func (e *AlertError) Certificate() bool {
	switch e.Alert {
	case alertBadCertificate, alertUnsupportedCertificate, alertCertificateRevoked, alertCertificateExpired,
		alertCertificateUnknown, alertUnknownCA, alertAccessDenied, alertCertificateRequired:
		return true
	}
	return false
}

// CertificateProblem is what is wrong with a peer's certificate.
type CertificateProblem string

// The problems.
const (
	UnknownAuthority CertificateProblem = "unknown authority" // no authority that we trust has signed it
	WrongName        CertificateProblem = "wrong name"        // it is for another name
	Expired          CertificateProblem = "expired"           // it is not valid any more
	NotYetValid      CertificateProblem = "not yet valid"     // it is not valid until later
	NotAllowed       CertificateProblem = "not allowed"       // it is valid, but certs.PeerRules do not allow it
	Ambiguous        CertificateProblem = "ambiguous"         // certs.PeerRules have one of its names, but it has several where only one could say whose it is
	OfAuthority      CertificateProblem = "of an authority"   // it may sign others, but a peer presented it as its own
	Missing          CertificateProblem = "missing"           // a client sent none
	Unacceptable     CertificateProblem = "not acceptable"    // any other problem; Err says which
)

// CertificateError is the reason when we do not accept the peer's certificate.
// The peer chose the text that it quotes: Error escapes it.
type CertificateError struct {
	Problem   CertificateProblem
	Want      string // what was expected instead: a name, rules; or ""
	Subject   string // the certificate's, as RFC 2253 writes it
	Issuer    string
	Names     []string // the DNS names, addresses and URIs that it is for
	NotBefore time.Time
	NotAfter  time.Time
	At        time.Time           // when it was checked
	Chain     []*x509.Certificate // as sent, the peer's own first; nil if Missing
	Err       error               // the cause
}

func (e *CertificateError) Error() string {
	if e.Problem == Missing {
		return "the peer sent no certificate, and one is required"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "certificate %s: ", e.Problem)
	switch e.Problem { //nolint:exhaustive // Missing has returned, and the rest is for default
	case WrongName, NotAllowed:
		fmt.Fprintf(&b, "it is for %s", e.names())
		if e.Want != "" {
			fmt.Fprintf(&b, ", not for %s", e.Want)
		}
	case Expired:
		fmt.Fprintf(&b, "it was valid until %s, and now is %s", day(e.NotAfter), day(e.At))
	case NotYetValid:
		fmt.Fprintf(&b, "it is valid from %s, and now is %s", day(e.NotBefore), day(e.At))
	case UnknownAuthority:
		fmt.Fprintf(&b, "it was issued by %q", e.Issuer)
	default:
		fmt.Fprintf(&b, "%q", e.Err)
	}
	if e.Problem != WrongName && e.Problem != NotAllowed {
		fmt.Fprintf(&b, " (for %s)", e.names())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *CertificateError) Unwrap() error { return e.Err }

// namesMax is how many names Error prints.
const namesMax = 8

func (e *CertificateError) names() string {
	if len(e.Names) == 0 {
		return fmt.Sprintf("%q", e.Subject)
	}
	var quoted []string
	if e.Problem == NotAllowed {
		quoted = append(quoted, fmt.Sprintf("%.300q", e.Subject)) // rules may be for its CN
	}
	for _, n := range e.Names[:min(len(e.Names), namesMax)] {
		quoted = append(quoted, fmt.Sprintf("%.200q", n))
	}
	if len(e.Names) > namesMax {
		quoted = append(quoted, fmt.Sprintf("%d more", len(e.Names)-namesMax))
	}
	return strings.Join(quoted, ", ")
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// unknownProtocols is how the error of crypto/tls about a client's ALPN begins.
// The error has no type of its own; the protocols follow, quoted, in brackets.
const unknownProtocols = "tls: client requested unsupported application protocols"

// reason turns what crypto/tls reports into an error of ours, if we have one
// for it. at is the time at which certificates were checked.
func reason(err error, at time.Time) error {
	var remote *net.OpError
	if errors.As(err, &remote) && remote.Op == "remote error" {
		// crypto/tls does not export the type of its alerts.
		if v := reflect.ValueOf(remote.Err); v.IsValid() && v.Kind() == reflect.Uint8 {
			text := strings.TrimPrefix(remote.Err.Error(), "tls: ")
			return &AlertError{Alert: uint8(v.Uint()), Text: text, Err: err}
		}
	}
	var (
		ours *CertificateError
		bad  *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &ours):
	case errors.As(err, &bad):
		ours = certificateError(bad.UnverifiedCertificates, bad.Err)
	case strings.HasPrefix(err.Error(), unknownProtocols):
		offered := strings.Trim(strings.TrimPrefix(err.Error(), unknownProtocols), " ()")
		return fmt.Errorf("%w: the client offers %.300s", ErrProtocols, offered)
	case err.Error() == "tls: client didn't provide a certificate":
		ours = &CertificateError{Problem: Missing, Err: err}
	default:
		return plainly(err)
	}
	ours.At = at
	var invalid x509.CertificateInvalidError
	if ours.Problem == Expired && errors.As(ours.Err, &invalid) && invalid.Cert != nil && at.Before(invalid.Cert.NotBefore) {
		ours.Problem = NotYetValid
	}
	return ours
}

// unexpectedMessage matches how crypto/tls reports a message that it did not
// expect, by the names of its own types: "*tls.clientHelloMsg when waiting for
// *tls.finishedMsg".
var unexpectedMessage = regexp.MustCompile(`^tls: received unexpected handshake message of type \*tls\.(\w+?)(?:Msg)?(?:TLS13)? when waiting for \*tls\.(\w+?)(?:Msg)?(?:TLS13)?$`)

// plainly puts into plain words what crypto/tls describes by its internals.
func plainly(err error) error {
	var local *net.OpError
	if errors.As(err, &local) && local.Op == "local error" && local.Err.Error() == tls.AlertError(alertNoRenegotiation).Error() {
		return ErrRenegotiation
	}
	m := unexpectedMessage.FindStringSubmatch(err.Error())
	switch {
	case m == nil:
		return err
	case m[2] == "helloRequest":
		return ErrRenegotiation
	}
	return &messageError{got: spaced(m[1]), want: spaced(m[2]), err: err}
}

// messageError reports an unexpected message.
type messageError struct {
	got, want string
	err       error
}

func (e *messageError) Error() string {
	return "the peer sent the message " + e.got + " where " + e.want + " was due"
}

func (e *messageError) Unwrap() error { return e.err }

// spaced writes a name such as clientHello as separate words.
func spaced(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

// certificateError describes what err says about a chain.
func certificateError(chain []*x509.Certificate, err error) *CertificateError {
	e := &CertificateError{Problem: Unacceptable, Chain: chain, Err: err}
	if len(chain) > 0 {
		leaf := chain[0]
		e.Subject, e.Issuer = leaf.Subject.String(), leaf.Issuer.String()
		e.NotBefore, e.NotAfter = leaf.NotBefore, leaf.NotAfter
		e.Names = certificateNames(leaf)
	}
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown):
		e.Problem = UnknownAuthority
	case errors.As(err, &name):
		e.Problem, e.Want = WrongName, name.Host
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.Problem = Expired
	}
	return e
}

// certificateNames lists everything a certificate is for.
func certificateNames(c *x509.Certificate) []string {
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return append(names, c.EmailAddresses...)
}
