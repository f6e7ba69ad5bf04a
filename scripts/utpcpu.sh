#!/usr/bin/env bash
# How much CPU time a GB takes over loopback: uTP between two weirs, the kernel's TCP
# between two weirs, and two libtorrents that speak uTP only, in turn. libtorrent's time
# includes its hashes and its files.
#
#   scripts/utpcpu.sh             three rounds
#   ROUNDS=10 scripts/utpcpu.sh
cd "$(dirname "$0")/.."
. scripts/lib.sh
go build -o "$tmp/weir" ./cmd/weir || exit 1
python=
for p in /usr/bin/python3 python3; do
	if "$p" -c 'import libtorrent' 2>/dev/null; then
		python=$p
		break
	fi
done
[ -n "$python" ] || say "skipped: libtorrent (python3-libtorrent) is not installed"
tick=$(getconf CLK_TCK)

# used PID: its CPU time in ticks.
used() { awk '{print $14 + $15}' "/proc/$1/stat"; }

# between KIND LISTEN CONNECT: 1 GiB between two weirs.
between() {
	start "$1" "$2:127.0.0.1:0" discard || return 1
	local before begin took sent
	before=$(used "$weir_pid")
	begin=$(date +%s.%N)
	TIMEFORMAT='%U %S'
	sent=$({ time head -c 1G /dev/zero | "$tmp/weir" -q - "$3:127.0.0.1:$port" >/dev/null; } 2>&1 | tail -1)
	took=$(date +%s.%N)
	awk -v name="$1" -v t="$tick" -v a="$before" -v b="$(used "$weir_pid")" -v s="$sent" -v d0="$begin" -v d1="$took" 'BEGIN {
		split(s, c, " "); printf "%s: %.2f s of CPU a GB, %.1f s\n", name, ((b - a) / t + c[1] + c[2]) / 1.0737, d1 - d0 }'
	kill "$weir_pid"
}

for _ in $(seq "${ROUNDS:-3}"); do
	between utp utp-listen utp
	between tcp tcp-listen tcp
	if [ -n "$python" ]; then
		"$python" scripts/utppeers.py 300 16881 >"$tmp/out" 2>&1 || fail "libtorrent: $(tail -1 "$tmp/out")"
		awk '{printf "two libtorrents: %.2f s of CPU a GB, %s s\n", $6 / ($1 * 1.048576 / 1000), $4}' "$tmp/out"
	fi
done
[ ${#failed[@]} -eq 0 ]
