// Package sink writes to destinations that may be slow, such as standard error, a file,
// a pipe or a terminal, without ever making the caller wait.
//
//	loops, goroutines             │ the sink's goroutine
//	Put, Write ── a bounded queue ┼─▶ w.Write
//	   └─ full: dropped, counted  │   what was left out is said, in its place
//
// A write to a pipe whose reader has stopped, to a terminal after Ctrl-S, or to a
// file on a slow disk blocks for as long as it likes. On a loop that would stop all
// of its traffic, so logs, recordings and records of slog go through a Sink:
//
//	s := sink.New(os.Stderr, sink.Config{Name: "stderr"})
//	s.Start()
//	loop, err := weir.NewLoop(weir.WithLogger(slog.New(slog.NewTextHandler(s, nil))))
//	…
//	err = s.Close(ctx) // flushes until ctx ends
//
// Only Start starts a goroutine. A Sink that was not started writes in Step, Flush and
// Close, on the caller's goroutine: tests and simulated runs use it that way, also to
// imitate a reader that does not keep up.
package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime/pprof"
	"strconv"
	"sync"
	"syscall"
	"time"
)

var (
	// ErrFull says that an entry was dropped because the queue has no room.
	ErrFull = errors.New("sink: the queue is full")
	// ErrClosed says that the Sink was closed.
	ErrClosed = errors.New("sink: closed")

	errNoRoom = errors.New("sink: no room in the queue for what waits")
)

// Gap says what was left out at one place in a Sink's output.
type Gap struct {
	Entries int
	Bytes   int64
	// Err is the failure of the writer that lost them; nil if they found the queue
	// full, because the reader did not keep up.
	Err error
}

// String describes the gap in one line.
func (g Gap) String() string {
	why := "its reader did not keep up"
	if g.Err != nil {
		why = g.Err.Error()
		var at *fs.PathError
		if errors.As(g.Err, &at) { // the output itself shows which file
			why = at.Err.Error()
		}
	}
	return fmt.Sprintf("%d entries (%d bytes) were left out here: %s", g.Entries, g.Bytes, why)
}

// The defaults of Config.
const (
	DefaultBytes   = 1 << 20
	DefaultEntries = 1 << 14
	// DefaultBatch is what Linux writes to a pipe in one piece (pipe(7), PIPE_BUF):
	// lines of several processes do not mix.
	DefaultBatch = 4 << 10
)

// Config says how a Sink works. Its zero value is usable.
type Config struct {
	// Name is for people: goroutine profiles carry it as the label "sink".
	Name string
	// Bytes and Entries bound what waits, including what is being written; 0 or less
	// means DefaultBytes and DefaultEntries.
	Bytes, Entries int
	// Batch is how many bytes of whole entries are written in one call; an entry that
	// is longer is written alone. 0 or less means DefaultBatch.
	Batch int
	// Gap appends to b the text, including its newline, that marks the place in the
	// output where entries were left out; if nil, it is Gap.String as a line. It is
	// called with the Sink locked, and must neither block nor use the Sink.
	Gap func(b []byte, g Gap) []byte
	// Trouble is called when the writer has failed or, with ErrFull, when the queue is
	// full and entries are dropped, and with nil when all is well again: once each. It
	// is called on the Sink's goroutine, or for ErrFull on the goroutine of Put's
	// caller, and must neither block nor use the Sink. It may be nil.
	Trouble func(err error)
	// Lossless keeps what could not be written for lack of room (ENOSPC, EDQUOT) and
	// tries again, instead of dropping it; Put takes entries beyond the bounds, and its
	// caller has to wait with WhenRoom before the next. Any other failure of the writer
	// breaks the Sink: see Err.
	Lossless bool
}

// Stats counts what a Sink did.
type Stats struct {
	Entries, Bytes               int   // waiting, including what is being written
	WrittenEntries, WrittenBytes int64 // including the lines that say what was left out
	DroppedEntries, DroppedBytes int64 // by a full queue or a failed write
}

