// Package curl runs transfers of libcurl in a weir loop: its multi interface, driven by the
// loop's watches and one timer.
//
//	m, err := curl.New(loop)
//	t, err := m.Get("https://example.org/", curl.Handler{
//		Body: func(p []byte) { … },
//		Done: func(status int, err error) { … },
//	})
//
// libcurl says which sockets it waits for and for how long; the loop waits with everything
// else it has, and nothing polls. The same works for any library that opens its own
// sockets and can be asked for them.
package curl

// #cgo pkg-config: libcurl
// #include <stdlib.h>
// #include "multi.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime/cgo"
	"runtime/debug"
	"time"
	"unsafe"

	"github.com/weir-io/weir"
)

// ErrCanceled is what a transfer that was canceled, or whose Multi was closed, reports.
var ErrCanceled = errors.New("curl: the transfer was canceled")

// An Error is a failure that libcurl has a number for.
type Error struct {
	Code int
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("curl: %s (%d)", e.Text, e.Code) }

// A Handler gets what a transfer brings, on the loop's goroutine. A panic in it goes to the
// loop's error handler as a *weir.PanicError.
type Handler struct {
	// Body gets bytes, which are lent until it returns; it may be nil. If it panics, the
	// transfer ends, with libcurl's *Error 23.
	Body func(p []byte)
	// Done is called once and last, never from inside Get, Cancel or Close: with the
	// status of the reply, or with an *Error or ErrCanceled.
	Done func(status int, err error)
}

// Counts are what a Multi has done.
type Counts struct {
	Transfers int // that are done
	Actions   int // how often libcurl was called for a socket or a timeout
}

// A Multi is a set of transfers, which share connections; it is a weir.Source. All of its
// methods are for the loop's goroutine.
type Multi struct {
	loop    *weir.Loop
	p       unsafe.Pointer // CURLM
	handle  cgo.Handle
	timer   *weir.Timer
	sockets map[int]*weir.Watch
	active  map[unsafe.Pointer]*Transfer // by CURL
	changed []*Transfer                  // to be begun or canceled
	wake    func()
	inside  bool       // libcurl is calling; it cannot be called
	removal *weir.Call // nil until Close
	closed  bool
	counts  Counts
}

// A Transfer is one request.
type Transfer struct {
	m        *Multi
	easy     unsafe.Pointer // CURL
	handle   cgo.Handle
	h        Handler
	added    bool
	canceled bool
}

// New makes a Multi in a loop. Close ends it, or the loop's Close does.
func New(loop *weir.Loop) (*Multi, error) {
	m := &Multi{loop: loop, sockets: map[int]*weir.Watch{}, active: map[unsafe.Pointer]*Transfer{}}
	m.handle = cgo.NewHandle(m)
	m.p = C.weir_multi_new(C.uintptr_t(m.handle))
	if m.p == nil {
		m.handle.Delete()
		return nil, errors.New("curl: there is no memory for a multi handle")
	}
	if err := loop.AddSource(m); err != nil {
		C.curl_multi_cleanup(m.p)
		m.handle.Delete()
		return nil, err
	}
	return m, nil
}

// Attach is for Loop.AddSource, which New calls: a Multi that was removed stays so.
func (m *Multi) Attach(wake func()) error {
	if m.closed {
		return weir.ErrClosed
	}
	m.wake = wake
	m.timer = m.loop.NewTimer(func() { m.action(C.CURL_SOCKET_TIMEOUT, 0) })
	return nil
}

// Close cancels every transfer and closes their connections, in the loop's next turn or
// when the loop is closed. It may be called in a Handler. Calling it again has no effect.
func (m *Multi) Close() {
	if !m.closed && !m.closing() {
		m.removal = m.loop.Soon(func() { _ = m.loop.RemoveSource(m) })
	}
}

func (m *Multi) closing() bool { return m.removal != nil }

// Detach is for Loop.RemoveSource and the loop's Close. RemoveSource may be called in a
// Handler too: the Done of each transfer then follows when libcurl has returned from the call
// that it is in.
func (m *Multi) Detach() {
	m.closed = true
	if m.closing() {
		m.removal.Cancel() // the loop was closed first
	}
	for _, w := range m.sockets {
		w.Remove()
	}
	clear(m.sockets)
	m.timer.Stop()
	if !m.inside {
		m.release()
	}
}

// release frees everything, and tells the transfers that are left. Whoever calls libcurl
// does it afterwards if Detach came meanwhile.
func (m *Multi) release() {
	m.inside = true
	var left []*Transfer
	for _, t := range m.active {
		left = append(left, t)
		m.remove(t)
	}
	C.curl_multi_cleanup(m.p)
	m.handle.Delete()
	for _, t := range left {
		t.done(0, ErrCanceled)
	}
}

// Get begins to fetch an http or https URL.
func (m *Multi) Get(url string, h Handler) (*Transfer, error) {
	if m.closing() || m.closed {
		return nil, weir.ErrClosed
	}
	t := &Transfer{m: m, h: h}
	t.handle = cgo.NewHandle(t)
	u := C.CString(url)
	defer C.free(unsafe.Pointer(u))
	t.easy = C.weir_easy_new(u, C.uintptr_t(t.handle))
	if t.easy == nil {
		t.handle.Delete()
		return nil, errors.New("curl: there is no memory for a transfer")
	}
	m.active[t.easy] = t
	m.changed = append(m.changed, t)
	m.wake() // Dispatch adds it, outside of what libcurl calls
	return t, nil
}

