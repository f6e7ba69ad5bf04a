package contract

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
)

// knowing is a PacketInfoReceiver.
type knowing struct {
	packets
	infos []weir.PacketInfo
}

func (p *knowing) PacketInfoReceived(b []byte, from weir.PacketAddr, info *weir.PacketInfo) {
	p.infos = append(p.infos, *info)
	p.PacketReceived(b, from)
}

// TestAnswerFromAsked: an endpoint for every address answers from the one that was
// asked: at once without being told, later by SendInfo (R77).
func TestAnswerFromAsked(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		if !l.Backend().Packets.Local {
			t.Skip("the backend does not tell local addresses (BackendInfo.Packets)")
		}
		for _, later := range []bool{false, true} {
			p := &knowing{}
			server, err := l.ListenPacket("udp", ":0", p, weir.WithPacketTimes())
			if err != nil {
				t.Fatal(err)
			}
			p.on = func(b []byte, from weir.PacketAddr) {
				if !later {
					if err := server.SendTo(b, from); err != nil {
						t.Error(err)
					}
					return
				}
				info := p.infos[len(p.infos)-1]
				l.Soon(func() {
					if err := server.SendInfo([]byte("later"), from, &info); err != nil {
						t.Error(err)
					}
				})
			}
			for i, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
				c := &packets{}
				client := endpoint(t, l, "udp4", c)
				at := weir.PacketAddr{IP: netip.AddrPortFrom(netip.MustParseAddr(host), server.Local().IP.Port())}
				for range 3 { // in one turn of the server, perhaps
					if err := client.SendTo([]byte("which?"), at); err != nil {
						t.Fatal(err)
					}
				}
				turns(t, l, "answers", func() bool { return len(c.got) == 3 })
				for _, from := range c.from {
					if from != at {
						t.Errorf("later %t: %v asked, %v answers", later, at, from)
					}
				}
				info := p.infos[3*i]
				if info.Local != at.IP.Addr() || info.Dest != info.Local || info.Interface == 0 || !info.HasTraffic ||
					l.Backend().Packets.Time == info.Time.IsZero() {
					t.Errorf("asked at %v: %+v", at, info)
				}
				client.Abort()
			}
			err = server.SendInfo([]byte("x"), server.Local(), &weir.PacketInfo{Local: netip.MustParseAddr("192.0.2.1")})
			if err == nil {
				t.Error("a datagram left from an address that is not ours")
			}
			server.Abort()
		}
	})
}

// TestOneTurnOfDatagrams: what is sent in one turn arrives in order, whatever leaves
// at once and whatever at its end; a Close or Abort in the same turn loses none of it;
// and a datagram that fails is told with its peer.
func TestOneTurnOfDatagrams(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		for _, end := range []string{"stays", "close", "abort"} {
			t.Run(end, func(t *testing.T) {
				l := mk()
				a, b := &packets{}, &packets{}
				ea := endpoint(t, l, "udp4", a)
				eb := endpoint(t, l, "udp4", b)
				const n = 150
				l.Soon(func() {
					for i := range n {
						if err := ea.SendTo(fmt.Appendf(nil, "%03d", i), eb.Local()); err != nil {
							t.Errorf("datagram %d: %v", i, err)
						}
					}
					switch end {
					case "close":
						_ = ea.Close()
					case "abort":
						ea.Abort()
					}
				})
				turns(t, l, "datagrams", func() bool { return len(b.got) == n })
				for i, p := range b.got {
					if string(p) != fmt.Sprintf("%03d", i) {
						t.Fatalf("datagram %d is %q", i, p)
					}
				}
				if end != "stays" {
					turns(t, l, "the end", func() bool { return a.lost == 1 })
				}
			})
		}
	})
}

// TestTooLongDatagram: what no datagram can hold is a *MTUError at once (behaviour 58).
func TestTooLongDatagram(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		l := mk()
		e := endpoint(t, l, "udp4", &packets{})
		err := e.SendTo(make([]byte, 65508), e.Local())
		if mtu, ok := errors.AsType[*weir.MTUError](err); !ok || mtu.MTU != 0 || !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("SendTo of 65,508 bytes: %v", err)
		}
	})
}
