//go:build !unix

package process

import (
	"errors"
	"syscall"
)

const resume = syscall.Signal(0)

func spawn(c *Command) (program, error) {
	return nil, &StartError{Op: "exec", Path: c.Path, Err: errors.ErrUnsupported}
}
