#!/usr/bin/env bash
# An innocent client, while something else is in trouble: a stopped terminal, a
# pipe that no one reads, a full disk, a dead name server, a target that drops
# packets. Its latency through weir is compared with that of the same client
# through haproxy in the same state, each before and during the trouble. The
# script fails if weir loses a reply, or if its p99 in trouble is above 50 ms and
# above ten times what it was before.
#
#	scripts/innocent.sh [STATE...]      all of it takes about a minute
#
# Needs python3, ip, and unshare -rmn, which gives it a network and mounts of its
# own; without haproxy its columns are empty.
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
have python3 ip unshare || exit 0
unshare -rmn true 2>/dev/null || { say "skipped: no namespaces"; exit 0; }
[ -x "$tmp/weir" ] || go build -o "$tmp/weir" ./cmd/weir || exit 1

cat >"$tmp/innocent.py" <<'PY'
import fcntl, os, pty, resource, signal, socket, struct, subprocess, sys, termios, threading, time

TMP, WEIR = sys.argv[1], sys.argv[1] + '/weir'
HAPROXY = next((p for p in ('/usr/sbin/haproxy', '/usr/local/sbin/haproxy', '/usr/bin/haproxy') if os.access(p, os.X_OK)), None)
MESSAGES, PER_CONNECTION, CROWD = 3000, 20, 1500

def sh(line):
    subprocess.run(line, shell=True, check=True)

def echo(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', port))
    s.listen(1000)
    def one(c):
        try:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while d := c.recv(65536):
                c.sendall(d)
        except OSError:
            pass
        c.close()
    def run():
        while True:
            c, _ = s.accept()
            threading.Thread(target=one, args=(c,), daemon=True).start()
    threading.Thread(target=run, daemon=True).start()

def innocent(port, messages=MESSAGES):
    """The times of messages that come back, new connections among them."""
    times, lost, c = [], 0, None
    for i in range(messages):
        t = time.perf_counter()
        try:
            if i % PER_CONNECTION == 0:
                if c:
                    c.close()
                c = socket.create_connection(('127.0.0.1', port), timeout=5)
                c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            c.sendall(b'x' * 64)
            n = 0
            while n < 64:
                d = c.recv(64)
                if not d:
                    raise OSError('closed')
                n += len(d)
        except OSError:
            lost += 1
            if lost > 3:
                break
            c = socket.socket()
            continue
        times.append(time.perf_counter() - t)
    times.sort()
    return (times[int(len(times) * 0.99)] if times else float('inf')), (times[-1] if times else float('inf')), lost

def crowd(port):
    """Connections that come and go: each makes a line or two of a log."""
    for _ in range(CROWD):
        try:
            c = socket.create_connection(('127.0.0.1', port), timeout=2)
            c.sendall(b'x')
            c.recv(1)
            c.close()
        except OSError:
            return

def ready(port):
    end = time.time() + 10
    while time.time() < end:
        try:
            c = socket.create_connection(('127.0.0.1', port), timeout=1)
            c.sendall(b'x')
            if c.recv(1):
                c.close()
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f'nothing serves on port {port}')

def haproxy(port, servers, log, extra='', default='check inter 500ms'):
    path = f'{TMP}/haproxy{port}.cfg'
    with open(path, 'w') as f:
        f.write(f'''global
    {'log stdout format raw local0' if log else ''}
    nbthread 1
{extra}
defaults
    mode tcp
    {'log global' if log else ''}
    option redispatch
    option tcplog
    timeout connect 2s
    timeout client 1m
    timeout server 1m
listen l
    bind 127.0.0.1:{port}
    default-server {default}
''' + '\n'.join(f'    server s{i} {s}' for i, s in enumerate(servers)) + '\n')
    return [HAPROXY, '-f', path, '-db']

class Full:
    """A pipe that no one reads, or a terminal that is stopped; before: it is read."""
    def __init__(self, terminal):
        self.r, self.w = pty.openpty() if terminal else os.pipe()
        self.reading = True
        self.terminal = terminal
        threading.Thread(target=self.read, daemon=True).start()
    def read(self):
        while self.reading:
            try:
                os.read(self.r, 65536)
            except OSError:
                return
    def trouble(self):
        self.reading = False
        if self.terminal:
            termios.tcflow(self.w, termios.TCOOFF) # Ctrl-S

