package weirtest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// descriptors returns the open descriptors by number.
func descriptors() map[string]descriptor {
	// The runtime's poller opens descriptors when it is first needed and keeps
	// them; a pipe makes that happen before we look.
	if r, w, err := os.Pipe(); err == nil {
		_ = r.Close()
		_ = w.Close()
	}
	const dir = "/proc/self/fd"
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	all := make(map[string]descriptor, len(names))
	for _, name := range names {
		what, err := os.Readlink(dir + "/" + name.Name())
		if err != nil || strings.HasPrefix(what, "/proc/") && strings.HasSuffix(what, "/fd") {
			continue // the directory being read
		}
		all[name.Name()] = descriptor{what, socketNames(name.Name(), what)}
	}
	return all
}

// socketNames says where a socket is bound and connected.
func socketNames(number, what string) string {
	fd, err := strconv.Atoi(number)
	if err != nil || !strings.HasPrefix(what, "socket:") {
		return ""
	}
	var s string
	if sa, err := syscall.Getsockname(fd); err == nil {
		s += " at " + sockaddr(sa)
	}
	if sa, err := syscall.Getpeername(fd); err == nil {
		s += " to " + sockaddr(sa)
	}
	return s
}

func sockaddr(sa syscall.Sockaddr) string {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return fmt.Sprintf("%d.%d.%d.%d:%d", sa.Addr[0], sa.Addr[1], sa.Addr[2], sa.Addr[3], sa.Port)
	case *syscall.SockaddrInet6:
		return fmt.Sprintf("[%x]:%d", sa.Addr, sa.Port)
	case *syscall.SockaddrUnix:
		return strconv.Quote(sa.Name)
	}
	return "an unknown address"
}
