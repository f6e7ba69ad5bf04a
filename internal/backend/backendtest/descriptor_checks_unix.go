//go:build unix

package backendtest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// descriptorChecks are the cases about descriptors that come from outside.
func descriptorChecks() []check {
	return []check{
		{
			name:   "AdoptPipe",
			reason: "a pipe is a stream like any other, in either direction (R27)",
			need:   needAdopt,
			run:    checkAdoptPipe,
		},
		{
			name:   "PipeReaderGone",
			reason: "the reader of our pipe goes away, buffer idle or full: we are told (behaviour 59)",
			need:   needAdopt,
			run:    checkPipeReaderGone,
		},
		{
			name:   "HangupOfDevice",
			reason: "a file or a device has no one at its other end who could go away",
			need:   needAdopt,
			run:    checkHangupOfDevice,
		},
		{
			name:   "AdoptKeepsFlags",
			reason: "the flags of an inherited pipe belong to the other processes too",
			need:   needAdopt,
			run:    checkAdoptKeepsFlags,
		},
		{
			name:   "AdoptFile",
			reason: "standard output that is a regular file works (behaviour 61)",
			need:   needAdopt,
			run:    checkAdoptFile,
		},
		{
			name:   "AdoptSocket",
			reason: "an inherited socket that blocks must not block the loop, nor be changed",
			need:   needAdopt,
			run:    checkAdoptSocket,
		},
		{
			name:   "AdoptNothing",
			reason: "a number that is no descriptor is an error",
			need:   needAdopt,
			run:    checkAdoptNothing,
		},
		{
			name:   "Forget",
			reason: "a handle moves to another loop with what is on its way (R26)",
			need:   needDescriptors,
			run:    checkForget,
		},
		{
			name:   "UnixMode",
			reason: "a listener's file has its mode before anyone can connect",
			need:   needAdopt,
			run:    checkUnixMode,
		},
		{
			name:   "UnixFile",
			reason: "a listener removes its own file when it closes, and never another's",
			need:   needAdopt,
			run:    checkUnixFile,
		},
		{
			name:   "WatchRaw",
			reason: "a descriptor that others read is watched as long as a condition holds, and forgotten at once (R14, behaviour 8)",
			need:   needDescriptors,
			run:    checkWatchRaw,
		},
		{
			name:   "ClosedBehindBack",
			reason: "closing a descriptor behind the loop's back is an error to the owner, not a spin (behaviour 8, G9)",
			need:   needDescriptors,
			run:    checkClosedBehindBack,
		},
		{
			name:   "Splice",
			reason: "bytes pass from socket to socket without being copied (R37)",
			need:   needSplice,
			run:    checkSplice,
		},
	}
}

// pipe returns the ends of a new pipe in blocking mode, which the caller closes.
func (r *rig) pipe() (rd, wr int) {
	r.t.Helper()
	var p [2]int
	if err := syscall.Pipe(p[:]); err != nil {
		r.t.Fatal(err)
	}
	return p[0], p[1]
}

func (r *rig) adopt(fd int) backend.Handle {
	r.t.Helper()
	h, err := r.be.Adopt(fd)
	if err != nil {
		r.t.Fatalf("Adopt(%d): %v", fd, err)
	}
	return h
}

func checkAdoptPipe(r *rig) {
	rd, wr := r.pipe()
	in, out := r.adopt(rd), r.adopt(wr)
	if res := r.do(&backend.Op{Kind: backend.Read, Handle: in, Flags: backend.Now}); !errors.Is(res.err, backend.ErrAgain) {
		r.t.Errorf("read of an empty pipe: %d, %v", res.n, res.err)
	}
	want := pattern(300_000, 9)
	p := newPump(out, in, 0, 0)
	p.want, p.sent = want, want
	r.until("end of the transfer", func() bool { return p.run(r) })
	r.cancel(p.r)
	if !bytes.Equal(p.got, want) {
		r.t.Error("bytes differ")
	}
	hup := &backend.Op{Kind: backend.Hangup, Handle: in}
	r.submit(hup)
	r.quiet(5e6)
	r.shut(out, backend.CloseFlat)
	r.wantEOF(in)
	if res := r.await(hup); res.err != nil {
		r.t.Errorf("the writer's close came as %v", res.err)
	}
	if err := r.be.Shut(in, backend.ShutWrite); err == nil {
		r.t.Error("half of a pipe could be shut")
	}
}

