#!/usr/bin/env bash
# Runs the stream suite on SCTP and vsock, and the command's kinds for them, under another
# Linux kernel: Debian's own, in a machine that qemu emulates, so that neither this machine's
# kernel nor its processor has to support anything. It shows whether something works, never
# how fast. Kernel, qemu, busybox and depmod come from Debian's archive, some 90 MB the first
# time, which takes root; afterwards a start takes some 15 s. Where they cannot be had it says so and
# exits with 0.
#
#   scripts/otherkernel.sh                    all of it, 20 minutes and more
#   scripts/otherkernel.sh -test.run 'Other/epoll$'
#                                             the contract's tests with these flags instead
#   RUN='^Test(OtherSockets|SCTP|Vsock)'      which tests, before the command's
#   MODULES=sctp,vsock_loopback               what is loaded, before that what it needs
#   MINUTES=60                                how long the emulated machine may take
#   PACKAGE=./tests/contract                  whose tests
#   KEEP=DIR                                  where the kernel is kept; ~/.cache/weir-kernel
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
. scripts/lib.sh

skip() {
	say "skipped: $*"
	exit 0
}

modules=${MODULES:-sctp,vsock_loopback}
keep=${KEEP:-${XDG_CACHE_HOME:-$HOME/.cache}/weir-kernel}

