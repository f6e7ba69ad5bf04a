package packet_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/weirtest"
)

// knower is an ear that is told more of each datagram.
type knower struct {
	ear
	infos []weir.PacketInfo
}

func (k *knower) PacketInfoReceived(p []byte, from weir.PacketAddr, info *weir.PacketInfo) {
	k.infos = append(k.infos, *info)
	k.PacketReceived(p, from)
}

// slow is a layer of faults that keeps every datagram for a while.
func slow() packet.Layer {
	f := packet.Faults{Latency: 2 * time.Millisecond}
	return packet.Fault(packet.FaultConfig{In: f, Out: f})
}

// TestInfoThroughLayers: the local address of a datagram passes layers both ways: a
// protocol above them is told it, an answer inside the callback leaves from it, also
// when the layers keep datagrams for a time, and SendInfo says it later (R38, R77).
func TestInfoThroughLayers(t *testing.T) {
	stacks := map[string]func() []packet.Layer{
		"plain":   func() []packet.Layer { return []packet.Layer{newPlain, newROT13} },
		"latency": func() []packet.Layer { return []packet.Layer{newPlain, slow()} },
	}
	for name, layers := range stacks {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, l *weir.Loop) {
				if !l.Backend().Packets.Local || l.Backend().Name == "sim" {
					t.Skip("the backend does not tell local addresses (BackendInfo.Packets), or has one")
				}
				for _, way := range []string{"plain protocol", "at once", "paused", "later"} {
					t.Run(way, func(t *testing.T) { infoThrough(t, l, way, layers()) })
				}
			})
		})
	}
}

func infoThrough(t *testing.T, l *weir.Loop, way string, layers []packet.Layer) {
	k := &knower{}
	var p weir.PacketProtocol = k
	on := &k.ear
	if way == "plain protocol" {
		on = &ear{}
		p = on
	}
	server := listen(t, l, "0.0.0.0:0", p, layers)
	on.on = func(b []byte, from weir.PacketAddr) {
		if way != "later" {
			send(t, server, string(b), from)
			return
		}
		info := k.infos[len(k.infos)-1]
		l.Soon(func() {
			if err := server.SendInfo([]byte("later"), from, &info); err != nil {
				t.Error(err)
			}
		})
	}
	for i, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		c := &ear{}
		client := listen(t, l, local, c, nil)
		at := weir.PacketAddr{IP: netip.AddrPortFrom(netip.MustParseAddr(host), server.Local().IP.Port())}
		if way == "paused" {
			server.PauseReading()
		}
		send(t, client, "which?", at)
		send(t, client, "and which?", at)
		if way == "paused" {
			server.ResumeReading()
		}
		weirtest.Until(t, l, "answers", func() bool { return len(c.got) == 2 })
		for _, from := range c.from {
			if from != at {
				t.Errorf("%v asked, %v answers", at, from)
			}
		}
		if way == "plain protocol" {
			continue
		}
		info := k.infos[2*i]
		if info.Local != at.IP.Addr() || info.Dest != info.Local || info.Interface == 0 || !info.HasTraffic {
			t.Errorf("asked at %v: %+v", at, info)
		}
	}
	elsewhere := weir.PacketInfo{Local: netip.MustParseAddr("192.0.2.1")}
	before := len(on.failed)
	if err := server.SendInfo([]byte("x"), server.Local(), &elsewhere); err == nil {
		weirtest.Until(t, l, "the refusal", func() bool { return len(on.failed) > before })
	}
	server.Abort()
	weirtest.Until(t, l, "the end", func() bool { return on.lost == 1 })
}

// TestInfoRefused: a carrier that cannot say from where a datagram leaves is not
// asked to.
func TestInfoRefused(t *testing.T) {
	everywhere(t, func(t *testing.T, l *weir.Loop) {
		f, err := l.CarryPackets(drain{}, &ear{})
		if err != nil {
			t.Fatal(err)
		}
		f.Begin()
		to := weir.PacketAddr{IP: netip.MustParseAddrPort("127.0.0.1:9")}
		if err := f.Endpoint().SendInfo(nil, to, &weir.PacketInfo{Local: to.IP.Addr()}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("SendInfo: %v", err)
		}
		if err := f.Endpoint().SendInfo(nil, to, nil); err != nil {
			t.Errorf("SendInfo with nothing asked for: %v", err)
		}
	})
}
