package weir

import (
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend/epoll"
)

// asker sends a message, and ends its stream once the answer is there.
type asker struct {
	pingPong
	lost  int
	local string
}

func (a *asker) DataReceived(b []byte) (int, error) {
	a.count++
	return len(b), a.t.WriteEOF()
}

func (a *asker) ConnectionLost(error) {
	a.lost++
	a.local = a.t.LocalAddr().String()
}

// answerer answers, and ends its stream when its peer has.
type answerer struct {
	pingPong
	lost int
}

func (a *answerer) EOFReceived() (bool, error) { return true, a.t.WriteEOF() }
func (a *answerer) ConnectionLost(error)       { a.lost++ }

// TestSessionCalls counts what a short session costs at both of its ends together: a
// connect, a message there and back, the end of one side and then of the other. Each end is
// registered once; the side that ends first says so, and the other closes; and the one
// address that is asked for is the connecting side's own (R79).
func TestSessionCalls(t *testing.T) {
	for _, name := range []string{"epoll", "epoll-et"} {
		t.Run(name, func(t *testing.T) {
			l, err := NewLoop(WithBackendName(name))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			server := &answerer{}
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(Transport) Protocol { return server })
			if err != nil {
				t.Fatal(err)
			}
			session := func() {
				c, lost := &asker{pingPong: pingPong{first: make([]byte, 100)}}, server.lost
				l.Connect("tcp", ln.Addr().String(), c)
				for c.lost == 0 || server.lost == lost {
					if err := l.Turn(time.Millisecond); err != nil { // ConnectionLost precedes its wait
						t.Fatal(err)
					}
				}
				if c.count != 1 || c.local == "" {
					t.Fatalf("%d answers to %s", c.count, c.local)
				}
			}
			session()
			be := l.be.(*epoll.Backend)
			before := be.Calls()
			const n = 20
			for range n {
				session()
			}
			after := be.Calls()
			for _, c := range []struct {
				what          string
				before, after uint64
				want          uint64
			}{
				{"connect", before.Connect, after.Connect, n},
				{"epoll_ctl", before.Ctl, after.Ctl, 2 * n},
				{"read", before.Read, after.Read, 4 * n},
				{"write", before.Write, after.Write, 2 * n},
				{"shutdown", before.Shut, after.Shut, n},
				{"close", before.Close, after.Close, 2 * n},
				{"getsockname, getpeername", before.Name, after.Name, n},
				{"getsockopt, setsockopt", before.Option, after.Option, 0},
			} {
				if got := c.after - c.before; got != c.want {
					t.Errorf("%d sessions took %d calls of %s, want %d", n, got, c.what, c.want)
				}
			}
		})
	}
}
