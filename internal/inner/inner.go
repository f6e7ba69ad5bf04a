// Package inner is the side of a loop that only this module's own packages see: what
// coroutines, the goroutine edge and the starting of programs need of it, and no one else.
//
// Package weir cannot give it to them in a method, which everyone would see, and its
// users cannot reach into it. So weir says, while it is initialized, how to get from a
// loop to its inner side, as the standard library's packages do among themselves.
package inner

import "github.com/weir-io/weir/internal/machine"

// Loop is the inner side of a loop. Its methods belong to the loop's goroutine.
type Loop interface {
	// Thread identifies the thread that callbacks run on now: equal values mean the
	// same thread. It is 0 if the loop's goroutine is not locked to a thread, and while
	// the loop does not run.
	Thread() uint64
	// Switched tells debug mode that the calling goroutine is the loop's from now on:
	// the loop has switched to a coroutine that runs the named task, or back, with "".
	// Without debug mode it does nothing.
	Switched(task string)
	// Readied tells the loop that a callback made a goroutine ready to run, so that the
	// loop lets goroutines run before it next waits. The runtime does not notice at
	// once that a loop sleeps in the kernel; until it does, a goroutine that was made
	// ready on the loop's processor would have to wait.
	Readied()
	// Together holds what endpoints send while it is on, so that it leaves by as few system
	// calls as possible when it is turned off, and returns what it was before. What does
	// not leave is told to a PacketFailer.
	Together(on bool) (was bool)
	// Machine is the simulated host that the loop runs on; nil on a real machine.
	Machine() machine.Host
}

// of never changes once package weir has been initialized.
var of = func(any) Loop { return nil }

// Provide sets what Of does. Only package weir calls it, once, while it is initialized.
func Provide(f func(loop any) Loop) { of = f }

// Of returns the inner side of loop, which is a *weir.Loop or a value that embeds one;
// nil for a loop of another kind. It allocates nothing.
func Of(loop any) Loop { return of(loop) }
