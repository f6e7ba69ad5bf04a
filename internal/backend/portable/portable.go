// Package portable is the backend for every platform that Go runs on: it combines
// package net's own poller, goroutines that wait, and one table of handles.
//
//	loop's goroutine                     goroutines
//	Submit ─▶ entry ─▶ port: try, else arm ──▶ wait for it
//	  Wait ◀─ ready list ◀──────── notify ◀─────┘
//	     └─▶ port: try again ─▶ Completion
//
// Everything that a program can see happens on the loop's goroutine: the others only
// report that trying again is worthwhile. So Cancel is immediate on every handle,
// nothing is lost by it, and results come in the order of the ready list.
//
// There are three ports. One serves the connections that package net or package os
// polls on Unix: its goroutine waits without a buffer and the loop reads and writes
// without blocking. The other serves everything else with a Read, a Write and a Close
// (a TLS connection, an SSH channel, any socket on Windows): its goroutines block in
// them, with a buffer in each direction that plays the part of a socket's. Regular
// files have the third, since they never wait.
package portable

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// Backend is a backend.Backend over package net.
type Backend struct {
	start time.Time

	// These belong to the loop's goroutine.
	table    []*entry // by Handle, from base on; nil is free
	base     backend.Handle
	free     int // no free number is below it
	lent     arena
	rested   time.Duration // when Wait last let others run
	timer    *time.Timer
	taken    []*entry // the part of the ready list that is being served, from head on
	head     int
	refusals []backend.Completion // results of Multi Ops that could not be armed
	waits    int                  // counts Waits
	gather   []byte               // where a polled port joins the pieces of a Write

	blocking bool // serve every handle with the blocking port, as Windows does
	closed   bool

	// Counts the goroutines that end by themselves once their handle is closed, or when
	// what was written before has been sent. Close waits for them.
	waiting sync.WaitGroup

	signal chan struct{} // holds one: ready or woken has something
	hosted atomic.Bool   // a host waits in Await
	due    chan struct{} // holds one: the same for Await

	mu    sync.Mutex
	ready []*entry // entries with events, in the order they came
	woken bool
}

var (
	_ backend.Backend = (*Backend)(nil)
	_ backend.Mover   = (*Backend)(nil)
	_ backend.Awaiter = (*Backend)(nil)
)

// New makes a portable backend. It needs nothing from the system, so the error is
// always nil; it exists because every backend's constructor returns one.
func New() (*Backend, error) {
	b := &Backend{start: time.Now(), signal: make(chan struct{}, 1), due: make(chan struct{}, 1)}
	b.timer = time.NewTimer(math.MaxInt64)
	b.timer.Stop()
	return b, nil
}

// NewFrom is New for a backend that serves beside another one: its handles have the numbers
// from base on.
func NewFrom(base backend.Handle) *Backend {
	b, _ := New()
	b.base = base
	return b
}

// Now is the time since the backend was made.
func (b *Backend) Now() time.Duration { return time.Since(b.start) }

// Wall is the wall clock when the backend was made.
func (b *Backend) Wall() time.Time { return b.start.Round(0) }

// Caps says what is available on this platform. Descriptors is false, as handles are
// numbers of the backend's own, but Adopt works on Unix and, for files and pipes, on
// Windows.
func (b *Backend) Caps() backend.Caps {
	port := "blocking: two goroutines for a busy connection"
	if polls && !b.blocking {
		port = "polled: one waiting goroutine for an idle connection"
	}
	return backend.Caps{
		Name:   "portable",
		Inline: true,
		PollFD: -1,
		Adopts: polls,
		Behind: true,
		Info:   infos,
		Probed: []string{"poller: package net's on " + runtime.GOOS, "ports: " + port},
	}
}

// Submit arms op; see backend.Backend. A Write and an Op with Now are tried at once.
// Everything else waits for its turn in Wait, so that the Op submitted first is not
// always served first.
func (b *Backend) Submit(op *backend.Op, c *backend.Completion) bool {
	e := b.entry(op.Handle)
	var err error
	switch {
	case e == nil:
		err = errBadHandle
	case op.Kind == 0 || int(op.Kind) >= len(e.ops) || op.Kind == backend.SpliceIn || op.Kind == backend.SpliceOut:
		err = backend.ErrUnsupported
	case e.ops[op.Kind] != nil:
		err = errBusy
	}
	if err != nil {
		return b.refuse(op, c, err)
	}
	now := op.Flags&backend.Now != 0 && (op.Kind == backend.Read || op.Kind == backend.Write ||
		op.Kind == backend.RecvFrom && op.Flags&backend.Multi == 0 || op.Kind == backend.SendTo)
	if now || op.Kind == backend.Write || op.Kind == backend.SendTo || op.Kind == backend.Connect {
		var got backend.Completion
		if b.try(e, op, &got) {
			*c = got
			return true
		}
	}
	if now {
		*c = backend.Completion{Op: op, Err: backend.ErrAgain}
		return true
	}
	e.ops[op.Kind] = op
	op.State = armed
	if op.Kind != backend.Write && op.Kind != backend.SendTo && op.Kind != backend.Connect {
		b.notify(e)
	}
	return false
}

