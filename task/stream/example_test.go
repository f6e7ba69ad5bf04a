package stream_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

// A server that reads as if it waited.
func Example() {
	l, err := weir.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	err = task.Run(l, func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			ln, err := l.Listen("tcp", "127.0.0.1:0", stream.Factory(sc, func(t *task.Task, c *stream.Stream) error {
				line, err := c.ReadLine(t, 100)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c, "hello, %s\n", line)
				return err
			}))
			if err != nil {
				return err
			}
			c, err := stream.Dial(t, l, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte("weir\n")); err != nil {
				return err
			}
			line, err := c.ReadLine(t, 100)
			fmt.Printf("%s\n", line)
			return errors.Join(err, c.Close(), ln.Close())
		})
	})
	if err := errors.Join(err, l.Close()); err != nil {
		fmt.Println(err)
	}
	// Output: hello, weir
}

// peer is one end of a symmetric protocol: either end asks, and answers, on the
// same connection. Lines are "? number question" and "! number answer".
type peer struct {
	c       *stream.Stream
	answer  func(t *task.Task, p *peer, question string) (string, error)
	asked   int
	waiting map[int]future.Promise[string]
}

// ask sends a question; the future has the answer.
func (p *peer) ask(s *future.Scheduler, question string) *future.Future[string] {
	f, promise := future.New[string](s)
	p.asked++
	p.waiting[p.asked] = promise
	if _, err := fmt.Fprintf(p.c, "? %d %s\n", p.asked, question); err != nil {
		promise.Reject(err)
	}
	return f
}

// serve reads what comes, from either role: answers settle what waits for them,
// questions get a task each, which may itself ask the other end.
func (p *peer) serve(t *task.Task) error {
	return t.With(func(sc *task.Scope) error {
		for {
			line, err := p.c.ReadLine(t, 1000)
			if err != nil {
				sc.Cancel(nil) // nobody hears the answers
				return stream.End(err)
			}
			var kind rune
			var n int
			if _, err := fmt.Sscanf(string(line), "%c %d", &kind, &n); err != nil {
				return err
			}
			text := strings.SplitN(string(line), " ", 3)[2]
			if kind == '!' {
				p.waiting[n].Resolve(text)
				delete(p.waiting, n)
				continue
			}
			sc.Go("question "+text, func(t *task.Task) error {
				answer, err := p.answer(t, p, text)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(p.c, "! %d %s\n", n, answer)
				return err
			})
		}
	})
}

// A peer waits for replies while it serves requests (R7): to answer "greeting",
// the server asks its client for the name, on the same connection.
func TestSymmetricProtocol(t *testing.T) {
	w := newWorld(t, 1)
	w.serve(func(t *task.Task, c *stream.Stream) error {
		p := &peer{c: c, waiting: map[int]future.Promise[string]{}}
		p.answer = func(t *task.Task, p *peer, question string) (string, error) {
			name, err := task.Await(t, p.ask(t.Scheduler(), "your name for "+question))
			return question + ", " + name, err
		}
		return p.serve(t)
	})
	var got []string
	err := w.dial(func(t *task.Task, c *stream.Stream) error {
		p := &peer{c: c, waiting: map[int]future.Promise[string]{}}
		p.answer = func(_ *task.Task, _ *peer, question string) (string, error) {
			return "client (" + question + ")", nil
		}
		return t.With(func(sc *task.Scope) error {
			sc.Go("serves", p.serve)
			s := t.Scheduler()
			var err error
			got, err = task.Await(t, future.Gather(s, p.ask(s, "good morning"), p.ask(s, "good night")))
			sc.Cancel(nil)
			return err
		})
	})
	want := "good morning, client (your name for good morning); good night, client (your name for good night)"
	if err != nil || strings.Join(got, "; ") != want || len(w.errs) > 0 {
		t.Errorf("%v %v %q", err, w.errs, got)
	}
}
