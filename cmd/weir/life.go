package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/relay"
)

// The bounds on the end of a command: less than the 10 s after which a container
// runtime kills it, including everything that may come after the drain.
const (
	drainTime = 8 * time.Second        // of --drain, unless it is given
	cutTime   = 500 * time.Millisecond // for layers to let go of cut connections
	drainMost = 24 * time.Hour         // what --drain takes
	drainShow = 5                      // connections named in the list of what a drain waits for
)

// signalGap is the time within which further signals count as the same one:
// timeout(1) signals its child and then the child's group, and so do some
// shells.
const signalGap = 150 * time.Millisecond

// endings are the signals that ask for an end.
func endings() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} }

// hear calls end for each signal that asks for an end, and show for one that asks what
// is going on. A SIGHUP that was ignored when weir was started, as by nohup, stays
// ignored. A SIGINT does not: a shell script ignores it for everything that it starts
// with &, and a sender who then names the process means it.
func hear(l *weir.Loop, end, show func()) error {
	var last time.Time
	for _, sig := range endings() {
		if sig == syscall.SIGHUP && signal.Ignored(sig) {
			continue
		}
		_, err := l.Signal(sig, func(os.Signal) {
			now := l.Now()
			if !last.IsZero() && now.Sub(last) < signalGap {
				return
			}
			last = now
			end()
		})
		if err != nil {
			return err
		}
	}
	if shows == nil {
		return nil
	}
	_, err := l.Signal(shows, func(os.Signal) { show() })
	return err
}

// interrupted takes a signal that asks for an end. The first stops accepting, ends
// what is not connected yet and drains the rest; if nothing listened, what is open
// is the command's only job, and ends too. The second cuts what is open, as does
// the end of the time for draining, and quits when everything is gone, which is at
// once unless a layer holds on to a connection; the third does not wait for that.
func (a *app) interrupted() {
	switch {
	case a.over:
	case a.cutting:
		a.finish()
	case a.draining:
		a.cut("")
	default:
		a.drain()
	}
}

// drain is the first signal.
func (a *app) drain() {
	a.draining = true
	a.notify.stopping(a.drainFor)
	a.closeListeners()
	a.pick.stop()
	if a.fleet.group != nil && a.drainFor > 0 {
		// This does not wait for a loop that does not answer.
		a.loop.After(a.drainFor, a.drained)
	}
	gather(a.fleet, (*app).early, func(early []int) {
		if n := sum(early); n > 0 {
			// Something was asked for, and will not happen.
			a.code = exitFailure
			a.rep.line(yellow, "stopped", advice.Connections(n)+" not made yet", "given_up", n)
		}
		gather(a.fleet, (*app).giveUp, a.drainOn)
	})
}

// early begins to drain on one loop, and counts the sessions that something was asked of
// and that are not connected.
func (a *app) early() (n int) {
	a.draining = true
	for s := range a.open {
		if s.id == 0 && (s.began() || !a.fleet.listens()) {
			s.given = true
			n++
		}
	}
	return n
}

// giveUp ends the sessions of one loop that are not connected, or were not when they were
// counted, and shows the others.
func (a *app) giveUp() shownSessions {
	for s := range a.open {
		if !s.whole() {
			s.relay.Abort()
		}
	}
	shown := a.shown()
	if shown.made == 0 && shown.open == 0 {
		a.allGone()
	}
	return shown
}

// drained is called when the time for draining is up.
func (a *app) drained() {
	if !a.over && !a.cutting {
		a.cut("after " + span(a.drainFor))
	}
}

// drainOn goes on to drain, once nothing is left that is not connected.
func (a *app) drainOn(all []shownSessions) {
	if a.over || a.cutting {
		return // it was all, or another signal came meanwhile
	}
	open, n := 0, 0
	for _, s := range all {
		open += s.open
		n += s.made
	}
	switch {
	case open == 0 && len(a.children) == 0:
		a.finish()
		return
	case open == 0:
		if !a.p.many() {
			a.code = exitFailure // its program is not done
		}
		a.endChildren()
		return
	case n == 0: // they are about to be gone
		a.cutting = true
		a.loop.After(cutTime, a.finish)
		return
	case len(a.listeners) == 0, a.drainFor <= 0:
		a.cut("")
		return
	}
	a.endChildren()
	if a.typed {
		// What a person types after Ctrl-C is not meant for the peer.
		for s := range a.open {
			s.endInput()
		}
	}
	text := fmt.Sprintf("%s open, for at most %s; Ctrl-C again cuts", advice.Connections(n), span(a.drainFor))
	shown := oldest(all)
	a.rep.list(yellow, "draining", text, shown, "open", n, "seconds", a.drainFor.Seconds(), "waits_for", shown)
	if a.fleet.group == nil {
		a.loop.After(a.drainFor, a.drained)
	}
}

