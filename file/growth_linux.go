package file

import (
	"os"
	"strconv"
	"syscall"

	"github.com/weir-io/weir"
)

// watchGrowth calls changed on the loop whenever a file was written to, moved or removed on
// this machine, until stop is called. It returns nil where the system does not tell.
func watchGrowth(l *weir.Loop, f *os.File, changed func()) (stop func()) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil // each user has few
	}
	// Its name may mean another file by now.
	raw, err := f.SyscallConn()
	if err == nil {
		controlled := raw.Control(func(n uintptr) {
			_, err = syscall.InotifyAddWatch(fd, "/proc/self/fd/"+strconv.Itoa(int(n)), syscall.IN_MODIFY|syscall.IN_ATTRIB|syscall.IN_MOVE_SELF)
		})
		if err == nil {
			err = controlled
		}
	}
	var w *weir.Watch
	if err == nil {
		var events [4096]byte
		w, err = l.Watch(fd, weir.EventRead, func(weir.Events) {
			for {
				if n, err := syscall.Read(fd, events[:]); n <= 0 || err != nil {
					break
				}
			}
			changed()
		})
	}
	if err != nil {
		_ = syscall.Close(fd) // nothing depends on it
		return nil
	}
	return func() {
		w.Remove()
		_ = syscall.Close(fd) // nothing depends on it
	}
}
