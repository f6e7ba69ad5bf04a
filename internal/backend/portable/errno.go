package portable

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// The errors for a handle that is not what the Op takes it for, as the system would
// report them.
const (
	errBadHandle    = syscall.EBADF
	errBusy         = syscall.EBUSY
	errInvalid      = syscall.EINVAL
	errNotConnected = syscall.ENOTCONN
	errIsConnected  = syscall.EISCONN
	errPipe         = syscall.EPIPE
	errNotDatagram  = syscall.EOPNOTSUPP
)

var (
	zeroTime time.Time
	longAgo  = time.Unix(1, 0)
)

// A deadliner can be interrupted.
type deadliner interface{ SetDeadline(time.Time) error }

// errno gives the contract's error for one from package net: the system's number if
// there is one, under the name that the rest of the program compares with. Errors that
// do not come from the system stay as they are.
func errno(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return errPipe
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return systemErrno(e)
	}
	return err
}

// unmap writes an IPv4 address as such, even if a dual-stack socket reports it as IPv6.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
