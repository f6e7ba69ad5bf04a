package proxy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/weir-io/weir/internal/refusal"
	"github.com/weir-io/weir/layer"
)

// connectLongest is how many bytes the head of a CONNECT or of its answer may
// have.
const connectLongest = 16 << 10

// Connect returns a client of an HTTP proxy that asks for a tunnel (CONNECT,
// RFC 9110, 9.3.6) to dest, a "host:port", with basic authentication if
// WithCredentials is given. See SOCKS5.
func Connect(dest string, opts ...ClientOption) layer.Layer {
	c := clientConfigOf(opts)
	return clientOf("connect", c, dest, func(host string, port uint16) clientWire {
		return &connectClient{c: c, dest: joinDestination(host, port)}
	})
}

// ConnectServer returns an HTTP proxy that supports CONNECT and nothing else.
// Any other request is answered with 405. See SOCKSServer.
func ConnectServer(opts ...ServerOption) layer.Layer {
	c := serverConfigOf(opts)
	return server("connect", c, func() serverWire { return &connectServer{c: c} })
}

// head finds the end of an HTTP head and cuts it into lines. n is 0 if bytes
// are missing. Lines end with LF, with or without a CR before it (RFC 9112,
// 2.2).
type head struct{ looked int }

func (h *head) cut(p []byte) (lines []string, n int, err error) {
	q := p[:min(len(p), connectLongest)]
	for i := h.looked; i < len(q); i++ {
		if q[i] != '\n' {
			continue
		}
		h.looked = i
		switch {
		case i+1 < len(q) && q[i+1] == '\n':
			n = i + 2
		case i+2 < len(q) && q[i+1] == '\r' && q[i+2] == '\n':
			n = i + 3
		case i+2 < len(q) || i+1 < len(q) && q[i+1] != '\r':
			continue
		}
		break // found, or more may follow
	}
	if n == 0 {
		if len(p) >= connectLongest {
			return nil, 0, malformed("the head of the HTTP message is longer than %d bytes", connectLongest)
		}
		return nil, 0, nil
	}
	h.looked = 0
	for line := range strings.SplitSeq(strings.TrimRight(string(q[:n]), "\r\n"), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if i := strings.IndexFunc(line, isControl); i >= 0 {
			return nil, 0, malformed("the head of the HTTP message contains %q", line[i])
		}
		lines = append(lines, line)
	}
	return lines, n, nil
}

// field splits a header line. name is in lower case.
func field(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t") {
		return "", "", false
	}
	return strings.ToLower(name), strings.Trim(value, " \t"), true
}

// MethodError reports a request to ConnectServer that does not ask for a
// tunnel. It also matches ErrCommand.
type MethodError struct {
	Method string // at most 20 bytes, as the client sent them
	// Absolute says that the request names a whole URL, as from a client that
	// takes ConnectServer for a proxy for plain http; otherwise it is a request
	// to a web server.
	Absolute bool
}

func (e *MethodError) Error() string {
	if e.Absolute {
		return fmt.Sprintf("the client sent %.20q with a URL, as to a proxy for plain http, and did not ask for a tunnel (CONNECT)", e.Method)
	}
	return fmt.Sprintf("the client sent %.20q, as to a web server, and did not ask for a tunnel (CONNECT)", e.Method)
}

// Unwrap returns ErrCommand.
func (e *MethodError) Unwrap() error { return ErrCommand }

// connectClient is the client's side of CONNECT.
type connectClient struct {
	c    *clientConfig
	dest string
	head head

	refusal *Error // set once its head has come, while its body is coming
	body    *refusal.Body
}

func (w *connectClient) answered() net.Addr { return nil }

