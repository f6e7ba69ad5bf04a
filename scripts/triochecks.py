"""Runs trio's checks of streams with pairs of streams whose bytes pass through
one weir or more; scripts/triochecks.sh starts it and chooses the arguments.

A combination is a left end, a right end, the layers on them, and the wires between
neighboring weirs with theirs. Left and right are trio's own streams, so that what a
check finds wrong is weir's. check_half_closeable_stream is run where both ends can
end one direction alone. check_two_way_stream, which the former contains, is right
where one of them cannot: trio's SSLStream, and a WebSocket that is not weir's. After
a check no weir may keep a connection, and those that serve one pair have to end.

Left out: udp is not a stream, replay takes nothing, and a terminal cannot end.
"""

import argparse
import base64
import hashlib
import json
import multiprocessing
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import traceback

import trio
import trio.testing

LIMIT = 180  # seconds, for one check of one combination: zstd takes 60 to fill on a busy machine
PATIENCE = 60  # seconds, until a weir is ready, or has ended: a closing connection may linger for 30

NOISE = random.Random(1).randbytes(1 << 16)  # fills buffers; zstd must not make it small
STDIO = ("stdio-pipes", "stdio-socketpair", "stdio-tcp")
PIPES = ("stdio-pipes", "fd-pipes", "pipe")
GIVEN = STDIO + ("fd-pipes", "fd-socketpair", "fd-tcp", "pipe")  # a weir with one of these serves one pair


class Combination:
    """What stands between two streams.

    name    what it is called
    left    the kind of the end that the first weir listens on or is given
    right   the kind of the end that the last weir connects to or is given
    on      the layers of the left end
    off     the layers of the right end
    wires   for each two neighbors: the client's layers, the server's, and the kind

    half    both ends can end one direction alone
    holds   an end is told late that the other has died: a pipe, which is told by its
            end alone, and what stands before a layer that has bytes on the way. It
            hears of it after those, or when it has taken nothing for 15 s. The checks
            with full buffers take nothing, and would wait for that too many times

    In layers {dir} is a directory for files, and {target} the right end, which the
    last weir is then asked for as a proxy.
    """

    def __init__(self, name, left="tcp", right="tcp", on="", off="", wires=(), half=True, holds=False):
        self.name, self.left, self.right = name, left, right
        self.on, self.off, self.wires, self.half = on, off, wires, half
        self.holds = holds or left in PIPES or right in PIPES


