package process

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
)

// ErrExited is what signals return once the child has been reaped.
var ErrExited = errors.New("process: it has exited")

// ErrUnknownExit is in an Exit whose status other code has taken: code that waits for
// every child, or a SIGCHLD that is ignored.
var ErrUnknownExit = errors.New("process: other code has taken the exit status")

// Exit says how a child ended.
type Exit struct {
	Code         int            // what it passed to exit, and -1 if a signal ended it
	Signal       syscall.Signal // that signal, or 0
	Core         bool           // it left a core dump
	User, System time.Duration  // processor time, its children's included if it waited for them
	MaxRSS       int64          // the most memory that it had resident, in bytes (Linux)
	Err          error          // ErrUnknownExit, and then nothing else is known
}

// Success reports whether it exited with 0.
func (e Exit) Success() bool { return e.Err == nil && e.Code == 0 && e.Signal == 0 }

// String describes it in a few words: "exit code 1", "signal: killed".
func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return "unknown exit status"
	case e.Signal != 0 && e.Core:
		return "signal: " + e.Signal.String() + ", core dumped"
	case e.Signal != 0:
		return "signal: " + e.Signal.String()
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// Process is a child that runs or has run. Its methods belong to the loop's
// goroutine.
type Process struct {
	c       *Command
	loop    *weir.Loop
	tenant  *weir.Tenant // nil: none
	hook    *hook
	child   program
	promise future.Promise[Exit]
	exited  *future.Future[Exit]

	watch    *weir.Watch // of the pidfd; nil: the hook is woken
	timer    *weir.Timer // of Stop; nil: it was not called
	killAt   time.Time   // when it is due
	stopping bool        // the rest of the group goes with it
	done     bool        // reaped
}

// program is a child: a process of the system, or, in the simulator, one of a simulated
// host. Its methods belong to the loop's goroutine, or before that to whoever started it.
type program interface {
	id() int
	found() string // its path
	streams() []ends
	// watch has p.reap called once it has exited.
	watch(p *Process)

	signal(sig syscall.Signal) error
	signalGroup(sig syscall.Signal) error
	resize(size Size) error
	hasTerminal() bool

	hasExited() bool
	reap() (Exit, bool)
	letGo()   // it was reaped
	discard() // no one wants it: it is killed
	leave()   // it runs, and no one waits for it
}

// ends are our descriptors of a stream; -1 is none.
type ends struct {
	stream *Stream
	r, w   int
}

// attach makes the transport of a stream.
func (e *ends) attach(l *weir.Loop, t *weir.Tenant, name string) error {
	_, err := l.AttachPair(e.r, e.w, name, e.stream.factory, weir.WithSeparateEnds(), weir.WithTenant(t), weir.JoinOptions(e.stream.opts...))
	if err != nil && !errors.Is(err, weir.ErrClosed) { // else it was taken, and the factory refused
		return err
	}
	e.r, e.w = -1, -1
	return nil
}

// Start starts a program on a goroutine of e, since starting blocks. On a simulated host it
// uses none of e's goroutines and starts a simulated program instead
// (weirtest.SimHost.Program). The future has it once it runs and its streams are attached:
// their ConnectionMade comes first. s must be made of a *weir.Loop or a *weir.Tenant. The
// failure is a *StartError, future.ErrCanceled, weir.ErrLoopClosed or the
// *weir.TenantError. Canceling it before it has settled ends the child. If the loop or the
// tenant is closed meanwhile, so is everything that was opened, the child is killed, and a
// start that waits for a place in e does not happen. c is copied, with its slices and its
// map, and stays the caller's: it may change once Start has returned, also where e's goroutine
// works on after ErrLoopClosed or a TenantError. It belongs to the loop's goroutine.
func Start(s *future.Scheduler, e *executor.Executor, c *Command) *future.Future[*Process] {
	f, p := future.New[*Process](s)
	l, t, ok := loopOf(s)
	if !ok {
		p.Reject(errors.New("process: the scheduler was not made of a *weir.Loop or a *weir.Tenant: use future.On"))
		return f
	}
	if e == nil {
		p.Reject(&StartError{Op: "executor", Path: c.Path, Err: errNoExecutor})
		return f
	}
	if c = c.clone(); c.Tenant != nil {
		t = c.Tenant
	}
	if err := c.check(); err != nil {
		p.Reject(err)
		return f
	}
	if t != nil && t.Loop() != l {
		p.Reject(weir.ErrOtherLoop)
		return f
	}
	b := &beginning{}
	h := &hook{closed: func() {
		b.abandon()
		p.Reject(reason(t))
	}}
	add := l.AddSource
	if t != nil {
		add = t.AddSource
	}
	if err := add(h); err != nil {
		p.Reject(err)
		return f
	}
	canceled := false
	start := func() error {
		if b.isOver() {
			return weir.ErrLoopClosed
		}
		ch, err := spawn(c)
		if err == nil && !b.offer(ch) {
			ch.discard() // the loop is closed
		}
		return err
	}
	done := func(err error) {
		ch := b.take()
		switch {
		case ch != nil && canceled:
			ch.discard()
			err = future.ErrCanceled
		case ch == nil && err == nil:
			err = reason(t)
		case ch != nil:
			var proc *Process
			if proc, err = run(l, t, s, h, c, ch); err == nil {
				if !p.Resolve(proc) {
					proc.end()
				}
				return
			}
		}
		h.closed = nil
		_ = l.RemoveSource(h) // it may be removed already
		p.Reject(err)
	}
	cancel := begin(l, s, e, c, b, start, done)
	p.OnCancel(func() {
		canceled = true
		cancel()
	})
	return f
}