// whole reports whether both sides are there, and are to stay.
func (s *session) whole() bool { return s.id != 0 && !s.given }

// made counts the connections that are open and fully connected.
func (a *app) made() (n int) {
	for s := range a.open {
		if s.whole() {
			n++
		}
	}
	return n
}

// cut aborts what is open.
func (a *app) cut(why string) {
	a.cutting = true
	// A loop that does not answer is not waited for here, and what it has open is not known.
	late := a.loop.After(2*cutTime, a.giveUpLoop)
	gather(a.fleet, (*app).made, func(made []int) {
		late.Stop()
		n := sum(made)
		if n == 0 && len(a.children) == 0 {
			a.finish()
			return
		}
		a.endChildren()
		if n == 0 {
			a.loop.After(2*cutTime, a.finish)
			return
		}
		a.code = exitFailure
		text := advice.Connections(n) + " cut"
		if why != "" {
			text += " " + why
		}
		a.rep.line(yellow, "quitting", text, "cut", n)
		gather(a.fleet, (*app).abort, func([]struct{}) {})
		a.loop.After(cutTime, a.finish)
	})
}

// giveUpLoop ends the command although a loop does not say how it stands.
func (a *app) giveUpLoop() {
	if !a.over {
		a.code = exitFailure
		a.finish()
	}
}

// abort cuts what is open on one loop.
func (a *app) abort() (none struct{}) {
	a.cutting = true
	for s := range a.open {
		s.relay.Abort()
	}
	return none
}

// shownSessions are the connections of one loop.
type shownSessions struct {
	open   int            // how many there are
	made   int            // how many of them are connected on both sides
	listed int            // how many are to be shown
	first  []shownSession // the oldest of those, at most drainShow
}

// shownSession is a connection as a person is shown it.
type shownSession struct {
	id    int
	since time.Time
	text  string
}

// compare puts the oldest first, and those that are not connected yet last.
func (s shownSession) compare(o shownSession) int {
	switch {
	case (s.id == 0) != (o.id == 0):
		return o.id - s.id
	case s.id != o.id:
		return s.id - o.id
	}
	return s.since.Compare(o.since)
}

// shown names some of the connections of one loop that are open.
func (a *app) shown() shownSessions {
	shown := shownSessions{open: len(a.open), made: a.made()}
	all := make([]*session, 0, len(a.open))
	for s := range a.open {
		if s.whole() || !a.draining { // others were given up
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(x, y *session) int {
		return shownSession{id: x.id, since: x.since}.compare(shownSession{id: y.id, since: y.since})
	})
	shown.listed = len(all)
	for _, s := range all[:min(len(all), drainShow)] {
		shown.first = append(shown.first, shownSession{s.id, s.since, s.state()})
	}
	return shown
}

// state says how far a session has got.
func (s *session) state() string {
	names := s.names()
	age := span(s.app.loop.Now().Sub(s.since))
	if s.id == 0 {
		return fmt.Sprintf("%s -> %s, for %s, not connected yet", names[relay.A], names[relay.B], age)
	}
	bytes := s.relay.Bytes()
	return fmt.Sprintf("#%d %s -> %s, for %s, %s out, %s back", s.id, names[relay.A], names[relay.B], age, size(bytes[relay.A]), size(bytes[relay.B]))
}

// endInput ends what comes from standard input, if that is a side of s.
func (s *session) endInput() {
	for i, e := range s.ends {
		if e.Kind().Name == "stdio" {
			s.relay.EndInput(relay.Side(i))
		}
	}
}

// show reports what is going on, on SIGQUIT.
func (a *app) show() {
	word := "serving"
	switch {
	case a.cutting:
		word = "quitting"
	case a.draining:
		word = "draining"
	case len(a.listeners) == 0:
		word = "running"
	}
	var where []string
	for _, l := range a.listeners {
		for _, addr := range l.Addrs() {
			where = append(where, addr.String())
		}
	}
	gather(a.fleet, (*app).shown, func(all []shownSessions) {
		open, served := 0, int(a.fleet.served.Load())
		for _, s := range all {
			open += s.open
		}
		text := fmt.Sprintf("%s open, %d since the start %s ago", advice.Connections(open), served, span(a.loop.Now().Sub(a.began)))
		if n := len(a.fleet.apps); n > 1 {
			text += fmt.Sprintf(", on %d loops", n)
		}
		if len(where) > 0 && !a.draining {
			text += ", listening on " + strings.Join(where, ", ")
		}
		shown := oldest(all)
		a.rep.always(slog.LevelInfo, green, word, text, shown, "open", open, "served", served, "loops", len(a.fleet.apps), "listening", where, "connections", shown)
	})
}
