#!/usr/bin/env bash
# Puts weir between two libtorrents that speak uTP only, so that both of its ends meet
# both of theirs. libtorrent checks the file's hashes. It does so beside 100 peers that
# stay connected, and over datagrams that are lost, reordered and late. Then, if tshark is
# there, its dissector reads weir's packets. What is not installed is skipped, and named.
#
#   scripts/utppeers.sh           8 MiB, then 50 MiB
#   MIB=200 scripts/utppeers.sh   one of so many
#   PEERS=FILE                    another program than scripts/utppeers.py
cd "$(dirname "$0")/.."
. scripts/lib.sh

# Debian has libtorrent for its own Python, which need not be the first one in PATH.
python=
for p in /usr/bin/python3 python3; do
	if "$p" -c 'import libtorrent' 2>/dev/null; then
		python=$p
		break
	fi
done
[ -n "$python" ] || {
	say "skipped: libtorrent (python3-libtorrent) is not installed"
	exit 0
}
go build -o "$tmp/weir" ./cmd/weir || exit 1

# libtorrent takes a second connection from the same port for the same peer.
start relay utp-listen:16890 utp:127.0.0.1:16881,own-port || exit 1
shark=
if have tshark; then
	tshark -q -i lo -f 'udp port 16890' -c 20000 -w "$tmp/packets" 2>"$tmp/tshark" &
	shark=$!
	pids+=("$shark")
	until grep -q Capturing "$tmp/tshark"; do
		kill -0 "$shark" 2>/dev/null || {
			say "skipped: tshark may not capture: $(tail -1 "$tmp/tshark")"
			shark=
			break
		}
		sleep 0.05
	done
fi
# transfer WHAT MIB PORT...: one transfer.
transfer() {
	local what=$1
	shift
	if timeout 100 "$python" "${PEERS:-scripts/utppeers.py}" "$@" >"$tmp/out" 2>&1; then
		say "passed: $what: $(tail -1 "$tmp/out")"
	else
		fail "$what, $1 MiB: $(tail -1 "$tmp/out"); weir: $(tail -1 "$log")"
	fi
}

for mib in ${MIB:-8 50}; do
	transfer "alone" "$mib" 16890
done
start more tcp-listen:16891 utp:127.0.0.1:16890 && transfer "100 more" 8 16890 16891
start lossy udp-listen:16895+loss:0.005+reorder:0.05+latency:10ms udp:127.0.0.1:16890 && transfer "0.5 % lost, 5 % reordered, 10 ms late each way" 8 16895
if [ -n "$shark" ]; then
	kill -INT "$shark" 2>/dev/null
	wait "$shark" 2>/dev/null
	all=$(tshark -r "$tmp/packets" -d udp.port==16890,bt-utp -Y bt-utp 2>/dev/null | wc -l)
	bad=$(tshark -r "$tmp/packets" -d udp.port==16890,bt-utp -Y _ws.malformed 2>/dev/null | wc -l)
	if [ "$all" -gt 100 ] && [ "$bad" -eq 0 ]; then
		say "passed: tshark reads $all packets, none malformed"
	else
		fail "tshark: $bad of $all packets are malformed"
	fi
fi
[ ${#failed[@]} -eq 0 ]
