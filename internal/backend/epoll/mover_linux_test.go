package epoll

import (
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// TestAdoptionFails: a descriptor that a backend cannot take over stays open, and its giver's to
// close: a number that was closed twice may by then be another loop's connection.
func TestAdoptionFails(t *testing.T) {
	for name, adopt := range map[string]func(b *Backend, fd int) error{
		"AdoptConn": func(b *Backend, fd int) error {
			_, err := b.AdoptConn(&moving{fd: fd, flags: inet})
			return err
		},
		"Adopt": func(b *Backend, fd int) error {
			_, err := b.Adopt(fd)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := New(false)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.Close() }() // always nil
			before, after := socketPair(t), socketPair(t)
			fd := before[0]
			h, err := b.Adopt(fd)
			if err != nil || h != backend.Handle(fd) {
				t.Fatalf("the first one: %d, %v", h, err)
			}
			// It is closed behind the backend's back, and its number used again. The new
			// descriptor cannot get another number, since there is none.
			if err := unix.Dup3(after[0], fd, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			err = withFiles(t, uint64(fd)+1, func() error { return adopt(b, fd) })
			if err == nil {
				t.Fatal("there was another number")
			}
			if _, gone := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); gone != nil {
				t.Errorf("the failed adoption (%v) closed the descriptor: %v", err, gone)
			}
			for _, fd := range []int{fd, before[1], after[0], after[1]} {
				if err := unix.Close(fd); err != nil {
					t.Errorf("descriptor %d: %v", fd, err)
				}
			}
		})
	}
}

func socketPair(t *testing.T) [2]int {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// withFiles calls f under a limit of open files.
func withFiles(t *testing.T, n uint64, f func() error) error {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}()
	return f()
}
