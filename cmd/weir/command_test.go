package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/endpoint"
)

// result is what a command did.
type result struct {
	code     int
	out, err string
}

// call runs a command line in this process. in is its standard input.
func call(t *testing.T, args ...string) result {
	t.Helper()
	dir := t.TempDir()
	open := func(name, text string) *os.File {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	stdin, stdout := open("in", ""), open("out", "")
	var stderr bytes.Buffer
	c := &command{
		args: args, stdin: stdin, stdout: stdout, stderr: &stderr,
		lookupEnv: func(string) (string, bool) { return "", false },
		home:      "/home/me",
		table:     endpoint.Default(),
	}
	code := c.run()
	out, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	// A relay closes them itself.
	_, _ = stdin.Close(), stdout.Close()
	return result{code, string(out), stderr.String()}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // on standard error
	}{
		{"8080", "weir: one endpoint is given, but two are needed"},
		{"frob", "unknown kind \"frob\""},
		{"dmeo", "weir: unknown word \"dmeo\"\n  did you mean weir demo?"},
		{"8080 localhost:3000+tsl", "weir: unknown layer \"tsl\"\n  localhost:3000+tsl\n                 ^^^"},
		{"80x localhost:3000", "weir: bad port \"80x\"\n  80x\n  ^^^ a port is a number from 0 to 65535"},
		{"8080 a:1 --lgo json", "weir: unknown flag --lgo\n  did you mean --log?"},
		{"8080 a:1 --log jsno", "weir: bad value \"jsno\" of --log\n  did you mean \"json\"?"},
		{"8080 a:1 --log", "weir: missing value of --log\n  write --log text|json"},
		{"8080 a:1 --quiet=yes", "weir: --quiet takes no value"},
		{"8080 a:1 --check soon a:2", "weir: --check: bad time \"soon\""},
		{"8080 a:1 --pick least", "weir: --pick and --check choose from several endpoints, but there is only one"},
		{"8080 a:1 :90", "weir: :90 cannot be one of several endpoints to choose from"},
		{"- -", "weir: standard input and output cannot be on both sides"},
		{"fd:3 fd:3", "weir: fd:3 cannot be on both sides"},
		{"8080 a:1 -- ls", "weir: a program follows --, but no endpoint here runs one"},
		{"demo -- ls", "weir: demo takes nothing after --"},
		{"demo now", "weir: demo takes no words, such as \"now\""},
		{"explain 8080", "weir: one endpoint is given, but two are needed"},
		{"explain", "weir: two endpoints are needed"},
		{"quote", "weir: quote what?"},
		{"completion", "weir: which shell?"},
		{"completion zhs", "weir: no completion for \"zhs\"\n  did you mean \"zsh\"?"},
		{"1080+socks5 localhost:3001", "all of them would end up there\n  to go where they ask write dial: weir 1080+socks5 dial"},
		{"localhost:3001 1080+connect", "all of them would end up there"},
		{"0.0.0.0:8080 localhost:3000", "to listen on every interface write :8080"},
		{"help rerty", "weir: nothing is called \"rerty\"\n  did you mean \"retry\"?"},
		{"help tpc", "weir: nothing is called \"tpc\"\n  did you mean \"tcp\"?"},
	} {
		r := call(t, strings.Fields(c.args)...)
		if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, c.want) {
			t.Errorf("weir %s: code %d, output %q, and\n%swant\n%s", c.args, r.code, r.out, r.err, c.want)
		}
	}
}

// TestOptionHelp: an option has its help, also as it is written in an endpoint.
func TestOptionHelp(t *testing.T) {
	for _, word := range []string{"retry", ",retry=", "cert"} {
		r := call(t, "help", word)
		if r.code != exitOK || !strings.Contains(r.out, "an option of ") || strings.Contains(r.out, "[-- argv]") {
			t.Errorf("weir help %s: %+v", word, r)
		}
	}
	if r := call(t, "help"); strings.Contains(r.out, "argv") {
		t.Error("the usage has words behind --, and nothing takes them")
	}
}

