package weir

import (
	"errors"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// shortage is a time without descriptors. The loop's listeners do not accept: new
// connections wait in the system's queue; they would only take the descriptors that
// open connections need to go on. The shortage is over when something in the loop has
// been closed. The loop also checks now and then, since others give descriptors back as
// well.
type shortage struct {
	on       bool
	queued   bool         // relieved is in the loop's queue
	connects []*Connector // that wait for a descriptor, the oldest first
	timer    *Timer
}

// outOfDescriptors reports whether a call failed because the process or the system has
// run out of descriptors.
func outOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// waits reports whether something waits for the end of the shortage, and nothing has
// been closed meanwhile.
func (s *shortage) waits() bool { return s.on && !s.queued }

// shortOf begins a shortage.
func (l *Loop) shortOf() {
	if l.state.Load() >= loopClosing {
		return
	}
	s := &l.short
	if s.timer == nil {
		s.timer = l.NewTimer(l.relieved)
	}
	if !s.timer.Running() {
		s.timer.Set(acceptRetry)
	}
	if s.on {
		return
	}
	s.on = true
	for ln := range l.listeners.All() {
		l.be.Cancel(&ln.op)
	}
}

// relieve checks in the next turn whether the shortage is over: something has been closed.
func (l *Loop) relieve() {
	l.short.queued = true
	l.internalCall(l.relieved)
}

func (l *Loop) relieved() {
	s := &l.short
	s.queued = false
	for len(s.connects) > 0 {
		c := s.connects[0]
		if !c.finished {
			c.waits = false
			c.startNext()
			if c.waits {
				break // there is no descriptor yet
			}
		}
		c.listed = false
		s.connects[0] = nil
		s.connects = s.connects[1:]
	}
	if len(s.connects) > 0 {
		s.timer.Set(acceptRetry)
		return
	}
	s.connects, s.on = nil, false
	s.timer.Stop()
	l.listeners.Each((*Listener).accept)
}

// waitForDescriptor reports whether the connect may wait for a descriptor after an
// attempt at addr failed with err; the connect then begins again with addr.
func (c *Connector) waitForDescriptor(addr backend.Addr, err error) bool {
	if !outOfDescriptors(err) {
		return false
	}
	l := c.loop
	now := l.Now()
	if c.short.IsZero() {
		c.short = now.Add(c.config.descriptor)
	}
	l.shortOf()
	if !now.Before(c.short) || l.state.Load() >= loopClosing {
		return false
	}
	c.candidates = append([]backend.Addr{addr}, c.candidates...)
	c.waits = true
	c.race.Stop()
	if !c.listed {
		c.listed = true
		l.short.connects = append(l.short.connects, c)
	}
	return true
}
