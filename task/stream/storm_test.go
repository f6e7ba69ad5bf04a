package stream_test

import (
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
	"github.com/weir-io/weir/weirtest"
)

var (
	stormSeeds = flag.Uint64("storm.seeds", 150, "how many seeds of cancel storms to run")
	stormFirst = flag.Uint64("storm.first", 1, "the first of them")
)

// storm is the run of one seed: tasks on two hosts that talk, wait for each other and
// are canceled at any time, under random network faults.
type storm struct {
	testing.TB // for what weirtest needs of a test; failures are collected
	sim        *weirtest.Sim
	v          *weirtest.Invariants
	r          *rand.Rand
	server     *weir.Loop
	client     *weir.Loop
	ss, cs     *task.Scope
	problems   []string
	cleanups   []func()
	log        strings.Builder // every step of every task, for the comparison of two runs

	begun, cleaned int // functions of tasks
	made, settled  int // futures
	canceled       int // waits that were cut short
	replies        int
	healed         bool

	lock *task.Lock
	sem  *task.Semaphore
	cond *task.Cond
	q    *task.Queue[int]
	put  int
	got  map[int]int
	all  []*task.Task // the tasks that may be canceled
}

func (s *storm) bad(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf("%v: ", s.sim.Now())+fmt.Sprintf(format, args...))
}

func (s *storm) Cleanup(f func())             { s.cleanups = append(s.cleanups, f) }
func (s *storm) Errorf(f string, args ...any) { s.bad(f, args...) }
func (s *storm) Error(args ...any)            { s.bad("%s", fmt.Sprint(args...)) }
func (s *storm) Failed() bool                 { return false } // the caller explains failures
func (s *storm) Log(...any)                   {}
func (s *storm) Logf(string, ...any)          {}
func (s *storm) Helper()                      {}

const stormPlaces = 3

// some is a time up to most, short ones more often.
func (s *storm) some(most time.Duration) time.Duration {
	return time.Duration(s.r.Int64N(int64(most))) >> s.r.IntN(12)
}

// track counts a future until it settles (G7).
func track[T any](s *storm, f *future.Future[T]) *future.Future[T] {
	s.made++
	calls := 0
	f.OnDone(func(T, error) {
		if calls++; calls > 1 {
			s.bad("a future settled %d times (G7)", calls)
		}
		s.settled++
	})
	return f
}

// step records how a wait ended.
func (s *storm) step(t *task.Task, what string, err error) error {
	fmt.Fprintf(&s.log, "%d %s %s %v\n", s.sim.Now(), t.Name(), what, err)
	if errors.Is(err, future.ErrCanceled) {
		s.canceled++
	}
	return err
}

// body wraps the function of a task: its clean-up has to run, even one that waits.
func (s *storm) body(fn func(t *task.Task) error) func(t *task.Task) error {
	return func(t *task.Task) error {
		s.begun++
		defer func() {
			if s.r.IntN(4) == 0 {
				err := t.With(func(*task.Scope) error { return t.Sleep(s.some(time.Second)) }, task.Shielded())
				if err != nil {
					s.bad("the shielded clean-up: %v (G7)", err)
				}
			}
			s.cleaned++
		}()
		return fn(t)
	}
}

// work does a few things that wait.
func (s *storm) work(t *task.Task, depth int) error {
	for range 1 + s.r.IntN(6) {
		if err := s.one(t, depth); err != nil {
			return err
		}
	}
	return nil
}

// errStorm is a failure of a task.
var errStorm = errors.New("storm: failed on purpose")

