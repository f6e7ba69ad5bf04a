package file

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
)

const (
	// readPiece is how many bytes are read at once.
	readPiece = 128 << 10
	// writeMost is how many bytes wait for a write.
	writeMost = 256 << 10
	// growthPeriod is how often a file that is followed is looked at where nothing tells
	// that it has grown, such as on another machine's disk.
	growthPeriod = time.Second
	// fullPause is how long work waits that the executor had no room for.
	fullPause = 10 * time.Millisecond
)

// conn is the carrier of a file's transport. It belongs to the loop.
type conn struct {
	s    *future.Scheduler
	e    *executor.Executor
	l    *weir.Loop
	c    Config
	f    *os.File
	feed *weir.Feed
	// shared: the file is read and written at its own position, which others may share
	shared bool

	readAt  int64
	bufs    [2][]byte // one is read into while the other is delivered
	which   int       // the one that is read into next
	reading bool      // a read is under way
	held    []byte    // was read when no one wanted it
	heldErr error
	holds   bool // held and heldErr are set
	paused  bool
	readEOF bool // no more is read
	follow  *weir.Timer
	growth  func() // stops what tells of growth; nil: nothing does
	grown   bool   // the file has changed since the read under way began

	writeAt int64
	out     []byte // waits
	busy    []byte // lent to the write under way
	writing bool   // a write is under way
	full    bool   // Write has taken less than it was given
	ended   bool   // CloseWrite was called

	closing bool // Close was called
	shut    bool // closing the file is under way
	over    bool // the file is no longer ours
}

// result is that of a read or write.
type result struct {
	at   int64 // where it began
	n    int
	err  error
	next *os.File // has taken the file's place: see reopened
}

// begin makes the transport of an open file.
func (k *conn) begin(f weir.Factory, opts []weir.StreamOption) (err error) {
	if k.feed, err = k.l.Carry(k, opts...); err != nil {
		k.letGo()
		return err
	}
	return k.start(f)
}

// start has f make the protocol, and begins to read.
func (k *conn) start(f weir.Factory) error {
	k.readEOF = !k.c.reads()
	if k.c.Follow {
		k.follow = k.l.NewTimer(k.grew)
		k.growth = watchGrowth(k.l, k.f, k.grew)
	}
	if !k.feed.Begin(f) {
		return weir.ErrClosed
	}
	k.read()
	return nil
}

// do runs blocking work, and then calls done on the loop, also while that is being
// closed, unless the file is no longer ours by then.
func (k *conn) do(work func() result, done func(result)) {
	err := executor.Do(k.e, k.s, func() { k.post(work(), done) }, func(err error) { k.post(result{err: err}, done) })
	switch {
	case errors.Is(err, executor.ErrFull):
		k.l.After(fullPause, func() {
			if !k.over {
				k.do(work, done)
			}
		})
	case err != nil:
		k.post(result{err: err}, done)
	}
}

// post has the loop call done. Any goroutine may call it.
func (k *conn) post(r result, done func(result)) {
	tell := func() {
		if !k.over {
			done(r)
			return
		}
		k.drop(r.next)
	}
	if _, err := k.l.PostOr(tell, tell); err != nil {
		k.drop(r.next) // a closed loop has lost the connection
	}
}

// drop closes a file that is not wanted. Any goroutine may call it.
func (k *conn) drop(f *os.File) {
	if f != nil {
		executor.Ensure(k.e, k.s, func() { _ = f.Close() }) // it was only opened
	}
}

