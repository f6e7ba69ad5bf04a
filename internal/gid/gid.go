// Package gid tells goroutines apart, for debug mode, which finds calls that were made
// on the wrong one. Nothing else may depend on it.
package gid

import (
	"bytes"
	"runtime"
	"strconv"
)

// ID is the number of the calling goroutine. It is read from the header of a stack
// trace, which is the only place where the runtime shows it; 0 if the header does not
// look as expected.
func ID() uint64 {
	var buf [64]byte
	f := bytes.Fields(buf[:runtime.Stack(buf[:], false)])
	if len(f) < 2 {
		return 0
	}
	id, _ := strconv.ParseUint(string(f[1]), 10, 64)
	return id
}
