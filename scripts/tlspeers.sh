#!/usr/bin/env bash
# Puts weir's TLS against other people's, on loopback: openssl s_client and
# s_server, curl, stunnel, gnutls-cli and gnutls-serv, nginx; tar through it both
# ways; TLS over two pipes between two processes; certificates replaced on disk
# while clients come. Programs that are not installed are skipped, and named. The
# exit code is 1 if anything failed.
#
#   scripts/tlspeers.sh [NAME...]     without names all of them:
#   clients servers clientcerts resume tar pipes reload
cd "$(dirname "$0")/.."
. scripts/lib.sh

# certify NAME SAN: a certificate and key signed by the authority.
certify() {
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$tmp/$1.key" -out "$tmp/$1.csr" -subj "/CN=$1" 2>/dev/null &&
		openssl x509 -req -in "$tmp/$1.csr" -CA "$tmp/ca.pem" -CAkey "$tmp/ca.key" -CAcreateserial -days 30 \
			-extfile <(echo "subjectAltName=$2") -out "$tmp/$1.pem" 2>/dev/null || fail "openssl cannot make certificates"
}

# backend starts nginx: plain on $http, TLS on $https, only TLS 1.2 on $https12,
# and TLS that wants a client certificate on $mtls.
backend() {
	[ -n "${http:-}" ] && return
	have nginx || return 1
	free && http=$port && free && https=$port && free && https12=$port && free && mtls=$port
	mkdir -p "$tmp/www"
	head -c 3000000 /dev/urandom >"$tmp/www/big"
	echo hello >"$tmp/www/index.html"
	cat >"$tmp/nginx.conf" <<-CONF
		daemon off; worker_processes 1; pid $tmp/nginx.pid; error_log $tmp/nginx.log;
		user $(id -un);
		events { worker_connections 256; }
		http { access_log off; client_body_temp_path $tmp; proxy_temp_path $tmp; fastcgi_temp_path $tmp; uwsgi_temp_path $tmp; scgi_temp_path $tmp;
		  ssl_certificate $tmp/server.pem; ssl_certificate_key $tmp/server.key; root $tmp/www;
		  server { listen 127.0.0.1:$http; }
		  server { listen 127.0.0.1:$https ssl; }
		  server { listen 127.0.0.1:$https12 ssl; ssl_protocols TLSv1.2; }
		  server { listen 127.0.0.1:$mtls ssl; ssl_client_certificate $tmp/ca.pem; ssl_verify_client on; } }
	CONF
	nginx -c "$tmp/nginx.conf" 2>"$tmp/nginx.err" &
	pids+=($!)
	up "$mtls"
}

# page CMD...: sends a request to the command; it must print the page.
page() { printf 'GET / HTTP/1.0\r\nHost: localhost\r\n\r\n' | "$@" 2>"$tmp/page.err" | grep -q '^hello'; }

# asked CMD...: like page, for a client that stops reading when its input ends.
asked() { { printf 'GET / HTTP/1.0\r\nHost: localhost\r\n\r\n'; sleep 1; } | "$@" 2>"$tmp/page.err" | grep -q '^hello'; }

# Example 3: weir is the server.
test_clients() {
	backend || return
	start server "tcp-listen:127.0.0.1:0+tls,cert=$tmp/server.pem,key=$tmp/server.key" "127.0.0.1:$http" || return
	local p=$port v
	if have curl; then
		for v in 1.2 1.3; do
			curl -s --cacert "$tmp/ca.pem" --tls-max "$v" "https://localhost:$p/big" | cmp - "$tmp/www/big" || fail "clients: curl, TLS $v"
		done
		local args=() i
		for i in $(seq 100); do args+=("https://localhost:$p/?$i"); done
		[ "$(curl -s --cacert "$tmp/ca.pem" --parallel --parallel-max 20 "${args[@]}" 2>/dev/null | grep -c hello)" = 100 ] || fail "clients: curl, 100 pages, 20 at once"
		curl -s "https://localhost:$p/" >/dev/null 2>&1 && fail "clients: curl accepts an authority that it does not know"
		say "clients: curl"
	fi
	for v in -tls1_2 -tls1_3; do
		asked openssl s_client -quiet -verify_return_error -CAfile "$tmp/ca.pem" "$v" -connect "localhost:$p" || fail "clients: openssl s_client $v: $(tail -1 "$tmp/page.err")"
	done
	# New keys, asked for in the middle of a request (RFC 8446, 4.6.3).
	{ printf 'GET / HTTP/1.0\r\n'; sleep 0.3; echo K; sleep 0.3; echo k; sleep 0.3; printf 'Host: localhost\r\n\r\n'; sleep 1; } |
		openssl s_client -CAfile "$tmp/ca.pem" -connect "localhost:$p" 2>/dev/null | grep -q '^hello' || fail "clients: openssl s_client, new keys"
	say "clients: openssl s_client"
	if have gnutls-cli; then
		asked gnutls-cli --x509cafile "$tmp/ca.pem" -p "$p" localhost || fail "clients: gnutls-cli: $(tail -1 "$tmp/page.err")"
		say "clients: gnutls-cli"
	fi
	if have stunnel4 curl; then
		free
		cat >"$tmp/stunnel.conf" <<-CONF
			foreground = yes
			pid =
			[c]
			client = yes
			accept = 127.0.0.1:$port
			connect = 127.0.0.1:$p
			CAfile = $tmp/ca.pem
			verifyChain = yes
			checkHost = localhost
		CONF
		local s=$port
		stunnel4 "$tmp/stunnel.conf" >"$tmp/stunnel.log" 2>&1 &
		pids+=($!)
		up "$s"
		curl -s "http://127.0.0.1:$s/big" | cmp - "$tmp/www/big" || fail "clients: stunnel"
		say "clients: stunnel"
	fi
}

