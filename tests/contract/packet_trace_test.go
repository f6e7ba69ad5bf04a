package contract

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/weirtest"
)

// tracedPackets is a protocol that records its callbacks in a trace that both ends share.
type tracedPackets struct {
	name  string
	trace *[]string
	e     *weir.PacketEndpoint
	came  int
	lost  bool
	on    func(p []byte, from weir.PacketAddr)
}

func (p *tracedPackets) note(format string, args ...any) {
	*p.trace = append(*p.trace, p.name+" "+fmt.Sprintf(format, args...))
}

func (p *tracedPackets) EndpointMade(*weir.PacketEndpoint) { p.note("made") }

func (p *tracedPackets) PacketReceived(b []byte, from weir.PacketAddr) {
	p.came++
	p.note("%q", b)
	if p.on != nil {
		p.on(b, from)
	}
}

func (p *tracedPackets) PacketTruncated(b []byte, _ weir.PacketAddr) {
	p.came++
	p.note("%q, truncated", b)
}

func (p *tracedPackets) PacketFailed(err error, _ weir.PacketAddr) { p.note("failed: %v", err) }

func (p *tracedPackets) PauseWriting() { p.note("pause") }

func (p *tracedPackets) ResumeWriting() { p.note("resume") }

func (p *tracedPackets) EndpointLost(err error) {
	p.lost = true
	p.note("lost: %v", err)
}

// packetTrace is what both ends are called with while 60 questions are asked, one after the
// other, of a server behind faults both ways, which cuts what is longer than 8 bytes.
func packetTrace(t *testing.T, l *weir.Loop) []string {
	t.Helper()
	var trace []string
	in, out := 0, 0 // on the wire
	wire := packet.Observe(func(e layer.Traffic) {
		switch e.What { //nolint:exhaustive // these are counted
		case layer.Received:
			in++
		case layer.Sent:
			out++
		}
	})
	f := packet.Faults{Loss: .2, Duplicate: .15, Reorder: .2, ReorderWait: time.Hour, Corrupt: .1}
	server, client := &tracedPackets{name: "server", trace: &trace}, &tracedPackets{name: "client", trace: &trace}
	server.on = func(b []byte, from weir.PacketAddr) {
		for i := range 1 + len(b)%2 {
			if err := server.e.SendTo(fmt.Appendf(nil, "%s.%d", b, i), from); err != nil {
				server.note("refused: %v", err)
			}
		}
	}
	var err error
	if server.e, err = packet.Listen(l, "udp4", "127.0.0.1:0", server, []packet.Layer{wire, packet.Fault(packet.FaultConfig{In: f, Out: f, Seed: 7})}, weir.WithMaxDatagram(8)); err != nil {
		t.Fatal(err)
	}
	if client.e, err = l.ListenPacket("udp4", "127.0.0.1:0", client); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		question := fmt.Appendf(nil, "%d", i)
		switch i % 10 {
		case 3:
			question = append(question, " is long"...)
		case 6:
			question = nil
		}
		if err := client.e.SendTo(question, server.e.Local()); err != nil {
			t.Fatal(err)
		}
		weirtest.Until(t, l, "the question and its answers", func() bool { return in == i+1 && client.came == out })
	}
	_ = server.e.Close()
	weirtest.Until(t, l, "the server's end", func() bool { return server.lost })
	client.e.Abort()
	weirtest.Until(t, l, "the client's end", func() bool { return client.lost })
	return trace
}

// TestSamePacketTrace is behaviour 95 for datagrams: the same faults give the same callbacks on
// every backend.
func TestSamePacketTrace(t *testing.T) {
	var want []string
	check := func(t *testing.T, l *weir.Loop) {
		got := packetTrace(t, l)
		if want == nil {
			want = got
			for _, part := range []string{"server made", "server lost: <nil>", `server "3 is lon", truncated`} {
				if !slices.Contains(want, part) {
					t.Errorf("no %s in\n%q", part, want)
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%q, and elsewhere\n%q", got, want)
		}
	}
	for name, faults := range map[string]weirtest.Faults{
		"sim": {},
		"sim, late and early": {
			Eager: 0.3, Defer: 0.3, EarlyEnd: 0.3, EmptyWait: 0.2, Again: 0.3, LateCancel: 0.5, LateBy: time.Millisecond,
			Shuffle: true, SendWait: 0.2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, weirtest.NewSim(t, 1, weirtest.WithFaults(faults)).Host("a").NewLoop(quiet()))
		})
	}
	onBackends(t, func(t *testing.T, name string) { check(t, newLoop(t, weir.WithBackendName(name), quiet())) })
}
