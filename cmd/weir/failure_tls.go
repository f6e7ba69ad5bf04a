package main

import (
	"crypto/tls"
	"errors"
	"strconv"
	"time"

	"github.com/weir-io/weir"
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

// noSuchProtocol is the alert no_application_protocol (RFC 7301, 3.2).
const noSuchProtocol = 120

// refusedFailure explains a connection to a listener on which a layer could not
// agree with the peer.
func refusedFailure(t weir.Transport, err *weir.AttemptError) *failure {
	peer := t.RemoteAddr().String()
	f := &failure{
		problem: "no connection with " + peer + ": " + string(err.Stage) + ": " + why(err.Err),
		facts:   append([]any{"peer", peer, "stage", string(err.Stage)}, reasonFields(err.Err)...),
	}
	f.showTLS(err.Err, true)
	f.showUntrusted(err.Err)
	return f
}

// showTLS puts the certificate's names and dates beside what was expected, and
// says what to do.
func (f *failure) showTLS(err error, server bool) {
	var alert *layer.AlertError
	if errors.As(err, &alert) && alert.Certificate() && !server {
		f.next = "It wants a certificate that it knows: add ,cert=FILE,key=FILE to +tls, or ask who runs it."
	}
	switch {
	case server && errors.Is(err, layer.ErrProtocols):
		f.next = "It offers none of the protocols of ,alpn=: have it offer one of them, or add ,alpn=PROTOCOL here."
	case !server && errors.As(err, &alert) && alert.Alert == noSuchProtocol:
		f.next = "It speaks none of the protocols of ,alpn=: name one that it does, or leave alpn out."
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
