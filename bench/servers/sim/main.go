// Command sim measures the simulator: a crowd of connections between two
// simulated hosts that send a message every ten seconds and check its echo,
// weir's loops and streams on both ends. It prints one line of JSON with ns for
// each event.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"

	"github.com/weir-io/weir/bench/internal/side"
)

const (
	conns = 2000
	every = 10 * time.Second
	span  = 5 * time.Minute
)

// talker sends a message, checks that it comes back, and sends the next.
type talker struct {
	rnd       *rand.Rand
	t         weir.Transport
	timer     *weir.Timer
	sent, got int
	wrong     *int
	messages  *int
}

func (p *talker) ConnectionMade(t weir.Transport) {
	p.t = t
	p.timer = t.Loop().NewTimer(p.talk)
	p.timer.Set(time.Duration(p.rnd.Int64N(int64(every))))
}

func (p *talker) talk() {
	if p.got != p.sent {
		*p.wrong++
	}
	var b [64]byte
	for i := range b {
		b[i] = byte(p.sent + i)
	}
	p.sent += len(b)
	*p.messages++
	if _, err := p.t.Write(b[:]); err != nil {
		*p.wrong++
	}
	p.timer.Set(every)
}

func (p *talker) DataReceived(b []byte) (int, error) {
	for i, c := range b {
		if c != byte(p.got+i) {
			*p.wrong++
		}
	}
	p.got += len(b)
	return len(b), nil
}

func (p *talker) ConnectionLost(error) { p.timer.Stop() }

// crowd runs the world and returns what an event and a message took, in ns.
func crowd(tb testing.TB) map[string]float64 {
	s := weirtest.NewSim(tb, 1)
	server, client := s.Host("server"), s.Host("client")
	_, err := server.Loop().Listen("tcp", ":7", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	side.Check(err)
	rnd := rand.New(rand.NewPCG(1, 2))
	wrong, messages := 0, 0
	for i := range conns {
		client.Loop().After(time.Duration(i)*10*time.Microsecond, func() {
			client.Loop().Connect("tcp", "server:7", &talker{rnd: rnd, wrong: &wrong, messages: &messages})
		})
	}
	began := time.Now()
	side.Check(s.RunFor(span))
	took := float64(time.Since(began))
	if wrong > 0 || messages < conns*int(span/every-2) {
		side.Check(fmt.Errorf("%d messages, %d wrong", messages, wrong))
	}
	return map[string]float64{
		"event":                     took / float64(s.Events()),
		"message there and back":    took / float64(messages),
		"a simulated second, in µs": took / span.Seconds() / 1e3,
	}
}

func main() {
	// The simulator belongs to a test: a benchmark of one iteration is one.
	testing.Init()
	side.Check(flag.Set("test.benchtime", "1x"))
	flag.Parse()
	var figures map[string]float64
	testing.Benchmark(func(b *testing.B) { figures = crowd(b) })
	text, err := json.Marshal(figures)
	side.Check(err)
	fmt.Println(string(text))
}
