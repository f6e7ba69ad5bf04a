//go:build unix

package layer_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// cpu returns the processor time of the process, for both ends together.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchLoop returns a loop for a benchmark, with two connected ears on it.
func benchLoop(b *testing.B, backend string, s, c *layertest.Ear, server, client layer.Layer) *weir.Loop {
	b.Helper()
	l, err := weir.NewLoop(weir.WithBackendName(backend))
	if err != nil {
		b.Skip(err)
	}
	runtime.LockOSThread()
	b.Cleanup(func() {
		_ = l.Close()
		runtime.UnlockOSThread()
	})
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol { return s }, server))
	if err != nil {
		b.Fatal(err)
	}
	l.Connect("tcp", ln.Addr().String(), layer.Client(c, client))
	for s.Made == 0 || c.Made == 0 {
		if c.Failed != nil {
			b.Fatal(c.Failed)
		}
		if err := l.Turn(time.Second); err != nil {
			b.Fatal(err)
		}
	}
	return l
}

// puller is a pull producer that writes one piece at a time, when the last has
// left, as a relay writes what it reads.
type puller struct {
	t     weir.Transport
	piece []byte
	left  int
}

func (s *puller) Streaming() bool { return false }
func (s *puller) PauseProducing() {}
func (s *puller) StopProducing()  { s.left = 0 }
func (s *puller) ResumeProducing() {
	if s.left == 0 {
		s.t.UnregisterProducer()
		return
	}
	n := min(s.left, len(s.piece))
	s.left -= n
	_, _ = s.t.Write(s.piece[:n])
}

// BenchmarkTLSBulk: processor time for a gigabyte, both ends together, compared
// with blocking crypto/tls (docs/promises.md, Targets: at most 0.8 of it).
func BenchmarkTLSBulk(b *testing.B) {
	const piece = 64 << 10
	server, client := tlsPair(b, tls.VersionTLS13)
	perGB := func(b *testing.B, began time.Duration) {
		b.ReportMetric((cpu()-began).Seconds()/(float64(b.N)*piece/1e9), "cpu-s/GB")
	}
	for _, backend := range weir.Backends() {
		b.Run(backend, func(b *testing.B) {
			got := 0
			s, c := &layertest.Ear{}, &layertest.Ear{}
			l := benchLoop(b, backend, s, c, layer.TLSServer(server), layer.TLS(client))
			s.Tr.SetProtocol(weir.DataFunc(func(p []byte) (int, error) { got += len(p); return len(p), nil }))
			b.SetBytes(piece)
			b.ReportAllocs()
			b.ResetTimer()
			began := cpu()
			_ = c.Tr.RegisterProducer(&puller{t: c.Tr, piece: make([]byte, piece), left: b.N * piece})
			for got < b.N*piece {
				if err := l.Turn(time.Second); err != nil {
					b.Fatal(err)
				}
			}
			perGB(b, began)
		})
	}
	b.Run("blocking", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		done := make(chan error, 1)
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				done <- err
				return
			}
			t := tls.Server(conn, server)
			buf := make([]byte, piece)
			for n := 0; n < b.N*piece; {
				k, err := t.Read(buf)
				if err != nil {
					done <- err
					return
				}
				n += k
			}
			done <- conn.Close()
		}()
		conn, err := tls.Dial("tcp", ln.Addr().String(), client)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(piece)
		b.ReportAllocs()
		b.ResetTimer()
		began := cpu()
		buf := make([]byte, piece)
		for range b.N {
			if _, err := conn.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		perGB(b, began)
	})
}

