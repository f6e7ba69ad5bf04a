#!/usr/bin/env bash
# Puts weir's proxy layers against real peers, on loopback: curl and ssh as clients
# of weir's proxies; microsocks, dante and tinyproxy as the proxies that weir asks;
# chains of two; haproxy on both ends of the PROXY protocol; and strace, to check
# that a name that a proxy resolves is looked up nowhere else. Programs that are
# not installed are skipped, and named. The exit code is 1 if anything failed.
#
#   scripts/proxypeers.sh [NAME...]     without names all of them:
#   curl password ssh microsocks dante tinyproxy chain haproxy names
cd "$(dirname "$0")/.."
. scripts/lib.sh

# serve WORDS...: starts weir on a free loopback port, with + and the contents
# of $on after the listener, and sets at to the port and log to its log.
serve() {
	served=$((${served:-0} + 1))
	start "log.$served" "tcp-listen:127.0.0.1:0${on:-}" "$@" && at=$port
}

# origin: a web server whose pages all say who asked; sets web to its port, and
# told to a port where a PROXY header says who.
origin() {
	[ -n "${web:-}" ] && return
	have haproxy || return
	free && web=$port
	free && told=$port
	cat >"$tmp/origin.cfg" <<-CONF
		defaults
		  mode http
		  timeout client 30s
		  timeout connect 5s
		  timeout server 30s
		frontend plain
		  bind 127.0.0.1:$web
		  http-request return status 200 content-type text/plain lf-string "hello %[src]"
		frontend told
		  bind 127.0.0.1:$told accept-proxy
		  http-request return status 200 content-type text/plain lf-string "hello %[src]"
	CONF
	haproxy -f "$tmp/origin.cfg" -db >"$tmp/origin.log" 2>&1 &
	pids+=($!)
	up "$web"
}

get() { curl -sS -m 10 --noproxy '' "$@" 2>&1; }
hello() { # hello WHAT CURL-ARGS...
	local what=$1 got
	shift
	got=$(get "$@")
	case $got in
	hello*) say "$what: $got" ;;
	*) fail "$what: $got" ;;
	esac
}

