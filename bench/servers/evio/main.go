// Command evio is an echo server on evio.
package main

import (
	"github.com/tidwall/evio"

	"github.com/weir-io/weir/bench/internal/side"
)

// whole is the answers to the complete messages that are there; the rest is kept.
func whole(c evio.Conn, in []byte, frame int) []byte {
	if tail, ok := c.Context().([]byte); ok && len(tail) > 0 {
		in = append(tail, in...)
	}
	var out []byte
	for len(in) >= frame {
		out = append(out, in[:frame]...)
		in = in[frame:]
	}
	c.SetContext(append([]byte(nil), in...))
	return out
}

func main() {
	cfg := side.Parse()
	side.Check(evio.Serve(evio.Events{
		NumLoops:    cfg.Loops,
		LoadBalance: evio.RoundRobin,
		Serving: func(s evio.Server) evio.Action {
			go side.Serve(s.Addrs[0].String())
			return evio.None
		},
		Data: func(c evio.Conn, in []byte) ([]byte, evio.Action) {
			if cfg.Frame > 0 {
				in = whole(c, in, cfg.Frame)
			}
			return in, evio.None
		},
	}, "tcp://"+cfg.Addr))
}
