package sim

import (
	"io"
	"time"
)

// Config says how a world is. The zero Config is a calm world: links of a
// millisecond, and nothing goes wrong.
type Config struct {
	// Faults are what goes wrong. With Swarm they are drawn from the seed
	// instead, and World.Faults tells what was drawn.
	Faults Faults
	Swarm  bool

	// Wall is the wall clock when the world begins; zero is a fixed date.
	Wall time.Time
	// Handles is how many handles a host may have open; 0 is 20,000.
	Handles int
	// Foreign says that goroutines other than the world's call Wake. A Wait
	// without timeout in a world where nothing can happen any more then waits
	// for one; otherwise it fails with ErrAtRest.
	Foreign bool
	// Unanswered says that backends know for how long a peer was silent, as Linux
	// does. A loop then looks at its connections every few seconds while something
	// is on its way, so a world with a full buffer is never at rest.
	Unanswered bool
	// Trace gets one line for each event, if it is set.
	Trace io.Writer
}

// Faults are what can go wrong, and how often: chances are from 0 to 1, for
// each time that it could. The zero value is calm. weirtest.Faults has the same
// fields, for those who cannot see these; it is converted to Faults, which compiles
// only as long as it does.
type Faults struct {
	// Links.
	Latency  time.Duration // one way between hosts; 0 is a millisecond
	Jitter   time.Duration // up to so much more, drawn for each segment
	Loopback time.Duration // one way within a host; 0 is 10 microseconds, below 0 none
	Loss     float64       // a segment is lost, and sent again later
	CutWire  float64       // a segment is cut, its parts arrive apart

	// Buffers in bytes; 0 is 512 KiB to send and 128 KiB to receive.
	SendBuffer, ReceiveBuffer int

	// What the contract of a backend allows.
	NoInline   bool    // Submit never finishes an Op
	Eager      float64 // Submit finishes what could as well wait for Wait
	Defer      float64 // Submit leaves to Wait what it could have finished
	CutRead    float64 // a read takes less than there is, down to a byte
	CutWrite   float64 // a write takes less than fits, down to a byte
	Again      float64 // an Op with Now says ErrAgain though it could go on
	EarlyEnd   float64 // a Multi Op ends with its result, or with ErrAgain
	EmptyWait  float64 // a Wait ends early with nothing: all that a loop sees of EINTR, since backends try other calls again
	Shuffle    bool    // results come in any order
	LateCancel float64 // Cancel returns false, the last result follows
	LateBy     time.Duration

	// The fate of a connection, drawn once for each.
	Reset   float64 // refused, or reset in the queue, open, half-closed or closing
	Silence float64 // from some byte on nothing passes any more
	Slow    float64 // its windows shut for a while, again and again
	// ResetPaused resets a connection when bytes have arrived that its reader does
	// not ask for: reading is paused.
	ResetPaused float64

	// Resources.
	AcceptError  float64 // EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED, EPERM, EPROTO
	OpenError    float64 // EMFILE, ENFILE, ENOBUFS, ENOMEM
	ConnectError float64 // a connect fails at once: EMFILE, ENFILE, ENOBUFS, ENOMEM
	WriteError   float64 // a write to a stream fails with ENOBUFS
	ShutError    float64 // the end of writing cannot be sent: ENOBUFS
	SelfConnect  float64 // a connect to a port of the host itself where nothing listens is given that port

	// Datagrams, each for itself.
	Drop         float64 // it is lost, and is not sent again
	Duplicate    float64 // it arrives twice
	Reorder      float64 // it is late by up to a second, after others
	CutDatagram  float64 // the receiver gets only the beginning, flagged
	SendNoBuffer float64 // sending fails with ENOBUFS
	SendWait     float64 // sending has to wait for a while
	// MTU is the longest packet that a link between hosts takes, in bytes, with its headers; 0:
	// any. A longer datagram goes in fragments, of which each can be lost. One that must not
	// is lost, its sender hears of it, and what it sends there later fails with EMSGSIZE.
	MTU int
	// Joined has the system do what Linux does with UDP GRO and GSO, which the contract of a
	// backend allows: datagrams of one sender and size are received as one, and of several that
	// are sent in one call another one is taken with those before.
	Joined float64

	// Weather: drawn once in some dozen events.
	Partition float64 // two hosts lose sight of each other for a while
	Crash     float64 // a host that said what to do then (Host.OnCrash) crashes
	Shortage  float64 // a host has no handles left for a while
	WallJump  float64 // the wall clock jumps up to ten years either way
	Stall     float64 // everything stands still for up to an hour: a suspend
	LoopStall float64 // one loop does not get to run for a while

	// Programs, each for itself.
	StartError float64       // it cannot be started: EAGAIN, ENOMEM, EMFILE, EACCES
	StartDelay time.Duration // a start takes up to so long
	ExitDelay  time.Duration // the news of an exit comes up to so much later
	Killed     float64       // it is killed within its first second
}

