package sim

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/process"
	"github.com/weir-io/weir/weirtest"
)

// programs is the scenario of simulated programs: starts, streams, signals and exits,
// under drawn faults. It checks that each start settles once and each exit is told once,
// with the code or a signal that there was; that what arrives is what was written, all of
// it before the end unless the program was killed; that no two programs that run have one
// number; and, with runSeed, that nothing is left.
type programs struct {
	s       *seedRun
	host    *weirtest.SimHost
	futures *future.Scheduler
	starts  *executor.Executor
	jobs    []*programJob
}

// programJob is one start, from both sides.
type programJob struct {
	all *programs
	id  int
	r   *rand.Rand
	p   *process.Process
	out *programEnd // ours
	in  *programEnd // the program's; nil until it was made

	canceled, settled bool
	exits             int
	exit              process.Exit
	code              int  // what it exits with
	exited            bool // by itself: it has called Exit or Daemon
	ended             bool // all of it: it has called Exit
	signals           map[syscall.Signal]bool
}

// programByte is a byte of a stream: which stream it is, and where it is, shows.
func programByte(id, i int) byte { return byte(id*31 + i*7 + i>>8) }

// programEnd is one end of a program's stream.
type programEnd struct {
	job    *programJob
	name   string
	seed   int // what it writes: see programByte
	t      weir.Transport
	size   int // to be written
	wrote  int
	paused bool
	echo   bool
	slow   int
	then   func()                     // when all is written
	onEnd  func()                     // the other end's end has come
	check  func(p []byte, before int) // of what comes
	got    int
	made   int
	lost   int
	eof    bool
	failed bool // to write: its reader has gone, or the system said no
	reason error
}

func (e *programEnd) bad(format string, args ...any) {
	e.job.all.s.bad("program %d, %s: "+format, append([]any{e.job.id, e.name}, args...)...)
}

func (e *programEnd) ConnectionMade(t weir.Transport) {
	e.t = t
	if e.made++; e.made != 1 || e.lost != 0 {
		e.bad("ConnectionMade after %d and %d lost (G1)", e.made-1, e.lost)
	}
	e.work()
}

func (e *programEnd) work() {
	for !e.paused && !e.failed && e.lost == 0 && e.wrote < e.size {
		p := make([]byte, min(e.size-e.wrote, 1+e.job.r.IntN(5000)))
		for i := range p {
			p[i] = programByte(e.seed, e.wrote+i)
		}
		n, err := e.t.Write(p)
		e.wrote += n
		e.failed = e.failed || err != nil
	}
	if then := e.then; then != nil && (e.wrote >= e.size || e.failed) {
		e.then = nil
		then()
	}
}

func (e *programEnd) PauseWriting()     { e.paused = true }
func (e *programEnd) ResumeWriting()    { e.paused = false; e.work() }
func (e *programEnd) WriteFailed(error) { e.failed = true; e.work() }

func (e *programEnd) DataReceived(p []byte) (int, error) {
	if e.made != 1 || e.lost != 0 || e.eof {
		e.bad("DataReceived after %d made, %d lost, end %v (G1)", e.made, e.lost, e.eof)
	}
	if e.slow > 0 && e.job.r.IntN(e.slow) == 0 {
		e.t.PauseReading()
		e.t.Loop().After(time.Duration(e.job.r.IntN(int(time.Second))), e.t.ResumeReading)
	}
	if e.check != nil {
		e.check(p, e.got)
	}
	e.got += len(p)
	if e.echo && !e.failed {
		n, err := e.t.Write(p)
		e.wrote += n
		e.failed = err != nil
	}
	return len(p), nil
}

func (e *programEnd) EOFReceived(int) (bool, error) {
	if e.eof {
		e.bad("the end came twice")
	}
	e.eof = true
	if e.onEnd != nil {
		e.onEnd()
	}
	return true, nil
}

func (e *programEnd) ConnectionLost(err error) {
	e.reason = err
	if e.lost++; e.lost != 1 {
		e.bad("ConnectionLost twice (G1)")
	}
}

