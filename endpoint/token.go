package endpoint

import "strings"

// Token is a word of an endpoint string.
type Token struct {
	Text     string // with the escapes undone
	Raw      string // as written
	Pos, End int    // where Raw is in the string, in bytes
}

// source returns where the bytes from..to of Text were written.
func (t *Token) source(from, to int) (pos, end int) {
	pos, end = t.End, t.End
	for i, j := 0, 0; ; j++ { // i in Raw, j in Text
		if j == from {
			pos = t.Pos + i
		}
		if j == to {
			end = t.Pos + i
		}
		if i >= len(t.Raw) || j >= to {
			break
		}
		if t.Raw[i] == '%' {
			i += 3
		} else {
			i++
		}
	}
	if end <= pos {
		end = pos + 1
	}
	return pos, end
}

// Quote escapes s for use as an argument or a value: % as %25, + as %2B, and
// the comma as %2C. Nothing else needs escaping.
func Quote(s string) string {
	return escaper.Replace(s)
}

var escaper = strings.NewReplacer("%", "%25", "+", "%2B", ",", "%2C")

// unescape undoes Quote. An escape of anything else is an error, so that a %
// that was not escaped is found: at is its position.
func unescape(raw string) (text string, at int, ok bool) {
	if !strings.Contains(raw, "%") {
		return raw, 0, true
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			b.WriteByte(raw[i])
			continue
		}
		if i+3 > len(raw) {
			return "", i, false
		}
		switch raw[i+1 : i+3] {
		case "25":
			b.WriteByte('%')
		case "2B", "2b":
			b.WriteByte('+')
		case "2C", "2c":
			b.WriteByte(',')
		default:
			return "", i, false
		}
		i += 2
	}
	return b.String(), 0, true
}
