package endpoint

import (
	"errors"
	"fmt"
	"strings"
)

// longestCredential is how many bytes a proxy's user name or password may have
// (RFC 1929, 2).
const longestCredential = 255

// proxyPassword reads the option password of a proxy.
func proxyPassword(env *Env, p *Part) (string, error) {
	password, err := env.Secret(p, "password")
	if err == nil && strings.ContainsAny(password, "\r\n") {
		return "", &SecretError{
			Option: "password", Where: p.Value("password"), Err: errors.New("it has more than one line"),
			Next: "Put the password alone on one line: perhaps you mean another file.",
		}
	}
	if err == nil && len(password) > longestCredential {
		return "", &SecretError{
			Option: "password", Where: p.Value("password"), Err: fmt.Errorf("it has %d bytes", len(password)),
			Next: "A password has 1 to 255 bytes: perhaps you mean another file.",
		}
	}
	return password, err
}

// proxyUsers returns the users configured for a proxy server, passwords by
// name; none if none are configured.
func proxyUsers(env *Env, p *Part) (map[string]string, error) {
	users := map[string]string{}
	switch {
	case p.Has("users"):
		text, err := env.Secret(p, "users")
		if err != nil {
			return nil, err
		}
		lines := map[string]int{}
		for i, line := range strings.Split(text, "\n") {
			line = strings.TrimPrefix(strings.TrimSuffix(line, "\r"), "\ufeff") // concatenated files have several
			if line == "" {
				continue
			}
			wrong, next := "", "Write a name:password on each line."
			name, password, ok := strings.Cut(line, ":")
			switch { // the line must not be shown
			case !ok:
				wrong = "it is not of the form name:password"
			case name == "":
				wrong = "it has no name"
			case password == "":
				wrong, next = "its password is empty; a password must not be empty", "Give that user a password, or take the line out."
			case len(name) > longestCredential || len(password) > longestCredential:
				wrong, next = "its name or password is too long", "Each has 1 to 255 bytes."
			case lines[name] > 0:
				wrong, next = fmt.Sprintf("it names the user of line %d again", lines[name]), "Keep one of the two lines."
			}
			if wrong != "" {
				return nil, &SecretError{Option: "users", Where: p.Value("users"), Line: i + 1, Err: errors.New(wrong), Next: next}
			}
			users[name], lines[name] = password, i+1
		}
	case p.Has("password"):
		password, err := proxyPassword(env, p)
		if err != nil {
			return nil, err
		}
		users[p.Value("user")] = password
	}
	return users, nil
}
