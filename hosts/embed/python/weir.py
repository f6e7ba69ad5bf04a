"""weir in Python: streams through any layers, driven by asyncio or by Tk.

    go build -buildmode=c-shared -o libweir.so ..

    guest = weir.Asyncio("./libweir.so")
    stream = guest.connect("example.org:443+tls", Protocol())

A protocol has the methods made(stream), received(data), drained() and lost(reason), where
reason is None after a clean end. Those that it lacks are left out. Everything belongs to
the thread that runs the host.
"""

import ctypes
import sys
import time
import traceback

_MADE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_RECEIVED = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_LOST = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)


class _Callbacks(ctypes.Structure):
    _fields_ = [("made", _MADE), ("received", _RECEIVED), ("drained", _MADE), ("lost", _LOST)]


class WeirError(Exception):
    """What weir says went wrong."""


def _library(path):
    lib = ctypes.CDLL(path)
    for name, result, *args in (
        ("open", ctypes.c_size_t),
        ("fd", ctypes.c_int, ctypes.c_size_t),
        ("next", ctypes.c_int64, ctypes.c_size_t),
        ("turn", ctypes.c_int, ctypes.c_size_t),
        ("error", ctypes.c_char_p, ctypes.c_size_t),
        ("close", ctypes.c_int, ctypes.c_size_t),
        ("connect", ctypes.c_int64, ctypes.c_size_t, ctypes.c_char_p, ctypes.POINTER(_Callbacks), ctypes.c_size_t),
        ("write", ctypes.c_int, ctypes.c_size_t, ctypes.c_int64, ctypes.c_char_p, ctypes.c_size_t),
        ("buffered", ctypes.c_int64, ctypes.c_size_t, ctypes.c_int64),
        ("pause", ctypes.c_int, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int),
        ("end", None, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int),
    ):
        f = getattr(lib, "weir_" + name)
        f.restype, f.argtypes = result, args
    return lib


class Stream:
    """A connection. After lost, its methods have no effect or raise WeirError."""

    def __init__(self, guest, protocol):
        self._guest, self._protocol, self._number = guest, protocol, 0

    def write(self, data):
        """Send bytes; it never blocks."""
        g = self._guest
        if g._lib.weir_write(g._loop, self._number, bytes(data), len(data)) != 0:
            raise WeirError("the stream is not connected, or was closed")
        g._changed()

    def buffered(self):
        """How many bytes were written and not yet handed to the system."""
        return self._guest._lib.weir_buffered(self._guest._loop, self._number)

    def pause(self, on=True):
        """Stop received, or let it go on."""
        self._guest._lib.weir_pause(self._guest._loop, self._number, on)
        self._guest._changed()

    def close(self):
        """Close after what was written. lost follows."""
        self._guest._lib.weir_end(self._guest._loop, self._number, 0)
        self._guest._changed()

    def abort(self):
        """Close at once. lost follows."""
        self._guest._lib.weir_end(self._guest._loop, self._number, 1)
        self._guest._changed()


class Guest:
    """A weir loop. A subclass says how a host watches a descriptor and waits."""

    def __init__(self, library):
        self._lib = _library(library)
        self._loop = self._lib.weir_open()
        if not self._loop:
            raise WeirError("weir_open failed: standard error says why")
        self._streams = {}
        self._last = 0
        self._turning = False
        # These must live as long as the library may call them.
        self._calls = _Callbacks(
            _MADE(lambda n: self._call(n, "made")),
            _RECEIVED(lambda n, p, size: self._call(n, "received", ctypes.string_at(p, size))),
            _MADE(lambda n: self._call(n, "drained")),
            _LOST(lambda n, why: self._call(n, "lost", None if why is None else why.decode(errors="replace"))),
        )

    def connect(self, endpoint, protocol):
        """Connect to an endpoint with any layers; its protocol is told the rest."""
        s = Stream(self, protocol)
        self._last += 1
        n = self._lib.weir_connect(self._loop, endpoint.encode(), ctypes.byref(self._calls), self._last)
        if n < 0:
            raise WeirError(self._error())
        s._number = n
        self._streams[self._last] = s
        self._changed()
        return s

    def close(self):
        """End the guest, the loop and every stream. Not to be called in a callback of a
        stream."""
        if not self._loop:
            return
        if self._turning:
            raise WeirError("close was called in a callback of a stream: let the host call it later")
        self._forget()
        loop, self._turning = self._loop, True
        self._lib.weir_close(loop)
        self._loop, self._turning = 0, False

    def _error(self):
        text = self._lib.weir_error(self._loop)
        return text.decode(errors="replace") if text else "no reason was given"

    def _call(self, n, name, *args):
        s = self._streams.get(n)
        if s is None:
            return
        if name == "lost":
            del self._streams[n]
        if name == "made":
            args = (s,)
        f = getattr(s._protocol, name, None)
        if f is None:
            return
        try:
            f(*args)
        except Exception:  # it must not pass through Go
            self.failed(sys.exc_info()[1])
            s.abort()

    def failed(self, exception):
        """Called with what a protocol raises; its stream is aborted then."""
        traceback.print_exception(exception)

    def _turn(self):
        if not self._loop:
            return
        self._turning = True
        ok = self._lib.weir_turn(self._loop) == 0
        self._turning = False
        if not ok:
            self._forget()
            raise WeirError(self._error())
        self._changed()

    def _changed(self):
        # A turn ends with the same question.
        if self._loop and not self._turning:
            self._wait(self._lib.weir_next(self._loop))


class Asyncio(Guest):
    """A weir loop as a guest of an asyncio event loop that has add_reader."""

    def __init__(self, library, host=None):
        import asyncio

        super().__init__(library)
        self._host = host or asyncio.get_running_loop()
        self._timer = None
        self._fd = self._lib.weir_fd(self._loop)
        self._host.add_reader(self._fd, self._turn)

    def _wait(self, us):
        if self._timer is not None:
            when = self._host.time() + us / 1e6
            if us >= 0 and not self._timer.cancelled() and abs(self._timer.when() - when) < 5e-5:
                return
            self._timer.cancel()
            self._timer = None
        if us >= 0:
            self._timer = self._host.call_later(us / 1e6, self._due)

    def _due(self):
        self._timer = None
        self._turn()

    def _forget(self):
        self._host.remove_reader(self._fd)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def failed(self, exception):
        self._host.call_exception_handler({"message": "a protocol of weir failed", "exception": exception})


class Tk(Guest):
    """A weir loop as a guest of Tk's event loop, on systems with createfilehandler (Unix)."""

    def __init__(self, library, root):
        import tkinter

        super().__init__(library)
        self._root = root
        self._timer = None
        self._drawn = 0.0
        self._fd = self._lib.weir_fd(self._loop)
        root.tk.createfilehandler(self._fd, tkinter.READABLE, lambda fd, mask: self._readable())

    def _wait(self, us):
        if self._timer is not None:
            self._root.after_cancel(self._timer)
            self._timer = None
        if us >= 0:
            self._timer = self._root.after((us + 999) // 1000, self._due)

    def _due(self):
        self._timer = None
        self._readable()

    def _readable(self):
        self._turn()
        # Tk redraws only when no descriptor is readable and no timer due: a stream that
        # always has bytes would keep every window from being redrawn.
        now = time.monotonic()
        if self._loop and now - self._drawn >= 1 / 60:
            self._drawn = now
            self._root.update_idletasks()

    def _forget(self):
        self._root.tk.deletefilehandler(self._fd)
        if self._timer is not None:
            self._root.after_cancel(self._timer)
            self._timer = None
