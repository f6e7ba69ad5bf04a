#!/usr/bin/env bash
# Puts weir between real servers and their clients, on loopback: nginx and curl,
# redis-server and redis-benchmark, iperf3, sshd and ssh, a server slower than
# socat's patience, a gigabyte both ways at once, byte for byte, and 9,000
# connections at once. Prints the rates of each, direct and through the relay.
# Programs that are not installed are skipped, and named. The exit code is 1 if
# anything failed.
#
#   scripts/realpeers.sh [NAME...]     without names all of them:
#   nginx redis iperf3 ssh reply bulk connections
#   SECONDS_EACH=3   how long an iperf3 run takes
#   BULK=1073741824  bytes each way
cd "$(dirname "$0")/.."
. scripts/lib.sh

# relay PORT: starts a relay to it and sets via to the relay's port.
relay() {
	start "relay.$1" tcp-listen:127.0.0.1:0 "127.0.0.1:$1"
	relay_pid=$weir_pid via=$port
}

# drained: ends the relay by Ctrl-C; it must drain and exit with 0.
drained() {
	kill -INT "$relay_pid"
	wait "$relay_pid" || fail "$1: the relay ended with $?: $(tail -3 "$tmp/relay."*)"
}

test_nginx() {
	have nginx curl || return
	local p
	free && p=$port
	mkdir -p "$tmp/www"
	head -c 268435456 /dev/urandom >"$tmp/www/big"
	echo hello >"$tmp/www/index.html"
	cat >"$tmp/nginx.conf" <<-CONF
		daemon off; worker_processes 1; pid $tmp/nginx.pid; error_log $tmp/nginx.log;
		user $(id -un);
		events { worker_connections 1024; }
		http { access_log off; sendfile on; keepalive_requests 100000; client_body_temp_path $tmp; proxy_temp_path $tmp; fastcgi_temp_path $tmp; uwsgi_temp_path $tmp; scgi_temp_path $tmp;
		  server { listen 127.0.0.1:$p; root $tmp/www; } }
	CONF
	nginx -c "$tmp/nginx.conf" 2>"$tmp/nginx.err" &
	pids+=($!)
	up "$p"
	relay "$p"
	[ "$(curl -s "http://127.0.0.1:$via/")" = hello ] || fail "nginx: a small page"
	local where
	for where in "$p" "$via"; do
		curl -s -o "$tmp/got" -w "nginx: 268 MB at %{speed_download} B/s$([ "$where" = "$p" ] && echo ', direct')\n" "http://127.0.0.1:$where/big" || fail "nginx: curl ended with $?"
		cmp "$tmp/www/big" "$tmp/got" || fail "nginx: other bytes came out"
	done
	local args=() i
	for i in $(seq 500); do args+=("http://127.0.0.1:$via/?$i"); done
	[ "$(curl -s --parallel --parallel-max 50 "${args[@]}" 2>/dev/null | grep -c hello)" = 500 ] || fail "nginx: 500 pages, 50 at once"
	say "nginx: 500 pages, 50 at once: all arrived"
	# The input ends at once; the reply must still be complete. nginx itself gives
	# up on a client that has ended its writing when a page does not fit into the
	# socket's buffer, whoever the client is.
	head -c 300000 "$tmp/www/big" >"$tmp/www/page"
	if printf 'GET /page HTTP/1.0\r\n\r\n' | "$tmp/weir" -q - "127.0.0.1:$p" | sed '1,/^\r$/d' | cmp - "$tmp/www/page"; then
		say "nginx: printf request | weir - host:port: 300 kB, all of it"
	else
		fail "nginx: printf request | weir - host:port"
	fi
	drained nginx
	rm -f "$tmp/got" "$tmp/www/big"
}

test_redis() {
	have redis-server redis-benchmark redis-cli || return
	local p where what
	free && p=$port
	redis-server --port "$p" --bind 127.0.0.1 --save '' --appendonly no --dir "$tmp" >"$tmp/redis.log" 2>&1 &
	pids+=($!)
	up "$p"
	relay "$p"
	[ "$(redis-cli -p "$via" set k v)" = OK ] && [ "$(redis-cli -p "$via" get k)" = v ] || fail "redis: set and get"
	for what in "-n 100000 -c 50" "-n 500000 -c 50 -P 16"; do
		for where in "$p" "$via"; do
			# shellcheck disable=SC2086
			redis-benchmark -h 127.0.0.1 -p "$where" $what -t set,get -q >"$tmp/bench" 2>&1 || fail "redis: redis-benchmark ended with $?"
			say "redis: $what$([ "$where" = "$p" ] && echo ', direct'): $(tr '\r' '\n' <"$tmp/bench" | grep 'requests per second' | sed 's/ requests per second/\/s/' | paste -sd' ')"
		done
	done
	drained redis
}

test_iperf3() {
	have iperf3 || return
	local p where mode
	free && p=$port
	iperf3 -s -B 127.0.0.1 -p "$p" >"$tmp/iperf3.log" 2>&1 &
	pids+=($!)
	up "$p"
	relay "$p"
	for mode in "" "-R" "-P 8" "--bidir"; do
		for where in "$p" "$via"; do
			# shellcheck disable=SC2086
			if iperf3 -c 127.0.0.1 -p "$where" -t "${SECONDS_EACH:-3}" $mode >"$tmp/iperf3.out" 2>&1; then
				say "iperf3 ${mode:-one stream}$([ "$where" = "$p" ] && echo ', direct'): $(grep receiver "$tmp/iperf3.out" | { grep SUM || grep receiver "$tmp/iperf3.out"; } | sed 's/.*Bytes *//; s/ *receiver.*//' | paste -sd' ')"
			else
				fail "iperf3 $mode ended with $?: $(tail -1 "$tmp/iperf3.out")"
			fi
		done
	done
	drained iperf3
}

test_ssh() {
	have sshd ssh ssh-keygen || return
	local p user
	free && p=$port
	user=$(id -un)
	sshd_on "$p" || return
	relay "$p"
	local to=(ssh -q -F /dev/null -i "$tmp/me" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p "$via" "$user@127.0.0.1")
	[ "$("${to[@]}" echo it works)" = "it works" ] || { fail "ssh: a command: $(tail -2 "$tmp/sshd.log")"; return; }
	head -c 67108864 /dev/urandom >"$tmp/data"
	local began=$SECONDS
	"${to[@]}" cat <"$tmp/data" | cmp - "$tmp/data" || fail "ssh: 64 MiB there and back"
	say "ssh: a command, and 67 MB there and back at once in $((SECONDS - began)) s"
	# weir as ProxyCommand: standard input and output are a full endpoint.
	[ "$(ssh -q -F /dev/null -i "$tmp/me" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
		-o ProxyCommand="$tmp/weir -q - 127.0.0.1:$p" "$user@anything" echo through)" = through ] || fail "ssh: weir as ProxyCommand"
	say "ssh: weir as ProxyCommand"
	drained ssh
}

test_reply() {
	have socat || return
	local p out
	free && p=$port
	socat -t 30 "TCP-LISTEN:$p,bind=127.0.0.1,reuseaddr" SYSTEM:'cat >/dev/null; sleep 1; echo all of the reply' 2>"$tmp/socat.log" &
	pids+=($!)
	# It serves one connection only: ask the kernel, not it, whether it is there.
	until grep -q "$(printf ' 0100007F:%04X 00000000:0000 0A ' "$p")" /proc/net/tcp; do sleep 0.02; done
	out=$(printf request | "$tmp/weir" -q - "127.0.0.1:$p") || fail "reply: weir ended with $?"
	if [ "$out" = "all of the reply" ]; then
		say "reply: the input ended a second before the reply came: it came whole"
	else
		fail "reply: got '$out' from a server that takes a second"
	fi
}

test_connections() {
	go test -count=1 -timeout 300s -v -run '^TestManyAtOnce$' ./cmd/weir >"$tmp/connections" 2>&1 || fail "connections: $(grep -v '^=== ' "$tmp/connections")"
	say "connections: $(sed -n 's/.*_test.go:[0-9]*: //p' "$tmp/connections")"
}

test_bulk() {
	WEIR_TEST_BULK=${BULK:-1073741824} go test -count=1 -timeout 600s -v -run '^TestBulk$' ./cmd/weir >"$tmp/bulk" 2>&1 || fail "bulk: $(grep -v '^=== ' "$tmp/bulk")"
	say "bulk: $(sed -n 's/.*relay_test.go:[0-9]*: //p' "$tmp/bulk")"
}

run_tests "nginx redis iperf3 ssh reply bulk connections" "$@"
