package ws

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weir-io/weir"
)

// The names of extensions.
const (
	extDeflate = "permessage-deflate"
	extEnd     = "weir-end"
)

// The parameter with which a server agrees to weir-end. It is not part of the
// offer, so that merely echoing the offer does not agree to it.
const endAgreed = "agreed"

// UpgradeError reports an upgrade that the other side refused or got wrong.
type UpgradeError struct {
	Status int    // the HTTP status, if there is one
	Reason string // may hold the peer's words, quoted
	// Location is where a server's answer sends a client, and Body the
	// beginning of its text. Quote them before showing them.
	Location, Body string
	// Host and Origin are the values for which a server of this package refused
	// a client.
	Host, Origin string
}

func (e *UpgradeError) Error() string {
	if e.Status == 0 {
		return "upgrade: " + e.Reason
	}
	text := fmt.Sprintf("upgrade: status %d: %s", e.Status, e.Reason)
	if e.Location != "" {
		text += fmt.Sprintf(", which leads to %q", e.Location)
	}
	if e.Body != "" {
		text += fmt.Sprintf(", and says %q", e.Body)
	}
	return text
}

// errConfig reports a Config that cannot be sent over the wire.
var errConfig = errors.New("a path, host or field with a character that is not allowed in it")

func (s *session) ConnectionMade(t weir.Transport) {
	s.Begin(t)
	s.begun = t.Loop().Now()
	s.SetDeadline(s.Timeout)
	if s.server {
		return
	}
	var nonce [16]byte
	if err := s.random(nonce[:]); err != nil {
		s.Fail(err)
		return
	}
	key := base64.StdEncoding.EncodeToString(nonce[:])
	req, err := s.request(key)
	if err != nil {
		s.Fail(err)
		return
	}
	s.accept = acceptOf(key)
	_, _ = t.Write(req) // a loss is reported by ConnectionLost
}

// clip returns as much of the peer's words as we repeat.
func clip(s string) string { return s[:min(len(s), 200)] }

