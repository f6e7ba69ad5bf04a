package endpoint_test

import (
	"testing"

	"github.com/weir-io/weir/endpoint"
)

// TestLeadsTo: which endpoints are certain to lead to a listener, and which are not.
func TestLeadsTo(t *testing.T) {
	for _, c := range []struct {
		listen, dial string
		want         bool
	}{
		{"8080", "localhost:8080", true},
		{"8080", "LOCALHOST:8080", true},
		{"8080", "127.0.0.1:8080", true},
		{"8080", "tcp:::1:8080", true},
		{"8080", "tcp:::ffff:127.0.0.1:8080", true},
		{"8080", "tcp:0.0.0.0:8080", true},
		{"8080+tls,cert=a.pem", "localhost:8080+socks5:x:1", true},
		{"8080", "127.0.0.2:8080", false},
		{"8080", "localhost:8081", false},
		{"8080", "example.com:8080", false},
		{":8080", "127.0.0.2:8080", true},
		{":8080", "192.0.2.1:8080", false}, // an interface may have it: found out later
		{"tcp-listen:192.0.2.7:8080", "192.0.2.7:8080", true},
		{"tcp-listen:192.0.2.7:8080", "localhost:8080", false},
		{"tcp-listen:127.0.0.1:8080", "tcp:::1:8080", false},
		{"8080,family=4", "tcp:::1:8080", false},
		{"unix-listen:/run/a", "/run/a", true},
		{"unix-listen:@a", "unix:@a", true},
		{"unix-listen:/run/a", "/run/b", false},
		{"unix-listen:/run/a", "localhost:80", false},
		{"udp-listen:5353", "udp:localhost:5353", true},
		{"udp-listen:5353", "udp:9.9.9.9:5353", false},
		{"localhost:8080", "localhost:8080", false},
	} {
		var ends [2]*endpoint.Endpoint
		for i, s := range []string{c.listen, c.dial} {
			var err error
			if ends[i], err = endpoint.Default().Parse(s); err != nil {
				t.Fatal(err)
			}
		}
		if got := ends[1].LeadsTo(ends[0]); got != c.want {
			t.Errorf("%s leads to %s: %v", c.dial, c.listen, got)
		}
	}
}
