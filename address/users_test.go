package address

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSecrets: a secret that is empty, missing, twice there or too long is
// refused before anything listens, by a text that names where it was read and
// does not show it.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	env := &Env{LookupEnv: func(key string) (string, bool) {
		v, ok := map[string]string{"EMPTY": "", "ENDS": "\r\n", "OK": "hunter2", "LONG": strings.Repeat("hunter2", 37)}[key]
		return v, ok
	}}
	for _, c := range []struct {
		option, want string // "": it is taken
		empty        bool
	}{
		{"user=a,password=env:OK", "", false},
		{"user=a,password=" + file("ok", "hunter2\n"), "", false},
		{"users=" + file("users", "a:hunter2\r\n\nb:x:y\n"), "", false},
		{"user=a,password=env:EMPTY", "password=env:EMPTY: it is empty", true},
		{"user=a,password=env:ENDS", "password=env:ENDS: it is empty", true},
		{"user=a,password=env:NONE", "the environment has no NONE", false},
		{"user=a,password=env:LONG", "it has 259 bytes", false},
		{"user=a,password=" + file("newline", "\n"), "newline: it is empty", true},
		{"user=a,password=file:" + filepath.Join(dir, "none"), "none: no such file", false},
		{"users=" + file("nobody", "\n\n"), "nobody: it is empty", true},
		{"users=" + file("bare", "b:hunter2\na:\n"), "bare, line 2: its password is empty", false},
		{"users=" + file("nameless", ":hunter2\n"), "nameless, line 1: it has no name", false},
		{"users=" + file("word", "hunter2\n"), "word, line 1: it is no name:password", false},
		{"users=" + file("twice", "a:hunter2\nb:1\na:2\n"), "twice, line 3: the user of line 1 again", false},
	} {
		for _, end := range []string{":1080+socks5,", ":1080+connect,", "p:1080+socks5:d:1,", "p:1080+connect:d:1,"} {
			if strings.HasPrefix(end, "p") && strings.HasPrefix(c.option, "users") {
				continue // for servers only
			}
			e, err := Default().Parse(end + c.option)
			if err != nil {
				t.Fatal(err)
			}
			err = e.Prepare(env)
			var secret *SecretError
			switch {
			case c.want == "" && err != nil, errors.Is(err, ErrEmptySecret) != c.empty:
				t.Errorf("%s%s: %v", end, c.option, err)
			case c.want == "":
			case !errors.As(err, &secret) || secret.Next == "" || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2"):
				t.Errorf("%s%s: %v (%T)", end, c.option, err, err)
			}
		}
	}
}

// TestColonInUser: what basic authentication cannot say is refused where it is
// written; SOCKS5 can say it.
func TestColonInUser(t *testing.T) {
	for _, s := range []string{":1080+connect,user=a:b,password=env:P", "p:1080+connect:d:1,user=a:b,password=env:P"} {
		if _, err := Default().Parse(s); err == nil || !strings.Contains(err.Error(), "colon") {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{":1080+socks5,user=a:b,password=env:P", "p:1080+socks5:d:1,user=a:b,password=env:P"} {
		if _, err := Default().Parse(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}