// TestFlagsAnywhere: a flag may stand anywhere, and - is an endpoint.
func TestFlagsAnywhere(t *testing.T) {
	for _, line := range []string{"--log json -q A B", "A --log=json B --quiet", "A B -q --log json"} {
		f, words, argv, err := parseFlags(strings.Fields(line))
		if err != nil || !f.json || !f.quiet || strings.Join(words, " ") != "A B" || argv != nil {
			t.Errorf("%s: %+v, %q, %q, %v", line, f, words, argv, err)
		}
	}
	_, words, argv, err := parseFlags(strings.Fields("- -,x -+tls B -- --log -q --"))
	if err != nil || strings.Join(words, " ") != "- -,x -+tls B" || strings.Join(argv, " ") != "--log -q --" {
		t.Errorf("%q, %q, %v", words, argv, err)
	}
}

// TestExplain compares the drawing with testdata/explain.golden.
func TestExplain(t *testing.T) {
	var got strings.Builder
	for _, line := range []string{
		"8080 example.com:80",
		":8080 /run/app.sock,retry=10s",
		"- tcp:::1:8080",
		"unix-listen:@name,backlog=9 localhost:6379,family=4,bind=127.0.0.2",
		"localhost:22 tcp-listen:192.0.2.7:2222,family=4",
		":5432 db1:5432 db2:5432 --pick least --check 2s",
		"8080 9090",
		"pipe:/tmp/in,out=/tmp/out 0",
		"fd:web ~/app.sock",
		"utp-listen:16881,connections=7,per-address=none+idle:5m+limit:100,per-address=2 utp:seed.example:16881,retry=30s,user-timeout=1m",
		"utp-listen::16881,half-close=1h utp:seed.example:16881,family=6,own-port+tls",
		"2323 serial:/dev/ttyUSB0,115200,7e1,retry=1h",
		"sctp-listen::3868 vsock:host:5000",
		"vsock-listen:5000 sctp:db:3868,bind=192.0.2.7,bind=198.51.100.7",
		"rfcomm-listen:3 rfcomm:01:23:45:67:89:AB:3",
	} {
		r := call(t, append([]string{"explain"}, strings.Fields(line)...)...)
		if r.code != exitOK || r.err != "" {
			t.Errorf("weir explain %s: code %d, %s", line, r.code, r.err)
		}
		got.WriteString("$ weir explain " + line + "\n" + r.out + "\n")
	}
	// A table with a layer: there is none in weir yet.
	table := endpoint.Default()
	table.Layers = append(table.Layers, &endpoint.Layer{
		Name: "wrap", Summary: "a layer of this test",
		Describe: func(_ *endpoint.Part, r endpoint.Role) string {
			if r.Server() {
				return "wraps, as the server"
			}
			return "wraps, as the client"
		},
	}, &endpoint.Layer{Name: "plain", Summary: "a layer without more to say"})
	c := &command{table: table}
	p, err := c.plan([]string{":8443+wrap+plain", "proxy:1080,nagle+plain+wrap"}, nil, flags{})
	if err != nil {
		t.Fatal(err)
	}
	got.WriteString("layers\n" + p.explain())
	want, err := os.ReadFile("testdata/explain.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

// TestVersion: it says which backend is used and what was probed (R15).
func TestVersion(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Setenv("WEIR_BACKEND", name)
		r := call(t, "version")
		if r.code != exitOK || !strings.Contains(r.out, runtime.GOOS) || !strings.Contains(r.out, "\nbackend: ") || !strings.Contains(r.out, strings.Join(weir.Backends(), ", ")) {
			t.Errorf("%s: code %d, %s", name, r.code, r.out)
		}
	}
}

func TestQuote(t *testing.T) {
	r := call(t, "quote", "a+b,c%d", "--", "-x+y")
	if r.code != exitOK || r.out != "a%2Bb%2Cc%25d\n-x%2By\n" {
		t.Errorf("%+v", r)
	}
}

// TestHelp: everything that can be written can be asked for.
func TestHelp(t *testing.T) {
	table := endpoint.Default()
	topics := append([]string{"kinds", "layers"}, table.KindNames()...)
	topics = append(topics, table.LayerNames()...)
	topics = append(topics, verbs()...)
	for _, d := range flagDocs() {
		topics = append(topics, d.name, "--"+d.name)
	}
	for _, topic := range topics {
		// After --, so that a flag is a word.
		r := call(t, "help", strings.TrimLeft(topic, "-"))
		if r.code != exitOK || r.out == "" {
			t.Errorf("weir help %s: %+v", topic, r)
		}
	}
	for _, k := range table.Kinds {
		r := call(t, "help", k.Name)
		for _, o := range k.Options {
			if !strings.Contains(r.out, "  "+o.Name) || !strings.Contains(r.out, o.Doc) {
				t.Errorf("weir help %s says nothing of %s:\n%s", k.Name, o.Name, r.out)
			}
		}
	}
	whole := call(t, "help")
	for _, topic := range topics {
		if !strings.Contains(whole.out, topic) {
			t.Errorf("weir help does not name %s", topic)
		}
	}
	for _, args := range [][]string{{"--help"}, {"demo", "--help"}, {"help", "demo"}, {"-V"}, {"version"}} {
		if r := call(t, args...); r.code != exitOK || r.out == "" || r.err != "" {
			t.Errorf("weir %q: %+v", args, r)
		}
	}
	if r := call(t); r.code != exitOK || strings.Count(r.out, "\n") > 14 || strings.Count(r.out, "\n  weir ") < 7 {
		t.Errorf("no arguments: half a screen with examples is wanted:\n%s", r.out)
	}
}

// TestIntroExamples: the examples work as shown.
func TestIntroExamples(t *testing.T) {
	c := &command{table: endpoint.Default()}
	found := 0
	for line := range strings.Lines(c.intro()) {
		cut, ok := strings.CutPrefix(line, "  weir ")
		if !ok || strings.HasPrefix(cut, "demo") || strings.HasPrefix(cut, "help") || strings.HasPrefix(cut, "explain") {
			continue
		}
		words := strings.Fields(cut)
		p, err := c.plan(words[:2], nil, flags{})
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if p.explain() == "" {
			t.Errorf("%s: nothing to explain", line)
		}
		found++
	}
	if found != 4 {
		t.Errorf("%d examples, want 4", found)
	}
}

func TestSizesAndSpans(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1234: "1.2 kB", 9949: "9.9 kB", 9999: "10 kB", 123456: "123 kB", 999999: "1.0 MB", 5 << 30: "5.4 GB"} {
		if got := size(n); got != want {
			t.Errorf("%d bytes: got %s, want %s", n, got, want)
		}
	}
	for d, want := range map[string]string{"0s": "0s", "123ns": "123ns", "701.53ms": "702ms", "1.2345s": "1.23s", "2.6891ms": "2.69ms", "12m3.4s": "12m3s"} {
		if got := span(mustDuration(t, d)); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

// TestEscaped: text that a peer chooses can neither control the terminal nor
// make two lines of one (docs/promises.md, Logs).
func TestEscaped(t *testing.T) {
	var out strings.Builder
	r := &reporter{w: &out}
	evil := "x\r\nweir: ready\x1b[31m\x00" + strings.Repeat("é", 10)
	r.line(dim, "open", evil)
	r.fail(0, &advice.Failure{Problem: evil, Tried: []string{evil}, Next: evil})
	r.logger().Warn(evil, "key", evil)
	if strings.ContainsAny(out.String(), "\r\x1b\x00") || strings.Count(out.String(), "\n") != 5 {
		t.Errorf("got %q", out.String())
	}
	if !strings.Contains(out.String(), "éé") {
		t.Error("letters are escaped too")
	}
}

// TestColour: on a terminal only, and not with NO_COLOR.
func TestColour(t *testing.T) {
	for _, c := range []struct {
		terminal bool
		env      string
		want     bool
	}{{true, "", true}, {true, "1", false}, {false, "", false}} {
		cmd := &command{stderr: io.Discard, terminal: c.terminal, lookupEnv: func(k string) (string, bool) {
			return c.env, k == "NO_COLOR"
		}}
		if got := newReporter(cmd, flags{}).colour; got != c.want {
			t.Errorf("%+v: colour %v", c, got)
		}
	}
}
