package endpoint

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// examples are the command's worked examples; today says that an example uses
// only what exists now.
var examples = []struct {
	line  string
	argv  []string // the endpoints
	today bool
}{
	{line: "8080 example.com:80", today: true},
	{line: "- example.com:443+tls", today: true},
	{line: ":8443+tls,cert=srv.pem,key=srv.key localhost:8080", today: true},
	{line: "5432 db.example.com:5432+tls,cert=me.pem,key=me.key,ca=corp.pem", today: true},
	{line: ":8443+tls,cert=srv.pem,client-ca=corp.pem,allow-cn=billing /run/app.sock", today: true},
	{line: "- proxy:1080+socks5:db.internal:5432", today: true},
	{line: "1080+socks5 dial", today: true},
	{line: "1080+socks5 proxy.corp:3128+connect", today: true},
	{line: "udp-listen:5353 udp:9.9.9.9:53,idle=30s"},
	{line: "stdio+tls-server,cert=s.pem,key=s.key exec -- rsync --server --daemon .", today: true},
	{line: ":2323+tls,cert=s.pem,client-ca=corp.pem pty -- bash -l", today: true},
	{line: "6380+latency:200ms,jitter=50ms+reset,chance=0.01 localhost:6379", today: true},
	{line: ":8443+ratelimit:10mbit,burst=64k+tls,cert=s.pem,key=s.key /run/tor/socks+socks5:example.onion:80"},
	{line: ":5432 db1:5432 db2:5432 --pick least --check 2s", today: true},
	{line: "fd:https+proxy-in+tls,cert=s.pem+ws:/tunnel localhost:22+proxy-out:v2"},
	// Further examples that use what exists now.
	{line: "unix-listen:/tmp/redis.sock,mode=0600 localhost:6379,retry=30s", today: true},
	{line: "- tcp:::1:8080", today: true},
	{line: "0 fe80::1%25eth0:80,timeout=5s,nagle", today: true},
	{line: "tcp-listen:127.0.0.1:8080 unix:@name", today: true},
	{line: "8080+ws:/tunnel,compress,ping=30s localhost:22", today: true},
	{line: "8080+limit:1000,per-address=20+idle:5m,stall=30s+log,format=hex example.com:80+ratelimit:1m,shared", today: true},
	{line: "8080+record:/tmp/session.rec replay:/tmp/old.rec,fast", today: true},
	{line: "8080+bandwidth:64kbit,direction=in+slice:10,delay=5ms+blackhole,after=1m localhost:80", today: true},
	{line: "fd:3,out=4 pipe:/tmp/in,out=/tmp/out", today: true},
	{line: "stdio unix:~/app.sock", today: true},
}

func init() {
	for i := range examples {
		for _, word := range strings.Fields(examples[i].line) {
			if strings.HasPrefix(word, "--") {
				break
			}
			examples[i].argv = append(examples[i].argv, word)
		}
	}
}

// TestExamples: every worked example fits the grammar, and those that use what
// exists today parse with the table as it is.
func TestExamples(t *testing.T) {
	for _, ex := range examples {
		for _, arg := range ex.argv {
			if _, err := later().Parse(arg); err != nil {
				t.Errorf("%s: %v", ex.line, err)
			}
			if !ex.today {
				continue
			}
			if _, err := Default().Parse(arg); err != nil {
				t.Errorf("%s, today: %v", ex.line, err)
			}
		}
	}
}

// TestExamplesInShells is rule 10: no example needs quotes in any shell.
func TestExamplesInShells(t *testing.T) {
	for _, shell := range []string{"dash", "bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skip(shell + " is not installed")
			}
			flags := map[string][]string{
				"dash": {"-c"},
				"bash": {"--norc", "-c"},
				"zsh":  {"-f", "-c"},
				"fish": {"--no-config", "-c"},
			}[shell]
			var script strings.Builder
			var want []string
			for _, ex := range examples {
				script.WriteString("printf '%s\\n' " + ex.line + "\n")
				want = append(want, strings.Fields(ex.line)...)
			}
			out, err := exec.Command(path, append(flags, script.String())...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got := strings.Split(strings.TrimSpace(string(out)), "\n")
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
