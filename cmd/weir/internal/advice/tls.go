package advice

import (
	"crypto/tls"
	"errors"
	"strconv"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/proxy"
)

// whyTLS says in a few words why TLS failed; "" if it did not.
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
		return "truncated: TLS ended without a close_notify"
	case errors.As(err, &record):
		return "the other side does not speak TLS"
	case errors.Is(err, layer.ErrEarlyEnd):
		return "the peer closed the connection during the handshake"
	}
	return ""
}

// certificateProblems describe what is wrong with a certificate, if the problem
// alone says it.
var certificateProblems = map[layer.CertificateProblem]string{
	layer.Missing:          "the client sent no certificate",
	layer.UnknownAuthority: "the certificate is signed by no authority that is trusted here",
	layer.WrongName:        "the certificate is for another name",
	layer.Expired:          "the certificate has expired",
	layer.NotYetValid:      "the certificate is not valid yet",
	layer.NotAllowed:       "the certificate is not one that is allowed",
	layer.OfAuthority:      "the certificate is an authority's, not a peer's own",
}

func certificateProblem(e *layer.CertificateError) string {
	if text, ok := certificateProblems[e.Problem]; ok {
		return text
	}
	if e.Problem == layer.Ambiguous {
		return "the certificate does not say whose it is: " + e.Err.Error()
	}
	return "the certificate cannot be used: " + strconv.Quote(e.Err.Error())
}

// noSuchProtocol is the alert no_application_protocol (RFC 7301, 3.2).
const noSuchProtocol = 120

// Refused explains a connection to a listener on which a layer's handshake with
// the peer failed.
func Refused(t weir.Transport, err *weir.AttemptError) *Failure {
	peer := t.RemoteAddr().String()
	if peer == "" { // of a UNIX socket
		peer = "a client of " + t.LocalAddr().String()
	}
	f := &Failure{
		Problem: "no connection with " + peer + ": " + string(err.Stage) + ": " + Why(err.Err),
		Facts:   append([]any{"peer", peer, "stage", string(err.Stage)}, Reason(err.Err)...),
		Kind:    "no connection: " + string(err.Stage),
	}
	var method *proxy.MethodError
	if errors.As(err.Err, &method) {
		f.Next = nextForMethod(method)
	}
	var other *endpoint.PeerError
	if errors.As(err.Err, &other) {
		f.Next = "To let it in, add to the listener: ,allow-user=" + strconv.FormatUint(uint64(other.UID), 10)
	}
	f.showTLS(err.Err, true)
	f.showUntrusted(err.Err)
	f.showUpgrade(nil, err.Err)
	return f
}

// nextForMethod is the next step for a client that mistakes +connect for another kind of server.
func nextForMethod(e *proxy.MethodError) string {
	if e.Absolute {
		return "For http:// addresses have the client tunnel (curl -p, or https), or listen with +socks5 and set ALL_PROXY=socks5h://HOST:PORT there instead of http_proxy."
	}
	return "It took the port for a web server: +connect is only for clients that have it set as their proxy."
}

// showTLS shows the certificate's names and dates next to what was expected,
// and says what to do.
func (f *Failure) showTLS(err error, server bool) {
	var alert *layer.AlertError
	if errors.As(err, &alert) && alert.Certificate() {
		f.Next = "It wants a certificate that it knows: add ,cert=FILE,key=FILE to +tls, or ask who runs it."
		if server {
			f.Next = "The client does not trust the certificate of cert=, or not for the name it asked for: openssl x509 -noout -text -in FILE shows its names, dates and issuer."
		}
	}
	switch {
	case server && errors.Is(err, layer.ErrProtocols):
		f.Next = "It offers none of the protocols of ,alpn=: have it offer one of them, or add ,alpn=PROTOCOL here."
	case errors.Is(err, layer.ErrProtocols):
		f.Next = "It does not know ALPN: leave ,alpn= out, or add ,alpn=http/1.1 if that is what it speaks."
	case !server && errors.As(err, &alert) && alert.Alert == noSuchProtocol:
		f.Next = "It speaks none of the protocols of ,alpn=: name one that it does, or leave alpn out."
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) && !server {
		f.Next = "Perhaps the port is for plain connections: try it without +tls."
	}
	var e *layer.CertificateError
	if !errors.As(err, &e) {
		return
	}
	if e.Problem != layer.Missing {
		f.Detail = append(f.Detail,
			"certificate  for "+certificateNames(e),
			"             valid from "+shortTime(e.NotBefore)+" until "+shortTime(e.NotAfter),
			"             issued by "+strconv.Quote(e.Issuer),
		)
		if want := certificateWanted(e); want != "" {
			f.Detail = append(f.Detail, "expected     "+want)
		}
	}
	f.Next = nextForCertificate(e, server)
}

func shortTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

func certificateWanted(e *layer.CertificateError) string {
	switch e.Problem {
	case layer.WrongName, layer.NotAllowed, layer.Ambiguous:
		return e.Want
	case layer.Expired, layer.NotYetValid:
		return "valid at " + shortTime(e.At) + ", which is now"
	case layer.UnknownAuthority:
		return "signed by an authority that is trusted here"
	case layer.Missing, layer.Unacceptable, layer.OfAuthority:
	}
	return ""
}