# Examples 2 and 4: weir is the client.
test_servers() {
	backend || return
	local p v
	# nginx takes the end of the input for a hang-up: it is told after its reply.
	for p in "$https" "$https12"; do
		page "$tmp/weir" -q - "localhost:$p+tls,ca=$tmp/ca.pem" || fail "servers: nginx: $(cat "$tmp/page.err")"
		printf 'GET /big HTTP/1.0\r\n\r\n' | "$tmp/weir" -q - "localhost:$p+tls,ca=$tmp/ca.pem" | sed '1,/^\r$/d' | cmp - "$tmp/www/big" || fail "servers: nginx, 3 MB"
	done
	page "$tmp/weir" -q - "localhost:$https+tls" && fail "servers: an authority that is not known was accepted"
	grep -q 'CN=test authority' "$tmp/page.err" || fail "servers: the refusal does not name the authority: $(cat "$tmp/page.err")"
	page "$tmp/weir" -q - "localhost:$https+tls,ca=$tmp/ca.pem,name=elsewhere.example" && fail "servers: a wrong name was accepted"
	say "servers: nginx"
	for v in -tls1_2 -tls1_3; do
		free && p=$port
		openssl s_server -quiet -accept "$p" -cert "$tmp/server.pem" -key "$tmp/server.key" -rev "$v" >"$tmp/s_server" 2>&1 &
		pids+=($!)
		up "$p"
		[ "$({ echo stressed; sleep 1; } | "$tmp/weir" -q - "localhost:$p+tls,ca=$tmp/ca.pem" 2>/dev/null)" = desserts ] || fail "servers: openssl s_server $v: $(tail -1 "$tmp/s_server")"
		free && p=$port
		openssl s_server -quiet -accept "$p" -cert "$tmp/server.pem" -key "$tmp/server.key" -www "$v" >"$tmp/s_server" 2>&1 &
		pids+=($!)
		up "$p"
		printf 'GET / HTTP/1.0\r\n\r\n' | timeout 20 "$tmp/weir" -q - "localhost:$p+tls,ca=$tmp/ca.pem" 2>"$tmp/page.err" | grep -qi '</html>' || fail "servers: openssl s_server -www $v: $(cat "$tmp/page.err")"
		# A server that reads to the end and sends nothing: it is told of the end.
		free && p=$port
		openssl s_server -quiet -accept "$p" -naccept 1 -cert "$tmp/server.pem" -key "$tmp/server.key" "$v" < <(sleep 15) >"$tmp/s_got" 2>&1 &
		local sink=$!
		pids+=("$sink")
		up "$p"
		seq 10000 | timeout 20 "$tmp/weir" -q - "localhost:$p+tls,ca=$tmp/ca.pem,eof-wait=200ms" 2>"$tmp/page.err" || fail "servers: openssl s_server, the end, $v: $(cat "$tmp/page.err")"
		wait "$sink"
		seq 10000 | cmp - "$tmp/s_got" || fail "servers: openssl s_server got other bytes, $v"
	done
	say "servers: openssl s_server"
	if have gnutls-serv; then
		free && p=$port
		gnutls-serv -q --echo -p "$p" --x509certfile "$tmp/server.pem" --x509keyfile "$tmp/server.key" --disable-client-cert >"$tmp/gnutls" 2>&1 &
		pids+=($!)
		up "$p"
		[ "$({ echo echo; sleep 1; } | "$tmp/weir" -q - "localhost:$p+tls,ca=$tmp/ca.pem" 2>/dev/null)" = echo ] || fail "servers: gnutls-serv: $(tail -1 "$tmp/gnutls")"
		say "servers: gnutls-serv"
	fi
	if have stunnel4; then
		free && p=$port
		cat >"$tmp/stunnel2.conf" <<-CONF
			foreground = yes
			pid =
			[s]
			accept = 127.0.0.1:$p
			connect = 127.0.0.1:$http
			cert = $tmp/server.pem
			key = $tmp/server.key
		CONF
		stunnel4 "$tmp/stunnel2.conf" >"$tmp/stunnel2.log" 2>&1 &
		pids+=($!)
		up "$p"
		asked "$tmp/weir" -q - "localhost:$p+tls,ca=$tmp/ca.pem" || fail "servers: stunnel: $(cat "$tmp/page.err")"
		say "servers: stunnel"
	fi
}

