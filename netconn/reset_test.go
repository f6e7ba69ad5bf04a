package netconn_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// resettable has a Reset method that has nothing to do with weir's.
type resettable struct{ net.Conn }

func (resettable) Reset() { panic("this Reset is not meant") }

// closeNoted is a Conn with a Close of its own.
type closeNoted struct {
	*netconn.Conn
	closed chan struct{}
}

func (c closeNoted) Close() error {
	defer close(c.closed)
	return c.Conn.Close()
}

// ends attaches conn and ends it with Abort, or with Reset after some bytes.
func ends(t *testing.T, l *weir.Loop, conn net.Conn, abort bool) {
	t.Helper()
	on(t, l, func() (int, error) {
		tr, err := netconn.Attach(l, conn, func(weir.Transport) weir.Protocol {
			return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
		})
		if err != nil {
			return 0, err
		}
		if abort {
			tr.Abort()
			return 0, nil
		}
		r, ok := weir.As[weir.Resetter](tr)
		if !ok {
			return 0, errors.New("no Resetter")
		}
		_, err = tr.Write([]byte("bytes"))
		r.Reset()
		return 0, err
	})
}

// TestForeignReset: ending an attached connection with a failure calls only those of
// the connection's own methods that are known, and closes it.
func TestForeignReset(t *testing.T) {
	for _, abort := range []bool{false, true} {
		name := map[bool]string{false: "Reset", true: "Abort"}[abort]
		t.Run(name+" of another Reset", func(t *testing.T) {
			l := startLoop(t)
			a, b := net.Pipe()
			if err := b.SetDeadline(soon()); err != nil {
				t.Fatal(err)
			}
			ends(t, l, resettable{a}, abort)
			if _, err := io.Copy(io.Discard, b); err != nil {
				t.Errorf("the other end: %v", err)
			}
		})
		t.Run(name+" of a Conn", func(t *testing.T) {
			l := startLoop(t)
			a, b := connected(t, "tcp", "127.0.0.1:0")
			defer b.Close()
			c := closeNoted{closed: make(chan struct{})}
			on(t, l, func() (weir.Transport, error) {
				c.Conn = netconn.New(l)
				return netconn.Attach(l, a, func(weir.Transport) weir.Protocol { return c.Protocol() })
			})
			ends(t, startLoop(t), c, abort)
			if err := b.SetDeadline(soon()); err != nil {
				t.Fatal(err)
			}
			p, err := io.ReadAll(b)
			if !errors.Is(err, syscall.ECONNRESET) || !abort && string(p) != "bytes" {
				t.Errorf("the other end: %q, %v; want a reset", p, err)
			}
			select {
			case <-c.closed:
			case <-time.After(30 * time.Second):
				t.Error("its Close was not called")
			}
		})
		t.Run(name+" of crypto/tls", func(t *testing.T) {
			l := startLoop(t)
			server, client := tlsConfigs(t)
			a, b := connected(t, "tcp", "127.0.0.1:0")
			s, c := tls.Server(a, server), tls.Client(b, client)
			defer c.Close()
			agreed := make(chan error, 1)
			go func() { agreed <- s.Handshake() }()
			if err := errors.Join(c.SetDeadline(soon()), c.Handshake(), <-agreed); err != nil {
				t.Fatal(err)
			}
			ends(t, l, s, abort)
			if p, err := io.ReadAll(c); err == nil || !abort && string(p) != "bytes" {
				t.Errorf("the other end: %q, %v; want an end that is not clean", p, err)
			}
		})
	}
}