// The states of an Op.
const (
	idle    = iota
	armed   // among its entry's ops
	refused // among the Ops that Wait has to report with an error
)

// refuse finishes an Op that cannot be armed: at once, or, if it is Multi, by Wait.
func (b *Backend) refuse(op *backend.Op, c *backend.Completion, err error) bool {
	refusal := backend.Completion{Op: op, Err: err}
	if op.Flags&backend.Multi == 0 {
		*c = refusal
		return true
	}
	op.State = refused
	b.refusals = append(b.refusals, refusal)
	b.prompt()
	return false
}

// multi reports whether op may finish many times.
func multi(op *backend.Op) bool {
	if op.Flags&backend.Multi == 0 {
		return false
	}
	return op.Kind == backend.Accept || op.Kind == backend.Ready ||
		(op.Kind == backend.Read || op.Kind == backend.RecvFrom) && op.Buf == nil
}

// Cancel ends op. Only Wait determines whether it had a result, so Cancel always
// succeeds at once on an armed Op.
func (b *Backend) Cancel(op *backend.Op) bool {
	switch op.State {
	case idle:
		return false
	case refused:
		b.refusals = slices.DeleteFunc(b.refusals, func(c backend.Completion) bool { return c.Op == op })
	default:
		e := b.entry(op.Handle)
		e.ops[op.Kind] = nil
		if op.Kind == backend.Connect {
			e.dial.stop()
			e.dial = nil
		}
	}
	op.State = idle
	return true
}

// Wait reports results; see backend.Backend.
func (b *Backend) Wait(timeout time.Duration, done []backend.Completion) (int, error) {
	if b.closed {
		return 0, errClosed
	}
	hosted := b.hosted.Load()
	if hosted {
		b.hush()
	}
	b.lent.reclaim()
	b.waits++
	if b.Now()-b.rested > busyMax {
		time.Sleep(restTime)
		b.rested = b.Now()
	} else {
		runtime.Gosched()
	}
	var expired <-chan time.Time
	for {
		n, woken := b.collect(done)
		if n > 0 || woken || timeout == 0 {
			b.timer.Stop()
			if hosted && b.pending() {
				b.prompt()
			}
			return n, nil
		}
		if timeout > 0 && expired == nil {
			b.timer.Reset(timeout)
			expired = b.timer.C
		}
		select {
		case <-b.signal:
		case <-expired:
			timeout = 0 // results that came at the same moment are still reported
		}
		b.rested = b.Now()
	}
}

// A loop that always finds something to do never gives up its processor, and the
// runtime asks its poller only if a processor has nothing else to run, or every 10 ms.
// So Wait yields to goroutines that can run, and rests now and then for the poller;
// otherwise connections that are not ready yet would hardly ever become ready.
const (
	busyMax  = 250 * time.Microsecond
	restTime = 20 * time.Microsecond
)

// Sweep makes the next Wait try every Op; see backend.Sweeper. After the process was
// stopped, the runtime's poller may not yet have reported what is ready.
func (b *Backend) Sweep() {
	time.Sleep(restTime)
	for _, e := range b.table {
		if e != nil {
			b.notify(e)
		}
	}
}

// collect tries the Ops of the entries that have events and puts the results into done.
// It takes the entries in the order of their events; an entry that has more to give
// goes to the end.
func (b *Backend) collect(done []backend.Completion) (n int, woken bool) {
	for n < len(done) && len(b.refusals) > 0 {
		done[n] = b.refusals[0]
		done[n].Op.State = idle
		b.refusals = b.refusals[1:]
		n++
	}
	// Entries notified from here on are for the next call: each gets one round.
	b.mu.Lock()
	woken, b.woken = b.woken, false
	round := len(b.ready)
	b.mu.Unlock()
	for n < len(done) && b.lent.room() {
		if b.head == len(b.taken) {
			if round == 0 {
				return n, woken
			}
			round = 0
			b.take()
		}
		e := b.taken[b.head]
		b.taken[b.head] = nil
		b.head++
		if e.served == b.waits {
			b.notify(e) // its results are in done, and their callbacks may change what holds
			continue
		}
		if k := b.serve(e, done[n:]); k > 0 {
			e.served = b.waits
			n += k
		}
	}
	return n, woken
}

