#!/usr/bin/env bash
# Asks real name servers, on loopback, with a zone of its own: unbound, dnsmasq,
# bind9 and knot. Each case is asked with weir dns and compared with the zone.
# Programs that are not installed are skipped, and named. The exit code is 1 if
# anything failed. Servers that can are asked over TLS too, if openssl is there to
# make a certificate.
#
#   scripts/dnspeers.sh [NAME...]     without names all of them:
#   unbound dnsmasq bind9 knot
#   LOAD=5   seconds of load on each that is up, with its queries per second; 0: none
cd "$(dirname "$0")/.."
. scripts/lib.sh

LOAD=${LOAD:-0}

big=
for i in $(seq 1 60); do big+=" \"text number $i; long enough that all of them do not fit into one datagram\""; done

# The zone in the form that bind9, knot and unbound read.
cat >"$tmp/zone" <<ZONE
\$ORIGIN weir.test.
\$TTL 300
@        SOA   ns root 1 3600 600 86400 60
@        NS    ns
ns       A     127.0.0.1
host     A     192.0.2.1
host     A     192.0.2.2
host     AAAA  2001:db8::1
alias    CNAME second
second   CNAME host
@        MX    10 mail
mail     A     192.0.2.3
_x._tcp  SRV   1 2 3 host
text     TXT   "one" "two"
big      TXT  $big
loop1    CNAME loop2
loop2    CNAME loop1
ZONE

# A certificate for 127.0.0.1 that is its own authority.
tls=
if command -v openssl >/dev/null && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
	-keyout "$tmp/key.pem" -out "$tmp/cert.pem" -subj /CN=dns -addext subjectAltName=IP:127.0.0.1 >/dev/null 2>&1; then
	tls=yes
fi

# answers PORT CMD...: runs a server and waits until it answers.
answers() {
	local port=$1
	shift
	"$@" >"$tmp/log" 2>&1 &
	pids+=($!)
	local i
	for i in $(seq 1 100); do
		"$tmp/weir" dns ns.weir.test. A --server "127.0.0.1:$port" >/dev/null 2>&1 && return 0
		kill -0 "${pids[-1]}" 2>/dev/null || break
		sleep 0.1
	done
	say "$1 does not answer:"
	cat "$tmp/log"
	return 1
}

up_unbound() {
	cat >"$tmp/unbound.conf" <<CONF
server:
  username: ""
  chroot: ""
  directory: "$tmp"
  pidfile: ""
  use-syslog: no
  interface: 127.0.0.1
  port: $1
  do-ip6: no
${tls:+  interface: 127.0.0.1@$(($1 + 10))
  tls-port: $(($1 + 10))
  tls-service-key: "$tmp/key.pem"
  tls-service-pem: "$tmp/cert.pem"}
  module-config: "iterator"
  do-not-query-localhost: no
  local-zone: "test." nodefault
auth-zone:
  name: "weir.test."
  zonefile: "$tmp/zone"
  for-downstream: yes
  for-upstream: yes
CONF
	answers "$1" unbound -d -c "$tmp/unbound.conf"
}

up_dnsmasq() {
	local args=() i
	for i in $(seq 1 60); do args+=("\"text number $i; long enough that all of them do not fit into one datagram\""); done
	local text
	text=$(printf ',%s' "${args[@]}")
	answers "$1" dnsmasq --keep-in-foreground --conf-file=/dev/null --no-hosts --no-resolv --user= --port="$1" \
		--listen-address=127.0.0.1 --bind-interfaces --local=/weir.test/ --local-ttl=300 --pid-file= \
		--host-record=ns.weir.test,127.0.0.1 --host-record=host.weir.test,192.0.2.1,2001:db8::1 \
		--host-record=host.weir.test,192.0.2.2 --cname=alias.weir.test,second.weir.test --cname=second.weir.test,host.weir.test \
		--mx-host=weir.test,mail.weir.test,10 --host-record=mail.weir.test,192.0.2.3 \
		--srv-host=_x._tcp.weir.test,host.weir.test,3,1,2 --txt-record=text.weir.test,one,two \
		--txt-record="big.weir.test${text//\"/}"
}

up_bind9() {
	local keys='' secure=''
	if [ -n "$tls" ]; then
		keys="tls own { key-file \"$tmp/key.pem\"; cert-file \"$tmp/cert.pem\"; };"
		secure="listen-on port $(($1 + 10)) tls own { 127.0.0.1; };"
	fi
	cat >"$tmp/named.conf" <<CONF
$keys
options {
  directory "$tmp";
  listen-on port $1 { 127.0.0.1; };
  $secure
  listen-on-v6 { none; };
  pid-file none;
  session-keyfile none;
  recursion no;
};
controls { };
zone "weir.test" { type primary; file "$tmp/zone"; };
CONF
	answers "$1" named -g -c "$tmp/named.conf"
}

up_knot() {
	mkdir -p "$tmp/knot"
	cat >"$tmp/knot.conf" <<CONF
server:
  rundir: "$tmp/knot"
  listen: 127.0.0.1@$1
database:
  storage: "$tmp/knot"
zone:
  - domain: weir.test
    file: "$tmp/zone"
CONF
	answers "$1" knotd -c "$tmp/knot.conf"
}

