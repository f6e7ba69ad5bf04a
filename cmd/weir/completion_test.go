package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCompletion runs the scripts in their shells and asks them to complete.
func TestCompletion(t *testing.T) {
	cases := []struct {
		line string   // what is typed; the cursor is at its end
		want []string // among what is offered, as whole words
		not  []string
	}{
		{"weir ", []string{"demo", "explain", "tcp:", "stdio"}, []string{"--log"}},
		{"weir tcp-l", []string{"tcp-listen:"}, []string{"unix:", "demo"}},
		{"weir 8080 un", []string{"unix:", "unix-listen:"}, []string{"demo", "tcp:"}},
		{"weir 8080 a:1 --", []string{"--log", "--pick", "--check", "--quiet"}, []string{"tcp:"}},
		{"weir 8080 a:1 --log ", []string{"text", "json"}, []string{"tcp:"}},
		{"weir 8080 a:1 --stale ", nil, []string{"tcp:", "stdio"}},
		{"weir 8080 a:1 --allow ", nil, []string{"tcp:", "stdio"}},
		{"weir 8080 localhost:80,re", []string{"localhost:80,retry="}, []string{"localhost:80,backlog="}},
		{"weir 8080,", []string{"8080,backlog=", "8080,reuseport"}, []string{"8080,retry="}},
		{"weir 8080 /run/x,", []string{"/run/x,retry="}, []string{"/run/x,bind="}},
		{"weir 8080 unix:/run/x,nothing,ti", []string{"unix:/run/x,nothing,timeout="}, nil},
		{"weir 8080+tls,cert=testdata/expl", []string{"8080+tls,cert=testdata/explain.golden"}, []string{"tcp:"}},
		{"weir completion ", []string{"bash", "zsh", "fish"}, []string{"tcp:"}},
		{"weir help ", []string{"kinds", "layers", "tcp"}, nil},
	}
	for _, shell := range []struct {
		name string
		argv func(script, line string) []string
	}{
		{"bash", bashCompletes},
		{"zsh", zshCompletes},
		{"fish", fishCompletes},
	} {
		t.Run(shell.name, func(t *testing.T) {
			if _, err := exec.LookPath(shell.name); err != nil {
				t.Skip(shell.name + " is not installed")
			}
			r := call(t, "completion", shell.name)
			if r.code != exitOK || r.err != "" {
				t.Fatalf("%+v", r)
			}
			script := filepath.Join(t.TempDir(), "completion")
			if err := os.WriteFile(script, []byte(r.out), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(shell.name, "-n", script).CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%v: %s", err, out)
			}
			for _, c := range cases {
				argv := shell.argv(script, c.line)
				cmd := exec.Command(argv[0], argv[1:]...)
				var errs strings.Builder
				cmd.Stderr = &errs
				out, err := cmd.Output()
				if err != nil || errs.Len() > 0 {
					t.Errorf("%q: %v: %s", c.line, err, errs.String())
				}
				var got []string
				for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
					word, _, _ := strings.Cut(l, "\t") // fish puts a description after it
					got = append(got, strings.TrimSpace(word))
				}
				for _, w := range c.want {
					if !slices.Contains(got, w) && !slices.Contains(got, strings.TrimSuffix(w, ":")) {
						t.Errorf("%q: %q is not offered, but %q", c.line, w, got)
					}
				}
				for _, w := range c.not {
					if slices.Contains(got, w) || slices.Contains(got, strings.TrimSuffix(w, ":")) {
						t.Errorf("%q: %q is offered", c.line, w)
					}
				}
			}
		})
	}
}

// bashCompletes calls the script's function as bash would, and puts back what
// bash treats as already typed: everything before the last : or =.
func bashCompletes(script, line string) []string {
	return []string{"bash", "--norc", "-c", `
		source "$1"
		COMP_LINE=$2 COMP_POINT=${#2}
		compopt() { :; }
		_weir
		word=${2##* } typed=${word%"${word##*[:=]}"}
		printf '%s\n' "${COMPREPLY[@]/#/$typed}"
	`, "bash", script, line}
}

// zshCompletes calls the function with what the completion system would set, and
// replaces its builtins, which work nowhere else.
func zshCompletes(script, line string) []string {
	return []string{"zsh", "-f", "-c", `
		compdef() { :; }
		source $1
		words=(${(s: :)2}) CURRENT=$#words
		[[ $2 == *' ' ]] && { words+=(''); CURRENT=$#words }
		prefix=
		compset() { prefix=${words[CURRENT]%"${words[CURRENT]#${~2}}"}; prefix=${words[CURRENT]%${words[CURRENT]##${~2}}}; }
		_files() { :; }
		offer() { local w; for w; [[ $prefix$w == ${words[CURRENT]}* ]] && print -r -- $prefix$w; true; }
		compadd() { while [[ $1 != -- ]]; do shift; done; shift; offer $@; }
		_describe() { local w; for w in ${(P)${@[(r)(flag|kind)]/(flag|kind)/list}}; do offer ${w%%:*}; done; }
		_weir
	`, "zsh", script, line}
}

func fishCompletes(script, line string) []string {
	return []string{"fish", "--no-config", "-c", `source $argv[1]; complete -C $argv[2]`, script, line}
}