// playPrograms starts programs, and writes, waits, signals and cancels as it is drawn.
func playPrograms(s *seedRun) {
	a := &programs{s: s, host: s.sim.Host("server"), futures: future.On(s.server), starts: executor.Inline("start")}
	a.host.Program("job", a.main)
	for id := range 1 + s.r.IntN(10) {
		j := &programJob{all: a, id: id, r: rand.New(rand.NewPCG(s.r.Uint64(), 0)), code: s.r.IntN(200), signals: map[syscall.Signal]bool{}}
		a.jobs = append(a.jobs, j)
		s.server.After(time.Duration(s.r.Int64N(int64(time.Second))), j.start)
	}
	s.finish = a.finish
}

func (j *programJob) start() {
	s, r := j.all.s, j.r
	j.out = &programEnd{job: j, name: "our end", seed: 2 * j.id, size: r.IntN(1 << r.IntN(18)), slow: r.IntN(4)}
	j.out.then = func() { _ = j.out.t.WriteEOF() } // an error says that it is lost
	j.out.check = func(p []byte, before int) {
		for i := range p {
			if j.in == nil || before+i >= j.in.wrote || p[i] != programByte(j.in.seed, before+i) {
				j.out.bad("byte %d was never written (G2)", before+i)
				return
			}
		}
	}
	j.out.onEnd = func() {
		if j.in != nil && j.clean() && j.out.got != j.in.wrote {
			j.out.bad("the end came after %d of %d bytes (G2)", j.out.got, j.in.wrote)
		}
	}
	stream := process.Pipes
	if r.IntN(2) == 0 {
		stream = process.Socket
	}
	st := stream(func(weir.Transport) weir.Protocol { return j.out })
	c := &process.Command{Path: "job", Args: []string{string(rune('A' + j.id))}, Group: r.IntN(2) == 0, Files: map[int]process.File{0: st.In(), 1: st.Out()}}
	f := process.Start(j.all.futures, j.all.starts, c)
	f.OnDone(func(p *process.Process, err error) {
		if j.settled {
			j.out.bad("its start has settled twice")
		}
		j.settled = true
		if err != nil {
			start, is := errors.AsType[*process.StartError](err)
			if !is && (!j.canceled || !errors.Is(err, future.ErrCanceled)) || is && !start.Temporary() && !errors.Is(err, syscall.EACCES) {
				j.out.bad("its start failed with %v", err)
			}
			if j.out.made != 0 {
				j.out.bad("a stream was made of what did not start")
			}
			return
		}
		j.p = p
		s.answered++
		for _, other := range j.all.jobs {
			if other != j && other.p != nil && other.p.Running() && other.p.PID() == p.PID() {
				j.out.bad("program %d has its number too", other.id)
			}
		}
		p.OnExit(j.onExit)
	})
	switch r.IntN(6) {
	case 0:
		s.server.After(time.Duration(r.Int64N(int64(time.Second))), func() {
			if !j.settled {
				j.canceled = true
				f.Cancel()
			}
		})
	case 1:
		s.server.After(time.Duration(r.Int64N(int64(5*time.Second))), func() { j.stop(time.Duration(r.Int64N(int64(5 * time.Second)))) })
	case 2:
		s.server.After(time.Duration(r.Int64N(int64(5*time.Second))), func() { j.send(syscall.SIGINT) })
	}
	// What no one has ended by then.
	s.server.After(time.Hour, func() { j.stop(time.Minute) })
}

func (j *programJob) stop(grace time.Duration) {
	if j.p != nil {
		j.signals[syscall.SIGTERM] = true
		j.p.Stop(grace)
	}
}

func (j *programJob) send(sig syscall.Signal) {
	if j.p == nil {
		return
	}
	if err := j.p.Signal(sig); errors.Is(err, process.ErrExited) != !j.p.Running() {
		j.out.bad("Signal: %v; it runs: %v", err, j.p.Running())
	}
	j.signals[sig] = true
}

