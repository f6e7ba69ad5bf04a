package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/race"
)

// anonymous is how many bytes of its own memory a process has.
func anonymous(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Skip(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Anonymous:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Skip("this system does not say how much memory a process has")
	return 0
}

// TestIdleMemory: a relayed connection that is idle takes no more than 2,500 bytes of the
// process, a little while after a rush of them: nothing that was only there to connect is kept,
// and garbage is given back (R79).
func TestIdleMemory(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector takes memory of its own")
	}
	if os.Getenv("WEIR_BACKEND") == "portable" {
		t.Skip("portable has goroutines for each connection, with stacks of their own")
	}
	const few, all, most = 200, 2200, 2500
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur < 3*all {
		t.Skipf("%d descriptors at most: %v", r.Cur, err)
	}
	echo := server(t, func(c *net.TCPConn) {
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	})
	p := start(t, "tcp-listen:127.0.0.1:0,per-address=none", echo)
	addr := p.listening()
	n := 0
	connect := func(until int) {
		for ; n < until; n++ {
			if !served(dialFrom(t, "127.0.0.1", addr)) {
				t.Fatalf("connection %d is not served", n)
			}
		}
	}
	connect(few)
	before := anonymous(t, p.Process.Pid)
	connect(all)
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(patience); ; <-look.C {
		each := (anonymous(t, p.Process.Pid) - before) / (all - few)
		if each <= most {
			t.Logf("%d bytes each", each)
			return
		}
		if time.Now().After(end) {
			t.Fatalf("an idle connection takes %d bytes, the limit is %d", each, most)
		}
	}
}
