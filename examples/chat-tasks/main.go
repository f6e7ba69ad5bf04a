// Chat is a chat server, written with coroutines. Its twin, chat-callbacks, is
// the same server written with callbacks; one test runs both.
//
//	go run ./examples/chat-tasks & nc 127.0.0.1 7002
//
// The state of a conversation is where its task is.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

const (
	lineMost = 1000             // bytes of a line
	patience = 30 * time.Second // to give a name
	silence  = 10 * time.Minute // between two lines
	backlog  = 256 << 10        // bytes that a member may be behind
)

func main() {
	l, err := weir.NewLoop()
	if err == nil {
		if err = serve(l, "127.0.0.1:7002"); err == nil {
			err = l.Run()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// serve makes l serve the chat. A failed connection affects no other.
func serve(l *weir.Loop, address string) error {
	r := &room{}
	conns := task.New(future.On(l), task.Independent(func(*task.Task, error) {}))
	_, err := l.Listen("tcp", address, stream.Factory(conns, r.serve))
	return err
}

type room struct{ members []*member }

// member is someone who has given a name.
type member struct {
	name string
	c    *stream.Stream
}

// serve is a conversation, from its beginning to its end.
func (r *room) serve(t *task.Task, c *stream.Stream) error {
	m := &member{c: c}
	err := t.With(func(*task.Scope) error { return r.login(t, m) }, task.Within(patience))
	if errors.Is(err, future.ErrTimeout) {
		m.say("too slow")
		return nil
	}
	if err != nil {
		return stream.End(err)
	}
	r.tell(m, "* "+m.name+" is here")
	r.members = append(r.members, m)
	defer func() {
		i := slices.Index(r.members, m)
		r.members = slices.Delete(r.members, i, i+1)
		r.tell(m, "* "+m.name+" is gone")
	}()
	m.say("* here: " + strings.Join(r.names(), ", "))
	if err = r.talk(t, m); errors.Is(err, future.ErrTimeout) {
		return nil
	}
	return stream.End(err)
}

func (r *room) login(t *task.Task, m *member) error {
	for {
		m.say("name?")
		line, err := m.c.ReadLine(t, lineMost)
		if err != nil {
			return err
		}
		name := string(line)
		problem := r.check(name)
		if problem == "" {
			m.name = name
			return nil
		}
		m.say(problem)
	}
}

func (r *room) talk(t *task.Task, m *member) error {
	return t.With(func(sc *task.Scope) error {
		for {
			sc.SetTimeout(silence)
			line, err := m.c.ReadLine(t, lineMost)
			if err != nil {
				return err
			}
			if string(line) == "/quit" {
				m.say("* bye")
				return nil
			}
			r.tell(m, m.name+": "+string(line))
		}
	})
}

// say sends a line. A member that has fallen too far behind is dropped.
func (m *member) say(line string) {
	if _, err := m.c.Write([]byte(line + "\n")); err == nil && m.c.Transport().Buffered() > backlog {
		m.c.Abort()
	}
}

// tell sends a line to everyone else.
func (r *room) tell(from *member, line string) {
	for _, m := range r.members {
		if m != from {
			m.say(line)
		}
	}
}

func (r *room) names() (names []string) {
	for _, m := range r.members {
		names = append(names, m.name)
	}
	return names
}

// check says what is wrong with a name.
func (r *room) check(name string) string {
	odd := func(c rune) bool { return c < 'a' || c > 'z' }
	switch {
	case name == "" || len(name) > 20 || strings.ContainsFunc(name, odd):
		return "a name has 1 to 20 letters from a to z"
	case slices.Contains(r.names(), name):
		return "taken"
	}
	return ""
}
