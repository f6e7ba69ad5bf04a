//go:build !linux

package main

import "syscall"

// lateBind has nothing to ask for here: ports may run out sooner.
func lateBind(_, _ string, _ syscall.RawConn) error { return nil }
