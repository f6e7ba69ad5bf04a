package main

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestWithoutForkLock: nothing that the command does on its loop waits for a program that
// is being started from a slow disk, which holds syscall.ForkLock.
func TestWithoutForkLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // it was only read
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }() // nothing was written
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if fd, err := dup(int(w.Fd())); err != nil {
			t.Error(err)
		} else {
			closeDup(fd)
		}
		if fd, err := move(r, -1); err != nil {
			t.Error(err)
		} else {
			closeDup(fd)
		}
		if sendDatagram(path, "READY=1") {
			t.Error("there was no room")
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a fork")
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("%q, %v", b[:n], err)
	}
}
