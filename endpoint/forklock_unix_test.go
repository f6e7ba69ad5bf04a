//go:build unix

package endpoint

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// TestDupWithoutForkLock: a descriptor is duplicated, close-on-exec, while a program is
// being started and its disk is slow: that holds syscall.ForkLock, and this is the loop.
func TestDupWithoutForkLock(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was not written
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	done := make(chan error, 1)
	go func() {
		fd, err := dupFD(int(f.Fd()))
		if err == nil && checkPassed(fd) == nil {
			t.Error("the duplicate is not close-on-exec")
		}
		closeFD(fd)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for a fork")
	}
}
