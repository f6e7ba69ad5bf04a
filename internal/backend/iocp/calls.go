//go:build windows

package iocp

import (
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// calls are the addresses of the system's functions that Ops need. Package windows has most
// of them too, but wraps each error number in an interface, which allocates for Winsock's,
// and "would have to wait" is the commonest answer of all.
type calls struct {
	getQueued uintptr // GetQueuedCompletionStatusEx
	send      uintptr // WSASend
	recv      uintptr // WSARecv
	sendTo    uintptr // WSASendTo
	recvFrom  uintptr // WSARecvFrom
	control   uintptr // NtDeviceIoControlFile
	cancel    uintptr // CancelIoEx
	modes     uintptr // SetFileCompletionNotificationModes
	connectEx uintptr
	acceptEx  uintptr
	names     uintptr // GetAcceptExSockaddrs
}

// load finds the functions. s is any socket of TCP: ConnectEx and its like belong to a
// socket's provider and are asked for through it.
func (c *calls) load(s windows.Handle) error {
	for _, f := range []struct {
		at        *uintptr
		dll, name string
	}{
		{&c.getQueued, "kernel32.dll", "GetQueuedCompletionStatusEx"},
		{&c.cancel, "kernel32.dll", "CancelIoEx"},
		{&c.modes, "kernel32.dll", "SetFileCompletionNotificationModes"},
		{&c.send, "ws2_32.dll", "WSASend"},
		{&c.recv, "ws2_32.dll", "WSARecv"},
		{&c.sendTo, "ws2_32.dll", "WSASendTo"},
		{&c.recvFrom, "ws2_32.dll", "WSARecvFrom"},
		{&c.control, "ntdll.dll", "NtDeviceIoControlFile"},
	} {
		p := windows.NewLazySystemDLL(f.dll).NewProc(f.name)
		if err := p.Find(); err != nil {
			return fmt.Errorf("iocp: %w", err)
		}
		*f.at = p.Addr()
	}
	var err error
	if c.connectEx, err = extension(s, windows.WSAID_CONNECTEX); err != nil {
		return fmt.Errorf("iocp: ConnectEx: %w", err)
	}
	id := windows.GUID{ // WSAID_ACCEPTEX
		Data1: 0xb5367df1, Data2: 0xcbac, Data3: 0x11cf,
		Data4: [8]byte{0x95, 0xca, 0x00, 0x80, 0x5f, 0x48, 0xa1, 0x92},
	}
	if c.acceptEx, err = extension(s, id); err != nil {
		return fmt.Errorf("iocp: AcceptEx: %w", err)
	}
	id.Data1 = 0xb5367df2 // WSAID_GETACCEPTEXSOCKADDRS
	if c.names, err = extension(s, id); err != nil {
		return fmt.Errorf("iocp: GetAcceptExSockaddrs: %w", err)
	}
	return nil
}

// extension asks the provider of s for a function.
func extension(s windows.Handle, id windows.GUID) (addr uintptr, err error) {
	var n uint32
	err = windows.WSAIoctl(s, windows.SIO_GET_EXTENSION_FUNCTION_POINTER,
		(*byte)(unsafe.Pointer(&id)), uint32(unsafe.Sizeof(id)),
		(*byte)(unsafe.Pointer(&addr)), uint32(unsafe.Sizeof(addr)), &n, nil, 0)
	return addr, err
}

// outcome is the error number of a Winsock call that returned r1: 0 is success.
func outcome(r1 uintptr, e1 syscall.Errno) syscall.Errno {
	switch {
	case int32(r1) == 0:
		return 0
	case e1 == 0:
		return windows.WSAEINVAL
	default:
		return e1
	}
}

// sendNow sends what there is room for, without waiting.
func (c *calls) sendNow(s windows.Handle, bufs []windows.WSABuf) (int, syscall.Errno) {
	var n uint32
	r1, _, e1 := syscall.SyscallN(c.send, uintptr(s), uintptr(unsafe.Pointer(&bufs[0])), uintptr(len(bufs)),
		uintptr(unsafe.Pointer(&n)), 0, 0, 0)
	return int(n), outcome(r1, e1)
}

// recvNow takes what is there, without waiting. The number is 0 at the end of the stream.
func (c *calls) recvNow(s windows.Handle, buf *windows.WSABuf) (int, syscall.Errno) {
	var n, flags uint32
	r1, _, e1 := syscall.SyscallN(c.recv, uintptr(s), uintptr(unsafe.Pointer(buf)), 1,
		uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&flags)), 0, 0)
	return int(n), outcome(r1, e1)
}

