package endpoint

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error reports an endpoint string that is not valid. It is shown in three
// lines:
//
//	weir: unknown layer "tsl"
//	  localhost:3000+tsl
//	                 ^^^ did you mean "tls"?        (weir help layers)
type Error struct {
	Input    string // the string
	Pos, End int    // the bytes of Input that are wrong; Pos may be len(Input)
	Problem  string // what is wrong: `unknown layer "tsl"`
	Hint     string // what would be right: `did you mean "tls"?`, or ""
	Topic    string // what to pass to weir help, or ""
	secret   bool   // the wrong bytes must not be shown
}

// Error returns the three lines, without a newline at the end. Unprintable
// characters are shown escaped, and the carets are placed accordingly.
func (e *Error) Error() string {
	input, pos, end := e.Input, e.Pos, e.End
	if e.secret {
		input, end = input[:pos]+hidden, pos+len(hidden) // what follows may be the rest of it
	}
	for range secretsMost {
		from, to := secretIn(input)
		if from >= to {
			break
		}
		input = input[:from] + hidden + input[to:]
		pos, end = shifted(pos, from, to), shifted(end, from, to)
	}
	line, from, to := show(input, pos, end)
	var b strings.Builder
	fmt.Fprintf(&b, "weir: %s\n  %s\n  %s%s", Printable(Masked(e.Problem)), line, strings.Repeat(" ", from), strings.Repeat("^", max(to-from, 1)))
	if e.Hint != "" {
		b.WriteString(" " + Printable(Masked(e.Hint)))
	}
	if e.Topic != "" {
		b.WriteString("        (weir help " + e.Topic + ")")
	}
	return b.String()
}

// show renders s for a terminal and returns the columns in which the bytes
// pos..end appear.
func show(s string, pos, end int) (line string, from, to int) {
	var b strings.Builder
	column := 0
	from, to = -1, -1
	mark := func(i int) {
		if i >= pos && from < 0 {
			from = column
		}
		if i >= end && to < 0 {
			to = column
		}
	}
	for i := 0; i < len(s); {
		mark(i)
		r, n := utf8.DecodeRuneInString(s[i:])
		out := printable(s[i:i+n], r)
		b.WriteString(out)
		column += utf8.RuneCountInString(out)
		i += n
	}
	mark(len(s))
	if from < 0 {
		from = column
	}
	if to < 0 {
		to = column
	}
	return b.String(), from, to
}

// Printable escapes what must not be sent to a terminal or a log: control
// characters, escape sequences, bytes that are not UTF-8. The rest stays as it
// is. Use it on everything that a peer can choose.
func Printable(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		b.WriteString(printable(s[i:i+n], r))
		i += n
	}
	return b.String()
}

// printable returns a rune, whose bytes are s, in a form that can be shown.
func printable(s string, r rune) string {
	if r == utf8.RuneError && len(s) == 1 || !unicode.IsPrint(r) {
		return strings.Trim(strconv.Quote(s), `"`)
	}
	return s
}

// nearest returns the word of words that s is most likely a typo of, or "".
func nearest(s string, words []string) string {
	best, word := len(s)/3+1, ""
	for _, w := range words {
		if d := distance(strings.ToLower(s), w); d < best || d == best && word == "" && d < len(w) {
			best, word = d, w
		}
	}
	if word == "" && len(s) >= 2 {
		for _, w := range words {
			if strings.HasPrefix(w, s) {
				if word != "" {
					return "" // several: none is nearer
				}
				word = w
			}
		}
	}
	return word
}

// distance is the number of letters to insert, drop, change or swap with their
// neighbour to turn a into b (Damerau and Levenshtein, restricted).
func distance(a, b string) int {
	before := make([]int, len(b)+1)
	above := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}

// Nearest returns the word that s is most likely a typo of, or "" if none is
// near. It is used to make suggestions.
func Nearest(s string, words []string) string {
	if len(s) > 64 {
		return ""
	}
	return nearest(s, words)
}
