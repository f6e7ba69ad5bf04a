package contract

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// unreader gives back what it was given, in pieces of one kind or the other, until
// it has seen much of it twice.
type unreader struct {
	weir.NopProtocol
	t       weir.Transport
	within  bool // in the middle of a delivery, together with a change of protocol
	got     []byte
	pending []byte
	backs   int
}

func (p *unreader) ConnectionMade(t weir.Transport) { p.t = t }
func (p *unreader) DataReceived(b []byte) (int, error) {
	u, _ := weir.As[weir.Unreader](p.t)
	if p.backs < 20 && len(b) > 1 {
		p.backs++
		used := len(b)/2 + 1
		mine := bytes.Clone(b[:used])
		if p.within {
			p.got = append(p.got, mine[:1]...)
			u.Unread(mine[1:])
			p.t.SetProtocol(p) // setting the same one again is a change, too
			return used, nil
		}
		p.got = append(p.got, mine[:1]...)
		p.pending = mine[1:]
		p.t.PauseReading()
		p.t.Loop().Soon(func() {
			u.Unread(p.pending)
			p.t.ResumeReading()
		})
		return used, nil
	}
	p.got = append(p.got, b...)
	return len(b), nil
}

// TestUnread: bytes that are given back come again, once, before all others.
func TestUnread(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, make loopMaker) {
		for _, within := range []bool{false, true} {
			l := make()
			p := &unreader{within: within}
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return p })
			if err != nil {
				t.Fatal(err)
			}
			var want []byte
			for i := range 20_000 {
				want = fmt.Appendf(want, "%d ", i)
			}
			l.Connect("tcp", ln.Addr().String(), &sendAll{all: want})
			weirtest.Until(t, l, "all bytes", func() bool { return len(p.got) >= len(want) })
			if !bytes.Equal(p.got, want) || p.backs != 20 {
				t.Errorf("within %t: got %d bytes of %d, given back %d times; equal up to %d",
					within, len(p.got), len(want), p.backs, common(p.got, want))
			}
			_ = ln.Close()
		}
	})
}

func common(a, b []byte) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// sendAll is a client that sends all it has.
type sendAll struct {
	weir.NopProtocol
	all  []byte
	ends bool // its stream ends with them
}

func (p *sendAll) ConnectionMade(t weir.Transport) {
	_, _ = t.Write(p.all)
	if p.ends {
		_ = t.WriteEOF()
	}
}

// endsThenBack keeps everything it gets, and gives it back at the end for another protocol.
type endsThenBack struct {
	unreader
	next weir.Protocol
}

func (p *endsThenBack) DataReceived(b []byte) (int, error) {
	p.got = append(p.got, b...)
	return len(b), nil
}

func (p *endsThenBack) EOFReceived(int) (bool, error) {
	u, _ := weir.As[weir.Unreader](p.t)
	u.Unread(p.got)
	p.t.SetProtocol(p.next)
	return true, nil
}

// follower keeps what it gets, and whether the end came after it.
type follower struct {
	weir.NopProtocol
	got  []byte
	ends int
	lost bool
}

func (p *follower) DataReceived(b []byte) (int, error) {
	p.got = append(p.got, b...)
	return len(b), nil
}
func (p *follower) EOFReceived(unused int) (bool, error) { p.ends++; return false, nil }
func (p *follower) ConnectionLost(error)                 { p.lost = true }

// TestUnreadAtEnd: bytes given back at the end of the stream come to the next
// protocol, and the end after them, once.
func TestUnreadAtEnd(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, make loopMaker) {
		l := make()
		next := &follower{}
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return &endsThenBack{next: next} })
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("kept to the end "), 1000)
		l.Connect("tcp", ln.Addr().String(), &sendAll{all: want, ends: true})
		weirtest.Until(t, l, "the end", func() bool { return next.lost })
		if !bytes.Equal(next.got, want) || next.ends != 1 {
			t.Errorf("got %d bytes of %d, and %d ends", len(next.got), len(want), next.ends)
		}
		_ = ln.Close()
	})
}
