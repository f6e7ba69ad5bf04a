package weirtest_test

import (
	"bytes"
	"fmt"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/process"
	"github.com/weir-io/weir/weirtest"
)

// A program that process.Start starts on a simulated host: it shouts back what it reads,
// and exits with 3 at the end of its input. The first start is made to fail; what the code
// under test does then is its own affair.
func ExampleSimHost_Program() {
	s := weirtest.NewSim(tb, 7, weirtest.WithFaults(weirtest.Faults{ExitDelay: time.Minute}))
	defer s.Close()
	host := s.Host("host")
	host.Program("shout", func(p *weirtest.SimProgram) {
		_, err := p.Attach(0, 1, func(t weir.Transport) weir.Protocol { return &shouter{p: p, t: t} })
		if err != nil {
			p.Exit(1)
		}
	})

	loop := host.Loop()
	out := &gatherer{}
	start := func() *future.Future[*process.Process] {
		stdio := process.Pipes(func(weir.Transport) weir.Protocol { return out })
		return process.Start(future.On(loop), executor.Inline("start"), &process.Command{
			Path:  "shout",
			Files: map[int]process.File{0: stdio.In(), 1: stdio.Out()},
		})
	}
	host.Fail(weirtest.StartCall, 1, syscall.EAGAIN)
	start().OnDone(func(_ *process.Process, err error) { fmt.Println(err != nil) })
	s.Until("the failure", func() bool { return s.Calls(weirtest.StartCall) == 1 })

	over := false
	start().OnDone(func(p *process.Process, err error) {
		if err != nil {
			fmt.Println(err)
			return
		}
		p.OnExit(func(e process.Exit) { fmt.Println(e); over = true })
	})
	s.Until("the exit", func() bool { return over })
	fmt.Println(out.String())
	// Output:
	// true
	// exit code 3
	// HELLO
}

type shouter struct {
	weir.NopProtocol
	p *weirtest.SimProgram
	t weir.Transport
}

func (s *shouter) DataReceived(b []byte) (int, error) {
	_, err := s.t.Write(bytes.ToUpper(b))
	return len(b), err
}

func (s *shouter) EOFReceived(int) (bool, error) {
	s.p.Exit(3)
	return true, nil
}

// gatherer says hello, ends its direction and keeps the answer.
type gatherer struct {
	weir.NopProtocol
	bytes.Buffer
}

func (g *gatherer) ConnectionMade(t weir.Transport) {
	fmt.Fprint(t, "hello")
	if err := t.WriteEOF(); err != nil {
		fmt.Println(err)
	}
}

func (g *gatherer) DataReceived(b []byte) (int, error) { return g.Write(b) }
