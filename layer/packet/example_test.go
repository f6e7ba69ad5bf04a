package packet_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/packet"
)

// rot13 is a layer that changes each datagram, either way.
type rot13 struct {
	packet.Base
	buf []byte
}

func newROT13(*weir.Loop) packet.Ends { return &rot13{} }

func (r *rot13) PacketReceived(p []byte, from weir.PacketAddr) { r.Deliver(r.turn(p), from) }

func (r *rot13) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	return r.Base.SendTo(r.turn(p), to)
}

func (r *rot13) turn(p []byte) []byte {
	r.buf = append(r.buf[:0], p...) // p is lent, and must not be changed
	for i, c := range r.buf {
		switch {
		case 'a' <= c|' ' && c|' ' <= 'm':
			r.buf[i] += 13
		case 'n' <= c|' ' && c|' ' <= 'z':
			r.buf[i] -= 13
		}
	}
	return r.buf
}

func ExampleBase() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()
	show := func(name string) weir.PacketProtocol {
		return weir.PacketFunc(func(_ *weir.PacketEndpoint, p []byte, _ weir.PacketAddr) {
			fmt.Printf("%s got %s\n", name, p)
			l.Stop()
		}).Protocol()
	}
	server, err := packet.Listen(l, "udp4", "127.0.0.1:0", show("server"), []packet.Layer{newROT13})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := l.ListenPacket("udp4", "127.0.0.1:0", show("client"))
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = client.SendTo([]byte("Uryyb"), server.Local())
	_ = l.Run()
	// Output: server got Hello
}
