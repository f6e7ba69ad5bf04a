//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package address

import "os"

// noFollow is 0 where open has no such flag.
const noFollow = 0

func othersFile(os.FileInfo) OutputFileProblem { return "" }

func lockFile(*os.File) bool { return true }