# Examples 4 and 5: certificates of clients, on either side.
test_clientcerts() {
	backend || return
	page "$tmp/weir" -q - "localhost:$mtls+tls,ca=$tmp/ca.pem,cert=$tmp/billing.pem,key=$tmp/billing.key" || fail "clientcerts: nginx: $(cat "$tmp/page.err")"
	page "$tmp/weir" -q - "localhost:$mtls+tls,ca=$tmp/ca.pem" && fail "clientcerts: nginx let somebody without one in"
	say "clientcerts: nginx asks weir for one"
	have curl || return
	start mtls "tcp-listen:127.0.0.1:0+tls,cert=$tmp/server.pem,key=$tmp/server.key,client-ca=$tmp/ca.pem,allow-cn=billing,allow-uri=spiffe://corp.test/*" "127.0.0.1:$http" || return
	local who code
	for who in billing:0 spiffe:0 guest:1 none:1; do
		local args=()
		[ "${who%:*}" = none ] || args=(--cert "$tmp/${who%:*}.pem" --key "$tmp/${who%:*}.key")
		curl -s -o /dev/null --cacert "$tmp/ca.pem" ${args[@]+"${args[@]}"} "https://localhost:$port/"
		code=$?
		[ $((code > 0)) = "${who#*:}" ] || fail "clientcerts: curl as ${who%:*} ended with $code"
	done
	grep -q 'for CN guest, guest.test' "$tmp/mtls" || fail "clientcerts: weir does not say whom it refused: $(cat "$tmp/mtls")"
	say "clientcerts: weir asks curl for one, by common name and by SPIFFE ID"
}

# Sessions are resumed, in both versions.
test_resume() {
	backend || return
	start resume "tcp-listen:127.0.0.1:0+tls,cert=$tmp/server.pem,key=$tmp/server.key" "127.0.0.1:$http" || return
	local v
	for v in -tls1_2 -tls1_3; do
		asked openssl s_client -quiet -CAfile "$tmp/ca.pem" "$v" -sess_out "$tmp/session" -connect "localhost:$port" || fail "resume: the first connection, $v"
		{ printf 'GET / HTTP/1.0\r\n\r\n'; sleep 1; } | openssl s_client -CAfile "$tmp/ca.pem" "$v" -sess_in "$tmp/session" -connect "localhost:$port" 2>/dev/null | grep -q '^Reused' || fail "resume: openssl s_client $v"
	done
	say "resume: openssl s_client"
}

# tar through weir on both ends, there and back.
test_tar() {
	mkdir -p "$tmp/tree/deep/er"
	head -c 20000000 /dev/urandom >"$tmp/tree/deep/er/bytes"
	cp -r layer address "$tmp/tree/"
	tar -C "$tmp" -cf "$tmp/want.tar" tree
	: >"$tmp/tar.log"
	# There: the listener writes what arrives.
	"$tmp/weir" "tcp-listen:127.0.0.1:0+tls,cert=$tmp/server.pem,key=$tmp/server.key" - </dev/null >"$tmp/there.tar" 2>>"$tmp/tar.log" &
	local pid=$! p
	pids+=("$pid")
	until grep -q ready "$tmp/tar.log"; do sleep 0.02; done
	p=$(sed -n 's/.*ready [^ ]*:\([0-9]*\) .*/\1/p' "$tmp/tar.log" | head -1)
	tar -C "$tmp" -c tree | "$tmp/weir" -q - "localhost:$p+tls,ca=$tmp/ca.pem" || fail "tar: there: weir ended with $?"
	wait "$pid" || fail "tar: there: the listener ended with $?"
	cmp "$tmp/want.tar" "$tmp/there.tar" || fail "tar: other bytes came there"
	# Back: the listener reads.
	: >"$tmp/tar.log"
	tar -C "$tmp" -c tree | "$tmp/weir" "tcp-listen:127.0.0.1:0+tls,cert=$tmp/server.pem,key=$tmp/server.key" - >/dev/null 2>>"$tmp/tar.log" &
	pid=$!
	pids+=("$pid")
	until grep -q ready "$tmp/tar.log"; do sleep 0.02; done
	p=$(sed -n 's/.*ready [^ ]*:\([0-9]*\) .*/\1/p' "$tmp/tar.log" | head -1)
	"$tmp/weir" -q - "localhost:$p+tls,ca=$tmp/ca.pem" </dev/null >"$tmp/back.tar" || fail "tar: back: weir ended with $?"
	wait "$pid" || fail "tar: back: the listener ended with $?"
	cmp "$tmp/want.tar" "$tmp/back.tar" || fail "tar: other bytes came back"
	say "tar: $(stat -c %s "$tmp/want.tar") bytes there and back"
}