func (s *storm) one(t *task.Task, depth int) error {
	switch s.r.IntN(14) {
	case 0:
		return s.step(t, "sleep", t.Sleep(s.some(5*time.Second)))
	case 1:
		return s.step(t, "yield", t.Yield())
	case 2:
		if err := s.step(t, "lock", s.lock.Lock(t)); err != nil {
			return err
		}
		err := s.step(t, "sleep locked", t.Sleep(s.some(time.Second)))
		return errors.Join(err, s.lock.Unlock())
	case 3:
		if err := s.step(t, "acquire", s.sem.Acquire(t)); err != nil {
			return err
		}
		defer s.sem.Release()
		return s.step(t, "sleep acquired", t.Sleep(s.some(time.Second)))
	case 4:
		v := s.put
		s.put++
		err := s.step(t, "put", s.q.Put(t, v))
		if err != nil {
			s.got[v]-- // it must not be in the queue
		}
		return err
	case 5, 6:
		v, err := s.q.Get(t)
		if err == nil {
			s.got[v]++
		}
		return s.step(t, "get", err)
	case 7:
		if err := s.lock.Lock(t); err != nil {
			return s.step(t, "lock", err)
		}
		if s.r.IntN(2) == 0 {
			s.cond.Notify(1 + s.r.IntN(2))
			return s.lock.Unlock()
		}
		err := s.step(t, "cond", s.cond.Wait(t))
		return errors.Join(err, s.lock.Unlock())
	case 8, 9:
		if depth > 2 {
			return nil
		}
		var inner *task.Scope
		err := t.With(func(sc *task.Scope) error {
			inner = sc
			for i := range s.r.IntN(4) {
				child := sc.Go(fmt.Sprintf("%s.%d", t.Name(), i), s.body(func(t *task.Task) error {
					if err := s.work(t, depth+1); err != nil {
						return err
					}
					switch s.r.IntN(12) {
					case 0:
						return errStorm
					case 1:
						panic(errStorm)
					case 2:
						t.Cancel()
					}
					return nil
				}))
				s.all = append(s.all, child)
			}
			if s.r.IntN(3) == 0 {
				sc.SetTimeout(s.some(3 * time.Second))
			}
			err := s.work(t, depth+1)
			if err != nil && s.r.IntN(5) == 0 {
				err = nil // swallowed
			}
			if s.r.IntN(4) == 0 {
				sc.Cancel(nil)
			}
			return err
		})
		outer := t.Scope().Canceled()
		switch {
		case err == nil, errors.Is(err, errStorm), future.OnlyCanceled(err), errors.Is(err, future.ErrTimeout):
		case errors.As(err, new(*weir.ConnectError)), errors.As(err, new(*task.PanicError)):
		default:
			s.bad("a scope ended with %v", err)
		}
		if outer && errors.Is(err, future.ErrTimeout) && !errors.Is(err, errStorm) {
			s.bad("an inner timeout swallowed the outer cancellation (behaviour 79)")
		}
		if n := inner.Tasks(); n != 0 {
			s.bad("a scope ended before %d of its tasks (behaviour 80)", n)
		}
		s.step(t, "scope", err)
		if outer {
			return t.Yield()
		}
		return nil
	case 10:
		a, pa := future.New[int](s.cs.Scheduler())
		b := future.Map(future.After(s.cs.Scheduler(), s.some(3*time.Second)), func(struct{}) (int, error) { return 2, nil })
		tm := s.client.After(s.some(3*time.Second), func() { pa.Resolve(1) })
		defer tm.Stop()
		var f *future.Future[int]
		switch s.r.IntN(4) {
		case 0:
			f = future.Race(s.cs.Scheduler(), track(s, a), track(s, b))
		case 1:
			f = future.FirstSuccess(s.cs.Scheduler(), track(s, a), track(s, b))
		case 2:
			f = future.Timeout(track(s, a), s.some(3*time.Second))
			b.Cancel()
		default:
			f = future.Map(future.Gather(s.cs.Scheduler(), track(s, a), track(s, b)), func(v []int) (int, error) { return v[0] + v[1], nil })
		}
		_, err := task.Await(t, f)
		track(s, f)
		a.Cancel()
		b.Cancel()
		if errors.Is(err, future.ErrTimeout) {
			err = nil
		}
		return s.step(t, "future", err)
	case 11:
		f := track(s, task.Go(t.Scope(), t.Name()+".value", func(t *task.Task) (int, error) {
			return 1, s.body(func(t *task.Task) error { return s.step(t, "sleep", t.Sleep(s.some(time.Second))) })(t)
		}))
		_, err := task.Await(t, f)
		return s.step(t, "value", err)
	case 12:
		_, err := task.Start(t, t.Scope(), t.Name()+".started", func(t *task.Task, started func(int)) error {
			return s.body(func(t *task.Task) error {
				if err := s.step(t, "before start", t.Sleep(s.some(time.Second))); err != nil {
					return err
				}
				started(1)
				return s.step(t, "after start", t.Sleep(s.some(time.Second)))
			})(t)
		})
		return s.step(t, "start", err)
	default:
		return s.ask(t)
	}
}

