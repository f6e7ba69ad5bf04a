package process

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/weirtest"
)

// simRig is a loop on a simulated host, whose programs are simulated.
type simRig struct {
	*testing.T
	sim  *weirtest.Sim
	host *weirtest.SimHost
	l    *weir.Loop
	s    *future.Scheduler
	e    *executor.Executor
}

func newSimRig(t *testing.T, opts ...weirtest.SimOption) *simRig {
	t.Helper()
	weirtest.CheckLeaks(t)
	s := weirtest.NewSim(t, 1, opts...)
	h := s.Host("host")
	r := &simRig{T: t, sim: s, host: h, l: h.Loop()}
	r.s, r.e = future.On(r.l), executor.Inline("start")
	return r
}

func (r *simRig) try(c *Command) (p *Process, err error) {
	r.Helper()
	done := false
	Start(r.s, r.e, c).OnDone(func(got *Process, e error) { p, err, done = got, e, true })
	r.sim.Until("a start", func() bool { return done })
	return p, err
}

func (r *simRig) start(c *Command) *Process {
	r.Helper()
	p, err := r.try(c)
	if err != nil {
		r.Fatal(err)
	}
	return p
}

func (r *simRig) exit(p *Process) (got Exit) {
	r.Helper()
	done := false
	p.OnExit(func(e Exit) { got, done = e, true })
	r.sim.Until("an exit", func() bool { return done })
	return got
}

// nothing fails unless the host is as it was.
func (r *simRig) nothing(what string) {
	r.Helper()
	if u := r.host.Usage(); u.Handles != 0 || u.Programs != 0 {
		r.Errorf("%s: left on the host: %+v", what, u)
	}
}

// simCat is a simulated cat that exits with a code at the end of its input.
type simCat struct {
	weir.NopProtocol
	p    *weirtest.SimProgram
	t    weir.Transport
	code int
}

func (c *simCat) ConnectionMade(t weir.Transport) { c.t = t }

func (c *simCat) DataReceived(b []byte) (int, error) {
	_, err := c.t.Write(b)
	return len(b), err
}

func (c *simCat) EOFReceived(int) (bool, error) {
	c.p.Exit(c.code)
	return true, nil
}

// cat registers a simCat.
func (r *simRig) cat(code int) {
	r.host.Program("cat", func(p *weirtest.SimProgram) {
		if _, err := p.Attach(0, 1, func(weir.Transport) weir.Protocol { return &simCat{p: p, code: code} }); err != nil {
			r.Error(err)
		}
	})
}

// says registers a program that writes a text to descriptor 1 and goes on as then says.
func (r *simRig) says(name, text string, then func(p *weirtest.SimProgram)) {
	r.host.Program(name, func(p *weirtest.SimProgram) {
		t, err := p.Attach(-1, 1, func(weir.Transport) weir.Protocol { return &weir.NopProtocol{} })
		if err != nil {
			r.Error(err)
			return
		}
		if _, err := t.Write([]byte(text)); err != nil {
			r.Error(err)
		}
		then(p)
	})
}

// TestSimulated: a simulated program gets what it was started with, bytes go both ways,
// each direction has its own end, and its exit code comes, without a process of ours.
func TestSimulated(t *testing.T) {
	for name, make := range map[string]func(weir.Factory, ...weir.StreamOption) *Stream{"pipes": Pipes, "socket": Socket} {
		t.Run(name, func(t *testing.T) {
			r := newSimRig(t)
			var with []string
			r.host.Program("/bin/cat", func(p *weirtest.SimProgram) {
				with = slices.Concat(p.Args(), p.Env(), []string{p.Dir()})
				if _, err := p.Attach(0, 1, func(weir.Transport) weir.Protocol { return &simCat{p: p, code: 7} }); err != nil {
					t.Error(err)
				}
				if _, err := p.Attach(2, -1, nil); !errors.Is(err, weirtest.ErrNoFile) {
					t.Errorf("the null device: %v", err)
				}
				if _, err := p.Attach(5, -1, nil); !errors.Is(err, weirtest.ErrNoFile) {
					t.Errorf("no descriptor: %v", err)
				}
			})
			out := &sink{keep: true}
			s := make(out.factory())
			p := r.start(&Command{Path: "/bin/cat", Args: []string{"cat", "-u"}, Env: []string{"A=1"}, Dir: "/srv", Files: map[int]File{0: s.In(), 1: s.Out()}})
			text := strings.Repeat("hello ", 50_000) // more than a buffer
			if _, err := out.t.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if err := out.t.WriteEOF(); err != nil {
				t.Fatal(err)
			}
			if e := r.exit(p); e.Code != 7 || e.Signal != 0 || e.Err != nil {
				t.Error(e)
			}
			r.sim.Until("the end", func() bool { return out.lost })
			if string(out.got) != text || !out.eof || out.err != nil {
				t.Errorf("%d of %d bytes came back, end of stream %v, lost with %v", len(out.got), len(text), out.eof, out.err)
			}
			if want := []string{"cat", "-u", "A=1", "/srv"}; !slices.Equal(with, want) {
				t.Errorf("started with %q, want %q", with, want)
			}
			if err := p.Signal(syscall.SIGTERM); !errors.Is(err, ErrExited) {
				t.Errorf("a signal to a reaped program: %v", err)
			}
			r.nothing("at the end")
		})
	}
}

