package backendtest

import (
	"syscall"
	"testing"
	"unsafe"
)

// Terminal opens a pseudo-terminal, whose ends are the caller's to close, or skips
// the test where there are none. Both ends are set to block.
func Terminal(t testing.TB) (master, slave int) {
	t.Helper()
	const peer = 0x5441 // TIOCGPTPEER, which package syscall lacks
	master, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("pseudo-terminals are missing: %v", err)
	}
	var locked int32
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(master), syscall.TIOCSPTLCK, uintptr(unsafe.Pointer(&locked))); errno != 0 {
		t.Fatal(errno)
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(master), peer, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	return master, int(fd)
}