var errNoExecutor = errors.New("starting a program blocks, so it needs an executor: pass one from executor.New")

// begin has start called, and then done on the loop with its error.
func begin(l *weir.Loop, s *future.Scheduler, e *executor.Executor, c *Command, b *beginning, start func() error, done func(error)) (cancel func()) {
	if m := machineOf(l); m != nil {
		return simulate(l, m, c, b, done)
	}
	job := executor.Go(context.Background(), e, s, func(context.Context) (struct{}, error) { return struct{}{}, start() })
	job.OnDone(func(_ struct{}, err error) {
		if errors.Is(err, executor.ErrFull) || errors.Is(err, executor.ErrClosed) {
			err = &StartError{Op: "executor", Path: c.Path, Err: err}
		}
		done(err)
	})
	return func() { job.Cancel() }
}

// loopOf is the loop that s is made of, and its tenant, if it is made of one.
func loopOf(s *future.Scheduler) (l *weir.Loop, t *weir.Tenant, ok bool) {
	switch x := s.Loop().(type) {
	case *weir.Loop:
		return x, nil, true
	case *weir.Tenant:
		return x.Loop(), x, true
	}
	return nil, nil, false
}

// reason is why a child, of t if that is not nil, ends with what it belongs to.
func reason(t *weir.Tenant) error {
	if t != nil && t.Closed() != nil {
		return t.Closed()
	}
	return weir.ErrLoopClosed
}

// beginning holds a child between the goroutine that started it and the loop.
type beginning struct {
	mu    sync.Mutex
	child program
	over  bool // it was taken, or no one will take it
}

// offer leaves a child for the loop; false: the loop is closed.
func (b *beginning) offer(c program) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	b.child = c
	return true
}

// take gets the child, once.
func (b *beginning) take() program {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	c := b.child
	b.child = nil
	return c
}

// isOver reports whether the loop is closed.
func (b *beginning) isOver() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.over
}

// abandon is called when the loop is closed.
func (b *beginning) abandon() {
	if c := b.take(); c != nil {
		c.discard()
	}
}

// hook is a weir.Source: it is told when the loop, or the child's tenant, is closed, and
// wakes it from the goroutine that waits for the child.
type hook struct {
	wake     func()
	closed   func() // nil: no one is to be told
	dispatch func()
}

var _ weir.Source = (*hook)(nil)

func (h *hook) Attach(wake func()) error { h.wake = wake; return nil }

func (h *hook) Dispatch() {
	if h.dispatch != nil {
		h.dispatch()
	}
}

func (h *hook) Detach() {
	if h.closed != nil {
		h.closed()
	}
}

// run makes a Process of a child that was started.
func run(l *weir.Loop, t *weir.Tenant, s *future.Scheduler, h *hook, c *Command, ch program) (*Process, error) {
	p := &Process{c: c, loop: l, tenant: t, hook: h, child: ch}
	p.exited, p.promise = future.New[Exit](s)
	h.closed, h.dispatch = p.closed, p.reap
	all := ch.streams()
	for i := range all {
		if err := all[i].attach(l, t, c.Path); err != nil {
			h.closed = nil
			ch.discard()
			return nil, &StartError{Op: "attach", Path: c.Path, Err: err}
		}
	}
	ch.watch(p)
	return p, nil
}

