package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
)

// errNoReply is the error of an attempt whose server closed without an answer.
var errNoReply = errors.New("closed without an answer")

// ask is one question to several servers that would all give the same answer.
//
//	first server ──▶ no answer after patience, or a failure ──▶ the next ...
//	     └───────────────────┴──▶ the first answer ends it, the others are cut off
type ask struct {
	loop     *weir.Loop
	servers  []string // not asked yet
	question []byte
	patience time.Duration
	timer    *weir.Timer // asks the next
	open     []*attempt
	errs     []error
	done     func(answer []byte, err error) // nil once called
}

// startAsk asks the first server. done is called once, on the loop and never from
// inside this call: with the answer, which is lent, or with what went wrong with
// every server. question is a line without its end.
func startAsk(l *weir.Loop, servers []string, question []byte, patience time.Duration, done func([]byte, error)) {
	a := &ask{loop: l, servers: servers, question: question, patience: patience, done: done}
	a.timer = l.NewTimer(a.next)
	l.Soon(a.next)
}

// next asks another server, if there is one.
func (a *ask) next() {
	if a.done == nil {
		return
	}
	a.timer.Stop()
	if len(a.servers) == 0 {
		if len(a.open) == 0 {
			a.end(nil, errors.Join(append([]error{errors.New("no answer")}, a.errs...)...))
		}
		return
	}
	t := &attempt{ask: a, server: a.servers[0]}
	a.servers = a.servers[1:]
	a.open = append(a.open, t)
	t.Decoder = frame.Lines(t.answered)
	t.connector = a.loop.Connect("tcp", t.server, t)
	a.timer.Set(a.patience)
}

// end calls done, and cuts off the servers that are still being asked.
func (a *ask) end(answer []byte, err error) {
	done := a.done
	a.done = nil
	a.timer.Stop()
	for _, t := range a.open {
		t.stop()
	}
	a.open = nil
	done(answer, err)
}

// attempt is the question to one server: the protocol of its connection.
type attempt struct {
	*frame.Decoder
	ask       *ask
	server    string
	connector *weir.Connector
	t         weir.Transport // nil before it is connected
}

var (
	_ weir.Protocol      = (*attempt)(nil)
	_ weir.ConnectFailer = (*attempt)(nil)
)

func (t *attempt) ConnectionMade(tr weir.Transport) {
	t.t = tr
	line, err := frame.AppendLine(nil, t.ask.question, "")
	if err != nil {
		t.failed(err)
		tr.Abort()
		return
	}
	_, _ = tr.Write(line) // a failure comes as ConnectionLost
}

func (t *attempt) answered(line []byte) error {
	if t.ask.done != nil {
		t.ask.end(line, nil)
	}
	return nil
}

func (t *attempt) ConnectionLost(err error) {
	t.Decoder.ConnectionLost(err)
	if err == nil {
		err = errNoReply
	}
	t.failed(err)
}

func (t *attempt) ConnectFailed(err *weir.ConnectError) { t.failed(err) }

// failed asks the next server at once, unless this one had been given up
// already.
func (t *attempt) failed(err error) {
	a := t.ask
	for i, o := range a.open {
		if o == t {
			a.open = append(a.open[:i], a.open[i+1:]...)
			a.errs = append(a.errs, fmt.Errorf("%s: %w", t.server, err))
			a.next()
			return
		}
	}
}

func (t *attempt) stop() {
	if t.t != nil {
		t.t.Abort()
	} else {
		t.connector.Stop()
	}
}
