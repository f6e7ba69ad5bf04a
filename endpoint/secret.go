package endpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/weir-io/weir/internal/textfile"
)

// SecretError reports a secret that cannot be used. It shows nothing of the
// secret.
type SecretError struct {
	Option string // the option that refers to it: "password"
	Where  string // where it was read: "env:NAME" or "file:PATH"
	Line   int    // of the file or the variable, from 1; 0: all of it
	Err    error  // what is wrong
	Next   string // what to do about it, as a sentence
}

func (e *SecretError) Error() string {
	at := ""
	if e.Line > 0 {
		at = fmt.Sprintf(", line %d", e.Line)
	}
	return e.Option + "=" + e.Where + at + ": " + e.Err.Error()
}

// Unwrap returns what is wrong.
func (e *SecretError) Unwrap() error { return e.Err }

// ErrEmptySecret is the cause when a secret exists but is empty: anyone could
// guess it.
var ErrEmptySecret = errors.New("it is empty; a secret must not be empty")

// secretMost is how many bytes a file with users or a password may have.
const secretMost = 1 << 20

// Secret reads what an option of type Secret refers to: an environment
// variable, or a file without the newline at its end. Its errors are
// *SecretErrors, which name the place and never the content; a secret that is
// empty, or consists only of line ends, gives ErrEmptySecret.
func (env *Env) Secret(p *Part, name string) (string, error) {
	return env.reference(name, p.Value(name))
}

// reference reads what ref refers to, for an option that errors name.
func (env *Env) reference(option, ref string) (string, error) {
	fail := func(err error, next string) (string, error) {
		return "", &SecretError{Option: option, Where: ref, Err: err, Next: next}
	}
	text, put := "", ""
	switch scheme, at, _ := strings.Cut(ref, ":"); scheme {
	case "env":
		v, ok := env.lookup(at)
		if !ok {
			return fail(fmt.Errorf("the environment variable %s is not set", at), "Set it, and export it: export "+at+"=…")
		}
		text, put = v, "Put the secret into the variable: export "+at+"=…"
	case "file":
		b, err := textfile.Read(env.Path(at), secretMost)
		if err != nil {
			next := "Name a file that this user can read."
			switch {
			case errors.Is(err, textfile.ErrNotText):
				next = "Write it as text, in UTF-8."
			case errors.Is(err, textfile.ErrTooLong):
				next = "It has at most 1 MiB: perhaps you mean another file."
			}
			var path *fs.PathError
			if errors.As(err, &path) {
				err = path.Err // the place is named already
			}
			return fail(err, next)
		}
		text, put = string(b), "Put the secret into the file."
	default:
		return fail(errors.New("no secret given"), "")
	}
	if strings.Trim(text, "\r\n") == "" {
		return fail(ErrEmptySecret, put)
	}
	if strings.HasPrefix(ref, "file:") {
		text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	}
	return text, nil
}
