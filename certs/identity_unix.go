//go:build unix && !linux

package certs

import (
	"io/fs"
	"strconv"
	"syscall"
)

// appendIdentity appends the number of a file, which a new file in its place does not have in
// most cases, and its real path.
func appendIdentity(b []byte, path string, info fs.FileInfo) ([]byte, error) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		b = strconv.AppendUint(b, uint64(s.Dev), 16) //nolint:unconvert // their types differ between systems
		b = append(b, ':')
		b = strconv.AppendUint(b, uint64(s.Ino), 16) //nolint:unconvert // as above
		b = append(b, ' ')
	}
	return appendReal(b, path)
}
