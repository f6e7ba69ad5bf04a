//go:build !unix

package process

import (
	"errors"
	"syscall"
)

const resume = syscall.Signal(0)

// child is never made here.
type child struct {
	pid, pidfd, tty int
	path            string
	ends            []ends
}

type ends struct {
	stream *Stream
	r, w   int
}

func spawn(c *Command) (*child, error) {
	return nil, &StartError{Op: "exec", Path: c.Path, Err: errors.ErrUnsupported}
}

func (c *child) signal(syscall.Signal) error      { return errors.ErrUnsupported }
func (c *child) signalGroup(syscall.Signal) error { return errors.ErrUnsupported }
func (c *child) discard()                         {}
func (c *child) leave()                           {}
func (c *child) letGo()                           {}
func (c *child) awaitExit()                       {}
func (c *child) hasExited() bool                  { return false }
func (c *child) reap() (Exit, bool)               { return Exit{}, false }
