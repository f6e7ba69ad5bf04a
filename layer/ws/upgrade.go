package ws

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/weir-io/weir"
)

// The names of extensions.
const (
	extDeflate = "permessage-deflate"
	extEnd     = "weir-end"
)

// UpgradeError is an upgrade that the other side refused or did wrong.
type UpgradeError struct {
	Status int    // the HTTP status, where there is one
	Reason string // may hold the peer's words, quoted
}

func (e *UpgradeError) Error() string {
	if e.Status == 0 {
		return "upgrade: " + e.Reason
	}
	return fmt.Sprintf("upgrade: status %d: %s", e.Status, e.Reason)
}

// errConfig is a Config that cannot go over the wire.
var errConfig = errors.New("a path, host or field with a character that cannot stand there")

// ConnectionMade implements weir.Protocol.
func (s *session) ConnectionMade(t weir.Transport) {
	s.Begin(t)
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

// clean reports whether a value can stand in a head.
func clean(v string) bool {
	for _, c := range []byte(v) {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// request is a client's.
func (s *session) request(key string) ([]byte, error) {
	s.path = s.Path
	if s.path == "" {
		s.path = "/"
	}
	host := s.Host
	if host == "" {
		host = hostOf(s.Below().RemoteAddr().String())
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

// hostOf is an address as a Host field has it; a name of our own where it is none.
func hostOf(addr string) string {
	if addr == "" || strings.ContainsAny(addr, "/@ %") || !clean(addr) {
		return "localhost"
	}
	return strings.TrimSuffix(addr, ":80")
}

// upgrade takes the head, of a request or of an answer.
func (s *session) upgrade(p []byte) (int, error) {
	h, n, err := parseHead(p)
	if err == nil && n == 0 {
		return 0, nil
	}
	if s.server {
		s.answer(&h, err)
	} else {
		s.answered(&h, err)
	}
	if !s.IsReady() {
		return len(p), nil
	}
	return n, nil
}

// refuse answers a request in vain.
func (s *session) refuse(status int, text, reason string, fields ...string) {
	b := "HTTP/1.1 " + strconv.Itoa(status) + " " + text + "\r\n"
	for _, f := range fields {
		b += f + "\r\n"
	}
	b += "Connection: close\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(len(text)+1) + "\r\n\r\n" + text + "\n"
	_, _ = s.Below().Write([]byte(b))
	s.FailGently(&UpgradeError{Status: status, Reason: reason})
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
	path, _, _ := strings.Cut(target, "?")
	wsVersion, _ := h.get("sec-websocket-version")
	switch {
	case !ok || version != "HTTP/1.1" || !isToken(method) || host == "" || !hostOK || !originOK || target == "" || target[0] != '/':
		s.refuse(400, "Bad Request", "not a request of HTTP/1.1")
	case s.Path != "" && path != s.Path:
		s.refuse(404, "Not Found", fmt.Sprintf("asked for %q", path))
	case method != "GET":
		s.refuse(405, "Method Not Allowed", fmt.Sprintf("asked with %q", method), "Allow: GET")
	case !h.has("upgrade", "websocket") || !h.has("connection", "upgrade"):
		s.refuse(426, "Upgrade Required", "no upgrade was asked for", "Upgrade: websocket")
	case wsVersion != "13":
		s.refuse(426, "Upgrade Required", fmt.Sprintf("version %q", wsVersion), "Upgrade: websocket", "Sec-WebSocket-Version: 13")
	case !keyOK || keyErr != nil || len(raw) != 16:
		s.refuse(400, "Bad Request", "no key of 16 bytes")
	case !s.originAllowed(origin, host):
		s.refuse(403, "Forbidden", fmt.Sprintf("of the origin %q", origin))
	default:
		s.path = target
		s.switched(h, key)
	}
}

// originAllowed: a browser says for which page it acts; others say nothing.
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

// switched accepts.
func (s *session) switched(h *head, key string) {
	b := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptOf(key) + "\r\n"
	var accepted []string
	for _, x := range parseExtensions(h.list("sec-websocket-extensions")) {
		switch {
		case x.name == extEnd && !s.ends && len(x.params) == 0:
			s.ends = true
			accepted = append(accepted, extEnd)
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

// acceptable reports whether an offer of permessage-deflate asks for nothing
// that is not kept to here (RFC 7692, 7.1).
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
				return false // windows here are of 32 KiB
			}
		default:
			return false
		}
	}
	return true
}

// answered is the client's part (RFC 6455, 4.1).
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
		bad = fmt.Sprintf("%q", rest)
	case version != "HTTP/1.1" || !h.has("upgrade", "websocket") || !h.has("connection", "upgrade"):
		bad = "the answer switches to something else"
	case !acceptOK || accept != s.accept:
		bad = "the answer is to another key"
	case proto != "" && !contains(s.Subprotocols, proto) || !protoOK:
		bad = fmt.Sprintf("the subprotocol %q was not offered", proto)
	}
	s.subprotocol = proto
	for _, x := range parseExtensions(h.list("sec-websocket-extensions")) {
		switch {
		case x.name == extEnd && !s.ends && len(x.params) == 0:
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

// kept reports whether an answer keeps to what was offered.
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

// begin goes over to frames.
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
