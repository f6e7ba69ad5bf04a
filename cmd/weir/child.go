package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/weir-io/weir/endpoint"
	proc "github.com/weir-io/weir/process"
	"github.com/weir-io/weir/relay"
)

// exitSignal is what is added to the number of the signal that ended a program, as
// shells do.
const exitSignal = 128

// started is called when a program that is a side of s runs.
func (s *session) started(c *proc.Process) {
	s.child = c
	if s.app.children == nil {
		s.app.children = map[*session]bool{}
	}
	s.app.children[s] = true
	c.OnExit(s.exited)
	if s.app.env.Raw {
		s.resize() // our window may have changed since its terminal was made
	}
	if s.over {
		s.endChild()
	}
}

// resize gives the program's terminal the size of ours, unless it has a size of its own.
func (s *session) resize() {
	if s.child != nil && !s.ends[s.childSide()].Base.Has("size") {
		_ = s.child.Resize(s.app.env.Window) // it may have ended, or have no terminal
	}
}

// exited is called when the program has exited; its output may go on.
func (s *session) exited(e proc.Exit) {
	a := s.app
	delete(a.children, s)
	s.exit = &e
	if !e.Success() && !s.cut { // else we ended it
		a.rep.line(yellow, "exit", fmt.Sprintf("%s: %s", s.ends[s.childSide()].Label(), e), "id", s.id, "program", s.child.Path(), "code", e.Code, "signal", int(e.Signal))
	}
	if s.grace != nil {
		s.grace.Stop()
	}
	if s.over {
		s.takeCode()
		a.allGone()
	}
}

// childSide is the side that is a program.
func (s *session) childSide() relay.Side {
	if s.ends[relay.A].TakesCommand() {
		return relay.A
	}
	return relay.B
}

// takeCode makes the program's exit code ours where it was the one job.
func (s *session) takeCode() {
	if s.exit == nil || s.app.p.many() || s.app.draining || !s.made || s.cut {
		return
	}
	switch {
	case s.exit.Err != nil:
		s.app.code = exitFailure
	case s.exit.Signal != 0:
		s.app.code = exitSignal + int(s.exit.Signal)
	default:
		s.app.code = s.exit.Code
	}
}

// endChild sees to it that a program ends whose connection is over. One that was the
// one job, and ended its output by itself, may take its time.
func (s *session) endChild() {
	if s.child == nil || s.exit != nil {
		return
	}
	a := s.app
	switch grace := s.ends[s.childSide()].Grace(); {
	case s.cut || a.draining || a.cutting:
		s.child.Stop(cutTime)
	case a.p.many():
		s.grace = a.loop.After(grace, func() { s.child.Stop(grace) })
	}
}

// endChildren ends the programs whose connections are over, which may have had a grace to
// end by themselves.
func (a *app) endChildren() {
	for s := range a.children {
		if s.over {
			s.child.Stop(cutTime)
		}
	}
}

// childEnv is what the program of a session gets in its environment.
func (s *session) childEnv() (env []string) {
	add := func(key, value string) {
		if value != "" {
			env = append(env, key+"="+endpoint.Printable(value))
		}
	}
	asked := s.wants()
	if asked.Source != nil {
		add("WEIR_PEER", asked.Source.String())
	}
	if asked.Destination != nil {
		add("WEIR_LOCAL", asked.Destination.String())
	}
	if s.who != nil {
		add("WEIR_USER", s.who.user)
		add("WEIR_CERTIFICATE", s.who.certificate)
		add("WEIR_TLS_VERSION", s.who.tlsVersion)
		add("WEIR_TLS_SERVER_NAME", s.who.serverName)
	}
	return env
}

// environ is the environment of programs: ours without what a client's is to say, and
// without what a service manager told weir alone.
func (c *command) environ() []string {
	if c.lookupAll == nil {
		return nil
	}
	var env []string
	for _, kv := range c.lookupAll() {
		if !ownVariable(kv) {
			env = append(env, kv)
		}
	}
	return env
}

// raw sets the terminal that standard input is raw where a terminal is at the other
// side, and returns what sets it back; nil: there is nothing to do.
func (a *app) raw() (restore func()) {
	ends := [2]*endpoint.Endpoint{a.p.a, a.p.bs[0]}
	wanted := false
	for i, e := range ends {
		if e.Kind().Name == "stdio" {
			wanted = e.Base.Has("raw") || ends[1-i].Kind().Name == "pty" && ends[1-i].TakesCommand()
		}
	}
	if !wanted || !proc.IsTerminal(a.env.Stdin) {
		return nil
	}
	fd, err := dup(a.env.Stdin)
	if err != nil {
		return nil
	}
	back, err := proc.Raw(fd)
	if err != nil {
		closeDup(fd)
		return nil
	}
	a.env.Raw = true
	a.c.raw.Store(true)
	leave := func() {
		if a.c.raw.Swap(false) {
			_ = back() // a terminal that is gone
		}
	}
	size := func() proc.Size {
		w, _ := proc.WindowSize(fd) // zero: it stays unset
		return w
	}
	a.env.Window = size()
	resized := func() {
		a.env.Window = size()
		for s := range a.open {
			s.resize()
		}
	}
	on := func(sig os.Signal, f func()) {
		if sig == nil {
			return
		}
		if _, err := a.loop.Signal(sig, func(os.Signal) { f() }); err != nil {
			a.trouble(err)
		}
	}
	on(windowChange, resized)
	// Whoever stops weir gets the terminal as it was. It is set again when weir goes on, and
	// from then on the way back is to what it was until then: a shell may have changed it.
	// What was ignored when weir was started stays ignored.
	if !stopIgnored() {
		on(stopSignal, func() {
			leave()
			stopSelf()
		})
	}
	on(continueSignal, func() {
		if again, err := proc.Raw(fd); err == nil && !a.c.raw.Swap(true) {
			back = again
		}
		resized()
	})
	return func() {
		leave()
		closeDup(fd)
	}
}

// escapeKey is the key that ends the connection of a terminal that is raw, or "".
func (a *app) escapeKey() string {
	for _, e := range []*endpoint.Endpoint{a.p.a, a.p.bs[0]} {
		if key := e.Base.Value("escape"); a.env.Raw && e.Kind().Name == "stdio" && key != "none" {
			if key == "" {
				key = "^]"
			}
			return "Ctrl-" + key[1:]
		}
	}
	return ""
}

// linesRaw writes lines for a terminal that is raw, where a line feed alone does not
// begin a line.
type linesRaw struct{ c *command }

func (w linesRaw) Write(p []byte) (int, error) {
	if !w.c.raw.Load() {
		return w.c.plainErr.Write(p)
	}
	out := make([]byte, 0, len(p)+8)
	for _, b := range p {
		if b == '\n' {
			out = append(out, '\r')
		}
		out = append(out, b)
	}
	if _, err := w.c.plainErr.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ownVariable reports whether a variable is not for the programs that weir starts.
func ownVariable(kv string) bool {
	key, _, _ := strings.Cut(kv, "=")
	switch key {
	case "WEIR_PEER", "WEIR_LOCAL", "WEIR_USER", "WEIR_CERTIFICATE", "WEIR_TLS_VERSION", "WEIR_TLS_SERVER_NAME",
		"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID":
		return true
	}
	return false
}
