// Command weir is an echo server and a relay on weir.
package main

import (
	"github.com/weir-io/weir"

	"github.com/weir-io/weir/bench/internal/side"
)

func main() {
	cfg := side.Parse()
	var opts []weir.LoopOption
	if cfg.Backend != "" {
		opts = append(opts, weir.WithBackendName(cfg.Backend))
	}
	g, err := weir.NewGroup(cfg.Loops, opts...)
	side.Check(err)
	if cfg.UDP {
		datagrams(g, cfg)
		return
	}
	f := func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }
	switch {
	case cfg.Target != "":
		f = relay(cfg)
	case cfg.Frame > 0:
		f = func(t weir.Transport) weir.Protocol { return weir.DataFunc(answer(t, cfg.Frame)) }
	}
	ln, err := g.Listen("tcp", cfg.Addr, f)
	side.Check(err)
	checkBackend(g, cfg)
	go side.Serve(ln.Addr().String())
	side.Check(g.Run())
}

func checkBackend(g *weir.Group, cfg side.Config) {
	if got := g.Loops()[0].Backend().Name; cfg.Backend != "" && got != cfg.Backend {
		side.Check(&fellBack{cfg.Backend, got})
	}
}

// answer writes an answer to each complete message.
func answer(t weir.Transport, frame int) func([]byte) (int, error) {
	return func(p []byte) (n int, err error) {
		for len(p)-n >= frame {
			if _, err := t.Write(p[n : n+frame]); err != nil {
				return n, err
			}
			n += frame
		}
		return n, nil
	}
}

// fellBack reports that the backend in use is not the one that was asked for:
// its figures would appear under the wrong name.
type fellBack struct{ want, got string }

func (e *fellBack) Error() string { return "asked for " + e.want + ", got " + e.got }
