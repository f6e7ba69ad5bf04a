// Package cares asks for names with c-ares in a weir loop: its sockets are watched by the
// loop, and one timer stands for all its timeouts.
//
//	r, err := cares.New(loop)
//	loop.Connect("tcp", "example.org:443", p, weir.WithConnectResolver(r))
//
// c-ares says which of its sockets it waits for, and the loop waits with everything else it
// has; nothing polls.
package cares

// #cgo pkg-config: libcares
// #include <stdlib.h>
// #include <sys/socket.h>
// #include "channel.h"
import "C"

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/cgo"
	"runtime/debug"
	"strings"
	"time"
	"unsafe"

	"github.com/weir-io/weir"
)

// questionsMost is how many questions a Resolver has under way.
const questionsMost = 10_000

// How long c-ares waits for a server first, and how often it asks each; the wait doubles
// with each round.
const (
	timeoutUsual = 2 * time.Second
	triesUsual   = 3
)

var (
	// ErrBusy is the error of a question that would be one more than 10,000 under way.
	ErrBusy = errors.New("cares: there are too many questions under way; ask again later")
	// ErrConfig is returned by New for an option that is out of range.
	ErrConfig = errors.New("cares: the time for an answer is at least 1 ms and at most an hour, and a server is asked 1 to 100 times")
	errName   = errors.New("cares: the name has a byte 0, which no name can have")
)

// An Error is a failure that c-ares has a number for.
type Error struct {
	Host string // the name; empty if it is New's
	Code int    // ARES_ENOTFOUND is 4, ARES_ETIMEOUT 12
	Text string
}

func (e *Error) Error() string {
	if e.Host == "" {
		return fmt.Sprintf("cares: %s (%d)", e.Text, e.Code)
	}
	return fmt.Sprintf("cares: looking up %s: %s (%d)", e.Host, e.Text, e.Code)
}

// Timeout reports whether no server answered in time.
func (e *Error) Timeout() bool { return e.Code == C.ARES_ETIMEOUT }

func failure(host string, code C.int) *Error {
	return &Error{host, int(code), C.GoString(C.ares_strerror(code))}
}

// An Option is an option of New.
type Option func(*Resolver)

// WithServers says which servers are asked, as c-ares writes them: "192.0.2.1:53,[2001:db8::1]".
// The default is what the system says.
func WithServers(list string) Option { return func(r *Resolver) { r.servers = list } }

// WithTimeout says how long a server may take at first, and how often each is asked; the time
// doubles with each round. The default is 2 s and 3 times.
func WithTimeout(d time.Duration, tries int) Option {
	return func(r *Resolver) { r.timeout, r.tries = d, tries }
}

// Counts are what a Resolver has done.
type Counts struct {
	Questions int // that are done
	Actions   int // how often c-ares was called for a socket or a timeout
}

// A Resolver is a channel of c-ares; it is a weir.Resolver for its loop, and a weir.Source. Its
// methods are for the loop's goroutine.
type Resolver struct {
	loop     *weir.Loop
	servers  string
	timeout  time.Duration
	tries    int
	channel  C.ares_channel
	handle   cgo.Handle
	sockets  map[int]*weir.Watch
	timer    *weir.Timer
	due      time.Time   // when the timer fires; no question can be late before
	asked    int         // questions under way
	finished []*question // whose done is to be called
	telling  bool        // a call of tell is queued
	removal  *weir.Call  // nil until Close
	closed   bool
	counts   Counts
}

var (
	_ weir.Resolver = (*Resolver)(nil)
	_ weir.Source   = (*Resolver)(nil)
)

// question is a name that c-ares was asked for.
type question struct {
	r     *Resolver
	host  string
	done  func([]netip.Addr, error) // nil: it was canceled
	addrs []netip.Addr
	err   error
}

