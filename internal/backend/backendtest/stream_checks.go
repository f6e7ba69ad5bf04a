package backendtest

import (
	"bytes"
	"errors"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

var streamChecks = []check{
	{
		name:   "Echo",
		reason: "connect, accept, write and read are what all else stands on",
		run:    onEach(networks, checkEcho),
	},
	{
		name:   "EndOfStream",
		reason: "what was written before a close arrives whole, then the end, which is no error (behaviours 24, 26)",
		run:    onEach(networks, checkEndOfStream),
	},
	{
		name:   "HalfClose",
		reason: "after ShutWrite the peer's reply still arrives (R32, behaviour 27)",
		run:    onEach(networks, checkHalfClose),
	},
	{
		name:   "Reset",
		reason: "a reset is ECONNRESET, to be told apart from an end (R34, behaviour 29)",
		run:    onEach([]network{tcp4, tcp6}, checkReset),
	},
	{
		name:   "ResetWhileWriting",
		reason: "a writer that waits must learn that its peer is gone",
		run:    onEach([]network{tcp4}, checkResetWhileWriting),
	},
	{
		name:   "WriteAfterPeerClosed",
		reason: "a broken pipe is an error and never a signal (R25)",
		run:    onEach(networks, checkWriteAfterPeerClosed),
	},
	{
		name:   "SuppliedBuffer",
		reason: "with Buf set the bytes go there, and no further than it reaches (R5)",
		run:    onEach([]network{tcp4}, checkSuppliedBuffer),
	},
	{
		name:   "MultiRead",
		reason: "one submission serves a stream to its end, with every byte once and in order",
		run:    onEach(networks, checkMultiRead),
	},
	{
		name:   "HangupReset",
		reason: "a stream that neither reads nor writes learns of its peer's reset by Hangup",
		run:    onEach([]network{tcp4}, checkHangupReset),
	},
	{
		name:   "HangupBothEnds",
		reason: "an end of one direction alone is no hang-up; of both it is, and a plain one",
		run:    onEach([]network{tcp4, unix}, checkHangupBothEnds),
	},
	{
		name:   "DataBeforeHangup",
		reason: "bytes that arrived before the end can still be read after the hang-up was reported",
		run:    onEach([]network{tcp4, unix}, checkDataBeforeHangup),
	},
}

func checkEcho(r *rig, n network) {
	c, s := r.pair(n)
	for _, text := range []string{"x", "hello", string(pattern(3000, 1))} {
		r.write(c, []byte(text))
		got := r.read(s, len(text))
		r.write(s, got)
		r.wantRead(c, text)
	}
}

func checkEndOfStream(r *rig, n network) {
	c, s := r.pair(n)
	want := pattern(20_000, 2)
	r.write(c, want)
	r.shut(c, backend.CloseFlat)
	if got := r.read(s, -1); !bytes.Equal(got, want) {
		r.t.Fatalf("got %d bytes, want %d, or they differ", len(got), len(want))
	}
	r.wantEOF(s) // and again
}

func checkHalfClose(r *rig, n network) {
	c, s := r.pair(n)
	r.write(c, []byte("request"))
	r.shut(c, backend.ShutWrite)
	if got := r.read(s, -1); string(got) != "request" {
		r.t.Fatalf("got %q", got)
	}
	r.write(s, []byte("reply"))
	r.wantRead(c, "reply")
	if res := r.do(writeOp(c, []byte("more"))); !errors.Is(res.err, syscall.EPIPE) {
		r.t.Errorf("write after ShutWrite: %v, want EPIPE", res.err)
	}
	r.shut(s, backend.CloseFlat)
	r.wantEOF(c)
}

func checkReset(r *rig, n network) {
	c, s := r.pair(n)
	read := readOp(s, 0)
	r.submit(read)
	r.shut(c, backend.CloseReset)
	if res := r.await(read); !errors.Is(res.err, syscall.ECONNRESET) {
		r.t.Errorf("read of a reset connection: %d, %v, want ECONNRESET", res.n, res.err)
	}
	c, s = r.pair(n)
	r.shut(c, backend.CloseReset)
	if res := r.do(readOp(s, 0)); !errors.Is(res.err, syscall.ECONNRESET) {
		r.t.Errorf("read begun after the reset: %d, %v, want ECONNRESET", res.n, res.err)
	}
}

// fill writes to h until a write has to wait, and returns that one.
func (r *rig) fill(h backend.Handle) (*backend.Op, int) {
	r.t.Helper()
	total := 0
	block := pattern(1<<16, 3)
	for range 10_000 {
		op := writeOp(h, block)
		r.submit(op)
		for range 3 {
			if r.out[op] {
				r.wait(20e6)
			}
		}
		if r.out[op] {
			return op, total
		}
		res := r.take(op)
		if res.err != nil {
			r.t.Fatalf("write: %v", res.err)
		}
		total += res.n
	}
	r.t.Fatal("a write never had to wait")
	return nil, 0
}

func checkResetWhileWriting(r *rig, n network) {
	c, s := r.pair(n)
	op, _ := r.fill(s)
	r.shut(c, backend.CloseReset)
	if res := r.await(op); !errors.Is(res.err, syscall.ECONNRESET) && !errors.Is(res.err, syscall.EPIPE) {
		r.t.Errorf("write to a reset connection: %d, %v, want ECONNRESET or EPIPE", res.n, res.err)
	}
}

func checkWriteAfterPeerClosed(r *rig, n network) {
	c, s := r.pair(n)
	r.shut(c, backend.CloseReset)
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = r.do(writeOp(s, []byte("x"))).err
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		r.t.Errorf("write to a closed connection: %v, want ECONNRESET or EPIPE", err)
	}
}

