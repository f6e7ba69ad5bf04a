package contract

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/weir-io/weir"
)

// door admits a number of connections at once and counts, for the loops of a group too.
type door struct {
	mu                sync.Mutex
	most, open, asked int
	last              netip.Addr
}

var errFull = errors.New("full")

func (d *door) Admit(peer netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	d.last = peer
	if d.open == d.most {
		return errFull
	}
	d.open++
	return nil
}

func (d *door) Left(netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
}

// TestAdmission: a listener creates nothing for a connection that its Admission
// refuses, the peer sees it closed, and each admitted connection leaves once,
// however it ends: refused by the factory, closed, cut with the loop.
func TestAdmission(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		d := &door{most: 2}
		made := 0
		var ts []weir.Transport
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
			if made++; made == 1 {
				return nil
			}
			ts = append(ts, t)
			return &lastWords{lost: func(error) {}}
		}, weir.WithAdmission(d))
		if err != nil {
			t.Fatal(err)
		}
		dial(t, ln.Addr(), 1)
		turns(t, l, "the one that the factory refused to leave", func() bool { return made == 1 && d.open == 0 })
		all := dial(t, ln.Addr(), 4)
		turns(t, l, "four to be asked for", func() bool { return d.asked == 5 })
		if made != 3 || d.open != 2 || ln.Conns() != 2 || d.last != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%d made, %d open, %d connections, the last from %v", made, d.open, ln.Conns(), d.last)
		}
		for _, c := range all[2:] {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a refused connection is open")
			}
		}
		ts[0].Abort()
		turns(t, l, "one to leave", func() bool { return d.open == 1 })
		dial(t, ln.Addr(), 1)
		turns(t, l, "one more", func() bool { return d.open == 2 && len(ts) == 3 })
		_ = l.Close() // reports what it cut
		if d.open != 0 {
			t.Errorf("%d never left", d.open)
		}
	})
	t.Run("unix", func(t *testing.T) {
		onRealLoops(t, func(t *testing.T, l *weir.Loop) {
			d := &door{most: 1, last: netip.IPv6Loopback()}
			ln, err := l.Listen("unix", t.TempDir()+"/s", func(weir.Transport) weir.Protocol { return &lastWords{lost: func(error) {}} }, weir.WithAdmission(d))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				c, err := net.Dial("unix", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
			}
			turns(t, l, "both to be asked for", func() bool { return d.asked == 2 })
			if d.open != 1 || d.last.IsValid() {
				t.Errorf("%d open, the last from %v", d.open, d.last)
			}
		})
	})
}
