// Command tls is a TLS echo server and a relay that terminates TLS, on weir.
package main

import (
	"crypto/tls"
	"flag"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/relay"

	"github.com/weir-io/weir/bench/internal/side"
)

func main() {
	cert := flag.String("cert", "", "file of the certificate")
	key := flag.String("key", "", "file of its key")
	workers := flag.Int("workers", 0, "goroutines that compute handshakes beside the loop")
	cfg := side.Parse()
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	side.Check(err)
	// The loads end connections without a close_notify; no one wants a log line for each.
	opts := []weir.LoopOption{weir.WithErrorHandler(func(error) {})}
	if cfg.Backend != "" {
		opts = append(opts, weir.WithBackendName(cfg.Backend))
	}
	l, err := weir.NewLoop(opts...)
	side.Check(err)
	f := func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }
	if cfg.Target != "" {
		f = func(t weir.Transport) weir.Protocol {
			r := relay.New(relay.Config{})
			t.Loop().Connect("tcp", cfg.Target, r.Protocol(relay.B))
			return r.Protocol(relay.A)
		}
	}
	server := layer.TLSServer(&tls.Config{Certificates: []tls.Certificate{pair}}, layer.WithHandshakeWorkers(*workers))
	ln, err := l.Listen("tcp", cfg.Addr, layer.Server(f, server))
	side.Check(err)
	go side.Serve(ln.Addr().String())
	side.Check(l.Run())
}
