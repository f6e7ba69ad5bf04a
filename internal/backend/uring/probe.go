//go:build linux

package uring

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Features are the parts of io_uring that a kernel may or may not have, and that a
// backend uses if they are there. Each is detected by trying it, not by the kernel's
// version.
type Features uint16

// The features.
const (
	// SingleIssuer: one thread owns the ring and completes its operations
	// inside Wait only (SINGLE_ISSUER with DEFER_TASKRUN).
	SingleIssuer Features = 1 << iota
	// TaskrunFlag: the kernel shows in shared memory that entering would bring
	// completions.
	TaskrunFlag
	// NoArray: the submission queue has no index array.
	NoArray
	// SkipSuccess: submissions whose success posts no completion.
	SkipSuccess
	// MultiAccept and MultiRecv: one submission, many results.
	MultiAccept
	MultiRecv
	// Incremental: receives share a provided buffer piece by piece, and their
	// completions come in the order of the pieces.
	Incremental
	// Bundles: a receive may fill several provided buffers. Found, not used:
	// with incremental buffers of 64 KiB there is nothing left to bundle.
	Bundles
)

// featureNames are the names in Caps.Probed.
var featureNames = [...]string{
	"single-issuer+defer-taskrun", "taskrun-flag", "no-sqarray", "skip-success",
	"multishot-accept", "multishot-recv", "incremental-buffers", "bundles (not used)",
}

// setupFlags are the flags for a ring that has these features.
func (f Features) setupFlags() uint32 {
	flags := uint32(setupSubmitAll)
	if f&SingleIssuer != 0 {
		flags |= setupSingleIssuer | setupDeferTaskrun | setupDisabled
	} else {
		flags |= setupCoopTaskrun
	}
	if f&TaskrunFlag != 0 {
		flags |= setupTaskrunFlag
	}
	if f&NoArray != 0 {
		flags |= setupNoSQArray
	}
	return flags
}

// describe lists features in words.
func describe(has, without Features, r *ring) []string {
	list := make([]string, 0, len(featureNames)+2)
	for i, name := range featureNames {
		answer := "no"
		switch f := Features(1) << i; {
		case has&f != 0 && without&f != 0:
			answer = "yes, left out"
		case has&f != 0:
			answer = "yes"
		}
		list = append(list, name+": "+answer)
	}
	return append(list,
		fmt.Sprintf("submission-entries: %d", r.sqSize),
		fmt.Sprintf("completion-entries: %d", r.cqSize))
}

// neededOps are the operations without which this backend cannot work.
var neededOps = [...]uint8{
	opWritev, opPollAdd, opSendmsg, opAccept, opAsyncCancel, opConnect, opRead, opWrite, opSend, opRecv,
}

// probe finds out what the kernel's io_uring can do, on a small ring of its own. If
// there are no provided buffer rings (Linux 5.19), it returns ENOSYS.
func probe() (Features, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, has, err := probeSetup()
	if err != nil {
		return 0, err
	}
	defer r.close()
	if err := probeOps(r); err != nil {
		return 0, err
	}
	if r.features&featCQESkip != 0 {
		has |= SkipSuccess
	}
	if r.features&featBundle != 0 {
		has |= Bundles
	}
	const group = 1
	incremental := true
	bufs, err := newBuffers(r, group, 2, 4096, incremental)
	if err != nil {
		incremental = false
		if bufs, err = newBuffers(r, group, 2, 4096, incremental); err != nil {
			return 0, err
		}
	}
	defer bufs.free()
	tried, err := probeMultishot(r, bufs)
	if err != nil {
		return 0, fmt.Errorf("uring: probing: %w", err)
	}
	return has | tried, nil
}

// probeSetup makes a ring with as many features as the kernel grants.
func probeSetup() (*ring, Features, error) {
	var err error
	for _, f := range [...]Features{
		SingleIssuer | TaskrunFlag | NoArray, SingleIssuer | TaskrunFlag, TaskrunFlag,
	} {
		var r *ring
		if r, err = newRing(8, 16, f.setupFlags()&^setupDisabled); err == nil {
			return r, f, nil
		}
		if !errors.Is(err, syscall.EINVAL) {
			return nil, 0, err
		}
	}
	return nil, 0, fmt.Errorf("uring: the kernel's io_uring is too old (%w): %w", err, syscall.ENOSYS)
}

