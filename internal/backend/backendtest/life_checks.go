package backendtest

import (
	"bytes"
	"errors"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

var lifeChecks = []check{
	{
		name:   "CancelRead",
		reason: "a canceled read reports nothing and takes no bytes along",
		run:    onEach([]network{tcp4, unix}, checkCancelRead),
	},
	{
		name:   "CancelReadWithData",
		reason: "a cancel that meets bytes loses none: they come with the last result or with the next read",
		run:    onEach([]network{tcp4, unix}, checkCancelReadWithData),
	},
	{
		name:   "CancelMultiRead",
		reason: "pausing and resuming a stream is canceling and submitting; no byte is lost over it (R30)",
		run:    onEach([]network{tcp4}, checkCancelMultiRead),
	},
	{
		name:   "CancelAccept",
		reason: "a listener that pauses loses no connection",
		run:    onEach([]network{tcp4}, checkCancelAccept),
	},
	{
		name:   "CancelWrite",
		reason: "after a canceled write one knows how much was sent",
		run:    onEach([]network{tcp4}, checkCancelWrite),
	},
	{
		name:   "CancelConnect",
		reason: "a connect that lost a race is given up, and only its own socket is closed (behaviour 66)",
		run:    onEach([]network{tcp4}, checkCancelConnect),
	},
	{
		name:   "CancelHangup",
		reason: "what was waited for may no longer matter",
		run:    onEach([]network{tcp4}, checkCancelHangup),
	},
	{
		name:   "CancelIdle",
		reason: "canceling what is not armed is no mistake",
		run:    onEach([]network{tcp4}, checkCancelIdle),
	},
	{
		name:   "HandleReuse",
		reason: "an event of a closed handle must not reach the next owner of its number (bug 8)",
		run:    onEach([]network{tcp4, unix}, checkHandleReuse),
	},
	{
		name:   "ReuseInOneBatch",
		reason: "a handle closed between two Waits has no results in the second, even if they were due",
		run:    onEach([]network{tcp4}, checkReuseInOneBatch),
	},
	{
		name:   "BadHandle",
		reason: "a handle that is none is an error and no panic (R13)",
		run:    checkBadHandle,
	},
	{
		name:   "CloseWithArmed",
		reason: "Close releases what is still open, with Ops in the middle of things (bug 24)",
		run:    onEach([]network{tcp4}, checkCloseWithArmed),
	},
}

func checkCancelRead(r *rig, n network) {
	c, s := r.pair(n)
	op := readOp(s, 0)
	r.submit(op)
	r.wait(0)
	for _, res := range r.cancel(op) {
		if !errors.Is(res.err, backend.ErrCanceled) {
			r.t.Errorf("a canceled read ended with %d, %v", res.n, res.err)
		}
	}
	r.write(c, []byte("abc"))
	r.quiet(10e6)
	r.wantRead(s, "abc")
}

// bytesOf returns the bytes among the results of a canceled read.
func (r *rig) bytesOf(all []result) []byte {
	r.t.Helper()
	var got []byte
	for _, res := range all {
		if res.err != nil && !errors.Is(res.err, backend.ErrCanceled) && !errors.Is(res.err, backend.ErrAgain) {
			r.t.Fatalf("a canceled read ended with %v", res.err)
		}
		got = append(got, res.data...)
	}
	return got
}

func checkCancelReadWithData(r *rig, n network) {
	c, s := r.pair(n)
	for i := range 20 {
		op := readOp(s, 0)
		r.submit(op)
		r.write(c, []byte("abcdef"))
		if i%2 == 1 {
			r.wait(0)
		}
		got := r.bytesOf(r.cancel(op))
		got = append(got, r.read(s, 6-len(got))...)
		if string(got) != "abcdef" {
			r.t.Fatalf("round %d: got %q", i, got)
		}
	}
}

func checkCancelMultiRead(r *rig, n network) {
	c, s := r.pair(n)
	want := pattern(100_000, 8)
	var got []byte
	op := readOp(s, backend.Multi)
	for i, rest := 0, want; len(rest) > 0; i++ {
		if !r.out[op] {
			r.submit(op)
		}
		k := min(len(rest), 1700)
		r.write(c, rest[:k])
		rest = rest[k:]
		for range i % 3 {
			r.wait(0)
		}
		got = append(got, r.bytesOf(r.cancel(op))...)
	}
	got = append(got, r.read(s, len(want)-len(got))...)
	if !bytes.Equal(got, want) {
		r.t.Fatal("bytes differ")
	}
}

func checkCancelAccept(r *rig, n network) {
	l, a := r.listen(n)
	const conns = 12
	op := &backend.Op{Kind: backend.Accept, Handle: l, Flags: backend.Multi}
	accepted := map[backend.Handle]bool{}
	note := func(all []result) {
		for _, res := range all {
			if errors.Is(res.err, backend.ErrCanceled) || errors.Is(res.err, backend.ErrAgain) {
				continue
			}
			if res.err != nil {
				r.t.Fatalf("accept: %v", res.err)
			}
			if accepted[backend.Handle(res.n)] {
				r.t.Fatalf("handle %d was accepted twice", res.n)
			}
			accepted[backend.Handle(res.n)] = true
		}
	}
	for i := range conns {
		r.submit(op)
		if res := r.do(connectOp(r.open(n), a)); res.err != nil {
			r.t.Fatal(res.err)
		}
		if i%3 == 1 {
			r.wait(0)
		}
		note(r.cancel(op))
	}
	r.submit(op)
	r.until("accepts", func() bool {
		note(r.got[op])
		delete(r.got, op)
		if !r.out[op] {
			r.submit(op)
		}
		return len(accepted) == conns
	})
}

func checkCancelWrite(r *rig, n network) {
	c, s := r.pair(n)
	op, total := r.fill(c)
	for _, res := range r.cancel(op) {
		if res.err != nil && !errors.Is(res.err, backend.ErrCanceled) {
			r.t.Fatalf("a canceled write ended with %v", res.err)
		}
		total += res.n
	}
	r.shut(c, backend.ShutWrite)
	if got := r.read(s, -1); len(got) != total {
		r.t.Errorf("%d bytes arrived, %d were reported as sent", len(got), total)
	}
}

func checkCancelConnect(r *rig, n network) {
	l, a := r.listen(n)
	c := r.open(n)
	op := connectOp(c, a)
	r.submit(op)
	r.cancel(op)
	r.shut(c, backend.CloseReset)
	// The listener may see the connection come and go; others must work.
	c = r.open(n)
	if res := r.do(connectOp(c, a)); res.err != nil {
		r.t.Fatalf("the next connect: %v", res.err)
	}
	want, err := r.be.Name(c, false)
	if err != nil {
		r.t.Fatal(err)
	}
	for range 2 {
		res := r.do(&backend.Op{Kind: backend.Accept, Handle: l})
		if res.err == nil && res.peer == want {
			r.write(c, []byte("x"))
			r.wantRead(backend.Handle(res.n), "x")
			return
		}
	}
	r.t.Fatal("the second connection was never accepted")
}

func checkCancelHangup(r *rig, n network) {
	c, s := r.pair(n)
	op := &backend.Op{Kind: backend.Hangup, Handle: s}
	r.submit(op)
	r.wait(0)
	r.cancel(op)
	r.shut(c, backend.CloseReset)
	r.quiet(10e6)
	if res := r.do(op); !errors.Is(res.err, syscall.ECONNRESET) {
		r.t.Errorf("hang-up submitted after the reset: %v, want ECONNRESET", res.err)
	}
}

func checkCancelIdle(r *rig, n network) {
	c, s := r.pair(n)
	op := readOp(s, 0)
	if r.be.Cancel(op) {
		r.t.Error("Cancel of an Op that was never submitted returned true")
	}
	r.write(c, []byte("x"))
	r.do(op)
	if r.be.Cancel(op) {
		r.t.Error("Cancel of an Op that has finished returned true")
	}
}

func checkHandleReuse(r *rig, n network) {
	l, a := r.listen(n)
	seen := map[backend.Handle]bool{}
	reused := false
	for i := range 100 {
		c, s := r.dial(n, l, a)
		reused = reused || seen[s]
		seen[s] = true
		// Leave events behind that no Wait has seen: bytes, then an end.
		op := readOp(s, backend.Multi)
		r.submit(op)
		r.write(c, []byte("stale"))
		if i%2 == 0 {
			r.shut(c, backend.CloseFlat)
		}
		r.cancel(op)
		r.shut(s, backend.CloseReset)

		c2, s2 := r.dial(n, l, a)
		seen[s2] = true
		read, hup := readOp(s2, 0), &backend.Op{Kind: backend.Hangup, Handle: s2}
		r.submit(read)
		r.submit(hup)
		r.wait(0)
		r.wait(0)
		if len(r.got[read])+len(r.got[hup]) > 0 {
			r.t.Fatalf("round %d: an event of the old handle reached the new one: %+v", i, r.got)
		}
		r.write(c2, []byte("new"))
		if res := r.await(read); string(res.data) != "new" || res.err != nil {
			r.t.Fatalf("round %d: read %q, %v", i, res.data, res.err)
		}
		r.cancel(hup)
		r.shut(s2, backend.CloseFlat)
		r.shut(c2, backend.CloseFlat)
		if i%2 == 1 {
			r.shut(c, backend.CloseFlat)
		}
	}
	if !reused {
		r.t.Log("no number came back: the case was not really tried")
	}
}

func checkReuseInOneBatch(r *rig, n network) {
	l, a := r.listen(n)
	const conns = 8
	r.done = r.done[:1] // the backend keeps the other results
	var ops []*backend.Op
	var clients []backend.Handle
	for range conns {
		c, s := r.dial(n, l, a)
		op := readOp(s, backend.Multi)
		r.submit(op)
		ops, clients = append(ops, op), append(clients, c)
	}
	for _, c := range clients {
		r.write(c, []byte("old"))
	}
	r.until("a result", func() bool { return len(r.got) > 0 })
	for i, op := range ops {
		r.cancel(op)
		r.shut(op.Handle, backend.CloseReset)
		r.shut(clients[i], backend.CloseFlat)
	}
	var fresh []*backend.Op
	for range conns {
		_, s := r.dial(n, l, a)
		op := readOp(s, backend.Multi)
		r.submit(op)
		fresh = append(fresh, op)
	}
	r.quiet(10e6)
	for _, op := range fresh {
		r.cancel(op)
	}
}

func checkBadHandle(r *rig) {
	for _, h := range []backend.Handle{backend.None, -7, 1 << 20} {
		for _, op := range []*backend.Op{
			readOp(h, 0), readOp(h, backend.Multi), writeOp(h, []byte("x")),
			{Kind: backend.Accept, Handle: h},
			{Kind: backend.Hangup, Handle: h},
			{Kind: backend.Ready, Handle: h, Events: backend.Readable},
			connectOp(h, loopback("127.0.0.1")(r)),
		} {
			if res := r.do(op); res.err == nil {
				r.t.Errorf("kind %d on handle %d: no error", op.Kind, h)
			}
		}
		for how := backend.ShutWrite; how <= backend.Unwatch; how++ {
			if r.be.Shut(h, how) == nil {
				r.t.Errorf("Shut(%d, %d): no error", h, how)
			}
		}
		if _, err := r.be.Name(h, false); err == nil {
			r.t.Errorf("Name(%d): no error", h)
		}
	}
}

func checkCloseWithArmed(r *rig, n network) {
	l, a := r.listen(n)
	_, s := r.dial(n, l, a)
	full, _ := r.dial(n, l, a)
	r.submit(&backend.Op{Kind: backend.Accept, Handle: l, Flags: backend.Multi})
	r.submit(readOp(s, backend.Multi))
	r.submit(&backend.Op{Kind: backend.Hangup, Handle: s})
	op, _ := r.fill(full) // whose peer does not read
	if !op.Armed() {
		r.t.Fatal("the write is not armed")
	}
	if err := r.be.Close(); err != nil {
		r.t.Errorf("Close: %v", err)
	}
	r.be.Wake() // must touch nothing
}