// TestSimulatedStartFails: a start fails as it is told to, says why, and leaves nothing.
func TestSimulatedStartFails(t *testing.T) {
	r := newSimRig(t)
	r.cat(0)
	for _, c := range []struct {
		what  string
		path  string
		force func()
		op    string
		errno error
		says  string
	}{
		{"no such name", "dog", func() {}, "find", syscall.ENOENT, "no simulated program"},
		{"no such path", "/bin/cat", func() {}, "exec", syscall.ENOENT, "no simulated program"},
		{"no process", "cat", func() { r.host.Fail(weirtest.StartCall, 1, syscall.EAGAIN) }, "fork", syscall.EAGAIN, "ulimit -u"},
		{"no memory", "cat", func() { r.sim.Fail(weirtest.StartCall, 1, syscall.ENOMEM) }, "fork", syscall.ENOMEM, "memory"},
		{"no descriptor for exec", "cat", func() { r.host.Fail(weirtest.StartCall, 1, syscall.EMFILE) }, "fork", syscall.EMFILE, "ulimit -n"},
		{"the first pipe", "cat", func() { r.host.Fail(weirtest.OpenCall, 1, syscall.EMFILE) }, "pipe", syscall.EMFILE, "ulimit -n"},
		{"the second pipe", "cat", func() { r.host.Fail(weirtest.OpenCall, 2, syscall.ENFILE) }, "pipe", syscall.ENFILE, "fs.file-max"},
		{"the socket pair", "cat", func() { r.host.Fail(weirtest.OpenCall, 3, syscall.EMFILE) }, "socketpair", syscall.EMFILE, "ulimit -n"},
		{"three descriptors", "cat", func() { r.host.SetHandles(3) }, "pipe", syscall.EMFILE, "ulimit -n"},
	} {
		c.force()
		a, b := &sink{}, &sink{}
		pipes, sock := Pipes(a.factory()), Socket(b.factory())
		p, err := r.try(&Command{Path: c.path, Files: map[int]File{0: pipes.In(), 1: pipes.Out(), 5: sock.In()}})
		se, ok := errors.AsType[*StartError](err)
		if p != nil || !ok || se.Op != c.op || !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v; want %s, %v, %q", c.what, p, err, c.op, c.errno, c.says)
		}
		if a.t != nil || b.t != nil {
			t.Errorf("%s: a stream was made of what did not start", c.what)
		}
		r.nothing(c.what)
	}
	r.host.SetHandles(100)
	tty := Terminal(Size{}, (&sink{}).factory())
	if _, err := r.try(&Command{Path: "cat", Files: map[int]File{0: tty.In()}}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a terminal: %v", err)
	}
	if _, err := r.try(&Command{Path: "cat", Files: map[int]File{0: Inherit(9)}}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a descriptor of ours: %v", err)
	}
	r.nothing("at the end")
}