test_curl() {
	have curl || return
	origin || return
	on=+socks5 serve dial
	hello "curl --socks5-hostname, weir serves" --socks5-hostname "127.0.0.1:$at" "http://localhost:$web/"
	hello "curl --socks5, weir serves" --socks5 "127.0.0.1:$at" "http://localhost:$web/"
	got=$(get --socks5-hostname "127.0.0.1:$at" http://localhost:1/)
	[[ $got == *"(5)"* ]] && say "curl --socks5-hostname to a closed port: $got" || fail "a closed port through SOCKS5: $got"
	got=$(get --socks5-hostname "127.0.0.1:$at" http://169.254.169.254/)
	[[ $got == *"(2)"* ]] && say "curl --socks5-hostname to a link-local address: $got" || fail "a link-local address through SOCKS5: $got"
	on=+socks4a serve dial
	hello "curl --socks4a, weir serves" --socks4a "127.0.0.1:$at" "http://localhost:$web/"
	hello "curl --socks4, weir serves" --socks4 "127.0.0.1:$at" "http://127.0.0.1:$web/"
	on=+connect serve dial --deny 127.0.0.0/9
	got=$(get -p --proxy "http://127.0.0.1:$at" "http://127.0.0.1:$web/")
	[[ $got == *403* ]] && say "curl --proxy against --deny: $got" || fail "--deny: $got"
	on=+connect serve dial
	hello "curl --proxy, weir serves" -p --proxy "http://127.0.0.1:$at" "http://localhost:$web/"
	got=$(get -p --proxy "http://127.0.0.1:$at" http://localhost:1/)
	[[ $got == *502* ]] && say "curl --proxy to a closed port: $got" || fail "a closed port through CONNECT: $got"
}

test_password() {
	have curl || return
	origin || return
	export WEIR_PROXY_TEST=secret
	on=+socks5,user=me,password=env:WEIR_PROXY_TEST serve dial
	hello "SOCKS5 with a password" --socks5-hostname "me:secret@127.0.0.1:$at" "http://localhost:$web/"
	got=$(get --socks5-hostname "me:wrong@127.0.0.1:$at" "http://localhost:$web/")
	[[ $got == *hello* ]] && fail "SOCKS5 with a wrong password: $got" || say "SOCKS5 with a wrong password: $got"
	got=$(get --socks5-hostname "127.0.0.1:$at" "http://localhost:$web/")
	[[ $got == *hello* ]] && fail "SOCKS5 without a password: $got" || say "SOCKS5 without a password: $got"
	printf 'me:secret\nyou:other\n' >"$tmp/users"
	on=+connect,users=file:$tmp/users serve dial
	hello "CONNECT with a password" -p --proxy "http://you:other@127.0.0.1:$at" "http://localhost:$web/"
	got=$(get -p --proxy "http://127.0.0.1:$at" "http://localhost:$web/")
	[[ $got == *407* ]] && say "CONNECT without a password: $got" || fail "CONNECT without a password: $got"
	local code=0
	"$tmp/weir" :0+socks5 dial 2>"$tmp/refused" || code=$?
	[ "$code" = 3 ] && say "open to the world, without a password: exit code 3: $(head -1 "$tmp/refused")" || fail "an open proxy: exit code $code"
}

test_ssh() {
	have sshd ssh ssh-keygen || return
	local p user proxy opts
	free && p=$port
	user=$(id -un)
	sshd_on "$p" || return
	opts=(-q -F /dev/null -i "$tmp/me" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p "$p")
	head -c 33554432 /dev/urandom >"$tmp/data"
	for proxy in socks5 connect socks4a; do
		on=+$proxy serve dial
		ssh "${opts[@]}" -o ProxyCommand="$tmp/weir -q - 127.0.0.1:$at+$proxy:%h:%p" "$user@localhost" cat <"$tmp/data" | cmp - "$tmp/data" &&
			say "ssh -o ProxyCommand='weir - proxy+$proxy:%h:%p': 33 MB there and back" || fail "ssh through $proxy: $(tail -2 "$tmp/sshd.log")"
	done
}

# through WHAT LAYERS: fetches a page through a proxy that weir asks.
through() {
	on='' serve "127.0.0.1:$2:localhost:$web"
	hello "$1" "http://127.0.0.1:$at/"
}

test_microsocks() {
	have microsocks curl || return
	origin || return
	local p q
	free && p=$port
	free && q=$port
	microsocks -i 127.0.0.1 -p "$p" >/dev/null 2>&1 &
	pids+=($!)
	microsocks -i 127.0.0.1 -p "$q" -u me -P secret >/dev/null 2>&1 &
	pids+=($!)
	up "$p"
	up "$q"
	through "weir asks microsocks" "$p+socks5"
	export WEIR_PROXY_TEST=secret
	on='' serve "127.0.0.1:$q+socks5:localhost:$web,user=me,password=env:WEIR_PROXY_TEST"
	hello "weir asks microsocks with a password" "http://127.0.0.1:$at/"
	printf x | "$tmp/weir" - "127.0.0.1:$p+socks5:localhost:1" 2>"$tmp/said" >/dev/null && fail "microsocks connected to a closed port"
	say "weir asks microsocks for a closed port: $(head -1 "$tmp/said")"
}

test_dante() {
	have danted curl || return
	origin || return
	local p
	free && p=$port
	cat >"$tmp/danted.conf" <<-CONF
		logoutput: $tmp/danted.log
		internal: 127.0.0.1 port = $p
		external: lo
		clientmethod: none
		socksmethod: none
		user.privileged: $(id -un)
		user.unprivileged: $(id -un)
		client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
		socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 command: bind connect bindreply }
	CONF
	danted -f "$tmp/danted.conf" -p "$tmp/danted.pid" >"$tmp/danted.out" 2>&1 &
	pids+=($!)
	up "$p"
	through "weir asks dante, SOCKS5" "$p+socks5"
	on='' serve "127.0.0.1:$p+socks4:127.0.0.1:$web"
	hello "weir asks dante, SOCKS4" "http://127.0.0.1:$at/"
	if [[ $(get --socks4a "127.0.0.1:$p" "http://localhost:$web/") == hello* ]]; then
		through "weir asks dante, SOCKS4a" "$p+socks4a"
	else
		say "dante refuses curl --socks4a, so weir is not tried with it"
	fi
}

# tiny: tinyproxy; sets tinyport.
tiny() {
	[ -n "${tinyport:-}" ] && return
	have tinyproxy curl || return
	free && tinyport=$port
	cat >"$tmp/tiny.conf" <<-CONF
		Port $tinyport
		Listen 127.0.0.1
		Timeout 30
		MaxClients 50
		Allow 127.0.0.1
		BasicAuth me secret
		LogFile "$tmp/tiny.log"
	CONF
	tinyproxy -d -c "$tmp/tiny.conf" >"$tmp/tiny.out" 2>&1 &
	pids+=($!)
	up "$tinyport"
	export WEIR_PROXY_TEST=secret
}

test_tinyproxy() {
	origin && tiny || return
	on='' serve "127.0.0.1:$tinyport+connect:localhost:$web,user=me,password=env:WEIR_PROXY_TEST"
	hello "weir asks tinyproxy with a password" "http://127.0.0.1:$at/"
	on='' serve "127.0.0.1:$tinyport+connect:localhost:$web"
	get "http://127.0.0.1:$at/" >/dev/null
	grep -q 407 "$log" && say "weir asks tinyproxy without one: $(grep -m1 407 "$log")" || fail "tinyproxy without a password: $(cat "$log")"
}

test_chain() {
	origin && tiny || return
	local tinyp=127.0.0.1:$tinyport mine
	on=+socks5 serve "$tinyp+connect,user=me,password=env:WEIR_PROXY_TEST"
	mine=$at
	hello "curl, SOCKS5 to weir, CONNECT to tinyproxy" --socks5-hostname "127.0.0.1:$mine" "http://localhost:$web/"
	on=+connect serve dial
	on='' serve "127.0.0.1:$mine+socks5:127.0.0.1:$at+connect:localhost:$web"
	hello "three hops: SOCKS5 to weir, CONNECT to tinyproxy, CONNECT to weir" "http://127.0.0.1:$at/"
}

test_haproxy() {
	origin || return
	have curl || return
	local v p via
	for v in 1 2; do
		on=+proxy-in serve "127.0.0.1:$told+proxy-out:v$v"
		via=$at
		free && p=$port
		cat >"$tmp/send$v.cfg" <<-CONF
			defaults
			  mode tcp
			  timeout client 30s
			  timeout connect 5s
			  timeout server 30s
			listen send
			  bind 127.0.0.1:$p
			  server weir 127.0.0.1:$via send-proxy$([ $v = 2 ] && echo -v2)
		CONF
		haproxy -f "$tmp/send$v.cfg" -db >"$tmp/send.log" 2>&1 &
		pids+=($!)
		up "$p"
		got=$(get --interface 127.0.0.77 "http://127.0.0.1:$p/")
		[ "$got" = "hello 127.0.0.77" ] && say "haproxy send-proxy v$v, weir proxy-in and proxy-out:v$v, haproxy accept-proxy: $got" || fail "PROXY v$v: $got: $(cat "$log")"
		grep -q 'open .*127\.0\.0\.77:' "$log" && say "weir's log has the client: $(grep -m1 'open .*127\.0\.0\.77' "$log")" || fail "weir's log: $(cat "$log")"
		got=$(get "http://127.0.0.1:$via/")
		[[ $got == *hello* ]] && fail "no PROXY header: $got" || say "no PROXY header, refused: $(grep -m1 'no connection' "$log")"
	done
}

test_names() {
	have strace || return
	origin || return
	local proxy
	for proxy in socks5 connect socks4a; do
		on=+$proxy serve dial
		printf 'GET / HTTP/1.0\r\n\r\n' | strace -f -qq -e trace=openat,connect,sendto,sendmsg,sendmmsg -o "$tmp/calls" \
			"$tmp/weir" -q - "127.0.0.1:$at+$proxy:localhost:$web" >"$tmp/page"
		grep -q hello "$tmp/page" || fail "names, $proxy: $(cat "$tmp/page")"
		if grep -E 'resolv\.conf|/etc/hosts|nsswitch|htons\(53\)' "$tmp/calls"; then
			fail "names, $proxy: the client looked for a name that the proxy resolves"
		else
			say "names: weir asks a $proxy proxy for localhost: no hosts file, no resolver, no packet to port 53 ($(wc -l <"$tmp/calls") calls looked at)"
		fi
	done
}

run_tests "curl password ssh microsocks dante tinyproxy chain haproxy names" "$@"
