package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

var flowChecks = []check{
	{
		name:   "LargeBothWays",
		reason: "megabytes in both directions at once, with writes cut anywhere, arrive whole (G2)",
		run:    onEach(networks, checkLargeBothWays),
	},
	{
		name:   "Vectored",
		reason: "empty pieces count for nothing, and a write of nothing completes (behaviour 28)",
		run:    onEach(networks, checkVectored),
	},
	{
		name:   "Quiet",
		reason: "a write that no one waits for is done, and known to be, by the time the next result comes",
		run:    onEach([]network{tcp4}, checkQuiet),
	},
	{
		name:   "Now",
		reason: "with Now nothing waits, and what is there is had",
		run:    onEach([]network{tcp4, unix}, checkNow),
	},
	{
		name:   "LentMemory",
		reason: "what one Wait lends stays as it is until the next, whatever is submitted in between (R5)",
		run:    onEach([]network{tcp4}, checkLentMemory),
	},
	{
		name:   "LentCapacity",
		reason: "appending to lent bytes must not reach another connection's",
		run:    onEach([]network{tcp4}, checkLentCapacity),
	},
	{
		name:   "OneResultPerWait",
		reason: "results for which there is no room come with a later Wait",
		run:    onEach([]network{tcp4}, checkOneResultPerWait),
	},
	{
		name:   "Fair",
		reason: "a connection that always has data does not hide another (G8)",
		run:    onEach([]network{tcp4}, checkFair),
	},
	{
		name:   "NoAllocation",
		reason: "a message costs no object (R6)",
		run:    onEach([]network{tcp4}, checkNoAllocation),
	},
}

// pump moves total bytes through one direction of a connection, writing them
// in pieces of odd sizes.
type pump struct {
	w, r       *backend.Op
	sent, want []byte
	got        []byte
	step       int
}

func newPump(from, to backend.Handle, size int, seed uint32) *pump {
	p := &pump{w: writeOp(from), r: readOp(to, backend.Multi)}
	p.want = pattern(size, seed)
	p.sent = p.want
	return p
}

// next cuts what is left into three pieces, one of them empty.
func (p *pump) next() [][]byte {
	p.step++
	n := min(len(p.sent), 1+(p.step*7919)%90_000)
	k := n / 3
	return [][]byte{p.sent[:k], nil, p.sent[k:n]}
}

func (p *pump) run(r *rig) bool {
	r.t.Helper()
	for len(r.got[p.w]) > 0 {
		res := r.take(p.w)
		if res.err != nil || res.n <= 0 {
			r.t.Fatalf("write with %d bytes to go: %d, %v", len(p.sent), res.n, res.err)
		}
		p.sent = p.sent[res.n:]
	}
	if !r.out[p.w] && len(p.sent) > 0 {
		p.w.Vec = p.next()
		r.submit(p.w)
	}
	for len(r.got[p.r]) > 0 {
		res := r.take(p.r)
		if res.err != nil && !errors.Is(res.err, backend.ErrAgain) {
			r.t.Fatalf("read after %d bytes: %v", len(p.got), res.err)
		}
		if res.err == nil && res.n == 0 {
			r.t.Fatalf("end of stream after %d bytes", len(p.got))
		}
		p.got = append(p.got, res.data...)
	}
	if !r.out[p.r] {
		r.submit(p.r)
	}
	return len(p.got) == len(p.want)
}

func checkLargeBothWays(r *rig, n network) {
	c, s := r.pair(n)
	const size = 4 << 20
	pumps := []*pump{newPump(c, s, size, 5), newPump(s, c, size, 6)}
	r.until("end of the transfer", func() bool {
		a, b := pumps[0].run(r), pumps[1].run(r)
		return a && b
	})
	for i, p := range pumps {
		if !bytes.Equal(p.got, p.want) {
			r.t.Errorf("direction %d: bytes differ", i)
		}
	}
}

func checkVectored(r *rig, n network) {
	c, s := r.pair(n)
	for _, vec := range [][][]byte{nil, {}, {nil}, {{}, nil, {}}} {
		if res := r.do(writeOp(c, vec...)); res.n != 0 || res.err != nil {
			r.t.Errorf("write of %v: %d, %v", vec, res.n, res.err)
		}
	}
	var pieces [][]byte
	var want []byte
	for i := range 200 {
		p := []byte(fmt.Sprintf("<%d>", i))
		pieces = append(pieces, nil, p, []byte{})
		want = append(want, p...)
	}
	for sent := 0; sent < len(want); {
		res := r.do(writeOp(c, pieces...))
		if res.err != nil || res.n <= 0 {
			r.t.Fatalf("write: %d, %v", res.n, res.err)
		}
		sent += res.n
		for k := res.n; k > 0; {
			m := min(k, len(pieces[0]))
			if pieces[0] = pieces[0][m:]; len(pieces[0]) == 0 {
				pieces = pieces[1:]
			}
			k -= m
		}
	}
	if got := r.read(s, len(want)); !bytes.Equal(got, want) {
		r.t.Error("the pieces came out of order")
	}
}

