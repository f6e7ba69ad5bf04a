#!/usr/bin/env bash
# Runs the tests of hosts: weir loops as guests in the loops of GLib and GTK, libuv, libev,
# asyncio, Tk, X11 and terminal programs, and GLib, libzmq, libcurl, c-ares and libexpat in
# weir's.
# What is not installed is skipped by name, each module or each test.
#
#   hosts.sh [MODULE...]   glib embed terminal x11 zmq curl cares expat; the default is all
#   INSTALL=1              first installs with apt-get, as root, what is missing
#   SHORT=1                64 MiB (HOSTS_BYTES= says otherwise) and a second of silence instead
#                          of 1 GiB and ten
#   HOSTS_ALONE=10s        how long a host's timer is measured before the download; with
#                          HOSTS_BYTES=8589934592 on a quiet machine, the lines "alone" and
#                          "busy" say what a download costs the host
#   HOSTS_SHOTS=DIR        keeps pictures of the windows there
set -uo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"

# needs MODULE: what pkg-config must find for a module.
needs() {
	case $1 in
	glib) echo glib-2.0 gtk+-3.0 ;;
	zmq) echo libzmq ;;
	curl) echo libcurl ;;
	cares) echo libcares ;;
	expat) echo expat ;;
	esac
}

if [ "${INSTALL:-}" = 1 ]; then
	missing=()
	while read -r what pkg; do
		case $what in
		/*) [ -e "$what" ] ;;
		*.pc) pkg-config --exists "${what%.pc}" 2>/dev/null ;;
		tkinter) /usr/bin/python3 -c 'import tkinter' 2>/dev/null ;;
		*) command -v "$what" >/dev/null ;;
		esac || missing+=("$pkg")
	done <<-'END'
		pkg-config pkg-config
		gcc gcc
		python3 python3
		Xvfb xvfb
		strace strace
		tkinter python3-tk
		gtk+-3.0.pc libgtk-3-dev
		libuv.pc libuv1-dev
		/usr/include/ev.h libev-dev
		libzmq.pc libzmq3-dev
		libcurl.pc libcurl4-openssl-dev
		libcares.pc libc-ares-dev
		expat.pc libexpat1-dev
	END
	if [ ${#missing[@]} -gt 0 ]; then
		echo "installing ${missing[*]}"
		(apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}") >/dev/null 2>&1 ||
			echo "could not install ${missing[*]}: tests that need them will skip"
	fi
fi

[ $# -gt 0 ] || set -- glib embed terminal x11 zmq curl cares expat
failed=() skipped=()
for m; do
	lacks=
	command -v gcc >/dev/null || [ "$m" = terminal ] || [ "$m" = x11 ] || lacks=gcc
	for l in $(needs "$m"); do
		pkg-config --exists "$l" 2>/dev/null || lacks="$lacks $l"
	done
	if [ -n "$lacks" ]; then
		echo "skipped: hosts/$m: not installed:$lacks"
		skipped+=("$m")
		continue
	fi
	echo "== hosts/$m"
	# Not cut off at the first failure: -v names what is skipped.
	(cd "hosts/$m" && go test -v ${SHORT:+-short} -count=1 -timeout 230s ./...) 2>&1 |
		grep -vE '^=== |no test files'
	[ "${PIPESTATUS[0]}" -eq 0 ] || failed+=("$m")
done
[ ${#skipped[@]} -eq 0 ] || echo "skipped: ${skipped[*]}"
if [ ${#failed[@]} -gt 0 ]; then
	echo "FAILED: ${failed[*]}"
	exit 1
fi
