// Command gnet is an echo server on gnet.
package main

import (
	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"

	"github.com/weir-io/weir/bench/internal/side"
)

type echo struct {
	gnet.BuiltinEventEngine
	cfg side.Config
}

func (e *echo) OnBoot(gnet.Engine) gnet.Action {
	go side.Serve(e.cfg.Addr)
	return gnet.None
}

func (e *echo) OnTraffic(c gnet.Conn) gnet.Action {
	if e.cfg.UDP {
		p, err := c.Next(-1)
		if err == nil {
			_, _ = c.Write(p)
		}
		return gnet.None
	}
	want := e.cfg.Frame
	if want == 0 {
		want = c.InboundBuffered()
	}
	for c.InboundBuffered() >= want && want > 0 {
		p, err := c.Next(want)
		if err != nil {
			return gnet.Close
		}
		if _, err := c.Write(p); err != nil {
			return gnet.Close
		}
	}
	return gnet.None
}

func main() {
	cfg := side.Parse()
	opts := []gnet.Option{gnet.WithNumEventLoop(cfg.Loops), gnet.WithTCPNoDelay(gnet.TCPNoDelay), gnet.WithLogLevel(logging.ErrorLevel)}
	network := "tcp"
	if cfg.UDP {
		network = "udp"
		opts = append(opts, gnet.WithSocketRecvBuffer(side.Buffers))
	}
	side.Check(gnet.Run(&echo{cfg: cfg}, network+"://"+cfg.Addr, opts...))
}
