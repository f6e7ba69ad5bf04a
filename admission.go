package weir

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/files"
)

// Admission decides which connections a listener takes: see WithAdmission. A connection
// that it refuses is closed before anything is made for it, including the factory's
// protocol and its layers. One Admission may serve several listeners, even on different
// loops; its methods are then called on several goroutines.
type Admission interface {
	// Admit decides on a connection from peer, which is not valid where the peer has no
	// IP address (UNIX sockets). An error refuses the connection; the error handler
	// gets it, now and then, in an *AdmissionError. It runs on the listener's goroutine
	// and must not block.
	Admit(peer netip.Addr) error
	// Left is called once for each admitted connection, with the same peer, when the
	// connection is gone. It runs on the goroutine of the connection's loop.
	Left(peer netip.Addr)
}

// WithAdmission makes a listener ask a for each connection. The default takes every
// connection. If a is a Waiting, connections may wait for a place.
func WithAdmission(a Admission) AcceptOption { return option(func(c *connConfig) { c.admission = a }) }

// AdmissionError tells the error handler that a listener's Admission refused
// connections, or made them wait. The first is reported at once, further ones every 10
// s.
type AdmissionError struct {
	Addr  net.Addr   // where the listener listens
	Peer  netip.Addr // of the last one; may be invalid
	Count int        // how many there were since the last report, including this one
	Waits bool       // they were not refused but wait for a place: see Waiting
	Err   error      // what Admit returned for the last one
}