# want SERVER CODE "NAME TYPE FLAGS" PATTERN...: asks, and compares the exit code
# and the lines of the answer, in any order; a pattern is a shell pattern.
want() {
	local server=$1 code=$2 question=$3 out rc pattern
	shift 3
	out=$("$tmp/weir" dns $question --server "$server" -v 2>"$tmp/err")
	rc=$?
	if [ "$rc" != "$code" ]; then
		bad "$question: code $rc, not $code: $out $(tail -1 "$tmp/err")"
		return
	fi
	for pattern; do
		case $pattern in
		'err:'*) grep -qF -- "${pattern#err:}" "$tmp/err" || bad "$question: no \"${pattern#err:}\" in: $(cat "$tmp/err")" ;;
		*) grep -qF -- "$pattern" <<<"$out" || bad "$question: no \"$pattern\" in: $out" ;;
		esac
	done
}

bad() {
	local text="$*"
	say "FAILED: $peer: ${text:0:400}"
	failed+=("$peer")
}

cases() {
	local s=127.0.0.1:$1
	want "$s" 0 "host.weir.test." 192.0.2.1 192.0.2.2 2001:db8::1
	want "$s" 0 "host.weir.test. A" "host.weir.test. 300 IN A 192.0.2.1"
	want "$s" 0 "HOST.Weir.Test. AAAA" "2001:db8::1"
	want "$s" 0 "alias.weir.test." 192.0.2.1 2001:db8::1
	want "$s" 0 "alias.weir.test. A" "alias.weir.test. 300 IN CNAME second.weir.test." "second.weir.test. 300 IN CNAME host.weir.test." "IN A 192.0.2.2"
	want "$s" 0 "weir.test. MX" "IN MX 10 mail.weir.test."
	want "$s" 0 "_x._tcp.weir.test. SRV" "IN SRV 1 2 3 host.weir.test."
	want "$s" 0 "text.weir.test. TXT" '"one" "two"'
	want "$s" 0 "big.weir.test. TXT" "text number 1;" "text number 60;" "err:truncated: over TCP"
	want "$s" 1 "host.weir.test. TXT" "err:no records of type TXT"
	want "$s" 1 "nobody.weir.test." "err:there is no such name"
	want "$s" 1 "a..b" "err:not a host name"
	if [ "$peer" != unbound ]; then # which asks on
		want "$s" 1 "host.elsewhere.example. A" "err:REFUSED" "err:no server could answer"
	fi
	if [ "$peer" != dnsmasq ]; then # which refuses to load a loop
		want "$s" 1 "loop1.weir.test. A" "err:lookup of loop1.weir.test."
	fi
}

# secure asks over TLS (RFC 7858): believed only with the right authority.
secure() {
	local at=127.0.0.1:$(($1 + 10))
	also=
	[ -n "$tls" ] || return
	case $peer in dnsmasq | knot) return ;; esac # which have no TLS, knot before 3.4
	also=", over TLS too"
	local s="$at+tls,ca=$tmp/cert.pem"
	want "$s" 0 "host.weir.test." 192.0.2.1 192.0.2.2 2001:db8::1 "err:tcp+tls $at"
	want "$s" 0 "alias.weir.test. A" "second.weir.test. 300 IN CNAME host.weir.test." "IN A 192.0.2.2"
	want "$s" 0 "big.weir.test. TXT" "text number 1;" "text number 60;"
	want "$s" 1 "nobody.weir.test." "err:there is no such name"
	want "$at+tls" 1 "host.weir.test." "err:unknown authority"
	want "$s,name=other.test" 1 "host.weir.test." "err:other.test"
}

load() {
	local s=127.0.0.1:$1
	[ "$LOAD" = 0 ] && return
	(cd bench && go run ./cmd/dnsload -server "$s" -name host.weir.test. -depth 64 -for "${LOAD}s") || bad "load"
}

run() {
	peer=$1
	local daemon=$2 port=$3
	if ! command -v "$daemon" >/dev/null; then
		say "skipped: $peer is not installed"
		skipped+=("$peer")
		return
	fi
	local before=${#failed[@]}
	if "up_$peer" "$port"; then
		cases "$port"
		secure "$port"
		[ "${#failed[@]}" = "$before" ] && say "$peer: all cases right$also"
		load "$port"
		kill "${pids[-1]}"
		wait "${pids[-1]}" 2>/dev/null
	else
		bad "did not start"
	fi
}

base=$((20000 + RANDOM % 10000))
for peer in "${@:-unbound dnsmasq bind9 knot}"; do
	for p in $peer; do
		case $p in
		unbound) run unbound unbound $((base + 1)) ;;
		dnsmasq) run dnsmasq dnsmasq $((base + 2)) ;;
		bind9) run bind9 named $((base + 3)) ;;
		knot) run knot knotd $((base + 4)) ;;
		*)
			say "no such peer: $p"
			exit 2
			;;
		esac
	done
done
verdict
