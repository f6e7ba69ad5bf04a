package layer

import (
	"bytes"
	"encoding/base64"
	"net"
	"strconv"
	"strings"
	"syscall"
)

// connectLongest is how many bytes the head of a CONNECT or of its answer may
// have.
const connectLongest = 16 << 10

// Connect is a client of an HTTP proxy that is asked for a tunnel (CONNECT, RFC
// 9110, 9.3.6) to dest, a "host:port", with basic authentication where
// WithProxyUser is given. See SOCKS5.
func Connect(dest string, opts ...ProxyOption) Layer {
	c := proxyConfigOf(opts)
	return clientOf("connect", c, dest, func(host string, port uint16) clientWire {
		return &connectClient{c: c, dest: joinDestination(host, port)}
	})
}

// ConnectServer is an HTTP proxy that does CONNECT and nothing else. A request
// for anything else is answered with 405. See SOCKSServer.
func ConnectServer(opts ...ServeOption) Layer {
	c := serveConfigOf(opts)
	return server("connect", c, func() serverWire { return &connectServer{c: c} })
}

// head finds the end of an HTTP head and cuts it into lines. n is 0 if bytes are
// missing. Lines end with LF, with or without a CR in front (RFC 9112, 2.2).
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
		break // found, or it may go on
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
		if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); i >= 0 {
			return nil, 0, malformed("the head of the HTTP message contains %q", line[i])
		}
		lines = append(lines, line)
	}
	return lines, n, nil
}

// field cuts a header line. name is in lower case.
func field(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t") {
		return "", "", false
	}
	return strings.ToLower(name), strings.Trim(value, " \t"), true
}

// connectClient is CONNECT as the client sees it.
type connectClient struct {
	c    *proxyConfig
	dest string
	head head
}

func (w *connectClient) answered() net.Addr { return nil }

func (w *connectClient) start() ([]byte, error) {
	if w.c.bind {
		return nil, ErrProxyCommand
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
	return append(b, "\r\n"...), nil
}

func (w *connectClient) next(p []byte) (n int, reply []byte, e event, err error) {
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
	return n, nil, eventNone, proxyErrorHTTP(int(code), clip(reason))
}

func clip(s string) string { return s[:min(len(s), 100)] }

func proxyErrorHTTP(code int, reason string) *ProxyError {
	e := &ProxyError{Protocol: "connect", Code: code, Text: reason}
	switch code {
	case 401, 407:
		e.cause = ErrProxyAuth
	case 403:
		e.cause = ErrNotAllowed
	case 405, 501:
		e.cause = ErrProxyCommand
	case 504:
		e.cause = syscall.ETIMEDOUT
	}
	return e
}

// connectServer is CONNECT as the server sees it.
type connectServer struct {
	c    *serveConfig
	head head
	r    Request
}

func (w *connectServer) start() ([]byte, error) { return nil, nil }

func (w *connectServer) request() Request {
	w.r.answer = w
	return w.r
}

func (w *connectServer) next(p []byte) (n int, reply []byte, e event, err error) {
	for n < len(p) && (p[n] == '\r' || p[n] == '\n') {
		n++ // an empty line in front is ignored (RFC 9112, 2.2)
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
	code, err := w.ask(lines)
	if err == nil {
		return n, nil, eventAsked, nil
	}
	return n, answer(code, ""), eventNone, err
}

// ask reads a request, or says what to answer.
func (w *connectServer) ask(lines []string) (code int, err error) {
	part := strings.Split(lines[0], " ")
	if len(part) != 3 || len(part[2]) != len("HTTP/1.1") || !strings.HasPrefix(part[2], "HTTP/1.") {
		return 400, malformed("the client asked %q", clip(lines[0]))
	}
	auth, hosts := "", 0
	for _, line := range lines[1:] {
		name, value, ok := field(line)
		switch {
		case !ok:
			return 400, malformed("the client sent the header %q", clip(line))
		case name == "proxy-authorization":
			auth = value
		case name == "host":
			hosts++
		case name == "transfer-encoding", name == "content-length" && value != "0":
			return 400, malformed("a CONNECT with content")
		}
	}
	if w.c.users != nil && !w.check(auth) {
		return 407, ErrProxyAuth
	}
	if part[0] != "CONNECT" {
		return 405, ErrProxyCommand
	}
	if hosts > 1 {
		return 400, malformed("a CONNECT with %d Host headers", hosts)
	}
	host, port, err := splitDestination(part[1])
	if err == nil && port == 0 {
		err = malformed("a connection to port 0")
	}
	if err != nil {
		return 400, err
	}
	w.r.protocol, w.r.dest = "connect", joinDestination(host, port)
	return 0, nil
}

// check looks at a Proxy-Authorization header (RFC 7617).
func (w *connectServer) check(auth string) bool {
	scheme, token, _ := strings.Cut(auth, " ")
	text, err := base64.StdEncoding.DecodeString(strings.Trim(token, " "))
	user, password, ok := bytes.Cut(text, []byte(":"))
	if err != nil || !ok || !strings.EqualFold(scheme, "Basic") || !w.c.users.Check(string(user), string(password)) {
		return false
	}
	w.r.user = string(user)
	return true
}

func (w *connectServer) accept(ProxyCommand, net.Addr) []byte {
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
	case causeNetwork:
		return answer(502, "the destination's network cannot be reached")
	case causeRefused:
		return answer(502, "the destination refused the connection")
	default:
		return answer(502, "")
	}
}

// answer is a refusal.
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