// ask connects and asks for answers to some lines.
func (s *storm) ask(t *task.Task) error {
	err := t.With(func(sc *task.Scope) error {
		// No one waits for ever for a peer that has fallen silent.
		c, err := stream.DialThrough(t, s.client, "tcp", "server:7000", s.v.Protocol)
		if err != nil {
			return s.step(t, "dial", err)
		}
		defer func() {
			if s.r.IntN(2) == 0 {
				c.Abort()
				return
			}
			_ = c.Close()
			// A close may wait for its peer longer than we do.
			s.client.After(time.Minute, c.Abort)
		}()
		for i := range s.r.IntN(4) {
			line := []byte(fmt.Sprintf("%s %d\n", t.Name(), i))
			if err := c.Send(t, line); err != nil {
				return s.step(t, "send", err)
			}
			var got []byte
			switch s.r.IntN(3) {
			case 0:
				got, err = c.ReadLine(t, 1000)
				got = append(got, '\n')
			case 1:
				got = make([]byte, len(line))
				_, err = c.ReadFull(t, got)
			default:
				f := track(s, c.NextLine(1000))
				got, err = task.Await(t, f)
				got = append(got, '\n')
			}
			if err := s.step(t, "reply", err); err != nil {
				return err
			}
			s.replies++
			if string(got) != string(line) {
				s.bad("%s got %q for %q (G2)", t.Name(), got, line)
			}
		}
		return nil
	}, task.Within(s.some(20*time.Second)))
	if t.Scope().Canceled() {
		return t.Yield()
	}
	_ = err // the network's doing
	return nil
}

// serve answers lines.
func (s *storm) serve(t *task.Task, c *stream.Stream) error {
	return s.body(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			for {
				line, err := c.ReadLine(t, 1000)
				if err != nil {
					return stream.End(err)
				}
				sc.SetTimeout(time.Minute)
				if s.r.IntN(8) == 0 {
					if err := t.Sleep(s.some(2 * time.Second)); err != nil {
						return err
					}
				}
				if err := c.Send(t, append(line, '\n')); err != nil {
					return err
				}
			}
		}, task.Within(time.Minute))
	})(t)
}

// runStorm plays a seed.
func runStorm(tb testing.TB, seed uint64) *storm {
	s := &storm{TB: tb, r: rand.New(rand.NewPCG(seed, 5)), got: map[int]int{}, lock: &task.Lock{}, sem: task.NewSemaphore(stormPlaces)}
	goroutines := runtime.NumGoroutine()
	s.cond = &task.Cond{L: s.lock}
	s.v = weirtest.NewInvariants(func(problem string) { s.bad("%s", problem) })
	s.sim = weirtest.NewSim(s, seed, weirtest.WithSwarm())
	s.server, s.client = s.sim.Host("server").Loop(), s.sim.Host("client").Loop()
	s.sim.OnStep(s.v.Step)
	s.q = task.NewQueue[int](s.r.IntN(4))
	ignore := task.Independent(func(*task.Task, error) {})
	unseen := future.WithUnseen(func(err error) { s.bad("%v", err) })
	s.ss = task.New(future.On(s.server, future.AtCloseOnly(), unseen), ignore)
	s.cs = task.New(future.On(s.client, future.AtCloseOnly(), unseen), ignore)
	var ln *weir.Listener
	for range 500 { // patience with random shortages
		var err error
		if ln, err = s.server.Listen("tcp", ":7000", s.v.Factory(stream.Factory(s.ss, s.serve))); err == nil {
			break
		}
	}
	for i := range 1 + s.r.IntN(8) {
		s.all = append(s.all, s.cs.Go(fmt.Sprint(i), s.body(func(t *task.Task) error { return s.work(t, 0) })))
	}
	for range s.r.IntN(30) { // the storm
		s.client.After(s.some(20*time.Second), func() { s.all[s.r.IntN(len(s.all))].Cancel() })
	}
	if err := s.sim.RunFor(s.some(30 * time.Second)); err != nil {
		s.bad("storm: %v", err)
	}
	s.sim.HealAll()
	s.healed = true
	if s.r.IntN(2) == 0 {
		if err := s.sim.RunFor(s.some(time.Minute)); err != nil {
			s.bad("healed: %v", err)
		}
	}
	s.cs.Cancel(nil)
	s.ss.Cancel(nil)
	if ln != nil {
		_ = ln.Close()
	}
	if err := s.sim.Run(nil); err != nil {
		s.bad("at the end: %v (G9, G10)", err)
	}
	s.atRest()
	if err := errors.Join(s.cs.Close(), s.ss.Close(), s.cs.Scheduler().Close(), s.ss.Scheduler().Close()); err != nil {
		s.bad("close: %v", err)
	}
	// The runtime counts a goroutine of its own while it runs a clean-up.
	left := func() int { return runtime.NumGoroutine() - goroutines }
	for tries := 0; left() > 0 && tries < 1000; tries++ {
		runtime.Gosched()
	}
	if n := left(); n > 0 {
		s.bad("%d coroutines left (G6)", n)
	}
	for _, f := range s.cleanups {
		f()
	}
	return s
}

