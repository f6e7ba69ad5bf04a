//go:build !unix

package layer_test

import "github.com/weir-io/weir"

func pipes(r *rig, _, _ weir.Factory) error {
	r.t.Skip("pipes are attached on unix only")
	return nil
}