# fetch installs what is missing and unpacks a kernel into $keep.
fetch() {
	local need=() image
	command -v qemu-system-x86_64 >/dev/null || need+=(qemu-system-x86)
	command -v busybox >/dev/null || need+=(busybox-static)
	command -v depmod >/dev/null || need+=(kmod)
	[ ${#need[@]} -gt 0 ] || [ ! -e "$keep/vmlinuz" ] || return 0
	for c in apt-get apt-cache dpkg; do
		command -v "$c" >/dev/null || skip "there is no $c to get a kernel with"
	done
	[ ${#need[@]} -eq 0 ] || [ "$(id -u)" = 0 ] || skip "${need[*]} is not installed, and only root can install it"
	[ "$(id -u)" != 0 ] || apt-get update -q >/dev/null 2>&1
	if [ ${#need[@]} -gt 0 ]; then
		say "installing ${need[*]}"
		DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${need[@]}" >"$tmp/apt" 2>&1 ||
			skip "${need[*]} cannot be installed: $(tail -1 "$tmp/apt")"
	fi
	[ ! -e "$keep/vmlinuz" ] || return 0
	image=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -1)
	[ -n "$image" ] || skip "the archive has no linux-image-amd64"
	say "fetching $image"
	mkdir "$tmp/image" && (cd "$tmp/image" && apt-get download -q "$image" >"$tmp/apt" 2>&1 && dpkg -x ./*.deb root) ||
		skip "$image cannot be fetched: $(tail -1 "$tmp/apt")"
	local release
	release=$(basename "$tmp"/image/root/lib/modules/*)
	depmod -b "$tmp/image/root" "$release" || { fail "depmod"; return 1; }
	mkdir -p "$keep" && rm -rf "$keep/modules" && cp -r "$tmp/image/root/lib/modules/$release" "$keep/modules" &&
		cp "$tmp/image/root/boot/vmlinuz-$release" "$keep/vmlinuz" || { fail "$keep cannot be written"; return 1; }
}

order=()
# module NAME: copies a module after those that it needs.
module() {
	local file dep
	file=$(sed -n "s|^\([^:]*/$1\.ko\(\.xz\)*\):.*|\1|p" "$keep/modules/modules.dep" | head -1)
	[ -n "$file" ] || { fail "the kernel has no module $1"; return 1; }
	for dep in $(sed -n "s|^$file:||p" "$keep/modules/modules.dep"); do
		dep=$(basename "$dep")
		module "${dep%%.ko*}" || return 1
	done
	case " ${order[*]-} " in *" $1 "*) return 0 ;; esac
	case $file in
	*.xz) xz -dc "$keep/modules/$file" >"$root/mod/$1.ko" ;;
	*) cp "$keep/modules/$file" "$root/mod/$1.ko" ;;
	esac
	order+=("$1")
}

# boot SECONDS COMMAND...: runs a command in the emulated machine; its output, and its exit
# status, are the command's.
boot() {
	local limit=$1 status
	shift
	cat >"$root/init" <<-INIT
		#!/bin/sh
		mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
		mkdir -p /dev/pts /dev/shm; mount -t devpts pts /dev/pts; mount -t tmpfs shm /dev/shm
		export PATH=/t:/bin HOME=/tmp TMPDIR=/tmp
		ifconfig lo 127.0.0.1 up
		echo '127.0.0.1 localhost' >/etc/hosts
		for m in ${order[*]}; do insmod /mod/\$m.ko || echo "module \$m does not load"; done
		cd /t
		echo BOOT-BEGIN
		$*
		echo BOOT-END \$?
		poweroff -f
	INIT
	chmod +x "$root/init"
	(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >"$tmp/initramfs")
	timeout "$limit" qemu-system-x86_64 -M q35 -cpu max -accel tcg,thread=multi -smp 2 -m 2048 -nographic -no-reboot \
		-kernel "$keep/vmlinuz" -initrd "$tmp/initramfs" \
		-append 'console=ttyS0 quiet panic=-1 random.trust_cpu=on no_timer_check' </dev/null 2>&1 |
		tee "$tmp/out" | sed -un '/BOOT-BEGIN/,/^BOOT-END/{/BOOT-BEGIN/d;/^BOOT-END/d;s/\r//g;p;}'
	status=$(tr -d '\r' <"$tmp/out" | sed -n 's/^BOOT-END \([0-9]*\)$/\1/p')
	if [ -z "$status" ]; then
		say "no end within $limit s; the last lines:"
		tail -5 "$tmp/out"
		return 125
	fi
	return "$status"
}

[ "$(go env GOARCH)" = amd64 ] || skip "the kernel that is fetched is for amd64"
fetch || exit 1
root=$tmp/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp,t,mod,etc,run}
cp "$(command -v busybox)" "$root/bin/busybox"
"$root/bin/busybox" --list | while read -r a; do [ "$a" = busybox ] || ln -sf busybox "$root/bin/$a"; done
for m in ${modules//,/ }; do
	[ "$m" != sctp ] || module crc32c_generic || exit 1 # SCTP asks for it by the name of the algorithm
	module "$m" || exit 1
done
go test -c -o "$root/t/suite" "${PACKAGE:-./tests/contract}" || { fail "the tests do not build"; exit 1; }
cp "$tmp/weir" "$root/t/weir"

limit=$((60 * ${MINUTES:-60}))
if [ $# -gt 0 ]; then
	printf '%q ' ./suite "$@" >"$root/t/run"
	boot "$limit" sh /t/run
	exit
fi

cat >"$root/t/run" <<RUN
MINUTES=${MINUTES:-60} ok=0 tests='${RUN:-^Test(OtherSockets|SCTP|Vsock)}'
RUN
cat >>"$root/t/run" <<'RUN'
./suite -test.run "$tests" -test.v -test.timeout "${MINUTES}m" >/tmp/suite 2>&1 || ok=1
grep -E '^ *--- (FAIL|SKIP)|^(ok|FAIL|panic)|^ +[a-z_]+\.go:[0-9]+: ' /tmp/suite
echo "passed: $(grep -c '^ *--- PASS' /tmp/suite), failed: $(grep -c '^ *--- FAIL' /tmp/suite), skipped: $(grep -c '^ *--- SKIP' /tmp/suite)"
# answers NAME WANT LISTENER DIALER SCRIPT: what the script answers to a question reaches its
# standard output, though its input has ended.
answers() {
	./weir --quiet "$3" exec,shell -- "$5" 2>/tmp/log & pid=$!
	got=$(printf 'question\n' | ./weir --quiet - "$4,retry=60s" 2>/tmp/dialer) || { echo "FAILED: exit code $?"; ok=1; }
	kill $pid; wait $pid
	if [ "$got" = "$2" ]; then echo "passed: the command, $1"; return; fi
	echo "FAILED: the command, $1: got '$got'; $(cat /tmp/log /tmp/dialer)"; ok=1
}
late='read q; sleep 2; echo "reply to $q"'
answers "SCTP: the reply after the end of the input" "reply to question" sctp-listen:5000 sctp:127.0.0.1:5000 "$late"
answers "SCTP: a reply that its peer does not end" "reply to question" sctp-listen:5001 sctp:127.0.0.1:5001,eof-wait=4s "$late; sleep 30"
# What is sent to a network on lo that no one has an address of comes to nothing. SCTP would not
# use a loopback address for it.
route add -net 192.0.2.0 netmask 255.255.255.0 dev lo
echo 0 >/proc/sys/net/sctp/addr_scope_policy
answers "SCTP: a further address where the first is silent" "reply to question" sctp-listen:127.0.0.2:5002,also=127.0.0.3 sctp:192.0.2.1:5002,also=127.0.0.3 "$late"
answers "vsock: the reply after the end of the input" "reply to question" vsock-listen:5000 vsock:1:5000 "$late"
answers "vsock: half-close" "question after the end" vsock-listen:5001 vsock:1:5001 'echo "$(cat) after the end"'
exit $ok
RUN
boot "$limit" sh /t/run || fail "under $(ls "$keep/modules/kernel" >/dev/null && strings "$keep/vmlinuz" 2>/dev/null | sed -n 's/^\([0-9][^ ]*\) (.*/Linux \1/p' | head -1)"
verdict
