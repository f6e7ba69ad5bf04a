package packet

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/sink"
)

// Observe is the layer that shows every datagram to f and changes nothing. Each is one
// event, with its flow's number as Conn, from 1 on in the order of their first
// datagrams; After is the time since the Layer's first endpoint was opened. A flow is Made with its
// first datagram, and Lost when the endpoint ends or when it is forgotten: the layer
// remembers 16,384. f is called on the loop's goroutine, of each loop that the Layer is
// used on, before a datagram goes up and after it went down.
func Observe(f func(layer.Traffic)) Layer {
	var (
		count atomic.Uint64
		once  sync.Once
		from  time.Time
	)
	return func(l *weir.Loop) Ends {
		once.Do(func() { from = l.Now() })
		o := &observer{loop: l, f: f, count: &count, from: from}
		o.flows = newFlows(flowsMost, func(w *flow[uint64]) { o.see(layer.Traffic{Conn: w.data, What: layer.Lost, Text: o.why}) })
		return o
	}
}

// Log is the layer that writes what passes to s, each datagram as one line: see
// layer.Log for the form and Observe for the numbers. Nothing waits for s, even if it is
// lossless: entries without room are counted there.
func Log(s *sink.Sink, c layer.LogConfig) Layer { return Observe(layer.LogTraffic(s, c)) }

// Record is the layer that writes a recording to s, for NewRecording. s is made with
// layer.RecordingGap.
func Record(s *sink.Sink) Layer { return Log(s, layer.LogConfig{Format: layer.LogText}) }

type observer struct {
	Base
	loop  *weir.Loop
	f     func(layer.Traffic)
	count *atomic.Uint64
	from  time.Time
	why   string // of the endpoint's end
	flows flows[uint64]
}

var (
	_ weir.PacketProtocol    = (*observer)(nil)
	_ weir.TruncatedReceiver = (*observer)(nil)
	_ weir.PacketCarrier     = (*observer)(nil)
)

func (o *observer) see(t layer.Traffic) {
	t.At = o.loop.Now()
	t.After = t.At.Sub(o.from)
	o.f(t)
}

func (o *observer) show(what layer.TrafficKind, p []byte, peer weir.PacketAddr) {
	now := o.loop.Now()
	w := o.flows.find(peer, now)
	if w == nil {
		w = o.flows.add(peer, now)
		w.data = o.count.Add(1)
		o.see(layer.Traffic{Conn: w.data, What: layer.Made, Text: o.Below().Local().String() + " " + w.peer.String()})
	}
	o.see(layer.Traffic{Conn: w.data, What: what, Data: p})
}

func (o *observer) PacketReceived(p []byte, from weir.PacketAddr) {
	o.show(layer.Received, p, from)
	o.Deliver(p, from)
}

func (o *observer) PacketTruncated(p []byte, from weir.PacketAddr) {
	o.show(layer.Received, p, from)
	o.Base.PacketTruncated(p, from)
}

func (o *observer) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	taken, err := o.Base.SendTo(p, to)
	if taken && err == nil {
		o.show(layer.Sent, p, to)
	}
	return taken, err
}

func (o *observer) EndpointLost(err error) {
	if err != nil {
		o.why = err.Error()
	}
	o.flows.forgetAll()
	o.Base.EndpointLost(err)
}
