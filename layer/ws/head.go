package ws

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"strings"
)

// headMax is the longest head of a request or an answer that is read, in bytes.
const headMax = 8 << 10

// head is the first line and the fields of an HTTP/1.1 message.
type head struct {
	line   string
	fields [][2]string // names in lower case
}

var (
	errHeadTooBig = errors.New("the head is too long")
	errHeadBad    = errors.New("not the head of an HTTP/1.1 message")
)

// parseHead reads the head at the beginning of b; n is its length, 0 if it is
// not complete.
func parseHead(b []byte) (h head, n int, err error) {
	end := bytes.Index(b[:min(len(b), headMax)], []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) >= headMax {
			return h, 0, errHeadTooBig
		}
		return h, 0, checkBegun(b)
	}
	lines := strings.Split(string(b[:end]), "\r\n")
	for i, l := range lines {
		for _, c := range []byte(l) {
			if c < ' ' && c != '\t' || c == 0x7f {
				return h, 0, errHeadBad
			}
		}
		if i == 0 {
			h.line = l
			continue
		}
		name, value, ok := strings.Cut(l, ":")
		if !ok || !isToken(name) {
			return h, 0, errHeadBad
		}
		h.fields = append(h.fields, [2]string{strings.ToLower(name), strings.Trim(value, " \t")})
	}
	return h, end + 4, nil
}

// checkBegun finds at once what can never become a head, so that a peer which
// speaks something else need not be waited for.
func checkBegun(b []byte) error {
	for i, c := range b {
		if c < ' ' && c != '\r' && c != '\n' && c != '\t' || c == 0x7f || c == '\n' && (i == 0 || b[i-1] != '\r') {
			return errHeadBad
		}
	}
	return nil
}

// isToken reports whether s is a token (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// get returns a field that must stand at most once; ok is false where it stands
// more often.
func (h *head) get(name string) (value string, ok bool) {
	n := 0
	for _, f := range h.fields {
		if f[0] == name {
			value = f[1]
			n++
		}
	}
	return value, n <= 1
}

// list returns the elements of a field that is a list, wherever they stand.
func (h *head) list(name string) []string {
	var all []string
	for _, f := range h.fields {
		if f[0] != name {
			continue
		}
		for _, e := range splitQuoted(f[1], ',') {
			if e = strings.Trim(e, " \t"); e != "" {
				all = append(all, e)
			}
		}
	}
	return all
}

// has reports whether a list has a token, in any case.
func (h *head) has(name, token string) bool {
	for _, e := range h.list(name) {
		if strings.EqualFold(e, token) {
			return true
		}
	}
	return false
}

// splitQuoted splits at sep outside of quoted strings.
func splitQuoted(s string, sep byte) []string {
	var all []string
	from, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			all = append(all, s[from:i])
			from = i + 1
		}
	}
	return append(all, s[from:])
}

// extension is one that is offered or accepted (RFC 6455, 9.1).
type extension struct {
	name   string
	params [][2]string
}

func parseExtensions(list []string) []extension {
	var all []extension
	for _, e := range list {
		parts := splitQuoted(e, ';')
		x := extension{name: strings.Trim(parts[0], " \t")}
		for _, p := range parts[1:] {
			k, v, _ := strings.Cut(p, "=")
			x.params = append(x.params, [2]string{strings.ToLower(strings.Trim(k, " \t")), strings.Trim(v, " \t\"")})
		}
		all = append(all, x)
	}
	return all
}

// acceptOf is what a server answers to a client's key (RFC 6455, 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // the RFC's
	return base64.StdEncoding.EncodeToString(sum[:])
}
