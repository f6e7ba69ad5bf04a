package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/weir-io/weir/hosts/internal/hosttest"
)

// TestWindow: a program on the X protocol downloads while its timer ticks and its bar
// moves, and then nothing wakes it.
func TestWindow(t *testing.T) {
	display := hosttest.Display(t)
	n := hosttest.Size(t)
	cmd := exec.Command(hosttest.Build(t, "."), hosttest.Args(hosttest.Serve(t), n)...)
	cmd.Env = append(os.Environ(), "DISPLAY="+display)
	hosttest.Start(t, cmd).Watch(n, func(downloaded string) {
		hosttest.Screenshot(t, display, "x11")
		if ms, n := hosttest.Field(t, downloaded, "ms"), hosttest.Field(t, downloaded, "draws"); n < 3 || n < ms/300 {
			t.Errorf("the bar was drawn %.0f times in %.0f ms", n, ms)
		}
	})
}
