#!/usr/bin/env python3
"""Measures the flows of a relay of datagrams: how many are answered while all of them
are alive, what one costs in memory, and whether sources that come and go are answered.

    scripts/flows.py WEIR [ALIVE [SOURCES]]     15000 and 100000 without numbers

Sources are addresses of 127.0.0.0/8, on loopback. Each flow of the relay takes a
descriptor, and so does each client here: the limit of open files has to be above ALIVE.
The exit code is 1 if a source was not answered.
"""
import os, re, resource, signal, socket, subprocess, sys, tempfile, time

weir = sys.argv[1]
alive = int(sys.argv[2]) if len(sys.argv) > 2 else 15000
sources = int(sys.argv[3]) if len(sys.argv) > 3 else 100000
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
echo.bind(('127.0.0.1', 0))
server = os.fork()
if server == 0:
    while True:
        data, peer = echo.recvfrom(2048)
        echo.sendto(data, peer)

log = tempfile.NamedTemporaryFile('w+')
relay = subprocess.Popen([weir, '-q', 'udp-listen:127.0.0.1:0', f'udp:127.0.0.1:{echo.getsockname()[1]}'],
                         stderr=log, stdin=subprocess.DEVNULL)

def listening():
    for line in open(f'/proc/{relay.pid}/net/udp').read().splitlines()[1:]:
        f = line.split()
        if f[1].startswith('0100007F') and f[9] in inodes():
            return int(f[1].split(':')[1], 16)

def inodes():
    found = set()
    for fd in os.listdir(f'/proc/{relay.pid}/fd'):
        try:
            link = os.readlink(f'/proc/{relay.pid}/fd/{fd}')
        except OSError:
            continue
        if link.startswith('socket:['):
            found.add(link[8:-1])
    return found

def rss():
    return int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{relay.pid}/status').read()).group(1)) * 1024

def ask(s, text, tries=3):
    for _ in range(tries):
        s.send(text)
        try:
            return s.recv(2048) == text
        except TimeoutError:
            pass
    return False

def client(i):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((f'127.{1 + i % 200}.{i // 200 % 250}.{1 + i // 50000}', 0))
    s.connect(at)
    s.settimeout(1)
    return s

try:
    port = None
    for _ in range(100):
        port = listening()
        if port:
            break
        time.sleep(0.05)
    at = ('127.0.0.1', port)
    ask(client(0), b'warm')
    before = rss()
    began = time.time()
    clients = [client(i) for i in range(1, alive + 1)]
    first = sum(ask(s, b'%d' % i) for i, s in enumerate(clients))
    again = sum(ask(s, b'again %d' % i, 1) for i, s in enumerate(clients))
    print(f'{alive} alive: {first} answered, {again} again; {(rss() - before) / alive:.0f} bytes a flow, {time.time() - began:.0f} s')
    for s in clients:
        s.close()
    began, answered = time.time(), 0
    for i in range(sources):
        s = client(i)
        answered += ask(s, b'%d' % i)
        s.close()
    print(f'{sources} sources, one after the other: {answered} answered, {time.time() - began:.0f} s, {rss() >> 20} MiB')
    relay.send_signal(signal.SIGTERM)
    relay.wait(20)
    log.seek(0)
    print('it said:', log.read().strip()[-600:] or 'nothing')
    if min(first, again) < alive or answered < sources:
        sys.exit('not all were answered')
finally:
    relay.kill()
    os.kill(server, signal.SIGKILL)
