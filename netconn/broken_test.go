package netconn_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
	"github.com/weir-io/weir/weirtest"
)

// brokenConn is a connection that was reset: its reader gets the reset, and once the
// reading goroutine has ended its writer gets a broken pipe.
type brokenConn struct{ reads, writes, closed chan struct{} }

func (c *brokenConn) Read([]byte) (int, error) {
	close(c.reads)
	<-c.writes
	return 0, syscall.ECONNRESET
}

func (c *brokenConn) Write([]byte) (int, error) {
	<-c.reads
	close(c.writes)
	stacks := make([]byte, 1<<20)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("(*foreign).read(")) {
			break
		}
	}
	return 0, syscall.EPIPE
}

func (c *brokenConn) CloseWrite() error { return nil }
func (c *brokenConn) Close() error      { close(c.closed); return nil }

var _ io.ReadWriteCloser = (*brokenConn)(nil)

// lostFor records why it was lost.
type lostFor struct {
	over   bool
	reason error
}

func (p *lostFor) ConnectionMade(weir.Transport)      {}
func (p *lostFor) DataReceived(b []byte) (int, error) { return len(b), nil }
func (p *lostFor) ConnectionLost(err error)           { p.over, p.reason = true, err }

// TestResetWhileClosing: a connection that is reset while its last bytes are being sent
// ends with the reset, which its reader got, and not with the broken pipe (behaviour
// 29).
func TestResetWhileClosing(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string, _ func(testing.TB) *weir.Loop) {
		l, err := weir.NewLoop(weir.WithBackendName(backend))
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		c := &brokenConn{reads: make(chan struct{}), writes: make(chan struct{}), closed: make(chan struct{})}
		p := &lostFor{}
		tr, err := netconn.Attach(l, c, func(weir.Transport) weir.Protocol { return p })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Write([]byte("last")); err != nil {
			t.Fatal(err)
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		weirtest.Until(t, l, "the end", func() bool { return p.over })
		if !errors.Is(p.reason, syscall.ECONNRESET) {
			t.Errorf("lost with %v", p.reason)
		}
		<-c.closed
	})
}
