package main

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// freePort is a loopback address on which nothing listens, neither there nor on the
// same port of ::1. To listen on it, ask for its number. Until the test ends the
// system picks it for no one else: a socket that does not listen holds it.
func freePort(t *testing.T) string {
	t.Helper()
	for {
		port, err := holdPort(t, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		_, err = holdPort(t, &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}, unix.AF_INET6)
		if !errors.Is(err, unix.EADDRINUSE) { // otherwise another port has both
			return fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
}

// holdPort binds a socket, for as long as the test takes, and returns its port.
func holdPort(t *testing.T, at unix.Sockaddr, family int) (int, error) {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	// With it on both, a listening socket may share the port of one that does not listen.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, at); err != nil {
		return 0, err
	}
	return boundPort(fd)
}

func boundPort(fd int) (int, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return name.Port, nil
	case *unix.SockaddrInet6:
		return name.Port, nil
	}
	return 0, fmt.Errorf("%T has no port", name)
}

// fullListener listens on a port whose queue has no room, as the system itself says:
// a client that connects waits for an answer that never comes, as behind a firewall
// that drops packets.
func fullListener(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	port, err := boundPort(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for range 100 {
		// For a listener these two are how many wait, and how many may wait before it is full.
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		if info.Unacked > info.Sacked {
			return addr
		}
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Skip("this system's queue has no end")
	return ""
}
