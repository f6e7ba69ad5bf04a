// Command embed is a weir loop as a C library: an archive or a shared object, for programs
// in C, Python and whatever else calls C, whose own event loop drives it. types.h says what
// a program must keep to.
package main

// #include <stdlib.h>
// #include "calls.h"
import "C"

import (
	"math"
	"os"
	"runtime/cgo"
	"time"
	"unsafe"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/endpoint"
)

func main() {}

// streamsMost is how many streams one loop may have, and writeMost how many bytes one
// weir_write may take.
const (
	streamsMost = 1 << 20
	writeMost   = 1 << 30
)

// turnMost is how long a turn may go on to call back before the host has its thread again.
const turnMost = 2 * time.Millisecond

// A loop is what a C program holds by its number.
type loop struct {
	*weir.Loop
	env     *endpoint.Env
	streams map[C.int64_t]*stream
	last    C.int64_t
	failure *C.char // what weir_error returns
	turning bool
	closing bool // weir_close was called
}

// A stream is a connection of a C program.
type stream struct {
	loop    *loop
	number  C.int64_t
	calls   C.weir_callbacks
	arg     C.uintptr_t // a number as often as a pointer: Go must not take it for one
	connect *endpoint.Connecting
	t       weir.Transport
}

// find returns the loop of a number, nil if there is none.
func find(h C.uintptr_t) (l *loop) {
	defer func() {
		if recover() != nil {
			l = nil // a number that never was, or a loop that was closed
		}
	}()
	return cgo.Handle(h).Value().(*loop)
}

func (l *loop) fail(err string) {
	C.free(unsafe.Pointer(l.failure))
	l.failure = C.CString(err)
}

// weir_open makes a loop; 0 if that fails, with a reason on standard error.
//
//export weir_open
func weir_open() C.uintptr_t {
	l := &loop{streams: map[C.int64_t]*stream{}}
	var err error
	l.Loop, err = weir.NewLoop(weir.WithErrorHandler(func(err error) { l.fail(err.Error()) }))
	if err == nil && l.PollFD() < 0 {
		_ = l.Close()
		err = weir.ErrNoPollFD
	}
	if err == nil {
		err = l.SetTurnLimit(weir.TurnLimit{Time: turnMost})
	}
	if err != nil {
		_, _ = os.Stderr.WriteString("weir_open: " + err.Error() + "\n")
		return 0
	}
	l.env = &endpoint.Env{Loop: l.Loop, Stdin: -1, Stdout: -1, LookupEnv: os.LookupEnv, Resolver: dns.New()}
	return C.uintptr_t(cgo.NewHandle(l))
}

// weir_fd is a descriptor that is readable when weir_turn has something to do. It must
// only be watched. -1 if there is no such loop.
//
//export weir_fd
func weir_fd(h C.uintptr_t) C.int {
	l := find(h)
	if l == nil {
		return -1
	}
	return C.int(l.PollFD())
}

// weir_next is for how many microseconds the host may wait before it must call weir_turn
// even if the descriptor is quiet; -1 for any time. Ask again after every other call.
//
//export weir_next
func weir_next(h C.uintptr_t) C.int64_t {
	l := find(h)
	if l == nil {
		return -1
	}
	d, ok := l.Next()
	if !ok {
		return -1
	}
	return C.int64_t(min((d+time.Microsecond-1)/time.Microsecond, math.MaxInt32))
}

// weir_turn does what there is to do, for 2 ms and one callback more at most, and does not
// wait; what is left by then is for the next turn. 0, or -1 if the loop cannot go
// on: weir_error says why, and weir_close is all that is left.
//
//export weir_turn
func weir_turn(h C.uintptr_t) C.int {
	l := find(h)
	if l == nil || l.turning {
		return -1
	}
	l.turning = true
	err := l.Turn(0)
	l.turning = false
	if err != nil {
		l.fail(err.Error())
		return -1
	}
	return 0
}

// weir_error is the text of the last failure; NULL if there was none. It is lent until the
// next call.
//
//export weir_error
func weir_error(h C.uintptr_t) *C.char {
	l := find(h)
	if l == nil {
		return nil
	}
	return l.failure
}

// weir_close ends the loop and everything in it: lost is called for every stream that is
// left. What was written before is still sent, for up to five seconds. The number is free
// afterwards. 0, or -1 if there is no such loop or one of its callbacks calls.
//
//export weir_close
func weir_close(h C.uintptr_t) C.int {
	l := find(h)
	if l == nil || l.turning {
		return -1
	}
	l.turning, l.closing = true, true // callbacks of Close are callbacks of a turn
	_ = l.Close()
	for _, s := range l.streams {
		s.end(weir.ErrLoopClosed.Error())
	}
	cgo.Handle(h).Delete()
	C.free(unsafe.Pointer(l.failure))
	return 0
}

