package main

import (
	"os/exec"
	"syscall"
)

// leash has a child end with the tests, however they end. One that a time limit or a
// panic left behind would go on connecting to a port that other tests are given later.
func leash(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
