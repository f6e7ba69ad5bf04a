package utp_test

import (
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// narrow is a layer for datagrams that takes none while it is shut.
type narrow struct {
	packet.Base
	shut  bool
	taken int
}

func (n *narrow) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	if n.shut {
		return false, nil
	}
	n.taken++
	return n.Base.SendTo(p, to)
}

// TestPausedAmidst: a connection that fills the endpoint below in the middle of a burst
// goes on as soon as that has room again, not when the next acknowledgement comes.
func TestPausedAmidst(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{})
	server, client := &ear{}, &ear{send: noise(300_000)}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	from, err := utp.NewEndpoint(utp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	n := &narrow{}
	loop := s.Host("b").Loop()
	layers := []packet.Layer{func(*weir.Loop) packet.Ends { return n }}
	if _, err := packet.Listen(loop, "udp4", s.Host("b").Addr(9000), from, layers, weir.WithWriteMarks(2000, 500)); err != nil {
		t.Fatal(err)
	}
	loop.Soon(func() { from.Dial(w.to, client) })
	s.Until("the window to grow", func() bool { return len(server.got) == len(client.send) })
	if err := s.RunFor(2 * time.Second); err != nil { // all of it is acknowledged
		t.Fatal(err)
	}
	most, sent := 0, 0
	loop.Soon(func() {
		n.shut, n.taken = true, 0
		if most, err = client.t.Write(noise(40_000)); err != nil {
			t.Error(err)
		}
		n.shut = false
		n.ResumeWriting()
		sent = n.taken
	})
	s.Until("the rest", func() bool { return len(server.got) == len(client.send)+40_000 })
	if most != 40_000 || sent < 20 {
		t.Errorf("%d bytes taken, %d packets left at once", most, sent)
	}
}