// BenchmarkTLSEcho: 64 bytes there and back.
func BenchmarkTLSEcho(b *testing.B) {
	server, client := tlsPair(b, tls.VersionTLS13)
	perMessage := func(b *testing.B, began time.Duration) {
		b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-µs/op")
	}
	for _, backend := range weir.Backends() {
		b.Run(backend, func(b *testing.B) {
			s, c := &layertest.Ear{}, &layertest.Ear{}
			l := benchLoop(b, backend, s, c, layer.TLSServer(server), layer.TLS(client))
			s.Tr.SetProtocol(weir.DataFunc(s.Tr.Write))
			message := make([]byte, 64)
			left := b.N
			c.Tr.SetProtocol(weir.DataFunc(func(p []byte) (int, error) {
				if left--; left > 0 {
					_, _ = c.Tr.Write(message)
				}
				return len(p), nil
			}))
			b.ReportAllocs()
			b.ResetTimer()
			began := cpu()
			_, _ = c.Tr.Write(message)
			for left > 0 {
				if err := l.Turn(time.Second); err != nil {
					b.Fatal(err)
				}
			}
			perMessage(b, began)
		})
	}
	b.Run("blocking", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			t := tls.Server(conn, server)
			_, _ = io.Copy(t, t)
			_ = conn.Close()
		}()
		conn, err := tls.Dial("tcp", ln.Addr().String(), client)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		buf := make([]byte, 64)
		b.ReportAllocs()
		b.ResetTimer()
		began := cpu()
		for range b.N {
			if _, err := conn.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conn, buf); err != nil {
				b.Fatal(err)
			}
		}
		perMessage(b, began)
	})
}

// idleClients is how many connections the memory test makes.
const idleClients = 500

// TestIdleClients is the other process of TestTLSIdleMemory.
func TestIdleClients(t *testing.T) {
	addr := os.Getenv("WEIR_IDLE_CLIENTS")
	if addr == "" {
		t.Skip("it is the other process of TestTLSIdleMemory")
	}
	ca, err := os.ReadFile(os.Getenv("WEIR_IDLE_CA"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	var conns []net.Conn
	for range idleClients {
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool, ServerName: "server.test"})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		for range 2 {
			if _, err := conn.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, buf); err != nil {
				t.Fatal(err)
			}
		}
		conns = append(conns, conn)
	}
	fmt.Println("idle")
	_, _ = io.ReadAll(os.Stdin)
	runtime.KeepAlive(conns)
}

// idlePeers runs the other process and calls look once its connections are
// idle.
func idlePeers(t *testing.T, addr, ca string, look func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestIdleClients$")
	cmd.Env = append(os.Environ(), "WEIR_IDLE_CLIENTS="+addr, "WEIR_IDLE_CA="+ca)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "idle\n" {
		t.Errorf("the other process says %q, %v", line, err)
	} else {
		look()
	}
	_ = in.Close()
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// inUse returns how many bytes the process uses for the heap and for stacks.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestTLSIdleMemory: what an idle connection costs the server, compared with a
// server with a goroutine for each (docs/promises.md, Targets: at most 0.55 of
// it).
func TestTLSIdleMemory(t *testing.T) {
	if testing.Short() || race.Enabled {
		t.Skip("it measures")
	}
	a := newAuthority(t)
	cfg := &tls.Config{Certificates: []tls.Certificate{a.issue(issue{cn: "server", dns: []string{"server.test"}})}}
	ca := t.TempDir() + "/ca.pem"
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				c := tls.Server(conn, cfg)
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						break
					}
					if _, err := c.Write(buf[:n]); err != nil {
						break
					}
				}
				_ = conn.Close()
			})
		}
	})
	before := inUse()
	var goroutines, callbacks float64
	idlePeers(t, ln.Addr().String(), ca, func() { goroutines = float64(inUse()-before) / idleClients })
	_ = ln.Close()
	all.Wait()

	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	wl, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(func(tr weir.Transport) weir.Protocol { return echo{&tr} }, layer.TLSServer(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	before = inUse()
	go func() { ran <- l.Run() }()
	idlePeers(t, wl.Addr().String(), ca, func() { callbacks = float64(inUse()-before) / idleClients })
	l.Stop()
	if err := errors.Join(<-ran, l.Close()); err != nil {
		t.Error(err)
	}
	t.Logf("bytes for an idle connection: %.0f, with a goroutine %.0f: %.2f of it", callbacks, goroutines, callbacks/goroutines)
	if callbacks > 0.65*goroutines {
		t.Errorf("%.0f bytes, with a goroutine %.0f", callbacks, goroutines)
	}
}

// echo is a minimal echo server.
type echo struct{ t *weir.Transport }

func (e echo) ConnectionMade(t weir.Transport)    { *e.t = t }
func (e echo) DataReceived(p []byte) (int, error) { return (*e.t).Write(p) }
func (echo) ConnectionLost(error)                 {}
