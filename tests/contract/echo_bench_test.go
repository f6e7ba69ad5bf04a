package contract

import (
	"testing"
	"time"

	"github.com/weir-io/weir"
)

type pinger struct {
	weir.NopProtocol
	n, max int
	t      weir.Transport
	msg    [64]byte
	done   func()
}

func (p *pinger) ConnectionMade(t weir.Transport) { p.t = t; t.Write(p.msg[:]) }
func (p *pinger) DataReceived(b []byte) (int, error) {
	p.n++
	if p.n == p.max {
		p.done()
		return len(b), nil
	}
	p.t.Write(b)
	return len(b), nil
}

func BenchmarkEcho(b *testing.B) { benchEcho(b, nil) }

// BenchmarkEchoIdle is the same where one end has limits of silence, and
// BenchmarkEchoLimited where each turn has a limit: what either costs a message.
func BenchmarkEchoIdle(b *testing.B) {
	benchEcho(b, func(_ *weir.Loop, t weir.Transport) {
		idle, _ := weir.As[weir.IdleTimer](t)
		for _, d := range []weir.Direction{weir.DirectionRead, weir.DirectionWrite, weir.DirectionBoth} {
			if err := idle.SetIdleTimeout(d, time.Second); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEchoLimited(b *testing.B) {
	benchEcho(b, func(l *weir.Loop, _ weir.Transport) {
		if err := l.SetTurnLimit(weir.TurnLimit{Time: 2 * time.Millisecond}); err != nil {
			b.Fatal(err)
		}
	})
}

func benchEcho(b *testing.B, prepare func(*weir.Loop, weir.Transport)) {
	l, err := weir.NewLoop()
	if err != nil {
		b.Fatal(err)
	}
	p := &pinger{max: b.N, done: l.Stop}
	_, _, err = l.SocketPair(func(t weir.Transport) weir.Protocol {
		if prepare != nil {
			prepare(l, t)
		}
		return weir.DataFunc(t.Write)
	}, func(weir.Transport) weir.Protocol { return p })
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	l.Run()
	b.StopTimer()
	l.Close()
}

func BenchmarkPost(b *testing.B) {
	l, _ := weir.NewLoop()
	go l.Run()
	n := 0
	b.ReportAllocs()
	done := make(chan bool)
	for i := 0; i < b.N; i++ {
		l.Post(func() { n++ })
	}
	l.Post(func() { close(done) })
	<-done
	l.Stop()
}
