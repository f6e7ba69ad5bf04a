package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// startServer runs this program as a server and returns its address.
func startServer() (at string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self, "-serve")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { _, _ = in.Close(), cmd.Wait() }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("the server says nothing: %w", err)
	}
	return strings.TrimSpace(line), stop, nil
}

// refuse turns a query into the reply that there is no such name.
func refuse(msg []byte) {
	msg[2], msg[3] = msg[2]|0x80, 0x83
}

const headerSize = 12

// onePort listens on one port for UDP and TCP: a port that is free for one may be
// taken for the other.
func onePort() (udp *net.UDPConn, tcp net.Listener, err error) {
	for range 20 {
		if udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			return nil, nil, err
		}
		if tcp, err = net.Listen("tcp4", udp.LocalAddr().String()); err == nil {
			return udp, tcp, nil
		}
		if err := udp.Close(); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, err
}

// serve answers every query with no such name, until standard input ends.
func serve() error {
	udp, tcp, err := onePort()
	if err != nil {
		return err
	}
	fmt.Println(udp.LocalAddr())
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n >= headerSize {
				refuse(buf)
				_, _ = udp.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go serveTCP(c)
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, udp.Close(), tcp.Close())
}

// serveTCP answers all queries that are there with one write.
func serveTCP(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReaderSize(c, 64<<10)
	var replies []byte
	for {
		head, err := r.Peek(2)
		if err != nil {
			return
		}
		n := 2 + int(binary.BigEndian.Uint16(head))
		at := len(replies)
		replies = append(replies, make([]byte, n)...)
		if _, err := io.ReadFull(r, replies[at:]); err != nil || n < 2+headerSize {
			return
		}
		refuse(replies[at+2:])
		if r.Buffered() == 0 {
			if _, err := c.Write(replies); err != nil {
				return
			}
			replies = replies[:0]
		}
	}
}

// askFloor makes the system calls of a query with a socket and a port of its own,
// on one thread, and does not look at the replies.
func askFloor(at netip.AddrPort) (asked, failed int, err error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = unix.Close(ep) }()
	to := &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	query := []byte("\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05n1234\x04load\x04test\x00\x00\x01\x00\x01")
	ask := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1),
			unix.Bind(fd, &unix.SockaddrInet4{}),
			unix.Sendto(fd, query, 0, to),
			unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
	}
	for range *depth {
		if err := ask(); err != nil {
			return asked, 0, err
		}
	}
	buf := make([]byte, 4096)
	events := make([]unix.EpollEvent, *depth)
	for under, until := *depth, time.Now().Add(*length); under > 0; {
		n, err := unix.EpollWait(ep, events, 1000)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return asked, under, err
		}
		if n == 0 {
			return asked, under, nil // a query or its reply was lost
		}
		over := time.Now().After(until)
		for _, e := range events[:max(n, 0)] {
			_, _, err := unix.Recvfrom(int(e.Fd), buf, 0)
			if err := errors.Join(err, unix.Close(int(e.Fd))); err != nil {
				return asked, under, err
			}
			asked++
			if over {
				under--
			} else if err := ask(); err != nil {
				return asked, under, err
			}
		}
	}
	return asked, 0, nil
}