// TestSimulatedOutputAfterExit: an exit is told although the output goes on, and the news
// of an exit may come long after the end of the output (behaviour 62).
func TestSimulatedOutputAfterExit(t *testing.T) {
	t.Run("daemon", func(t *testing.T) {
		r := newSimRig(t)
		r.says("daemon", "early ", func(p *weirtest.SimProgram) {
			p.Daemon(3)
			p.Loop().After(time.Hour, func() {
				out, err := p.Attach(-1, 2, func(weir.Transport) weir.Protocol { return &weir.NopProtocol{} })
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = out.Write([]byte("late"))
				p.Exit(9) // no one hears of it
			})
		})
		out, errs := &sink{keep: true}, &sink{keep: true}
		p := r.start(&Command{Path: "daemon", Files: map[int]File{1: Pipes(out.factory()).Out(), 2: Pipes(errs.factory()).Out()}})
		if e := r.exit(p); e.Code != 3 {
			t.Error(e)
		}
		if out.eof || errs.eof || r.sim.Now() > time.Minute {
			t.Errorf("the output ended with the program: %v, %v, after %v", out.eof, errs.eof, r.sim.Now())
		}
		r.sim.Until("the end of the output", func() bool { return out.lost && errs.lost })
		if string(out.got) != "early " || string(errs.got) != "late" {
			t.Errorf("got %q and %q", out.got, errs.got)
		}
		r.nothing("at the end")
	})
	t.Run("delay", func(t *testing.T) {
		r := newSimRig(t, weirtest.WithFaults(weirtest.Faults{ExitDelay: time.Hour, StartDelay: time.Minute}))
		r.says("date", "noon", func(p *weirtest.SimProgram) { p.Exit(0) })
		out := &sink{keep: true}
		p := r.start(&Command{Path: "date", Files: map[int]File{1: Pipes(out.factory()).Out()}})
		started := r.sim.Now()
		r.sim.Until("the output", func() bool { return out.lost })
		if ended := r.sim.Now(); started == 0 || ended-started > time.Second || !p.Running() {
			t.Errorf("started after %v, the output's end came at %v, it runs: %v", started, ended, p.Running())
		}
		if e := r.exit(p); !e.Success() || string(out.got) != "noon" || r.sim.Now() < time.Minute {
			t.Errorf("%v, %q, after %v", e, out.got, r.sim.Now())
		}
		r.nothing("at the end")
	})
}

// TestSimulatedSignals: signals end a program, are caught, ignored, stop it and let it go
// on; Stop kills what does not listen, and the rest of its group.
func TestSimulatedSignals(t *testing.T) {
	r := newSimRig(t)
	term, ready := 0, 0
	r.host.Program("sleep", func(*weirtest.SimProgram) { ready++ })
	r.host.Program("polite", func(p *weirtest.SimProgram) {
		p.OnSignal(syscall.SIGTERM, func() { term++; p.Exit(4) })
		ready++
	})
	r.host.Program("deaf", func(p *weirtest.SimProgram) {
		p.OnSignal(syscall.SIGTERM, nil)
		ready++
	})
	for i, c := range []struct {
		path string
		do   func(p *Process)
		want string
	}{
		{"sleep", func(p *Process) { _ = p.Signal(syscall.SIGINT) }, "signal: interrupt"},
		{"sleep", func(p *Process) { p.Stop(time.Hour) }, "signal: terminated"},
		{"polite", func(p *Process) { p.Stop(time.Hour) }, "exit code 4"},
		{"deaf", func(p *Process) { p.Stop(time.Minute) }, "signal: killed"},
		{"deaf", func(p *Process) { p.Stop(time.Hour); p.Stop(time.Second) }, "signal: killed"},
	} {
		p := r.start(&Command{Path: c.path})
		r.sim.Until("main", func() bool { return ready == i+1 })
		began := r.sim.Now()
		c.do(p)
		if got := r.exit(p).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
		if took := r.sim.Now() - began; took > time.Minute+time.Second {
			t.Errorf("%s: it took %v", c.path, took)
		}
		r.nothing(c.path)
	}
	if term != 1 {
		t.Errorf("SIGTERM was caught %d times", term)
	}
	// The rest of its group is killed with it.
	r.says("daemon", "", func(p *weirtest.SimProgram) {
		p.OnSignal(syscall.SIGTERM, nil)
		ready = -1
		p.Loop().After(time.Second, func() { p.Daemon(0) })
	})
	out := &sink{}
	p := r.start(&Command{Path: "daemon", Group: true, Files: map[int]File{1: Pipes(out.factory()).Out()}})
	r.sim.Until("main", func() bool { return ready == -1 })
	p.Stop(time.Hour)
	if e := r.exit(p); !e.Success() {
		t.Error(e)
	}
	r.sim.Until("the end of the group", func() bool { return out.lost })
	r.nothing("the group")
}

