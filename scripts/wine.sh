#!/usr/bin/env bash
# Runs tests of the Windows build under wine, which stands in for Windows: it shows that the
# code calls what Windows has and gets along with the answers, never that Windows answers so,
# nor how fast. docs/design/iocp.md says what wine cannot show. First the suite of backends on
# iocp with its own tests, then streams, datagrams and guests, then a relay by weir.exe. It needs wine for 64-bit programs, python3 for a
# DLL that old wines lack, and no network; as root it installs wine where it can, and where
# there is none it says so and exits with 0.
#
#   scripts/wine.sh                    all of it, some ten minutes
#   scripts/wine.sh -test.run X ...    the iocp backend's tests with these flags instead
#   PACKAGE=./tests/contract           whose tests, with flags
#   BACKENDS="iocp portable"           on which backends streams and datagrams run; iocp
#   MINUTES=10                         how long each of them may take
#   KEEP=DIR                           wine's prefix is kept there
cd "$(dirname "$0")/.."
. scripts/lib.sh
export CGO_ENABLED=0

skip() {
	say "skipped: $*"
	exit 0
}

# find_wine sets wine to a program that runs 64-bit ones.
find_wine() {
	local w
	for w in "$(command -v wine64)" /usr/lib/wine/wine64 "$(command -v wine)"; do
		[ -n "$w" ] && [ -x "$w" ] && wine=$w && return 0
	done
	return 1
}

if ! find_wine; then
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || skip "wine is not installed, and only root can install it"
	say "installing wine64"
	apt-get update -q >/dev/null 2>&1
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends wine64 wine >"$tmp/apt" 2>&1 && find_wine ||
		skip "wine64 cannot be installed: $(tail -1 "$tmp/apt")"
fi

export WINEDEBUG=-all WINEARCH=win64 WINEPREFIX=${KEEP:-$tmp/wine}
server=$(dirname "$(readlink -f "$wine")")/wineserver64
[ -x "$server" ] || server=wineserver
started=false
end_wine() { ! $started || timeout 60 "$server" -k 2>/dev/null; }
trap 'end_wine; cleanup' EXIT

# forwarder FILE writes a bcryptprimitives.dll, which Go's runtime asks for random numbers and
# wine has from version 9 on: one export, ProcessPrng, that leads to an older function with the
# same arguments.
forwarder() {
	python3 - "$1" <<-'PYTHON'
		import struct, sys
		dll, name, to = "bcryptprimitives.dll", "ProcessPrng", "advapi32.SystemFunction036"
		base, at = 0x1000, 0x1000 + 40 + 4 + 4 + 2
		names = at, at + len(dll) + 1, at + len(dll) + len(name) + 2
		# An address inside the export directory is no code, but names what stands for it.
		d = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, names[0], 1, 1, 1, base + 40, base + 44, base + 48)
		d += struct.pack("<IIH", names[2], names[1], 0) + b"".join(s.encode() + b"\0" for s in (dll, name, to))
		head = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64) + b"PE\0\0"
		head += struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x2022)
		head += struct.pack("<HBBIIIII", 0x20B, 14, 0, 0, 512, 0, 0, base)
		head += struct.pack("<QIIHHHHHHIIIIHHQQQQII", 0x180000000, 4096, 512, 6, 0, 0, 0, 6, 0, 0, 8192, 512, 0, 2, 0x160,
		                    1 << 20, 4096, 1 << 20, 4096, 0, 16)
		head += struct.pack("<II", base, len(d)) + bytes(8 * 15)
		head += b".rdata\0\0" + struct.pack("<IIIIIIHHI", len(d), base, 512, 512, 0, 0, 0, 0, 0x40000040)
		open(sys.argv[1], "wb").write(head.ljust(512, b"\0") + d.ljust(512, b"\0"))
	PYTHON
}

say "wine stands in for Windows: $("$wine" --version)"
started=true
if [ ! -e "$WINEPREFIX/system.reg" ]; then
	timeout 300 "$wine" wineboot -i >"$tmp/boot" 2>&1 || { fail "wineboot: $(tail -3 "$tmp/boot")"; exit 1; }
