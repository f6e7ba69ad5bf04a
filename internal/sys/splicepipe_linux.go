package sys

import "golang.org/x/sys/unix"

// SplicePipe makes a pipe to splice through, non-blocking and close-on-exec, that holds
// size bytes, or as much as the system allows (/proc/sys/fs/pipe-max-size, and the
// total that one user may have). Both ends belong to the caller.
func SplicePipe(size int) (r, w int, err error) {
	fds, err := Pipe()
	if err != nil {
		return -1, -1, err
	}
	for ; size > pipeDefault; size /= 2 {
		if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, size); err == nil {
			break
		}
	}
	return fds[0], fds[1], nil
}

// pipeDefault is the size of a new pipe, in bytes.
const pipeDefault = 64 << 10
