package interop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/weir-io/weir/netconn"
	"github.com/weir-io/weir/weirtest"
)

// TestQUICSimulated: quic-go over a simulated host's datagrams, which are lost, doubled and
// reordered, in real time: quic-go spins where a clock stands still. A simulated socket has no options, so quic-go is given it
// without SyscallConn (R57).
func TestQUICSimulated(t *testing.T) {
	server, client := quicConfigs()
	s := weirtest.NewSim(t, 5, weirtest.WithGoroutines(), weirtest.WithFaults(weirtest.Faults{
		Drop: 0.03, Duplicate: 0.02, Reorder: 0.02, SendNoBuffer: 0.01, SendWait: 0.05,
	}))
	l := s.Host("host").Loop()
	over := make(chan error, 1)
	go func() { over <- l.Run() }()
	listen := func() net.PacketConn {
		c, err := netconn.Call(t.Context(), l, func() (*netconn.PacketConn, error) {
			return netconn.ListenPacket(l, "udp4", "127.0.0.1:0")
		})
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := c.SyscallConn(); err != nil || !errors.Is(raw.Control(func(uintptr) {}), errors.ErrUnsupported) {
			t.Errorf("a simulated socket has options: %v", err)
		}
		return struct{ net.PacketConn }{c}
	}
	sc, cc := listen(), listen()
	st, ct := &quic.Transport{Conn: sc}, &quic.Transport{Conn: cc}
	ln, err := st.Listen(server, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- echoStreams(ln) }()
	c, err := ct.Dial(t.Context(), sc.LocalAddr(), client, nil)
	if err != nil {
		t.Fatal(err)
	}
	str, err := c.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	body := pattern(256 << 10)
	go func() {
		if _, err := str.Write(body); err != nil {
			t.Error(err)
		}
		_ = str.Close()
	}()
	if got, err := io.ReadAll(str); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(body), err)
	}
	_ = c.CloseWithError(0, "")
	_ = ln.Close()
	if err := <-served; !errors.Is(err, quic.ErrServerClosed) {
		t.Error(err)
	}
	_, _, _, _ = ct.Close(), st.Close(), cc.Close(), sc.Close()
	l.Stop()
	if err := <-over; err != nil {
		t.Error(err)
	}
}
