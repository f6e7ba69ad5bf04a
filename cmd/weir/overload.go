package main

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/cmd/weir/internal/machine"
	"github.com/weir-io/weir/endpoint"
)

// The bounds of --memory, and what follows from it.
const (
	memoryLeast   = 4 << 20
	memoryMost    = 1 << 40
	memoryUnknown = 1 << 30  // where the system does not say how much there is: a quarter of 4 GiB
	memoryPart    = 4        // the default is this part of what there is
	memoryBase    = 16 << 20 // what the process takes by itself
	memoryLoop    = 4 << 20  // and each of its loops, with the buffers and rings that it reads by
	memoryPerConn = 32 << 10
	connsLeast    = 64

	// stallUsual is as nginx has it for a side on which nothing moves.
	stallUsual = 10 * time.Minute

	// pressedEvery is how often it is reported that memory is short.
	pressedEvery = 10 * time.Second
)

// overload is what all connections of an app may have together. It belongs to the app's
// loop, except told.
type overload struct {
	app    *app
	budget *weir.Budget
	memory int64
	of     string // what memory is a part of; "": it was given
	last   weir.BudgetStats
	timer  *weir.Timer // runs for pressedEvery after each report
}

// newOverload makes the budget of an app that is to have so many loops: half of the memory
// beyond memoryBase and memoryLoop for each, or a quarter of a very small one, for what waits;
// and for each memoryPerConn of half of it a connection.
func newOverload(a *app, loops int) *overload {
	o := &overload{app: a, memory: a.f.memory}
	if o.memory == 0 {
		m := machine.Available()
		o.memory, o.of = m.Bytes/memoryPart, m.Of
		if m.Bytes == 0 {
			o.memory, o.of = memoryUnknown, "an unknown machine"
		}
		o.memory = max(o.memory, memoryLeast)
	}
	conns := a.f.conns
	if conns == 0 {
		conns = int(max(o.memory/2/memoryPerConn, connsLeast))
	}
	stall := a.f.stall
	if !a.f.stallGiven && !a.p.many() {
		stall = 0 // what it connects was asked for by name, and may be a person's pager
	}
	base := memoryBase + int64(loops)*memoryLoop
	o.budget = weir.NewBudget(weir.BudgetLimits{Buffered: int(max((o.memory-base)/2, o.memory/4)), Connections: conns, Stall: stall, Changed: o.told})
	if v, set := a.c.lookupEnv("GOMEMLIMIT"); !set || v == "" {
		debug.SetMemoryLimit(max(o.memory-base, o.memory/2, memoryBase)) // the collector works harder as the process comes near it
	}
	return o
}

// announce reports the bounds of a server at its start, and returns them as fields.
func (o *overload) announce() []any {
	text := "uses at most " + size(o.memory) + " of memory"
	if o.of != "" {
		text += ", a quarter of what " + o.of + " has"
	}
	most := o.budget.Limits().Connections
	room, files := endpoint.Room(len(o.app.fleet.apps))
	if o.app.f.conns > room && room > 0 {
		o.app.rep.fail(slog.LevelWarn, tooFewFiles("--connections", o.app.f.conns, room, files))
	}
	if most > 0 {
		text += fmt.Sprintf(", %d connections", most)
	}
	if room > 0 {
		text += fmt.Sprintf(", %d descriptors", files)
	}
	if o.app.rep.json == nil {
		o.app.rep.line(dim, "note", text)
	}
	return []any{"memory", o.memory, "connections", most, "files", files}
}

// tooFewFiles says that the limit of open files has no room for the connections that were
// asked for.
func tooFewFiles(what string, asked, room int, files uint64) *advice.Failure {
	return &advice.Failure{
		Problem: fmt.Sprintf("%s asks for %d connections, but the limit of open files, %d, has room for %d", what, asked, files, room),
		Next:    fmt.Sprintf("Further ones wait in the system's queue. To change the limit: ulimit -n %d (needs root above the hard limit, ulimit -Hn).", 2*asked+int(files)-2*room),
		Facts:   []any{"asked", asked, "room", room, "files", files},
	}
}

// told is called on the goroutine of any loop when the stage changes.
func (o *overload) told(weir.BudgetStats) {
	post(o.app.loop, o.look)
}

// look reports how it stands, once in pressedEvery while there is something to report.
func (o *overload) look() {
	if o.timer == nil {
		o.timer = o.app.loop.NewTimer(o.again)
	}
	if !o.timer.Running() && !o.app.over {
		o.again()
	}
}

func (o *overload) again() {
	s := o.budget.Stats()
	if s.Stage == weir.BudgetFree && o.last.Stage == weir.BudgetFree && s.Paused == o.last.Paused && s.Reset == o.last.Reset {
		return
	}
	o.app.rep.fail(slog.LevelWarn, advice.Pressed(s, o.last, o.budget.Limits().Buffered))
	o.last = s
	o.timer.Set(pressedEvery)
}

// stop reports no more.
func (o *overload) stop() {
	if o.timer != nil {
		o.timer.Stop()
	}
}
