package sys

import "errors"

// RightsMost is how many descriptors one message carries: Linux's SCM_MAX_FD.
const RightsMost = 253

// ErrRightsCut is the result of RecvRights if the system could not make all descriptors
// that were passed, for example because the process may have no more.
var ErrRightsCut = errors.New("not all descriptors could be received: the process may have no more (ulimit -n)")

// User is the process at the other end of a UNIX socket, as the system knows it.
type User struct {
	PID      int // 0: not known
	UID, GID uint32
}
