package weirtest

import (
	"net/netip"
	"time"

	"github.com/weir-io/weir/internal/backend/sim"
)

// Faults are what can go wrong in a simulated network, and how often: chances are
// from 0 to 1, for each time that it could. The zero value is calm: links of a
// millisecond, and nothing goes wrong. WithFaults sets them, WithSwarm draws them
// from the seed.
type Faults struct {
	// Links.
	Latency  time.Duration // one way between hosts; 0 is a millisecond
	Jitter   time.Duration // up to this much more, drawn for each segment
	Loopback time.Duration // one way within a host; 0 is 10 microseconds, below 0 none
	Loss     float64       // a segment is lost, and sent again later
	CutWire  float64       // a segment is split, its parts arrive separately

	// Buffers in bytes; 0 is 512 KiB to send and 128 KiB to receive.
	SendBuffer, ReceiveBuffer int

	// What a system may do at any time: see internal/backend, which says what a
	// loop has to tolerate. An Op is one operation: a read, a write, an accept.
	NoInline   bool    // no Op finishes at once
	Eager      float64 // an Op finishes at once that could also wait
	Defer      float64 // an Op waits that could have finished at once
	CutRead    float64 // a read takes less than there is, down to a byte
	CutWrite   float64 // a write takes less than fits, down to a byte
	Again      float64 // an Op says that it would wait though it could continue
	EarlyEnd   float64 // an Op that stays armed, such as accept, ends with a result
	EmptyWait  float64 // a wait for events ends early without any
	Shuffle    bool    // results come in any order
	LateCancel float64 // a canceled Op ends later, with a last result
	LateBy     time.Duration

	// The fate of a connection, drawn once for each.
	Reset   float64 // refused, or reset while queued, open, half-closed or closing
	Silence float64 // from some byte on nothing passes any more
	Slow    float64 // its windows shut for a while, again and again
	// ResetPaused resets a connection when bytes have arrived while its reader has
	// paused reading.
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
	// (weir.WithDontFragment) is lost, its sender hears of it, and what it sends there later
	// fails with EMSGSIZE.
	MTU int
	// Joined has the system do what Linux does with UDP GRO and GSO, which the contract of a
	// backend allows: datagrams of one sender and size are received as one, and of several that
	// are sent in one call another one is taken with those before.
	Joined float64

	// Weather: drawn once every few dozen events.
	Partition float64 // two hosts lose sight of each other for a while
	Crash     float64 // a host with a SimHost.OnCrash crashes
	Shortage  float64 // a host has no handles left for a while
	WallJump  float64 // the wall clock jumps up to ten years either way
	Stall     float64 // everything stands still for up to an hour: a suspend
	LoopStall float64 // one loop does not get to run for a while

	// Programs (SimHost.Program), each for itself.
	StartError float64       // it cannot be started: EAGAIN, ENOMEM, EMFILE, EACCES
	StartDelay time.Duration // a start takes up to this long
	ExitDelay  time.Duration // the news of an exit comes up to this much later than the exit
	Killed     float64       // it is killed within its first second
}

// SimWhat says what a SimEvent is, and which calls SimHost.Fail and Short apply
// to. Its String is the word used in traces.
type SimWhat = sim.What

// The events on the wire, which can be held (Sim.Hold), and the results that a
// system hands to a loop.
const (
	Arrival         = sim.Arrival         // bytes, or the end of a stream, reach the other side
	Ack             = sim.Ack             // the sender learns of it
	ResetEvent      = sim.Reset           // a reset reaches a socket
	Syn             = sim.Syn             // a connect request reaches the listener
	SynAck          = sim.SynAck          // the listener's answer reaches the client
	Establish       = sim.Establish       // the connection reaches the listener's queue
	Refuse          = sim.Refuse          // a refusal reaches the client
	DatagramArrival = sim.DatagramArrival // a datagram reaches a host; SimEvent.Remote is its sender
	Unreachable     = sim.Unreachable     // the news that a datagram did not arrive reaches its sender
	ResultEvent     = sim.Result          // the result of an Op is handed to the loop
)

