package process

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/internal/inner"
	"github.com/weir-io/weir/internal/machine"
)

// machineOf is the simulated host that a loop runs on; nil on a real machine.
func machineOf(l *weir.Loop) machine.Host { return inner.Of(l).Machine() }

// simulate starts a simulated program after a drawn delay, and then calls done.
func simulate(l *weir.Loop, m machine.Host, c *Command, b *beginning, done func(error)) (cancel func()) {
	start := l.After(time.Duration(m.StartDelay()), func() {
		if b.isOver() { // its tenant was closed
			done(weir.ErrLoopClosed)
			return
		}
		ch, err := startSimulated(m, c)
		if err == nil && !b.offer(ch) {
			ch.discard()
		}
		done(err)
	})
	return func() {
		if start.Stop() {
			done(future.ErrCanceled)
		}
	}
}

// simulated is a program of a simulated host.
type simulated struct {
	host machine.Host
	prog machine.Program
	path string
	ends []ends
	wake func() // tells its Process of its exit; nil: there is none yet
}

var _ program = (*simulated)(nil)

func startSimulated(m machine.Host, c *Command) (program, error) {
	s := &simulated{host: m, path: c.Path}
	var theirs []int // descriptors of streams
	prog, err := s.start(c, &theirs)
	if err != nil {
		for _, fd := range theirs {
			m.CloseDescriptor(fd)
		}
		s.closeEnds()
		return nil, err
	}
	s.prog = prog
	return s, nil
}

func (s *simulated) start(c *Command, theirs *[]int) (machine.Program, error) {
	args := c.Args
	if args == nil {
		args = []string{c.Path}
	}
	spec := &machine.Spec{Path: c.Path, Args: args, Env: c.Env, Dir: c.Dir, Files: map[int]int{}, Group: c.Group || c.Session}
	made := map[*Stream][2]int{}
	for n := range c.numbers() {
		f, here := c.Files[n]
		switch {
		case !here && n > 2, f.how == fromNothing:
		case !here, f.how == fromNull, f.how == fromOurs && f.fd <= 2:
			spec.Files[n] = -1
		case f.how == fromOurs:
			return nil, &StartError{Op: "descriptors", Path: c.Path, Err: errors.ErrUnsupported, Hint: fmt.Sprintf("a simulated program cannot inherit our descriptor %d", f.fd)}
		default:
			if _, is := made[f.stream]; !is {
				ends, err := s.make(c, f.stream)
				if err != nil {
					return nil, err
				}
				made[f.stream] = ends
				*theirs = append(*theirs, ends[0])
				if ends[1] != ends[0] {
					*theirs = append(*theirs, ends[1])
				}
			}
			spec.Files[n] = made[f.stream][0]
			if f.out {
				spec.Files[n] = made[f.stream][1]
			}
		}
	}
	prog, err := s.host.Start(spec, func() {
		if s.wake != nil {
			s.wake()
		}
	})
	if err != nil {
		e := &StartError{Op: "exec", Path: c.Path, Dir: c.Dir, Err: err, Hint: hintFor(err)}
		if e.Hint != "" {
			e.Op = "fork"
		}
		if errors.Is(err, syscall.ENOENT) {
			e.Hint = "no simulated program has that name: see weirtest.SimHost.Program"
			if !strings.Contains(c.Path, "/") {
				e.Op = "find"
			}
		}
		return nil, e
	}
	return prog, nil
}

// make opens a stream; theirs is what the program reads and what it writes.
func (s *simulated) make(c *Command, st *Stream) (theirs [2]int, err error) {
	e := ends{stream: st, r: -1, w: -1}
	theirs = [2]int{-1, -1}
	op := "pipe"
	switch st.kind {
	case terminal:
		return theirs, &StartError{Op: "terminal", Path: c.Path, Err: errors.ErrUnsupported, Hint: "a simulated host has none"}
	case socket:
		op = "socketpair"
		var a, b int
		if a, b, err = s.host.SocketPair(); err == nil {
			e.r, e.w, theirs = a, a, [2]int{b, b}
		}
	case pipes:
		in, out := false, false
		for _, f := range c.Files { // any order: it is a question
			in, out = in || f.stream == st && !f.out, out || f.stream == st && f.out
		}
		if in {
			theirs[0], e.w, err = s.host.Pipe()
		}
		if out && err == nil {
			if e.r, theirs[1], err = s.host.Pipe(); err != nil && in {
				s.host.CloseDescriptor(theirs[0])
			}
		}
	}
	s.ends = append(s.ends, e)
	if err != nil {
		return theirs, &StartError{Op: op, Path: c.Path, Err: err, Hint: hintFor(err)}
	}
	return theirs, nil
}

func (s *simulated) closeEnds() {
	for i := range s.ends {
		e := &s.ends[i]
		s.host.CloseDescriptor(e.r)
		if e.w != e.r {
			s.host.CloseDescriptor(e.w)
		}
		e.r, e.w = -1, -1
	}
}

func (s *simulated) id() int           { return s.prog.PID() }
func (s *simulated) found() string     { return s.path }
func (s *simulated) streams() []ends   { return s.ends }
func (s *simulated) hasTerminal() bool { return false }
func (s *simulated) resize(Size) error { return errors.ErrUnsupported }
func (s *simulated) hasExited() bool   { return s.prog.Exited() }
func (s *simulated) letGo()            {}

func (s *simulated) watch(p *Process) {
	s.wake = p.hook.wake
	if s.prog.Exited() {
		s.wake()
	}
}

func (s *simulated) signal(sig syscall.Signal) error {
	s.prog.Signal(sig)
	return nil
}

func (s *simulated) signalGroup(sig syscall.Signal) error {
	s.prog.SignalGroup(sig)
	return nil
}

func (s *simulated) reap() (Exit, bool) {
	code, sig, ok := s.prog.Reap()
	return Exit{Code: code, Signal: sig}, ok
}

func (s *simulated) discard() {
	s.closeEnds()
	s.prog.SignalGroup(syscall.SIGKILL)
	s.leave()
}

func (s *simulated) leave() { s.prog.Leave() }
