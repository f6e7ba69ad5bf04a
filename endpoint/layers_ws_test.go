package endpoint

import (
	"strings"
	"testing"

	"github.com/weir-io/weir/layer/ws"
)

// TestWSSides: an option of one side is an error on the other, fields that
// belong to the upgrade cannot be set, and a secret cannot be given on the
// command line.
func TestWSSides(t *testing.T) {
	for _, c := range []struct{ endpoint, want string }{
		{"host:1+ws,host=a", ""},
		{"host:1+ws,host=a,host=b", "a client asks for one host"},
		{"8080+ws,host=a,host=b", ""},
		{"host:1+ws,header=X-One:1,header=X-Two:", ""},
		{"host:1+ws,header=X-One: spaces are fine", ""},
		{"8080+ws,header=X-One:1", `option "header" is for a client`},
		{"8080+ws,cookie=env:C", `option "cookie" is for a client`},
		{"8080+ws,user=a,password=env:P", `option "user" is for a client`},
		{"host:1+ws,header=X-One", "a header without a colon"},
		{"host:1+ws,header=X One:1", "bad header name"},
		{"host:1+ws,header=:1", "bad header name"},
		{"host:1+ws,header=Host:a", "write host=NAME"},
		{"host:1+ws,header=upgrade:h2c", "belongs to the upgrade"},
		{"host:1+ws,header=Sec-WebSocket-Key:x", "belongs to the upgrade"},
		{"host:1+ws,header=Sec-WebSocket-Protocol:x", "write protocol=NAME"},
		{"host:1+ws,header=Content-Length:1", "belongs to the upgrade"},
		{"host:1+ws,header=X-One:a\r\nX-Two", "control character"},
		{"host:1+ws,header=Authorization:Bearer xyz", "a secret must not be on the command line"},
		{"host:1+ws,header=authorization:env:TOKEN", ""},
		{"host:1+ws,header=Cookie:a=xyz", "a secret must not be on the command line"},
		{"host:1+ws,cookie=a=xyz", "a secret must not be on the command line"},
		{"host:1+ws,user=a", "add password="},
		{"host:1+ws,password=env:P", "add user=NAME"},
		{"host:1+ws,user=a:b,password=env:P", "a user name with a colon"},
		{"host:1+connect:a:1,header=X-One:1", ""},
		{"host:1+connect:a:1,header=Proxy-Authorization:Bearer xyz", "a secret must not be on the command line"},
		{"8080+connect,header=X-One:1", `option "header" is for a client`},
		{"host:1+socks5:a:1,user=a,empty-password", ""},
		{"host:1+socks5:a:1,user=a", "or empty-password"},
		{"host:1+socks5:a:1,empty-password", "add user=NAME"},
		{"host:1+socks5:a:1,user=a,password=env:P,empty-password", "cannot be combined"},
		{"8080+socks5,user=a,empty-password", `option "empty-password" is for a client`},
		{"host:1+ws,eof-wait=2s", ""},
		{"host:1+ws,eof-close,no-eof", "cannot be combined"},
		{"host:1+ws,eof-close,eof-wait=1s", "cannot be combined"},
		{"host:1+ws,max-head=100", "at least 1k"},
		{"host:1+ws,max-head=1m", "at most 128k"},
	} {
		_, err := later().Parse(c.endpoint)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; want %q", c.endpoint, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "xyz") {
			t.Errorf("the secret is shown: %v", err)
		}
	}
}

// TestWSTarget: the Host field names what the connection leads to as seen from
// the layer, and leaves out the port if it is the scheme's default.
func TestWSTarget(t *testing.T) {
	for _, c := range []struct{ endpoint, host string }{
		{"example.com:80+ws", "example.com"},
		{"example.com:443+ws", "example.com:443"},
		{"example.com:443+tls+ws", "example.com"},
		{"example.com:80+tls+ws", "example.com:80"},
		{"tcp:fe80::1%25eth0:9000+ws", "[fe80::1]:9000"},
		{"proxy:443+tls+connect:db:443+ws", "db:443"},
		{"proxy:80+connect:db:443+tls+ws", "db"},
		{"example.com:443+tls+latency:1s+ws", "example.com"},
	} {
		e, err := later().Parse(c.endpoint)
		if err != nil {
			t.Errorf("%s: %v", c.endpoint, err)
			continue
		}
		p := e.Layers[len(e.Layers)-1]
		e.aim(len(e.Layers) - 1)
		if got := ws.HostOf(p.target, p.overTLS); got != c.host {
			t.Errorf("%s: host %q, want %q", c.endpoint, got, c.host)
		}
	}
}
