package sim

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// simTalker sends a message now and then and checks that it comes back.
type simTalker struct {
	c     *simCrowd
	t     weir.Transport
	timer *weir.Timer
	sent  int
	got   int
}

// simCrowd is many connections between two hosts.
type simCrowd struct {
	r        *rand.Rand
	every    time.Duration
	open     int
	messages int
	lost     int
	problem  string
}

const simMessage = 64 // bytes

func (p *simTalker) ConnectionMade(t weir.Transport) {
	p.t = t
	p.c.open++
	p.timer = t.Loop().NewTimer(p.talk)
	p.timer.Set(time.Duration(p.c.r.Int64N(int64(p.c.every))))
}

func (p *simTalker) talk() {
	if p.got != p.sent {
		p.c.problem = fmt.Sprintf("%d bytes of %d came back in %v", p.got, p.sent, p.c.every)
	}
	var b [simMessage]byte
	for i := range b {
		b[i] = byte(p.sent + i)
	}
	p.sent += len(b)
	p.c.messages++
	_, _ = p.t.Write(b[:])
	p.timer.Set(p.c.every)
}

func (p *simTalker) DataReceived(b []byte) (int, error) {
	for i, c := range b {
		if c != byte(p.got+i) {
			return 0, io.ErrUnexpectedEOF
		}
	}
	p.got += len(b)
	return len(b), nil
}

func (p *simTalker) ConnectionLost(error) {
	p.timer.Stop()
	p.c.lost++
}

// simHour runs conns connections, each with a message every ten seconds, for a
// while in the world's time.
func simHour(t testing.TB, conns int, span time.Duration) (*sim.World, *simCrowd) {
	w := sim.New(1, sim.Config{})
	c := &simCrowd{r: rand.New(rand.NewPCG(1, 2)), every: 10 * time.Second}
	loop := func(name string) *weir.Loop {
		b, err := w.Host(name).Backend()
		if err != nil {
			t.Fatal(err)
		}
		l, err := weir.NewLoop(weir.WithBackend(b), weir.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		b.Drive(l)
		return l
	}
	server, client := loop("server"), loop("client")
	if _, err := server.Listen("tcp", ":7", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }); err != nil {
		t.Fatal(err)
	}
	to := fmt.Sprintf("%v:7", w.Lookup("server")[0])
	for i := range conns {
		client.After(time.Duration(i)*10*time.Microsecond, func() { client.Connect("tcp", to, &simTalker{c: c}) })
	}
	if err := w.RunFor(span); err != nil {
		t.Fatal(err)
	}
	if c.problem != "" || c.open != conns || c.lost != 0 {
		t.Fatalf("%d of %d connections made, %d lost, %s", c.open, conns, c.lost, c.problem)
	}
	for _, l := range []*weir.Loop{client, server} {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Run(nil); err != nil {
		t.Fatal(err)
	}
	if u := w.Usage(); u != (sim.Usage{}) || c.lost != conns {
		t.Fatalf("%d of %d connections lost at the end, left over %+v", c.lost, conns, u)
	}
	return w, c
}

// A crowd of connections for a while; BenchmarkSimHour is the long form.
func TestSimCrowd(t *testing.T) {
	w, c := simHour(t, 1000, time.Minute)
	t.Logf("%d messages, %+v in %v", c.messages, w.Stats(), w.Now())
	if c.messages < 5000 {
		t.Errorf("only %d messages", c.messages)
	}
}

// BenchmarkSimHour is 10,000 connections for a virtual hour, weir's loops and
// streams on both ends.
func BenchmarkSimHour(b *testing.B) {
	for range b.N {
		w, c := simHour(b, 10_000, time.Hour)
		b.ReportMetric(float64(w.Stats().Total())/b.Elapsed().Seconds(), "events/s")
		b.ReportMetric(w.Now().Seconds()/b.Elapsed().Seconds(), "virtual/real")
		b.ReportMetric(float64(c.messages), "messages")
	}
}
