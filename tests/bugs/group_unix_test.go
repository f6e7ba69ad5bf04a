//go:build unix

package bugs

import (
	"os/exec"
	"syscall"
)

// alone gives cmd a process group of its own, and returns what ends all of it: a
// test that fails in the middle may leave programs, which would go on connecting to
// ports that other tests are given later.
func alone(cmd *exec.Cmd) (end func()) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end = func() {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // none may be left
		}
	}
	cmd.Cancel = func() error { end(); return nil }
	return end
}
