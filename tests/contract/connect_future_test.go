package contract

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/weirtest"
)

// awaiting is a protocol whose connect is had as a future.
type awaiting struct {
	weir.NopProtocol
	t      weir.Transport
	got    []byte
	failed *weir.ConnectError
	lost   bool
}

func (p *awaiting) ConnectionMade(t weir.Transport) {
	p.t = t
	_, _ = t.Write([]byte("hello"))
}

func (p *awaiting) DataReceived(b []byte) (int, error) {
	p.got = append(p.got, b...)
	return len(b), nil
}
func (p *awaiting) ConnectFailed(err *weir.ConnectError) { p.failed = err }
func (p *awaiting) ConnectionLost(error)                 { p.lost = true }

// TestConnectFuture: the outcome of a connect as a future, with and without layers,
// canceled by itself and by a task's scope (R71).
func TestConnectFuture(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		weirtest.CheckLeaks(t)
		var reported []error
		l := newLoop(t, weir.WithBackendName(name), quiet(), weir.WithErrorHandler(func(err error) { reported = append(reported, err) }))
		s := future.On(l)
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
		if err != nil {
			t.Fatal(err)
		}
		address := ln.Addr().String()
		settled := func(f *future.Future[weir.Transport]) (weir.Transport, error) {
			t.Helper()
			turns(t, l, "the future", f.Settled)
			tr, err, _ := f.Result()
			return tr, err
		}
		through := func(p weir.Protocol) weir.Protocol {
			return layer.Client(p, layer.Idle(layer.IdleConfig{Idle: time.Hour}))
		}
		for _, below := range []func(weir.Protocol) weir.Protocol{nil, through} {
			p := &awaiting{}
			f := l.ConnectFutureThrough(s, "tcp", address, p, below)
			if f.Settled() {
				t.Error("settled inside the call")
			}
			tr, err := settled(f)
			if err != nil || tr != p.t || tr.Protocol() != weir.Protocol(p) {
				t.Fatalf("%v; the transport is the protocol's: %t", err, tr == p.t)
			}
			turns(t, l, "the echo", func() bool { return string(p.got) == "hello" })
			if f.Cancel() {
				t.Error("a settled future was canceled")
			}
			tr.Close()
			turns(t, l, "the end", func() bool { return p.lost })
		}

		// Failures: the future's, the protocol's, and no one else's.
		p := &awaiting{}
		_, err = settled(l.ConnectFuture(s, "tcp", closedPort, p))
		var failure *weir.ConnectError
		if !errors.As(err, &failure) || failure != p.failed || len(failure.Attempts) != 1 {
			t.Errorf("refused: %v, the protocol got %v", err, p.failed)
		}
		if _, err = settled(l.ConnectFuture(s, "tcp", closedPort, weir.NopProtocol{})); !errors.As(err, &failure) {
			t.Errorf("refused, for a protocol that does not hear of it: %v", err)
		}
		if _, err := settled(l.ConnectFuture(s, "tcp", address, nil)); err == nil {
			t.Error("connected without a protocol")
		}
		if len(reported) > 0 {
			t.Errorf("the error handler got %v", reported)
		}

		// Canceled: by its own Cancel before and during the connect, and by a task's scope.
		const never = "silent.example:80"
		wait := weir.WithConnectResolver(silent{})
		for _, n := range []int{0, 3} {
			p = &awaiting{}
			f := l.ConnectFuture(s, "tcp", never, p, wait)
			for range n {
				if err := l.Turn(0); err != nil {
					t.Fatal(err)
				}
			}
			f.Cancel()
			if _, err := settled(f); !errors.Is(err, future.ErrCanceled) {
				t.Errorf("canceled: %v", err)
			}
			turns(t, l, "ConnectFailed", func() bool { return p.failed != nil })
			if !errors.Is(p.failed, weir.ErrStopped) {
				t.Errorf("the protocol got %v", p.failed)
			}
		}
		p = &awaiting{}
		sc := task.New(s)
		var waited error
		sc.Go("dial", func(tk *task.Task) error {
			_, waited = task.Await(tk, l.ConnectFuture(s, "tcp", never, p, wait))
			return waited
		})
		turns(t, l, "the connect", func() bool { return true })
		sc.Cancel(nil)
		turns(t, l, "ConnectFailed", func() bool { return p.failed != nil && waited != nil })
		if !errors.Is(waited, future.ErrCanceled) || !errors.Is(p.failed, weir.ErrStopped) {
			t.Errorf("the task got %v, the protocol %v", waited, p.failed)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		// On a closed loop it has failed already; nothing could run later.
		if _, err, ok := l.ConnectFuture(s, "tcp", address, &awaiting{}).Result(); !ok || !errors.Is(err, weir.ErrLoopClosed) {
			t.Errorf("on a closed loop: %v, settled %t", err, ok)
		}
	})
}

// silent is a resolver that never answers.
type silent struct{}

func (silent) LookupNetIP(*weir.Loop, string, string, func([]netip.Addr, error)) func() {
	return func() {}
}
