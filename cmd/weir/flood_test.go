package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// flood opens n connections to addr, says one line on each and reads it back,
// keeps all of them open until standard input ends, and then checks each again.
func flood(addr, n string) {
	count, err := strconv.Atoi(n)
	fail := func(what string, err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, what, err)
			os.Exit(1)
		}
	}
	fail("count", err)
	conns := make([]net.Conn, count)
	talk := func() {
		for i, c := range conns {
			line := fmt.Sprintf("line of %d\n", i)
			fail("deadline", c.SetDeadline(time.Now().Add(patience)))
			_, err := io.WriteString(c, line)
			fail("write", err)
			got := make([]byte, len(line))
			_, err = io.ReadFull(c, got)
			fail("read", err)
			if string(got) != line {
				fail("echo", fmt.Errorf("%q came back for %q", got, line))
			}
		}
	}
	for i := range conns {
		// One source address does not have enough ports for all of them and those just closed.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%4))}, Timeout: patience, Control: lateBind}
		conns[i], err = d.Dial("tcp", addr)
		fail("dial", err)
	}
	talk()
	fmt.Println("all open")
	_, err = io.Copy(io.Discard, os.Stdin)
	fail("wait", err)
	talk()
	fmt.Println("all served")
	os.Exit(0)
}
