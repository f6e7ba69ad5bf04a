package netconn_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// TestResetWhilePaused: even if so much is unread that reading has paused, a reset
// still reaches writers; readers first get what came before it, and then the reason.
func TestResetWhilePaused(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		const size = 1 << 20
		gone := make(chan error, 1)
		dialed := make(chan struct{})
		go func() {
			p, err := ln.Accept()
			<-dialed
			if err != nil {
				gone <- err
				return
			}
			// None of it is lost: the other end reads everything that its system has.
			if err := p.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				gone <- err
				return
			}
			_, err = p.Write(make([]byte, size))
			if errors.Is(err, net.ErrClosed) {
				gone <- err
				return
			}
			gone <- errors.Join(p.(*net.TCPConn).SetLinger(0), p.Close())
		}()
		d := netconn.Dialer{Loop: l}
		c, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
		close(dialed)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := <-gone; err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		written := 0
		for err == nil && written < 64<<20 {
			var n int
			n, err = c.Write(make([]byte, 10<<10))
			written += n
		}
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("after %d bytes Write says %v, want a reset", written, err)
		}
		n, err := io.Copy(io.Discard, c)
		if n < 64<<10 || err == nil || errors.Is(err, net.ErrClosed) {
			t.Errorf("%d bytes read, then %v; want what came before the reset, and it", n, err)
		}
	})
}

// TestTakePaused: a Conn reads although the protocol before it had paused.
func TestTakePaused(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		for _, inData := range []bool{false, true} {
			taken := make(chan net.Conn, 1)
			ln := on(t, l, func() (*weir.Listener, error) {
				return l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
					return &pauser{taken: taken, inData: inData}
				})
			})
			p, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			c := <-taken
			if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				t.Errorf("taken in DataReceived %v: %v", inData, err)
			}
			_ = p.Close()
			_ = c.Close()
		}
	})
}

// pauser pauses reading and then lets a Conn take its transport.
type pauser struct {
	weir.NopProtocol
	taken  chan net.Conn
	inData bool
	t      weir.Transport
}

func (p *pauser) ConnectionMade(t weir.Transport) {
	p.t = t
	if !p.inData {
		t.PauseReading()
		t.Loop().After(time.Millisecond, func() { p.taken <- netconn.Take(t) })
	}
}

func (p *pauser) DataReceived([]byte) (int, error) {
	p.t.PauseReading()
	p.taken <- netconn.Take(p.t)
	return 0, nil
}
