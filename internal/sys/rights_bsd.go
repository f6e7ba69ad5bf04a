//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package sys

// noSignal: nothing is needed. The SIGPIPE of a failed send does nothing in a Go program:
// see Write.
const noSignal = 0

// cloexec: descriptors are made close-on-exec after they have come, with forking held
// off.
const cloexec = 0