func checkQuiet(r *rig, n network) {
	c, s := r.pair(n)
	for i := range 20 {
		text := pattern(100+i, uint32(i))
		write := writeOp(c, text)
		write.Flags = backend.Quiet
		r.submit(write)
		got := r.read(s, len(text))
		if r.out[write] {
			// The bytes arrived before the write was known to be done: the next
			// result, of a second message, must bring it along.
			r.write(s, []byte("!"))
			r.wantRead(c, "!")
			if r.out[write] {
				r.t.Fatal("a quiet write was never reported")
			}
		}
		if res := r.take(write); res.n != len(text) || res.err != nil || !bytes.Equal(got, text) {
			r.t.Fatalf("write: %d, %v; read: %d bytes", res.n, res.err, len(got))
		}
	}
	// A write that falls short, or that is canceled, reports how far it got.
	total := 0
	for {
		write := writeOp(c, pattern(1<<20, 12))
		write.Flags = backend.Quiet
		r.submit(write)
		for range 3 {
			if r.out[write] {
				r.wait(20e6)
			}
		}
		waited := r.out[write]
		if waited {
			for _, res := range r.cancel(write) {
				total += res.n
			}
			break
		}
		total += r.take(write).n
	}
	r.shut(c, backend.ShutWrite)
	if got := r.read(s, -1); len(got) != total {
		r.t.Errorf("%d bytes arrived, %d were reported as sent", len(got), total)
	}
}

func checkNow(r *rig, n network) {
	c, s := r.pair(n)
	now := func(op *backend.Op) result {
		op.Flags = backend.Now
		var c backend.Completion
		if r.caps.Inline {
			r.t.Helper()
			if !r.be.Submit(op, &c) {
				r.t.Fatal("Submit of an Op with Now did not finish it (Caps.Inline)")
			}
			r.out[op] = true
			r.keep(&c)
			return r.take(op)
		}
		return r.do(op)
	}
	if res := now(readOp(s, 0)); !errors.Is(res.err, backend.ErrAgain) {
		r.t.Errorf("read of nothing: %d, %v, want ErrAgain", res.n, res.err)
	}
	r.write(c, []byte("abc"))
	var got []byte
	r.until("bytes", func() bool {
		res := now(readOp(s, 0))
		if res.err != nil && !errors.Is(res.err, backend.ErrAgain) {
			r.t.Fatalf("read: %v", res.err)
		}
		got = append(got, res.data...)
		return len(got) == 3
	})
	if string(got) != "abc" {
		r.t.Errorf("read %q", got)
	}
	block := pattern(1<<16, 7)
	full := false
	for i := 0; i < 10_000 && !full; i++ {
		res := now(writeOp(c, block))
		full = errors.Is(res.err, backend.ErrAgain)
		if !full && (res.err != nil || res.n <= 0) {
			r.t.Fatalf("write: %d, %v", res.n, res.err)
		}
	}
	if !full {
		r.t.Error("a write with Now never found the buffers full")
	}
	r.shut(c, backend.CloseReset)
}

func checkLentMemory(r *rig, n network) {
	l, a := r.listen(n)
	const conns = 8
	var (
		ops     [conns]*backend.Op
		clients [conns]backend.Handle
		lent    [conns][]byte
		seen    [conns]bool
	)
	for i := range conns {
		c, s := r.dial(n, l, a)
		clients[i] = c
		ops[i] = readOp(s, 0)
		r.write(c, pattern(500+i, uint32(i)))
	}
	for _, op := range ops {
		r.submit(op)
	}
	count := 0
	for start := time.Now(); count < conns; {
		if time.Since(start) > patience {
			r.t.Fatalf("%d of %d connections were read", count, conns)
		}
		k, err := r.be.Wait(100*time.Millisecond, r.done)
		if err != nil {
			r.t.Fatal(err)
		}
		clear(lent[:])
		for j := range r.done[:k] {
			c := &r.done[j]
			for i := range ops {
				if c.Op == ops[i] {
					lent[i] = c.Buf
					count++
					if seen[i] || c.Err != nil {
						r.t.Fatalf("connection %d: %+v", i, *c)
					}
					seen[i] = true
				}
			}
		}
		// Traffic of all kinds before anyone looks at the lent memory.
		for i := range conns {
			if lent[i] == nil {
				continue
			}
			r.submit(writeOp(clients[i], []byte("!")))
		}
		for i := range conns {
			if lent[i] != nil && !bytes.Equal(lent[i], pattern(500+i, uint32(i))[:len(lent[i])]) {
				r.t.Errorf("connection %d: lent bytes changed before the next Wait", i)
			}
		}
	}
}

