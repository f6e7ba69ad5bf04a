package weir

import "golang.org/x/sys/unix"

// newKernelPipe makes a pipe to splice through, as large as the system allows;
// nil if there is no descriptor for it.
func newKernelPipe() *kernelPipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	for size := pipeSize; size > 64<<10; size /= 2 {
		if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, size); err == nil {
			break
		}
	}
	return &kernelPipe{r: fds[0], w: fds[1]}
}