func probeOps(r *ring) error {
	var reply probeReply
	if errno := r.register(registerProbe, unsafe.Pointer(&reply), uintptr(len(reply.ops))); errno != 0 {
		return fmt.Errorf("uring: probing operations: %w: %w", errno, syscall.ENOSYS)
	}
	for _, op := range neededOps {
		if op > reply.lastOp || reply.ops[op].flags&probeSupported == 0 {
			return fmt.Errorf("uring: the kernel's io_uring lacks operation %d: %w", op, syscall.ENOSYS)
		}
	}
	return nil
}

// probeMultishot tries multishot receive and accept with something to take at once. It
// also checks whether an ordinary receive and a multishot one, submitted together and
// in this order, take pieces of one buffer and complete in this order: some kernels
// with incremental buffers complete the second first, and then no one can tell whose
// bytes are whose.
func probeMultishot(r *ring, bufs *buffers) (Features, error) {
	var fds [7]int
	n := 0
	defer func() {
		for _, fd := range fds[:n] {
			_ = unix.Close(fd)
		}
	}()
	for _, text := range [...]string{"a", "b"} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		fds[n], fds[n+1] = pair[0], pair[1]
		n += 2
		for {
			if _, err = unix.Write(pair[1], []byte(text)); err != unix.EINTR {
				break
			}
		}
		if err != nil {
			return 0, err
		}
	}
	listener, err := probeListener(&fds, &n)
	if err != nil {
		return 0, err
	}
	const single, multi, accept = 1, 2, 3
	e := r.next()
	e.opcode, e.fd, e.flags, e.bufGroup, e.userData = opRecv, int32(fds[0]), sqeBufferSelect, bufs.group, single
	e = r.next()
	e.opcode, e.fd, e.flags, e.bufGroup, e.userData = opRecv, int32(fds[2]), sqeBufferSelect, bufs.group, multi
	e.ioprio = recvMultishot
	e = r.next()
	e.opcode, e.fd, e.userData = opAccept, int32(listener), accept
	e.ioprio, e.opFlags = acceptMultishot, unix.SOCK_CLOEXEC
	var has Features
	var order [2]uint64
	var text [2]byte
	received := 0
	for seen := 0; seen < 3; {
		if errno := r.enter(true, true, time.Second); errno != 0 && errno != syscall.EINTR {
			return 0, errno
		}
		for ; r.ready() > 0; r.drop(1) {
			e := r.peek(0)
			seen++
			switch {
			case e.userData == accept && e.res >= 0:
				fds[n] = int(e.res)
				n++
				if e.flags&cqeMore != 0 {
					has |= MultiAccept
				}
			case e.userData == multi && e.flags&cqeMore != 0:
				has |= MultiRecv
			}
			if e.flags&cqeBuffer != 0 && received < 2 {
				order[received] = e.userData
				if p := bufs.filled(e.flags, int(e.res)); len(p) == 1 {
					text[received] = p[0]
				}
				received++
			}
		}
	}
	if bufs.incremental && order == [2]uint64{single, multi} && string(text[:]) == "ab" {
		has |= Incremental
	}
	return has, nil
}

// probeListener returns a listening socket that has a connection to accept, and
// adds it and the connecting one to fds.
func probeListener(fds *[7]int, n *int) (int, error) {
	var pair [2]int
	for i := range pair {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return -1, err
		}
		pair[i], fds[*n] = fd, fd
		*n++
	}
	// For an unnamed address the system chooses an abstract one.
	if err := unix.Bind(pair[0], &unix.SockaddrUnix{}); err != nil {
		return -1, err
	}
	if err := unix.Listen(pair[0], 1); err != nil {
		return -1, err
	}
	name, err := unix.Getsockname(pair[0])
	if err != nil {
		return -1, err
	}
	return pair[0], unix.Connect(pair[1], name)
}
