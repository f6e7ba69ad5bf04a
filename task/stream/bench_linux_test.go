package stream_test

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

// round is what is left of a round of messages.
type round struct{ send, get int }

// pinger sends a message and, when it is back, the next, while there are any left.
type pinger struct {
	t         weir.Transport
	left      *round
	got       int
	msg       [64]byte
	made, end func()
}

func (p *pinger) ConnectionMade(t weir.Transport) {
	p.t = t
	p.made()
}

func (p *pinger) send() { _, _ = p.t.Write(p.msg[:]) }

func (p *pinger) DataReceived(b []byte) (int, error) {
	p.got += len(b)
	for ; p.got >= len(p.msg); p.got -= len(p.msg) {
		if p.left.send > 0 {
			p.left.send--
			p.send()
		}
		if p.left.get--; p.left.get == 0 {
			p.end()
		}
	}
	return len(b), nil
}

func (p *pinger) ConnectionLost(error) {}

// threadTime is the processor time that the thread has used. The goroutine is locked to it.
func threadTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if syscall.Getrusage(thread, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pong is an echo server as a coroutine.
func pong(t *task.Task, c *stream.Stream) error {
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(t, buf)
		if err != nil {
			return stream.End(err)
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// roundOf is how many messages of one kind are sent before those of the other.
const roundOf = 4000

// BenchmarkEchoServer sends to an echo server of callbacks and to one of coroutines, on
// one loop, in turn: an operation is a round of 4,000 messages to each. callback-ns and
// coroutine-ns are the processor time of the server's thread for one message of 64
// bytes, ratio is the median of the rounds' ratios. The target is that coroutines cost
// at most 1.15 times as much as callbacks.
func BenchmarkEchoServer(b *testing.B) {
	for _, conns := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d connections", conns), func(b *testing.B) { benchEcho(b, conns) })
	}
}

func benchEcho(b *testing.B, conns int) {
	server, err := weir.NewLoop()
	if err != nil {
		b.Fatal(err)
	}
	client, err := weir.NewLoop()
	if err != nil {
		b.Fatal(err)
	}
	root := task.New(future.On(server))
	factories := [2]weir.Factory{
		func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) },
		stream.Factory(root, pong),
	}
	// begin sends a round to one of the servers; ended is called on the client's
	// loop when all of it is back.
	var ended func()
	var left round
	var pingers [2][]*pinger
	begin := func(kind int) {
		left = round{send: roundOf - conns, get: roundOf}
		for _, p := range pingers[kind] {
			p.send()
		}
	}
	made := 0
	for kind, factory := range factories {
		ln, err := server.Listen("tcp", "127.0.0.1:0", factory)
		if err != nil {
			b.Fatal(err)
		}
		for range conns {
			p := &pinger{left: &left, end: func() { ended() }, made: func() {
				if made++; made == 2*conns {
					ended()
				}
			}}
			pingers[kind] = append(pingers[kind], p)
			client.Connect("tcp", ln.Addr().String(), p)
		}
	}
	served := make(chan error)
	go func() {
		runtime.LockOSThread()
		served <- server.Run()
	}()
	b.ReportAllocs()
	b.ResetTimer()

	var times [2][]time.Duration
	var ratios []float64
	running, began := -1, time.Duration(0)
	ended = func() { // a round is over, or everything is connected
		_, _ = server.Post(func() {
			now := threadTime()
			if running >= 0 {
				times[running] = append(times[running], now-began)
			}
			if running == 1 {
				n := len(ratios)
				ratios = append(ratios, float64(times[1][n])/float64(times[0][n]))
			}
			if len(ratios) == b.N {
				_, _ = client.Post(client.Stop)
				root.Cancel(nil)
				root.Done().OnDone(func(struct{}, error) { server.Stop() })
				return
			}
			running, began = (running+1)%2, now
			next := running
			_, _ = client.Post(func() { begin(next) })
		})
	}
	if err := client.Run(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if err := <-served; err != nil {
		b.Fatal(err)
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2]) / roundOf
	}
	slices.Sort(ratios)
	b.ReportMetric(median(times[0]), "callback-ns")
	b.ReportMetric(median(times[1]), "coroutine-ns")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	if err := client.Close(); err != nil {
		b.Fatal(err)
	}
	if err := server.Close(); err != nil {
		b.Fatal(err)
	}
}