func checkLentCapacity(r *rig, n network) {
	c, s := r.pair(n)
	read := readOp(s, 0)
	r.write(c, []byte("abc"))
	r.submit(read)
	for start := time.Now(); time.Since(start) < patience; {
		k, err := r.be.Wait(100*time.Millisecond, r.done)
		if err != nil {
			r.t.Fatal(err)
		}
		for i := range r.done[:k] {
			if d := &r.done[i]; d.Op == read {
				if cap(d.Buf) != len(d.Buf) {
					r.t.Errorf("lent %d bytes with a capacity of %d", len(d.Buf), cap(d.Buf))
				}
				return
			}
		}
	}
	r.t.Fatal("nothing was read")
}

func checkOneResultPerWait(r *rig, n network) {
	l, a := r.listen(n)
	const conns = 10
	var ops []*backend.Op
	for range conns {
		c, s := r.dial(n, l, a)
		op := readOp(s, 0)
		r.submit(op)
		ops = append(ops, op)
		r.write(c, []byte("x"))
	}
	r.done = r.done[:1]
	for i, op := range ops {
		if res := r.await(op); res.err != nil || string(res.data) != "x" {
			r.t.Errorf("connection %d: %q, %v", i, res.data, res.err)
		}
	}
}

func checkFair(r *rig, n network) {
	l, a := r.listen(n)
	const busy = 6
	r.done = r.done[:2]
	var pumps []*pump
	for i := range busy {
		c, s := r.dial(n, l, a)
		pumps = append(pumps, newPump(c, s, 1<<20, uint32(i)))
	}
	flood := func() {
		for _, p := range pumps {
			p.run(r)
			p.got = p.got[:0]
			if len(p.sent) < 1<<19 {
				p.sent = p.want // it never ends
			}
		}
		r.wait(time.Millisecond)
	}
	c, s := r.dial(n, l, a)
	quiet := readOp(s, 0)
	r.submit(quiet)
	for range 50 {
		flood()
	}
	r.write(c, []byte("x"))
	waits := 0
	for len(r.got[quiet]) == 0 {
		if waits++; waits > 1000 {
			r.t.Fatal("a quiet connection was not served within 1000 Waits")
		}
		flood()
	}
}

func checkNoAllocation(r *rig, n network) {
	c, s := r.pair(n)
	var (
		fail     error
		message  = []byte("sixty-four bytes or so of message, as in the echo measurements..")
		toClient = backend.Op{Kind: backend.Write, Handle: s, Vec: make([][]byte, 1)}
		toServer = backend.Op{Kind: backend.Write, Handle: c, Vec: [][]byte{message}}
		atServer = backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
		atClient = backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: c}
		left     int
		res      backend.Completion
	)
	copied := make([]byte, 0, 4096)
	arm := func(op *backend.Op) {
		res = backend.Completion{}
		if r.be.Submit(op, &res) && res.Err != nil {
			fail = res.Err
		}
	}
	arm(&atServer)
	arm(&atClient)
	echo := func() {
		left = len(message)
		arm(&toServer)
		for i := 0; left > 0 && fail == nil; i++ {
			k, err := r.be.Wait(time.Second, r.done)
			if err != nil || i > 1000 {
				fail = fmt.Errorf("in Wait %d: %w", i, err)
				return
			}
			for j := range r.done[:k] {
				d := &r.done[j]
				if d.Err != nil && !errors.Is(d.Err, backend.ErrAgain) {
					fail = d.Err
				}
				switch d.Op {
				case &atServer:
					copied = append(copied[:0], d.Buf...)
					toClient.Vec[0] = copied
					arm(&toClient)
				case &atClient:
					left -= d.N
				}
				if !d.More && d.Op.Kind == backend.Read && fail == nil {
					arm(d.Op)
				}
			}
		}
	}
	for range 100 {
		echo()
	}
	allocs := testing.AllocsPerRun(1000, echo)
	if fail != nil {
		r.t.Fatal(fail)
	}
	if allocs != 0 {
		r.t.Errorf("%v allocations per echo", allocs)
	}
}
