package ws

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"strings"
)

// How long the head of a request or an answer may be, in bytes: by default, and
// at most, whatever Config.MaxHead says.
const (
	headDefault = 64 << 10
	headMax     = 128 << 10
)

// head is the first line and the fields of an HTTP/1.1 message.
type head struct {
	line   string
	fields [][2]string // names in lower case
}

var (
	errHeadTooBig = errors.New("the head is too long")
	errHeadBad    = errors.New("not the head of an HTTP/1.1 message")
)

// parseHead reads the head at the beginning of b, of at most most bytes; n is
// its length, 0 if it is not complete. looked is how many bytes of it have been
// searched so far, which parseHead updates.
func parseHead(b []byte, most int, looked *int) (h head, n int, err error) {
	from := max(0, *looked-3)
	end := bytes.Index(b[from:min(len(b), most)], []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) >= most {
			return h, 0, errHeadTooBig
		}
		err := checkBegun(b, *looked)
		*looked = len(b)
		return h, 0, err
	}
	end += from
	*looked = 0
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

// checkBegun detects at once bytes that can never become a head, so that we
// need not wait for a peer that speaks something else. The bytes before from
// have been checked.
func checkBegun(b []byte, from int) error {
	for i := from; i < len(b); i++ {
		c := b[i]
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

// get returns a field that must occur at most once; ok is false if it occurs
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

// hasBody reports whether content follows the head, or may.
func (h *head) hasBody() bool {
	for _, f := range h.fields {
		if f[0] == "transfer-encoding" || f[0] == "content-length" && strings.Trim(f[1], "0") != "" || f[0] == "content-length" && f[1] == "" {
			return true
		}
	}
	return false
}

// list returns the elements of a field that is a list, wherever they occur.
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

// has reports whether a list has a token, ignoring case.
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

// extension is an extension that is offered or accepted (RFC 6455, 9.1).
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

// acceptOf returns what a server answers to a client's key (RFC 6455, 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // the RFC's
	return base64.StdEncoding.EncodeToString(sum[:])
}
