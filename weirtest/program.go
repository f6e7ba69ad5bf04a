package weirtest

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// SimProgram is a program that runs on a simulated host: what process.Start has started
// there, without any process of the system. It has a loop of its own, on which its main
// function and its callbacks run, and the world decides when.
//
//	host.Program("shout", func(p *weirtest.SimProgram) {
//		_, err := p.Attach(0, 1, func(t weir.Transport) weir.Protocol { return &shouter{p: p} })
//		if err != nil {
//			p.Exit(1)
//		}
//	})
//
// It runs until Exit or a signal ends it. A terminal, users, limits and a directory that
// exists are not simulated, and no SIGPIPE is sent.
type SimProgram struct {
	host    *SimHost
	p       *sim.Program
	loop    *weir.Loop
	streams []weir.Transport
	caught  map[syscall.Signal]func()
}

// ErrNoFile is the failure of Attach where a program has no such descriptor, or only the
// null device, or has given it to a transport before.
var ErrNoFile = errors.New("weirtest: the simulated program has no such descriptor")

// Program makes main the program of that path, for all starts on the host from now on.
// process.Start finds it by a Command.Path of exactly that text, with slashes or without
// any; others fail with ENOENT. main is called on the new program's loop, once for each
// start.
//
// WithFaults and WithSwarm say what goes wrong; Fail(StartCall, …) and, for its pipes,
// Fail(OpenCall, …) force it.
func (h *SimHost) Program(path string, main func(p *SimProgram)) {
	h.host.Register(path, func(sp *sim.Program) {
		p := &SimProgram{host: h, p: sp, caught: map[syscall.Signal]func(){}}
		be, l := h.newLoop(weir.WithFlushTime(0), weir.WithErrorHandler(func(err error) {
			if _, dropped := errors.AsType[*weir.DroppedError](err); !dropped { // a signal may end it at any time
				h.sim.Failures = append(h.sim.Failures, err)
			}
		}))
		p.loop = l
		sp.Drive(be)
		sp.OnSignal, sp.OnEnd = p.signaled, p.ended
		l.Soon(func() { main(p) })
	})
}

// Loop is the program's own loop, on the program's host. It is closed when the program
// ends: what it still has gets ConnectionLost(weir.ErrLoopClosed), which a real program
// would not live to see.
func (p *SimProgram) Loop() *weir.Loop { return p.loop }

// Args is what Command.Args was, with the program's name first. It is shared and must not
// be changed, as with Env.
func (p *SimProgram) Args() []string { return p.p.Spec.Args }

// Env is what Command.Env was; nil is the environment of the test.
func (p *SimProgram) Env() []string { return p.p.Spec.Env }

// Dir is what Command.Dir was.
func (p *SimProgram) Dir() string { return p.p.Spec.Dir }

// PID is its process id: the lowest that is free on its host, so that ids are given again
// soon.
func (p *SimProgram) PID() int { return p.p.PID() }

// Attach makes a transport of two of the program's descriptors, one to read and one to
// write; either may be -1 or the null device, which is as if it were not there, and both
// may be one socket. They then belong to the transport. Its WriteEOF closes out.
func (p *SimProgram) Attach(in, out int, f weir.Factory, opts ...weir.StreamOption) (weir.Transport, error) {
	fds := [2]int{-1, -1}
	for i, n := range [2]int{in, out} {
		if n < 0 {
			continue
		}
		fd, ok := p.p.File(n)
		if !ok {
			return nil, fmt.Errorf("%w: %d", ErrNoFile, n)
		}
		fds[i] = fd
	}
	if fds == [2]int{-1, -1} {
		return nil, fmt.Errorf("%w: neither %d nor %d leads anywhere", ErrNoFile, in, out)
	}
	t, err := p.loop.AttachPair(fds[0], fds[1], "program", f, weir.WithSeparateEnds(), weir.JoinOptions(opts...))
	if err == nil {
		p.streams = append(p.streams, t)
	}
	return t, err
}

// CloseFile closes a descriptor that no transport was made of, and reports whether there
// was one.
func (p *SimProgram) CloseFile(n int) bool {
	fd, ok := p.p.File(n)
	if ok && fd >= 0 {
		p.host.host.CloseDescriptor(fd)
	}
	return ok && fd >= 0
}

// Exit ends the program with a code. What its transports were given to write is taken by
// their readers' pipes first, as a program that writes waits for that; until then it still
// runs, and a signal may end it. Calling it again has no effect.
func (p *SimProgram) Exit(code int) {
	for _, t := range p.streams {
		_ = t.Close() // it may be closed already
	}
	p.p.Exit(code)
}

// Daemon lets the process exit with a code now, while everything that it runs goes on, as
// a child of no one that has inherited its descriptors: its output continues after the
// exit. It stays in its process group, whose signals reach it. Exit ends it, with no one
// to hear the code.
func (p *SimProgram) Daemon(code int) { p.p.Daemon(code) }

// OnSignal has f called, on the program's loop, for each such signal, instead of what the
// signal would do; nil: it has no effect. SIGKILL and, on systems that have it, SIGSTOP
// cannot be caught. A signal that comes before main has been called is not caught either. While
// the program is stopped, all others wait for SIGCONT.
func (p *SimProgram) OnSignal(sig syscall.Signal, f func()) { p.caught[sig] = f }

func (p *SimProgram) signaled(sig syscall.Signal) bool {
	f, is := p.caught[sig]
	if f != nil {
		_, _ = p.loop.Post(f) // it may be ending
	}
	return is
}

// ended closes the loop of a program that is over.
func (p *SimProgram) ended() {
	h := p.host
	_ = p.loop.Close() // what it cuts is lost with its program
	h.all = slices.DeleteFunc(h.all, func(l *weir.Loop) bool { return l == p.loop })
}