// atRest checks that nothing is left.
func (s *storm) atRest() {
	for _, sc := range []*task.Scope{s.cs, s.ss} {
		if sc.Tasks() != 0 {
			s.bad("%d tasks left:\n%s", sc.Tasks(), sc)
		}
	}
	if s.begun != s.cleaned {
		s.bad("%d tasks began, %d cleaned up (G7)", s.begun, s.cleaned)
	}
	if s.made != s.settled {
		s.bad("%d futures made, %d settled (G7)", s.made, s.settled)
	}
	if s.lock.Held() || s.sem.Free() != stormPlaces {
		s.bad("lock held %v, %d of %d places free (behaviour 82)", s.lock.Held(), s.sem.Free(), stormPlaces)
	}
	for v, ok := s.q.TryGet(); ok; v, ok = s.q.TryGet() {
		s.got[v]++
	}
	for v := range s.put {
		// Put and taken once, or refused and never taken.
		if n := s.got[v]; n != 1 && n != -1 {
			s.bad("item %d was taken %d times (behaviour 82)", v, n)
		}
	}
	if n := s.v.Open(); n != 0 {
		s.bad("%d connections made and never lost (G1, G10)", n)
	}
	if n := s.server.Connections() + s.client.Connections(); n != 0 {
		s.bad("%d connections in the loops (G6)", n)
	}
}

// Under cancellations at any time no future stays open, no coroutine is left, no item
// is lost, and every clean-up runs (G1 to G10, R56).
func TestCancelStorms(t *testing.T) {
	first, n := *stormFirst, *stormSeeds
	if seed, ok := weirtest.Seed(); ok {
		first, n = seed, 1
	}
	tasks, futures, cut, replies := 0, 0, 0, 0
	for seed := first; seed < first+n; seed++ {
		s := runStorm(t, seed)
		tasks, futures, cut, replies = tasks+s.begun, futures+s.made, cut+s.canceled, replies+s.replies
		if len(s.problems) > 0 {
			for _, p := range s.problems[:min(len(s.problems), 10)] {
				t.Error(p)
			}
			s.sim.ExplainTo(t)
			if n == 1 {
				t.Log(s.log.String())
			}
			return
		}
	}
	t.Logf("%d seeds: %d tasks, %d futures, %d waits cut short, %d replies", n, tasks, futures, cut, replies)
	if n >= 100 && (cut == 0 || replies == 0 || futures == 0) {
		t.Error("the storm is too weak or too strong")
	}
}

// The same seed gives the same run, with every step of every task at the same moment,
// whatever GOMAXPROCS is (R55, behaviour 94).
func TestSameSeed(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	seen := map[uint64]uint64{}
	for seed := uint64(1); seed <= 20; seed++ {
		var hashes [2]uint64
		var logs [2]string
		for i := range hashes {
			runtime.GOMAXPROCS(i + 1)
			s := runStorm(t, seed)
			hashes[i], logs[i] = s.sim.TraceHash(), s.log.String()
		}
		if hashes[0] != hashes[1] || logs[0] != logs[1] {
			t.Errorf("seed %d runs in two ways: %x and %x", seed, hashes[0], hashes[1])
		}
		h := fnv.New64a()
		h.Write([]byte(logs[0]))
		if other, taken := seen[h.Sum64()]; taken && len(logs[0]) > 100 {
			t.Errorf("seeds %d and %d run alike", seed, other)
		}
		seen[h.Sum64()] = seed
	}
}
