//go:build unix

package main

import "os"

// takeStdio moves standard input and output to descriptors of their own, for
// the loop to take over, and leaves the null device in their place. The end of
// our output then reaches its reader when the relay ends it, not when the
// process ends, and no descriptor that is opened later gets the number 0 or 1.
func takeStdio(in, out *os.File) (r, w int, err error) {
	if r, err = move(in, 0); err != nil {
		return -1, -1, err
	}
	w, err = move(out, 1)
	return r, w, err
}

func move(f *os.File, standard int) (int, error) {
	fd, err := dup(int(f.Fd()))
	if err != nil {
		return -1, os.NewSyscallError("dup", err)
	}
	if int(f.Fd()) != standard {
		return fd, f.Close() // a test's pipe
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = null.Close() }() // nothing was written
	return fd, os.NewSyscallError("dup2", dup2(int(null.Fd()), standard))
}
