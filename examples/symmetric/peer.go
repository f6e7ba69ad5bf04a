package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

const lineMost = 1000 // bytes

var errFormat = errors.New("the other end does not keep to the format")

// peer is one end of a symmetric protocol. Either end asks and answers, on the
// same connection, as it likes and in any order. A line is a question,
// "? number text", or an answer to one, "! number text".
type peer struct {
	c       *stream.Stream
	answer  func(t *task.Task, p *peer, question string) (string, error)
	asked   int
	waiting map[int]future.Promise[string]
}

func newPeer(c *stream.Stream, answer func(*task.Task, *peer, string) (string, error)) *peer {
	return &peer{c: c, answer: answer, waiting: map[int]future.Promise[string]{}}
}

// ask sends a question. The future has the answer; so one task can wait for
// many.
func (p *peer) ask(s *future.Scheduler, question string) *future.Future[string] {
	f, promise := future.New[string](s)
	p.asked++
	n := p.asked
	if _, err := fmt.Fprintf(p.c, "? %d %s\n", n, question); err != nil {
		promise.Reject(err)
		return f
	}
	p.waiting[n] = promise
	promise.OnCancel(func() {
		delete(p.waiting, n)
		promise.Reject(future.ErrCanceled)
	})
	return f
}

// serve reads until the other end has finished. An answer settles the future
// that waits for it. A question gets a task of its own, which may ask the other
// end before it answers.
func (p *peer) serve(t *task.Task) error {
	return t.With(func(sc *task.Scope) error {
		defer sc.Cancel(nil) // no one hears the answers any more
		for {
			line, err := p.c.ReadLine(t, lineMost)
			if err != nil {
				return stream.End(err)
			}
			kind, n, text, err := parse(string(line))
			switch {
			case err != nil:
				return err
			case kind == "!":
				promise, ok := p.waiting[n]
				if !ok {
					continue // the asker has given up
				}
				delete(p.waiting, n)
				promise.Resolve(text)
			default:
				sc.Go("question "+strconv.Itoa(n), func(t *task.Task) error {
					answer, err := p.answer(t, p, text)
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(p.c, "! %d %s\n", n, answer)
					return err
				})
			}
		}
	})
}

func parse(line string) (kind string, n int, text string, err error) {
	f := strings.SplitN(line, " ", 3)
	if len(f) != 3 || f[0] != "?" && f[0] != "!" {
		return "", 0, "", fmt.Errorf("%w: %q", errFormat, line)
	}
	if n, err = strconv.Atoi(f[1]); err != nil {
		return "", 0, "", fmt.Errorf("%w: %q", errFormat, line)
	}
	return f[0], n, f[2], nil
}
