package main

import (
	"context"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
)

// trimmer gives memory back to the system when a rush is over. Go's runtime collects garbage
// when the heap has doubled, and keeps what it has collected for a while: after thousands of
// connections have begun, and stay idle, the process has about twice the memory that they need,
// and what their handshakes needed beside it.
//
//	sessions begin and end ──▶ many ──trimAfter──▶ few of late: collected, given back
//	                            ▲                      │ many of late
//	                            └──────────────────────┘
//
// There is one for all loops. A collection takes a moment of another thread for each connection, so there is one for each
// rush and not one for each period.
type trimmer struct {
	loop  *weir.Loop // the lead's
	timer *weir.Timer
	moved atomic.Int64 // sessions that began or ended since memory was last given back
	waits atomic.Bool  // the timer runs, or is about to
	seen  int64        // moved when the timer was set
	give  func()       // collects and gives back, on a goroutine of its own
}

const (
	trimAfter = 2 * time.Second
	trimLeast = 500 // sessions that make a rush
	trimQuiet = 20  // sessions in trimAfter that are few
)

func newTrimmer(l *weir.Loop, on *executor.Executor) *trimmer {
	m := &trimmer{loop: l, give: func() {
		executor.Go(context.Background(), on, future.On(l), func(context.Context) (struct{}, error) {
			debug.FreeOSMemory()
			return struct{}{}, nil
		}) // it fails if the executor is full or closed: the next rush will do
	}}
	m.timer = l.NewTimer(m.look)
	return m
}

// move counts a session that begins or ends. Any loop calls it.
func (m *trimmer) move() {
	if m.moved.Add(1) >= trimLeast && m.waits.CompareAndSwap(false, true) {
		post(m.loop, m.wait)
	}
}

func (m *trimmer) wait() {
	m.seen = m.moved.Load()
	m.timer.Set(trimAfter)
}

// look gives memory back unless the rush goes on.
func (m *trimmer) look() {
	if m.moved.Load()-m.seen > trimQuiet {
		m.wait()
		return
	}
	m.moved.Store(0)
	m.waits.Store(false)
	m.give()
}
