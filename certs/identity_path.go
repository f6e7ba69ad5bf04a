//go:build !linux

package certs

import "path/filepath"

// appendReal appends the real path of a file, which distinguishes files that were replaced as
// a whole directory and are alike in every other way.
func appendReal(b []byte, path string) ([]byte, error) {
	real, err := filepath.EvalSymlinks(path)
	return append(b, real...), err
}