fi
random=$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll
if [ ! -e "$random" ]; then
	have python3 || skip "this wine has no bcryptprimitives.dll"
	forwarder "$random" || { fail "bcryptprimitives.dll"; exit 1; }
fi

# under PACKAGE DIR FLAGS...: builds the tests of PACKAGE for Windows and runs them in DIR.
under() {
	local package=$1 dir=$2 exe
	shift 2
	exe=$tmp/$(echo "$package" | tr -c 'a-z\n' _).exe
	[ -e "$exe" ] || GOOS=windows GOARCH=amd64 go test -c -o "$exe" "$package" || { fail "$package does not build"; return 1; }
	(cd "$dir" && timeout "$((60 * ${MINUTES:-10} + 60))" "$wine" "$exe" -test.timeout "${MINUTES:-10}m" "$@" </dev/null)
}

if [ $# -gt 0 ]; then
	under "${PACKAGE:-./internal/backend/iocp}" "${PACKAGE:-./internal/backend/iocp}" "$@"
	exit
fi

# What is left out, as wine 8 does not do it, whoever asks:
#   unix, abstract, unixgram   it has no UNIX sockets
#   Reset, 29_reset_*          it shuts a socket down before it closes it, so that the peer
#                              of a reset may read an end
#   DatagramConnected          what ICMP says about a connected socket never arrives
# and since Windows does not tell how much of what was written has not left:
#   25_Reset_comes_after       a connection that ends with a reset may lose its last bytes
lacks='^TestContract$/./^(Reset|DatagramConnected)$|^TestContract$/./.*/^(unix|abstract|unixgram)$'
streams='^TestStreams$/./^tcp$/^(29_reset_while_reading|29_reset_after_our_half-close|25_Reset_comes_after_everything_written)$'
packets='^(TestPacketEndpoint|TestPacketBuffer|TestTooLongDatagram|TestOneTurnOfDatagrams)$'
loops='^(TestEcho|TestRefused|TestCloseFlushes|TestGuest|TestGuestStirred|TestWaiter|TestForward|TestGroupSpreads)$'

say "iocp: the suite of backends, and its own tests"
under ./internal/backend/iocp internal/backend/iocp -test.skip "$lacks" || fail "internal/backend/iocp"
for backend in ${BACKENDS:-iocp}; do
	say "$backend: streams"
	WEIR_BACKEND=$backend under ./tests/contract tests/contract -test.run "^TestStreams\$/^$backend\$/^tcp\$" -test.skip "$streams" ||
		fail "streams on $backend"
	say "$backend: datagrams, loops as guests, ends"
	WEIR_BACKEND=$backend under ./tests/contract tests/contract -test.run "$packets|$loops" -test.skip '^TestPacketEndpoint$/./unixgram$' ||
		fail "datagrams on $backend"
done

# relay: the command's own build for Windows between standard input and a weir of this system.
say "weir.exe between its standard input and weir here"
if go build -o "$tmp/weir" ./cmd/weir && GOOS=windows GOARCH=amd64 go build -o "$tmp/weir.exe" ./cmd/weir; then
	head -c 3000000 /dev/urandom >"$tmp/in"
	log=$tmp/here
	: >"$log"
	timeout 120 "$tmp/weir" tcp-listen:127.0.0.1:0 - </dev/null >"$tmp/out" 2>"$log" &
	here=$!
	pids+=("$here")
	until grep -q ready "$log" || ! kill -0 "$here" 2>/dev/null; do sleep 0.05; done
	port=$(sed -n 's/.*ready [^ ]*:\([0-9]*\).*/\1/p' "$log" | head -1)
	WEIR_BACKEND=iocp timeout 120 "$wine" "$tmp/weir.exe" - "tcp:127.0.0.1:$port" <"$tmp/in" >"$tmp/back" 2>"$tmp/there" ||
		fail "weir.exe: $(tail -1 "$tmp/there")"
	wait "$here"
	cmp "$tmp/in" "$tmp/out" || fail "weir.exe: other bytes arrived"
else
	fail "weir does not build"
fi

[ ${#failed[@]} -eq 0 ] || { say "failed under wine: ${failed[*]}"; exit 1; }
say "all of it held under wine, which is not Windows"
