package main

import (
	"context"
	"errors"
	"slices"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
)

// pool keeps connections to one server open, and asks over the one with the
// fewest outstanding questions. Everything except Ask and close belongs to the
// loop.
type pool struct {
	loop  *weir.Loop
	links []*link
}

// link is one connection, or the wait for one.
type link struct {
	t       weir.Transport // nil while there is none
	redial  *weir.Redialer
	waiting []func(answer string, err error) // in the order of the questions
}

var errNotConnected = errors.New("the server behind is not connected")

// newPool begins to connect; the loop need not run yet.
func newPool(l *weir.Loop, address string, n int) *pool {
	p := &pool{loop: l}
	for range n {
		k := &link{}
		k.redial = l.Redial("tcp", address, weir.Backoff{}, k.protocol)
		p.links = append(p.links, k)
	}
	return p
}

// protocol makes the protocol of each attempt to connect.
func (k *link) protocol(r *weir.Redialer) weir.Protocol {
	again := func() { _, _ = r.Again() } // it waits longer each time; false after Stop
	return frame.Lines(k.answered,
		frame.OnMade(func(t weir.Transport) { k.t = t }),
		frame.OnFailed(func(*weir.ConnectError) { again() }),
		frame.OnLost(func(err error) {
			if err == nil {
				err = errNotConnected
			}
			waiting := k.waiting
			k.t, k.waiting = nil, nil
			for _, tell := range waiting {
				tell("", err)
			}
			again()
		}))
}

func (k *link) answered(line []byte) error {
	if len(k.waiting) == 0 {
		return errors.New("an answer to no question")
	}
	tell := k.waiting[0]
	k.waiting = k.waiting[1:]
	tell(string(line), nil)
	return nil
}

// Ask sends a line and waits for the answer, on any goroutine except the loop's.
func (p *pool) Ask(ctx context.Context, line string) (string, error) {
	type result struct {
		answer string
		err    error
	}
	done := make(chan result, 1)
	tell := func(answer string, err error) { done <- result{answer, err} }
	_, err := p.loop.PostOr(func() { p.ask(line, tell) }, func() { tell("", weir.ErrLoopClosed) })
	if err != nil {
		return "", err
	}
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done(): // the answer is dropped when it comes
		return "", context.Cause(ctx)
	}
}

func (p *pool) ask(line string, tell func(string, error)) {
	up := slices.DeleteFunc(slices.Clone(p.links), func(k *link) bool { return k.t == nil })
	if len(up) == 0 {
		tell("", errNotConnected)
		return
	}
	k := slices.MinFunc(up, func(a, b *link) int { return len(a.waiting) - len(b.waiting) })
	k.waiting = append(k.waiting, tell)
	_, _ = k.t.Write([]byte(line + "\n")) // OnLost reports a failure
}

// close ends the pool, from any goroutine.
func (p *pool) close() {
	// A closed loop has ended its connections.
	_, _ = p.loop.Post(func() {
		for _, k := range p.links {
			k.redial.Stop()
			if k.t != nil {
				_ = k.t.Close()
			}
		}
	})
}