func checkPipeReaderGone(r *rig) {
	for _, full := range []bool{false, true} {
		rd, wr := r.pipe()
		out := r.adopt(wr)
		hup := &backend.Op{Kind: backend.Hangup, Handle: out}
		r.submit(hup)
		var waiting *backend.Op
		if full {
			waiting, _ = r.fill(out)
		}
		r.quiet(5e6)
		syscall.Close(rd)
		if res := r.await(hup); !errors.Is(res.err, syscall.EPIPE) {
			r.t.Errorf("full %t: the reader's going came as %v, want EPIPE", full, res.err)
		}
		if waiting == nil {
			waiting = writeOp(out, []byte("x"))
			r.submit(waiting)
		}
		if res := r.await(waiting); !errors.Is(res.err, syscall.EPIPE) {
			r.t.Errorf("full %t: write: %d, %v, want EPIPE", full, res.n, res.err)
		}
		r.shut(out, backend.CloseFlat)
	}
}

func checkHangupOfDevice(r *rig) {
	file := filepath.Join(r.t.TempDir(), "file")
	for _, path := range []string{os.DevNull, file} {
		fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			r.t.Fatal(err)
		}
		h := r.adopt(fd)
		for range 2 {
			hup := &backend.Op{Kind: backend.Hangup, Handle: h}
			r.submit(hup)
			r.quiet(5e6)
			if !hup.Armed() {
				r.t.Errorf("%s: a hang-up came: %+v", path, r.take(hup))
				continue
			}
			if res := r.do(writeOp(h, []byte("x"))); res.n != 1 {
				r.t.Errorf("%s: write: %d, %v", path, res.n, res.err)
			}
			if res := r.cancel(hup); hup.Armed() || len(res) > 1 {
				r.t.Errorf("%s: canceled: %+v", path, res)
			}
		}
		r.shut(h, backend.CloseFlat)
	}
}

func flagsOf(r *rig, fd int) int {
	r.t.Helper()
	// This gets the flags without package x/sys: F_GETFL is 3 on every Unix.
	v, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	if errno != 0 {
		r.t.Fatal(errno)
	}
	return int(v)
}

func checkAdoptKeepsFlags(r *rig) {
	rd, wr := r.pipe()
	kept, err := syscall.Dup(rd) // stands for another process's descriptor
	if err != nil {
		r.t.Fatal(err)
	}
	defer syscall.Close(kept)
	before := flagsOf(r, kept)
	in := r.adopt(rd)
	if after := flagsOf(r, kept); after != before {
		r.t.Errorf("the flags of a shared pipe went from %#x to %#x", before, after)
	}
	op := readOp(in, 0)
	r.submit(op)
	r.quiet(5e6)
	if _, err := syscall.Write(wr, []byte("x")); err != nil {
		r.t.Fatal(err)
	}
	if res := r.await(op); string(res.data) != "x" {
		r.t.Errorf("read %q, %v", res.data, res.err)
	}
	syscall.Close(wr)
}