// PID is the child's process id. It has no meaning after the child has exited.
func (p *Process) PID() int { return p.child.id() }

// Path is the program that was started, as it was found.
func (p *Process) Path() string { return p.child.found() }

// Exited says how the child ended, once it has been reaped. It does not wait for the
// end of its output. It fails with weir.ErrLoopClosed if the loop is closed before, and
// with the *weir.TenantError if the tenant is.
// Canceling it does not affect the child.
func (p *Process) Exited() *future.Future[Exit] { return p.exited }

// OnExit calls f from the loop's queue when the child has exited.
func (p *Process) OnExit(f func(Exit)) {
	p.exited.OnDone(func(e Exit, err error) {
		if err == nil {
			f(e)
		}
	})
}

// Running reports whether the child has not been reaped.
func (p *Process) Running() bool { return !p.done }

// Signal sends a signal to the child alone; ErrExited once it has been reaped.
func (p *Process) Signal(sig syscall.Signal) error {
	if p.done {
		return ErrExited
	}
	return p.child.signal(sig)
}

// SignalGroup sends a signal to the child's process group, if it has one of its own,
// and otherwise to the child; ErrExited once it has been reaped. A group lives on while a
// process is in it, but its number is certain only while the child has not been reaped, so
// what the child has left behind gets no signal after that: see Stop.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	if p.done {
		return ErrExited
	}
	return p.child.signalGroup(sig)
}

// Stop asks the child and its process group to end, with SIGTERM, or SIGHUP where it has a
// terminal, and kills what is left of them after grace. When the child exits, the rest of
// its group is killed too, before the child is reaped; on other systems than Linux, where
// the kernel has reaped it by then, the rest gets the first signal alone. What has left the
// group, as a daemon does, is not reached. Calling it again shortens the grace, but never
// lengthens it. Once the child has been reaped it has no effect.
func (p *Process) Stop(grace time.Duration) {
	if p.done {
		return
	}
	at := p.loop.Now().Add(grace)
	switch {
	case p.timer == nil:
		p.stopping = true
		sig := syscall.SIGTERM
		if p.child.hasTerminal() {
			sig = syscall.SIGHUP
		}
		// That it has gone by itself is seen in its exit.
		_ = p.child.signalGroup(sig)
		_ = p.child.signalGroup(resume) // one that is stopped does not hear the first
		p.timer = p.loop.After(grace, p.kill)
	case at.Before(p.killAt):
		p.timer.Set(grace)
	default:
		return
	}
	p.killAt = at
}

// Resize sets the size of the child's terminal, whose foreground processes get
// SIGWINCH if it differs. If it has no terminal, the error is errors.ErrUnsupported.
func (p *Process) Resize(size Size) error {
	if p.done {
		return ErrExited
	}
	return p.child.resize(size)
}

func (p *Process) kill() {
	if !p.done {
		_ = p.child.signalGroup(syscall.SIGKILL) // it may have ended just now
	}
}

// reap is called when the child may have exited. It is a zombie until then, and its
// numbers, also that of its group, belong to no other. If other code has reaped it, no
// signal is sent.
func (p *Process) reap() {
	if p.done || !p.child.hasExited() {
		return
	}
	if p.stopping {
		p.kill()
	}
	exit, ok := p.child.reap()
	if !ok {
		return
	}
	p.over()
	p.hook.closed = nil
	_ = p.loop.RemoveSource(p.hook) // it is there until here
	p.promise.Resolve(exit)
}

// over releases what is kept for a running child.
func (p *Process) over() {
	p.done = true
	if p.watch != nil {
		p.watch.Remove()
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.child.letGo()
}

// end kills a child that no one wants.
func (p *Process) end() {
	p.stopping = true
	p.kill()
}

// closed is called when the loop or the tenant is closed.
func (p *Process) closed() {
	if p.watch != nil {
		p.watch.Remove()
		p.watch = nil
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.done = true
	if p.c.AtClose == Leave {
		p.child.leave()
	} else {
		p.child.discard()
	}
	p.promise.Reject(reason(p.tenant))
}
