package layer_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/weirtest"
)

// How the TLS peer in a world ends, drawn from the world's seed.
const (
	endsProperly = iota // close_notify, and the end
	endsBare            // the end of the stream, without a close_notify
	endsReset           // a reset
	endsDeaf            // it stays connected and never answers a close_notify
	endsLeaving         // close_notify, and the end, while we go on writing
	tlsEnds
)

// wireOf is a layer below TLS whose side can leave in ways that TLS never
// would.
type wireOf struct {
	layer.Base
	deaf bool
}

func (w *wireOf) Write(bufs [][]byte) (int, error) {
	if !w.deaf {
		return w.Base.Write(bufs)
	}
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	return n, nil
}

// TestTLSEndsDrawn: however the TLS peer ends, what it sent before is
// delivered, its end is reported as what it was, and a side that closes
// finishes in bounded time.
func TestTLSEndsDrawn(t *testing.T) {
	weirtest.Seeds(t, 100, func(t *testing.T, s *weirtest.Sim) {
		r := rand.New(rand.NewPCG(s.Seed(), 7))
		serverConf, clientConf := s.TLS(t)
		how, size := r.IntN(tlsEnds), 1+r.IntN(40_000)
		server := &layertest.Ear{}
		server.OnData = func(p []byte) int {
			if len(server.Got)+len(p) == size && how == endsDeaf {
				_ = server.Tr.Close()
			}
			return len(p)
		}
		written := 0
		if how == endsLeaving {
			server.KeepOpen = true
			server.OnEnd = func() {
				var next func()
				next = func() {
					if server.Lost > 0 {
						return
					}
					n, _ := server.Tr.Write(make([]byte, 1000)) // the end says why this fails
					written += n
					server.Tr.Loop().After(100*time.Millisecond, next)
				}
				next()
			}
		}
		if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol { return server }, layer.TLSServer(serverConf))); err != nil {
			t.Fatal(err)
		}
		var wire *wireOf
		under := func(a layer.Above) layer.Above {
			return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
				wire = &wireOf{}
				return wire.Init(wire, "wire", a)
			}}
		}
		client := &layertest.Ear{}
		client.OnMade = func(tr weir.Transport) { _, _ = tr.Write(make([]byte, size)) }
		s.Host("client").Loop().Connect("tcp", "server:7", layer.Client(client, under, layer.TLS(clientConf)))
		s.Until("all to arrive", func() bool { return len(server.Got) == size || how == endsDeaf && wire != nil && server.Tr != nil })
		began := s.Now()
		switch how {
		case endsProperly, endsLeaving:
			_ = client.Tr.Close()
		case endsBare:
			_ = wire.Below().Close()
		case endsReset:
			wire.Below().Abort()
		case endsDeaf:
			s.Until("all to arrive", func() bool { return len(server.Got) == size })
			wire.deaf = true
		}
		s.Until("the end", func() bool { return server.Lost > 0 })
		var cut *layer.TruncatedError
		switch took := s.Now() - began; {
		case len(server.Got) != size:
			t.Errorf("%d of %d bytes", len(server.Got), size)
		case how == endsProperly && server.Err != nil, how == endsDeaf && server.Err != nil:
			t.Errorf("way %d: lost with %v", how, server.Err)
		case how == endsBare && !errors.As(server.Err, &cut):
			t.Errorf("a missing close_notify was told as %v", server.Err)
		case how == endsReset && server.Err == nil:
			t.Error("a reset was told as a clean end")
		case how == endsLeaving && server.Err == nil:
			t.Errorf("%d bytes were taken for a peer that has left, and the end was told as a clean one", written)
		case how == endsLeaving && took > time.Minute:
			t.Errorf("%d bytes were taken in %v for a peer that has left", written, took)
		case how != endsLeaving && took > 20*time.Second:
			t.Errorf("way %d: it took %v", how, took)
		}
	}, weirtest.WithFaults(weirtest.Faults{CutRead: 0.2, CutWrite: 0.2, CutWire: 0.3, Defer: 0.2, Shuffle: true, Jitter: time.Millisecond}))
}