// New makes a Resolver in a loop. Close ends it, or the loop's Close does. The error is
// ErrConfig, or an *Error, for example if the list of servers is no such list.
func New(loop *weir.Loop, opts ...Option) (*Resolver, error) {
	r := &Resolver{loop: loop, sockets: map[int]*weir.Watch{}, timeout: timeoutUsual, tries: triesUsual}
	for _, o := range opts {
		o(r)
	}
	if r.timeout < time.Millisecond || r.timeout > time.Hour || r.tries < 1 || r.tries > 100 {
		return nil, ErrConfig
	}
	var servers *C.char
	if r.servers != "" {
		servers = C.CString(r.servers)
		defer C.free(unsafe.Pointer(servers))
	}
	r.handle = cgo.NewHandle(r)
	ms := C.int((r.timeout + time.Millisecond - 1) / time.Millisecond)
	if code := C.weir_channel_new(&r.channel, C.uintptr_t(r.handle), servers, ms, C.int(r.tries)); code != C.ARES_SUCCESS {
		r.handle.Delete()
		return nil, failure("", code)
	}
	if err := loop.AddSource(r); err != nil {
		C.ares_destroy(r.channel)
		r.handle.Delete()
		return nil, err
	}
	return r, nil
}

// Attach is for Loop.AddSource, which New calls: a Resolver that was removed stays so.
func (r *Resolver) Attach(func()) error {
	if r.closed {
		return weir.ErrClosed
	}
	r.timer = r.loop.NewTimer(r.late)
	return nil
}

// Dispatch is for the loop. Nothing comes this way: the sockets are watched.
func (r *Resolver) Dispatch() {}

// Close ends every question with weir.ErrClosed, in the loop's next turn or when the loop is
// closed. Calling it again has no effect.
func (r *Resolver) Close() {
	if !r.closed && r.removal == nil {
		r.removal = r.loop.Soon(func() { _ = r.loop.RemoveSource(r) })
	}
}

// Detach is for Loop.RemoveSource and the loop's Close. What is under way then is told in the
// loop's next turn, or at the end of its Close.
func (r *Resolver) Detach() {
	r.closed = true
	if r.removal != nil {
		r.removal.Cancel() // the loop was closed first
	}
	for _, w := range r.sockets {
		w.Remove()
	}
	clear(r.sockets)
	r.timer.Stop()
	C.ares_destroy(r.channel) // it ends what is under way
	r.handle.Delete()
	r.tellSoon()
}

// LookupNetIP is for weir.Resolver. The error is an *Error, ErrBusy, or weir.ErrClosed after
// Close. A question that was canceled counts as under way until c-ares is done with it.
func (r *Resolver) LookupNetIP(l *weir.Loop, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	var err error
	family, known := map[string]C.int{"ip": C.AF_UNSPEC, "ip4": C.AF_INET, "ip6": C.AF_INET6}[network]
	switch {
	case l != r.loop:
		err = weir.ErrOtherLoop
	case r.closed || r.removal != nil:
		err = weir.ErrClosed
	case r.asked >= questionsMost:
		err = ErrBusy
	case !known:
		err = net.UnknownNetworkError(network)
	case strings.IndexByte(host, 0) >= 0:
		err = errName
	}
	if err != nil {
		c := l.Soon(func() { done(nil, err) })
		return func() { c.Cancel() }
	}
	q := &question{r: r, host: host, done: done}
	r.asked++
	name := C.CString(host)
	defer C.free(unsafe.Pointer(name))
	C.weir_channel_ask(r.channel, name, family, C.uintptr_t(cgo.NewHandle(q)))
	r.arm(r.timeout)
	r.tellSoon()
	return func() { q.done = nil }
}

// arm sets the timer, unless it fires earlier. Asking c-ares how long it waits takes it
// longer the more questions there are, so that is left to the timer: no new question is
// late before its first timeout.
func (r *Resolver) arm(d time.Duration) {
	due := r.loop.Now().Add(d)
	if r.asked == 0 {
		r.timer.Stop()
	} else if !r.timer.Running() || due.Before(r.due) {
		r.due = due
		r.timer.SetAt(due)
	}
}

// late has c-ares look at what has been waiting for too long.
func (r *Resolver) late() {
	r.process(C.ARES_SOCKET_BAD, C.ARES_SOCKET_BAD)
	if r.closed {
		return
	}
	if us := C.weir_channel_timeout(r.channel); us >= 0 {
		r.arm(max(time.Duration(us)*time.Microsecond, time.Millisecond)) // 0: c-ares would look in vain
	}
}

