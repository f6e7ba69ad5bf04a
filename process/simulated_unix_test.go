//go:build unix

package process

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/weirtest"
)

// TestSimulatedStops: a stopped program gets its signals when it goes on, one that catches
// SIGTSTP is not stopped by it, nothing catches SIGSTOP, and Stop wakes a stopped program.
func TestSimulatedStops(t *testing.T) {
	r := newSimRig(t)
	var heard []syscall.Signal
	turns := 0
	r.host.Program("editor", func(p *weirtest.SimProgram) {
		for _, sig := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGSTOP, syscall.SIGCONT, syscall.SIGUSR1} {
			p.OnSignal(sig, func() { heard = append(heard, sig) })
		}
		p.OnSignal(syscall.SIGTERM, func() { p.Exit(5) })
		var turn func()
		turn = func() { turns++; p.Loop().After(time.Second, turn) }
		turn()
	})
	p := r.start(&Command{Path: "editor"})
	send := func(sigs ...syscall.Signal) {
		for _, sig := range sigs {
			if err := p.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		r.sim.RunFor(time.Minute)
	}
	check := func(what string, ran bool, want ...syscall.Signal) {
		t.Helper()
		if !slices.Equal(heard, want) || turns > 1 != ran {
			t.Errorf("%s: heard %v, want %v; it had %d turns", what, heard, want, turns)
		}
		heard, turns = nil, 0
	}
	r.sim.Until("main", func() bool { return turns == 1 })
	send(syscall.SIGTSTP)
	check("SIGTSTP", true, syscall.SIGTSTP)
	send(syscall.SIGSTOP, syscall.SIGUSR1, syscall.SIGTSTP, syscall.SIGUSR1)
	check("stopped", false)
	send(syscall.SIGCONT)
	check("it goes on", true, syscall.SIGUSR1, syscall.SIGCONT)
	send(syscall.SIGSTOP)
	check("stopped again", false)
	p.Stop(time.Hour)
	if e := r.exit(p); e.Code != 5 {
		t.Error(e)
	}
	r.nothing("at the end")

	r.host.Program("sleep", func(*weirtest.SimProgram) { turns = -1 })
	p = r.start(&Command{Path: "sleep"})
	r.sim.Until("main", func() bool { return turns == -1 })
	send(syscall.SIGTSTP, syscall.SIGTERM)
	if !p.Running() {
		t.Error("a stopped program was ended by SIGTERM")
	}
	send(syscall.SIGCONT)
	if e := r.exit(p); e.Signal != syscall.SIGTERM {
		t.Error(e)
	}
	r.nothing("at the end")
}
