package process

import (
	"io"
	"log/slog"
	"os"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/weirtest"
)

// rig is a loop with what Start needs.
type rig struct {
	t *testing.T
	l *weir.Loop
	s *future.Scheduler
	e *executor.Executor
}

// onBackends runs f with each backend that this machine has, and looks for what is left.
func onBackends(t *testing.T, f func(r *rig)) {
	t.Helper()
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != name {
				t.Skip("WEIR_BACKEND asks for ", asked)
			}
			r := newRig(t, name)
			f(r)
			r.close()
			noChildren(t)
		})
	}
}

func newRig(t *testing.T, backend string) *rig {
	t.Helper()
	weirtest.CheckLeaks(t)
	l, err := weir.NewLoop(weir.WithBackendName(backend), weir.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	if err != nil || l.Backend().Name != backend {
		t.Skipf("the system refuses %s: %v", backend, err)
	}
	return &rig{t: t, l: l, s: future.On(l), e: executor.New("start", 4, 1024)}
}

func newBench(l *weir.Loop) *rig {
	return &rig{l: l, s: future.On(l), e: executor.New("start", 4, 1024)}
}

func (r *rig) close() {
	r.t.Helper()
	_ = r.e.Close() // always nil
	if err := r.l.Close(); err != nil {
		r.t.Errorf("closing the loop: %v", err)
	}
	r.e.Wait()
}

func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	weirtest.Until(r.t, r.l, what, cond)
}

// start starts a command and returns its process.
func (r *rig) start(c *Command) *Process {
	r.t.Helper()
	p, err := r.try(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) try(c *Command) (*Process, error) {
	r.t.Helper()
	var (
		p    *Process
		err  error
		done bool
	)
	Start(r.s, r.e, c).OnDone(func(got *Process, e error) { p, err, done = got, e, true })
	r.until("a start", func() bool { return done })
	return p, err
}

// exit waits for a child's.
func (r *rig) exit(p *Process) (got Exit) {
	r.t.Helper()
	done := false
	p.OnExit(func(e Exit) { got, done = e, true })
	r.until("an exit", func() bool { return done })
	return got
}

func sh(script string, files map[int]File) *Command {
	return &Command{Path: "sh", Args: []string{"sh", "-c", script}, Files: files}
}
