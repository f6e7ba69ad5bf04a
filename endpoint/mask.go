package endpoint

import (
	"regexp"
	"strings"
)

// hidden is what is shown in place of a secret. Its length reveals nothing.
const hidden = "***"

// secretsMost is how many secrets one text is searched for.
const secretsMost = 16

var (
	// secretOption matches an option that is named like a secret and whose
	// value is not a reference to one. What follows the value may belong to it:
	// a password may contain a comma or a plus.
	secretOption = regexp.MustCompile(`(?i)\b[a-z0-9_-]*(?:pas|users|pwd|psw|secret|token|credential|auth|apikey|api-key)[a-z0-9_-]*=`)
	// userInfo matches a name and a password as in URLs and in some proxies'
	// options; a plus or the like counts as part of the password only if the
	// text cannot be read otherwise.
	userInfo = []*regexp.Regexp{
		regexp.MustCompile(`://([^\s/:@]*):([^\s"]*)@`),
		regexp.MustCompile(`(?:^|[/,+= ":])([^\s/,+="@:]*):([^\s/",+:@]*)@`),
		regexp.MustCompile(`(?:^|[/,+= "])([^\s/,+="@:]*):([^\s"/][^\s"]*)@`),
	}
)

// Masked returns a text, such as an endpoint string that is not valid, and
// hides what looks like a secret written where it must not be: the value of an
// option like passwd=, and the password of user:password@host.
func Masked(s string) string {
	for range secretsMost {
		from, to := secretIn(s)
		if from >= to {
			break
		}
		s = s[:from] + hidden + s[to:]
	}
	return s
}

// secretIn finds the first secret that is not hidden yet.
func secretIn(s string) (from, to int) {
	best := [2]int{len(s), len(s)}
	for _, at := range secretOption.FindAllStringIndex(s, -1) {
		value := s[at[1]:]
		if value == "" || strings.HasPrefix(value, hidden) || strings.HasPrefix(value, "env:") || strings.HasPrefix(value, "file:") {
			continue
		}
		if at[1] < best[0] {
			best = [2]int{at[1], len(s)}
		}
		break
	}
	for _, form := range userInfo {
		for _, at := range form.FindAllStringSubmatchIndex(s, -1) {
			if password := s[at[4]:at[5]]; password != "" && !strings.Contains(password, hidden) && at[4] < best[0] {
				return at[4], at[5]
			}
		}
	}
	return best[0], best[1]
}

// shifted returns where a position in a text is after the bytes from..to were
// hidden.
func shifted(pos, from, to int) int {
	switch {
	case pos <= from:
		return pos
	case pos < to:
		return from
	}
	return pos - (to - from) + len(hidden)
}
