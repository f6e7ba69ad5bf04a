package layer_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// hello returns a client's first message, after which the client falls silent.
func hello(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan []byte)
	go func() {
		buf := make([]byte, 16<<10)
		n, _ := b.Read(buf)
		_ = b.Close()
		done <- buf[:n]
	}()
	_ = tls.Client(a, &tls.Config{ServerName: "server.test"}).Handshake() // fails: there is no answer
	_ = a.Close()
	return <-done
}

// silent sends its hello and nothing more.
type silent struct {
	hello []byte
	lost  *int
	tr    *weir.Transport
}

func (s silent) ConnectionMade(t weir.Transport)  { *s.tr = t; _, _ = t.Write(s.hello) }
func (silent) DataReceived(p []byte) (int, error) { return len(p), nil }
func (s silent) ConnectionLost(error)             { *s.lost++ }

// wantGoroutines waits until no more than n are left: a goroutine that has done
// its last work still has to return.
func wantGoroutines(t *testing.T, n int) {
	t.Helper()
	for range 3000 {
		if runtime.NumGoroutine() <= n {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, there were %d", runtime.NumGoroutine(), n)
}

// heap returns how many bytes are in use, stacks included.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// TestTLSHandshakeCap: handshakes beyond the cap wait; those that stall give
// way after a second, and the others complete.
func TestTLSHandshakeCap(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	begun := 0
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { begun++; return nil, nil }
	r := newRig(t)
	e := &layertest.Ear{}
	addr := r.listen(func() *layertest.Ear { return e }, layer.TLSServer(server, layer.WithHandshakeCap(2)))
	lost := 0
	before := r.loop.Now()
	transports := make([]weir.Transport, 2)
	for i := range transports {
		r.loop.Connect("tcp", addr, silent{hello(t), &lost, &transports[i]})
	}
	r.until("two that stall", func() bool { return begun == 2 })
	c := &layertest.Ear{}
	r.loop.Connect("tcp", addr, layer.Client(c, layer.TLS(client)))
	r.until("the third", func() bool { return e.Made > 0 })
	if took := r.loop.Now().Sub(before); took < 500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	if len(r.reported) == 0 || !errors.Is(r.reported[0], layer.ErrStalled) || lost == 0 {
		t.Errorf("reported %v, %d lost", r.reported, lost)
	}
}

// TestTLSWaitsForUs: a handshake that a worker computes, or that waits for a
// worker, does not count as silent, however long that takes and whoever wants
// its place.
func TestTLSWaitsForUs(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	entered, proceed := make(chan bool, 3), make(chan bool)
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		entered <- true
		select {
		case <-proceed:
		case <-time.After(5 * time.Second): // a loop that waits for the worker
		}
		return nil, nil
	}
	r := newRig(t)
	addr := r.listen(func() *layertest.Ear { return &layertest.Ear{} },
		layer.TLSServer(server, layer.WithHandshakeCap(2), layer.WithHandshakeWorkers(1)))
	ears := make([]*layertest.Ear, 3)
	for i := range ears {
		ears[i] = &layertest.Ear{}
		r.loop.Connect("tcp", addr, layer.Client(ears[i], layer.TLS(client)))
	}
	r.until("a worker that computes", func() bool { return len(entered) > 0 })
	long := false
	r.loop.After(1500*time.Millisecond, func() { long = true })
	r.until("a long time", func() bool { return long })
	close(proceed)
	r.until("all three", func() bool {
		return !slices.ContainsFunc(ears, func(e *layertest.Ear) bool { return e.Made == 0 && e.Failed == nil })
	})
	for i, e := range ears {
		if e.Failed != nil {
			t.Errorf("connection %d: %v", i, e.Failed)
		}
	}
}

// TestTLSStalled: 5,000 handshakes that never end cost bounded memory, keep no
// new peer out, and leave nothing behind (docs/promises.md, TLS).
func TestTLSStalled(t *testing.T) {
	for _, workers := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) { stall(t, workers) })
	}
}

