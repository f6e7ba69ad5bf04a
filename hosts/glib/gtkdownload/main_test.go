package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/weir-io/weir/hosts/internal/hosttest"
)

// TestWindow: a window downloads while its timer ticks and its bar moves, and then nothing
// wakes the process.
func TestWindow(t *testing.T) {
	display := hosttest.Display(t)
	bytes := hosttest.Size(t)
	cmd := exec.Command(hosttest.Build(t, "."), hosttest.Args(hosttest.Serve(t), bytes)...)
	cmd.Env = append(os.Environ(), "DISPLAY="+display, "GDK_BACKEND=x11", "NO_AT_BRIDGE=1", "GTK_A11Y=none")
	p := hosttest.Start(t, cmd)
	p.Watch(bytes, func(downloaded string) {
		hosttest.Screenshot(t, display, "gtk")
		if ms, n := hosttest.Field(t, downloaded, "ms"), hosttest.Field(t, downloaded, "draws"); n < 3 || n < ms/300 {
			t.Errorf("the bar was drawn %.0f times in %.0f ms", n, ms)
		}
	})
}
