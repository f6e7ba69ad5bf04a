# What the scripts that test weir against other programs share: a directory, a
# list of what was started, and how skipped and failed tests are reported. To be
# sourced by a script whose working directory is the tree's root; it leaves weir
# built as $tmp/weir.
# shellcheck shell=bash

set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin

tmp=$(mktemp -d)
pids=()
failed=()
skipped=()

cleanup() {
	local p
	for p in ${pids[@]+"${pids[@]}"}; do kill "$p" 2>/dev/null; done
	wait 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT

say() { printf '%s\n' "$*"; }
fail() {
	say "FAILED: $*"
	failed+=("$*")
}

# have CMD...: whether all are there; otherwise the test is skipped, by name.
have() {
	local c
	for c; do
		if ! command -v "$c" >/dev/null; then
			say "skipped: $c is not installed"
			skipped+=("$c")
			return 1
		fi
	done
}

# start LOG ARGS...: starts weir, waits until it is ready, and sets port,
# weir_pid and log, the file with its output.
start() {
	log=$tmp/$1
	shift
	: >"$log"
	"$tmp/weir" "$@" 2>>"$log" &
	weir_pid=$!
	pids+=("$weir_pid")
	until grep -q ready "$log"; do
		kill -0 "$weir_pid" 2>/dev/null || { fail "weir $*: $(cat "$log")"; return 1; }
		sleep 0.02
	done
	port=$(sed -n 's/.*ready [^ ]*:\([0-9]*\).*/\1/p' "$log" | head -1)
}

# free sets port to a free one.
free() {
	local log weir_pid
	start free tcp-listen:127.0.0.1:0 127.0.0.1:1
	kill "$weir_pid"
	wait "$weir_pid" 2>/dev/null
}

# up PORT: waits until something listens there.
up() {
	local i
	for i in $(seq 500); do
		grep -qi "$(printf ':%04X 0\{8,32\}:0000 0A ' "$1")" /proc/net/tcp /proc/net/tcp6 && return
		sleep 0.02
	done
	fail "nothing listens on $1"
}

# sshd_on PORT: an SSH server that lets this user in with the key $tmp/me; it logs
# to $tmp/sshd.log.
sshd_on() {
	[ "$(id -u)" = 0 ] && mkdir -p /run/sshd
	ssh-keygen -q -t ed25519 -N '' -f "$tmp/host" && ssh-keygen -q -t ed25519 -N '' -f "$tmp/me" || { fail "ssh-keygen"; return 1; }
	cp "$tmp/me.pub" "$tmp/authorized"
	"$(command -v sshd)" -D -e -f /dev/null -p "$1" -o ListenAddress=127.0.0.1 -o HostKey="$tmp/host" -o PidFile=none \
		-o AuthorizedKeysFile="$tmp/authorized" -o StrictModes=no -o UsePAM=no -o PermitRootLogin=yes 2>"$tmp/sshd.log" &
	pids+=($!)
	up "$1"
}

# run_tests "ALL" [NAME...]: calls test_NAME for each name, or for all of them,
# and exits with 1 if anything failed.
run_tests() {
	local all=$1 t
	shift
	# shellcheck disable=SC2086
	if [ $# -eq 0 ]; then set -- $all; fi
	for t; do
		declare -F "test_$t" >/dev/null || { say "there is no $t; there are $all"; exit 2; }
		"test_$t"
	done
	verdict
}

# verdict ends the script.
verdict() {
	[ ${#skipped[@]} -eq 0 ] || say "not installed: ${skipped[*]}"
	if [ ${#failed[@]} -gt 0 ]; then
		say "failed: ${#failed[@]}"
		exit 1
	fi
	say "all went well"
	exit 0
}

go build -o "$tmp/weir" ./cmd/weir || exit 1
