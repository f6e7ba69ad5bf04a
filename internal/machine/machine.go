// Package machine is what package process needs of a simulated host. The simulator
// implements it, and hands it over with the loop's inner side.
//
//	process ──▶ machine.Host ◀── internal/backend/sim ◀── weirtest: what the programs do
package machine

import "syscall"

// Host is a host whose programs are simulated. Its methods belong to the world's
// goroutine, on which all of its loops run.
type Host interface {
	// Pipe and SocketPair make descriptors of the host that no loop has yet. The errors are
	// errnos.
	Pipe() (r, w int, err error)
	SocketPair() (a, b int, err error)
	// CloseDescriptor closes one that no loop has.
	CloseDescriptor(fd int)
	// StartDelay draws how long a start takes, in nanoseconds.
	StartDelay() int64
	// Start starts the program that has a path. On success the descriptors in Files
	// belong to it, on an error they are still the caller's. The error is an errno.
	// exited is called, once, on the world's goroutine, when its exit can be reaped.
	Start(s *Spec, exited func()) (Program, error)
}

// Spec is a program to start.
type Spec struct {
	Path  string // with or without a slash: as it was registered
	Args  []string
	Env   []string
	Dir   string
	Files map[int]int // its descriptors: descriptors of the host; -1 is the null device
	Group bool        // it gets a process group of its own
}

// Program is one that was started, until it is reaped.
type Program interface {
	PID() int
	// Signal sends a signal to the program, SignalGroup to its process group if that is
	// one of its own. They must not be called after Reap: the simulator notes that as a
	// violation.
	Signal(sig syscall.Signal)
	SignalGroup(sig syscall.Signal)
	// Exited reports whether it can be reaped.
	Exited() bool
	// Reap frees its number; false: it has not exited.
	Reap() (code int, sig syscall.Signal, ok bool)
	// Leave has the host reap it, whenever it exits.
	Leave()
}
