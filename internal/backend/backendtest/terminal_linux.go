package backendtest

import (
	"strconv"
	"testing"

	kernel "golang.org/x/sys/unix"
)

// Terminal opens a pseudo-terminal, whose ends the caller closes, or skips the test if
// there are none. Both ends are in blocking mode.
func Terminal(t testing.TB) (master, slave int) {
	t.Helper()
	master, err := kernel.Open("/dev/ptmx", kernel.O_RDWR|kernel.O_NOCTTY|kernel.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("pseudo-terminals are missing: %v", err)
	}
	if err := kernel.IoctlSetPointerInt(master, kernel.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := kernel.IoctlGetInt(master, kernel.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = kernel.Open("/dev/pts/"+strconv.Itoa(number), kernel.O_RDWR|kernel.O_NOCTTY|kernel.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}
