//go:build unix

package process_test

import (
	"fmt"
	"strings"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/process"
)

// sorter writes to a sort program and keeps what comes back.
type sorter struct{ out strings.Builder }

func (s *sorter) ConnectionMade(t weir.Transport) {
	fmt.Fprint(t, "pear\napple\n")
	if err := t.WriteEOF(); err != nil { // sort begins at the end of its input
		fmt.Println(err)
	}
}

func (s *sorter) DataReceived(p []byte) (int, error) { return s.out.Write(p) }

func (s *sorter) ConnectionLost(error) {}

func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	sorted := &sorter{}
	s := process.Pipes(func(weir.Transport) weir.Protocol { return sorted })
	starts := executor.New("start", 2, 100)
	l.Soon(func() {
		process.Start(future.On(l), starts, &process.Command{
			Path:  "sort",
			Args:  []string{"sort", "-r"},
			Files: map[int]process.File{0: s.In(), 1: s.Out()},
		}).OnDone(func(p *process.Process, err error) {
			if err != nil {
				fmt.Println(err)
				l.Stop()
				return
			}
			p.OnExit(func(e process.Exit) {
				fmt.Println(e)
				l.Stop()
			})
		})
	})
	if err := l.Run(); err != nil {
		fmt.Println(err)
	}
	// What it had written before it exited is still delivered.
	for sorted.out.Len() < len("pear\napple\n") {
		if err := l.Turn(-1); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Print(sorted.out.String())
	if err := l.Close(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// exit code 0
	// pear
	// apple
}