// Sink is a queue in front of an io.Writer. All methods are safe from any goroutine,
// except Step, which only one goroutine at a time may call.
type Sink struct {
	w io.Writer
	c Config

	mu       sync.Mutex
	queue    []byte  // entries that wait, one after another
	sizes    []int32 // theirs
	taken    Stats   // only Entries and Bytes, of the batch that is being written
	gap      Gap     // dropped since the last entry of queue
	dropping bool    // until half of the queue is free
	behind   bool    // Trouble got ErrFull, and has not yet been told that all is well
	stats    Stats   // without Entries and Bytes
	err      error   // why a lossless Sink is broken
	closed   bool
	started  bool
	waiters  []func()
	flushes  []flush
	put      int64 // bytes of all entries that were taken
	done     int64 // how many of those were written or lost

	wake  chan struct{} // holds one: something waits, or the Sink is closed
	quit  chan struct{} // closed by Close when its patience is over
	ended chan struct{} // closed when the goroutine ends

	// These belong to the goroutine that writes.
	writing sync.Mutex
	batch   []byte // the part of spare that is not written yet
	lens    []int32
	last    bool // the last gap has been tried
	lost    Gap  // lost by failed writes since the last one that succeeded
	torn    bool // the last write ended within an entry
	failing bool
	scratch []byte

	spare      []byte // the other queue
	spareSizes []int32
}

type flush struct {
	upTo int64
	done chan struct{}
}

// New makes a Sink in front of w. It writes once it is started.
func New(w io.Writer, c Config) *Sink {
	if c.Bytes <= 0 {
		c.Bytes = DefaultBytes
	}
	if c.Entries <= 0 {
		c.Entries = DefaultEntries
	}
	if c.Batch <= 0 {
		c.Batch = DefaultBatch
	}
	if c.Gap == nil {
		c.Gap = func(b []byte, g Gap) []byte { return append(append(b, g.String()...), '\n') }
	}
	return &Sink{w: w, c: c, wake: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{})}
}

// Name is the name of the configuration.
func (s *Sink) Name() string { return s.c.Name }

// Lossless is the setting of the configuration.
func (s *Sink) Lossless() bool { return s.c.Lossless }

// Start starts the goroutine that writes, which ends after Close. Calling it again
// has no effect.
func (s *Sink) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.closed {
		return
	}
	s.started = true
	go pprof.Do(context.Background(), pprof.Labels("sink", s.c.Name), func(context.Context) { s.run() })
}

// Write is Put for code that needs an io.Writer: p is one entry. It reports len(p) even
// if the entry was dropped, because a log has no use for that failure; the output and
// Stats show it. The only error is ErrClosed.
func (s *Sink) Write(p []byte) (int, error) {
	if err := s.Put(p); err != nil && !errors.Is(err, ErrFull) {
		return 0, err
	}
	return len(p), nil
}

// Put adds an entry, usually a line with its newline, and never blocks. p is copied. If
// there is no room the entry is dropped and the error is ErrFull; once that has
// happened, others are dropped too until half of the queue is free, so that everything
// left out is in one place. A lossless Sink takes every entry, until its writer breaks:
// the error is then Err's.
func (s *Sink) Put(p []byte) error {
	fell, err := s.enqueue(p)
	if fell && s.c.Trouble != nil {
		s.c.Trouble(ErrFull)
	}
	return err
}

// enqueue is Put; fell says that this is the first entry to be dropped since the writer
// last kept up.
func (s *Sink) enqueue(p []byte) (fell bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, ErrClosed
	}
	if s.err != nil {
		s.drop(p)
		return false, s.err
	}
	if !s.c.Lossless {
		entries, bytes := len(s.sizes)+s.taken.Entries, len(s.queue)+s.taken.Bytes
		if s.dropping && entries <= s.c.Entries/2 && bytes <= s.c.Bytes/2 {
			s.dropping = false
		}
		// An entry longer than the whole queue still passes if it is alone.
		if entries >= s.c.Entries || bytes > 0 && bytes+len(p) > s.c.Bytes {
			s.dropping = true
		}
		if s.dropping {
			s.drop(p)
			fell = !s.behind
			s.behind = true
			return fell, ErrFull
		}
		s.putGap()
	}
	s.append(p)
	return false, nil
}

func (s *Sink) drop(p []byte) {
	s.gap.Entries++
	s.gap.Bytes += int64(len(p))
	s.stats.DroppedEntries++
	s.stats.DroppedBytes += int64(len(p))
}

// append queues an entry.
func (s *Sink) append(p []byte) {
	s.queue = append(s.queue, p...)
	s.sizes = append(s.sizes, int32(min(len(p), 1<<31-1))) //nolint:gosec // it is bounded
	s.put += int64(len(p))
	s.signal()
}