class Disk:
    """A log on a disk of its own, of 256 KiB."""
    count = 0
    def __init__(self):
        Disk.count += 1
        self.dir = f'{TMP}/disk{Disk.count}'
        os.mkdir(self.dir)
        sh(f'mount -t tmpfs -o size=256k tmpfs {self.dir}')
        self.w = os.open(self.dir + '/log', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    def trouble(self):
        with open(self.dir + '/filler', 'wb', buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass

class Words:
    """Trouble that is in the words of the command, from the start."""
    def __init__(self):
        self.w = os.open(os.devnull, os.O_WRONLY)
    def trouble(self):
        time.sleep(3) # checks and resolvers find out what they find out

B = '127.0.0.1:7000'
DEAD = '''resolvers dead
    nameserver one 127.0.0.1:53
    resolve_retries 3
    timeout retry 1s
    timeout resolve 1s
'''
# By name: the trouble, weir's words, and haproxy's servers, log, sections and defaults.
STATES = {
    'stopped terminal': (lambda: Full(True), [B], dict(servers=[B], log=True, default='')),
    'full pipe': (lambda: Full(False), [B], dict(servers=[B], log=True, default='')),
    'full disk': (Disk, [B], dict(servers=[B], log=True, default='')),
    'dead name server': (Words, [B, 'db.nowhere.example:7000', '--check', '500ms'],
        dict(servers=[B, 'db.nowhere.example:7000 resolvers dead init-addr none'], log=False, extra=DEAD)),
    'dropped target': (Words, [B, '10.9.0.9:7000', '--check', '500ms'], dict(servers=[B, '10.9.0.9:7000'], log=False)),
}

def measure(who, argv, port, make):
    t = make()
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=t.w, stderr=t.w if who == 'weir' else subprocess.DEVNULL, cwd=TMP)
    try:
        ready(port)
        before = innocent(port)
        t.trouble()
        crowd(port)
        during = innocent(port)
    finally:
        p.kill()
        p.wait()
    return before, during

def ms(x):
    return f'{x * 1000:8.2f}'

sh('ip link set lo up; ip link add v0 type veth peer name v1; ip addr add 10.9.0.1/24 dev v0; ip link set v0 up; ip link set v1 up')
sh('ip neigh replace 10.9.0.9 lladdr 02:00:00:00:00:01 dev v0 nud permanent') # it drops what is sent there
with open(f'{TMP}/resolv.conf', 'w') as f:
    f.write('nameserver 127.0.0.1\n')
sh(f'mount --bind {TMP}/resolv.conf /etc/resolv.conf')
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(('127.0.0.1', 53)) # it answers nothing
echo(7000)
wrong, port = [], 8100
print('p99 and greatest time of 64 bytes there and back, a new connection every 20 messages, in ms')
print(f'{"":18}|{"weir before":^19}|{"weir in trouble":^19}|{"haproxy before":^19}|{"haproxy in trouble":^19}')
for name, (make, words, ha) in STATES.items():
    if sys.argv[2:] and name not in sys.argv[2:]:
        continue
    port += 2
    listen = f'tcp-listen:127.0.0.1:{port}'
    if make is Disk:
        listen += f'+log,to={TMP}/disk{Disk.count + 1}/traffic+record:{TMP}/disk{Disk.count + 1}/record'
    before, during = measure('weir', [WEIR, listen, *words], port, make)
    row = [before, during]
    if HAPROXY:
        row += measure('haproxy', haproxy(port + 1, **ha), port + 1, make)
    print(f'{name:18}|' + '|'.join(f'{ms(p99)} {ms(top)} {"" if not lost else f"LOST {lost}"}'.ljust(19) for p99, top, lost in row), flush=True)
    if during[2]:
        wrong.append(f'{name}: {during[2]} replies of the innocent client are lost')
    if during[0] > max(0.05, 10 * before[0]):
        wrong.append(f'{name}: p99 {during[0] * 1000:.1f} ms, {before[0] * 1000:.1f} ms before')
for w in wrong:
    print('FAILED:', w)
sys.exit(bool(wrong))
PY
timeout -k 1 180 unshare -rmn --propagation private python3 "$tmp/innocent.py" "$tmp" "$@"