func checkAdoptFile(r *rig) {
	path := filepath.Join(r.t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("head\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_APPEND, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	h := r.adopt(fd)
	r.write(h, []byte("one\n"))
	r.write(h, pattern(100_000, 10))
	r.shut(h, backend.CloseFlat)
	got, err := os.ReadFile(path)
	want := append([]byte("head\none\n"), pattern(100_000, 10)...)
	if err != nil || !bytes.Equal(got, want) {
		r.t.Errorf("the file holds %d bytes, want %d, or they differ (%v)", len(got), len(want), err)
	}
	// And reading, from an offset that was set before.
	if fd, err = syscall.Open(path, syscall.O_RDONLY, 0); err != nil {
		r.t.Fatal(err)
	}
	if _, err := syscall.Seek(fd, 5, 0); err != nil {
		r.t.Fatal(err)
	}
	h = r.adopt(fd)
	op := readOp(h, backend.Multi)
	r.submit(op)
	all := r.readMulti(op, func(_ []byte, end bool) bool { return end })
	if !bytes.Equal(all, want[5:]) {
		r.t.Errorf("read %d bytes, want %d, or they differ", len(all), len(want)-5)
	}
	r.shut(h, backend.CloseFlat)
}

func checkAdoptSocket(r *rig) {
	p, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	kept, err := syscall.Dup(p[0])
	if err != nil {
		r.t.Fatal(err)
	}
	defer syscall.Close(kept)
	before := flagsOf(r, kept)
	a, b := r.adopt(p[0]), r.adopt(p[1])
	if res := r.do(&backend.Op{Kind: backend.Read, Handle: a, Flags: backend.Now}); !errors.Is(res.err, backend.ErrAgain) {
		r.t.Errorf("read of nothing: %d, %v", res.n, res.err)
	}
	op, _ := r.fill(a)
	r.cancel(op)
	if after := flagsOf(r, kept); after != before && r.caps.Descriptors {
		r.t.Errorf("the flags of a shared socket went from %#x to %#x", before, after)
	}
	r.write(b, []byte("hello"))
	r.wantRead(a, "hello")
}

func checkAdoptNothing(r *rig) {
	rd, wr := r.pipe()
	syscall.Close(rd)
	syscall.Close(wr)
	for _, fd := range []int{-1, wr} {
		if h, err := r.be.Adopt(fd); !errors.Is(err, syscall.EBADF) {
			r.t.Errorf("Adopt(%d): %d, %v, want EBADF", fd, h, err)
		}
	}
}

func checkForget(r *rig) {
	c, s := r.pair(tcp4)
	op := readOp(s, backend.Multi)
	r.submit(op)
	r.write(c, []byte("one"))
	r.readMulti(op, func(all []byte, _ bool) bool { return len(all) == 3 })
	r.cancel(op)
	r.shut(s, backend.Forget)
	r.write(c, []byte("two"))
	r.quiet(10e6)
	if res := r.do(readOp(s, 0)); res.err == nil {
		r.t.Errorf("a forgotten handle was read: %+v", res)
	}
	other := newRig(r.t, r.maker)
	h := other.adopt(int(s))
	other.wantRead(h, "two")
	other.write(h, []byte("three"))
	r.wantRead(c, "three")
}

func checkUnixMode(r *rig) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, mode := range []uint32{0o600, 0o660, 0o666} {
		_, a := r.listen(unix, func(s *backend.Spec) { s.Mode = mode })
		st, err := os.Stat(a.Path)
		if err != nil {
			r.t.Fatal(err)
		}
		if st.Mode().Perm() != os.FileMode(mode) {
			r.t.Errorf("mode %v, want %#o", st.Mode().Perm(), mode)
		}
	}
}

func checkUnixFile(r *rig) {
	l, a := r.listen(unix)
	r.shut(l, backend.CloseFlat)
	if _, err := os.Lstat(a.Path); !errors.Is(err, os.ErrNotExist) {
		r.t.Errorf("after the listener closed: %v", err)
	}
	l, a = r.listen(unix)
	if err := os.Remove(a.Path); err != nil {
		r.t.Fatal(err)
	}
	other := newRig(r.t, r.maker)
	spec := backend.Spec{Family: backend.Unix, Bind: true, Local: a, Backlog: 1}
	if _, err := other.be.Open(&spec); err != nil {
		r.t.Fatal(err)
	}
	r.shut(l, backend.CloseFlat)
	if _, err := os.Lstat(a.Path); err != nil {
		r.t.Errorf("another listener's file was removed: %v", err)
	}
}

func checkWatchRaw(r *rig) {
	rd, wr := r.pipe()
	defer syscall.Close(wr)
	op := &backend.Op{Kind: backend.Ready, Handle: backend.Handle(rd), Events: backend.Readable, Flags: backend.Multi}
	r.submit(op)
	r.quiet(5e6)
	if _, err := syscall.Write(wr, []byte("abc")); err != nil {
		r.t.Fatal(err)
	}
	for range 3 {
		if res := r.await(op); res.err != nil || backend.Events(res.n) != backend.Readable {
			r.t.Fatalf("got %d, %v", res.n, res.err)
		}
		delete(r.got, op)
		if !r.out[op] {
			r.submit(op)
		}
	}
	var buf [8]byte
	if n, err := syscall.Read(rd, buf[:]); n != 3 {
		r.t.Fatal(n, err)
	}
	// Unwatch ends even what the kernel has been given, and makes room for another watch.
	for range 3 {
		r.be.Cancel(op)
		_ = r.be.Shut(op.Handle, backend.Unwatch) // EBADF if Cancel has done it all
		if op.Armed() {
			r.t.Fatal("armed after Unwatch")
		}
		delete(r.out, op)
		op = &backend.Op{Kind: backend.Ready, Handle: op.Handle, Events: backend.Readable, Flags: backend.Multi}
		r.submit(op)
		r.quiet(5e6)
	}
	r.cancel(op)
	if _ = r.be.Shut(op.Handle, backend.Unwatch); flagsOf(r, rd) < 0 {
		r.t.Error("the end of the watch closed the descriptor")
	}
	l, a := r.listen(tcp4)
	c, s := r.dial(tcp4, l, a)
	for _, h := range []backend.Handle{l, c, s} {
		if r.be.Shut(h, backend.Unwatch) == nil {
			r.t.Errorf("Unwatch of handle %d: no error", h)
		}
	}
	r.write(c, []byte("abc"))
	if got := r.read(s, 3); string(got) != "abc" {
		r.t.Errorf("after Unwatch of handles %q came", got)
	}
	if err := syscall.Close(rd); err != nil {
		r.t.Errorf("the end of the watch closed the descriptor: %v", err)
	}
	r.quiet(5e6)
}

func checkClosedBehindBack(r *rig) {
	for _, adopted := range []bool{false, true} {
		for _, duplicate := range []bool{false, true} {
			p, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				r.t.Fatal(err)
			}
			var op *backend.Op
			h := backend.Handle(p[0])
			if adopted {
				h = r.adopt(p[0])
				op = readOp(h, backend.Multi)
			} else {
				op = &backend.Op{Kind: backend.Ready, Handle: h, Events: backend.Readable, Flags: backend.Multi}
			}
			r.submit(op)
			r.wait(0)
			kept := -1
			if duplicate { // the kernel goes on reporting for the closed number
				if kept, err = syscall.Dup(p[0]); err != nil {
					r.t.Fatal(err)
				}
			}
			if err := syscall.Close(int(h)); err != nil {
				r.t.Fatal(err)
			}
			if duplicate {
				if _, err := syscall.Write(p[1], []byte("stale")); err != nil {
					r.t.Fatal(err)
				}
			}
			res := r.await(op)
			for res.err == nil { // it may be reported ready before it is found out
				if !r.out[op] {
					r.submit(op)
				}
				res = r.await(op)
			}
			if !errors.Is(res.err, syscall.EBADF) {
				r.t.Errorf("adopted %t, duplicate %t: the owner was told %v, want EBADF", adopted, duplicate, res.err)
			}
			_ = r.be.Shut(h, backend.Forget)
			start, waits := time.Now(), 0
			for time.Since(start) < 30*time.Millisecond {
				r.wait(10 * time.Millisecond)
				waits++
			}
			if waits > 20 {
				r.t.Errorf("adopted %t, duplicate %t: %d Waits in 30 ms: it spins", adopted, duplicate, waits)
			}
			syscall.Close(p[1])
			if kept >= 0 {
				syscall.Close(kept)
			}
		}
	}
}