func (e *AdmissionError) Error() string {
	did := "refused"
	if e.Waits {
		did = "lets wait"
	}
	s := fmt.Sprintf("weir: %s %s a connection", e.Addr, did)
	if e.Count > 1 {
		s = fmt.Sprintf("weir: %s %s %d connections, the last", e.Addr, did, e.Count)
	}
	if e.Peer.IsValid() {
		s += " from " + e.Peer.String()
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the error from Admit.
func (e *AdmissionError) Unwrap() error { return e.Err }

// refusals counts the connections that a listener has refused, or made to wait, and not yet
// reported.
type refusals struct {
	last  AdmissionError
	timer *Timer // runs for admissionReport after each report
}

// admissionReport is how often refusals are reported.
const admissionReport = 10 * time.Second

// admit asks the listener's Admission about an accepted connection, which waits or is
// closed if the Admission does not take it.
func (ln *Listener) admit(h backend.Handle, peer *backend.Addr) bool {
	if ln.config.admission == nil {
		return true
	}
	if ln.waiting != nil {
		ln.waiting.seat() // those that came before
	}
	err := ln.config.admission.Admit(peerIP(peer))
	if err == nil {
		return true
	}
	if !ln.wait(h, peer, err) {
		ln.refuse(h, peerIP(peer), err)
	}
	return false
}

// refuse closes a connection that Admit has refused with err.
func (ln *Listener) refuse(h backend.Handle, ip netip.Addr, err error) {
	ln.loop.shutHandle(h, backend.CloseReset)
	ln.refused.add(ln, ip, err)
}

// add counts one, and reports it unless there was a report recently.
func (r *refusals) add(ln *Listener, ip netip.Addr, err error) {
	if r.timer == nil {
		r.timer = ln.loop.NewTimer(func() { r.report(ln) })
	}
	r.last.Peer, r.last.Err = ip, err
	r.last.Count++
	if !r.timer.Running() {
		r.report(ln)
	}
}

// report reports what has been counted since the last report, if anything.
func (r *refusals) report(ln *Listener) {
	if r.last.Count == 0 {
		return
	}
	e := r.last
	e.Addr, e.Waits = ln.Addr(), r == &ln.waited
	r.last = AdmissionError{}
	if !ln.closed {
		r.timer.Set(admissionReport)
	}
	ln.loop.report(&e)
}

// end reports what is left.
func (r *refusals) end(ln *Listener) {
	if r.timer != nil {
		r.timer.Stop()
		r.report(ln)
	}
}

// left says that a connection which was admitted is gone.
func (ln *Listener) left(ip netip.Addr) {
	for _, b := range ln.budgets {
		b.conns.Add(-1)
	}
	ln.vacate(ip)
}

// vacate tells the Admission that a connection it admitted is gone.
func (ln *Listener) vacate(ip netip.Addr) {
	if a := ln.config.admission; a != nil {
		a.Left(ip.Unmap())
	}
}

// peerIP is the IP address of an accepted peer; not valid if it has none.
func peerIP(peer *backend.Addr) netip.Addr {
	if peer == nil || peer.Family != backend.Inet {
		return netip.Addr{}
	}
	return peer.IP.Addr().Unmap()
}

// Waiting is an Admission for which a connection may wait for a place instead of being
// refused. If no place is free at all, the listener stops accepting, and new
// connections wait in the system's queue (WithBacklog). If only some connections may
// not have a place, the listener sets a few of these aside, with nothing made for them,
// and goes on accepting the others; once it holds its limit of them it stops as well.
// If a connection waited in vain and kept others out meanwhile, none may wait for ten
// times as long: the listener refuses at once, so that a peer that fills every place holds
// up the others for a moment and not for good. Its methods may be called on
// several goroutines.
type Waiting interface {
	Admission
	// Patience is how long a connection that Admit has just refused with err may wait;
	// 0 means that it may not.
	Patience(err error) time.Duration
	// Room is the number of free places.
	Room() int
	// OnRoom arranges for f to be called once, when a connection has left: on any
	// goroutine, perhaps from inside Left. f must not block.
	OnRoom(f func())
}

const (
	waitersMost = 16 // connections that a listener sets aside
	waitersRest = 10 // times the patience of one that waited in vain
)

// waiters holds the accepted connections that wait for a place, the oldest first.
type waiters struct {
	ln        *Listener
	admission Waiting
	all       []waiter
	timer     *Timer // until the first of them has waited long enough
	until     time.Time
	asked     bool // an OnRoom call is pending
}

type waiter struct {
	h     backend.Handle
	peer  *backend.Addr // a copy; nil if there is none
	until time.Time
	err   error // why it waits
}

// wait keeps a connection that was refused with err, if it may wait.
func (ln *Listener) wait(h backend.Handle, peer *backend.Addr, err error) bool {
	a, ok := ln.config.admission.(Waiting)
	if !ok || ln.closed {
		return false
	}
	patience := a.Patience(err)
	now := ln.loop.Now()
	w := ln.waiting
	if patience <= 0 || w != nil && now.Before(w.until) && a.Room() > 0 {
		return false
	}
	if w == nil {
		w = &waiters{ln: ln, admission: a}
		w.timer = ln.loop.NewTimer(w.late)
		ln.waiting = w
	}
	if peer != nil {
		p := *peer
		peer = &p
	}
	w.all = append(w.all, waiter{h: h, peer: peer, until: now.Add(patience), err: err})
	ln.waited.add(ln, peerIP(peer), err)
	w.listen()
	w.watch()
	if ln.full() {
		ln.loop.be.Cancel(&ln.op)
	}
	return true
}

// listen asks to be told of the next free place. One may have become free between the
// refusal and now.
func (w *waiters) listen() {
	if w.asked {
		return
	}
	w.asked = true
	w.admission.OnRoom(func() {
		// A closed loop has closed its listeners, and they have closed the connections that
		// waited.
		_ = w.ln.loop.postInternal(func() {
			w.asked = false
			w.seat()
			w.ln.goOn()
		})
	})
	w.seat()
}

// seat admits the waiting connections that there is now a place for.
func (w *waiters) seat() {
	if len(w.all) == 0 {
		return
	}
	all := w.all
	w.all = nil // a connection may have to wait again
	var left []waiter
	for _, x := range all {
		err := w.admission.Admit(peerIP(x.peer))
		switch {
		case err == nil:
			w.ln.begin(x.h, x.peer)
		case w.admission.Patience(err) <= 0:
			w.ln.refuse(x.h, peerIP(x.peer), err)
		default:
			x.err = err
			left = append(left, x)
		}
	}
	if w.ln.closed {
		for _, x := range left {
			w.ln.loop.shutHandle(x.h, backend.CloseReset)
		}
		return
	}
	w.all = append(left, w.all...)
	if len(w.all) > 0 {
		w.listen()
	}
	w.watch()
}

// watch sets the timer for the first one whose time is over.
func (w *waiters) watch() {
	if len(w.all) == 0 {
		w.timer.Stop()
		return
	}
	first := w.all[0].until
	for _, x := range w.all[1:] {
		if x.until.Before(first) {
			first = x.until
		}
	}
	w.timer.SetAt(first)
}

// late refuses those that have waited long enough.
func (w *waiters) late() {
	w.seat()
	now := w.ln.loop.Now()
	left := w.all[:0]
	for _, x := range w.all {
		if x.until.After(now) {
			left = append(left, x)
			continue
		}
		if w.admission.Room() > 0 {
			w.until = now.Add(waitersRest * w.admission.Patience(x.err))
		}
		w.ln.refuse(x.h, peerIP(x.peer), x.err)
	}
	clear(w.all[len(left):])
	w.all = left
	w.watch()
	w.ln.goOn()
}

// close resets the waiting connections, as the system does with those left in its queue.
func (w *waiters) close() {
	all := w.all
	w.all = nil
	w.timer.Stop()
	for _, x := range all {
		w.ln.loop.shutHandle(x.h, backend.CloseReset)
	}
}

// full reports whether new connections have to wait in the system's queue.
func (ln *Listener) full() bool {
	w := ln.waiting
	return w != nil && len(w.all) > 0 && (len(w.all) >= waitersMost || w.admission.Room() == 0)
}

// oneByOne reports whether the listener must accept connections one at a time: a
// backend that takes all at once could take more than there are places or descriptors
// for.
func (ln *Listener) oneByOne() bool {
	if ln.scarce {
		return true
	}
	a, ok := ln.config.admission.(Waiting)
	return ok && a.Room() < ln.config.backlog
}

// fewDescriptors reports whether the process may have so few descriptors that the
// connections in the system's queue could take most of them at once.
func (ln *Listener) fewDescriptors() bool {
	n := files.Limit()
	return ln.loop.caps.Descriptors && n > 0 && n < manyDescriptors*uint64(ln.config.backlog)
}

// manyDescriptors is how many times the backlog the descriptor limit must be before a
// backend may take all waiting connections at once.
const manyDescriptors = 4

// shortage is a time without descriptors. The loop's listeners do not accept: new
// connections wait in the system's queue; they would only take the descriptors that
// open connections need to go on. The shortage is over when something in the loop has
// been closed. The loop also checks now and then, since others give descriptors back as
// well. It lasts as long as a connect on another loop of the group waits: accepted connections
// would take what that waits for.
type shortage struct {
	on       bool
	queued   bool         // relieved is in the loop's queue
	connects []*Connector // that wait for a descriptor, the oldest first
	starves  atomic.Int64 // until when, in nanoseconds since 1970, if there are some; any loop reads it
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

// shortOf begins a shortage, here and on the other loops of the group.
func (l *Loop) shortOf() {
	if l.group != nil && !l.short.on {
		l.group.shortOf(l)
	}
	l.beginShortage()
}

func (l *Loop) beginShortage() {
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
	s.connects = nil
	s.starves.Store(0)
	if l.group != nil && l.group.starves(l.Now()) {
		s.timer.Set(acceptRetry)
		return
	}
	s.on = false
	s.timer.Stop()
	l.listeners.Each((*Listener).goOn)
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
	c.stopRace()
	if !c.listed {
		c.listed = true
		l.short.connects = append(l.short.connects, c)
		l.short.starves.Store(max(l.short.starves.Load(), c.short.UnixNano()))
	}
	return true
}
