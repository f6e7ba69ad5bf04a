// Package zmq runs sockets of libzmq in a weir loop, without polling.
//
//	ctx, err := zmq.NewContext()
//	s, err := zmq.Open(loop, ctx, zmq.PULL, zmq.Handler{Message: func(parts [][]byte) { … }})
//	err = s.Bind("tcp://127.0.0.1:5555")
//
// A socket of libzmq has a descriptor of an unusual kind: it is readable when something
// may have changed, and what changed must then be asked for (ZMQ_EVENTS). It is not
// readable because a message waits; a program that reads one message each time it is
// readable stops in the end, with messages in the queue. This package asks until nothing
// is left, and again after each send, and gives other connections of the loop their turn
// after every 64 messages.
package zmq

// #cgo pkg-config: libzmq
// #include <stdlib.h>
// #include "socket.h"
import "C"

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/weir-io/weir"
)

// Kinds of sockets.
const (
	PAIR   = C.ZMQ_PAIR
	PUB    = C.ZMQ_PUB
	SUB    = C.ZMQ_SUB
	REQ    = C.ZMQ_REQ
	REP    = C.ZMQ_REP
	DEALER = C.ZMQ_DEALER
	ROUTER = C.ZMQ_ROUTER
	PULL   = C.ZMQ_PULL
	PUSH   = C.ZMQ_PUSH
)

// messagesMost is how many messages are received in one turn, and partsMost how many parts
// one may have.
const (
	messagesMost = 64
	partsMost    = 1024
)

// ErrAgain is returned by Send if the socket takes no message now, because its queue is
// full or it has no peer. Handler.Writable follows.
var ErrAgain = errors.New("zmq: the socket takes no message now: wait for Writable")

// ErrParts is reported, and the message dropped, if it has more than 1024 parts.
var ErrParts = errors.New("zmq: a message of more than 1024 parts was dropped")

// A Context is a context of libzmq. Sockets share its threads.
type Context struct{ p unsafe.Pointer }

// NewContext makes a context.
func NewContext() (*Context, error) {
	p := C.zmq_ctx_new()
	if p == nil {
		return nil, errors.New("zmq: there is no memory for a context")
	}
	return &Context{p}, nil
}

// Close ends the context. It waits until its sockets are closed and what they hold was
// sent, as far as their LINGER allows; so close them first, and never call it on a loop
// that still has to close one.
func (c *Context) Close() { C.weir_zmq_term(c.p) }

// A Handler gets what happens to a socket, on the loop's goroutine.
type Handler struct {
	// Message gets a message. The parts are the receiver's.
	Message func(parts [][]byte)
	// Writable is called after a Send that returned ErrAgain, once the socket takes
	// messages again; it may be nil.
	Writable func()
}

// Counts are what a socket has done.
type Counts struct {
	Received, Sent int
	Wakes          int // how often its descriptor was readable, or a batch was continued
	Empty          int // after how many of those there was nothing to do
}

// A Socket is a socket of libzmq in a loop; it is a weir.Source. All of its methods are for
// the loop's goroutine.
type Socket struct {
	loop    *weir.Loop
	p       unsafe.Pointer
	h       Handler
	wake    func()
	watch   *weir.Watch
	blocked bool // Send returned ErrAgain
	done    bool
	counts  Counts
	message *C.zmq_msg_t // libzmq keeps pointers in it: it is not Go's memory
}

// Open makes a socket and adds it to the loop. Close ends it, or the loop's Close does.
func Open(loop *weir.Loop, ctx *Context, kind int, h Handler) (*Socket, error) {
	p, err := C.zmq_socket(ctx.p, C.int(kind))
	if p == nil {
		return nil, fmt.Errorf("zmq: socket: %w", err)
	}
	s := &Socket{loop: loop, p: p, h: h, message: (*C.zmq_msg_t)(C.malloc(C.sizeof_zmq_msg_t))}
	if err := loop.AddSource(s); err != nil {
		C.zmq_close(p)
		C.free(unsafe.Pointer(s.message))
		return nil, err
	}
	return s, nil
}

// Attach is for Loop.AddSource.
func (s *Socket) Attach(wake func()) error {
	s.wake = wake
	fd, err := result("descriptor", C.weir_zmq_fd(s.p))
	if err != nil {
		return err
	}
	// The watch calls again while the descriptor is readable: asking for the events
	// makes it quiet.
	s.watch, err = s.loop.Watch(fd, weir.EventRead, func(weir.Events) { s.Dispatch() })
	return err
}

// Detach is for Loop.RemoveSource.
func (s *Socket) Detach() {
	s.done = true
	if s.watch != nil {
		s.watch.Remove()
	}
	C.zmq_close(s.p)
	C.free(unsafe.Pointer(s.message))
}

// Close ends the socket. Messages that were sent leave as far as its LINGER allows. Calling
// it again has no effect.
func (s *Socket) Close() {
	if !s.done {
		_ = s.loop.RemoveSource(s)
	}
}