func checkSplice(r *rig) {
	a, b := r.pair(tcp4)
	c, d := r.pair(tcp4)
	rd, wr := r.pipe()
	defer syscall.Close(rd)
	defer syscall.Close(wr)
	want := pattern(1<<20, 11)
	src := newPump(a, d, 0, 0)
	src.want, src.sent = want, want
	in := &backend.Op{Kind: backend.SpliceIn, Handle: b, Peer: backend.Handle(wr), Max: 1 << 16}
	out := &backend.Op{Kind: backend.SpliceOut, Handle: c, Peer: backend.Handle(rd)}
	held := 0
	r.until("end of the splice", func() bool {
		end := src.run(r)
		for len(r.got[in]) > 0 {
			res := r.take(in)
			if res.err != nil || res.n <= 0 {
				r.t.Fatalf("splice in: %d, %v", res.n, res.err)
			}
			held += res.n
		}
		for len(r.got[out]) > 0 {
			res := r.take(out)
			if res.err != nil || res.n <= 0 || res.n > held {
				r.t.Fatalf("splice out of %d: %d, %v", held, res.n, res.err)
			}
			held -= res.n
		}
		switch {
		case r.out[in] || r.out[out]:
		case held > 0:
			out.Max = int32(held)
			r.submit(out)
		default:
			r.submit(in)
		}
		return end
	})
	if !bytes.Equal(src.got, want) {
		r.t.Error("bytes differ")
	}
	if !r.out[in] {
		r.submit(in)
	}
	r.shut(a, backend.CloseFlat)
	if res := r.await(in); res.n != 0 || res.err != nil {
		r.t.Errorf("splice at the end of the stream: %d, %v", res.n, res.err)
	}
}