// weir_connect connects to an endpoint with any layers, as the command weir names it:
// "tcp:example.org:80", "example.org:443+tls". It returns the stream's number, or -1 if
// the text is no such endpoint, or weir_close was called: weir_error says why. All else is
// told by a callback, never inside this call. *calls is copied.
//
//export weir_connect
func weir_connect(h C.uintptr_t, where *C.char, calls *C.weir_callbacks, arg C.uintptr_t) C.int64_t {
	l := find(h)
	if l == nil {
		return -1
	}
	if l.closing {
		l.fail("weir_connect: the loop is being closed: open another one to connect again")
		return -1
	}
	if where == nil || calls == nil {
		l.fail("weir_connect: the endpoint and the callbacks must not be NULL")
		return -1
	}
	e, err := endpoint.Default().Parse(C.GoString(where))
	switch {
	case err != nil:
		l.fail(err.Error())
		return -1
	case e.Role() == endpoint.Listen:
		l.fail(endpoint.ErrRole.Error())
		return -1
	case len(l.streams) >= streamsMost:
		l.fail("the loop has too many streams: end some of them first")
		return -1
	}
	l.last++
	s := &stream{loop: l, number: l.last, calls: *calls, arg: arg}
	l.streams[s.number] = s
	s.connect = e.Connect(l.env, s)
	return s.number
}

// weir_write sends n bytes, which are copied or sent before it returns. 0, or -1 if the
// stream is not connected or was ended.
//
//export weir_write
func weir_write(h C.uintptr_t, number C.int64_t, data unsafe.Pointer, n C.size_t) C.int {
	s := findStream(h, number)
	if s == nil || s.t == nil {
		return -1
	}
	if data == nil && n > 0 || n > writeMost {
		s.loop.fail("weir_write: data is NULL, or more than 1 GiB")
		return -1
	}
	if _, err := s.t.Write(unsafe.Slice((*byte)(data), int(n))); err != nil {
		s.loop.fail(err.Error())
		return -1
	}
	return 0
}

// weir_buffered is how many bytes were written and not yet handed to the system.
//
//export weir_buffered
func weir_buffered(h C.uintptr_t, number C.int64_t) C.int64_t {
	s := findStream(h, number)
	if s == nil || s.t == nil {
		return 0
	}
	return C.int64_t(s.t.Buffered())
}

// weir_pause stops received (on is 1), or lets it go on (0). Bytes that are not read fill
// the peer's buffers, and then stop the peer. 0, or -1 if the stream is not connected.
//
//export weir_pause
func weir_pause(h C.uintptr_t, number C.int64_t, on C.int) C.int {
	s := findStream(h, number)
	if s == nil || s.t == nil {
		return -1
	}
	if on != 0 {
		s.t.PauseReading()
	} else {
		s.t.ResumeReading()
	}
	return 0
}

// weir_end closes a stream after what was written (abort is 0), or at once (1). lost
// follows. A stream that has ended already is left alone.
//
//export weir_end
func weir_end(h C.uintptr_t, number C.int64_t, abort C.int) {
	s := findStream(h, number)
	switch {
	case s == nil:
	case s.t == nil:
		s.connect.Stop()
		s.loop.Soon(func() { s.end("canceled") })
	case abort != 0:
		s.t.Abort()
	default:
		_ = s.t.Close()
	}
}

func findStream(h C.uintptr_t, number C.int64_t) *stream {
	l := find(h)
	if l == nil {
		return nil
	}
	return l.streams[number]
}

func (s *stream) ConnectionMade(t weir.Transport) {
	s.t = t
	C.call_made(&s.calls, s.arg)
}

func (s *stream) DataReceived(p []byte) (int, error) {
	C.call_received(&s.calls, s.arg, unsafe.Pointer(unsafe.SliceData(p)), C.size_t(len(p)))
	return len(p), nil
}

func (s *stream) WriteDrained() { C.call_drained(&s.calls, s.arg) }

func (s *stream) ConnectionLost(err error) {
	s.t = nil
	if err != nil {
		s.end(err.Error())
		return
	}
	s.end("")
}

func (s *stream) ConnectFailed(err *weir.ConnectError) { s.end(err.Error()) }

// end tells the owner, once.
func (s *stream) end(reason string) {
	if s.loop.streams[s.number] != s {
		return
	}
	delete(s.loop.streams, s.number)
	if reason == "" {
		C.call_lost(&s.calls, s.arg, nil)
		return
	}
	text := C.CString(reason)
	defer C.free(unsafe.Pointer(text))
	C.call_lost(&s.calls, s.arg, text)
}
