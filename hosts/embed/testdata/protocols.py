"""How streams end in Python, and what a protocol's exception does."""

import asyncio
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "python"))
import weir


class Echoed:
    def __init__(self, raises=""):
        self.lost_with, self.got, self.raises = asyncio.get_running_loop().create_future(), b"", raises

    def made(self, stream):
        self.stream = stream
        stream.write(b"hello")
        if self.raises == "made":
            raise ValueError("made")

    def received(self, data):
        self.got += data
        if self.raises == "received":
            raise ValueError("received")
        if self.raises == "close":
            try:
                guest.close()
            except weir.WeirError:
                self.raises = "refused"
        if self.got == b"hello":
            self.stream.close()

    def lost(self, reason):
        self.lost_with.set_result(reason)


async def main():
    global guest
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, c: failures.append(str(c["exception"])))
    guest = weir.Asyncio(sys.argv[1])
    p = Echoed()
    guest.connect(sys.argv[2], p)
    assert await p.lost_with is None and p.got == b"hello"
    for where in "made", "received":
        p = Echoed(where)
        guest.connect(sys.argv[2], p)
        assert await p.lost_with is not None
    assert failures == ["made", "received"], failures
    p = Echoed("close")
    guest.connect(sys.argv[2], p)
    assert await p.lost_with is None and p.raises == "refused"
    p = Echoed()
    guest.connect("tcp:127.0.0.1:1", p)
    assert "refused" in await p.lost_with
    try:
        guest.connect("tcp-listen:1", p)
        raise AssertionError("connected to a listener")
    except weir.WeirError:
        pass
    p = Echoed()
    guest.connect(sys.argv[2], p)
    guest.close()
    guest.close()
    assert p.lost_with.done() and p.lost_with.result() is not None


asyncio.run(main())
print("kept")
