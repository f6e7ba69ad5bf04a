package contract

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// TestFactoryWrites: what a Factory writes is sent before what ConnectionMade
// writes, and a Factory that then refuses, closes or aborts leaves nothing behind.
func TestFactoryWrites(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		for _, how := range []string{"serves", "closes", "aborts", "refuses"} {
			lost, open := 0, 0
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(tr weir.Transport) weir.Protocol {
				for _, p := range [][]byte{[]byte("first "), big} {
					if n, err := tr.Write(p); n != len(p) || err != nil {
						t.Errorf("Write: %d, %v", n, err)
					}
				}
				switch how {
				case "closes":
					tr.Close()
				case "aborts":
					tr.Abort()
				case "refuses":
					return nil
				}
				return &lostFunc{made: func() { _, _ = tr.Write([]byte(" last")); tr.Close() }, lost: func() { lost++ }}
			})
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan []byte, 1)
			go func() {
				c, err := net.DialTimeout("tcp", ln.Addr().String(), 10*time.Second)
				if err != nil { // aborted before the dialer looked
					got <- []byte{}
					return
				}
				defer c.Close()
				all, _ := io.ReadAll(c)
				got <- all
			}()
			var all []byte
			turns(t, l, "what the client got", func() bool {
				select {
				case all = <-got:
				default:
				}
				open = l.Connections()
				return all != nil && open == 0
			})
			_ = ln.Close()
			whole := append([]byte("first "), big...)
			switch how {
			case "serves":
				whole = append(whole, " last"...)
				fallthrough
			case "closes":
				if !bytes.Equal(all, whole) {
					t.Errorf("%s: the client got %d bytes, want %d", how, len(all), len(whole))
				}
			default:
				if !bytes.HasPrefix(whole, all) {
					t.Errorf("%s: the client got %d bytes that were not sent", how, len(all))
				}
			}
			if want := map[bool]int{true: 0, false: 1}[how == "refuses"]; lost != want {
				t.Errorf("%s: ConnectionLost was called %d times", how, lost)
			}
		}
	})
}

// TestFactoryRefusesWhileWriting: the write that a refusing Factory began is over
// before the handle is closed, and nothing remains.
func TestFactoryRefusesWhileWriting(t *testing.T) {
	for seed := range uint64(20) {
		s := weirtest.NewSim(t, seed+1, weirtest.WithFaults(weirtest.Faults{LateCancel: 0.5, NoInline: seed%2 == 0}))
		server, client := s.Host("server"), s.Host("client")
		_, err := server.Loop().Listen("tcp", ":7", func(tr weir.Transport) weir.Protocol {
			if _, err := tr.Write(make([]byte, 1<<20)); err != nil {
				t.Error(err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		lost := 0
		client.Loop().Connect("tcp", "server:7", &lostFunc{made: func() {}, lost: func() { lost++ }})
		s.Until("the client lost", func() bool { return lost == 1 && server.Loop().Connections() == 0 })
	}
}
