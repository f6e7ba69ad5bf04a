package weir

import (
	"testing"

	"github.com/weir-io/weir/internal/backend/epoll"
)

// pingPong sends what it gets back to where it came from.
type pingPong struct {
	t     Transport
	count int
	first []byte
}

func (p *pingPong) ConnectionMade(t Transport) {
	p.t = t
	if p.first != nil {
		_, _ = t.Write(p.first)
	}
}

func (p *pingPong) DataReceived(b []byte) (int, error) {
	p.count++
	return p.t.Write(b)
}
func (p *pingPong) ConnectionLost(error) {}

// TestSteadyEcho counts what a message costs once traffic is steady: one read,
// one write, no epoll_ctl and no allocation (R6, R20).
func TestSteadyEcho(t *testing.T) {
	for _, name := range []string{"epoll", "epoll-et"} {
		t.Run(name, func(t *testing.T) {
			l, err := New(WithBackendName(name))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			a, b := &pingPong{}, &pingPong{first: make([]byte, 64)}
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(Transport) Protocol { return a })
			if err != nil {
				t.Fatal(err)
			}
			l.Connect("tcp", ln.Addr().String(), b)
			turns := func(messages int) {
				for want := a.count + b.count + messages; a.count+b.count < want; {
					if err := l.Turn(-1); err != nil {
						t.Fatal(err)
					}
				}
			}
			turns(100)
			be := l.be.(*epoll.Backend)
			before, count := be.Calls(), a.count+b.count
			turns(1000)
			after, messages := be.Calls(), uint64(a.count+b.count-count)
			if after.Read-before.Read != messages || after.Write-before.Write != messages || after.Ctl != before.Ctl {
				t.Errorf("%d messages cost %d reads, %d writes, %d epoll_ctl", messages,
					after.Read-before.Read, after.Write-before.Write, after.Ctl-before.Ctl)
			}
			if n := testing.AllocsPerRun(100, func() { turns(10) }); n != 0 {
				t.Errorf("10 messages cost %v allocations", n)
			}
		})
	}
}
