package advice

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/serial"
)

// whyMissing says which kind of socket the system lacks.
func whyMissing(e *weir.MissingSocketError) string {
	if e.Module == "" {
		return "there are no " + e.Network + " sockets here"
	}
	return "this kernel lacks the module " + e.Module
}

// nextForModule says how to get it; "" for any other error.
func nextForModule(err error) string {
	missing, ok := errors.AsType[*weir.MissingSocketError](err)
	switch {
	case !ok:
		return ""
	case missing.Module == "":
		return "Linux has them, with the backends epoll and uring."
	}
	return "Load it as root: modprobe " + missing.Module + ". A kernel built without it needs another one, or a package with its modules."
}

// whyGone says what became of a serial line's device.
func whyGone(e *serial.GoneError) string {
	if errors.Is(e, serial.ErrCarrier) {
		return "the device has dropped carrier detect, as a modem does when it hangs up"
	}
	if e.Wait > 0 {
		return "the device is gone, and did not come back within " + e.Wait.String()
	}
	return "the device is gone"
}

func nextForSerial(e *endpoint.Endpoint, cause error) string {
	path := e.Base.ArgText()
	switch {
	case errors.Is(cause, fs.ErrNotExist) && e.Base.Has("retry"):
		return "It did not appear within " + e.Base.Value("retry") + "."
	case errors.Is(cause, fs.ErrNotExist), errors.Is(cause, syscall.ENODEV), errors.Is(cause, syscall.ENXIO), errors.Is(cause, syscall.EIO):
		return "Is the device plugged in? To wait for it: add ,retry=1h"
	case errors.Is(cause, syscall.EBUSY):
		return "Another program has it open (fuser -v " + path + "). To use it beside that, if that lets you: add ,shared"
	case errors.Is(cause, fs.ErrPermission):
		return "A group may open it, often dialout or uucp: ls -l " + path
	case errors.Is(cause, syscall.ENOTTY):
		return "That is no serial line."
	}
	return ""
}
