package relay_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/relay"
)

// patience bounds how long a test waits for anything on real sockets.
const patience = 30 * time.Second

// served is a relay on its own loop, from an address to a listener.
type served struct {
	addr    string
	backend net.Listener
	results chan relay.Result
	splices bool // the backend can splice
}

func serve(t *testing.T, onlyCopy bool) *served {
	t.Helper()
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	s := &served{backend: backend, results: make(chan relay.Result, 1000)}
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
		r := relay.New(relay.Config{Copy: onlyCopy, Done: func(r relay.Result) { s.results <- r }})
		l.Connect("tcp", backend.Addr().String(), r.Protocol(relay.B))
		return r.Protocol(relay.A)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	s.splices = runtime.GOOS == "linux" && l.Backend().Name != "portable"
	ran := make(chan error, 1)
	go func() { ran <- l.Run() }()
	t.Cleanup(func() {
		l.Stop()
		if err := errors.Join(<-ran, l.Close(), backend.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ends returns both ends of a connection through the relay.
func (s *served) ends(t testing.TB) (client, server *net.TCPConn, err error) {
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, nil, err
	}
	b, err := s.backend.Accept()
	if err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	for _, conn := range []net.Conn{c, b} {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	return c.(*net.TCPConn), b.(*net.TCPConn), nil
}

func (s *served) result(t *testing.T) relay.Result {
	t.Helper()
	select {
	case r := <-s.results:
		return r
	case <-time.After(patience):
		t.Fatal("the relay did not end")
		return relay.Result{}
	}
}

// TestNettest runs golang.org/x/net's stream tests between two
// standard-library ends through the relay.
func TestNettest(t *testing.T) {
	s := serve(t, false)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		client, server, err := s.ends(t)
		if err != nil {
			return nil, nil, nil, err
		}
		for _, c := range []*net.TCPConn{client, server} {
			if err := c.SetDeadline(time.Time{}); err != nil {
				return nil, nil, nil, err
			}
		}
		return client, server, func() {
			_ = client.Close()
			_ = server.Close()
		}, nil
	})
}

// TestBothWays sends megabytes both ways at once, each end closing its own
// direction, and compares every byte; spliced and copied, with fast readers and
// slow ones (behaviours 24 and 26).
func TestBothWays(t *testing.T) {
	for _, c := range []struct {
		name string
		copy bool
		size int
		slow bool
	}{
		{"spliced", false, 16 << 20, false},
		{"copied", true, 16 << 20, false},
		{"spliced, slow reader", false, 4 << 20, true},
		{"copied, slow reader", true, 4 << 20, true},
		{"small", false, 1000, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, c.copy)
			client, server, err := s.ends(t)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = client.Close(), server.Close() }()
			var wg sync.WaitGroup
			sums := map[string][2][32]byte{}
			var mu sync.Mutex
			put := func(way string, i int, sum [32]byte) {
				mu.Lock()
				defer mu.Unlock()
				v := sums[way]
				v[i] = sum
				sums[way] = v
			}
			send := func(way string, from, to *net.TCPConn, seed uint64) {
				wg.Go(func() {
					data := make([]byte, c.size)
					src := rand.NewChaCha8([32]byte{byte(seed)})
					_, _ = src.Read(data) // never fails
					put(way, 0, sha256.Sum256(data))
					if _, err := from.Write(data); err != nil {
						t.Errorf("%s: %v", way, err)
					}
					if err := from.CloseWrite(); err != nil {
						t.Errorf("%s: %v", way, err)
					}
				})
				wg.Go(func() {
					var r io.Reader = to
					if c.slow {
						r = smallReads{to}
						if err := to.SetReadBuffer(256 << 10); err != nil {
							t.Error(err)
						}
					}
					got, err := io.ReadAll(r)
					if err != nil {
						t.Errorf("%s: %v after %d bytes", way, err, len(got))
					}
					put(way, 1, sha256.Sum256(got))
				})
			}
			send("out", client, server, 1)
			send("back", server, client, 2)
			wg.Wait()
			for way, v := range sums {
				if v[0] != v[1] {
					t.Errorf("%s: other bytes came out than went in", way)
				}
			}
			r := s.result(t)
			if r.Bytes != [2]int64{int64(c.size), int64(c.size)} || r.Why != nil {
				t.Errorf("result %+v", r)
			}
			if want := c.size > 1<<20 && !c.copy && s.splices; (r.Spliced[relay.A] > 0) != want || (r.Spliced[relay.B] > 0) != want {
				t.Errorf("%d and %d bytes were spliced; wanted any: %v", r.Spliced[relay.A], r.Spliced[relay.B], want)
			}
		})
	}
}

// smallReads reads a little at a time.
type smallReads struct{ r io.Reader }

func (s smallReads) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 1000)]) }

// TestResetPasses: a reset on one side becomes a reset on the other, spliced or
// not.
func TestResetPasses(t *testing.T) {
	for _, bulk := range []int{0, 4 << 20} {
		s := serve(t, false)
		client, server, err := s.ends(t)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := client.Write(make([]byte, bulk))
			done <- err
		}()
		if _, err := io.ReadFull(server, make([]byte, bulk)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(<-done, client.SetLinger(0), client.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after %d bytes: the other end got %v, want a reset", bulk, err)
		}
		if r := s.result(t); r.By != relay.A || !errors.Is(r.Why, syscall.ECONNRESET) {
			t.Errorf("result %+v", r)
		}
		_ = server.Close()
	}
}

// TestLateReply: the reply arrives long after the request has ended.
func TestLateReply(t *testing.T) {
	s := serve(t, false)
	client, server, err := s.ends(t)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = client.Write([]byte("request")); err == nil {
		err = client.CloseWrite()
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(server); err != nil || string(got) != "request" {
		t.Fatalf("%q, %v", got, err)
	}
	time.AfterFunc(700*time.Millisecond, func() { // longer than socat waits
		_, _ = server.Write(bytes.Repeat([]byte("reply "), 1000))
		_ = server.Close()
	})
	got, err := io.ReadAll(client)
	if err != nil || len(got) != 6000 {
		t.Fatalf("%d bytes of the reply, %v", len(got), err)
	}
	if r := s.result(t); r.By != relay.A || r.Why != nil {
		t.Errorf("result %+v", r)
	}
	_ = client.Close()
}