func checkSuppliedBuffer(r *rig, n network) {
	c, s := r.pair(n)
	r.write(c, []byte("abcdefgh"))
	backing := []byte("..........")
	op := readOp(s, 0)
	op.Buf = backing[1:5]
	var got []byte
	for len(got) < 4 { // a kernel may hand the bytes out in parts
		res := r.do(op)
		if res.err != nil || res.n < 1 || res.n > len(op.Buf) {
			r.t.Fatalf("read: %d, %v", res.n, res.err)
		}
		got = append(got, res.data...)
		op.Buf = op.Buf[res.n:]
		if len(op.Buf) == 0 {
			break
		}
	}
	if string(got) != "abcd" || string(backing) != ".abcd....." {
		r.t.Fatalf("result %q, memory %q", got, backing)
	}
	r.wantRead(s, "efgh")
}

// readMulti collects what a Multi read hands out until cond holds, submitting
// it again where the backend ended it early.
func (r *rig) readMulti(op *backend.Op, cond func(all []byte, end bool) bool) []byte {
	r.t.Helper()
	var all []byte
	for {
		res := r.await(op)
		end := false
		switch {
		case errors.Is(res.err, backend.ErrAgain) && !res.more:
		case res.err != nil:
			r.t.Fatalf("read after %d bytes: %v", len(all), res.err)
		case res.n == 0:
			end = true
			if res.more {
				r.t.Fatal("the end of the stream, and more to follow")
			}
		}
		all = append(all, res.data...)
		if cond(all, end) {
			return all
		}
		if end {
			r.t.Fatalf("end of stream after %d bytes", len(all))
		}
		if !res.more && len(r.got[op]) == 0 {
			r.submit(op)
		}
	}
}

func checkMultiRead(r *rig, n network) {
	c, s := r.pair(n)
	op := readOp(s, backend.Multi)
	r.submit(op)
	want := pattern(30_000, 4)
	for rest := want; len(rest) > 0; {
		k := min(len(rest), 1+len(rest)/7)
		r.write(c, rest[:k])
		rest = rest[k:]
	}
	r.shut(c, backend.CloseFlat)
	got := r.readMulti(op, func(_ []byte, end bool) bool { return end })
	if !bytes.Equal(got, want) {
		r.t.Fatalf("got %d bytes, want %d, or they differ", len(got), len(want))
	}
}

func checkHangupReset(r *rig, n network) {
	c, s := r.pair(n)
	op := &backend.Op{Kind: backend.Hangup, Handle: s}
	r.submit(op)
	r.quiet(5e6)
	r.write(c, []byte("unread"))
	r.quiet(5e6)
	r.shut(c, backend.CloseReset)
	if res := r.await(op); !errors.Is(res.err, syscall.ECONNRESET) {
		r.t.Errorf("hang-up of a reset connection: %v, want ECONNRESET", res.err)
	}
}

func checkHangupBothEnds(r *rig, n network) {
	c, s := r.pair(n)
	op := &backend.Op{Kind: backend.Hangup, Handle: s}
	r.submit(op)
	r.shut(c, backend.ShutWrite)
	r.quiet(10e6)
	r.shut(s, backend.ShutWrite)
	if res := r.await(op); res.err != nil {
		r.t.Errorf("a plain hang-up came with %v", res.err)
	}
}

func checkDataBeforeHangup(r *rig, n network) {
	c, s := r.pair(n)
	op := &backend.Op{Kind: backend.Hangup, Handle: s}
	r.submit(op)
	r.write(c, []byte("last words"))
	r.shut(s, backend.ShutWrite)
	r.wantEOF(c)
	r.shut(c, backend.CloseFlat)
	if res := r.await(op); res.err != nil {
		r.t.Errorf("a plain hang-up came with %v", res.err)
	}
	if got := r.read(s, -1); string(got) != "last words" {
		r.t.Errorf("read %q after the hang-up", got)
	}
}