def combinations(certs):
    """All there are. certs is a directory with ca, server and client (PEM), and a password."""
    serve = f"+tls,cert={certs}/server.pem,key={certs}/server.key"
    ask = f"+tls,ca={certs}/ca.pem,name=localhost"
    serve_known = f"{serve},client-ca={certs}/ca.pem,allow-cn=client"
    ask_known = f"{ask},cert={certs}/client.pem,key={certs}/client.key"
    made = []

    def add(name, left="tcp", right="tcp", **kwargs):
        made.append(Combination(name, left, right, **kwargs))

    def wire(name, out, into, kind="tcp", left="tcp", right="tcp", **kwargs):
        add(name, left, right, wires=((out, into, kind),), **kwargs)

    # Every kind, on the left and on the right.
    add("tcp")
    add("unix", "unix", "unix")
    add("abstract", "abstract", "abstract")
    add("tcp-unix", "tcp", "unix")
    add("meet", "tcp", "unix-listen")  # both listen: a pair is one of each
    for kind in GIVEN:
        add(kind, kind)
        add("to-" + kind, "tcp", kind)
    add("stdio-to-fd", "stdio-pipes", "fd-socketpair")
    add("pipe-to-fd", "pipe", "fd-pipes")
    add("fd-listener", "fd-listener")  # as a service manager passes one: by number,
    add("named-listener", "named-listener", "unix")  # and by name

    # Layers that need nothing on the other side, on either end of one weir. Those
    # that break things are set to begin after more bytes than there are.
    for name, layer in (
        ("ratelimit", "+ratelimit:100m"),
        ("ratelimit-shared", "+ratelimit:100m,shared,burst=64k"),
        ("idle", "+idle:2m,stall=2m"),
        ("log", "+log,format=count,to={dir}/log"),
        ("record", "+record:{dir}/recording"),
        ("latency", "+latency:2ms,jitter=1ms"),
        ("bandwidth", "+bandwidth:500m"),
        ("slice", "+slice:8000"),
        ("reset", "+reset,after=1g"),
        ("blackhole", "+blackhole,after=1g"),
    ):
        holds = name in ("latency", "bandwidth", "slice")
        add(name, on=layer, holds=holds)
        add("to-" + name, off=layer, holds=holds)
    add("limit", on="+limit:100,per-address=50")

    # Layers that one weir puts on and another takes off. Between two weirs TLS is
    # 1.3: 1.2 is below, with trio's own.
    wire("tls", ask, serve)
    wire("tls-clientcert", ask_known, serve_known)
    wire("tls-no-workers", ask, serve + ",workers=0")
    wire("tls-unix", ask, serve, "unix")
    wire("ws", "+ws", "+ws")
    wire("ws-compress", "+ws,compress", "+ws,compress")
    wire("ws-ping", "+ws,ping=5s", "+ws,ping=5s")
    wire("ws-unix", "+ws,host=localhost", "+ws", "unix")
    wire("wss", ask + "+ws", serve + "+ws")
    wire("wss-compress", ask + "+ws,compress", serve + "+ws,compress")
    wire("zstd", "+zstd", "+zstd")
    wire("zstd-9", "+zstd,level=9", "+zstd,level=9")
    wire("proxy-v1", "+proxy-out:v1", "+proxy-in")
    wire("proxy-v2", "+proxy-out:v2", "+proxy-in")

    # Proxies: the first weir asks the last for the right end.
    for name in ("socks5", "socks4", "socks4a", "connect"):
        wire(name, f"+{name}:{{target}}", f"+{name}")
        wire(name + "-tls", f"{ask}+{name}:{{target}}", f"{serve}+{name}")
    for name in ("socks5", "connect"):
        secret = f",user=me,password=file:{certs}/password"
        wire(name + "-password", f"+{name}:{{target}}{secret}", f"+{name}{secret}")
    wire("connect-ws", "+ws+connect:{target}", "+ws+connect")
    wire("stdio-connect", "+connect:{target}", "+connect", left="stdio-pipes")

    # Stacks, and layers over endpoints that are not connections.
    wire("tls-zstd", ask + "+zstd", serve + "+zstd")
    wire("ws-zstd", "+ws+zstd", "+ws+zstd")
    wire("wss-zstd", ask + "+ws+zstd", serve + "+ws+zstd")
    wire("tls-tls", ask + ask, serve + serve)
    wire("proxy-tls-ws", "+proxy-out" + ask + "+ws", "+proxy-in" + serve + "+ws")
    wire("idle-tls-ratelimit", "+idle:2m" + ask + "+ratelimit:100m", "+idle:2m" + serve + "+ratelimit:100m")
    wire("latency-tls-slice", "+latency:2ms" + ask + "+slice:1000", serve, holds=True)
    wire("slice-ws", "+slice:100+ws", "+slice:100+ws", holds=True)
    wire("log-zstd", "+log,format=count,to={dir}/log+zstd", "+limit:100+zstd")
    wire("stdio-tls", ask, serve, left="stdio-pipes")
    wire("stdio-ws", "+ws", "+ws", left="stdio-pipes")
    wire("stdio-zstd", "+zstd", "+zstd", left="stdio-socketpair")
    wire("to-stdio-tls", ask, serve, right="stdio-pipes")
    wire("fd-wss-unix", ask + "+ws", serve + "+ws", left="fd-pipes", right="unix")
    ask_role, serve_role = ask.replace("tls", "tls-client", 1), serve.replace("tls", "tls-server", 1)
    wire("tls-over-pipes", ask_role, serve_role, "pipes", holds=True)
    wire("ws-over-pipes", "+ws-client", "+ws-server", "pipes", holds=True)
    wire("zstd-over-pipes", "+zstd", "+zstd", "pipes", holds=True)
    wire("tls-over-socketpair", ask_role, serve_role, "socketpair")
    add("tls-then-ws", wires=((ask, serve, "tcp"), ("+ws,host=localhost", "+ws", "unix")))

    # Ends that are not weir's. eof-wait: by default weir tells a server other than
    # weir that the input has ended only after some seconds of silence, since some
    # hang up when told; a check would have to wait for that each time.
    eof = ",eof-wait=100ms"
    for version in ("1.2", "1.3"):
        end = "tls-" + version
        add("trio-" + end, end, on=serve, half=False)
        add("to-trio-" + end, right=end, off=ask + eof, half=False)
        add(f"trio-{end}-both", end, end, on=serve, off=ask + eof, half=False)
        add(f"stdio-to-trio-{end}", "stdio-pipes", end, off=ask + eof, half=False)
    add("trio-tls-clientcert", "tls-1.3", on=serve_known, half=False)
    add("to-trio-tls-clientcert", right="tls-1.3", off=ask_known + eof, half=False)
    add("foreign-ws", "ws", on="+ws" + eof, half=False)
    add("to-foreign-ws", right="ws", off="+ws" + eof, half=False)
    add("foreign-ws-both", "ws", "ws", on="+ws" + eof, off="+ws" + eof, half=False)
    return made


