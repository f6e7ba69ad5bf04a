package netconn_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/netconn"
)

// web is net/http's server and client, both over netconn (R57).
type web struct {
	url    string
	client *http.Client
	server *http.Server
	asked  chan struct{} // a request for /slow has come
	closed chan struct{} // a handler's context has ended
}

// serve starts a server on ln. Its handlers: / echoes, /slow waits for its
// client to leave, /flush streams, /hijack takes the connection over.
func serve(t *testing.T, ln net.Listener, serve func(*http.Server, net.Listener) error) *web {
	w := &web{asked: make(chan struct{}), closed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // all of it first: HTTP/1 is half-duplex
		if err != nil {
			t.Error(err)
		}
		_, _ = rw.Write(body)
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		close(w.asked)
		<-r.Context().Done()
		close(w.closed)
		// crypto/tls announces that it closes before it does: a reply would still get
		// there.
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/flush", func(rw http.ResponseWriter, _ *http.Request) {
		for i := range 10 {
			fmt.Fprintln(rw, i)
			rw.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/hijack", func(rw http.ResponseWriter, _ *http.Request) {
		c, buf, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		line, _ := buf.ReadString('\n')
		fmt.Fprintf(c, "you said %s", line)
	})
	w.server = &http.Server{Handler: mux, ReadHeaderTimeout: 20 * time.Second}
	served := make(chan error, 1)
	go func() { served <- serve(w.server, ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := w.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return w
}

func (w *web) post(path string, body []byte) error {
	resp, err := w.client.Post(w.url+path, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Equal(got, body) {
		err = fmt.Errorf("%d bytes came back of %d", len(got), len(body))
	}
	return err
}

// TestHTTP serves net/http over weir, unchanged (R57): many requests at once,
// large bodies, flushes, a client that leaves, a header that never ends, a
// connection taken over, an orderly shutdown; then with crypto/tls and HTTP/2
// above, and with the layer TLS below.
func TestHTTP(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		t.Run("plain", func(t *testing.T) {
			l := newLoop(t)
			ln := on(t, l, func() (*netconn.Listener, error) { return netconn.Listen(l, "tcp", "127.0.0.1:0") })
			w := serve(t, ln, (*http.Server).Serve)
			d := &netconn.Dialer{Loop: l}
			tr := &http.Transport{DialContext: d.DialContext}
			defer tr.CloseIdleConnections()
			w.url, w.client = "http://"+ln.Addr().String(), &http.Client{Transport: tr, Timeout: 30 * time.Second}
			w.traffic(t)
			w.leave(t)
			stall(t, l)
			w.hijack(t, l, ln.Addr())
		})
		t.Run("tls and http2 above", func(t *testing.T) {
			server, client := tlsConfigs(t)
			l := newLoop(t)
			ln := on(t, l, func() (*netconn.Listener, error) { return netconn.Listen(l, "tcp", "127.0.0.1:0") })
			w := serve(t, ln, func(s *http.Server, ln net.Listener) error {
				s.TLSConfig = server
				return s.ServeTLS(ln, "", "")
			})
			d := &netconn.Dialer{Loop: l}
			tr := &http.Transport{DialContext: d.DialContext, TLSClientConfig: client, ForceAttemptHTTP2: true}
			defer tr.CloseIdleConnections()
			w.url, w.client = "https://"+ln.Addr().String(), &http.Client{Transport: tr, Timeout: 30 * time.Second}
			w.traffic(t)
			w.leave(t)
			resp, err := w.client.Get(w.url + "/flush")
			if err != nil {
				t.Fatal(err)
			}
			if _ = resp.Body.Close(); resp.ProtoMajor != 2 {
				t.Errorf("spoke %s", resp.Proto)
			}
		})
		t.Run("tls below", func(t *testing.T) {
			server, client := tlsConfigs(t)
			l := newLoop(t)
			ln := on(t, l, func() (*netconn.Listener, error) {
				return netconn.NewListener(l, func(f weir.Factory) (*weir.Listener, error) {
					return l.Listen("tcp", "127.0.0.1:0", layer.Server(f, layer.TLSServer(server)))
				})
			})
			w := serve(t, ln, (*http.Server).Serve)
			d := &netconn.Dialer{Loop: l}
			tr := &http.Transport{DialContext: d.DialContext, TLSClientConfig: client}
			defer tr.CloseIdleConnections()
			w.url, w.client = "https://"+ln.Addr().String(), &http.Client{Transport: tr, Timeout: 30 * time.Second}
			w.traffic(t)
			w.leave(t)
		})
	})
}

// traffic makes many requests at once, and streams small pieces.
func (w *web) traffic(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				if err := w.post("/", pattern(i*50_000+j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	resp, err := w.client.Get(w.url + "/flush")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// leave is a client that gives up: the handler's context then ends.
func (w *web) leave(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { <-w.asked; cancel() }()
	req, err := http.NewRequestWithContext(ctx, "GET", w.url+"/slow", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := w.client.Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", resp, err)
	}
	select {
	case <-w.closed:
	case <-time.After(20 * time.Second):
		t.Error("the handler never heard that its client had left")
	}
}

// stall sends a header that never ends: the server's deadline closes the connection.
func stall(t *testing.T, l *weir.Loop) {
	t.Helper()
	ln := on(t, l, func() (*netconn.Listener, error) { return netconn.Listen(l, "tcp", "127.0.0.1:0") })
	srv := &http.Server{ReadHeaderTimeout: 50 * time.Millisecond}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	c, err := netconn.Dial(context.Background(), l, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(soon())
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server waited for the header for ever")
	}
}

// hijack makes the handler take a connection over.
func (w *web) hijack(t *testing.T, l *weir.Loop, a net.Addr) {
	t.Helper()
	c, err := netconn.Dial(context.Background(), l, "tcp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(soon())
	if _, err := io.WriteString(c, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\nhello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "you said hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

// TestTLSAbove runs crypto/tls over a Conn, by hand.
func TestTLSAbove(t *testing.T) {
	server, client := tlsConfigs(t)
	l := startLoop(t)
	a, b := dialled("tcp")(t, l, l)
	sc, cc := tls.Server(a, server), tls.Client(b, client)
	go func() {
		_, _ = io.Copy(sc, sc)
		_ = sc.Close()
	}()
	want := pattern(1 << 20)
	go func() {
		if _, err := cc.Write(want); err != nil {
			t.Error(err)
		}
		if err := cc.CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	got, err := io.ReadAll(cc)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	_ = cc.Close()
}
