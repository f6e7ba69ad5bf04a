// Package gid tells goroutines apart, for debug mode, which finds calls that were made
// on the wrong one. Nothing else may depend on it.
package gid

import (
	"bytes"
	"runtime"
	"strconv"
)

// ID is the number of the goroutine that calls it. It is read from the header of a
// stack trace, which is the one place where the runtime shows it; 0 where that does not
// look as it should.
func ID() uint64 {
	var buf [64]byte
	f := bytes.Fields(buf[:runtime.Stack(buf[:], false)])
	if len(f) < 2 {
		return 0
	}
	id, _ := strconv.ParseUint(string(f[1]), 10, 64)
	return id
}
