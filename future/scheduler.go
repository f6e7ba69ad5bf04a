package future

import (
	"errors"
	"log/slog"
	"time"
)

// Timer is what futures need of a loop's timer: Set makes it fire once after d,
// replacing an earlier Set; Stop reports whether it was set.
type Timer interface {
	Set(d time.Duration)
	Stop() bool
}

// Loop is what On needs of a loop. Soon queues a callback for the next turn and belongs
// to the loop's goroutine; Post does so from any goroutine, and fails if the loop is
// closed. What they and NewTimer return depends on the loop, which is why C and T are
// type parameters; the compiler infers both.
type Loop[C any, T Timer] interface {
	Soon(fn func()) C
	Post(fn func()) (C, error)
	NewTimer(fn func()) T
	Now() time.Time
}

// Job is what a Scheduler runs.
type Job interface {
	// Run is called once for each Enqueue, on the loop's goroutine.
	Run()
}

// Scheduler is a loop as futures and tasks see it. It collects the jobs for the next
// turn and asks the loop once for all of them. Its methods belong to the loop's
// goroutine unless they say otherwise.
type Scheduler struct {
	soon     func(func()) any
	post     func(func()) error
	postOr   func(fn, closed func()) error
	newTimer func(func()) Timer
	now      func() time.Time
	loop     any

	ready []Job  // what the next turn runs
	batch []Job  // what this turn runs
	turn  func() // runTurn

	armed    bool // the loop has been asked for a turn
	call     any  // what the loop returned
	flushing bool // inside Flush: the loop need not be asked

	report      func(error)
	atCloseOnly bool
	unseen      unseenList
}

// Option is an option of On.
type Option func(*Scheduler)

// WithUnseen reports failures that no one looked at to f, on the loop's goroutine,
// instead of to the default logger. f gets an *UnseenError.
func WithUnseen(f func(error)) Option { return func(s *Scheduler) { s.report = f } }

// AtCloseOnly reports failures that no one looked at when the Scheduler is closed and
// not before, so that the garbage collector has no influence on when they are reported.
// Until then each takes some memory.
func AtCloseOnly() Option { return func(s *Scheduler) { s.atCloseOnly = true } }

// On makes a Scheduler for a loop. Several on one loop do not disturb each other, but
// futures that are combined must belong to the same Scheduler.
func On[C any, T Timer](l Loop[C, T], opts ...Option) *Scheduler {
	s := &Scheduler{
		soon: func(f func()) any { return l.Soon(f) },
		post: func(f func()) error {
			_, err := l.Post(f)
			return err
		},
		newTimer: func(f func()) Timer { return l.NewTimer(f) },
		now:      l.Now,
		loop:     l,
		report:   func(err error) { slog.Default().Error(err.Error()) },
	}
	s.postOr = func(f, _ func()) error { return s.post(f) }
	if p, ok := any(l).(interface {
		PostOr(fn, closed func()) (C, error)
	}); ok {
		s.postOr = func(f, closed func()) error {
			_, err := p.PostOr(f, closed)
			return err
		}
	}
	s.turn = s.runTurn
	for _, o := range opts {
		o(s)
	}
	return s
}

// Enqueue makes j run in the next turn of the loop, after everything enqueued before.
func (s *Scheduler) Enqueue(j Job) {
	s.ready = append(s.ready, j)
	s.arm()
}

// arm asks the loop for a turn, once.
func (s *Scheduler) arm() {
	if !s.armed && !s.flushing {
		s.armed = true
		s.call = s.soon(s.turn)
	}
}

// Post makes the loop run fn. Any goroutine may call it. It returns the loop's error if
// the loop is closed.
func (s *Scheduler) Post(fn func()) error { return s.post(fn) }

// PostOr is Post for a callback that someone waits for: if the loop is closed before fn has
// run, it calls closed instead, on the goroutine that closes it; one made of a *weir.Tenant
// calls it on the loop's goroutine if the tenant is closed. A loop without a PostOr method
// (those two have one) calls neither then. Any goroutine may call it. It returns the
// loop's error if the loop is closed already, and neither is called.
func (s *Scheduler) PostOr(fn, closed func()) error { return s.postOr(fn, closed) }

// NewTimer makes a stopped timer on the loop.
func (s *Scheduler) NewTimer(fn func()) Timer { return s.newTimer(fn) }

// Now is the loop's time.
func (s *Scheduler) Now() time.Time { return s.now() }

// Loop is what On was given.
func (s *Scheduler) Loop() any { return s.loop }

// runTurn is what the loop calls.
func (s *Scheduler) runTurn() {
	s.armed, s.call = false, nil
	s.runBatch()
}

func (s *Scheduler) runBatch() {
	s.batch, s.ready = s.ready, s.batch[:0]
	i := 0
	defer func() {
		if rest := s.batch[i:]; len(rest) > 0 {
			// A job panicked; the loop gets the panic, the other jobs go on.
			s.ready = append(append([]Job(nil), rest...), s.ready...)
			clear(rest)
			s.arm()
		}
	}()
	for i < len(s.batch) {
		j := s.batch[i]
		s.batch[i] = nil
		i++
		j.Run()
	}
}

// flushMax bounds Flush.
const flushMax = 1_000_000

// errFlush is what Flush returns for work that never ends.
var errFlush = errors.New("future: the queue never becomes empty")

// Flush runs what is queued, and what that queues in turn, until nothing is left. It is
// for use after the loop's end: a closed loop has no next turn, but callbacks and
// coroutines may still have something to clean up. It fails if the queue never becomes
// empty, and must not be called from a callback.
func (s *Scheduler) Flush() error {
	s.flushing = true
	defer func() {
		s.flushing = false
		if len(s.ready) > 0 { // a panic, or a queue that never becomes empty
			s.arm()
		} else if c, ok := s.call.(interface{ Cancel() bool }); ok && c.Cancel() {
			// The turn that the loop was asked for has nothing to do.
			s.armed, s.call = false, nil
		}
	}()
	for range flushMax {
		if len(s.ready) == 0 {
			return nil
		}
		s.runBatch()
	}
	return errFlush
}

// Close runs what is queued, see Flush, and then reports every failure that no one
// looked at, in the order of settling. Futures that settle later are not reported until
// it is called again.
func (s *Scheduler) Close() error {
	err := s.Flush()
	for u := s.unseen.first; u != nil; u = s.unseen.first {
		s.reportUnseen(u)
	}
	return err
}
