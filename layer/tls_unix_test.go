//go:build unix

package layer_test

import (
	"syscall"

	"github.com/weir-io/weir"
)

// pipes joins two protocols by two pipes, as two processes are.
func pipes(r *rig, a, b weir.Factory) error {
	r.t.Helper()
	var there, back [2]int // the end to read, the end to write
	for _, p := range []*[2]int{&there, &back} {
		if err := syscall.Pipe(p[:]); err != nil {
			return err
		}
	}
	if _, err := r.loop.AttachPair(there[0], back[1], "a", a); err != nil {
		return err
	}
	_, err := r.loop.AttachPair(back[0], there[1], "b", b)
	return err
}