// take makes the ready list the one that is being served.
func (b *Backend) take() {
	b.mu.Lock()
	b.taken, b.ready = b.ready, b.taken[:0]
	b.head = 0
	for _, e := range b.taken {
		e.queued = false
	}
	b.mu.Unlock()
}

// serve tries the Ops of e and returns how many results it put into done. If done is
// full first, the next call begins with the Op that was left out.
func (b *Backend) serve(e *entry, done []backend.Completion) (n int) {
	first := e.first
	e.first = 0
	for i := range len(e.ops) {
		k := (first + i) % len(e.ops)
		op := e.ops[k]
		if op == nil || e.closed {
			continue
		}
		if n == len(done) {
			e.first = k
			b.notify(e)
			break
		}
		c := &done[n]
		if !b.try(e, op, c) {
			continue
		}
		n++
		// The end of a stream and errors are reported once: the caller decides what to do.
		if multi(op) && c.Err == nil && (op.Kind != backend.Read || c.N > 0) {
			c.More = true
			b.notify(e) // there may be more, and no one waits for it yet
			continue
		}
		e.ops[op.Kind] = nil
		op.State = idle
	}
	return n
}

// notify puts e into the ready list. It may be called from any goroutine.
func (b *Backend) notify(e *entry) {
	b.mu.Lock()
	if !e.queued {
		e.queued = true
		b.ready = append(b.ready, e)
	}
	b.mu.Unlock()
	b.ring()
}

// ring ends a Wait in progress, or else keeps the next from sleeping.
func (b *Backend) ring() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
	b.prompt()
}

// Wake makes a Wait return; see backend.Backend.
func (b *Backend) Wake() {
	b.mu.Lock()
	b.woken = true
	b.mu.Unlock()
	b.ring()
}

// Close closes every handle and waits for its goroutines, except those inside a foreign
// connection's Read. Handles that were closed before with bytes still to send get
// lingerTime to send them: unlike bytes in a socket's own buffers, they would be lost
// at the end of the program.
func (b *Backend) Close() error {
	if b.closed {
		return nil
	}
	for h := range b.table {
		if e := b.table[h]; e != nil {
			for k, op := range e.ops {
				if op != nil {
					op.State = idle
					e.ops[k] = nil
				}
			}
			b.drop(b.base + backend.Handle(h))
			e.close(backend.CloseFlat)
		}
	}
	b.closed = true
	finished := make(chan struct{})
	go func() {
		b.waiting.Wait()
		close(finished)
	}()
	limit := time.NewTimer(lingerTime)
	defer limit.Stop()
	select {
	case <-finished:
	case <-limit.C:
	}
	return nil
}

// lingerTime bounds how long Close waits for bytes to leave.
const lingerTime = 2 * time.Second

var errClosed = errors.New("portable: backend is closed")

// An arena is the memory that one Wait lends.
type arena struct {
	chunks [][]byte
	chunk  int // the one in use
	used   int // bytes of it
}

const (
	chunkSize = 64 << 10
	chunkMin  = 16 << 10 // less is not worth a read
	chunksMax = 8        // lent by one Wait; what Submit lends comes in addition
)

func (a *arena) reclaim() {
	if len(a.chunks) > chunksMax {
		clear(a.chunks[chunksMax:])
		a.chunks = a.chunks[:chunksMax]
	}
	a.chunk, a.used = 0, 0
}

// room reports whether Wait may lend more.
func (a *arena) room() bool { return a.chunk < chunksMax-1 || chunkSize-a.used >= chunkMin }

// next returns free memory; take says how much of it was filled.
func (a *arena) next() []byte {
	if chunkSize-a.used < chunkMin {
		a.chunk++
		a.used = 0
	}
	if a.chunk >= len(a.chunks) {
		a.chunks = append(a.chunks, make([]byte, chunkSize))
	}
	return a.chunks[a.chunk][a.used:]
}

// copy lends a copy of p, which is at most chunkSize long.
func (a *arena) copy(p []byte) []byte {
	if chunkSize-a.used < len(p) {
		a.chunk++
		a.used = 0
	}
	q := a.next()[:len(p):len(p)]
	a.used += copy(q, p)
	return q
}

func (a *arena) take(n int) { a.used += n }
