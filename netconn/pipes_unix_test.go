//go:build unix

package netconn_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// unixKinds are the ways to connect that only UNIX has.
func unixKinds() []kind { return []kind{{"pipes", piped}} }

// piped connects through two pipes, one for each direction.
func piped(t testing.TB, a, _ *weir.Loop) (net.Conn, net.Conn) {
	t.Helper()
	var there, back [2]int
	if err := errors.Join(syscall.Pipe(there[:]), syscall.Pipe(back[:])); err != nil {
		t.Fatal(err)
	}
	end := func(r, w int) *netconn.Conn {
		return on(t, a, func() (*netconn.Conn, error) {
			c := netconn.New(a)
			_, err := a.AttachPair(r, w, "pipes", func(weir.Transport) weir.Protocol { return c.Protocol() })
			return c, err
		})
	}
	return end(there[0], back[1]), end(back[0], there[1])
}

// TestOneWay: the reading end of a pipe cannot be written to, and says so.
func TestOneWay(t *testing.T) {
	l := startLoop(t)
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[1])
	c := on(t, l, func() (*netconn.Conn, error) {
		c := netconn.New(l)
		_, err := l.AttachPair(fds[0], -1, "pipe", func(weir.Transport) weir.Protocol { return c.Protocol() })
		return c, err
	})
	defer c.Close()
	_ = c.SetDeadline(soon())
	// The first write goes to the outbox; the loop then finds out.
	for {
		if _, err := c.Write([]byte("x")); err != nil {
			if !errors.Is(err, weir.ErrNotWritable) {
				t.Errorf("got %v", err)
			}
			break
		}
	}
	if _, err := syscall.Write(fds[1], []byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
}
