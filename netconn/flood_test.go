package netconn_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// flood writes to w until a write fails.
func flood(w io.Writer) {
	for p := make([]byte, 100_000); ; {
		if _, err := w.Write(p); err != nil {
			return
		}
	}
}

// carried is the number of foreign connections' goroutines.
func carried() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	n := 0
	for g := range bytes.SplitSeq(stacks, []byte("\n\n")) {
		if bytes.Contains(g, []byte("netconn.(*foreign).read(")) || bytes.Contains(g, []byte("netconn.(*foreign).write(")) {
			n++
		}
	}
	return n
}

// TestForeignEndsInFlood: if an attached connection is closed, aborted or loses its
// loop while the peer floods it, none of its goroutines stays (L11).
func TestForeignEndsInFlood(t *testing.T) {
	for _, f := range foreigns {
		if f.handed {
			continue
		}
		for _, how := range []string{"Close", "Close after Write", "Abort", "Close while paused", "Loop.Close"} {
			t.Run(f.name+"/"+how, func(t *testing.T) {
				l, err := weir.NewLoop()
				if err != nil {
					t.Fatal(err)
				}
				ran := make(chan error, 1)
				go func() { ran <- l.Run() }()
				here, peer := f.make(t)
				gone := make(chan struct{})
				began := make(chan struct{}, 1)
				var tr weir.Transport
				p := &lossNoted{gone: gone, data: func() {
					select {
					case began <- struct{}{}:
					default:
					}
					if how == "Close while paused" {
						tr.PauseReading()
					}
				}}
				tr = on(t, l, func() (weir.Transport, error) {
					return netconn.Attach(l, here, func(weir.Transport) weir.Protocol { return p })
				})
				go flood(peer)
				<-began
				if how == "Loop.Close" {
					l.Stop()
				} else {
					on(t, l, func() (int, error) {
						switch how {
						case "Abort":
							tr.Abort()
						case "Close after Write":
							_, _ = tr.Write(make([]byte, 1<<20))
							go func() { _, _ = io.Copy(io.Discard, peer) }()
							_ = tr.Close()
						default:
							_ = tr.Close()
						}
						return 0, nil
					})
					select {
					case <-gone:
					case <-time.After(30 * time.Second):
						t.Fatal("the connection does not end")
					}
					l.Stop()
				}
				if err := errors.Join(<-ran, l.Close()); err != nil {
					t.Error(err)
				}
				for until := time.Now().Add(30 * time.Second); carried() > 0; runtime.Gosched() {
					if time.Now().After(until) {
						t.Fatalf("%d goroutines are left", carried())
					}
				}
				_ = peer.Close()
			})
		}
	}
}

// lossNoted reports data and the end.
type lossNoted struct {
	gone chan struct{}
	data func()
}

func (*lossNoted) ConnectionMade(weir.Transport) {}
func (p *lossNoted) DataReceived(b []byte) (int, error) {
	p.data()
	return len(b), nil
}
func (p *lossNoted) ConnectionLost(error) { close(p.gone) }

// TestForeignCloseAgainstWriter: a peer that sends everything before it reads still
// gets what was written before Close.
func TestForeignCloseAgainstWriter(t *testing.T) {
	l := startLoop(t)
	const size = 1 << 20
	a, b := net.Pipe()
	defer b.Close()
	tr := on(t, l, func() (weir.Transport, error) {
		return netconn.Attach(l, a, func(tr weir.Transport) weir.Protocol {
			return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
		})
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := netconn.Call(ctx, l, func() (int, error) {
		_, _ = tr.Write(make([]byte, size))
		return 0, tr.Close()
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.SetDeadline(soon()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, b); n != size || err != nil {
		t.Errorf("%d bytes of %d came: %v", n, size, err)
	}
}