// recvFromNow takes one datagram. With WSAEMSGSIZE the buffer is full of the beginning of a
// longer one.
func (c *calls) recvFromNow(s windows.Handle, buf *windows.WSABuf, from *sockaddr) (int, syscall.Errno) {
	var n, flags uint32
	from.size = int32(len(from.raw))
	r1, _, e1 := syscall.SyscallN(c.recvFrom, uintptr(s), uintptr(unsafe.Pointer(buf)), 1,
		uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&flags)),
		uintptr(unsafe.Pointer(&from.raw)), uintptr(unsafe.Pointer(&from.size)), 0, 0)
	return int(n), outcome(r1, e1)
}

// sendToNow sends one datagram, to the socket's peer if to is nil.
func (c *calls) sendToNow(s windows.Handle, bufs []windows.WSABuf, to *sockaddr) (int, syscall.Errno) {
	if to == nil {
		return c.sendNow(s, bufs)
	}
	var n uint32
	r1, _, e1 := syscall.SyscallN(c.sendTo, uintptr(s), uintptr(unsafe.Pointer(&bufs[0])), uintptr(len(bufs)),
		uintptr(unsafe.Pointer(&n)), 0, uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size), 0, 0)
	return int(n), outcome(r1, e1)
}

// The calls below begin what a packet at the port ends. windows.ERROR_IO_PENDING, or 0
// unless the socket skips packets for what succeeds at once, means that the packet comes.

// startProbe begins a receive of no bytes: it ends when there is something to receive.
func (c *calls) startProbe(s windows.Handle, sl *slot) syscall.Errno {
	var n, flags uint32
	r1, _, e1 := syscall.SyscallN(c.recv, uintptr(s), uintptr(unsafe.Pointer(&sl.none)), 1,
		uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&flags)), uintptr(unsafe.Pointer(&sl.ov)), 0)
	return outcome(r1, e1)
}

func (c *calls) startSend(s windows.Handle, sl *slot) syscall.Errno {
	a := sl.aux
	r1, _, e1 := syscall.SyscallN(c.send, uintptr(s), uintptr(unsafe.Pointer(&a.bufs[0])), uintptr(a.n),
		0, 0, uintptr(unsafe.Pointer(&sl.ov)), 0)
	return outcome(r1, e1)
}

func (c *calls) startSendTo(s windows.Handle, sl *slot, connected bool) syscall.Errno {
	if connected {
		return c.startSend(s, sl)
	}
	a := sl.aux
	r1, _, e1 := syscall.SyscallN(c.sendTo, uintptr(s), uintptr(unsafe.Pointer(&a.bufs[0])), uintptr(a.n),
		0, 0, uintptr(unsafe.Pointer(&a.addr.raw)), uintptr(a.addr.size), uintptr(unsafe.Pointer(&sl.ov)), 0)
	return outcome(r1, e1)
}

// truth is the error number of a call that returns TRUE when it succeeds.
func truth(r1 uintptr, e1 syscall.Errno) syscall.Errno {
	switch {
	case int32(r1) != 0:
		return 0
	case e1 == 0:
		return windows.WSAEINVAL
	default:
		return e1
	}
}