// Dispatch is for the loop: it receives messages, at most messagesMost.
func (s *Socket) Dispatch() {
	if s.done {
		return
	}
	s.counts.Wakes++
	did, quiet := false, false
	defer func() {
		// The descriptor does not say that more is waiting, after a panic neither.
		if !quiet && !s.done {
			s.wake()
		}
	}()
	for range messagesMost {
		events, err := result("events", C.weir_zmq_events(s.p))
		if err != nil {
			s.loop.Report(err)
			s.Close()
			return
		}
		if s.blocked && events&C.ZMQ_POLLOUT != 0 {
			s.blocked, did = false, true
			if s.h.Writable != nil {
				s.h.Writable()
			}
			if s.done {
				return
			}
			continue
		}
		if events&C.ZMQ_POLLIN == 0 {
			if !did {
				s.counts.Empty++
			}
			quiet = true
			return
		}
		did = true
		parts, err := s.receive()
		if err != nil {
			s.loop.Report(err)
			continue
		}
		s.counts.Received++
		if s.h.Message != nil {
			s.h.Message(parts)
		}
		if s.done {
			return
		}
	}
}

// receive reads all parts of a message.
func (s *Socket) receive() ([][]byte, error) {
	var parts [][]byte
	for n := 0; ; n++ {
		C.zmq_msg_init(s.message)
		if _, err := result("receive", C.weir_zmq_receive(s.p, s.message)); err != nil {
			C.zmq_msg_close(s.message)
			return nil, err
		}
		if n < partsMost {
			parts = append(parts, C.GoBytes(C.zmq_msg_data(s.message), C.int(C.zmq_msg_size(s.message))))
		}
		more := C.zmq_msg_more(s.message) != 0
		C.zmq_msg_close(s.message)
		if !more {
			if n >= partsMost {
				return nil, ErrParts
			}
			return parts, nil
		}
	}
}

// Send queues a message, which is copied; it never waits. ErrAgain: it was not taken.
func (s *Socket) Send(parts ...[]byte) error {
	if s.done {
		return weir.ErrClosed
	}
	for i, p := range parts {
		flags := 0
		if i < len(parts)-1 {
			flags = C.ZMQ_SNDMORE
		}
		_, err := result("send", C.weir_zmq_send(s.p, unsafe.Pointer(unsafe.SliceData(p)), C.size_t(len(p)), C.int(flags)))
		if errors.Is(err, syscall.EAGAIN) {
			s.blocked = true
			s.wake() // it may have become writable since
			return ErrAgain
		}
		if err != nil {
			return err
		}
	}
	s.counts.Sent++
	// Sending takes the event out of the descriptor that a message has come.
	if events, err := result("events", C.weir_zmq_events(s.p)); err == nil && events&C.ZMQ_POLLIN != 0 {
		s.wake()
	}
	return nil
}

// Bind listens at an endpoint of libzmq: "tcp://127.0.0.1:5555", "ipc:///path", "inproc://x".
func (s *Socket) Bind(endpoint string) error {
	return s.with(endpoint, func(e *C.char) C.int { return C.weir_zmq_bind(s.p, e) })
}

// Connect connects to an endpoint of libzmq; it does not wait.
func (s *Socket) Connect(endpoint string) error {
	return s.with(endpoint, func(e *C.char) C.int { return C.weir_zmq_connect(s.p, e) })
}

func (s *Socket) with(endpoint string, f func(*C.char) C.int) error {
	if s.done {
		return weir.ErrClosed
	}
	e := C.CString(endpoint)
	defer C.free(unsafe.Pointer(e))
	if _, err := result(endpoint, f(e)); err != nil {
		return err
	}
	// Binding and connecting change the events too.
	s.wake()
	return nil
}

// Endpoint is where the last Bind listens.
func (s *Socket) Endpoint() string {
	var b [256]C.char
	n := C.size_t(len(b))
	if s.done || C.zmq_getsockopt(s.p, C.ZMQ_LAST_ENDPOINT, unsafe.Pointer(&b[0]), &n) != 0 {
		return ""
	}
	return C.GoString(&b[0])
}

// SetInt sets an option that is a number, such as SendMark.
func (s *Socket) SetInt(option, value int) error {
	if s.done {
		return weir.ErrClosed
	}
	_, err := result(fmt.Sprintf("option %d", option), C.weir_zmq_set(s.p, C.int(option), C.int(value)))
	return err
}

// Options for SetInt.
const (
	Linger      = C.ZMQ_LINGER // milliseconds
	SendMark    = C.ZMQ_SNDHWM // messages
	ReceiveMark = C.ZMQ_RCVHWM
)

// Counts is what the socket has done so far.
func (s *Socket) Counts() Counts { return s.counts }

func result(what string, r C.int) (int, error) {
	if r < 0 {
		return 0, fmt.Errorf("zmq: %s: %w", what, number(-r))
	}
	return int(r), nil
}

// number makes an error of an errno. libzmq has some of its own, which are no system's.
func number(n C.int) error {
	if n >= C.ZMQ_HAUSNUMERO {
		return errors.New(C.GoString(C.zmq_strerror(n)))
	}
	return syscall.Errno(n)
}
