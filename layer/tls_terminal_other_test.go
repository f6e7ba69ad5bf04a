//go:build !linux

package layer_test

import "github.com/weir-io/weir"

func terminal(r *rig, _, _ weir.Factory) error {
	r.t.Skip("pseudo-terminals are opened on Linux only")
	return nil
}
