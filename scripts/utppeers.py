"""Two libtorrent sessions that speak uTP only: utppeers.py MIB PORT [TCP-PORT].

The one with the file listens on 127.0.0.1:16881. The other one connects to
127.0.0.1:PORT, where a relay leads there. The exit code is 0 when the file has
arrived whole (libtorrent checks its hashes), and 1 if it has not after 90 s. With
TCP-PORT, from where a relay leads to PORT, 100 more peers connect to it before and
stay; each must get the answer to its handshake. The CPU time that the sessions took
while the file was sent is printed too.
"""
import os
import socket
import sys
import tempfile
import time

import libtorrent as lt

SETTINGS = {
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_outgoing_tcp": False, "enable_incoming_tcp": False,
    "enable_outgoing_utp": True, "enable_incoming_utp": True,
    "allow_multiple_connections_per_ip": True, "in_enc_policy": 2, "out_enc_policy": 2,
}


def peers(port, count, info):
    """Connects peers that want nothing, and waits for the answer of each."""
    all = []
    for i in range(count):
        s = socket.create_connection(("127.0.0.1", port), 30)
        s.sendall(b"\x13BitTorrent protocol" + bytes(8) + info.info_hash().to_bytes() + b"-XX0000-%012d" % i)
        all.append(s)
    for s in all:
        got = b""
        while len(got) < 68:
            part = s.recv(68 - len(got))
            if not part:
                raise OSError(f"a peer was left after {len(got)} bytes")
            got += part
        if got[28:48] != info.info_hash().to_bytes():
            raise OSError("a peer got another answer")
    return all


def main(mib, port, tcp=None):
    with tempfile.TemporaryDirectory() as top:
        source, target = os.path.join(top, "source"), os.path.join(top, "target")
        os.mkdir(source)
        os.mkdir(target)
        with open(os.path.join(source, "file"), "wb") as f:
            f.write(os.urandom(mib << 20))
        files = lt.file_storage()
        lt.add_files(files, os.path.join(source, "file"))
        made = lt.create_torrent(files, 256 << 10)
        lt.set_piece_hashes(made, source)
        info = lt.torrent_info(lt.bencode(made.generate()))

        has = lt.session({**SETTINGS, "listen_interfaces": "127.0.0.1:16881"})
        wants = lt.session({**SETTINGS, "listen_interfaces": "127.0.0.1:16882"})
        uploads = has.add_torrent({"ti": info, "save_path": source})
        downloads = wants.add_torrent({"ti": info, "save_path": target})
        until = time.monotonic() + 90
        while not uploads.status().is_seeding and time.monotonic() < until:
            time.sleep(0.05)
        others = peers(tcp, 100, info) if tcp else []
        begin, cpu = time.monotonic(), time.process_time()
        downloads.connect_peer(("127.0.0.1", port))
        while time.monotonic() < until:
            if downloads.status().is_seeding:
                beside = f" beside {len(others)} peers" if others else ""
                print(f"{mib} MiB in {time.monotonic() - begin:.1f} s, {time.process_time() - cpu:.2f} s of CPU{beside}", flush=True)
                return 0
            time.sleep(0.1)
        print(f"{downloads.status().progress:.0%} of {mib} MiB arrived", flush=True)
        return 1


if __name__ == "__main__":
    os._exit(main(*map(int, sys.argv[1:])))