// read reads the next piece, if it is wanted.
func (k *conn) read() {
	if k.reading || k.holds || k.paused || k.readEOF || k.closing || k.over {
		return
	}
	if k.bufs[k.which] == nil {
		k.bufs[k.which] = make([]byte, readPiece)
	}
	buf, f, at, follow, shared := k.bufs[k.which], k.f, k.readAt, k.c.Follow, k.shared
	k.which = 1 - k.which
	k.reading, k.grown = true, false
	path := ""
	if follow && !k.c.writes() {
		path = k.c.Path
	}
	work := func() result { return readAt(f, buf, at, follow, path) }
	if shared {
		work = func() (r result) {
			r.n, r.err = f.Read(buf)
			return r
		}
	}
	k.do(work, func(r result) {
		k.reading = false
		switch {
		case k.readEOF || k.closing:
			k.drop(r.next)
		case r.next != nil:
			k.replace(r.next)
		case k.paused:
			k.readAt = r.at + int64(r.n)
			k.held, k.heldErr, k.holds = buf[:r.n], r.err, true
		default:
			k.readAt = r.at + int64(r.n)
			k.take(buf[:r.n], r.err)
		}
	})
}

// readAt runs on a goroutine of the executor. path is that of a file that is followed by
// its name; "": it is followed as it is.
func readAt(f *os.File, buf []byte, at int64, follow bool, path string) result {
	n, err := f.ReadAt(buf, at)
	if n == 0 && follow && errors.Is(err, io.EOF) {
		if st, bad := f.Stat(); bad == nil && st.Size() < at {
			at = 0
			n, err = f.ReadAt(buf, 0)
		}
	}
	if n == 0 && path != "" && errors.Is(err, io.EOF) {
		next := reopened(f, path)
		if next != nil {
			// What was written to the old one before it was moved away comes first.
			if n, err = f.ReadAt(buf, at); n > 0 {
				_ = next.Close() // it was only opened
				return result{at: at, n: n, err: err}
			}
		}
		return result{at: at, err: io.EOF, next: next}
	}
	return result{at: at, n: n, err: err}
}

// reopened opens the file that has the name of f by now, if that is another one. While
// there is none, or it may not be read yet, f is followed on.
func reopened(f *os.File, path string) *os.File {
	was, err := f.Stat()
	if err != nil {
		return nil
	}
	if is, err := os.Stat(path); err != nil || os.SameFile(was, is) {
		return nil
	}
	next, err := (&Config{Path: path, Read: true}).open()
	if err != nil {
		return nil
	}
	if is, err := next.Stat(); err != nil || os.SameFile(was, is) {
		_ = next.Close() // it was only opened
		return nil
	}
	return next
}

// replace goes on with the file that has taken this one's place, from its beginning.
func (k *conn) replace(next *os.File) {
	k.drop(k.f)
	k.f, k.readAt = next, 0
	if k.growth != nil {
		k.growth()
	}
	k.growth = watchGrowth(k.l, k.f, k.grew)
	k.read()
}

// take delivers a piece, and what comes after it.
func (k *conn) take(piece []byte, err error) {
	if err == nil {
		k.read()
	}
	k.feed.Deliver(piece)
	switch {
	case k.over || k.closing || err == nil:
	case !errors.Is(err, io.EOF):
		k.endReading()
		k.feed.End(k.failure("read", err))
	case k.c.Follow:
		k.bufs = [2][]byte{} // it may not grow for long
		if k.grown {
			k.read()
			return
		}
		k.follow.Set(growthPeriod)
	default:
		k.endReading()
		k.feed.End(nil)
		if !k.c.writes() {
			k.finish()
		}
	}
}

// endReading lets go of what is kept for reading.
func (k *conn) endReading() {
	k.readEOF = true
	k.bufs, k.held, k.heldErr, k.holds = [2][]byte{}, nil, nil, false
	if k.follow != nil {
		k.follow.Stop()
	}
	if k.growth != nil {
		k.growth()
		k.growth = nil
	}
}

// grew is called when the file may have changed.
func (k *conn) grew() {
	k.grown = true
	k.read()
}

// PauseReading implements weir.Carrier.
func (k *conn) PauseReading() { k.paused = true }

// ResumeReading implements weir.Carrier.
func (k *conn) ResumeReading() {
	k.paused = false
	if !k.holds {
		k.read()
		return
	}
	// Not from within the call: the piece may be the last.
	k.l.Soon(func() {
		if k.holds && !k.paused && !k.closing && !k.over {
			piece, err := k.held, k.heldErr
			k.held, k.heldErr, k.holds = nil, nil, false
			k.take(piece, err)
		}
	})
}

