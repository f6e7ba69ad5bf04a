//go:build unix

package certs

import (
	"io/fs"
	"strconv"
	"syscall"
)

// fileIdentity is the number of a file, which a new file in its place does not have.
func fileIdentity(info fs.FileInfo) string {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return strconv.FormatUint(uint64(s.Dev), 16) + ":" + strconv.FormatUint(uint64(s.Ino), 16) //nolint:unconvert // their types differ between systems
	}
	return ""
}
