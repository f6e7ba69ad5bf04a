//go:build unix

package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/examples/internal/program"
)

var handed = flag.Int("handed", 2000, "how many connections TestHanded makes")

// ask makes a connection, asks and returns which process answered.
func ask(addr string) (pid int, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return 0, err
	}
	reply, err := io.ReadAll(c)
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(reply), "worker ")
	if !ok {
		return 0, fmt.Errorf("reply %q", reply)
	}
	return strconv.Atoi(strings.TrimSpace(rest))
}

// TestHanded: every connection is answered, by both workers, and after one is killed by
// the other; all of them end at SIGTERM.
func TestHanded(t *testing.T) {
	p := program.Run(t, "-n", "2")
	var mu sync.Mutex
	by := map[int]int{}
	each := func(n int) (errs []error) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range n / 8 {
					pid, err := ask(p.Addr)
					mu.Lock()
					if err != nil {
						errs = append(errs, err)
					} else {
						by[pid]++
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		return errs
	}
	if errs := each(*handed); len(errs) > 0 {
		t.Fatal(errs[0])
	}
	total := 0
	for _, n := range by {
		total += n
	}
	if len(by) != 2 || total != *handed/8*8 {
		t.Fatalf("answered by %v", by)
	}
	t.Logf("answered by %v", by)
	for pid := range by {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		delete(by, pid)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil; <-tick.C { // until it is reaped
			if time.Now().After(end) {
				t.Fatal("a worker that was killed goes on")
			}
		}
		break
	}
	// What is given to one that has died is lost with it, until the end of its socket is
	// noticed. The kernel ends io_uring's use of a socket some time after the process.
	for end := time.Now().Add(time.Minute); ; {
		errs := each(80)
		if len(errs) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal(errs[0])
		}
	}
	if len(by) != 1 {
		t.Errorf("answered by %v", by)
	}
	p.Terminate(t)
	if said := p.Ended(t); said != "" {
		t.Errorf("it said %q", said)
	}
}