func (w *connectClient) start() ([]byte, error) {
	if w.c.bind {
		return nil, ErrCommand
	}
	b := []byte("CONNECT " + w.dest + " HTTP/1.1\r\nHost: " + w.dest + "\r\n")
	if w.c.auth {
		if strings.ContainsRune(w.c.user, ':') { // RFC 7617, 2
			return nil, malformed("a user name in basic authentication has no colon")
		}
		b = append(b, "Proxy-Authorization: Basic "...)
		b = base64.StdEncoding.AppendEncode(b, []byte(w.c.user+":"+w.c.password))
		b = append(b, "\r\n"...)
	}
	for _, f := range w.c.header {
		if !isToken(f[0]) || strings.ContainsFunc(f[1], isControl) {
			return nil, malformed("a field named %q, which cannot be sent", clip(f[0]))
		}
		b = append(b, f[0]+": "+f[1]+"\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// isToken reports whether s can be the name of a field (RFC 9110, 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	})
}

func (w *connectClient) next(p []byte) (n int, reply []byte, e event, err error) {
	if w.refusal != nil {
		if n = w.body.Take(p); w.body.Whole() {
			err = w.refused()
		}
		return n, nil, eventNone, err
	}
	if k := min(len(p), len("HTTP/1.")); string(p[:k]) != "HTTP/1."[:k] {
		return 0, nil, eventNone, malformed("the proxy does not speak HTTP/1")
	}
	lines, n, err := w.head.cut(p)
	if err != nil || n == 0 {
		return 0, nil, eventNone, err
	}
	version, rest, _ := strings.Cut(lines[0], " ")
	digits, reason, _ := strings.Cut(rest, " ")
	code, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || len(digits) != 3 || len(version) != len("HTTP/1.1") {
		return 0, nil, eventNone, malformed("the proxy answered %q", clip(lines[0]))
	}
	switch {
	case code/100 == 1: // an interim answer
		return n, nil, eventNone, nil
	case code/100 == 2: // whatever its header says: no content follows
		return n, nil, eventOpen, nil
	}
	w.refusal, w.body = refusalOf(int(code), reason, lines[1:])
	if w.body.Whole() {
		return n, nil, eventNone, w.refused()
	}
	return n, nil, eventRefused, nil
}

// refused returns the refusal with as much of its body as has come; nil if the
// proxy has not refused.
func (w *connectClient) refused() error {
	if w.refusal == nil {
		return nil
	}
	w.refusal.Body = w.body.String()
	return w.refusal
}

// refusalOf returns a refusal without its text, which follows as body.
func refusalOf(code int, reason string, lines []string) (e *Error, body *refusal.Body) {
	e = errorHTTP(code, clip(reason))
	var fields [][2]string
	for _, line := range lines {
		name, value, ok := field(line)
		if !ok {
			continue
		}
		if name == "location" {
			e.Location = clip(value)
		}
		fields = append(fields, [2]string{name, value})
	}
	return e, refusal.Of(code, fields)
}

func clip(s string) string { return s[:min(len(s), 100)] }

// firstWord returns the first word of a peer's line, as far as it can be shown:
// what follows may hold a secret.
func firstWord(line string) string {
	word, _, _ := strings.Cut(line, " ")
	return word[:min(len(word), 20)]
}

// badField says what is wrong with a header line that field refuses. It shows
// nothing but the name: any value may be a secret.
func badField(line string) string {
	name, _, ok := strings.Cut(line, ":")
	switch {
	case line[:min(len(line), 1)] == " ", line[:min(len(line), 1)] == "\t":
		return "begins with a blank: a header on several lines is not accepted (RFC 9112, 5.2)"
	case !ok:
		return "is not a header: it has no colon"
	case name == "":
		return "is a header without a name"
	}
	return fmt.Sprintf("has a blank in the header name %q (RFC 9112, 5.1)", clip(name))
}

func errorHTTP(code int, reason string) *Error {
	e := &Error{Protocol: "connect", Code: code, Text: reason}
	switch code {
	case 401, 407:
		e.cause = ErrAuth
	case 403:
		e.cause = ErrNotAllowed
	case 405, 501:
		e.cause = ErrCommand
	case 504:
		e.cause = syscall.ETIMEDOUT
	}
	return e
}

// connectServer is the server's side of CONNECT.
type connectServer struct {
	c    *serverConfig
	head head
	turn turn
	r    Request
}

func (w *connectServer) grant(at turn) { w.turn = at }

func (w *connectServer) start() ([]byte, error) { return nil, nil }

func (w *connectServer) request() Request {
	w.r.answer = w
	return w.r
}

func (w *connectServer) next(p []byte) (n int, reply []byte, e event, err error) {
	for n < len(p) && (p[n] == '\r' || p[n] == '\n') {
		n++ // an empty line before it is ignored (RFC 9112, 2.2)
	}
	if n > 0 {
		return n, nil, eventNone, nil
	}
	if len(p) > 0 && (p[0] < 'A' || p[0] > 'Z') {
		return 0, answer(400, ""), eventNone, malformed("the client does not speak HTTP: it begins with %q", p[:1])
	}
	lines, n, err := w.head.cut(p)
	if err != nil {
		return 0, answer(431, ""), eventNone, err
	}
	if n == 0 {
		return 0, nil, eventNone, nil
	}
	code, e, err := w.ask(lines)
	switch {
	case err != nil:
		why := ""
		var other *MethodError
		if errors.As(err, &other) {
			why = "this proxy only makes tunnels (CONNECT): have the client tunnel, or use https"
		}
		return n, answer(code, why), eventNone, err
	case e == eventGuess:
		return 0, nil, e, nil
	}
	return n, nil, e, nil
}

// ask reads a request, or says what to answer.
func (w *connectServer) ask(lines []string) (code int, e event, err error) {
	part := strings.Split(lines[0], " ")
	if len(part) != 3 || len(part[2]) != len("HTTP/1.1") || !strings.HasPrefix(part[2], "HTTP/1.") {
		return 400, eventNone, malformed("the client's first line is not an HTTP/1 request: it begins with %q", firstWord(lines[0]))
	}
	auth, hosts := "", 0
	for i, line := range lines[1:] {
		name, value, ok := field(line)
		switch {
		case !ok:
			return 400, eventNone, malformed("line %d of the client's request %s", i+2, badField(line))
		case name == "proxy-authorization":
			auth = value
		case name == "host":
			hosts++
		case name == "transfer-encoding", name == "content-length" && value != "0":
			return 400, eventNone, malformed("a CONNECT with content")
		}
	}
	if w.c.users != nil {
		switch ok, e, err := w.check(auth); {
		case err != nil:
			return 407, eventNone, err
		case !ok:
			return 0, e, nil
		}
	}
	if part[0] != "CONNECT" {
		return 405, eventNone, &MethodError{Method: firstWord(part[0]), Absolute: !strings.HasPrefix(part[1], "/")}
	}
	if hosts > 1 {
		return 400, eventNone, malformed("a CONNECT with %d Host headers", hosts)
	}
	host, port, err := splitDestination(part[1])
	if err == nil && port == 0 {
		err = malformed("a connection to port 0")
	}
	if err != nil {
		return 400, eventNone, err
	}
	w.r.protocol, w.r.dest = "connect", joinDestination(host, port)
	return 0, eventAsked, nil
}

// check checks a Proxy-Authorization header (RFC 7617) when its turn comes. A
// missing header does not count as a guess: clients leave it out to ask which
// authentication is wanted.
func (w *connectServer) check(auth string) (ok bool, e event, err error) {
	scheme, token, _ := strings.Cut(auth, " ")
	text, err := base64.StdEncoding.DecodeString(strings.Trim(token, " "))
	user, password, ok := bytes.Cut(text, []byte(":"))
	if err != nil || !ok || !strings.EqualFold(scheme, "Basic") {
		return false, eventNone, ErrAuth
	}
	w.r.user = string(user)
	return w.c.check(w.turn, string(user), string(password))
}

func (w *connectServer) accept(Command, net.Addr) []byte {
	return []byte("HTTP/1.1 200 Connection established\r\n\r\n")
}

func (w *connectServer) bound(net.Addr) []byte { return nil } // CONNECT has no BIND

func (w *connectServer) refuse(err error) []byte {
	switch causeOf(err) {
	case causeNotAllowed:
		return answer(403, "not allowed by the rules")
	case causeTimeout:
		return answer(504, "the destination did not answer in time")
	case causeHost:
		return answer(502, "the destination was not found")
	case causeNames:
		return answer(502, "the name servers could not say where the destination is")
	case causeNetwork:
		return answer(502, "the destination's network cannot be reached")
	case causeRefused:
		return answer(502, "the destination refused the connection")
	default:
		return answer(502, "")
	}
}

// answer makes the answer of a refusal.
func answer(code int, why string) []byte {
	text, more := "", ""
	switch code {
	case 400:
		text = "Bad Request"
	case 403:
		text = "Forbidden"
	case 405:
		text, more = "Method Not Allowed", "Allow: CONNECT\r\n"
	case 407:
		text, more = "Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"weir\", charset=\"UTF-8\"\r\n"
	case 431:
		text = "Request Header Fields Too Large"
	case 502:
		text = "Bad Gateway"
	case 504:
		text = "Gateway Timeout"
	}
	if why == "" {
		why = strings.ToLower(text)
	}
	why += "\n"
	return []byte("HTTP/1.1 " + strconv.Itoa(code) + " " + text + "\r\n" + more +
		"Content-Type: text/plain\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(why)) + "\r\n\r\n" + why)
}
