package weir

import (
	"strconv"
	"time"
)

// Direction says which bytes of a transport are meant.
type Direction uint8

// The directions.
const (
	DirectionRead  Direction = iota // what comes from the peer
	DirectionWrite                  // what goes to it
	DirectionBoth                   // either
	directions
)

var directionNames = [directions]string{"read", "write", "both"}

func (d Direction) String() string {
	if d < directions {
		return directionNames[d]
	}
	return "Direction(" + strconv.Itoa(int(d)) + ")"
}

// IdleReceiver is a Protocol that wants to hear of silence, to send something or to close:
// see IdleTimer.
type IdleReceiver interface {
	// ConnectionIdle says that nothing has moved in direction d for as long as SetIdleTimeout
	// asked for. It comes again after the same time if nothing moves until then.
	ConnectionIdle(d Direction)
}

// IdleTimer is the ability of a transport to tell of silence. Find it with As: the
// transport of a protocol, above layers too, tells of the bytes of this protocol.
type IdleTimer interface {
	// SetIdleTimeout has the protocol, if it is an IdleReceiver, told when nothing has moved in
	// direction d for after, counted from now; 0 ends that. Each direction has its own limit; a
	// negative one is an *OptionError. Only the loop's goroutine may call it.
	//
	// What counts: bytes and the end of the stream that come, bytes that are written, and
	// bytes of a backlog that leave, which above a layer show when the time is up. In
	// DirectionRead the time begins again when the protocol resumes reading, and ends with
	// the peer's stream; DirectionWrite ends with WriteEOF. Nothing is told once the
	// transport closes.
	//
	// The cost is a look at the clock for each Write, on such a transport only, and a timer
	// that is set again when it fires and not with each message.
	SetIdleTimeout(d Direction, after time.Duration) error
}

var _ IdleTimer = (*stream)(nil)

// idleness is what a stream with an IdleTimer's limit needs.
type idleness struct {
	s     *stream
	timer *Timer
	moved [2]time.Duration          // when bytes last moved: read, write
	limit [directions]time.Duration // 0: none
	since [directions]time.Duration // when the limit was set or last told of, or reading resumed
	held  int                       // what Buffered was at the last look
}

func (s *stream) SetIdleTimeout(d Direction, after time.Duration) error {
	if err := s.loop.check("SetIdleTimeout"); err != nil {
		return err
	}
	switch {
	case d >= directions:
		return &OptionError{Option: "SetIdleTimeout", Value: d.String(), Range: "DirectionRead, DirectionWrite or DirectionBoth"}
	case after < 0:
		return &OptionError{Option: "SetIdleTimeout", Value: after.String(), Range: notNegative}
	case s.phase >= phaseClosing:
		return ErrClosed
	}
	i := s.x.idle
	if i == nil {
		if after == 0 {
			return nil
		}
		i = &idleness{s: s}
		i.timer = s.loop.NewTimer(i.look)
		s.extra().idle = i
	}
	i.limit[d], i.since[d] = after, s.loop.be.Now()
	if i.limit == [directions]time.Duration{} {
		s.endIdle()
		return nil
	}
	i.arm()
	return nil
}

// endIdle gives up the limits.
func (s *stream) endIdle() {
	if i := s.x.idle; i != nil {
		i.timer.Stop()
		s.x.idle = nil
	}
}

// movedNow records that the protocol wrote: perhaps long after its turn began. A stream
// without limits has no idleness.
func (i *idleness) movedNow(d Direction) {
	if i != nil {
		i.moved[d] = i.s.loop.be.Now()
	}
}

// movedThen records that bytes came or left: the system had moved them when the loop last
// looked.
func (i *idleness) movedThen(d Direction) {
	if i != nil {
		i.moved[d] = max(i.moved[d], i.s.loop.now)
	}
}

// resumed begins the time in which the peer can be heard again.
func (i *idleness) resumed() {
	if i != nil {
		i.since[DirectionRead] = i.s.loop.be.Now()
	}
}

// counts reports whether silence in a direction is to be told of, now or later.
func (i *idleness) counts(d Direction) bool {
	s := i.s
	switch {
	case i.limit[d] == 0:
		return false
	case d == DirectionRead:
		return s.flags&fEOF == 0
	case d == DirectionWrite:
		return s.phase == phaseOpen && s.flags&(fWriteEOF|fReadOnly) == 0
	}
	return true
}

// due is when a limit is reached if nothing moves until then.
func (i *idleness) due(d Direction) time.Duration {
	last := i.since[d]
	if d != DirectionWrite {
		last = max(last, i.moved[DirectionRead])
	}
	if d != DirectionRead {
		last = max(last, i.moved[DirectionWrite])
	}
	if last+i.limit[d] < last {
		return 1<<63 - 1
	}
	return last + i.limit[d]
}

// arm sets the timer for the limit that can be reached first.
func (i *idleness) arm() {
	first := time.Duration(-1)
	for d := range directions {
		if i.counts(d) {
			if at := i.due(d); first < 0 || at < first {
				first = at
			}
		}
	}
	if first >= 0 {
		i.timer.Set(first - i.s.loop.be.Now())
	} else {
		i.timer.Stop()
	}
}

// look tells of the limits that are reached, and otherwise waits for the next one.
func (i *idleness) look() {
	s := i.s
	if s.phase >= phaseClosing {
		return
	}
	if s.flags&fMade != 0 {
		now := s.loop.be.Now()
		if s.paused() {
			i.since[DirectionRead] = now // the peer cannot be heard
		}
		if held := s.Buffered(); held != i.held {
			if s.carries() {
				i.moved[DirectionWrite] = now // the backlog below moves, or did since the last look
			}
			i.held = held
		}
		for d := range directions {
			if !i.counts(d) || now < i.due(d) {
				continue
			}
			i.since[d] = now
			if s.caps&capIdle != 0 {
				s.callIdle(d)
			}
			if s.phase >= phaseClosing || s.x.idle != i {
				break
			}
		}
	}
	if s.phase < phaseClosing && s.x.idle == i {
		i.arm()
	}
	s.sync()
}

func (s *stream) callIdle(d Direction) {
	defer s.guard("ConnectionIdle")
	s.proto.(IdleReceiver).ConnectionIdle(d)
}
