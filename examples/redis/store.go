package main

import (
	"time"

	"github.com/weir-io/weir"
)

// store is the data, all on one loop: commands run one after another and need
// no locks.
type store struct {
	keys     map[string]*entry
	commands map[string]*command
}

// entry is a value and perhaps when it expires.
type entry struct {
	value []byte
	timer *weir.Timer // nil until it first expires
	due   time.Time   // when, while the timer runs
}

func newStore() *store {
	return &store{keys: make(map[string]*entry), commands: byName()}
}

// serve is the factory of connections.
func (s *store) serve(t weir.Transport) weir.Protocol { return &conn{store: s, t: t} }

func (s *store) get(key []byte) *entry { return s.keys[string(key)] }

// set copies value.
func (s *store) set(key, value []byte) *entry {
	e := s.get(key)
	if e == nil {
		e = &entry{}
		s.keys[string(key)] = e
	}
	if cap(e.value) > 2*len(value)+64 {
		e.value = nil
	}
	e.value = append(e.value[:0], value...)
	return e
}

func (s *store) delete(key []byte) bool {
	e := s.get(key)
	if e == nil {
		return false
	}
	e.persist()
	delete(s.keys, string(key))
	return true
}

func (s *store) clear() {
	for _, e := range s.keys {
		e.persist()
	}
	clear(s.keys)
}

// expire makes the loop remove key at due.
func (s *store) expire(l *weir.Loop, key []byte, e *entry, due time.Time) {
	if e.timer == nil {
		name := string(key)
		// A stopped timer does not fire, so it is this entry that is removed.
		e.timer = l.NewTimer(func() { delete(s.keys, name) })
	}
	e.due = due
	e.timer.SetAt(due)
}

func (e *entry) expires() bool { return e.timer != nil && e.timer.Running() }

// persist removes the expiry; false if there was none.
func (e *entry) persist() bool { return e.timer != nil && e.timer.Stop() }
