//go:build windows || plan9

package weir

import "os"

func catchable(sig os.Signal) bool { return sig != os.Kill }
