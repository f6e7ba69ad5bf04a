package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// stopIgnored reports whether SIGTSTP is ignored. It is to be called before anyone catches it.
// signal.Ignored does not know: the runtime does not look at how a program was started to take
// signals such as this one.
func stopIgnored() bool {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	_, mask, _ := strings.Cut(string(text), "\nSigIgn:\t")
	mask, _, _ = strings.Cut(mask, "\n")
	ignored, _ := strconv.ParseUint(mask, 16, 64) // none, if the kernel does not say
	return ignored>>(syscall.SIGTSTP-1)&1 != 0
}
