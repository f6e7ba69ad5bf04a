package sim

import (
	"slices"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/machine"
)

// Main makes a program run. It is called in the turn of whoever starts it, so it only
// makes a loop on the host (see Program.Drive) and has it begin later.
type Main func(p *Program)

// Program is a simulated process of a host: a loop of its own, and descriptors that it
// was given.
//
//	Start ──▶ runs ──▶ ending ──▶ over ── ExitDelay ──▶ told ──▶ reaped
//	            │  Exit: what it wrote is taken first     ▲
//	            └─ Daemon: the rest of it runs on, the process has exited
//
// Its methods belong to the world's goroutine.
type Program struct {
	Spec *machine.Spec
	// OnSignal says whether the program catches or ignores a signal; nil: it does not.
	OnSignal func(syscall.Signal) bool
	// OnEnd is called when nothing of it runs any more, outside of any turn of its loop. Its
	// loop has to be closed then.
	OnEnd func()

	host   *Host
	serial uint64 // unlike pid, it is never given again
	pid    int
	be     *Backend
	files  map[int]*socket // by its own numbers; nil: the null device
	exited func()

	stopped bool             // by a signal, until SIGCONT
	pending []syscall.Signal // came while it was stopped, each once

	gone   bool // the process has exited; with a daemon, the rest of it runs on
	over   bool // nothing runs
	ending bool // in World.ending
	waits  bool // to exit when its files are closed
	told   bool // it can be reaped
	reaped bool
	left   bool // the host reaps it
	code   int
	signal syscall.Signal
}

var (
	_ machine.Host    = (*Host)(nil)
	_ machine.Program = (*Program)(nil)
)

// firstPID is the lowest number of a program. Numbers are given again as soon as they are
// free, which real systems take longer for.
const firstPID = 100

// Register makes main the program of a path, which a start finds by exactly that text.
func (h *Host) Register(path string, main Main) {
	if h.mains == nil {
		h.mains = map[string]Main{}
	}
	h.mains[path] = main
}

// Machine is the host as package process sees it.
func (b *Backend) Machine() machine.Host { return b.host }

// StartDelay draws how long a start takes.
func (h *Host) StartDelay() int64 {
	return int64(h.w.random[forPrograms].upTo(h.w.faults.StartDelay))
}

// Start starts the program of a path.
func (h *Host) Start(spec *machine.Spec, exited func()) (machine.Program, error) {
	w := h.w
	err := w.intercept(StartCall, h, nil)
	main := h.mains[spec.Path]
	if errno := w.startError(); errno != 0 && err == nil {
		err = errno
	}
	if err == nil && main == nil {
		err = syscall.ENOENT
	}
	files := map[int]*socket{}
	for n, fd := range spec.Files { // any order: each is looked up
		if files[n] = h.bare(fd); files[n] == nil && fd >= 0 && err == nil {
			err = syscall.EBADF
		}
	}
	if h.down {
		err = ErrCrashed
	}
	if err != nil {
		w.record(StartCall, h, 0, -1, errorNumber(err))
		return nil, err
	}
	w.started++
	p := &Program{Spec: spec, host: h, serial: w.started, pid: h.freePID(), files: files, exited: exited}
	h.programs = append(h.programs, p)
	w.record(StartCall, h, 0, int64(p.pid), int64(len(files)))
	r := &w.random[forPrograms]
	if r.chance(w.faults.Killed) {
		w.pushProgram(r.upTo(time.Second), p, programKilled)
	}
	main(p)
	return p, nil
}

// freePID is the lowest free number.
func (h *Host) freePID() int {
	pid := firstPID
	for slices.ContainsFunc(h.programs, func(p *Program) bool { return p.pid == pid }) {
		pid++
	}
	return pid
}

func (w *World) startError() syscall.Errno {
	r := &w.random[forPrograms]
	if !r.chance(w.faults.StartError) {
		return 0
	}
	return [...]syscall.Errno{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.EACCES}[r.below(4)]
}

// What happens to a program at a time.
const (
	programTold = iota
	programKilled
)

func (w *World) pushProgram(after time.Duration, p *Program, what uint8) {
	w.queue.push(w.after(after), event{kind: evProgram, pos: p.serial, edge: uint64(p.host.index), place: what})
}

// programEvent is evProgram.
func (w *World) programEvent(ev *event) {
	all := w.hosts[ev.edge].programs
	i := slices.IndexFunc(all, func(p *Program) bool { return p.serial == ev.pos })
	if i < 0 {
		return // it was reaped, or went with its host
	}
	p := all[i]
	switch ev.place {
	case programKilled:
		if !p.gone && !w.healed {
			p.Signal(killSignal)
		}
	default:
		p.told = true
		w.record(ExitOf, p.host, 0, int64(p.pid), int64(p.code))
		if p.left {
			p.Reap()
		} else {
			p.exited()
		}
	}
}

// Drive makes the loop on b the program's: it does not get a turn while the program is
// stopped.
func (p *Program) Drive(b *Backend) { p.be = b }

// PID is its number.
func (p *Program) PID() int { return p.pid }

// File is the host's descriptor of one of the program's; -1: the null device. False: it
// has none of that number, or has closed it or given it to a transport.
func (p *Program) File(n int) (int, bool) {
	s, has := p.files[n]
	switch {
	case !has:
		return -1, false
	case s == nil:
		return -1, true
	}
	return int(s.h), s.h != backend.None && s.be == nil
}

// Exit ends it with a code once everything that was made of its files is closed; they
// must be being closed. After Daemon it ends what runs on.
func (p *Program) Exit(code int) {
	if p.over || p.waits {
		return
	}
	if !p.gone {
		p.code = code
	}
	p.waits = true
	p.host.exiting = append(p.host.exiting, p)
	p.host.checkExits()
}

