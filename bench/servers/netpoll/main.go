// Command netpoll is an echo server on netpoll.
package main

import (
	"context"

	"github.com/cloudwego/netpoll"

	"github.com/weir-io/weir/bench/internal/side"
)

// echo sends back what there is or, with a frame, each complete message in it.
func echo(c netpoll.Connection, frame int) error {
	r, w := c.Reader(), c.Writer()
	n := frame
	if n == 0 {
		n = r.Len()
	}
	for n > 0 && r.Len() >= n {
		p, err := r.Next(n)
		if err != nil {
			return err
		}
		out, err := w.Malloc(n)
		if err != nil {
			return err
		}
		copy(out, p)
	}
	if err := r.Release(); err != nil {
		return err
	}
	return w.Flush()
}

func main() {
	cfg := side.Parse()
	side.Check(netpoll.Configure(netpoll.Config{PollerNum: cfg.Loops}))
	ln, err := netpoll.CreateListener("tcp", cfg.Addr)
	side.Check(err)
	loop, err := netpoll.NewEventLoop(func(_ context.Context, c netpoll.Connection) error { return echo(c, cfg.Frame) })
	side.Check(err)
	go side.Serve(ln.Addr().String())
	side.Check(loop.Serve(ln))
}