const (
	defaultLatency  = time.Millisecond
	defaultLoopback = 10 * time.Microsecond
	defaultSend     = 512 << 10
	defaultReceive  = 128 << 10
	defaultHandles  = 20_000
)

// Draw draws faults from a seed: which are on, and how strong each is. About
// half of them are.
func Draw(seed uint64) Faults {
	r := newRandom(seed, forSwarm)
	on := func() bool { return r.below(2) == 0 }
	// Every draw is made whether it counts or not, so that fields do not shift
	// each other.
	chance := func(strongest float64) float64 {
		p := strongest
		for range r.below(4) {
			p /= 5
		}
		if !on() {
			return 0
		}
		return p
	}
	span := func(longest time.Duration) time.Duration {
		d := longest
		for range r.below(5) {
			d /= 10
		}
		if !on() {
			return 0
		}
		return d
	}
	size := func() int {
		// A buffer of a few bytes makes a run long and finds little that one of
		// some dozen does not.
		n := 1 << (5 + r.below(14))
		if r.below(8) == 0 {
			n = 1 + r.below(16)
		}
		if !on() {
			return 0
		}
		return n
	}
	mtu := func() int {
		n := 576 + r.below(1000)
		if !on() {
			return 0
		}
		return n
	}
	return Faults{
		Latency:       span(time.Second),
		Jitter:        span(time.Second),
		Loopback:      span(time.Millisecond),
		Loss:          chance(0.1),
		CutWire:       chance(0.5),
		SendBuffer:    size(),
		ReceiveBuffer: size(),
		NoInline:      r.below(4) == 0,
		Eager:         chance(0.5),
		Defer:         chance(0.5),
		CutRead:       chance(0.5),
		CutWrite:      chance(0.5),
		Again:         chance(0.5),
		EarlyEnd:      chance(0.5),
		EmptyWait:     chance(0.3),
		Shuffle:       on(),
		LateCancel:    chance(0.8),
		LateBy:        span(10 * time.Millisecond),
		Reset:         chance(0.3),
		Silence:       chance(0.1),
		Slow:          chance(0.3),
		AcceptError:   chance(0.3),
		OpenError:     chance(0.2),
		Partition:     chance(0.3),
		Crash:         chance(0.3),
		Shortage:      chance(0.3),
		WallJump:      chance(0.1),
		Stall:         chance(0.05),
		LoopStall:     chance(0.3),
		Drop:          chance(0.3),
		Duplicate:     chance(0.3),
		Reorder:       chance(0.5),
		CutDatagram:   chance(0.1),
		SendNoBuffer:  chance(0.2),
		SendWait:      chance(0.3),
		SelfConnect:   chance(1),
		ResetPaused:   chance(0.3),
		ConnectError:  chance(0.2),
		WriteError:    chance(0.02),
		ShutError:     chance(0.1),
		MTU:           mtu(),
		StartError:    chance(0.2),
		StartDelay:    span(time.Second),
		ExitDelay:     span(time.Second),
		Killed:        chance(0.3),
		Joined:        chance(1),
	}
}

// calmed returns what stays of f when all faults have ended: how the links and
// buffers are, and what the contract allows at all times.
func (f Faults) calmed() Faults {
	return Faults{
		Latency: f.Latency, Loopback: f.Loopback,
		SendBuffer: f.SendBuffer, ReceiveBuffer: f.ReceiveBuffer,
		NoInline: f.NoInline, Shuffle: f.Shuffle, MTU: f.MTU, Joined: f.Joined,
	}
}

// filled puts the defaults in.
func (f Faults) filled() Faults {
	if f.Latency == 0 {
		f.Latency = defaultLatency
	}
	if f.Loopback == 0 {
		f.Loopback = defaultLoopback
	}
	if f.SendBuffer == 0 {
		f.SendBuffer = defaultSend
	}
	if f.ReceiveBuffer == 0 {
		f.ReceiveBuffer = defaultReceive
	}
	return f
}