// clean reports whether a value may appear in a head.
func clean(v string) bool {
	for _, c := range []byte(v) {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// request makes a client's request.
func (s *session) request(key string) ([]byte, error) {
	s.path = s.Path
	if s.path == "" {
		s.path = "/"
	}
	host := s.Host
	if host == "" {
		host = HostOf(s.Below().RemoteAddr().String(), s.secure())
	}
	fields := [][2]string{
		{"Host", host},
		{"Upgrade", "websocket"},
		{"Connection", "Upgrade"},
		{"Sec-WebSocket-Key", key},
		{"Sec-WebSocket-Version", "13"},
	}
	offer := extEnd
	if s.Compress {
		offer += ", " + extDeflate + "; client_no_context_takeover; server_no_context_takeover"
	}
	fields = append(fields, [2]string{"Sec-WebSocket-Extensions", offer})
	if len(s.Subprotocols) > 0 {
		fields = append(fields, [2]string{"Sec-WebSocket-Protocol", strings.Join(s.Subprotocols, ", ")})
	}
	fields = append(fields, s.Header...)
	b := []byte("GET " + s.path + " HTTP/1.1\r\n")
	if s.path[0] != '/' || strings.ContainsAny(s.path, " \t#") || !clean(s.path) {
		return nil, errConfig
	}
	for _, f := range fields {
		if !isToken(f[0]) || !clean(f[1]) {
			return nil, errConfig
		}
		b = append(b, f[0]+": "+f[1]+"\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// HostOf returns a "host:port" as it appears in a Host field (RFC 9110, 7.2):
// an IPv6 address in brackets and without its scope, which only this machine
// knows (RFC 6874, 4), and without the port if it is the scheme's default, 80,
// or 443 with TLS. Anything that is not a host:port, such as the path of a
// socket, becomes "localhost".
func HostOf(addr string, tls bool) string {
	at := strings.LastIndexByte(addr, ':')
	if at < 0 || strings.ContainsAny(addr, "/@ ") || !clean(addr) {
		return "localhost"
	}
	host, port := addr[:at], addr[at+1:]
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	host, _, _ = strings.Cut(host, "%")
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if tls && port == "443" || !tls && port == "80" {
		return host
	}
	return host + ":" + port
}

// upgrade handles the head of a request or of an answer.
func (s *session) upgrade(p []byte) (int, error) {
	if s.refused != nil {
		n := s.refused.body.Take(p)
		if s.refused.body.Whole() {
			s.Fail(s.refused.error())
		}
		return n, nil
	}
	skipped := 0
	for s.server && skipped+1 < len(p) && p[skipped] == '\r' && p[skipped+1] == '\n' {
		skipped += 2 // an empty line before it is ignored (RFC 9112, 2.2)
	}
	if skipped > 0 {
		s.looked = 0
		return skipped, nil
	}
	h, n, err := parseHead(p, s.MaxHead, &s.looked)
	if err == nil && n == 0 {
		return 0, nil
	}
	if err == nil && !s.server && interim(h.line) {
		return n, nil // the final answer is still to come (RFC 9110, 15.2)
	}
	if s.server {
		s.answer(&h, err)
	} else {
		s.answered(&h, err)
		if s.refused != nil && !s.refused.body.Whole() {
			return n, nil
		}
	}
	if !s.IsReady() {
		return len(p), nil
	}
	return n, nil
}

// refuse answers a request that is refused.
func (s *session) refuse(status int, text, reason string, fields ...string) {
	s.refuseWith(&UpgradeError{Status: status, Reason: reason}, text, fields...)
}

func (s *session) refuseWith(e *UpgradeError, text string, fields ...string) {
	status, reason := e.Status, e.Reason
	b := "HTTP/1.1 " + strconv.Itoa(status) + " " + text + "\r\n"
	for _, f := range fields {
		b += f + "\r\n"
	}
	body := text + ": " + reason + "\n"
	b += "Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	_, _ = s.Below().Write([]byte(b))
	s.FailGently(e)
}

// answer is the server's part of the upgrade (RFC 6455, 4.2).
func (s *session) answer(h *head, err error) {
	switch {
	case errors.Is(err, errHeadTooBig):
		s.refuse(431, "Request Header Fields Too Large", err.Error())
		return
	case err != nil:
		s.refuse(400, "Bad Request", err.Error())
		return
	}
	method, rest, _ := strings.Cut(h.line, " ")
	target, version, ok := strings.Cut(rest, " ")
	host, hostOK := h.get("host")
	key, keyOK := h.get("sec-websocket-key")
	origin, originOK := h.get("origin")
	raw, keyErr := base64.StdEncoding.DecodeString(key)
	target, host = originForm(target, host)
	path, _, _ := strings.Cut(target, "?")
	expect, expectOK := h.get("expect")
	wsVersion, _ := h.get("sec-websocket-version")
	switch {
	case !ok || version != "HTTP/1.1" || !isToken(method) || host == "" || !hostOK || !originOK || target == "" || target[0] != '/':
		s.refuse(400, "Bad Request", "not an HTTP/1.1 request")
	case h.hasBody():
		s.refuse(400, "Bad Request", "a request for an upgrade with a body")
	case !expectOK || expect != "" && !strings.EqualFold(expect, "100-continue"):
		s.refuse(417, "Expectation Failed", "it expects more than 100-continue")
	case !s.hostAllowed(host):
		s.refuseWith(&UpgradeError{Status: 403, Reason: fmt.Sprintf("asked for the host %q, which is not one of this server's", clip(host)), Host: hostName(clip(host))}, "Forbidden")
	case s.Path != "" && path != s.Path:
		s.refuse(404, "Not Found", fmt.Sprintf("asked for %q", clip(path)))
	case method != "GET":
		s.refuse(405, "Method Not Allowed", fmt.Sprintf("asked with %q", clip(method)), "Allow: GET")
	case !h.has("upgrade", "websocket") || !h.has("connection", "upgrade"):
		s.refuse(426, "Upgrade Required", "no upgrade was asked for", "Upgrade: websocket")
	case wsVersion != "13":
		s.refuse(426, "Upgrade Required", fmt.Sprintf("version %q", clip(wsVersion)), "Upgrade: websocket", "Sec-WebSocket-Version: 13")
	case !keyOK || keyErr != nil || len(raw) != 16:
		s.refuse(400, "Bad Request", "no key of 16 bytes")
	case !s.originAllowed(origin, host):
		s.refuseWith(&UpgradeError{Status: 403, Reason: fmt.Sprintf("of the origin %q", clip(origin)), Origin: clip(origin)}, "Forbidden")
	default:
		s.path = target
		if expect != "" { // RFC 9110, 7.8: one comes before the other
			_, _ = s.Below().Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
		}
		s.switched(h, key)
	}
}

// originForm turns the absolute form of a target (RFC 9112, 3.2.2), whose host
// takes precedence over the Host field, into the usual form.
func originForm(target, host string) (string, string) {
	scheme, rest, ok := strings.Cut(target, "://")
	switch {
	case !ok || target[0] == '/':
		return target, host
	case !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") && !strings.EqualFold(scheme, "ws") && !strings.EqualFold(scheme, "wss"):
		return "", host
	}
	at := strings.IndexAny(rest, "/?")
	if at < 0 {
		return "/", rest
	}
	if rest[at] == '?' {
		return "/" + rest[at:], rest[:at]
	}
	return rest[at:], rest[:at]
}

// hostAllowed checks the name by which a client calls this server.
func (s *session) hostAllowed(host string) bool {
	guard := s.GuardLoopback && !s.secure() && overLoopback(s.Below().LocalAddr())
	if len(s.Hosts) == 0 && !guard {
		return true
	}
	name := hostName(host)
	if guard && loopbackName(name) {
		return true
	}
	for _, h := range s.Hosts {
		if h == "*" || strings.EqualFold(h, host) || hostName(h) == name {
			return true
		}
	}
	return false
}

// secure reports whether TLS is below.
func (s *session) secure() bool {
	_, ok := weir.As[interface{ ConnectionState() tls.ConnectionState }](s.Below())
	return ok
}

// hostName returns a Host without its port, brackets and final dot, in lower
// case.
func hostName(host string) string {
	name := strings.ToLower(host)
	if at := strings.LastIndexByte(name, ':'); at >= 0 && at == strings.IndexByte(name, ':') || strings.Contains(name, "]:") {
		name = name[:at]
	}
	return strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"), ".")
}

func loopbackName(name string) bool {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.Unmap().IsLoopback()
}

func overLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// originAllowed checks for which page a browser says it acts; other clients do
// not say.
func (s *session) originAllowed(origin, host string) bool {
	if origin == "" {
		return true
	}
	if _, of, ok := strings.Cut(origin, "://"); ok && strings.EqualFold(of, host) {
		return true
	}
	for _, o := range s.Origins {
		if o == "*" || strings.EqualFold(o, origin) {
			return true
		}
	}
	return false
}

// switched accepts the upgrade.
func (s *session) switched(h *head, key string) {
	b := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptOf(key) + "\r\n"
	var accepted []string
	for _, x := range parseExtensions(h.list("sec-websocket-extensions")) {
		switch {
		case x.name == extEnd && !s.ends && len(x.params) == 0:
			s.ends = true
			accepted = append(accepted, extEnd+"; "+endAgreed)
		case x.name == extDeflate && s.Compress && !s.deflates && acceptable(x):
			s.deflates = true
			accepted = append(accepted, extDeflate+"; server_no_context_takeover; client_no_context_takeover")
		}
	}
	if len(accepted) > 0 {
		b += "Sec-WebSocket-Extensions: " + strings.Join(accepted, ", ") + "\r\n"
	}
	for _, p := range h.list("sec-websocket-protocol") {
		if s.subprotocol == "" && contains(s.Subprotocols, p) {
			s.subprotocol = p
			b += "Sec-WebSocket-Protocol: " + p + "\r\n"
		}
	}
	_, _ = s.Below().Write([]byte(b + "\r\n"))
	s.begin()
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

// acceptable reports whether we can fulfil everything that an offer of
// permessage-deflate asks for (RFC 7692, 7.1).
func acceptable(x extension) bool {
	seen := map[string]bool{}
	for _, p := range x.params {
		if seen[p[0]] {
			return false
		}
		seen[p[0]] = true
		switch p[0] {
		case "client_no_context_takeover", "server_no_context_takeover":
			if p[1] != "" {
				return false
			}
		case "client_max_window_bits":
			if n, err := strconv.Atoi(p[1]); p[1] != "" && (err != nil || n < 8 || n > 15) {
				return false
			}
		case "server_max_window_bits":
			if p[1] != "15" {
				return false // our windows are 32 KiB
			}
		default:
			return false
		}
	}
	return true
}

// answered is the client's part of the upgrade (RFC 6455, 4.1).
func (s *session) answered(h *head, err error) {
	if err != nil {
		s.Fail(&UpgradeError{Reason: err.Error()})
		return
	}
	version, rest, _ := strings.Cut(h.line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, numErr := strconv.Atoi(code)
	accept, acceptOK := h.get("sec-websocket-accept")
	proto, protoOK := h.get("sec-websocket-protocol")
	bad := ""
	switch {
	case version != "HTTP/1.1" && version != "HTTP/1.0" || numErr != nil || len(code) != 3:
		s.Fail(&UpgradeError{Reason: "the answer is not HTTP/1.1"})
		return
	case status != 101:
		s.refusedWith(h, status, rest)
		return
	case version != "HTTP/1.1" || !h.has("upgrade", "websocket") || !h.has("connection", "upgrade"):
		bad = "the answer switches to something else"
	case !acceptOK || accept != s.accept:
		bad = "the answer does not match the key"
	case proto != "" && !contains(s.Subprotocols, proto) || !protoOK:
		bad = fmt.Sprintf("the subprotocol %q was not offered", proto)
	}
	s.subprotocol = proto
	extensions := parseExtensions(h.list("sec-websocket-extensions"))
	if echoed(extensions) {
		extensions = nil // a server that repeats what it was offered has agreed to nothing
	}
	for _, x := range extensions {
		switch {
		case x.name == extEnd && !s.ends && len(x.params) == 1 && x.params[0] == [2]string{endAgreed, ""}:
			s.ends = true
		case x.name == extDeflate && s.Compress && !s.deflates && kept(x):
			s.deflates = true
		default:
			if bad == "" {
				bad = fmt.Sprintf("the extension %q was not offered like that", x.name)
			}
		}
	}
	if bad != "" {
		s.Fail(&UpgradeError{Status: status, Reason: bad})
		return
	}
	s.begin()
}

// echoed reports whether an answer repeats our offer of weir-end unchanged.
func echoed(all []extension) bool {
	for _, x := range all {
		if x.name == extEnd && len(x.params) == 0 {
			return true
		}
	}
	return false
}

// interim reports whether an answer's first line says that another one follows.
func interim(line string) bool {
	version, rest, _ := strings.Cut(line, " ")
	return version == "HTTP/1.1" && len(rest) >= 3 && rest[0] == '1' && rest[:3] != "101" && (len(rest) == 3 || rest[3] == ' ')
}

// kept reports whether an answer stays within what was offered.
func kept(x extension) bool {
	alone := false
	for _, p := range x.params {
		switch p[0] {
		case "server_no_context_takeover":
			alone = true
		case "client_no_context_takeover":
		case "server_max_window_bits":
			if n, err := strconv.Atoi(p[1]); err != nil || n < 8 || n > 15 {
				return false
			}
		default:
			return false
		}
	}
	return alone
}

// begin switches to frames.
func (s *session) begin() {
	s.parser.maxData = 1<<63 - 1
	if s.deflates {
		s.parser.rsv |= rsvDefl
	}
	if s.ends {
		s.parser.rsv |= rsvEnd
	}
	if s.Ready() && s.PingEvery > 0 {
		s.keep = s.Below().Loop().NewTimer(s.keepAlive)
		s.keep.Repeat(s.PingEvery)
	}
}
