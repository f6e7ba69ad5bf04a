// Package driver is for those who write a backend for weir: the code that drives a
// loop. The built-in backends need no import; another one needs a single import line,
//
//	import _ "example.org/fancypoll"
//
// whose package calls Register while it is initialized. Backends imported this way are
// tried before those of the platform, in the order of their registration; WEIR_BACKEND
// and weir.WithBackendName choose by name.
//
// The types are those of the contract; Backend says what each method promises.
// Package drivertest has the contract as a test suite.
package driver

import "github.com/weir-io/weir/internal/backend"

// The contract.
type (
	// Backend drives one loop. A Backend may also be a Hosted, an Awaiter or a Mover.
	Backend = backend.Backend
	// Hosted is a Backend that a foreign loop can drive by watching a descriptor.
	Hosted = backend.Hosted
	// Awaiter is a Backend without such a descriptor: another goroutine waits for it.
	Awaiter = backend.Awaiter
	// Mover is a Backend whose connections can move to another of its kind.
	Mover = backend.Mover
	// Op is one operation; the backend gets it with Submit.
	Op = backend.Op
	// Owner receives an Op's results; a backend never calls it.
	Owner = backend.Owner
	// Completion is one result of an Op.
	Completion = backend.Completion
	// Caps says what a backend can do.
	Caps = backend.Caps
	// Handle names an open socket, pipe or file of one backend.
	Handle = backend.Handle
	// Spec describes a socket to open.
	Spec = backend.Spec
	// Addr is the address of a socket.
	Addr = backend.Addr
	// Packet is one datagram to send, PacketInfo what there is to one beside its
	// bytes and its peer, Infos are parts of that.
	Packet     = backend.Packet
	PacketInfo = backend.PacketInfo
	Infos      = backend.Infos
	// Option names a socket option, OptionValue is one with its value.
	Option      = backend.Option
	OptionValue = backend.OptionValue
	// Kind says what an Op does, Flags modify it, Events are what a Ready Op
	// waits for, How is how a handle is shut.
	Kind   = backend.Kind
	Flags  = backend.Flags
	Events = backend.Events
	How    = backend.How
)

// Register makes a backend known under a name that WEIR_BACKEND and
// weir.WithBackendName take. open is called for each loop, from any goroutine; if it
// fails, the next backend is tried. Register panics if the name is empty or already
// registered. Call it from an init function.
func Register(name string, open func() (Backend, error)) { backend.Register(name, open) }

// The kinds of Op; backend.Kind's constants say what each does.
const (
	Read      = backend.Read
	Write     = backend.Write
	Accept    = backend.Accept
	Connect   = backend.Connect
	Hangup    = backend.Hangup
	Ready     = backend.Ready
	SpliceIn  = backend.SpliceIn
	SpliceOut = backend.SpliceOut
	RecvFrom  = backend.RecvFrom
	SendTo    = backend.SendTo
)

// The flags of an Op.
const (
	Multi = backend.Multi
	Now   = backend.Now
	Quiet = backend.Quiet
)

// The parts of a PacketInfo.
const (
	InfoLocal   = backend.InfoLocal
	InfoTraffic = backend.InfoTraffic
	InfoDropped = backend.InfoDropped
	InfoTime    = backend.InfoTime
)

// None is the Handle of nothing.
const None = backend.None

// The results that do not come from the system.
var (
	// ErrAgain ends an Op that had nothing to report.
	ErrAgain = backend.ErrAgain
	// ErrCanceled ends an Op that was canceled before anything happened.
	ErrCanceled = backend.ErrCanceled
	// ErrUnsupported is returned for anything that Caps says is missing.
	ErrUnsupported = backend.ErrUnsupported
)
