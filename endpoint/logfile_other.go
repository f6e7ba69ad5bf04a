//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package endpoint

import "os"

// noFollow is 0 because open has no such flag here.
const noFollow = 0

func othersFile(os.FileInfo) OutputFileProblem { return "" }

func lockFile(*os.File) bool { return true }
