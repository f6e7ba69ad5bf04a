package relay_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// TestPacketsZone: answers pass where the target's zone is written as a number, or is one
// that its address does not need.
func TestPacketsZone(t *testing.T) {
	l, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { t.Error(err) }))
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Skip(err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok || n.IP.To4() != nil || !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
				continue
			}
			host := n.IP.String() + "%" + strconv.Itoa(i.Index)
			target, client := &box{answer: true}, &box{}
			te, err := l.ListenPacket("udp6", "["+host+"]:0", target)
			if err != nil {
				t.Log(err) // not there yet
				continue
			}
			target.e = te
			to := net.JoinHostPort(host, strconv.Itoa(int(te.Local().IP.Port())))
			r, err := relay.NewPackets(l, "udp4", "127.0.0.1:0", relay.PacketConfig{Targets: []string{to}})
			if err != nil {
				t.Fatal(err)
			}
			ce, err := l.ListenPacket("udp4", "127.0.0.1:0", client)
			if err != nil {
				t.Fatal(err)
			}
			if err := ce.SendTo([]byte("q"), r.Local()); err != nil {
				t.Fatal(err)
			}
			weirtest.Until(t, l, "an answer from "+to, func() bool { return len(client.got) == 1 })
		}
	}
}