// putGap queues the text that marks where entries were dropped.
func (s *Sink) putGap() {
	if s.gap.Entries == 0 {
		return
	}
	from := len(s.queue)
	s.queue = s.c.Gap(s.queue, s.gap)
	s.gap = Gap{}
	n := len(s.queue) - from
	s.sizes = append(s.sizes, int32(n)) //nolint:gosec // a line
	s.put += int64(n)
	s.signal()
}

func (s *Sink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Full reports whether the bounds are reached. With a lossless Sink, put nothing more
// then until WhenRoom says so.
func (s *Sink) Full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full(1)
}

// full reports whether at least a part of the bounds, 1/part, is used up.
func (s *Sink) full(part int) bool {
	return s.err == nil && (len(s.sizes)+s.taken.Entries >= max(s.c.Entries/part, 1) || len(s.queue)+s.taken.Bytes >= max(s.c.Bytes/part, 1))
}

// WhenRoom calls f once, when at most half of the bounds is used up or the Sink is
// broken or closed: on the Sink's goroutine, or at once if that is already so. f must
// neither block nor use the Sink; usually it is a weir.Notifier's Notify.
func (s *Sink) WhenRoom(f func()) {
	s.mu.Lock()
	if s.full(2) && !s.closed {
		s.waiters = append(s.waiters, f)
		f = nil
	}
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

// Err is why a lossless Sink is broken; nil if it is not.
func (s *Sink) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Stats returns the counts so far.
func (s *Sink) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Entries, st.Bytes = len(s.sizes)+s.taken.Entries, len(s.queue)+s.taken.Bytes
	return st
}

// Flush waits until everything put before it is written or lost, or until ctx ends, in
// which case it returns ctx's error.
func (s *Sink) Flush(ctx context.Context) error {
	s.mu.Lock()
	s.putGap()
	if !s.started {
		s.mu.Unlock()
		for s.Step() {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.done < s.put {
			return errNoRoom
		}
		return nil
	}
	if s.done >= s.put {
		s.mu.Unlock()
		return nil
	}
	f := flush{upTo: s.put, done: make(chan struct{})}
	s.flushes = append(s.flushes, f)
	s.mu.Unlock()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close takes no more entries, flushes until ctx ends, and ends the goroutine; if that
// is inside a write, it ends after that write. The writer is not closed; if Close
// returns nil, nothing uses it any more. An error says that something was not written
// in time; it wraps ctx's. Calling it again waits again.
func (s *Sink) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	started := s.started
	waiters := s.waiters
	s.waiters = nil
	s.mu.Unlock()
	for _, f := range waiters {
		f()
	}
	s.signal()
	err := s.Flush(ctx)
	if started && err == nil {
		select {
		case <-s.ended:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.quit:
	default:
		close(s.quit)
	}
	return fmt.Errorf("sink %s: %s entries were not written: %w", s.c.Name, strconv.Itoa(len(s.sizes)+s.taken.Entries), err)
}

// run is the goroutine.
func (s *Sink) run() {
	defer close(s.ended)
	for {
		again := s.Step()
		select {
		case <-s.quit:
			return
		default:
		}
		if again {
			continue
		}
		s.mu.Lock()
		over := s.closed && len(s.sizes) == 0 && s.gap.Entries == 0 && len(s.lens) == 0
		s.mu.Unlock()
		if over {
			return
		}
		if len(s.lens) > 0 { // there was no room for it
			s.rest()
			continue
		}
		<-s.wake
	}
}

// How long to wait before writing again if no event says when that can succeed.
const (
	tryBusy = 10 * time.Millisecond  // a descriptor that another process made non-blocking
	tryFull = 250 * time.Millisecond // a full disk
)

// rest waits before another try of a write.
func (s *Sink) rest() {
	d := tryBusy
	if s.failing {
		d = tryFull
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.quit:
	}
}

// Step writes the next batch and reports whether it made progress and there may be
// more: false means that nothing waits, or that there was no room for it. It blocks for
// as long as the writer does. It is for a Sink that was not started.
func (s *Sink) Step() bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	if len(s.lens) == 0 && !s.take() {
		return false
	}
	prefix := s.scratch[:0]
	if s.torn {
		prefix = append(prefix, '\n')
	}
	if s.lost.Entries > 0 {
		prefix = s.c.Gap(prefix, s.lost)
	}
	entries, size := s.piece()
	p := s.batch[:size]
	before := len(prefix)
	if before > 0 {
		p = append(prefix, p...)
		s.scratch = p
	}
	n, err := s.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	switch {
	case err == nil:
		s.settle(entries, size)
		return true
	case n < before: // what was left out has not been reported yet
		s.torn = s.torn || n > 0
		n = 0
	default:
		s.lost, s.torn = Gap{}, false
		n -= before
	}
	return s.failed(entries, size, n, err)
}

// take moves what waits into the batch. When a Sink ends, what was left out last
// becomes an empty entry, with its gap in front.
func (s *Sink) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sizes) == 0 {
		s.putGap()
	}
	if len(s.sizes) == 0 && s.closed && s.lost.Entries > 0 && !s.last {
		s.last = true
		s.sizes = append(s.sizes, 0)
	}
	if len(s.sizes) == 0 {
		return false
	}
	s.spare, s.queue = s.queue, s.spare[:0]
	s.spareSizes, s.sizes = s.sizes, s.spareSizes[:0]
	s.batch, s.lens = s.spare, s.spareSizes
	s.taken = Stats{Entries: len(s.lens), Bytes: len(s.batch)}
	return true
}