// The calls of a system that can fail (SimHost.Fail) or be cut short (Short).
const (
	OpenCall     = sim.OpenCall     // a socket is made
	AcceptCall   = sim.AcceptCall   // an accept that had something to take
	ConnectCall  = sim.ConnectCall  // the start of a connect
	ReadCall     = sim.ReadCall     // a read that had something to report
	WriteCall    = sim.WriteCall    // a write that had room
	ShutCall     = sim.ShutCall     // a shutdown or a close
	RecvFromCall = sim.RecvFromCall // a datagram that could be received
	SendToCall   = sim.SendToCall   // a datagram for which there was room
	StartCall    = sim.StartCall    // a program is started; its pipes and socket pairs are OpenCalls
)

// SimEvent is something that happens in a world, in the form in which Sim.Hold
// and ChooseResult show it.
type SimEvent struct {
	At     time.Duration // the world's time
	What   SimWhat
	Host   string // the socket's host; for an event on the wire, the sender's
	Socket uint32 // which socket, by the trace's numbers
	// Local and Remote are its addresses; not valid for a socket that has none.
	Local, Remote netip.AddrPort
	N             uint64 // Arrival, Ack: bytes of the stream until then
	End           bool   // Arrival: the end of the stream comes with it
}

func simEvent(e sim.Event) SimEvent {
	return SimEvent{
		At: e.At, What: e.What, Host: e.Host, Socket: e.Socket, Local: e.Local.IP, Remote: e.Remote.IP,
		N: e.N, End: e.End,
	}
}

func simEvents(in []sim.Event) []SimEvent {
	out := make([]SimEvent, len(in))
	for i, e := range in {
		out[i] = simEvent(e)
	}
	return out
}

// SimHold keeps events back until a test releases them, in any order that the
// network could have: see Sim.Hold.
type SimHold struct{ h *sim.Hold }

// Hold keeps back the events for which match returns true when they would happen:
// events of the wire and ResultEvents. Whatever follows a held Arrival in the same
// direction of a connection is held with it. match must not change the world.
func (s *Sim) Hold(match func(SimEvent) bool) *SimHold {
	return &SimHold{s.world.Hold(func(e sim.Event) bool { return match(simEvent(e)) })}
}

// Held lists what is held, in the order in which it would have happened.
func (h *SimHold) Held() []SimEvent { return simEvents(h.h.Held()) }

// Release lets the i-th event of Held happen now; it returns false if there is
// none. In one direction of a connection a later event includes the earlier
// ones, as with TCP.
func (h *SimHold) Release(i int) bool { return h.h.Release(i) }

// ReleaseAll lets everything that is held happen, in order; events after that are
// held again.
func (h *SimHold) ReleaseAll() { h.h.ReleaseAll() }

// End releases everything and holds no more.
func (h *SimHold) End() { h.h.End() }

// ChooseResult lets f choose which of several possible results comes first in a
// wait of a loop: f returns an index. nil ends this.
func (s *Sim) ChooseResult(f func([]SimEvent) int) {
	if f == nil {
		s.world.ChooseResult(nil)
		return
	}
	s.world.ChooseResult(func(e []sim.Event) int { return f(simEvents(e)) })
}

// ChooseLoop lets f choose which of the loops that have something to do gets
// the next turn: f returns an index. A loop is named by its host and its number
// there: "a/0". nil ends this.
func (s *Sim) ChooseLoop(f func(names []string) int) { s.world.ChooseLoop(f) }

// Fail makes the nth call of a kind from now on, on any host, fail with err; 1 is
// the next. A failed ReadCall leaves the bytes where they are, a failed
// AcceptCall leaves the connection, and a failed close still closes.
func (s *Sim) Fail(call SimWhat, nth int, err error) { s.world.Fail(call, nth, err) }

// Short makes the nth ReadCall or WriteCall from now on take at most n bytes.
func (s *Sim) Short(call SimWhat, nth, n int) { s.world.Short(call, nth, n) }

// Calls is how many calls of a kind there have been: a test can run once to
// count them, and then once for each, in which that call fails.
func (s *Sim) Calls(call SimWhat) int { return s.world.Calls(call) }

