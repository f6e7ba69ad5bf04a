package contract

import (
	"testing"

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

func BenchmarkEcho(b *testing.B) {
	l, err := weir.NewLoop()
	if err != nil {
		b.Fatal(err)
	}
	p := &pinger{max: b.N, done: l.Stop}
	_, _, err = l.SocketPair(func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }, func(weir.Transport) weir.Protocol { return p })
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
