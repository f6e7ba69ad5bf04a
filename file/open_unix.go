//go:build unix

package file

import "syscall"

// openQuick keeps an open of what took the place of a file from waiting.
const openQuick = syscall.O_NONBLOCK | syscall.O_NOCTTY