// Faults returns the faults of this world, including what was drawn.
func (s *Sim) Faults() Faults { return Faults(s.world.Faults()) }

// SetFaults puts other faults in force, for what happens from now on.
func (s *Sim) SetFaults(f Faults) { s.world.SetFaults(sim.Faults(f)) }

// Events is how many simulated events there have been: everything that was executed in
// an order that the seed decided.
func (s *Sim) Events() int { return s.world.Stats().Total() }

// Violations are breaches of the backend's contract by its loops, in words; Close
// reports them too. They are mistakes of weir, not of its users.
func (s *Sim) Violations() []string { return s.world.Violations() }

// HealAll ends all faults: what was lost is sent again at once, what was cut off
// can be reached again, and nothing more goes wrong. Tests of liveness call it,
// and then wait for the end. Crashed hosts stay down unless a restart is due.
func (s *Sim) HealAll() { s.world.HealAll() }

// SetLatency sets how long a segment takes between two hosts, in either direction.
func (s *Sim) SetLatency(a, b *SimHost, d time.Duration) { s.world.SetLatency(a.host, b.host, d) }

// Partition cuts two hosts off from each other: what is sent is lost, and sent
// again until Heal or until a timeout ends it.
func (s *Sim) Partition(a, b *SimHost) { s.world.Partition(a.host, b.host) }

// Heal undoes Partition.
func (s *Sim) Heal(a, b *SimHost) { s.world.Heal(a.host, b.host) }

// Stall makes everything stand still for d when time passes next, like a
// suspended machine: the clock continues, and what was due meanwhile is late.
func (s *Sim) Stall(d time.Duration) { s.world.Stall(d) }

// JumpWall moves the wall clock, and nothing else.
func (s *Sim) JumpWall(d time.Duration) { s.world.JumpWall(d) }

// WallNow is the wall clock; in every world it begins on March 1, 2013.
func (s *Sim) WallNow() time.Time { return s.world.WallNow() }

// Inject puts a datagram into the network whose source is from, whichever host has
// that address. It reaches the host that has the address to at once.
func (s *Sim) Inject(from, to netip.AddrPort, p []byte) { s.world.Inject(from, to, p) }

// Crash ends the host's program and cuts its power: nothing that it had remains,
// and no peer is told. Its loops get no more turns. Until Restart it does not
// answer.
func (h *SimHost) Crash() { h.host.Crash() }

// Restart makes a crashed host reachable again. Its program has to be started
// again, on new loops.
func (h *SimHost) Restart() { h.host.Restart(); h.loop = nil }

// Down reports whether the host has crashed and was not restarted.
func (h *SimHost) Down() bool { return h.host.Down() }

// OnCrash allows Faults.Crash to crash the host, and sets what to do when it is
// back: start the program again.
func (h *SimHost) OnCrash(back func()) {
	h.host.OnCrash = func(*sim.Host) { h.loop = nil; back() }
}

// SetHandles limits how many handles, which stand for descriptors, may be open on
// the host at once; beyond that there is EMFILE. The default is 20,000.
func (h *SimHost) SetHandles(n int) { h.host.SetHandles(n) }

// Handles is how many are open now.
func (h *SimHost) Handles() int { return h.host.Usage().Handles }

// SimUsage counts what a host holds. Two of them can be compared.
type SimUsage struct {
	Handles   int // open
	Sockets   int // those and what is closed and still sending, or waits to be accepted
	Armed     int // operations that the host's loops wait for
	Buffered  int // bytes written and not read
	Pending   int // events under way
	Listeners int
	Programs  int // that run, and those that have ended and that no one has reaped
}

// Usage counts what the host holds now.
func (h *SimHost) Usage() SimUsage { return SimUsage(h.host.Usage()) }

// Fail is Sim.Fail for the calls of this host.
func (h *SimHost) Fail(call SimWhat, nth int, err error) { h.host.Fail(call, nth, err) }

// Short is Sim.Short for the calls of this host.
func (h *SimHost) Short(call SimWhat, nth, n int) { h.host.Short(call, nth, n) }

// Addrs returns the host's addresses, without those of its loopback.
func (h *SimHost) Addrs() []netip.Addr { return h.host.Addrs() }
