"""What the Python examples share: a download over HTTP, the host's ticks, flags."""

import argparse
import time
import zlib


class Fetch:
    def __init__(self, url, progress, done):
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        if scheme != "http" or not host:
            raise ValueError(f"{url} is not http://host:port/path")
        self.endpoint = "tcp:" + host
        self.request = f"GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        self.head, self.got, self.total, self.sum = b"", 0, -1, 0
        self.progress, self.done = progress, done

    def made(self, stream):
        stream.write(self.request)

    def received(self, data):
        if self.head is not None:
            self.head += data
            head, blank, data = self.head.partition(b"\r\n\r\n")
            if not blank:
                if len(self.head) > 65536:
                    raise ValueError("the reply's head is longer than 65536 bytes")
                return
            if head.split()[1:2] != [b"200"]:
                raise ValueError(f"the server replied {head.splitlines()[0][:80]}")
            for line in head.splitlines()[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    self.total = int(value)
            self.head = None
        self.got += len(data)
        self.sum = zlib.crc32(data, self.sum)
        self.progress(self)

    def lost(self, reason):
        if reason is None and self.got < self.total:
            reason = f"it ended after {self.got} bytes of {self.total}"
        self.done(self, reason)


class Ticks:
    def __init__(self):
        self.last, self.gaps = 0, []

    def tick(self):
        now = time.monotonic_ns()
        if self.last and len(self.gaps) < 65536:
            self.gaps.append(now - self.last)
        self.last = now

    def report(self, word):
        g = sorted(self.gaps)
        self.last, self.gaps = 0, []
        if not g:
            print(word, "ticks=0", flush=True)
            return
        at = lambda part: g[int(part * (len(g) - 1))] / 1e6
        print(f"{word} ticks={len(g)} p50={at(0.5):.2f}ms p99={at(0.99):.2f}ms max={at(1):.2f}ms", flush=True)


def seconds(s):
    return float(s[:-2]) / 1000 if s.endswith("ms") else float(s.removesuffix("s"))


def flags():
    p = argparse.ArgumentParser()
    p.add_argument("-library", default="./libweir.so")
    p.add_argument("-url", required=True)
    p.add_argument("-alone", type=seconds, default=0.0)
    p.add_argument("-idle", type=seconds, default=0.0)
    return p.parse_args()


def report(f, began, ticks, more=""):
    print(f"downloaded bytes={f.got} sum={f.sum:08x} ms={int((time.monotonic() - began) * 1000)}{more}", flush=True)
    ticks.report("busy")