// process tells c-ares what is ready, and then those whose questions are done.
func (r *Resolver) process(readable, writable C.ares_socket_t) {
	r.counts.Actions++
	C.ares_process_fd(r.channel, readable, writable)
	if r.asked == 0 {
		r.timer.Stop()
	}
	r.tell() // a done may remove the source
}

// tellSoon has the loop call tell: no one is told from inside of LookupNetIP or of
// RemoveSource.
func (r *Resolver) tellSoon() {
	if len(r.finished) == 0 || r.telling {
		return
	}
	r.telling = true
	tell := func() {
		r.telling = false
		r.tell()
	}
	if _, err := r.loop.PostOr(tell, tell); err != nil {
		tell() // the loop is closed
	}
}

// tell tells those whose questions are done. One may end the goroutine: the others are told
// by the next call.
func (r *Resolver) tell() {
	all := r.finished
	r.finished = nil
	defer func() {
		if len(all) > 0 {
			r.finished = append(all, r.finished...)
			r.tellSoon()
		}
	}()
	for len(all) > 0 {
		q := all[0]
		all = all[1:]
		if q.done != nil {
			q.tell()
		}
	}
}

func (q *question) tell() {
	defer func() {
		if v := recover(); v != nil {
			q.r.loop.Report(&weir.PanicError{Where: "done of a cares.Resolver", Value: v, Stack: debug.Stack()})
		}
	}()
	q.done(q.addrs, q.err)
}

// Counts is what was done so far.
func (r *Resolver) Counts() Counts { return r.counts }

// weirCaresState is how c-ares says what it waits for at a socket.
//
//export weirCaresState
func weirCaresState(handle C.uintptr_t, fd C.ares_socket_t, readable, writable C.int) {
	r := cgo.Handle(handle).Value().(*Resolver)
	if r.closed {
		return
	}
	var e weir.Events
	if readable != 0 {
		e |= weir.EventRead
	}
	if writable != 0 {
		e |= weir.EventWrite
	}
	w := r.sockets[int(fd)]
	switch {
	case e == 0: // it is about to be closed
		if w != nil {
			w.Remove()
			delete(r.sockets, int(fd))
		}
		return
	case w != nil && w.Err() == nil:
		w.SetEvents(e)
		return
	}
	w, err := r.loop.Watch(int(fd), e, func(e weir.Events) {
		read, write := C.ares_socket_t(C.ARES_SOCKET_BAD), C.ares_socket_t(C.ARES_SOCKET_BAD)
		if e&(weir.EventRead|weir.EventError) != 0 {
			read = fd
		}
		if e&weir.EventWrite != 0 {
			write = fd
		}
		r.process(read, write)
	})
	if err != nil {
		// The question's time limit ends it. The error handler must not be called from inside
		// c-ares.
		r.loop.Soon(func() { r.loop.Report(err) })
		return
	}
	r.sockets[int(fd)] = w
}

//export weirCaresAddress
func weirCaresAddress(handle C.uintptr_t, p unsafe.Pointer, n C.int) {
	q := cgo.Handle(handle).Value().(*question)
	if a, ok := netip.AddrFromSlice(unsafe.Slice((*byte)(p), int(n))); ok {
		q.addrs = append(q.addrs, a)
	}
}

//export weirCaresDone
func weirCaresDone(handle C.uintptr_t, status C.int) {
	h := cgo.Handle(handle)
	q := h.Value().(*question)
	h.Delete()
	q.r.asked--
	q.r.counts.Questions++
	switch {
	case status == C.ARES_EDESTRUCTION:
		q.addrs, q.err = nil, weir.ErrClosed
	case status != C.ARES_SUCCESS:
		q.addrs, q.err = nil, failure(q.host, status)
	case len(q.addrs) == 0:
		q.err = failure(q.host, C.ARES_ENODATA)
	}
	q.r.finished = append(q.r.finished, q)
}
