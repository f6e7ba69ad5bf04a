package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir/layer"
)

// whyTLS says in a word or few why TLS failed; "" if it did not.
func whyTLS(err error) string {
	var (
		cert   *layer.CertificateError
		alert  *layer.AlertError
		cut    *layer.TruncatedError
		record tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &cert):
		return certificateProblem(cert)
	case errors.As(err, &alert):
		return alert.Error()
	case errors.As(err, &cut):
		return "truncated: TLS ended without its own end"
	case errors.As(err, &record):
		return "the other side does not speak TLS"
	case errors.Is(err, layer.ErrEarlyEnd):
		return "the other side hung up before it was agreed on"
	}
	return ""
}

func certificateProblem(e *layer.CertificateError) string {
	switch e.Problem {
	case layer.Missing:
		return "the client sent no certificate"
	case layer.UnknownAuthority:
		return "the certificate is signed by nobody we trust"
	case layer.WrongName:
		return "the certificate is for somebody else"
	case layer.Expired:
		return "the certificate has expired"
	case layer.NotYetValid:
		return "the certificate is not valid yet"
	case layer.NotAllowed:
		return "the certificate is not one that is allowed"
	case layer.Unacceptable:
	}
	return "the certificate cannot be used: " + strconv.Quote(e.Err.Error())
}

// showTLS puts the certificate's names and dates beside what was expected, and
// says what to do.
func (f *failure) showTLS(err error, server bool) {
	var alert *layer.AlertError
	if errors.As(err, &alert) && alert.Certificate() && !server {
		f.next = "It wants a certificate that it knows: add ,cert=FILE,key=FILE to +tls, or ask who runs it."
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) && !server {
		f.next = "Perhaps the port is for connections in the clear: try it without +tls."
	}
	var e *layer.CertificateError
	if !errors.As(err, &e) {
		return
	}
	if e.Problem != layer.Missing {
		f.detail = append(f.detail,
			"certificate  for "+certificateNames(e),
			"             valid from "+shortTime(e.NotBefore)+" until "+shortTime(e.NotAfter),
			"             issued by "+strconv.Quote(e.Issuer),
		)
		if want := certificateWanted(e); want != "" {
			f.detail = append(f.detail, "expected     "+want)
		}
	}
	f.next = nextForCertificate(e, server)
}

const certificateNamesShown = 6

func certificateNames(e *layer.CertificateError) string {
	if len(e.Names) == 0 {
		return fmt.Sprintf("%.300q", e.Subject)
	}
	var names []string
	for _, n := range e.Names[:min(len(e.Names), certificateNamesShown)] {
		quoted := fmt.Sprintf("%.200q", n)
		if plain := strings.Trim(quoted, `"`); plain == n {
			quoted = n
		}
		names = append(names, quoted)
	}
	if more := len(e.Names) - certificateNamesShown; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

func shortTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

func certificateWanted(e *layer.CertificateError) string {
	switch e.Problem {
	case layer.WrongName, layer.NotAllowed:
		return e.Want
	case layer.Expired, layer.NotYetValid:
		return "valid at " + shortTime(e.At) + ", which is now"
	case layer.UnknownAuthority:
		return "signed by an authority that is trusted here"
	case layer.Missing, layer.Unacceptable:
	}
	return ""
}

func nextForCertificate(e *layer.CertificateError, server bool) string {
	switch {
	case server && e.Problem == layer.UnknownAuthority:
		return "If that authority is yours: add its certificate to the file of client-ca."
	case server && e.Problem == layer.NotAllowed:
		return "If that is who you mean: add an allow-cn, allow-dns or allow-uri that names it."
	case server && e.Problem == layer.Missing:
		return "It has to show one: the client's side needs a certificate and its key."
	case e.Problem == layer.UnknownAuthority:
		return "If that authority is yours: add ,ca=FILE with its certificate."
	case e.Problem == layer.WrongName && net.ParseIP(e.Want) == nil, e.Problem == layer.WrongName && len(e.Names) > 0:
		for _, n := range e.Names {
			if net.ParseIP(n) == nil && !strings.Contains(n, "*") {
				return fmt.Sprintf("If it is %.200q that you mean: add ,name=%.200s", n, n)
			}
		}
		return "If that is who you mean: add ,name=NAME with a name from the certificate."
	case e.Problem == layer.Expired && !server:
		return "Whoever runs it has to renew the certificate, unless this machine's clock is wrong."
	case e.Problem == layer.Expired, e.Problem == layer.NotYetValid:
		return "Look at the clocks of both machines, and renew the certificate if they are right."
	}
	return ""
}