// Cancel ends the transfer: no Body follows, and Done gets ErrCanceled. Canceling one that is done has no effect.
func (t *Transfer) Cancel() {
	if !t.canceled && t.m.active[t.easy] == t {
		t.canceled = true
		t.m.changed = append(t.m.changed, t)
		t.m.wake()
	}
}

// Dispatch is for the loop: it begins and cancels transfers.
func (m *Multi) Dispatch() {
	if m.closed || m.closing() || m.inside {
		return
	}
	changed := m.changed
	m.changed = nil
	type end struct {
		t   *Transfer
		err error
	}
	var ended []end
	m.inside = true
	for _, t := range changed {
		switch {
		case m.active[t.easy] != t: // it is done
		case t.canceled:
			m.remove(t)
			ended = append(ended, end{t, ErrCanceled})
		case !t.added:
			r := C.curl_multi_add_handle(m.p, t.easy)
			if t.added = r == C.CURLM_OK; !t.added {
				m.remove(t)
				ended = append(ended, end{t, multiError(r)})
			}
		}
	}
	m.inside = false
	for _, e := range ended {
		e.t.done(0, e.err)
	}
}

// remove frees a transfer.
func (m *Multi) remove(t *Transfer) {
	delete(m.active, t.easy)
	if t.added {
		C.curl_multi_remove_handle(m.p, t.easy)
	}
	C.curl_easy_cleanup(t.easy)
	t.handle.Delete()
}

// action tells libcurl that a socket is ready or that its time is up, and then the
// transfers that are done.
func (m *Multi) action(fd, events C.int) {
	if m.closed {
		return
	}
	m.counts.Actions++
	var running C.int
	m.inside = true
	r := C.curl_multi_socket_action(m.p, fd, events, &running)
	m.inside = false
	if m.closed {
		m.release()
		return
	}
	if r != C.CURLM_OK {
		m.loop.Report(multiError(r))
	}
	var easy unsafe.Pointer
	var code C.CURLcode
	for !m.closed && C.weir_next_done(m.p, &easy, &code) != 0 {
		t := m.active[easy]
		status := int(C.weir_easy_status(easy))
		m.inside = true
		m.remove(t)
		m.inside = false
		m.counts.Transfers++
		switch {
		case t.canceled || m.closing():
			t.done(0, ErrCanceled)
		case code != C.CURLE_OK:
			t.done(0, &Error{int(code), C.GoString(C.curl_easy_strerror(code))})
		default:
			t.done(status, nil)
		}
	}
}

func (t *Transfer) done(status int, err error) {
	defer t.m.guard("Done of a curl.Handler")
	if t.h.Done != nil {
		t.h.Done(status, err)
	}
}

// guard reports a panic of a Handler, which must not unwind through libcurl and leaves other
// transfers to be told.
func (m *Multi) guard(where string) {
	if v := recover(); v != nil {
		m.loop.Report(&weir.PanicError{Where: where, Value: v, Stack: debug.Stack()})
	}
}

func multiError(r C.CURLMcode) *Error { return &Error{int(r), C.GoString(C.curl_multi_strerror(r))} }

// Counts is what was done so far.
func (m *Multi) Counts() Counts { return m.counts }

// weirCurlSocket is how libcurl says what it waits for at a socket.
//
//export weirCurlSocket
func weirCurlSocket(handle C.uintptr_t, fd C.curl_socket_t, what C.int) {
	m := cgo.Handle(handle).Value().(*Multi)
	if m.closed {
		return
	}
	if w := m.sockets[int(fd)]; w != nil {
		w.Remove()
		delete(m.sockets, int(fd))
	}
	var e weir.Events
	switch what {
	case C.CURL_POLL_IN:
		e = weir.EventRead
	case C.CURL_POLL_OUT:
		e = weir.EventWrite
	case C.CURL_POLL_INOUT:
		e = weir.EventRead | weir.EventWrite
	default:
		return
	}
	w, err := m.loop.Watch(int(fd), e, func(e weir.Events) {
		var bits C.int
		if e&weir.EventRead != 0 {
			bits |= C.CURL_CSELECT_IN
		}
		if e&weir.EventWrite != 0 {
			bits |= C.CURL_CSELECT_OUT
		}
		if e&weir.EventError != 0 {
			bits |= C.CURL_CSELECT_ERR
		}
		m.action(C.int(fd), bits)
	})
	if err != nil {
		// Its time limit ends the transfer.
		m.loop.Report(err)
		return
	}
	m.sockets[int(fd)] = w
}

//export weirCurlTimer
func weirCurlTimer(handle C.uintptr_t, ms C.long) {
	m := cgo.Handle(handle).Value().(*Multi)
	if ms < 0 || m.closed {
		m.timer.Stop()
		return
	}
	m.timer.Set(time.Duration(ms) * time.Millisecond)
}

//export weirCurlBody
func weirCurlBody(handle C.uintptr_t, p *C.char, n C.size_t) (ok C.int) {
	t := cgo.Handle(handle).Value().(*Transfer)
	if t.canceled || t.m.closing() || t.m.closed {
		return 0
	}
	defer t.m.guard("Body of a curl.Handler") // ok is 0 then
	if t.h.Body != nil {
		t.h.Body(unsafe.Slice((*byte)(unsafe.Pointer(p)), int(n)))
	}
	return 1
}
