package sys

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// WindowsErrno gives Winsock's and the pipes' errors the names that portable code
// compares with: package syscall's own for Windows are numbers that no call
// returns.
func WindowsErrno(e syscall.Errno) error {
	switch e {
	case windows.WSAECONNRESET, windows.ERROR_NETNAME_DELETED:
		return syscall.ECONNRESET
	case windows.WSAECONNABORTED, windows.ERROR_CONNECTION_ABORTED:
		return syscall.ECONNABORTED
	case windows.WSAECONNREFUSED, windows.ERROR_CONNECTION_REFUSED:
		return syscall.ECONNREFUSED
	case windows.WSAETIMEDOUT, windows.ERROR_SEM_TIMEOUT:
		return syscall.ETIMEDOUT
	case windows.WSAEADDRINUSE:
		return syscall.EADDRINUSE
	case windows.WSAEADDRNOTAVAIL:
		return syscall.EADDRNOTAVAIL
	case windows.WSAENETUNREACH, windows.ERROR_NETWORK_UNREACHABLE:
		return syscall.ENETUNREACH
	case windows.WSAEHOSTUNREACH, windows.ERROR_HOST_UNREACHABLE:
		return syscall.EHOSTUNREACH
	case windows.WSAEAFNOSUPPORT:
		return syscall.EAFNOSUPPORT
	case windows.WSAEACCES:
		return syscall.EACCES
	case windows.WSAEMFILE:
		return syscall.EMFILE
	case windows.WSAENOBUFS:
		return syscall.ENOBUFS
	case windows.WSAENOTCONN:
		return syscall.ENOTCONN
	case windows.WSAEISCONN:
		return syscall.EISCONN
	case windows.WSAEMSGSIZE:
		return syscall.EMSGSIZE
	case windows.WSAESHUTDOWN, windows.ERROR_BROKEN_PIPE, windows.ERROR_NO_DATA:
		return syscall.EPIPE
	case windows.WSAEINVAL:
		return syscall.EINVAL
	}
	return e
}