func (c *calls) startConnect(s windows.Handle, sl *slot) syscall.Errno {
	a := sl.aux
	r1, _, e1 := syscall.SyscallN(c.connectEx, uintptr(s), uintptr(unsafe.Pointer(&a.addr.raw)), uintptr(a.addr.size),
		0, 0, 0, uintptr(unsafe.Pointer(&sl.ov)))
	return truth(r1, e1)
}

// acceptRoom is what AcceptEx wants for each of the two addresses.
const acceptRoom = 28 + 16

func (c *calls) startAccept(s windows.Handle, sl *slot) syscall.Errno {
	a := sl.aux
	r1, _, e1 := syscall.SyscallN(c.acceptEx, uintptr(s), uintptr(a.accepted), uintptr(unsafe.Pointer(&a.names)),
		0, acceptRoom, acceptRoom, uintptr(unsafe.Pointer(&a.got)), uintptr(unsafe.Pointer(&sl.ov)))
	return truth(r1, e1)
}

// namesOf returns the addresses of what AcceptEx accepted.
func (c *calls) namesOf(names *[2 * acceptRoom]byte) (local, peer netip.AddrPort) {
	var at [2]*windows.RawSockaddrAny
	var size [2]int32
	syscall.SyscallN(c.names, uintptr(unsafe.Pointer(names)), 0, acceptRoom, acceptRoom,
		uintptr(unsafe.Pointer(&at[0])), uintptr(unsafe.Pointer(&size[0])),
		uintptr(unsafe.Pointer(&at[1])), uintptr(unsafe.Pointer(&size[1])))
	return rawAddr(at[0], size[0]), rawAddr(at[1], size[1])
}

const (
	statusPending = 0x103
	statusCancel  = 0xc0000120
)

// startPoll asks for the events of the socket: what select is made of below Winsock.
// It returns an NTSTATUS.
func (c *calls) startPoll(s windows.Handle, sl *slot) uint32 {
	p := &sl.aux.poll
	// The system stores the status and the size in the first two words of the OVERLAPPED.
	r1, _, _ := syscall.SyscallN(c.control, uintptr(s), 0, 0, uintptr(unsafe.Pointer(&sl.ov)),
		uintptr(unsafe.Pointer(&sl.ov)), ioctlPoll,
		uintptr(unsafe.Pointer(p)), unsafe.Sizeof(*p), uintptr(unsafe.Pointer(p)), unsafe.Sizeof(*p))
	return uint32(r1)
}

// stop asks the system to end what sl began. Its packet comes either way.
func (c *calls) stop(s windows.Handle, sl *slot) {
	syscall.SyscallN(c.cancel, uintptr(s), uintptr(unsafe.Pointer(&sl.ov)))
}

// stopAll does that to everything on s.
func (c *calls) stopAll(s windows.Handle) { syscall.SyscallN(c.cancel, uintptr(s), 0) }

// skipOnSuccess has the system post no packet for what succeeds at once.
func (c *calls) skipOnSuccess(s windows.Handle) syscall.Errno {
	r1, _, e1 := syscall.SyscallN(c.modes, uintptr(s),
		windows.FILE_SKIP_COMPLETION_PORT_ON_SUCCESS|windows.FILE_SKIP_SET_EVENT_ON_HANDLE)
	return truth(r1, e1)
}

// packet is an OVERLAPPED_ENTRY.
type packet struct {
	key      uintptr
	ov       *windows.Overlapped
	internal uintptr
	n        uint32
}

// dequeue takes packets from the port. The timeout is in milliseconds.
func (c *calls) dequeue(port windows.Handle, into []packet, timeout uint32) (int, syscall.Errno) {
	var n uint32
	r1, _, e1 := syscall.SyscallN(c.getQueued, uintptr(port), uintptr(unsafe.Pointer(&into[0])), uintptr(len(into)),
		uintptr(unsafe.Pointer(&n)), uintptr(timeout), 0)
	if errno := truth(r1, e1); errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
