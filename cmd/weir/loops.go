package main

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/relay"
)

// loopsMost is what --loops takes, and the most loops that it stands for by default.
const loopsMost = 256

// everyCore is --loops unless it is given: as many as there are processors for the process.
// On Linux GOMAXPROCS follows the CPU quota of the cgroup, v1 or v2, and the affinity mask.
const everyCore = -1

// loopsOf is on how many loops a plan runs: the one place that decides it. A flag that asks
// for more than one where that cannot be is an error.
func (p *plan) loopsOf(f flags) (int, error) {
	n := max(f.loops, 1)
	if f.loops == everyCore {
		n = min(runtime.GOMAXPROCS(0), loopsMost)
	}
	why := p.oneLoop()
	switch {
	case why == "" || n == 1:
		return n, nil
	case f.loops == everyCore:
		return 1, nil
	}
	return 0, &usageError{
		problem: fmt.Sprintf("--loops %d cannot be: %s", n, why),
		hint:    "leave --loops out, and weir takes as many as it can use",
		topic:   "loops",
	}
}

// oneLoop says why a plan runs on one loop only; "" if it can have several.
func (p *plan) oneLoop() string {
	all := append([]*endpoint.Endpoint{p.a}, p.bs...)
	switch {
	case p.answersNames(), p.datagrams():
		return "datagrams and names are served by one loop"
	case !p.many():
		return "there is only one connection"
	}
	for _, e := range all {
		if !e.OnLoops() {
			return e.Kind().Name + " is served by one loop"
		}
		for _, l := range e.Layers {
			switch {
			case l.Has("seed"):
				return "seed= repeats a run, in which connections must come in one order"
			case l.Has("bind"):
				return "clients of a proxy with bind= may be connected with each other, on one loop"
			}
		}
	}
	return ""
}

// fleet is what the apps of a command share, of which there is one for each loop. The first
// app leads: its loop has the listeners, the signals and the checks, and it says what is to
// be said about all of them. What is counted here is counted by every loop, without a lock.
type fleet struct {
	apps   []*app
	of     map[*weir.Loop]*app
	group  *weir.Group // nil: there is one loop
	addrs  []net.Addr  // where the listeners listen; it does not change once the loops run
	a      *target     // where A connects
	bs     []*target
	served atomic.Int64
	total  [2]atomic.Int64
}

// open makes the loops.
func (f *fleet) open(n int, opts ...weir.LoopOption) ([]*weir.Loop, error) {
	if n == 1 {
		l, err := weir.NewLoop(opts...)
		return []*weir.Loop{l}, err
	}
	g, err := weir.NewGroup(n, opts...)
	if err != nil {
		return nil, err
	}
	f.group = g
	return g.Loops(), nil
}

// lead is the app that speaks for all.
func (f *fleet) lead() *app { return f.apps[0] }

// aim makes the targets of a plan.
func (f *fleet) aim(p *plan) {
	f.a = &target{app: f.lead(), endpoint: p.a}
	f.bs = nil
	for _, b := range p.bs {
		f.bs = append(f.bs, &target{app: f.lead(), endpoint: b})
	}
}

// listens reports whether the command has listeners.
func (f *fleet) listens() bool { return len(f.lead().listeners) > 0 }

// on is the app of a transport's loop.
func (f *fleet) on(t weir.Transport) *app {
	if f.group == nil {
		return f.lead()
	}
	return f.of[t.Loop()]
}

func (f *fleet) run() error {
	if f.group == nil {
		return f.lead().loop.Run()
	}
	return f.group.Run()
}

func (f *fleet) stop() {
	if f.group == nil {
		f.lead().loop.Stop()
		return
	}
	f.group.Stop()
}

func (f *fleet) close() error {
	if f.group == nil {
		return f.lead().loop.Close()
	}
	return f.group.Close()
}

// count adds what a session has moved.
func (f *fleet) count(r relay.Result) {
	for i, n := range r.Bytes {
		f.total[i].Add(n)
	}
}

func (f *fleet) bytes(s relay.Side) int64 { return f.total[s].Load() }

// gather calls do on the goroutine of each loop, and then done on the lead's with what they
// returned: at once if there is one loop. done is not called if a loop does not turn any
// more, so nothing that must happen may wait for it.
func gather[T any](f *fleet, do func(*app) T, done func([]T)) {
	lead := f.lead()
	all := make([]T, len(f.apps))
	left := len(f.apps)
	got := func(i int, v T) {
		all[i] = v
		if left--; left == 0 {
			done(all)
		}
	}
	for i, a := range f.apps[1:] {
		post(a.loop, func() {
			v := do(a)
			post(lead.loop, func() { got(i+1, v) })
		})
	}
	got(0, do(lead))
}

// post calls fn on the goroutine of a loop, unless that closes before: then the command ends,
// and no one is to hear of what is left out.
func post(l *weir.Loop, fn func()) {
	_, _ = l.PostOr(fn, func() {}) // closed already: as above
}

// empty is called on the loop of an app when it drains and has nothing left. The last one
// ends the command.
func (f *fleet) empty(a *app) {
	lead := f.lead()
	if a != lead {
		post(lead.loop, func() { f.isEmpty(a) })
		return
	}
	f.isEmpty(a)
}

func (f *fleet) isEmpty(a *app) {
	a.empty = true
	for _, a := range f.apps {
		if !a.empty {
			return
		}
	}
	f.lead().finish()
}

// parseLoops reads the value of --loops.
func parseLoops(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > loopsMost {
		return 0, fmt.Errorf("bad number %q: a whole number from 1 to %d", v, loopsMost)
	}
	return n, nil
}

// sum adds up.
func sum(all []int) (n int) {
	for _, x := range all {
		n += x
	}
	return n
}

// oldest merges what apps have shown, each with its oldest first, into one such list of at
// most drainShow entries, with a last line for those that are left out.
func oldest(all []shownSessions) []string {
	var first []shownSession
	listed := 0
	for _, s := range all {
		first = append(first, s.first...)
		listed += s.listed
	}
	slices.SortStableFunc(first, shownSession.compare)
	if len(first) > drainShow {
		first = first[:drainShow]
	}
	lines := make([]string, 0, len(first)+1)
	for _, s := range first {
		lines = append(lines, s.text)
	}
	if listed > len(first) {
		lines = append(lines, fmt.Sprintf("and %d more", listed-len(first)))
	}
	return lines
}
