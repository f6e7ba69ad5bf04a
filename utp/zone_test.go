package utp_test

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// TestDialZone: an address is dialed whose zone is written as a number, or that has one it
// does not need.
func TestDialZone(t *testing.T) {
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
			server, err := utp.Open(l, "udp6", "["+host+"]:0", utp.Config{})
			if err != nil {
				t.Log(err) // not there yet
				continue
			}
			if _, err := server.Listen(func(weir.Transport) weir.Protocol { return &ear{} }); err != nil {
				t.Fatal(err)
			}
			client, err := utp.Open(l, "udp6", "[::]:0", utp.Config{})
			if err != nil {
				t.Fatal(err)
			}
			e := &ear{}
			client.Dial(netip.AddrPortFrom(netip.MustParseAddr(host), server.Packets().Local().IP.Port()), e)
			weirtest.Until(t, l, "a connection to "+host, func() bool { return e.made > 0 || e.failed != nil })
			if e.failed != nil {
				t.Errorf("to %s: %v", host, e.failed)
			}
		}
	}
}
