package portable

import (
	"syscall"

	"github.com/weir-io/weir/internal/sys"
)

func systemErrno(e syscall.Errno) error { return sys.WindowsErrno(e) }