// Daemon ends the process with a code, while what it runs goes on, as a child of no one.
func (p *Program) Daemon(code int) {
	if p.gone || p.waits {
		return
	}
	p.code = code
	p.exit()
}

// checkExits ends programs that wait for their files to be closed.
func (h *Host) checkExits() {
	h.exiting = slices.DeleteFunc(h.exiting, func(p *Program) bool {
		if p.over || p.ending {
			return true
		}
		for _, s := range p.files { // any order: all have to be closed
			if s != nil && s.be != nil {
				return false
			}
		}
		p.end()
		return true
	})
}

// Signal sends a signal to the process.
func (p *Program) Signal(sig syscall.Signal) {
	p.check("Signal")
	p.host.w.record(SignalCall, p.host, 0, int64(p.pid), int64(sig))
	if !p.gone {
		p.deliver(sig)
	}
}

// SignalGroup sends a signal to its group; a daemon is in it.
func (p *Program) SignalGroup(sig syscall.Signal) {
	if !p.Spec.Group {
		p.Signal(sig)
		return
	}
	p.check("SignalGroup")
	p.host.w.record(SignalCall, p.host, 0, int64(p.pid), int64(sig))
	p.deliver(sig)
}

// check notes a use of a number that may be another program's.
func (p *Program) check(call string) {
	if p.reaped {
		p.host.w.violations = append(p.host.w.violations, p.host.name+": "+call+" of a program that was reaped: its number may be another's")
	}
}

// deliver does what a signal does. One that stops a program has no effect on one that is
// stopped already: SIGCONT would discard it.
func (p *Program) deliver(sig syscall.Signal) {
	switch {
	case p.over || p.ending:
	case sig == killSignal:
		p.kill(sig)
	case continues(sig):
		p.setStopped(false)
		pending := p.pending
		p.pending = nil
		for _, before := range pending {
			p.act(before)
		}
		p.act(sig)
	case p.stopped:
		if !stops(sig) && !slices.Contains(p.pending, sig) {
			p.pending = append(p.pending, sig)
		}
	case alwaysStops(sig):
		p.setStopped(true)
	default:
		p.act(sig)
	}
}

// act does what a signal does to a program that is not stopped and may catch it.
func (p *Program) act(sig syscall.Signal) {
	switch {
	case p.ending || p.OnSignal != nil && p.OnSignal(sig):
	case stops(sig):
		p.setStopped(true)
	case !ignored(sig):
		p.kill(sig)
	}
}

func (p *Program) setStopped(stopped bool) {
	p.stopped = stopped
	if p.be != nil {
		p.be.stopped = stopped
	}
}

// kill ends it by a signal.
func (p *Program) kill(sig syscall.Signal) {
	if !p.gone {
		p.code, p.signal = -1, sig
	}
	p.end()
}

// end has the world end it, outside of any turn of its loop.
func (p *Program) end() {
	p.ending = true
	p.host.w.ending = append(p.host.w.ending, p)
}

// EndLeft ends the programs that were left to run, as the end of the world does.
func (h *Host) EndLeft() {
	for _, p := range h.programs {
		if p.left && !p.over && !p.ending {
			p.end()
		}
	}
}

// EndPrograms ends those that are to end and are not in a turn; it reports whether there
// was one.
func (w *World) EndPrograms() bool {
	n := len(w.ending)
	var later []*Program
	for len(w.ending) > 0 {
		p := w.ending[0]
		w.ending = w.ending[1:]
		if p.be != nil && p.be.busy {
			later = append(later, p)
			continue
		}
		p.finish()
	}
	w.ending = later
	return len(later) < n
}

// finish closes what it has.
func (p *Program) finish() {
	if p.over {
		return
	}
	p.over, p.ending = true, false
	if p.OnEnd != nil {
		p.OnEnd()
	}
	numbers := make([]int, 0, len(p.files))
	for n := range p.files { // any order: they are sorted
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		if s := p.files[n]; s != nil && s.h != backend.None {
			p.host.CloseDescriptor(int(s.h))
		}
	}
	if !p.gone {
		p.exit()
	}
}

// exit makes it a zombie; the news takes a while.
func (p *Program) exit() {
	w := p.host.w
	p.gone = true
	w.pushProgram(w.random[forPrograms].upTo(w.faults.ExitDelay), p, programTold)
}

// Exited reports whether it can be reaped.
func (p *Program) Exited() bool { return p.told && !p.reaped }

// Reap frees its number.
func (p *Program) Reap() (code int, sig syscall.Signal, ok bool) {
	if !p.Exited() {
		return 0, 0, false
	}
	p.reaped = true
	p.host.programs = slices.DeleteFunc(p.host.programs, func(q *Program) bool { return q == p })
	return p.code, p.signal, true
}

// Leave has the host reap it.
func (p *Program) Leave() {
	p.left = true
	if p.told {
		p.Reap()
	}
}

// crashPrograms ends all programs without a word. From then on a signal to one of them has
// no effect.
func (h *Host) crashPrograms() {
	for _, p := range h.programs {
		p.gone, p.over = true, true
	}
	h.programs, h.exiting = nil, nil
	h.w.ending = slices.DeleteFunc(h.w.ending, func(p *Program) bool { return p.host == h })
}

// living counts the programs that run, and those that have ended and that someone has yet
// to reap.
func (h *Host) living() (n int) {
	for _, p := range h.programs {
		if !p.left || !p.over {
			n++
		}
	}
	return n
}
