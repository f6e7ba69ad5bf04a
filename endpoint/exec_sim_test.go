package endpoint_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/process"
	"github.com/weir-io/weir/weirtest"
)

// asker writes a line to a program and keeps what comes back.
type asker struct {
	weir.NopProtocol
	t      weir.Transport
	got    string
	failed error
	lost   bool
}

func (a *asker) ConnectionMade(t weir.Transport) {
	a.t = t
	_, a.failed = t.Write([]byte("hello"))
}

func (a *asker) DataReceived(p []byte) (int, error) {
	a.got += string(p)
	return len(p), nil
}

func (a *asker) ConnectFailed(err *weir.ConnectError) { a.failed = err }
func (a *asker) ConnectionLost(error)                 { a.lost = true }

// TestExecSimulated: the kind exec runs simulated programs in the simulator: one that does
// not start, more than may run at once, and an exit whose place is free again.
func TestExecSimulated(t *testing.T) {
	s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{StartDelay: time.Second}))
	h := s.Host("host")
	h.Program("cat", func(p *weirtest.SimProgram) {
		if _, err := p.Attach(0, 1, func(tr weir.Transport) weir.Protocol { return weir.DataFunc(tr.Write) }); err != nil {
			t.Error(err)
		}
	})
	e, err := endpoint.Default().Parse("exec,children=2")
	if err != nil {
		t.Fatal(err)
	}
	e.SetCommand([]string{"cat"})
	var running []*process.Process
	env := &endpoint.Env{Loop: h.Loop(), Executor: executor.Inline("start"), Serves: true, Child: func(p *process.Process) { running = append(running, p) }}
	ask := func() *asker {
		a := &asker{}
		e.Connect(env, a)
		s.Until("an answer", func() bool { return a.got == "hello" || a.failed != nil })
		return a
	}

	h.Fail(weirtest.StartCall, 1, syscall.EMFILE)
	if a := ask(); !errors.Is(a.failed, syscall.EMFILE) {
		t.Errorf("no descriptor: %v", a.failed)
	}
	first, second := ask(), ask()
	if first.failed != nil || second.failed != nil || len(running) != 2 {
		t.Fatal(first.failed, second.failed, len(running))
	}
	if a := ask(); a.failed == nil || !errors.As(a.failed, new(*endpoint.ChildrenError)) {
		t.Errorf("a third: %v", a.failed)
	}
	running[0].Stop(time.Second)
	s.Until("the end of the first", func() bool { return first.lost && !running[0].Running() })
	third := ask()
	if third.failed != nil {
		t.Errorf("after the first has ended: %v", third.failed)
	}
	for _, p := range running[1:] {
		p.Stop(time.Second)
	}
	s.Until("all ends", func() bool { return second.lost && third.lost && h.Usage().Programs == 0 })
	if n := h.Handles(); n != 0 {
		t.Errorf("%d handles are left", n)
	}
}
