package certs

import (
	"io/fs"
	"strconv"
	"syscall"
)

// appendIdentity appends the number of a file, and the time of its last change of any kind. A
// new file in its place has another time even if the system gives it the same number, and so
// has one in a directory that was replaced as a whole.
func appendIdentity(b []byte, _ string, info fs.FileInfo) ([]byte, error) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return b, nil
	}
	b = strconv.AppendUint(b, uint64(s.Dev), 16) //nolint:unconvert // their types differ between machines
	b = append(b, ':')
	b = strconv.AppendUint(b, s.Ino, 16)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(s.Ctim.Sec), 16) //nolint:unconvert // as above
	b = append(b, '.')
	return strconv.AppendInt(b, int64(s.Ctim.Nsec), 16), nil //nolint:unconvert // as above
}
