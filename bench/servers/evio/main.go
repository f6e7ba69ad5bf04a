// Command evio is an echo server on evio.
package main

import (
	"github.com/tidwall/evio"

	"github.com/weir-io/weir/bench/internal/side"
)

func main() {
	cfg := side.Parse()
	side.Check(evio.Serve(evio.Events{
		NumLoops:    cfg.Loops,
		LoadBalance: evio.RoundRobin,
		Serving: func(s evio.Server) evio.Action {
			go side.Serve(s.Addrs[0].String())
			return evio.None
		},
		Data: func(_ evio.Conn, in []byte) ([]byte, evio.Action) { return in, evio.None },
	}, "tcp://"+cfg.Addr))
}
