package layer_test

import (
	"testing"

	"github.com/weir-io/weir/layer"
)

func TestSOCKSStreams(t *testing.T) {
	users := layer.NewUsers(map[string]string{"u": "p"})
	v4 := []layer.Layer{layer.SOCKSServer(layer.AnyVersion)}
	t.Run("socks5", func(t *testing.T) {
		suite(t, []layer.Layer{layer.SOCKSServer(layer.Version5, layer.WithUsers(users))},
			[]layer.Layer{layer.SOCKS5("name.example:80", layer.WithProxyUser("u", "p"))})
	})
	t.Run("socks4", func(t *testing.T) { suite(t, v4, []layer.Layer{layer.SOCKS4("192.0.2.1:80")}) })
	t.Run("socks4a", func(t *testing.T) { suite(t, v4, []layer.Layer{layer.SOCKS4a("name.example:80")}) })
	t.Run("three", func(t *testing.T) {
		any := layer.SOCKSServer(layer.AnyVersion)
		suite(t, []layer.Layer{any, plain, any}, []layer.Layer{layer.SOCKS5("name.example:80"), plain, layer.SOCKS4a("name.example:80")})
	})
}
