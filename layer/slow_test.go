package layer_test

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/weirtest"
)

// TestSlowPeers: by default, every layer that waits for a peer's first bytes
// sets a time limit. A peer that sends a byte now and then gets no more time
// than one that sends nothing, nor does one that stops in the middle (S9).
func TestSlowPeers(t *testing.T) {
	server, client := tlsPair(t, 0)
	users := proxy.WithUsers(proxy.NewUsers(map[string]string{"u": "p"}))
	const proxyHeader = 5 * time.Second
	for _, c := range []struct {
		name  string
		layer layer.Layer
		head  string // the beginning sent by a peer that never comes to an end
		most  time.Duration
	}{
		{"proxy-in 1", proxy.HeaderIn([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, 0), "PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222", proxyHeader},
		{"proxy-in 2", proxy.HeaderIn([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, 0), "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c1234567", proxyHeader},
		{"socks4", proxy.SOCKSServer(proxy.AnyVersion), "\x04\x01\x00\x50\x7f\x00\x00\x01some user without an end", 10 * time.Second},
		{"socks4a", proxy.SOCKSServer(proxy.AnyVersion), "\x04\x01\x00\x50\x00\x00\x00\x01u\x00some host without an end", 10 * time.Second},
		{"socks5", proxy.SOCKSServer(proxy.AnyVersion), "\x05\xff\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e", 10 * time.Second},
		{"socks5 password", proxy.SOCKSServer(proxy.Version5, users), "\x05\x01\x02\x01\xffa user without an end, and so on", 10 * time.Second},
		{"connect", proxy.ConnectServer(), "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\nX: and so on, for ever", 10 * time.Second},
		{"connect password", proxy.ConnectServer(users), "CONNECT h:80 HTTP/1.1\r\nProxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("u:p, and so on")), 10 * time.Second},
		{"tls", layer.TLSServer(server), "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on, for a hello", 10 * time.Second},
		{"socks5's client", proxy.SOCKS5("h:80"), "", time.Minute},
		{"connect's client", proxy.Connect("h:80"), "HTTP/1.1 200 OK\r\nX: and so on, for ever and ever", time.Minute},
		{"tls' client", layer.TLS(client), "\x16\x03\x03\x02\x00\x02\x00\x01\xfc\x03\x03 and so on, for a hello", 10 * time.Second},
	} {
		for _, trickle := range []bool{false, true} {
			name := "silent"
			if trickle {
				name = "a byte now and then"
			}
			t.Run(c.name+"/"+name, func(t *testing.T) {
				s := weirtest.NewSim(t, 1)
				var failed *weir.AttemptError
				var made, told time.Duration
				timed := func(a layer.Above) layer.Above {
					return layer.Above{Failed: a.Failed, Make: func(tr weir.Transport) weir.Protocol {
						made = s.Now()
						return c.layer(a).Make(tr)
					}}
				}
				if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.ServerFunc(
					func(weir.Transport) weir.Protocol { t.Error("it was agreed on"); return nil },
					func(_ weir.Transport, err *weir.AttemptError) { failed, told = err, s.Now() }, timed)); err != nil {
					t.Fatal(err)
				}
				k := &layertest.Keeper{Sim: s}
				if !trickle {
					k.Send = []byte(c.head)
				}
				s.Host("client").Loop().Connect("tcp", "server:7", k)
				if trickle {
					at := 0
					var next *weir.Timer
					next = s.Host("client").Loop().After(time.Second, func() {
						if at < len(c.head) && !k.Lost && k.T != nil {
							_, _ = k.T.Write([]byte(c.head[at : at+1]))
							at++
							next.Set(800 * time.Millisecond)
						}
					})
				}
				s.Until("its time to be up", func() bool { return failed != nil })
				if took := told - made; !errors.Is(failed, layer.ErrTimeout) || took < c.most || took > c.most+100*time.Millisecond {
					t.Errorf("after %v it failed with %v, want a timeout after %v", took, failed, c.most)
				}
			})
		}
	}
}
