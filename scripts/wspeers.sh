#!/usr/bin/env bash
# Puts weir's WebSocket against npm's ws, on loopback, as server and as client,
# plain and compressed: messages of 0 bytes to 10 MiB, in one frame and in
# fragments, pings, close codes; and the command's +ws on either side of it.
# Programs that are not installed are skipped, and named. The exit code is 1 if
# anything failed.
#
#   scripts/wspeers.sh
cd "$(dirname "$0")/.."
. scripts/lib.sh

have node npm || exit 0
go build -o "$tmp/wsecho" ./examples/wsecho || exit 1
(cd "$tmp" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund ws@8 >/dev/null) || {
	echo "skipped: npm cannot install ws"
	exit 0
}

# run NAME COMMAND...: one test.
run() {
	local name=$1
	shift
	if timeout 60 "$@" >"$tmp/out" 2>&1; then
		echo "ok: $name: $(tail -1 "$tmp/out")"
	else
		fail "$name"
		cat "$tmp/out"
	fi
}

# serve PORT COMMAND...: a server, awaited.
serve() {
	local port=$1 i
	shift
	"$@" >>"$tmp/servers" 2>&1 &
	pids+=($!)
	for i in $(seq 1 200); do
		if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 0; fi
		sleep 0.05
	done
	echo "FAILED: nothing listens on $port"
	cat "$tmp/servers"
	exit 1
}

# A client: what it sends must come back, with its kind.
cat >"$tmp/client.js" <<'JS'
const WebSocket = require('ws');
const [url, deflate, mode] = process.argv.slice(2);
const ws = new WebSocket(url, ['echo'], { perMessageDeflate: deflate === '1', maxPayload: 32 << 20 });
const sizes = [0, 1, 125, 126, 65535, 65536, 1 << 20, 10 << 20];
const fail = (m) => { console.error(m); process.exit(1); };
let at = 0, pongs = 0, got = [], stream = mode === 'stream';
const make = (n, text) => {
  const b = Buffer.alloc(n);
  for (let i = 0; i < n; i++) b[i] = text ? 97 + i % 26 : (i * 2654435761 >>> 11) & 255;
  return b;
};
let want;
function next() {
  if (at === sizes.length * 4) {
    if (!stream && pongs === 0) fail('no pong came');
    ws.close(1000, 'done');
    return;
  }
  const n = sizes[at >> 2], text = (at & 1) === 0, fragments = (at & 2) !== 0;
  want = make(n, text);
  got = [];
  if (fragments && n > 3) {
    const step = Math.ceil(n / 7);
    for (let i = 0; i < n; i += step) {
      ws.send(want.subarray(i, Math.min(i + step, n)), { binary: !text, fin: i + step >= n, compress: deflate === '1' });
      if (i === 0) ws.ping('are you there');
    }
  } else {
    ws.send(want, { binary: !text });
  }
  if (stream && n === 0) { at++; next(); }
}
ws.on('open', next);
ws.on('pong', (p) => { if (p.toString() !== 'are you there') fail('another pong'); pongs++; });
ws.on('message', (data, binary) => {
  if (!stream && binary === ((at & 1) === 0)) fail('the kind changed');
  got.push(data);
  const all = Buffer.concat(got);
  if (stream && all.length < want.length) return;
  if (!all.equals(want)) fail(`${all.length} other bytes came back for ${want.length}`);
  at++;
  next();
});
ws.on('error', (e) => fail(e));
ws.on('close', (code) => {
  if (at !== sizes.length * 4 || code !== 1000) fail(`closed with ${code} after ${at}`);
  console.log(`${at} messages, ${pongs} pongs, closed with ${code}${ws.extensions ? ', ' + ws.extensions : ''}`);
});
JS

# A server: an echo in fragments, which pings, and closes with a code on request.
cat >"$tmp/server.js" <<'JS'
const { WebSocketServer } = require('ws');
const [port, deflate] = process.argv.slice(2);
const wss = new WebSocketServer({ host: '127.0.0.1', port: +port, perMessageDeflate: deflate === '1', maxPayload: 32 << 20 });
wss.on('connection', (ws) => {
  ws.on('error', () => {});
  ws.on('message', (data, binary) => {
    if (data.toString('latin1', 0, 5) === 'close') return ws.close(+data.toString().slice(5), 'as asked');
    const step = Math.max(1, Math.ceil(data.length / 5));
    if (data.length === 0) return ws.send(data, { binary });
    for (let i = 0; i < data.length; i += step) {
      ws.send(data.subarray(i, Math.min(i + step, data.length)), { binary, fin: i + step >= data.length });
      if (i === 0) ws.ping('x');
    }
  });
});
JS

sizes=0,1,125,126,65535,65536,1048576,10485760
port=$((20000 + RANDOM % 10000))
next() { port=$((port + 1)); }

for deflate in 0 1; do
	flag=
	[ $deflate = 1 ] && flag=-compress
	what=$([ $deflate = 1 ] && echo compressed || echo plain)

	next
	serve $port "$tmp/wsecho" $flag 127.0.0.1:$port
	run "npm ws, client of weir, $what" node "$tmp/client.js" ws://127.0.0.1:$port/ $deflate

	next
	serve $port node "$tmp/server.js" $port $deflate
	js=$port
	run "npm ws, server of weir, $what" "$tmp/wsecho" $flag -send $sizes 127.0.0.1:$js

	# The command as a client of npm's server: a stream, and its end.
	next
	layer=ws option=
	[ $deflate = 1 ] && layer=ws,compress option=,compress
	serve $port "$tmp/weir" --quiet $port 127.0.0.1:$js+$layer
	relay=$port
	head -c 3000000 /dev/urandom >"$tmp/data"
	run "weir PORT HOST:PORT+$layer to npm ws" bash -c "exec 3<>/dev/tcp/127.0.0.1/$relay
		cat '$tmp/data' >&3 & head -c 3000000 <&3 | cmp - '$tmp/data' && echo 3000000 bytes came back"

	# And as a server that npm's client talks to, with another weir behind it.
	next
	serve $port "$tmp/weir" --quiet $port+ws:/tunnel,protocol=echo$option 127.0.0.1:$js+$layer
	run "npm ws, client of weir PORT+ws:/tunnel,protocol=echo$option before npm ws" node "$tmp/client.js" ws://127.0.0.1:$port/tunnel $deflate stream
done

# The peer's close code is the reason.
run "a close code" bash -c "printf close1011 | '$tmp/weir' - 127.0.0.1:$js+ws; [ \$? = 1 ] && echo exit code 1"

verdict
