// Command nbio is an echo server on nbio.
package main

import (
	"github.com/lesismal/nbio"
	"github.com/lesismal/nbio/logging"

	"github.com/weir-io/weir/bench/internal/side"
)

func main() {
	cfg := side.Parse()
	logging.SetLevel(logging.LevelError)
	e := nbio.NewEngine(nbio.Config{
		Network: "tcp",
		Addrs:   []string{cfg.Addr},
		NPoller: cfg.Loops,
	})
	e.OnData(func(c *nbio.Conn, data []byte) {
		// nbio copies what the socket does not take.
		if _, err := c.Write(data); err != nil {
			_ = c.Close()
		}
	})
	side.Check(e.Start())
	side.Serve(cfg.Addr)
}