# Streams.


def raw(stream):
    """The descriptor that a stream of trio's sends to."""
    if isinstance(stream, Pipes):
        return stream.to.fileno()
    return stream.socket.fileno()


class Under(trio.abc.Stream):
    """A socket below TLS or a WebSocket that can be filled to the last byte: while
    filling is set nothing waits, and what does not fit is kept for later.
    """

    def __init__(self, stream):
        self.stream, self.filling, self.later = stream, False, b""

    async def send_all(self, data):
        self.later += data
        if self.filling:
            await trio.lowlevel.checkpoint()
            return
        data, self.later = self.later, b""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        return await self.stream.receive_some(max_bytes)

    async def aclose(self):
        await self.stream.aclose()


class Alone:
    """Lets in one task at a time."""

    def __init__(self):
        self.taken = False

    def __enter__(self):
        if self.taken:
            raise trio.BusyResourceError("another task does that")
        self.taken = True

    def __exit__(self, *args):
        self.taken = False


class WebSocket(trio.abc.Stream):
    """The bytes of a WebSocket's messages, as plainly as RFC 6455 allows."""

    KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
    GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

    def __init__(self, transport_stream, client):
        self.transport_stream, self.client = transport_stream, client
        self.sends, self.receives = Alone(), Alone()
        self.closed = self.ended = False
        self.came, self.bytes = b"", b""

    async def do_handshake(self):
        if self.client:
            await self.transport_stream.send_all(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + self.KEY + b"\r\n\r\n"
            )
        while b"\r\n\r\n" not in self.came:
            await self.more()
        head, _, self.came = self.came.partition(b"\r\n\r\n")
        if self.client:
            if b" 101 " not in head.partition(b"\r\n")[0]:
                raise trio.BrokenResourceError(f"refused: {head}")
            return
        key = next(l.split(b":", 1)[1].strip() for l in head.split(b"\r\n") if l.lower().startswith(b"sec-websocket-key:"))
        await self.transport_stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(hashlib.sha1(key + self.GUID).digest()) + b"\r\n\r\n"
        )

    async def more(self):
        data = await self.transport_stream.receive_some()
        if not data:
            raise trio.BrokenResourceError("the connection ended without a Close frame")
        self.came += data

    async def frame(self):
        """Takes a frame off what has come: its opcode and its payload."""
        while True:
            have = self.came
            if len(have) >= 2:
                n, at = have[1] & 127, 2
                if n >= 126:
                    size = 2 if n == 126 else 8
                    n, at = int.from_bytes(have[2 : 2 + size], "big"), 2 + size
                mask, at = (have[at : at + 4], at + 4) if have[1] & 128 else (bytes(4), at)
                if len(have) >= at + n and len(mask) == 4:
                    self.came = have[at + n :]
                    return have[0] & 15, masked(have[at : at + n], mask)
            await self.more()

    def made(self, opcode, data):
        n, bit = len(data), 128 if self.client else 0
        if n < 126:
            head = struct.pack(">BB", 128 | opcode, bit | n)
        elif n < 1 << 16:
            head = struct.pack(">BBH", 128 | opcode, bit | 126, n)
        else:
            head = struct.pack(">BBQ", 128 | opcode, bit | 127, n)
        mask = b"\x11\x22\x33\x44"
        return head + (mask + masked(bytes(data), mask) if self.client else bytes(data))

    async def send_all(self, data):
        with self.sends:
            if self.closed:
                raise trio.ClosedResourceError
            await self.transport_stream.send_all(self.made(2, data) if data else b"")

    async def wait_send_all_might_not_block(self):
        with self.sends:
            await self.transport_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        if max_bytes is not None and not isinstance(max_bytes, int):
            raise TypeError("max_bytes must be an integer")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self.receives:
            await trio.lowlevel.checkpoint()
            if self.closed:
                raise trio.ClosedResourceError
            while not self.bytes and not self.ended:
                opcode, data = await self.frame()
                if opcode in (0, 1, 2):
                    self.bytes += data
                elif opcode == 8:
                    self.ended = True
                elif opcode == 9:
                    await self.transport_stream.send_all(self.made(10, data))
            n = len(self.bytes) if max_bytes is None else max_bytes
            data, self.bytes = self.bytes[:n], self.bytes[n:]
            return data

    async def aclose(self):
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        self.closed = True
        try:
            if not self.sends.taken:  # otherwise a frame has been begun
                await self.transport_stream.send_all(self.made(8, struct.pack(">H", 1000)))
        except trio.BrokenResourceError:
            pass
        finally:
            await self.transport_stream.aclose()


