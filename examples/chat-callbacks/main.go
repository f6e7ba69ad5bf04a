// Chat is a chat server, written with callbacks. Its twin, chat-tasks, is the
// same server written with coroutines; one test runs both.
//
//	go run ./examples/chat-callbacks & nc 127.0.0.1 7002
//
// The state of a conversation is in a field, next: what the next line means.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
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

// serve makes l serve the chat.
func serve(l *weir.Loop, address string) error {
	r := &room{}
	_, err := l.Listen("tcp", address, r.enter)
	return err
}

type room struct{ members []*member }

// member is one connection.
type member struct {
	*frame.Decoder
	room  *room
	t     weir.Transport
	name  string // "" until it is given
	next  func(line string)
	timer *weir.Timer
}

func (r *room) enter(weir.Transport) weir.Protocol {
	m := &member{room: r}
	m.next = m.login
	m.Decoder = frame.Lines(func(line []byte) error {
		m.next(string(line))
		return nil
	}, frame.WithLimit(lineMost))
	return m
}

// ConnectionMade asks for a name.
func (m *member) ConnectionMade(t weir.Transport) {
	m.t = t
	if err := t.SetWriteMarks(backlog, backlog/4); err != nil {
		t.Abort()
		return
	}
	m.timer = t.Loop().After(patience, m.late)
	m.say("name?")
}

// late ends a conversation that has been silent for too long.
func (m *member) late() {
	if m.name == "" {
		m.say("too slow")
	}
	_ = m.t.Close()
}

func (m *member) login(name string) {
	switch problem := m.room.check(name); {
	case problem != "":
		m.say(problem)
		m.say("name?")
	default:
		m.name, m.next = name, m.talk
		m.timer.Set(silence)
		m.room.tell(m, "* "+name+" is here")
		m.room.members = append(m.room.members, m)
		m.say("* here: " + strings.Join(m.room.names(), ", "))
	}
}

func (m *member) talk(line string) {
	m.timer.Set(silence)
	if line == "/quit" {
		m.say("* bye")
		_ = m.t.Close()
		return
	}
	m.room.tell(m, m.name+": "+line)
}

// PauseWriting means that the member has fallen too far behind.
func (m *member) PauseWriting() { m.t.Abort() }

// ResumeWriting is PauseWriting's other half; there is nothing to resume.
func (m *member) ResumeWriting() {}

// ConnectionLost takes the member out of the room.
func (m *member) ConnectionLost(err error) {
	m.timer.Stop()
	m.Decoder.ConnectionLost(err)
	if i := slices.Index(m.room.members, m); i >= 0 {
		m.room.members = slices.Delete(m.room.members, i, i+1)
		m.room.tell(m, "* "+m.name+" is gone")
	}
}

// say sends a line. If it cannot, ConnectionLost is on its way.
func (m *member) say(line string) { _, _ = m.t.Write([]byte(line + "\n")) }

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