// TestSimulatedClosedLoop: what is started when its loop is closed is killed or left, a
// start under way does not happen, and a canceled one neither.
func TestSimulatedClosedLoop(t *testing.T) {
	for _, at := range []AtClose{End, Leave} {
		r := newSimRig(t, weirtest.WithFaults(weirtest.Faults{StartDelay: time.Hour}))
		mains := 0
		r.host.Program("sleep", func(*weirtest.SimProgram) { mains++ })
		canceled := Start(r.s, r.e, &Command{Path: "sleep"})
		canceled.Cancel()
		p := r.start(&Command{Path: "sleep", AtClose: at, Files: map[int]File{1: Pipes((&sink{}).factory()).Out()}})
		Start(r.s, r.e, &Command{Path: "sleep"})
		if _, err, settled := canceled.Result(); !settled || !errors.Is(err, future.ErrCanceled) {
			t.Errorf("a canceled start: %v, %v", settled, err)
		}
		r.sim.Until("it runs", func() bool { return mains == 1 })
		var cut *weir.CutError
		if err := r.l.Close(); err != nil && !errors.As(err, &cut) {
			t.Fatal(err)
		}
		if err := r.sim.Run(nil); err != nil {
			t.Fatal(err)
		}
		if p.Signal(syscall.SIGTERM) == nil {
			t.Error("a signal after the loop's end")
		}
		if left := r.host.Usage().Programs; left != int(at) || mains != 1 {
			t.Errorf("%d programs are left with AtClose %d; %d were run", left, at, mains)
		}
	}
}

// TestSimulatedClosedTenant: a start under way when its tenant is closed does not happen.
func TestSimulatedClosedTenant(t *testing.T) {
	r := newSimRig(t, weirtest.WithFaults(weirtest.Faults{StartDelay: time.Hour}))
	mains := 0
	r.host.Program("sleep", func(*weirtest.SimProgram) { mains++ })
	tenant := r.l.NewTenant("tenant")
	var failed error
	Start(r.s, r.e, &Command{Path: "sleep", Tenant: tenant, Files: map[int]File{1: Pipes((&sink{}).factory()).Out()}}).OnDone(func(_ *Process, err error) { failed = err })
	tenant.Close(errors.New("unpaid"))
	r.sim.RunFor(2 * time.Hour)
	if te, ok := errors.AsType[*weir.TenantError](failed); !ok || te.Tenant != "tenant" {
		t.Errorf("failed with %v", failed)
	}
	if mains != 0 {
		t.Error("it was started")
	}
	r.nothing("at the end")
}

// TestSimulatedCrash: a crash takes the programs of its host with it. The loop's end, which
// ends them, is no use of a number that may be another's.
func TestSimulatedCrash(t *testing.T) {
	for _, at := range []AtClose{End, Leave} {
		r := newSimRig(t)
		mains := 0
		r.host.Program("sleep", func(*weirtest.SimProgram) { mains++ })
		p := r.start(&Command{Path: "sleep", AtClose: at})
		r.sim.Until("main", func() bool { return mains == 1 })
		r.host.Crash()
		r.nothing("after the crash")
		_ = p.Signal(syscall.SIGTERM) // which no one hears
		r.sim.Close()
	}
}

// TestSimulatedHealed: no program is killed once the world is healed, and one that has made
// a transport of a descriptor has it no more.
func TestSimulatedHealed(t *testing.T) {
	r := newSimRig(t, weirtest.WithFaults(weirtest.Faults{Killed: 1}))
	mains := 0
	r.host.Program("cat", func(p *weirtest.SimProgram) {
		mains++
		if _, err := p.Attach(0, 1, func(weir.Transport) weir.Protocol { return &simCat{p: p} }); err != nil {
			t.Error(err)
		}
		if _, err := p.Attach(0, -1, (&sink{}).factory()); !errors.Is(err, weirtest.ErrNoFile) {
			t.Errorf("attached twice: %v", err)
		}
		if p.CloseFile(1) {
			t.Error("it has closed a descriptor of a transport")
		}
	})
	out := &sink{keep: true}
	s := Socket(out.factory())
	p := r.start(&Command{Path: "cat", Files: map[int]File{0: s.In(), 1: s.Out()}})
	r.sim.HealAll()
	r.sim.RunFor(time.Minute)
	if !p.Running() || mains != 1 {
		t.Errorf("it runs: %v, main was called %d times", p.Running(), mains)
	}
	if err := out.t.WriteEOF(); err != nil {
		t.Fatal(err)
	}
	if e := r.exit(p); !e.Success() {
		t.Error(e)
	}
	r.sim.Until("the end of the output", func() bool { return out.lost })
	r.nothing("at the end")
}
