#!/usr/bin/env bash
# Puts weir between two transmission-daemons, over uTP alone: they run in a network
# namespace of their own, where a rule of routing refuses TCP to the ports of peers
# (transmission 3 has no switch for that). A tracker of this script's tells the one that downloads of weir, and
# no one else. What arrived is compared, and transmission's word taken that its peer
# speaks uTP.
#
#   scripts/utptransmission.sh          8 MiB; needs root, or user namespaces
#   MIB=50 scripts/utptransmission.sh
if [ -z "${WEIR_NAMESPACE-}" ]; then
	export WEIR_NAMESPACE=1
	unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
	as=-n
	[ "$(id -u)" = 0 ] || as=-rn
	exec unshare $as "$0" "$@"
fi
cd "$(dirname "$0")/.."
. scripts/lib.sh
have transmission-daemon transmission-create transmission-remote python3 ip cmp || verdict
mib=${MIB:-8}

ip link set lo up
# transmission takes no peers of 127.0.0.0/8.
for n in 1 2 3; do ip addr add "10.214.0.$n/32" dev lo; done
for to in 51413 51414 16890; do
	ip rule add pref 10 ipproto tcp dport "$to" prohibit || { say "skipped: no routing by protocol here"; exit 0; }
done
ip rule add pref 100 lookup local && ip rule del pref 0 lookup local || exit 1

mkdir "$tmp/has" "$tmp/wants"
head -c "${mib}M" /dev/urandom >"$tmp/has/file"
transmission-create -t http://127.0.0.1:6969/announce -o "$tmp/file.torrent" "$tmp/has/file" >"$tmp/create" 2>&1 || { fail "transmission-create: $(tail -1 "$tmp/create")"; verdict; }

python3 - <<'TRACKER' >"$tmp/tracker" 2>&1 &
import http.server, socket, struct, urllib.parse
WEIR = socket.inet_aton("10.214.0.3") + struct.pack(">H", 16890)
class Tracker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query, errors="replace")
        peers = WEIR if asked.get("port") == ["51414"] else b""
        body = b"d8:intervali5e12:min intervali5e5:peers%d:%se" % (len(peers), peers)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", 6969), Tracker).serve_forever()
TRACKER
pids+=($!)
up 6969

# daemon NAME IP PORT RPC: starts one and adds the torrent.
daemon() {
	mkdir "$tmp/$1.conf"
	cat >"$tmp/$1.conf/settings.json" <<-SETTINGS
		{"bind-address-ipv4": "$2", "peer-port": $3, "peer-port-random-on-start": false, "rpc-port": $4, "rpc-bind-address": "127.0.0.1",
		"download-dir": "$tmp/$1", "utp-enabled": true, "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false,
		"port-forwarding-enabled": false, "encryption": 0, "rpc-authentication-required": false, "message-level": 2}
	SETTINGS
	transmission-daemon -f -g "$tmp/$1.conf" >"$tmp/$1.log" 2>&1 &
	pids+=($!)
	up "$4"
	transmission-remote "127.0.0.1:$4" -a "$tmp/file.torrent" >"$tmp/$1.remote" 2>&1 || fail "transmission-remote: $(tail -1 "$tmp/$1.remote")"
}

# whole RPC: whether it has all of the file.
whole() { transmission-remote "127.0.0.1:$1" -t 1 -i 2>/dev/null | grep -q 'Percent Done: 100%'; }

start relay utp-listen:10.214.0.3:16890 utp:10.214.0.1:51413,own-port || verdict
daemon has 10.214.0.1 51413 9091
for _ in $(seq 300); do whole 9091 && break; sleep 0.1; done
begin=$(date +%s.%N)
daemon wants 10.214.0.2 51414 9092
for _ in $(seq 900); do
	transmission-remote 127.0.0.1:9092 -t 1 -ip 2>/dev/null | grep 10.214.0.3 >>"$tmp/peers"
	whole 9092 && break
	sleep 0.1
done
took=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
flags=$(awk '{print $2}' "$tmp/peers" | sort | uniq -c | sort -rn | awk 'NR == 1 {print $2}')
if whole 9092 && cmp -s "$tmp/has/file" "$tmp/wants/file"; then
	say "passed: transmission $(transmission-daemon --version 2>&1 | awk '{print $2}'): $mib MiB through weir in $took s, its peer's flags \"$flags\" (T is uTP)"
	case $flags in *T*) ;; *) fail "transmission does not say that its peer speaks uTP" ;; esac
else
	fail "transmission: $(transmission-remote 127.0.0.1:9092 -t 1 -i 2>&1 | grep -E 'Percent|State|Error' | tr '\n' ' '); weir: $(tail -2 "$log"); $(tail -2 "$tmp/wants.log")"
fi
verdict
