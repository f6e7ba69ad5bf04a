#!/usr/bin/env bash
# Tries weir's UDP with other programs, on loopback: dig and dnsperf through a relay and
# against dns-listen, iperf3 -u through a TCP and a UDP relay, dante's server with our
# client of UDP ASSOCIATE, dante's client (socksify) and a plain one with our server.
# flows.py asks through a relay from many addresses. What is not installed is skipped, and
# named. The exit code is 1 if anything failed.
#
#   scripts/udppeers.sh [NAME...]     without names all of them:
#   dig dnsperf iperf3 danted socksify python flows
#
#   FLOWS="1000 3000"   flows that are alive at once, and sources one after the other
#
# dig and dnsperf are also put behind a relay that loses datagrams. All of it takes a minute.
cd "$(dirname "$0")/.."
. scripts/lib.sh

all="dig dnsperf iperf3 danted socksify python flows"
names=${*:-$all}
for name in $names; do
	[[ " $all " == *" $name "* ]] || { say "there is no $name; there are $all"; exit 2; }
done
wants() { [[ " $names " == *" $1 "* ]]; }
have python3 || verdict # all of it stands on the servers below

# A name server that says 192.0.2.7, and an echo, both on a port that is told.
cat >"$tmp/udp.py" <<'PY'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))
print(s.getsockname()[1], flush=True)
while True:
    p, a = s.recvfrom(65536)
    if sys.argv[1] == 'echo':
        s.sendto(b're:' + p, a)
        continue
    end = p.index(b'\0', 12) + 5
    s.sendto(p[:2] + b'\x81\x80\0\1\0\1\0\0\0\0' + p[12:end] + b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x07', a)
PY
python3 "$tmp/udp.py" dns >"$tmp/dnsport" & pids+=($!)
python3 "$tmp/udp.py" echo >"$tmp/echoport" & pids+=($!)
for _ in $(seq 200); do
	[ -s "$tmp/dnsport" ] && [ -s "$tmp/echoport" ] && break
	sleep 0.05
done
dns=$(cat "$tmp/dnsport") echo=$(cat "$tmp/echoport")

start relay udp-listen:127.0.0.1:0 "udp:127.0.0.1:$dns" && relay=$port
start names dns-listen:127.0.0.1:0 "udp:127.0.0.1:$dns" && names_port=$port

if wants dig && have dig; then
	for p in "$relay" "$names_port"; do
		got=$(dig +short +tries=2 +time=2 @127.0.0.1 -p "$p" host.test A)
		[ "$got" = 192.0.2.7 ] || fail "dig at port $p: $got"
	done
	got=$(dig +tcp +short +tries=1 +time=2 @127.0.0.1 -p "$names_port" host.test A)
	[ "$got" = 192.0.2.7 ] || fail "dig +tcp: $got"
	got=$(dig +tries=1 +time=2 @127.0.0.1 -p "$names_port" host.test ANY +notcp | grep -c NOTIMP)
	[ "$got" = 1 ] || fail "dig ANY: it is not refused"
	# Of three questions in ten each way none comes through: dig asks again.
	start lossy "udp-listen:127.0.0.1:0+loss:0.3,seed=3" "udp:127.0.0.1:$dns"
	for i in $(seq 1 4); do
		got=$(dig +short +tries=15 +time=1 @127.0.0.1 -p "$port" "h$i.test" A | tail -1) # before it, what timed out
		[ "$got" = 192.0.2.7 ] || fail "dig over a lossy relay: $got"
	done
	say "dig: done"
fi

if wants dnsperf && have dnsperf; then
	for i in $(seq 1 200); do echo "h$i.test A"; done >"$tmp/queries"
	for p in "$relay" "$names_port"; do
		out=$(dnsperf -s 127.0.0.1 -p "$p" -d "$tmp/queries" -l 1 -Q 2000 -c 8 2>&1)
		lost=$(sed -n 's/.*Queries lost: *\([0-9]*\).*/\1/p' <<<"$out")
		[ "${lost:-x}" = 0 ] || fail "dnsperf at port $p: lost ${lost:-all}"
		say "dnsperf at port $p: $(sed -n 's/.*Queries per second: *//p' <<<"$out") queries/s, lost $lost"
	done
	# The same seed takes the same datagrams from one client, whenever it asks.
	losses=
	for i in 1 2; do
		start "lossy$i" "udp-listen:127.0.0.1:0+loss:0.1,seed=7" "udp:127.0.0.1:$dns"
		out=$(dnsperf -s 127.0.0.1 -p "$port" -d "$tmp/queries" -n 1 -Q 200 -c 1 -t 1 2>&1)
		losses="$losses $(sed -n 's/.*Queries lost: *\([0-9]*\).*/\1/p' <<<"$out")"
	done
	read -r one other <<<"$losses"
	[ "${one:-0}" -gt 10 ] && [ "$one" = "$other" ] || fail "dnsperf over a lossy relay, the same seed twice: lost$losses of 200"
	say "dnsperf with a tenth lost each way: lost$losses of 200"
fi

if wants iperf3 && have iperf3; then
	free
	server=$port
	iperf3 -s -B 127.0.0.1 -p "$server" >"$tmp/iperf" 2>&1 & pids+=($!)
	free
	both=$port
	start iperft "tcp-listen:127.0.0.1:$both" "127.0.0.1:$server"
	start iperfu "udp-listen:127.0.0.1:$both" "udp:127.0.0.1:$server"
	out=$(timeout 20 iperf3 -u -c 127.0.0.1 -p "$both" -b 20M -l 1200 -t 1 2>&1) || fail "iperf3 -u: $out"
	say "iperf3 -u: $(grep receiver <<<"$out")"
fi

# What a client of SOCKS5 does by hand: ask.py PORT ECHO
cat >"$tmp/ask.py" <<'PY'
import socket, struct, sys
proxy, echo = int(sys.argv[1]), int(sys.argv[2])
c = socket.create_connection(('127.0.0.1', proxy), timeout=5)
c.sendall(b'\5\1\0'); assert c.recv(2) == b'\5\0'
c.sendall(b'\5\3\0\1\0\0\0\0\0\0'); r = c.recv(10); assert r[1] == 0, r
at = socket.inet_ntoa(r[4:8]), struct.unpack('>H', r[8:10])[0]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
s.sendto(b'\0\0\0\1\x7f\0\0\1' + struct.pack('>H', echo) + b'hello', at)
assert s.recv(99)[10:] == b're:hello'
c.close()
PY
start socks tcp-listen:127.0.0.1:0+socks5,udp dial && socks=$port
if wants python; then
	python3 "$tmp/ask.py" "$socks" "$echo" || fail "a plain client of our server"
	say "python: done"
fi

if wants danted && have danted; then
	free
	dante=$port
	cat >"$tmp/danted.conf" <<CONF
logoutput: $tmp/danted.log
internal: 127.0.0.1 port = $dante
external: lo
clientmethod: none
socksmethod: none
user.notprivileged: nobody
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 command: connect udpassociate bindreply udpreply }
CONF
	danted -f "$tmp/danted.conf" -p "$tmp/danted.pid" >"$tmp/danted.out" 2>&1 & pids+=($!)
	for _ in $(seq 1 50); do (exec 3<>"/dev/tcp/127.0.0.1/$dante") 2>/dev/null && break; sleep 0.1; done
	start viadante udp-listen:127.0.0.1:0 "udp:127.0.0.1:$dante+socks5:127.0.0.1:$dns"
	if command -v dig >/dev/null; then
		got=$(dig +short +tries=2 +time=2 @127.0.0.1 -p "$port" host.test A)
		[ "$got" = 192.0.2.7 ] || fail "through dante's server: $got; weir: $(cat "$log"); dante: $(tail -5 "$tmp/danted.log")"
	fi
	say "danted: done"
fi

if wants socksify && have socksify dig; then
	cat >"$tmp/socks.conf" <<CONF
logoutput: $tmp/socksify.log
route {
	from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = $socks
	protocol: tcp udp
	proxyprotocol: socks_v5
	method: none
}
CONF
	got=$(SOCKS_CONF=$tmp/socks.conf timeout 20 socksify "$(python3 -c 'import sys; print(sys.executable)')" - "$dns" <<'PY'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b'\0\7\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1', ('127.0.0.1', int(sys.argv[1])))
print(socket.inet_ntoa(s.recvfrom(999)[0][-4:]))
PY
	)
	[ "$got" = 192.0.2.7 ] || fail "dante's client with our server: $got; $(tail -3 "$tmp/socksify.log")"
	say "socksify: done"
fi

if wants flows; then
	# shellcheck disable=SC2086
	out=$(timeout 60 python3 scripts/flows.py "$tmp/weir" ${FLOWS:-1000 3000} 2>&1) || fail "flows.py: $out"
	say "flows.py: $out"
fi

verdict
