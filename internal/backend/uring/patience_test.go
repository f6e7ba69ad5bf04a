//go:build linux

package uring

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// An Op that waits must wait for something that can change. The kernel's polls also
// report the end of the peer's writing and urgent bytes, for as long as they are there,
// though neither helps a write or a read: an Op that is submitted again each time would
// take a whole processor within one Wait.
func TestPatience(t *testing.T) {
	type test struct {
		name  string
		tcp   bool
		setup func(r *rig, h backend.Handle, peer int) *backend.Op
		free  func(r *rig, peer int) // makes op's result come
	}
	halfClosed := func(r *rig, h backend.Handle, peer int) {
		if err := unix.Shutdown(peer, unix.SHUT_WR); err != nil {
			r.tb.Fatal(err)
		}
		end := r.arm(&backend.Op{Kind: backend.Read, Handle: h})
		r.until("end of the peer's writing", func() bool { return r.buf[end].ended })
	}
	// fill writes until nothing more fits, and returns a write that waits.
	fill := func(r *rig, h backend.Handle, f backend.Flags) *backend.Op {
		for _, p := range [][]byte{pattern(64<<10, 1), {1}} {
			for {
				if _, err := unix.SendmsgN(int(h), p, nil, nil, unix.MSG_DONTWAIT); err == unix.EAGAIN {
					break
				} else if err != nil {
					r.tb.Fatal(err)
				}
			}
		}
		return r.write(h, f, pattern(1<<20, 1))
	}
	drain := func(r *rig, peer int) {
		buf := make([]byte, 64<<10)
		for {
			if _, _, err := unix.Recvfrom(peer, buf, unix.MSG_DONTWAIT); err == unix.EAGAIN {
				return
			} else if err != nil {
				r.tb.Fatal(err)
			}
		}
	}
	urgent := func(r *rig, peer int) {
		if err := unix.Sendto(peer, []byte("!"), unix.MSG_OOB, nil); err != nil {
			r.tb.Fatal(err)
		}
	}
	tests := []test{
		{"ready to write", false, func(r *rig, h backend.Handle, peer int) *backend.Op {
			halfClosed(r, h, peer)
			r.cancel(fill(r, h, 0))
			return r.arm(&backend.Op{Kind: backend.Ready, Flags: backend.Multi, Events: backend.Writable, Handle: h})
		}, drain},
		{"splice", false, func(r *rig, h backend.Handle, peer int) *backend.Op {
			halfClosed(r, h, peer)
			r.cancel(fill(r, h, 0))
			var pipe [2]int
			if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			r.tb.Cleanup(func() { unix.Close(pipe[0]); unix.Close(pipe[1]) })
			r.send(pipe[1], []byte("spliced"))
			return r.arm(&backend.Op{Kind: backend.SpliceOut, Handle: h, Peer: backend.Handle(pipe[0]), Max: 7})
		}, drain},
	}
	for name, f := range map[string]backend.Flags{"": 0, "quiet ": backend.Quiet} {
		tests = append(tests, test{name + "write", false, func(r *rig, h backend.Handle, peer int) *backend.Op {
			halfClosed(r, h, peer)
			return fill(r, h, f)
		}, drain}, test{name + "write before the end", false, func(r *rig, h backend.Handle, peer int) *backend.Op {
			op := fill(r, h, f)
			if err := unix.Shutdown(peer, unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
			return op
		}, drain})
	}
	for name, f := range map[string]backend.Flags{"": 0, "many ": backend.Multi} {
		tests = append(tests, test{name + "read of an urgent byte", true, func(r *rig, h backend.Handle, peer int) *backend.Op {
			op := r.arm(&backend.Op{Kind: backend.Read, Flags: f, Handle: h})
			r.turn(0)
			urgent(r, peer)
			return op
		}, func(r *rig, peer int) { r.send(peer, []byte("data")) }})
	}
	for _, k := range tests {
		t.Run(k.name, func(t *testing.T) {
			r := newRig(t, Config{})
			h, peer := r.pair()
			if !k.tcp {
				// How full TCP's buffers are keeps changing for a while by itself.
				h, peer = unixPair(r)
			}
			op := k.setup(r, h, peer)
			for range 3 {
				r.turn(10 * time.Millisecond)
			}
			if r.buf[op].results > 0 {
				t.Fatalf("it did not wait: %+v", *r.buf[op])
			}
			before := r.Stats()
			for range 5 {
				r.turn(20 * time.Millisecond)
			}
			after := r.Stats()
			if n := after.Submissions - before.Submissions + after.Enters - before.Enters; n > 20 {
				t.Errorf("%d submissions and %d enters while nothing changed", after.Submissions-before.Submissions, after.Enters-before.Enters)
			}
			if n := workers(t); n > 0 {
				t.Errorf("%d threads of the kernel wait", n)
			}
			k.free(r, peer)
			r.until("result", func() bool { return r.buf[op].results > 0 })
			if rec := r.buf[op]; rec.err != nil || rec.n <= 0 {
				t.Errorf("%+v", *rec)
			}
			// An Op that stays armed is armed as before, and ends when it is canceled.
			r.cancel(op)
		})
	}
}

// unixPair is pair with Unix sockets.
func unixPair(r *rig) (backend.Handle, int) {
	r.tb.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { unix.Close(pair[1]) })
	if err = unix.SetNonblock(pair[0], true); err != nil {
		r.tb.Fatal(err)
	}
	h, err := r.Adopt(pair[0])
	if err != nil {
		r.tb.Fatal(err)
	}
	return h, pair[1]
}

// workers counts the threads that the kernel's io_uring has made for this
// process.
func workers(t *testing.T) int {
	t.Helper()
	names, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		text, _ := os.ReadFile(name) // it may have ended meanwhile
		if strings.HasPrefix(string(text), "iou-wrk-") {
			n++
		}
	}
	return n
}
