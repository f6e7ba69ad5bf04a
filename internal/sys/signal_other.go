//go:build windows || plan9

package sys

import "os"

// Catchable reports whether a process can handle sig.
func Catchable(sig os.Signal) bool { return sig != os.Kill }
