package weir

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// netError is a sentinel that is also another error, so that errors.Is(err,
// net.ErrClosed) holds for our ErrClosed.
type netError struct {
	text string
	is   error
}

func (e *netError) Error() string { return e.text }
func (e *netError) Unwrap() error { return e.is }

var (
	// ErrClosed is returned by calls on something that was closed here or is lost. It
	// is net.ErrClosed too.
	ErrClosed error = &netError{"weir: use of closed transport", net.ErrClosed}
	// ErrAborted is ConnectionLost's reason after Abort here.
	ErrAborted = errors.New("weir: connection aborted here")
	// ErrWriteAfterEOF is returned by Write after WriteEOF.
	ErrWriteAfterEOF = errors.New("weir: write after WriteEOF")
	// ErrReaderGone is returned by Write once the reader of what is written has gone,
	// where that ends one direction alone: see WithSeparateEnds. It is net.ErrClosed
	// too, and what WriteFailed is told then is ErrReaderGone and syscall.EPIPE.
	ErrReaderGone error = &netError{"weir: no one reads what is written", ErrClosed}
	// ErrNoHalfClose is returned by WriteEOF where the transport cannot end
	// one direction alone.
	ErrNoHalfClose = errors.New("weir: transport cannot half-close")
	// ErrProducerRegistered is returned for a second producer.
	ErrProducerRegistered = errors.New("weir: transport has a producer already")
	// ErrBadMarks is returned for marks that are negative, above 1 GiB or out of order.
	ErrBadMarks = errors.New("weir: write marks must satisfy 0 <= low <= high <= 1 GiB")
	// ErrNoBuffer is the reason for a loss when ReadBuffer returned an empty slice:
	// see BufferedProtocol.
	ErrNoBuffer = errors.New("weir: ReadBuffer returned no memory")

	// ErrLoopClosed is returned by calls on a closed loop, and is the reason for
	// connections that its Close ended. It is net.ErrClosed too.
	ErrLoopClosed error = &netError{"weir: loop is closed", net.ErrClosed}
	// ErrLoopRunning is returned by Run, Turn and Close while the loop runs.
	ErrLoopRunning = errors.New("weir: loop is running")
	// ErrSourceRegistered is returned for a second registration of a source.
	ErrSourceRegistered = errors.New("weir: source is registered already")
	// ErrTenantClosed is in every *TenantError, the reason of everything that Tenant.Close ended.
	// It is net.ErrClosed too.
	ErrTenantClosed error = &netError{"weir: tenant is closed", ErrClosed}
	// ErrOtherLoop is returned where a tenant is used for something on a loop other than its own,
	// or for a listener of a group, which accepts for several; and where a listener is to
	// spread connections over a group that its loop is not in.
	ErrOtherLoop = errors.New("weir: the tenant or the group belongs to another loop")
	// ErrStopped is the reason for a connect that was stopped here.
	ErrStopped = errors.New("weir: connect stopped here")
)

// readerGoneError is EPIPE where only writing has ended because of it.
type readerGoneError struct{}

var errReaderGone error = readerGoneError{}

func (readerGoneError) Error() string { return syscall.EPIPE.Error() }

// Is makes errors.Is find ErrReaderGone and syscall.EPIPE, but not ErrClosed: nothing
// was closed here.
func (readerGoneError) Is(target error) bool {
	return target == ErrReaderGone || target == syscall.EPIPE //nolint:errorlint // it is what errors.Is asks
}

// ErrGoexit is reported to a caller waiting for a function's result if the function
// ended the loop's goroutine with runtime.Goexit, as testing's FailNow does.
var ErrGoexit = errors.New("weir: the function called runtime.Goexit")

// PanicError is the reason for a connection whose protocol panicked, and the error that
// the loop's error handler gets for a panic in a callback.
type PanicError struct {
	Where string // the callback: "DataReceived", "timer", ...
	Conn  string // the connection's name, or ""
	Value any    // what was passed to panic
	Stack []byte // the stack of the panic
}

func (e *PanicError) Error() string {
	if e.Conn == "" {
		return fmt.Sprintf("weir: panic in %s: %v", e.Where, e.Value)
	}
	return fmt.Sprintf("weir: panic in %s of %s: %v", e.Where, e.Conn, e.Value)
}

// Unwrap returns the panic's value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// UsedError is the reason when DataReceived returned a count that is out of range.
type UsedError struct {
	N, Len int
}

func (e *UsedError) Error() string {
	return fmt.Sprintf("weir: DataReceived says it used %d of %d bytes", e.N, e.Len)
}

// TailError is the reason when a protocol left more bytes unused than the
// transport keeps.
type TailError struct {
	Unused, Limit int // bytes
}

func (e *TailError) Error() string {
	return fmt.Sprintf("weir: protocol left %d bytes unused, the limit is %d (WithTailLimit)", e.Unused, e.Limit)
}

// UnusedError is the reason when the stream ended and the protocol had not
// used all of it. It is io.ErrUnexpectedEOF too.
type UnusedError struct {
	Unused int // bytes
}

func (e *UnusedError) Error() string {
	return fmt.Sprintf("weir: stream ended with %d bytes unused", e.Unused)
}

// Unwrap returns io.ErrUnexpectedEOF.
func (e *UnusedError) Unwrap() error { return io.ErrUnexpectedEOF }

// Stage is a step on the way to a connection.
type Stage string

// The stages of a connect.
const (
	StageName      Stage = "name"      // finding addresses for a name
	StageSocket    Stage = "socket"    // making and binding the socket
	StageConnect   Stage = "connect"   // connecting it
	StageProxy     Stage = "proxy"     // asking a proxy
	StageHandshake Stage = "handshake" // TLS and the like
)

// AttemptError is the failure of one address that was tried.
type AttemptError struct {
	Addr  net.Addr // nil if there is none yet
	Stage Stage
	Err   error
}

func (e *AttemptError) Error() string {
	err := e.Err
	if call, ok := err.(*os.SyscallError); ok && call.Syscall == string(e.Stage) { //nolint:errorlint // what wraps it says more
		err = call.Err // the stage already says which call it was
	}
	if e.Addr == nil {
		return fmt.Sprintf("%s: %v", e.Stage, err)
	}
	return fmt.Sprintf("%s: %s: %v", e.Addr, e.Stage, err)
}

// Unwrap returns the cause.
func (e *AttemptError) Unwrap() error { return e.Err }

// ConnectError is the failure of a connect, with everything that was tried.
type ConnectError struct {
	Network, Address string // as passed to Connect
	Stage            Stage  // the furthest stage that was reached
	Attempts         []*AttemptError
	Attempt          int   // which attempt of a Redialer it was, from 1; 0 for a plain Connect
	Err              error // the reason if no address was tried, or ErrStopped, or a timeout; else nil

	passed, asked bool // no one took it; the failure was requested
}

// Pass says that the protocol that gets the error in ConnectFailed does nothing with
// it; the loop's error handler, or its log, then gets it. Only the loop's goroutine may
// call it, within ConnectFailed.
func (e *ConnectError) Pass() { e.passed = true }

func (e *ConnectError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "weir: cannot connect to %s %s", e.Network, e.Address)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	sep := ": "
	for _, a := range e.Attempts {
		b.WriteString(sep)
		b.WriteString(a.Error())
		sep = ", "
	}
	return b.String()
}

// Unwrap returns every cause.
func (e *ConnectError) Unwrap() []error {
	var errs []error
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	for _, a := range e.Attempts {
		errs = append(errs, a)
	}
	return errs
}
