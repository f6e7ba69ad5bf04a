//go:build unix

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
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
		return 0, fmt.Errorf("the reply %q has no worker", reply)
	}
	return strconv.Atoi(strings.TrimSpace(rest))
}

// sockets counts those of each process: Go opens others when it likes, for its own poller.
// If want is not nil it waits, for a while, until there are so many.
func sockets(t *testing.T, pids, want []int) (have []int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		have = have[:0]
		for _, pid := range pids {
			all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if errors.Is(err, fs.ErrNotExist) {
				return nil // not Linux
			}
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, d := range all {
				if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, d.Name())); err == nil && strings.HasPrefix(to, "socket:") {
					n++
				}
			}
			have = append(have, n)
		}
		if want == nil || slices.Equal(have, want) || time.Now().After(end) {
			return have
		}
	}
}

// TestHanded: no descriptor is left in any process; every connection is answered, by both workers, and after one is killed by
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
	// A first few start what each process keeps, such as the ring of its loop.
	if errs := each(80); len(errs) > 0 || len(by) != 2 {
		t.Fatal(by, errs)
	}
	processes := []int{p.PID()}
	for pid := range by {
		processes = append(processes, pid)
	}
	before := sockets(t, processes, nil)
	clear(by)
	if errs := each(*handed); len(errs) > 0 {
		t.Fatal(errs[0])
	}
	// A connection is closed here before it is there.
	if after := sockets(t, processes, before); !slices.Equal(before, after) {
		t.Errorf("sockets of the processes %v: %v before, and %v after", processes, before, after)
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
