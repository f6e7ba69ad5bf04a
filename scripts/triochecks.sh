#!/usr/bin/env bash
# Runs trio's checks of streams (check_half_closeable_stream, check_two_way_stream)
# with pairs of streams that are connected by one weir or several: through every kind
# of endpoint and every layer, TLS included, on every backend. Each check has 180 s
# and gets one line. Programs that are not installed are skipped, and named. The exit
# code is 1 if anything failed. scripts/triochecks.py says what is checked and how.
#
#   scripts/triochecks.sh [-v] [--list] [NAME...]    without names all combinations
#   BACKENDS="epoll epoll-et uring portable"         on these backends
#   JOBS=3      how many run at a time: they wait most of the time. One that was too
#               slow then is run once more alone
#   SHARD=K/N   only every Nth, beginning with the Kth; each combination on one
#               backend then, another one with each K
cd "$(dirname "$0")/.."
. scripts/lib.sh

# Debian has trio for its own Python, which may not be the first one in PATH.
python=
for p in /usr/bin/python3 python3; do
	if "$p" -c 'import trio.testing' 2>/dev/null; then
		python=$p
		break
	fi
done
[ -n "$python" ] || {
	say "skipped: trio (python3-trio) is not installed"
	exit 0
}
have openssl || exit 0

# certify NAME: a certificate and key for localhost, signed by the authority.
certify() {
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$tmp/certs/$1.key" -out "$tmp/certs/$1.csr" -subj "/CN=$1" 2>/dev/null &&
		openssl x509 -req -in "$tmp/certs/$1.csr" -CA "$tmp/certs/ca.pem" -CAkey "$tmp/certs/ca.key" -CAcreateserial -days 30 \
			-extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") -out "$tmp/certs/$1.pem" 2>/dev/null
}

mkdir "$tmp/certs" "$tmp/runs"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$tmp/certs/ca.key" -out "$tmp/certs/ca.pem" -days 30 -subj "/CN=test authority" 2>/dev/null &&
	certify server && certify client && echo secret >"$tmp/certs/password" || {
	fail "openssl cannot make certificates"
	verdict
}

# A machine may forbid io_uring.
backends=
for b in ${BACKENDS:-epoll epoll-et uring portable}; do
	said=$(WEIR_BACKEND=$b "$tmp/weir" - tcp:127.0.0.1:1 </dev/null 2>&1)
	if [[ $said == *refused* ]]; then
		backends+=" $b"
	else
		say "skipped: $b does not work here: $said"
		skipped+=("$b")
	fi
done
"$python" -B scripts/triochecks.py "$tmp/weir" "$tmp/certs" "$tmp/runs" --backends "${backends# }" --jobs "${JOBS:-3}" ${SHARD:+--shard "$SHARD"} "$@" ||
	fail "trio's checks"
verdict
