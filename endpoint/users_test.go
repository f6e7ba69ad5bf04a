package endpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSecrets: a secret that is empty, missing, given twice or too long is
// refused before anything listens, with a text that names where it was read but
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
		option, want string // "": it is accepted
		empty        bool
	}{
		{"user=a,password=env:OK", "", false},
		{"user=a,password=" + file("ok", "hunter2\n"), "", false},
		{"users=" + file("users", "a:hunter2\r\n\nb:x:y\n"), "", false},
		{"user=a,password=" + file("bom", "\ufeffhunter2\r\n"), "", false},
		{"user=a,password=" + file("utf16", "\xff\xfeh\x00u\x00n\x00t\x00e\x00r\x002\x00\r\x00\n\x00"), "", false},
		{"users=" + file("bomusers", "\ufeffa:hunter2\r\n\ufeffb:x:y\n"), "", false},
		{"users=" + file("utf16users", "a\x00:\x00b\x00\r\x00\n\x00"), "", false},
		{"user=a,password=" + file("nul", "hunter2\x00x\n"), "it is not text: it holds NUL bytes", false},
		{"users=" + file("long", strings.Repeat("hunter2\n", 1<<18)), "it is too long", false},
		{"user=a,password=" + file("lines", "hunter2\nb:hunter2\n"), "it has more than one line", false},
		{"user=a,password=env:EMPTY", "password=env:EMPTY: it is empty", true},
		{"user=a,password=env:ENDS", "password=env:ENDS: it is empty", true},
		{"user=a,password=env:NONE", "the environment variable NONE is not set", false},
		{"user=a,password=env:LONG", "it has 259 bytes", false},
		{"user=a,password=" + file("newline", "\n"), "newline: it is empty", true},
		{"user=a,password=file:" + filepath.Join(dir, "none"), "none: no such file", false},
		{"users=" + file("nobody", "\n\n"), "nobody: it is empty", true},
		{"users=" + file("bare", "b:hunter2\na:\n"), "bare, line 2: its password is empty", false},
		{"users=" + file("nameless", ":hunter2\n"), "nameless, line 1: it has no name", false},
		{"users=" + file("word", "hunter2\n"), "word, line 1: it is not of the form name:password", false},
		{"users=" + file("twice", "a:hunter2\nb:1\na:2\n"), "twice, line 3: it names the user of line 1 again", false},
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

// TestSecretsRead: only the text of a secret is read, however it was written.
func TestSecretsRead(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"plain": "hunter2", "nl": "hunter2\n", "crlf": "hunter2\r\n", "bom": "\ufeffhunter2\r\n",
		"utf16": "\xff\xfeh\x00u\x00n\x00t\x00e\x00r\x002\x00\r\x00\n\x00", "be": "\xfe\xff\x00h\x00u\x00n\x00t\x00e\x00r\x002",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := Default().Parse("p:1080+socks5:d:1,user=a,password=file:" + path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := proxyPassword(&Env{}, e.Layers[0]); err != nil || got != "hunter2" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if e, err = Default().Parse("1080+socks5,users=file:" + path + "s"); err != nil {
			t.Fatal(err)
		}
		users := strings.ReplaceAll(text, "hunter2", "ann:hunter2")
		switch name {
		case "utf16":
			users = "\xff\xfea\x00n\x00n\x00:\x00" + text[2:]
		case "be":
			users = "\xfe\xff\x00a\x00n\x00n\x00:" + text[2:]
		}
		if err := os.WriteFile(path+"s", []byte(users), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := proxyUsers(&Env{}, e.Layers[0]); err != nil || len(got) != 1 || got["ann"] != "hunter2" {
			t.Errorf("users in %s: %q, %v", name, got, err)
		}
	}
}

// TestColonInUser: what basic authentication cannot express is refused where it
// is written; SOCKS5 can express it.
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
