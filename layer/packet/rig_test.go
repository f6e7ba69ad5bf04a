package packet_test

import (
	"io"
	"log/slog"
	"os"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/weirtest"
)

// ear is a protocol that writes everything down.
type ear struct {
	e      *weir.PacketEndpoint
	trace  []string
	got    []string
	from   []weir.PacketAddr
	failed []error
	lost   int
	err    error
	on     func(p []byte, from weir.PacketAddr)
}

func (p *ear) EndpointMade(e *weir.PacketEndpoint) {
	p.e = e
	p.trace = append(p.trace, "made")
}

func (p *ear) PacketReceived(b []byte, from weir.PacketAddr) {
	p.trace = append(p.trace, "packet "+string(b))
	p.got = append(p.got, string(b))
	p.from = append(p.from, from)
	if p.on != nil {
		p.on(b, from)
	}
}

func (p *ear) PacketFailed(err error, _ weir.PacketAddr) { p.failed = append(p.failed, err) }
func (p *ear) PauseWriting()                             { p.trace = append(p.trace, "pause") }
func (p *ear) ResumeWriting()                            { p.trace = append(p.trace, "resume") }
func (p *ear) WriteDrained()                             { p.trace = append(p.trace, "drained") }

func (p *ear) EndpointLost(err error) {
	p.trace = append(p.trace, "lost")
	p.lost++
	p.err = err
}

// plain is a layer that changes nothing.
type plain struct{ packet.Base }

func newPlain(*weir.Loop) packet.Ends { return &plain{} }

// everywhere runs f with a loop of each backend, and with one of the simulator.
func everywhere(t *testing.T, f func(t *testing.T, l *weir.Loop)) {
	t.Helper()
	quiet := weir.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != name {
				t.Skip("WEIR_BACKEND asks for ", asked)
			}
			l, err := weir.NewLoop(weir.WithBackendName(name), quiet)
			if err != nil || l.Backend().Name != name {
				t.Skipf("the system refuses %s: %v", name, err)
			}
			defer func() { _ = l.Close() }()
			f(t, l)
		})
	}
	t.Run("sim", func(t *testing.T) { f(t, weirtest.NewSim(t, 1).Host("a").NewLoop(quiet)) })
}

func listen(t *testing.T, l *weir.Loop, at string, p weir.PacketProtocol, layers []packet.Layer, opts ...weir.PacketOption) *weir.PacketEndpoint {
	t.Helper()
	e, err := packet.Listen(l, "udp4", at, p, layers, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func send(t *testing.T, e *weir.PacketEndpoint, p string, to weir.PacketAddr) {
	t.Helper()
	if err := e.SendTo([]byte(p), to); err != nil {
		t.Fatal(err)
	}
}
