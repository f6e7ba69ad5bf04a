package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
	"github.com/weir-io/weir/netconn"
)

// wsSizes are sizes of messages, around every bound of the header's lengths.
var wsSizes = []int{0, 1, 125, 126, 65535, 65536, 1 << 20, 10 << 20}

// wsEcho sends messages back as they came.
type wsEcho struct {
	weir.NopProtocol
	m ws.Messenger
}

func (e *wsEcho) ConnectionMade(t weir.Transport)           { e.m, _ = weir.As[ws.Messenger](t) }
func (e *wsEcho) MessageReceived(k ws.Kind, p []byte) error { return e.m.SendMessage(k, p) }

// wsAsker sends messages of every size, one after another, and checks that each
// comes back; then it closes.
type wsAsker struct {
	weir.NopProtocol
	m    ws.Messenger
	next int
	done chan error
}

func (a *wsAsker) ConnectionMade(t weir.Transport) {
	a.m, _ = weir.As[ws.Messenger](t)
	a.ask()
}

func (a *wsAsker) ask() {
	if a.next == len(wsSizes) {
		a.finish(a.m.CloseWith(ws.CodeNormal, "enough"))
		return
	}
	if err := a.m.SendMessage(ws.Binary, pattern(wsSizes[a.next])); err != nil {
		a.finish(err)
	}
}

func (a *wsAsker) finish(err error) {
	if a.done != nil {
		a.done <- err
		a.done = nil
	}
}

func (a *wsAsker) MessageReceived(_ ws.Kind, p []byte) error {
	if !bytes.Equal(p, pattern(wsSizes[a.next])) {
		a.finish(fmt.Errorf("%d bytes came back of %d, or wrong ones", len(p), wsSizes[a.next]))
	}
	a.next++
	a.ask()
	return nil
}

func (a *wsAsker) ConnectionLost(err error) {
	a.finish(fmt.Errorf("lost before the last message: %w", errors.Join(err, net.ErrClosed)))
}

func (a *wsAsker) ConnectFailed(err *weir.ConnectError) { a.finish(err) }

// wsClients are other people's clients: each sends a message and returns what
// comes back.
var wsClients = map[string]func(ctx context.Context, url string, compress bool) (ask func([]byte) ([]byte, error), end func() error, err error){
	"gorilla": func(ctx context.Context, url string, compress bool) (func([]byte) ([]byte, error), func() error, error) {
		d := &gorilla.Dialer{EnableCompression: compress}
		c, resp, err := d.DialContext(ctx, url, nil)
		if err != nil {
			return nil, nil, err
		}
		_ = resp.Body.Close()
		ask := func(p []byte) ([]byte, error) {
			if err := c.WriteMessage(gorilla.BinaryMessage, p); err != nil {
				return nil, err
			}
			_, got, err := c.ReadMessage()
			return got, err
		}
		end := func() error {
			defer c.Close()
			if err := c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(1000, "enough"), time.Now().Add(time.Second)); err != nil {
				return err
			}
			if _, _, err := c.ReadMessage(); !gorilla.IsCloseError(err, 1000) {
				return fmt.Errorf("the answer to a close: %w", err)
			}
			return nil
		}
		return ask, end, nil
	},
	"coder": func(ctx context.Context, url string, compress bool) (func([]byte) ([]byte, error), func() error, error) {
		o := &coder.DialOptions{CompressionMode: coder.CompressionDisabled}
		if compress {
			o.CompressionMode = coder.CompressionNoContextTakeover
		}
		c, _, err := coder.Dial(ctx, url, o)
		if err != nil {
			return nil, nil, err
		}
		c.SetReadLimit(-1)
		ask := func(p []byte) ([]byte, error) {
			if err := c.Write(ctx, coder.MessageBinary, p); err != nil {
				return nil, err
			}
			_, got, err := c.Read(ctx)
			return got, err
		}
		return ask, func() error { return c.Close(coder.StatusNormalClosure, "enough") }, nil
	},
}

// wsServers are other people's servers, echoing.
var wsServers = map[string]func(compress bool) http.HandlerFunc{
	"gorilla": func(compress bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			u := gorilla.Upgrader{EnableCompression: compress}
			c, err := u.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			for {
				k, p, err := c.ReadMessage()
				if err != nil || c.WriteMessage(k, p) != nil {
					return
				}
			}
		}
	},
	"coder": func(compress bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			o := &coder.AcceptOptions{CompressionMode: coder.CompressionDisabled}
			if compress {
				o.CompressionMode = coder.CompressionNoContextTakeover
			}
			c, err := coder.Accept(w, r, o)
			if err != nil {
				return
			}
			defer func() { _ = c.CloseNow() }()
			c.SetReadLimit(-1)
			for {
				k, p, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), k, p) != nil {
					return
				}
			}
		}
	},
}

// TestWebSocketClients: gorilla's and coder's clients against weir's server,
// compressed and not, up to 10 MiB.
func TestWebSocketClients(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		for _, compress := range []bool{false, true} {
			ln, err := netconn.Call(within(t, 20*time.Second), l, func() (*weir.Listener, error) {
				return l.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol { return &wsEcho{} }, ws.Server(ws.Config{Compress: compress})))
			})
			if err != nil {
				t.Fatal(err)
			}
			for name, dial := range wsClients {
				ask, end, err := dial(within(t, 60*time.Second), "ws://"+ln.Addr().String()+"/", compress)
				if err != nil {
					t.Fatalf("%s, compressed %v: %v", name, compress, err)
				}
				for _, n := range wsSizes {
					if got, err := ask(pattern(n)); err != nil || !bytes.Equal(got, pattern(n)) {
						t.Fatalf("%s, compressed %v: %d bytes came back of %d, or wrong ones: %v", name, compress, len(got), n, err)
					}
				}
				if err := end(); err != nil {
					t.Errorf("%s, compressed %v: %v", name, compress, err)
				}
			}
		}
	})
}

// TestWebSocketServers: weir's client against gorilla's and coder's servers.
func TestWebSocketServers(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		for _, compress := range []bool{false, true} {
			for name, handler := range wsServers {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				srv := &http.Server{Handler: handler(compress)}
				go func() { _ = srv.Serve(ln) }()
				t.Cleanup(func() { _ = srv.Close() })
				done := make(chan error, 1)
				if _, err := l.Post(func() {
					l.Connect("tcp", ln.Addr().String(), layer.Client(&wsAsker{done: done}, ws.Client(ws.Config{Compress: compress})))
				}); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-done:
					if err != nil {
						t.Errorf("%s, compressed %v: %v", name, compress, err)
					}
				case <-within(t, 60*time.Second).Done():
					t.Fatalf("%s, compressed %v: it does not end", name, compress)
				}
			}
		}
	})
}
