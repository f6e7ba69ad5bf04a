package endpoint

import (
	"strings"
	"testing"
)

// TestTLSTarget: TLS expects the certificate of the host that the connection
// leads to as seen from the layer: the host of the base, or of the proxy in
// between.
func TestTLSTarget(t *testing.T) {
	for _, c := range []struct {
		endpoint, host string
		asked          bool
	}{
		{"example.com:443+tls", "example.com", false},
		{"tcp:::1:443+tls", "::1", false},
		{"tcp:fe80::1%25eth0:443+tls", "fe80::1", false},
		{"example.com.:443+latency:1s+tls", "example.com", false},
		{"/run/app.sock+tls,name=app", "", false},
		{"stdio+tls,name=app", "", false},
		{"proxy:1080+socks5:db.internal:5432+tls", "db.internal", false},
		{"proxy:1080+socks5+tls", "", true},
		{"one:1080+socks5:two:1080+connect:three:443+tls", "three", false},
		{"proxy:443+tls+connect:db:5432", "proxy", false},
		{"dial+tls", "", true},
	} {
		e, err := later().Parse(c.endpoint)
		if err != nil {
			t.Errorf("%s: %v", c.endpoint, err)
			continue
		}
		for i, p := range e.Layers {
			if p.Name.Text != "tls" {
				continue
			}
			e.aim(i)
			if got := targetHost(p.target); got != c.host || p.targetAsked != c.asked {
				t.Errorf("%s: host %q, asked %v; want %q, %v", c.endpoint, got, p.targetAsked, c.host, c.asked)
			}
		}
	}
}

// TestTLSSides: an option of one side is an error on the other, and so are two
// that contradict each other (behaviour 89).
func TestTLSSides(t *testing.T) {
	for _, c := range []struct{ endpoint, want string }{
		{"host:1+tls,eof-wait=5s", ""},
		{"host:1+tls,no-eof", ""},
		{"host:1+tls,no-eof,eof-wait=5s", "eof-wait"},
		{"8443+tls,cert=a,key=b,eof-wait=5s", `option "eof-wait" is for a client`},
		{"8443+tls,cert=a,key=b,workers=0", ""},
		{"host:1+tls,workers=2", `option "workers" is for a server`},
		{"8443+tls,cert=a,key=b,workers=-1", `bad number "-1"`},
	} {
		_, err := later().Parse(c.endpoint)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; want %q", c.endpoint, err, c.want)
		}
	}
}