// onExit is told of the exit.
func (j *programJob) onExit(e process.Exit) {
	if j.exits++; j.exits != 1 {
		j.out.bad("its exit was told %d times", j.exits)
	}
	j.exit = e
	switch {
	case e.Err != nil:
		j.out.bad("it ended with %v", e.Err)
	case e.Signal == syscall.SIGKILL: // drawn, or by Stop
	case e.Signal != 0 && !j.signals[e.Signal]:
		j.out.bad("it ended by %v, which no one sent", e.Signal)
	case e.Signal == 0 && (e.Code != j.code || !j.exited):
		j.out.bad("it ended with code %d, its own is %d; it has exited: %v", e.Code, j.code, j.exited)
	}
	if j.p.Signal(syscall.SIGTERM) == nil {
		j.out.bad("a signal after its exit")
	}
}

// clean reports whether all that the program wrote had to arrive.
func (j *programJob) clean() bool {
	return j.ended && j.exit.Signal == 0 && !j.in.failed && j.in.lost == 1 && !errors.Is(j.in.reason, weir.ErrLoopClosed) && errors.Is(j.in.reason, nil)
}

// main is the program.
func (a *programs) main(p *weirtest.SimProgram) {
	j := a.jobs[p.Args()[0][0]-'A']
	r := j.r
	j.in = &programEnd{job: j, name: "its end", seed: 2*j.id + 1, slow: r.IntN(4)}
	j.in.check = func(b []byte, before int) {
		for i := range b {
			if before+i >= j.out.wrote || b[i] != programByte(j.out.seed, before+i) {
				j.in.bad("byte %d was never written (G2)", before+i)
				return
			}
		}
	}
	exit := func() {
		j.exited, j.ended = true, true
		p.Exit(j.code)
	}
	if r.IntN(4) == 0 {
		p.OnSignal(syscall.SIGTERM, nil)
	}
	if r.IntN(4) == 0 {
		p.OnSignal(syscall.SIGINT, exit)
	}
	in := 0
	switch r.IntN(5) {
	case 0: // reads, writes, and exits at the end of its input
		j.in.size = r.IntN(1 << r.IntN(18))
		j.in.onEnd = exit
	case 1: // writes and exits, whether it has read all or not
		j.in.size, j.in.then = r.IntN(1<<r.IntN(18)), exit
	case 2: // its output goes on after its exit
		j.in.size = r.IntN(1 << r.IntN(12))
		j.in.then = func() {
			j.exited = true
			p.Daemon(j.code)
			p.Loop().After(time.Duration(r.IntN(int(time.Minute))), func() {
				j.in.size += r.IntN(1 << r.IntN(12))
				j.in.then = func() { j.ended = true; p.Exit(1) }
				j.in.work()
			})
		}
	case 3: // sleeps
	default: // reads nothing and writes late
		in = -1
		p.CloseFile(0)
		j.in.size = r.IntN(1 << r.IntN(18))
		p.Loop().After(time.Duration(r.IntN(int(time.Minute))), func() { j.in.then = exit; j.in.work() })
	}
	t, err := p.Attach(in, 1, func(weir.Transport) weir.Protocol { return j.in })
	if err != nil && in < 0 { // one socket is both
		exit()
		return
	}
	if err != nil || t == nil {
		j.in.bad("attaching: %v", err)
	}
}

// finish checks what must hold at rest.
func (a *programs) finish() {
	for _, j := range a.jobs {
		if j.out == nil {
			continue // the world ended before
		}
		if !j.settled {
			j.out.bad("its start has not settled")
		}
		if j.p != nil && (j.exits != 1 || j.p.Running()) {
			j.out.bad("its exit was told %d times (G10)", j.exits)
		}
		if j.out.made != j.out.lost || j.p == nil && j.out.made != 0 {
			j.out.bad("%d made, %d lost (G1)", j.out.made, j.out.lost)
		}
		if j.in != nil && j.clean() && j.out.reason == nil && j.out.got != j.in.wrote {
			j.out.bad("%d of %d bytes arrived (G2)", j.out.got, j.in.wrote)
		}
	}
	if u := a.host.Usage(); u.Programs != 0 {
		a.s.bad("%d programs are left (G6)", u.Programs)
	}
}
