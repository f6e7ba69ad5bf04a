package stream_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

// pinger sends a message and, when it is back, the next.
type pinger struct {
	t    weir.Transport
	left *int
	got  int
	msg  [64]byte
	end  func()
}

func (p *pinger) ConnectionMade(t weir.Transport) {
	p.t = t
	_, _ = t.Write(p.msg[:])
}

func (p *pinger) DataReceived(b []byte) (int, error) {
	p.got += len(b)
	for ; p.got >= len(p.msg); p.got -= len(p.msg) {
		if *p.left--; *p.left == 0 {
			p.end()
		}
		_, _ = p.t.Write(p.msg[:])
	}
	return len(b), nil
}

func (p *pinger) ConnectionLost(error) {}

// threadTime is what the thread has used. The goroutine is locked to it.
func threadTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if syscall.Getrusage(thread, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkEchoServer is a server on a loop of its own; server-ns/op is the
// processor time of its thread for one message of 64 bytes. The target is that
// coroutines cost at most 1.15 of callbacks.
func BenchmarkEchoServer(b *testing.B) {
	for _, conns := range []int{1, 64} {
		for _, kind := range []string{"callbacks", "coroutines"} {
			b.Run(fmt.Sprintf("%s, %d connections", kind, conns), func(b *testing.B) {
				benchEcho(b, conns, kind == "coroutines")
			})
		}
	}
}

func benchEcho(b *testing.B, conns int, coroutines bool) {
	server, err := weir.New()
	if err != nil {
		b.Fatal(err)
	}
	client, err := weir.New()
	if err != nil {
		b.Fatal(err)
	}
	root := task.New(future.On(server))
	factory := func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }
	if coroutines {
		factory = stream.Factory(root, func(t *task.Task, c *stream.Stream) error {
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
		})
	}
	ln, err := server.Listen("tcp", "127.0.0.1:0", factory)
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error)
	var begin time.Duration
	go func() {
		runtime.LockOSThread()
		begin = threadTime()
		err := server.Run()
		b.ReportMetric(float64(threadTime()-begin)/float64(b.N), "server-ns/op")
		served <- err
	}()
	left := b.N
	for range conns {
		client.Connect("tcp", ln.Addr().String(), &pinger{left: &left, end: func() {
			client.Stop()
			_, _ = server.Post(func() {
				root.Cancel(nil)
				root.Done().OnDone(func(struct{}, error) { server.Stop() })
			})
		}})
	}
	b.ReportAllocs()
	b.ResetTimer()
	if err := client.Run(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if err := <-served; err != nil {
		b.Fatal(err)
	}
	if err := client.Close(); err != nil {
		b.Fatal(err)
	}
	if err := server.Close(); err != nil {
		b.Fatal(err)
	}
}