func stall(t *testing.T, workers int) {
	stalled := 5000
	if testing.Short() {
		stalled = 500
	}
	server, client := tlsPair(t, tls.VersionTLS13)
	r := newRig(t)
	srv := layer.TLSServer(server, layer.WithHandshakeTimeout(time.Hour), layer.WithHandshakeWorkers(workers))
	addr := r.listen(func() *layertest.Ear {
		e := &layertest.Ear{}
		e.OnData = func(p []byte) int {
			e.Got, e.Sizes = e.Got[:0], e.Sizes[:0] // what the test keeps is not measured
			_, _ = e.Tr.Write(p)
			return len(p)
		}
		return e
	}, srv)
	quick := &layertest.Ear{}
	r.loop.Connect("tcp", addr, layer.Client(quick, layer.TLS(client)))
	r.until("the quick one", func() bool { return quick.Made > 0 })
	var sent time.Time
	var times []time.Duration
	ping := func() { sent = time.Now(); _, _ = quick.Tr.Write([]byte("ping")) }
	quick.OnData = func(p []byte) int {
		times = append(times, time.Since(sent))
		quick.Got, quick.Sizes = quick.Got[:0], quick.Sizes[:0]
		ping()
		return len(p)
	}
	// For people to read: these times include whatever else the machine does.
	spread := func() {
		if len(times) == 0 {
			return
		}
		slices.Sort(times)
		t.Logf("%d echoes: p50 %v, p90 %v, p99 %v", len(times), times[len(times)/2], times[len(times)*9/10], times[len(times)*99/100])
		times = nil
	}
	ping()
	r.until("a quiet time", func() bool { return len(times) >= 2000 })
	spread()

	goroutines := runtime.NumGoroutine()
	before := heap()
	opening := hello(t)
	// The peers are in another process: what they cost must not count as the
	// server's cost.
	conns := make([]net.Conn, 0, stalled)
	r.peer(func() error {
		for range stalled {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			conns = append(conns, conn)
			if _, err := conn.Write(opening); err != nil {
				return err
			}
		}
		return nil
	})
	r.until("all of them", func() bool { return r.loop.Connections() >= stalled+2 || len(r.reported) > 0 })
	spread()
	used := int64(heap()) - int64(before)
	t.Logf("%.1f KB for each of %d that stall", float64(used)/1024/float64(stalled), stalled)
	// Handshakes up to the cap with the state of crypto/tls, and for all others
	// the transports of both ends and what the client sent.
	if limit := int64(1024*24<<10 + stalled*8<<10); used > limit {
		t.Errorf("%d bytes for %d that stall, want at most %d", used, stalled, limit)
	}

	// A new peer gets through.
	c := &layertest.Ear{}
	r.loop.Connect("tcp", addr, layer.Client(c, layer.TLS(client, layer.WithHandshakeTimeout(-1))))
	r.until("a newcomer", func() bool { return c.Made > 0 || c.Failed != nil })
	if c.Failed != nil {
		t.Fatalf("a newcomer: %v", c.Failed)
	}

	quick.OnData, times = nil, nil
	_ = quick.Tr.Close()
	_ = c.Tr.Close()
	for _, conn := range conns {
		_ = conn.Close()
	}
	conns = nil
	// The reports of the last of them are still queued when they are gone.
	r.until("all gone, and said", func() bool {
		wait, timer := r.loop.Next()
		return r.loop.Connections() == 0 && !(timer && wait == 0)
	})
	r.reported = nil
	wantGoroutines(t, goroutines)
	if left := int64(heap()) - int64(before); left > 8<<20 {
		t.Errorf("%d bytes stay", left)
	}
}

// TestTLSWorkersCompute: the computations of a handshake are done off the loop,
// whose connections are served meanwhile, however long they take.
func TestTLSWorkersCompute(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	slow, entered, proceed := make(chan bool, 1), make(chan bool, 1), make(chan bool)
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		select {
		case <-slow:
		default:
			return nil, nil
		}
		entered <- true
		select {
		case <-proceed:
		case <-time.After(10 * time.Second):
			t.Error("nobody is served while a handshake computes")
		}
		return nil, nil
	}
	r := newRig(t)
	addr := r.listen(func() *layertest.Ear {
		e := &layertest.Ear{}
		e.OnData = func(p []byte) int { _, _ = e.Tr.Write(p); return len(p) }
		return e
	}, layer.TLSServer(server, layer.WithHandshakeWorkers(1)))
	quick := &layertest.Ear{}
	r.loop.Connect("tcp", addr, layer.Client(quick, layer.TLS(client)))
	r.until("the quick one", func() bool { return quick.Made > 0 })
	slow <- true
	c := &layertest.Ear{}
	r.loop.Connect("tcp", addr, layer.Client(c, layer.TLS(client)))
	in := false
	r.until("a handshake that computes", func() bool {
		select {
		case in = <-entered:
		default:
		}
		return in
	})
	echoes := 0
	quick.OnData = func(p []byte) int {
		if echoes++; echoes < 100 {
			_, _ = quick.Tr.Write([]byte("ping"))
		}
		return len(p)
	}
	_, _ = quick.Tr.Write([]byte("ping"))
	r.until("echoes", func() bool { return echoes == 100 })
	if c.Made > 0 {
		t.Error("it did not compute")
	}
	close(proceed)
	r.until("the slow one", func() bool { return c.Made > 0 })
	_ = quick.Tr.Close()
	_ = c.Tr.Close()
	r.until("all gone", func() bool { return r.loop.Connections() == 0 })
}

// TestTLSLoopCloses: a loop that is closed with handshakes in progress, on a
// different goroutine from the one that ran it, leaves nothing behind
// (behaviour 50, G6).
func TestTLSLoopCloses(t *testing.T) {
	for _, name := range weir.Backends() {
		for i := range 4 {
			locked, workers := i%2 == 1, i/2
			t.Run(fmt.Sprintf("%s, locked %v, %d workers", name, locked, workers), func(t *testing.T) {
				server, client := tlsPair(t, tls.VersionTLS13)
				goroutines := runtime.NumGoroutine()
				l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(error) {}))
				if err != nil {
					t.Fatal(err)
				}
				srv := layer.TLSServer(server, layer.WithHandshakeWorkers(workers))
				ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol { return &layertest.Ear{} }, srv))
				if err != nil {
					t.Fatal(err)
				}
				lost := 0
				transports := make([]weir.Transport, 20)
				for i := range transports {
					l.Connect("tcp", ln.Addr().String(), silent{hello(t), &lost, &transports[i]})
				}
				c := &layertest.Ear{}
				l.Connect("tcp", ln.Addr().String(), layer.Client(c, layer.TLS(client)))
				l.After(20*time.Second, l.Stop)
				var look func()
				look = func() {
					if c.Made > 0 && l.Connections() == 42 {
						l.After(20*time.Millisecond, l.Stop)
						return
					}
					l.After(time.Millisecond, look)
				}
				look()
				ran := make(chan error)
				go func() {
					if locked {
						runtime.LockOSThread()
						defer runtime.UnlockOSThread()
					}
					ran <- l.Run()
				}()
				if err := <-ran; err != nil {
					t.Fatal(err)
				}
				if c.Made == 0 {
					t.Fatal("no connection")
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				if c.Lost != 1 {
					t.Errorf("lost %d times", c.Lost)
				}
				wantGoroutines(t, goroutines)
			})
		}
	}
}