// Write implements weir.Carrier.
func (k *conn) Write(bufs [][]byte) (n int, err error) {
	for _, b := range bufs {
		if k.c.writes() {
			part := b[:min(len(b), writeMost-len(k.out))]
			k.full = k.full || len(part) < len(b)
			k.out = append(k.out, part...)
			b = part
		}
		n += len(b)
	}
	k.write()
	return n, nil
}

// write writes what waits.
func (k *conn) write() {
	if k.writing || len(k.out) == 0 || k.over {
		return
	}
	k.out, k.busy = k.busy[:0], k.out
	k.writing = true
	p, f, at, end := k.busy, k.f, k.writeAt, k.c.Append || k.shared
	k.do(func() (r result) {
		if end {
			r.n, r.err = f.Write(p)
		} else {
			r.n, r.err = f.WriteAt(p, at)
		}
		return r
	}, k.writeDone)
}

func (k *conn) writeDone(r result) {
	k.writing = false
	k.writeAt += int64(r.n)
	k.busy = k.busy[:0]
	if r.err != nil {
		k.feed.Fail(k.failure("write", r.err))
		return
	}
	k.write()
	if !k.writing {
		k.out, k.busy = nil, nil // nothing may come for long
	}
	k.feed.Moved()
	if k.full {
		k.full = false
		k.feed.Writable()
	}
	k.settle()
}

// Held implements weir.Holder.
func (k *conn) Held() int { return len(k.out) + len(k.busy) }

// CanCloseWrite implements weir.Carrier.
func (k *conn) CanCloseWrite() bool { return true }

// CloseWrite implements weir.Carrier.
func (k *conn) CloseWrite() error {
	k.ended = true
	k.settle()
	return nil
}

// settle closes the file where it was waiting for the last write.
func (k *conn) settle() {
	if k.Held() == 0 && !k.over && (k.closing || k.ended && !k.c.reads()) {
		k.finish()
	}
}

// finish closes the file, and then the transport.
func (k *conn) finish() {
	if k.shut {
		return
	}
	k.shut = true
	k.endReading()
	f := k.f
	executor.Ensure(k.e, k.s, func() {
		k.post(result{err: f.Close()}, func(r result) {
			k.over = true
			if r.err != nil {
				r.err = k.failure("close", r.err)
			}
			if r.err == nil && !k.closing && !k.c.reads() {
				k.feed.End(nil)
			}
			k.feed.Closed(r.err)
		})
	})
}

// Close implements weir.Carrier.
func (k *conn) Close(abort bool) {
	switch {
	case k.over:
	case abort:
		k.endReading()
		k.closing, k.over = true, true
		if !k.shut {
			k.letGo()
		}
		k.feed.Closed(nil)
	default:
		k.closing = true
		k.endReading()
		k.settle()
	}
}

// Reset implements weir.Resetter: a file has no peer that could take its end for another.
func (k *conn) Reset() { k.Close(false) }

// letGo closes the file when nothing waits for that. A read or write that is under way
// holds the close up, on the executor's goroutine: a disk may take long to close a file too.
func (k *conn) letGo() {
	f := k.f
	executor.Ensure(k.e, k.s, func() { _ = f.Close() }) // nothing waits for what it says
}

// failure says what an operation failed with.
func (k *conn) failure(op string, err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = os.NewSyscallError(op, path.Err)
	}
	return &net.OpError{Op: op, Net: "file", Addr: k.LocalAddr(), Err: err}
}

// LocalAddr has the file's path.
func (k *conn) LocalAddr() net.Addr { return &weir.FileAddr{Net: "file", Name: k.c.Path} }

// RemoteAddr is LocalAddr.
func (k *conn) RemoteAddr() net.Addr { return k.LocalAddr() }