// piece is how many whole entries at the front of the batch are written together, and
// their size.
func (s *Sink) piece() (entries, size int) {
	for _, n := range s.lens {
		if entries > 0 && size+int(n) > s.c.Batch {
			break
		}
		entries++
		size += int(n)
	}
	return entries, size
}

// settle removes what was written from the batch, and reports that the writer works, or
// that it has caught up.
func (s *Sink) settle(entries, size int) {
	s.lost, s.torn = Gap{}, false
	s.shift(entries, size, false)
	s.mu.Lock()
	well := s.failing
	s.failing = false
	if s.behind && s.taken.Entries == 0 && len(s.sizes) == 0 && s.gap.Entries == 0 {
		s.behind, well = false, true
	}
	s.mu.Unlock()
	if well && s.c.Trouble != nil {
		s.c.Trouble(nil)
	}
}

// shift removes entries from the front of the batch.
func (s *Sink) shift(entries, size int, lost bool) {
	s.batch, s.lens = s.batch[size:], s.lens[entries:]
	s.mu.Lock()
	defer s.mu.Unlock()
	if lost {
		s.stats.DroppedEntries += int64(entries)
		s.stats.DroppedBytes += int64(size)
	} else {
		s.stats.WrittenEntries += int64(entries)
		s.stats.WrittenBytes += int64(size)
	}
	s.taken.Entries -= entries
	s.taken.Bytes -= size
	s.done += int64(size)
	s.told()
}

// told notifies those that wait for room or for what was put.
func (s *Sink) told() {
	if !s.full(2) {
		for _, f := range s.waiters {
			f()
		}
		s.waiters = nil
	}
	left := s.flushes[:0]
	for _, f := range s.flushes {
		if s.done >= f.upTo {
			close(f.done)
			continue
		}
		left = append(left, f)
	}
	s.flushes = left
}

// failed deals with a write of size bytes, of that many entries, of which n bytes were
// written.
func (s *Sink) failed(entries, size, n int, err error) bool {
	whole, done := 0, 0
	for whole < entries && s.lens[whole] > 0 && n >= int(s.lens[whole]) {
		n -= int(s.lens[whole])
		done += int(s.lens[whole])
		whole++
	}
	if whole > 0 {
		s.shift(whole, done, false)
	}
	entries, size = entries-whole, size-done
	busy := errors.Is(err, syscall.EAGAIN)
	room := busy || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if n > 0 && (busy || s.c.Lossless && room) {
		// The next write continues from within the entry.
		s.batch = s.batch[n:]
		s.lens[0] -= int32(n) //nolint:gosec // less than it
		s.mu.Lock()
		s.taken.Bytes -= n
		s.done += int64(n)
		s.mu.Unlock()
	}
	if busy {
		return n > 0 || whole > 0
	}
	first := !s.failing
	s.failing = true
	switch {
	case s.c.Lossless && room:
	case s.c.Lossless:
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		s.lose(len(s.lens), len(s.batch), err)
	default:
		if n > 0 {
			s.torn = true
		}
		s.lose(entries, size, err)
	}
	if first && s.c.Trouble != nil {
		s.c.Trouble(err)
	}
	return !(s.c.Lossless && room)
}

// lose drops entries at the front of the batch that could not be written.
func (s *Sink) lose(entries, size int, err error) {
	s.lost.Entries += entries
	s.lost.Bytes += int64(size)
	s.lost.Err = err
	s.shift(entries, size, true)
}
