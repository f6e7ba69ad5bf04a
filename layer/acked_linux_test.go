package layer_test

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// acknowledged waits until the peer's system has everything that was written to c: a
// reset discards the rest on this side, and the peer never sees it.
func acknowledged(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	for range 3000 {
		n := 0
		if e := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); e != nil || err != nil || n == 0 {
			return errors.Join(e, err)
		}
		<-time.After(10 * time.Millisecond)
	}
	return errors.New("the peer does not take what was sent")
}
