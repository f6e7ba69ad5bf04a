package contract

import (
	"path/filepath"
	"testing"

	"github.com/weir-io/weir"
)

// TestListenAgain: in one callback, a listener or an endpoint is closed and its
// address listened on again.
func TestListenAgain(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		none := func(weir.Transport) weir.Protocol { return nil }
		for _, a := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", filepath.Join(t.TempDir(), "s")}, {"unix", "@weir-again-" + t.Name()}} {
			ln, err := l.Listen(a[0], a[1], none)
			if err != nil {
				t.Fatal(err)
			}
			if err = l.Turn(0); err != nil { // what has to wait is waiting
				t.Fatal(err)
			}
			over := false
			l.After(0, func() {
				for range 3 {
					_ = ln.Close()
					if ln, err = l.Listen(a[0], ln.Addr().String(), none); err != nil {
						t.Errorf("%s %s again: %v", a[0], a[1], err)
						break
					}
				}
				over = true
			})
			turns(t, l, "the callback", func() bool { return over })
		}
		e, err := l.ListenPacket("udp", "127.0.0.1:0", &quietPackets{})
		if err != nil {
			t.Fatal(err)
		}
		if err = l.Turn(0); err != nil {
			t.Fatal(err)
		}
		over := false
		l.After(0, func() {
			_ = e.Close()
			if _, err = l.ListenPacket("udp", e.Local().String(), &quietPackets{}); err != nil {
				t.Errorf("udp again: %v", err)
			}
			over = true
		})
		turns(t, l, "the callback", func() bool { return over })
	})
}

// quietPackets takes datagrams.
type quietPackets struct{}

func (*quietPackets) EndpointMade(*weir.PacketEndpoint)      {}
func (*quietPackets) PacketReceived([]byte, weir.PacketAddr) {}
func (*quietPackets) EndpointLost(error)                     {}