def masked(data, mask):
    n = len(data)
    key = (mask * (n // 4 + 1))[:n]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(n, "big")


def socket_stream(s):
    return trio.SocketStream(trio.socket.from_stdlib_socket(s))


class Pipes(trio.abc.HalfCloseableStream):
    """Two pipes. trio's StapledStream would not see that send_eof stands in the way of
    a send_all that waits.
    """

    def __init__(self, write, read):
        self.to, self.back = trio.lowlevel.FdStream(write), trio.lowlevel.FdStream(read)
        self.sends = Alone()

    async def send_all(self, data):
        with self.sends:
            await self.to.send_all(data)

    async def wait_send_all_might_not_block(self):
        with self.sends:
            await self.to.wait_send_all_might_not_block()

    async def send_eof(self):
        with self.sends:
            await self.to.aclose()

    async def receive_some(self, max_bytes=None):
        return await self.back.receive_some(max_bytes)

    async def aclose(self):
        try:
            await self.to.aclose()
        finally:
            await self.back.aclose()


# Weirs.


class Weir:
    """A process, and what it says."""

    def __init__(self, chain, words, stdin=None, stdout=None, fds=(), names=None):
        self.log = f"{chain.dir}/weir{next(chain.numbers)}.log"
        self.words = words
        args = [chain.weir, "--log", "json", *words]
        env = dict(os.environ, WEIR_BACKEND=chain.backend)
        if names:  # the descriptors are 3 and so on, and the process is the one that is meant
            args = ["bash", "-c", 'exec 3<&"$0"; LISTEN_PID=$$ exec "$@"', str(fds[0]), *args]
            env.update(LISTEN_FDS="1", LISTEN_FDNAMES=names)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                args,
                env=env,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=log,
                pass_fds=fds,
            )
        self.base = 0

    def lines(self):
        with open(self.log, "rb") as log:
            return log.read().decode(errors="replace").splitlines()

    async def ready(self):
        """Waits until it listens, and returns where."""
        end = trio.current_time() + PATIENCE
        while trio.current_time() < end:
            for line in self.lines():
                if '"listening":' in line and line.endswith("}"):
                    self.base = self.sockets()
                    return json.loads(line)["listening"]
            if self.process.poll() is not None:
                break
            await trio.sleep(0.005)
        raise Failure(f"weir {' '.join(self.words)} is not ready: {self.said()}")

    def said(self):
        """What it said last, on one line."""
        lines = [l for l in self.lines() if '"level":"INFO"' not in l] or self.lines()
        return lines[-1] if lines else "nothing"

    def given(self):
        """Whether it has an end that it was given, and so ends with its one connection."""
        return any(word.startswith(("-", "stdio", "fd:", "pipe:")) for word in self.words)

    def sockets(self):
        n = 0
        for fd in os.listdir(f"/proc/{self.process.pid}/fd"):
            try:
                n += os.readlink(f"/proc/{self.process.pid}/fd/{fd}").startswith("socket:")
            except FileNotFoundError:
                pass
        return n

    def rests(self):
        """Whether none of its threads runs, wants to, or waits for a disk."""
        try:
            for task in os.listdir(f"/proc/{self.process.pid}/task"):
                with open(f"/proc/{self.process.pid}/task/{task}/stat") as stat:
                    if stat.read().rpartition(")")[2].split()[0] in "RD":
                        return False
        except (FileNotFoundError, ProcessLookupError):
            pass
        return True


class Failure(Exception):
    pass


class Chain:
    """The weirs of a combination, and the pairs they connect."""

    def __init__(self, combination, backend, weir, certs, directory):
        self.c, self.backend, self.weir, self.certs, self.dir = combination, backend, weir, certs, directory
        self.numbers = iter(range(1 << 30))
        self.lasting, self.once = [], []  # weirs that serve all pairs, and one each
        self.listener = None  # the right end's
        self.left_at = None  # where a lasting first weir listens
        self.upstream = None  # where the second weir listens, if the first one is not lasting
        self.target = ""  # the right end's address, where the last weir is a proxy
        self.word = ""  # and the word that connects to it
        self.right_at = None  # where the last weir listens for the right end
        # TCP keeps bytes too few for a segment until it probes the shut window, after
        # 200 ms: only if nothing moves for that long, at 10 ms each, is everything full.
        unix = ("unix", "abstract", "unix-listen", "stdio-pipes", "stdio-socketpair", "fd-pipes", "fd-socketpair", "pipe")
        kinds = [combination.left, combination.right] + [kind for _, _, kind in combination.wires]
        self.quiet = 10 if all(kind in unix + ("pipes", "socketpair") for kind in kinds) else 30

    def fill(self, layers, target=""):
        return layers.format(dir=self.dir, target=target)

    def path(self, what):
        return f"{self.dir}/{what}{next(self.numbers)}"

    # The ends.

    def listen(self, kind):
        """Listens as kind says, and returns the socket and the word to reach it."""
        if kind in ("unix", "abstract"):
            s = socket.socket(socket.AF_UNIX)
            path = self.path("right")
            s.bind("\0" + path if kind == "abstract" else path)
            word = f"unix:@{path}" if kind == "abstract" else path
        else:
            s = socket.socket()
            s.bind(("127.0.0.1", 0))
            word = f"127.0.0.1:{s.getsockname()[1]}"
        s.listen(64)
        return s, word

    async def connect(self, at):
        """Connects to where a weir says that it listens."""
        if at.startswith("unix-listen:"):
            at = at[len("unix-listen:") :]
            s = trio.socket.socket(socket.AF_UNIX)
            await s.connect("\0" + at[1:] if at[0] == "@" else at)
        else:
            s = trio.socket.socket()
            await s.connect(("127.0.0.1", int(at.rpartition(":")[2])))
        return trio.SocketStream(s)

    def given(self, kind):
        """A pair of which weir gets one half: weir's word, descriptors and names of
        Popen's, and a function that makes the stream of the other half.
        """
        if kind == "pipe":
            names = self.path("in"), self.path("out")
            for name in names:
                os.mkfifo(name)

            async def opened():
                # Opening waits for weir, so that the order matters as little as possible.
                write = await trio.to_thread.run_sync(os.open, names[0], os.O_WRONLY)
                return Pipes(write, await trio.to_thread.run_sync(os.open, names[1], os.O_RDONLY))

            return f"pipe:{names[0]},out={names[1]}", (), opened
        if kind.endswith("pipes"):
            read, write = os.pipe()
            back, out = os.pipe()
            fds, make = (read, out), lambda: Pipes(write, back)
        else:
            if kind.endswith("socketpair"):
                ours, theirs = socket.socketpair()
            else:
                with socket.create_server(("127.0.0.1", 0)) as l:
                    ours = socket.create_connection(l.getsockname())
                    theirs = l.accept()[0]
            fd = theirs.detach()
            fds, make = (fd, fd), lambda: socket_stream(ours)

        async def opened():
            return make()

        if kind in STDIO:
            return "-", fds, opened
        return f"fd:{fds[0]}" + (f",out={fds[1]}" if fds[1] != fds[0] else ""), fds, opened

    def dress(self, stream, kind, left):
        """Puts TLS or a WebSocket of ours on a stream, if kind is that."""
        if kind.startswith("tls-"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if left else ssl.PROTOCOL_TLS_SERVER)
            context.load_verify_locations(f"{self.certs}/ca.pem")
            who = "client" if left else "server"
            context.load_cert_chain(f"{self.certs}/{who}.pem", f"{self.certs}/{who}.key")
            version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[kind[4:]]
            context.minimum_version = context.maximum_version = version
            if not left and "cert=" in self.c.off:
                context.verify_mode = ssl.CERT_REQUIRED
            return trio.SSLStream(Under(stream), context, server_hostname="localhost" if left else None, server_side=not left)
        if kind == "ws":
            return WebSocket(Under(stream), client=left)
        return stream

    # Starting.

    def start(self, words, once, stdio=None, fds=(), names=None):
        stdin, stdout = stdio or (None, None)
        w = Weir(self, words, stdin, stdout, fds, names)
        (self.once if once else self.lasting).append(w)
        return w

    async def chain(self, once, first=0, to=None):
        """Starts the weirs from number first on, from the last one back; to is where
        the one after them listens, if it has been started. It returns where the
        first one listens, and the functions that make the streams of given ends.
        """
        c, streams, close = self.c, {}, []
        last = len(c.wires)
        between = None  # for wires of pipes: the descriptors of the weir before
        for i in range(last if to is None else first, first - 1, -1):
            stdio, fds, names = None, [], None
            # The right word.
            if i == last:
                right = await self.right(streams, close)
                if right[1] and right[0] == "-":
                    stdio = right[1]
                fds += set(right[1]) if not stdio else ()
                b = right[0] + self.fill(c.off)
            else:
                out = self.fill(c.wires[i][0], self.target)
                if between:
                    b = f"fd:{between[0]},out={between[1]}" if between[0] != between[1] else f"fd:{between[0]}"
                    fds += set(between)
                else:
                    b = to
                b += out
            # The left word.
            if i > 0:
                layers, kind = self.fill(c.wires[i - 1][1]), c.wires[i - 1][2]
                between = None
                if kind in ("pipes", "socketpair"):
                    if kind == "pipes":
                        r1, w1 = os.pipe()
                        r2, w2 = os.pipe()
                        mine, between = (r1, w2), (r2, w1)
                    else:
                        x, y = socket.socketpair()
                        mine, between = (x.fileno(),) * 2, (y.fileno(),) * 2
                        x.detach(), y.detach()
                    a, stdio = "stdio", mine
                    close += set(mine + between)
                else:
                    a = f"unix-listen:{self.path('wire')}" if kind == "unix" else "tcp-listen:127.0.0.1:0"
                a += layers
            else:
                kind, layers = c.left, self.fill(c.on)
                if kind in GIVEN:
                    a, given, streams["left"] = self.given(kind)
                    close += set(given)
                    if a == "-":
                        stdio = given
                    else:
                        fds += set(given)
                elif kind == "unix":
                    a = f"unix-listen:{self.path('left')}"
                elif kind == "abstract":
                    a = f"unix-listen:@{self.path('left')}"
                elif kind in ("fd-listener", "named-listener"):
                    s, self.left_at = self.listen("tcp")
                    close.append(s.detach())
                    fds.append(close[-1])
                    names = "front" if kind == "named-listener" else None
                    a = "fd:front" if names else f"fd:{close[-1]}"
                else:
                    a = "tcp-listen:127.0.0.1:0"
                a += layers
            w = self.start([a, b], once, stdio, tuple(fds), names)
            for fd in set(close) & (set(fds) | set(stdio or ())):
                os.close(fd)
                close.remove(fd)
            at = None
            if a.startswith(("tcp-listen", "unix-listen", "fd:front")) or c.left == "fd-listener" and i == 0:
                listening = await w.ready()
                at = listening[0]
                if b.startswith("unix-listen"):
                    self.right_at = listening[1]
            if i == 0:
                return self.left_at or at, streams
            to = at and at.removeprefix("unix-listen:").partition("+")[0]
        return to, streams

    async def right(self, streams, close):
        """The last weir's right word, and descriptors for it."""
        kind = self.c.right
        if kind in GIVEN:
            word, fds, streams["right"] = self.given(kind)
            close += set(fds)
            return word, fds
        if kind == "unix-listen":
            return f"unix-listen:{self.path('right')}", ()
        return ("dial" if self.target else self.word), ()

    async def begin(self):
        """Starts the weirs that serve all pairs."""
        c = self.c
        if c.right not in GIVEN and c.right != "unix-listen":
            self.listener, self.word = self.listen(c.right)
            self.accepting = trio.socket.from_stdlib_socket(self.listener)
            if any("{target}" in out for out, _, _ in c.wires):
                self.target = self.word
        if c.right in GIVEN or c.right == "unix-listen" or any(kind in ("pipes", "socketpair") for _, _, kind in c.wires):
            return
        if c.left not in GIVEN:
            self.left_at, _ = await self.chain(once=False)
        elif c.wires:
            self.upstream, _ = await self.chain(once=False, first=1)

    async def pair(self):
        """A connected pair of streams."""
        c, streams, at = self.c, {}, self.left_at
        if at is None:
            at, streams = await self.chain(once=True, to=self.upstream)
        ends = {}

        async def left():
            stream = await streams["left"]() if "left" in streams else await self.connect(at)
            ends["left"] = self.dress(stream, c.left, True)
            if ends["left"] is not stream:
                await ends["left"].do_handshake()

        async def right():
            if "right" in streams:
                stream = await streams["right"]()
            elif c.right == "unix-listen":
                stream = await self.connect(self.right_at)
            else:
                stream = trio.SocketStream((await self.accepting.accept())[0])
            ends["right"] = self.dress(stream, c.right, False)
            if ends["right"] is not stream:
                await ends["right"].do_handshake()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(left)
            nursery.start_soon(right)
        return ends["left"], ends["right"]

    async def clogged(self):
        """A pair with nothing more to be sent on either side until something is read."""
        pair = await self.pair()
        for stream in pair:
            if isinstance(stream, (trio.SSLStream, WebSocket)):
                stream.transport_stream.filling = True
        quiet = 0
        while quiet < self.quiet:
            moved = [await self.pushed(stream) for stream in pair]
            # A weir that runs, or wants to, may yet make room.
            rest = all(w.rests() for w in self.lasting + self.once if w.process.poll() is None)
            quiet = quiet + 1 if rest and not any(moved) else 0
            await trio.sleep(0.01)
        for stream in pair:
            if isinstance(stream, Pipes):  # the last page may have room
                while push(raw(stream), b"x"):
                    pass
        for stream in pair:
            if isinstance(stream, (trio.SSLStream, WebSocket)):
                stream.transport_stream.filling = False
        return pair

    async def pushed(self, stream):
        """Sends what fits, and says whether anything did."""
        moved = False
        if not isinstance(stream, (trio.SSLStream, WebSocket)):
            while push(raw(stream), NOISE):
                moved = True
            return moved
        under = stream.transport_stream
        while True:
            if not under.later:
                await stream.send_all(NOISE[:16000])
            n = push(raw(under.stream), under.later)
            under.later = under.later[n:]
            moved = moved or n > 0
            if under.later:
                return moved

    async def gone(self):
        """Waits until no weir has a connection left, and those of one pair have ended."""
        end = trio.current_time() + PATIENCE
        while True:
            left = [w for w in self.once if w.process.poll() is None and w.given()]
            left += [w for w in self.lasting + self.once if w.process.poll() is None and not w.given() and w.sockets() > w.base]
            if not left:
                return
            if trio.current_time() > end:
                raise Failure(f"weir {' '.join(left[0].words)} still has a connection of a pair that was closed")
            await trio.sleep(0.02)

    def end(self):
        for w in self.lasting + self.once:
            if w.process.poll() is None:
                w.process.kill()
            w.process.wait()
        if self.listener:
            self.listener.close()


def push(fd, data):
    """Writes what fits, and returns how much did."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0


async def check(chain):
    await chain.begin()
    how = trio.testing.check_half_closeable_stream if chain.c.half else trio.testing.check_two_way_stream
    with trio.fail_after(LIMIT):
        await how(chain.pair, None if chain.c.holds else chain.clogged)
    await chain.gone()


def where(error):
    """The innermost line of the checks that an exception came from, and the exception."""
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]
    at = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.endswith("_check_streams.py"):
            at = f" in {frame.name}, line {frame.lineno}: {frame.line}:"
    return f"{type(error).__name__}{at} {error}"


def run(job):
    """One check in a process of its own. It returns what went wrong, or nothing."""
    combination, backend, weir, certs, directory, verbose = job
    start = time.monotonic()
    for patience in (1, 4):
        own = tempfile.mkdtemp(prefix=f"{backend}.{combination.name}.", dir=directory)
        chain = Chain(combination, backend, weir, certs, own)
        chain.quiet *= patience
        wrong, again = "", False
        try:
            trio.run(check, chain)
        except BaseException as error:
            wrong = where(error)
            # These are trio's own, whatever weir does, if the buffers were full: on a
            # busy machine they may not have been, after so short a look.
            again = "BusyResourceError" in wrong or "ClosedResourceError" in wrong
            if verbose:
                traceback.print_exc()
                for w in chain.lasting + chain.once[-3:]:
                    print(w.words, *w.lines()[-20:], sep="\n  ")
            elif said := [w.said() for w in chain.lasting if '"level":"INFO"' not in w.said()]:
                wrong += "; weir: " + said[-1]
        finally:
            chain.end()
        if not again:
            break
    return job, time.monotonic() - start, wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("weir")
    parser.add_argument("certs")
    parser.add_argument("directory")
    parser.add_argument("--backends", required=True)
    parser.add_argument("--shard", help="K/N: every Nth combination, beginning with the Kth, each on one backend")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-v", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_intermixed_args()

    every = combinations(args.certs)
    if args.list:
        print(*(c.name for c in every))
        return 0
    names = {c.name: c for c in every}
    assert len(names) == len(every), "two combinations have one name"
    for name in args.names:
        if name not in names:
            print(f"there is no {name}; there are", *names)
            return 2
    chosen = [names[name] for name in args.names] or every
    backends = args.backends.split()
    jobs = []
    day, of = map(int, args.shard.split("/")) if args.shard else (0, 0)
    for i, c in enumerate(chosen):
        if of and (i - day) % of:
            continue
        # Another backend for the next one, and for the same one next time.
        on = [backends[(i // of + day // of) % len(backends)]] if of else backends
        jobs += [(c, backend, args.weir, args.certs, args.directory, args.v) for backend in on]
    failed, slow = 0, []
    for pass_jobs, at_once in ((jobs, args.jobs), (slow, 1)):
        with multiprocessing.Pool(at_once, maxtasksperchild=1) as pool:
            for job, took, wrong in pool.imap_unordered(run, pass_jobs):
                if wrong.startswith("TooSlowError") and pass_jobs is jobs:
                    slow.append(job)  # once more, with no other check running
                    continue
                print(f"{'FAILED' if wrong else 'ok'}: {job[1]} {job[0].name}: {wrong or f'{took:.1f} s'}", flush=True)
                failed += bool(wrong)
    print(f"{len(jobs)} checks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
