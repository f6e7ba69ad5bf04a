package future_test

import (
	"errors"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/weirtest"
)

// A future of one loop is awaited and canceled on another (R26).
func TestCarry(t *testing.T) {
	weirtest.CheckLeaks(t)
	here, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	there, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	hs, ts := future.On(here), future.On(there)
	ran := make(chan error)
	go func() { ran <- here.Run() }()
	value, promise := future.New[int](hs)
	never, _ := future.New[int](hs)
	got := make(chan *future.Future[int], 2)
	if err := hs.Post(func() {
		got <- future.Carry(value, ts)
		got <- future.Carry(never, ts)
	}); err != nil {
		t.Fatal(err)
	}
	a, b := <-got, <-got
	all := future.GatherAll(ts, a, b)
	all.OnDone(func([]future.Result[int], error) { there.Stop() })
	if err := promise.Post(7, nil); err != nil {
		t.Fatal(err)
	}
	b.Cancel()
	if err := there.Run(); err != nil {
		t.Fatal(err)
	}
	res, _, _ := all.Result()
	if res[0].Value != 7 || res[0].Err != nil || !errors.Is(res[1].Err, future.ErrCanceled) {
		t.Errorf("got %+v", res)
	}
	here.Stop()
	if err := errors.Join(<-ran, here.Close()); err != nil {
		t.Error(err)
	}
	// If the other loop is gone, canceling settles the future here.
	c := future.Carry(func() *future.Future[int] { f, _ := future.New[int](hs); return f }(), ts)
	c.Cancel()
	if _, err, ok := c.Result(); !ok || !errors.Is(err, future.ErrCanceled) {
		t.Error(ok, err)
	}
	if err := there.Close(); err != nil {
		t.Error(err)
	}
}