# Example 10's shape: TLS over standard input and output, two processes joined by
# two pipes.
test_pipes() {
	backend && have curl || return
	mkfifo "$tmp/up" "$tmp/down"
	"$tmp/weir" "stdio+tls-server,cert=$tmp/server.pem,key=$tmp/server.key" "127.0.0.1:$http" <"$tmp/up" >"$tmp/down" 2>"$tmp/pipes.server" &
	pids+=($!)
	# stdio belongs to the pipes, so that ready goes to a log of its own.
	: >"$tmp/pipes.client"
	"$tmp/weir" tcp-listen:127.0.0.1:0 "stdio+tls,ca=$tmp/ca.pem,name=localhost" >"$tmp/up" <"$tmp/down" 2>>"$tmp/pipes.client" &
	local pid=$!
	pids+=("$pid")
	until grep -q ready "$tmp/pipes.client"; do sleep 0.02; done
	port=$(sed -n 's/.*ready [^ ]*:\([0-9]*\) .*/\1/p' "$tmp/pipes.client" | head -1)
	curl -s -H 'Connection: close' "http://127.0.0.1:$port/big" | cmp - "$tmp/www/big" || fail "pipes: $(cat "$tmp/pipes.server" "$tmp/pipes.client")"
	wait "$pid" || fail "pipes: weir ended with $?: $(cat "$tmp/pipes.client")"
	say "pipes: a page of 3 MB through TLS over two pipes"
}

# Certificates are replaced while clients come: none is dropped, and new clients
# see the new certificate, however it was put in place.
test_reload() {
	backend && have curl || return
	mkdir -p "$tmp/v1" "$tmp/v2"
	cp "$tmp/server.pem" "$tmp/server.key" "$tmp/v1"
	certify server2 DNS:localhost,IP:127.0.0.1
	cp "$tmp/server2.pem" "$tmp/v2/server.pem"
	cp "$tmp/server2.key" "$tmp/v2/server.key"
	ln -s v1 "$tmp/live"
	start reload "tcp-listen:127.0.0.1:0+tls,cert=$tmp/live/server.pem,key=$tmp/live/server.key" "127.0.0.1:$http" || return
	local p=$port
	(
		n=0
		while [ ! -e "$tmp/enough" ]; do
			curl -s -o /dev/null --cacert "$tmp/ca.pem" "https://localhost:$p/" || echo "curl ended with $?"
			n=$((n + 1))
		done
		echo "$n" >"$tmp/loaded"
	) >"$tmp/reload.failures" &
	local load=$!
	pids+=("$load")
	served() { openssl s_client -connect "localhost:$p" -CAfile "$tmp/ca.pem" </dev/null 2>/dev/null | openssl x509 -noout -subject; }
	local before after i
	before=$(served)
	ln -s v2 "$tmp/live.new" && mv -T "$tmp/live.new" "$tmp/live"
	after=$(served)
	[ "$before" != "$after" ] || fail "reload: the directory's link was exchanged, and the certificate is still $before"
	for i in 1 2 3 4 5; do
		# A new key and certificate, one after the other, as certbot and others do.
		certify next DNS:localhost,IP:127.0.0.1
		cp "$tmp/next.key" "$tmp/v2/k" && mv "$tmp/v2/k" "$tmp/v2/server.key"
		sleep 0.1
		cp "$tmp/next.pem" "$tmp/v2/c" && mv "$tmp/v2/c" "$tmp/v2/server.pem"
		sleep 0.1
	done
	served | grep -q next || fail "reload: the files were replaced, and the certificate is $(served)"
	: >"$tmp/enough"
	wait "$load"
	[ -s "$tmp/reload.failures" ] && fail "reload: $(head -3 "$tmp/reload.failures")"
	say "reload: replaced six times under load; all of $(cat "$tmp/loaded") connections served"
}

have openssl || exit 1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$tmp/ca.key" -out "$tmp/ca.pem" -days 30 -subj "/CN=test authority" 2>/dev/null
certify server DNS:localhost,IP:127.0.0.1
certify billing DNS:billing.test
certify guest DNS:guest.test
certify spiffe URI:spiffe://corp.test/web
run_tests "clients servers clientcerts resume tar pipes reload" "$@"
