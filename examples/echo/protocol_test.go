package main

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

func TestEchoWithoutSockets(t *testing.T) {
	r := weirtest.NewRecorder(t) // a transport that keeps what is written
	r.Connect(weir.DataFunc(r.Write))
	r.DeliverString("hello")
	if got := r.TakeWritten(); got != "hello" {
		t.Errorf("the answer is %q", got)
	}
}
