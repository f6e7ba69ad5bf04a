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
	early := 0
	for s := range a.open {
		if s.id == 0 && (s.began() || len(a.listeners) == 0) {
			early++
		}
	}
	if early > 0 {
		// Something was asked for, and will not happen.
		a.code = exitFailure
		a.rep.line(yellow, "stopped", advice.Connections(early)+" not made yet", "given_up", early)
	}
	for s := range a.open {
		if s.id == 0 {
			s.relay.Abort()
		}
	}
	n := a.made()
	switch {
	case len(a.open) == 0 && len(a.children) == 0:
		a.finish()
		return
	case len(a.open) == 0:
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
	shown := a.shown()
	a.rep.list(yellow, "draining", text, shown, "open", n, "seconds", a.drainFor.Seconds(), "waits_for", shown)
	a.loop.After(a.drainFor, func() {
		if !a.over && !a.cutting {
			a.cut("after " + span(a.drainFor))
		}
	})
}

// made counts the connections that are open and fully connected.
func (a *app) made() (n int) {
	for s := range a.open {
		if s.id != 0 {
			n++
		}
	}
	return n
}

// cut aborts what is open.
func (a *app) cut(why string) {
	n := a.made()
	if n == 0 && len(a.children) == 0 {
		a.finish()
		return
	}
	a.endChildren()
	if n == 0 {
		a.cutting = true
		a.loop.After(2*cutTime, a.finish)
		return
	}
	a.cutting = true
	a.code = exitFailure
	text := advice.Connections(n) + " cut"
	if why != "" {
		text += " " + why
	}
	a.rep.line(yellow, "quitting", text, "cut", n)
	for s := range a.open {
		s.relay.Abort()
	}
	a.loop.After(cutTime, a.finish)
}

// shown names some of the connections that are open, oldest first.
func (a *app) shown() []string {
	all := make([]*session, 0, len(a.open))
	for s := range a.open {
		if s.id != 0 || !a.draining { // others were given up
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(x, y *session) int {
		switch {
		case (x.id == 0) != (y.id == 0):
			return y.id - x.id // those that are not connected yet come last
		case x.id != y.id:
			return x.id - y.id
		}
		return x.since.Compare(y.since)
	})
	lines := make([]string, 0, drainShow+1)
	for i, s := range all {
		if i == drainShow {
			lines = append(lines, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		lines = append(lines, s.state())
	}
	return lines
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
	text := fmt.Sprintf("%s open, %d since the start %s ago", advice.Connections(len(a.open)), a.served, span(a.loop.Now().Sub(a.began)))
	if len(where) > 0 && !a.draining {
		text += ", listening on " + strings.Join(where, ", ")
	}
	shown := a.shown()
	a.rep.always(slog.LevelInfo, green, word, text, shown, "open", len(a.open), "served", a.served, "listening", where, "connections", shown)
}
