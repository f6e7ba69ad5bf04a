package netconn

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/weir-io/weir"
)

// Attach makes a transport of another library's connection: an SSH channel, a QUIC
// stream, a serial port, a crypto/tls connection, either end of net.Pipe, a pair of
// pipes. On success conn belongs to the transport and is closed with it. If f refuses
// the connection, conn is closed too and the error is weir.ErrClosed. Only the loop's
// goroutine may call it, as with Loop.Attach.
//
// A *net.TCPConn or *net.UnixConn hands over its descriptor if the backend takes
// descriptors, and then costs nothing more. Everything else gets two goroutines, one
// that blocks in Read and one that blocks in Write, with at most 64 KiB between each of
// them and the loop; they end when conn is closed, which must make a Read or Write in
// progress return. A type whose Close does less than that needs a wrapper: quic-go's
// Stream.Close ends only writing, and belongs in the wrapper's CloseWrite.
//
// The transport can end writing alone if conn has a CloseWrite method. An Abort
// resets the connection if conn has a SetLinger or an Abort method. conn is
// found with As[Foreigner].
func Attach(l *weir.Loop, conn io.ReadWriteCloser, f weir.Factory, opts ...weir.StreamOption) (weir.Transport, error) {
	t, err := handOver(l, conn, f, opts)
	if !errors.Is(err, errNotHanded) {
		return t, err
	}
	return carry(l, conn, f, opts)
}

// errNotHanded says that conn has no descriptor for the loop to take.
var errNotHanded = errors.New("netconn: no descriptor to hand over")

// Foreigner is the ability, of a transport that Attach made with goroutines, to give
// access to the connection behind it. Reading, writing and closing that connection are
// the transport's business.
type Foreigner interface {
	Foreign() io.ReadWriteCloser
}

// Pauses between tries of Serve when a listener has failed temporarily.
const (
	serveRetryMin = 5 * time.Millisecond
	serveRetryMax = time.Second
)

// Serve accepts connections from another library's listener and attaches each to l, on
// the calling goroutine, until ctx ends or Accept fails for good, for example because
// ln is closed. It returns ctx's reason or Accept's error. Closing ln is left to the
// caller, except that the end of ctx closes it. No connection is accepted while one
// waits for the loop.
func Serve(ctx context.Context, l *weir.Loop, ln net.Listener, f weir.Factory, opts ...weir.StreamOption) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	retry := serveRetryMin
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return context.Cause(ctx)
		}
		if temporary(err) {
			select {
			case <-time.After(retry):
			case <-ctx.Done():
			}
			retry = min(2*retry, serveRetryMax)
			continue
		}
		if err != nil {
			return err
		}
		retry = serveRetryMin
		_, err = Call(ctx, l, func() (struct{}, error) {
			if _, err := Attach(l, conn, f, opts...); err != nil && !errors.Is(err, weir.ErrClosed) {
				_ = conn.Close()
				return struct{}{}, err
			}
			return struct{}{}, nil
		})
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, weir.ErrLoopClosed) {
				_ = conn.Close()
			}
			return err
		}
	}
}

// temporary reports whether a failed Accept may work later: a shortage of
// descriptors, a connection that went away.
func temporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}
