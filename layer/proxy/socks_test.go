package proxy_test

import (
	"testing"

	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/layer/proxy"
)

func TestSOCKSStreams(t *testing.T) {
	users := proxy.NewUsers(map[string]string{"u": "p"})
	v4 := []layer.Layer{proxy.SOCKSServer(proxy.AnyVersion)}
	t.Run("socks5", func(t *testing.T) {
		layertest.Suite(t, []layer.Layer{proxy.SOCKSServer(proxy.Version5, proxy.WithUsers(users))},
			[]layer.Layer{proxy.SOCKS5("name.example:80", proxy.WithCredentials("u", "p"))})
	})
	t.Run("socks4", func(t *testing.T) { layertest.Suite(t, v4, []layer.Layer{proxy.SOCKS4("192.0.2.1:80")}) })
	t.Run("socks4a", func(t *testing.T) { layertest.Suite(t, v4, []layer.Layer{proxy.SOCKS4a("name.example:80")}) })
	t.Run("three", func(t *testing.T) {
		any := proxy.SOCKSServer(proxy.AnyVersion)
		layertest.Suite(t, []layer.Layer{any, layertest.Plain, any}, []layer.Layer{proxy.SOCKS5("name.example:80"), layertest.Plain, proxy.SOCKS4a("name.example:80")})
	})
}
