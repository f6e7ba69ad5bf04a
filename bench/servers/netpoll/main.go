// Command netpoll is an echo server on netpoll.
package main

import (
	"context"

	"github.com/cloudwego/netpoll"

	"github.com/weir-io/weir/bench/internal/side"
)

func echo(_ context.Context, c netpoll.Connection) error {
	r, w := c.Reader(), c.Writer()
	n := r.Len()
	p, err := r.Next(n)
	if err != nil {
		return err
	}
	out, err := w.Malloc(n)
	if err != nil {
		return err
	}
	copy(out, p)
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
	loop, err := netpoll.NewEventLoop(echo)
	side.Check(err)
	go side.Serve(ln.Addr().String())
	side.Check(loop.Serve(ln))
}
