// Command nbio is an echo server on nbio.
package main

import (
	"github.com/lesismal/nbio"
	"github.com/lesismal/nbio/logging"

	"github.com/weir-io/weir/bench/internal/side"
)

// answer writes an answer to each complete message and keeps the rest.
func answer(c *nbio.Conn, data []byte, frame int) {
	if tail, ok := c.Session().([]byte); ok && len(tail) > 0 {
		data = append(tail, data...)
	}
	for len(data) >= frame {
		if _, err := c.Write(data[:frame]); err != nil {
			_ = c.Close()
			return
		}
		data = data[frame:]
	}
	c.SetSession(append([]byte(nil), data...))
}

func main() {
	cfg := side.Parse()
	logging.SetLevel(logging.LevelError)
	e := nbio.NewEngine(nbio.Config{
		Network: "tcp",
		Addrs:   []string{cfg.Addr},
		NPoller: cfg.Loops,
	})
	if cfg.Frame > 0 {
		e.OnData(func(c *nbio.Conn, data []byte) { answer(c, data, cfg.Frame) })
	} else {
		e.OnData(func(c *nbio.Conn, data []byte) {
			// nbio copies what the socket does not take.
			if _, err := c.Write(data); err != nil {
				_ = c.Close()
			}
		})
	}
	side.Check(e.Start())
	side.Serve(cfg.Addr)
}
