#!/usr/bin/env bash
# Puts weir in front of other people's programs, on loopback: scp, rsync, git and tar over
# exec, a language server, a gigabyte through a program both ways at once, bash with job
# control, vim, htop and ssh on the terminal of a pty over TLS, driven and compared by tmux, and
# minicom and picocom on a terminal of weir's that leads to a serial line. Programs that are not
# installed are skipped, and named. The exit code is 1 if anything failed.
#
#   scripts/processpeers.sh [NAME...]     without names all of them:
#   scp rsync git tar lsp bulk examples shell background vim htop ssh minicom picocom
#   BULK=1073741824  bytes each way
cd "$(dirname "$0")/.."
. scripts/lib.sh

# tree DIR: makes some files, one of them large, one a link.
tree() {
	mkdir -p "$1/sub"
	head -c 20000000 /dev/urandom >"$1/large"
	seq 1000 >"$1/sub/lines"
	ln -s sub/lines "$1/link"
	: >"$1/empty"
}

# same A B WHAT: whether two directories have the same.
same() {
	if diff -r --no-dereference "$1" "$2" >"$tmp/diff" 2>&1; then say "$3"; else fail "$3: $(head -3 "$tmp/diff")"; fi
}

# Clients of ssh hand it the host, options and the words to run there. $tmp/via takes its
# place: it has weir run them.
cat >"$tmp/via" <<-SH
	#!/bin/sh
	subsystem=
	while :; do
		case \$1 in
		-l | -p | -o) shift 2 ;;
		-s) subsystem=yes; shift ;;
		-*) shift ;;
		*) break ;;
		esac
	done
	shift
	[ "\$subsystem" ] && set -- /usr/lib/openssh/sftp-server
	exec "$tmp/weir" -q - exec,shell -- "\$*"
SH
chmod +x "$tmp/via"

test_scp() {
	have scp || return
	tree "$tmp/scp-in"
	rm "$tmp/scp-in/link" # scp follows links
	mkdir -p "$tmp/scp-there" "$tmp/scp-back"
	local how
	for how in -O -s; do
		rm -rf "$tmp/scp-there/"* "$tmp/scp-back/"*
		[ "$how" = -O ] || [ -x /usr/lib/openssh/sftp-server ] || continue
		scp -q $how -S "$tmp/via" -r "$tmp/scp-in" "x:$tmp/scp-there/" || fail "scp $how, there: $?"
		same "$tmp/scp-in" "$tmp/scp-there/scp-in" "scp $how: to a program of weir's"
		scp -q $how -S "$tmp/via" -r "x:$tmp/scp-there/scp-in" "$tmp/scp-back/" || fail "scp $how, back: $?"
		same "$tmp/scp-in" "$tmp/scp-back/scp-in" "scp $how: and back"
	done
}

test_rsync() {
	have rsync || return
	tree "$tmp/rsync-in"
	rsync -a -e "$tmp/via" "$tmp/rsync-in/" "x:$tmp/rsync-there/" || fail "rsync, there: $?"
	same "$tmp/rsync-in" "$tmp/rsync-there" "rsync: to rsync --server"
	seq 2000 >"$tmp/rsync-there/sub/lines"
	rsync -a --delete -e "$tmp/via" "x:$tmp/rsync-there/" "$tmp/rsync-in/" || fail "rsync, back: $?"
	same "$tmp/rsync-in" "$tmp/rsync-there" "rsync: and what has changed back"
	# Its own protocol, with a daemon for each connection.
	printf 'use chroot = no\n[m]\npath = %s\nread only = yes\n' "$tmp/rsync-in" >"$tmp/rsyncd.conf"
	start rsyncd tcp-listen:127.0.0.1:0 exec,socket -- rsync --server --daemon "--config=$tmp/rsyncd.conf" . || return
	rsync -a "rsync://127.0.0.1:$port/m/" "$tmp/rsync-daemon/" || fail "rsync --daemon: $?; $(tail -2 "$log")"
	same "$tmp/rsync-in" "$tmp/rsync-daemon" "rsync: from rsync --server --daemon"
}

test_git() {
	have git || return
	tree "$tmp/git-in"
	local g=(git -c user.name=weir -c user.email=weir@example.com -c init.defaultBranch=main -c safe.directory='*')
	"${g[@]}" init -q "$tmp/git-in" && "${g[@]}" -C "$tmp/git-in" add . && "${g[@]}" -C "$tmp/git-in" commit -qm first && "${g[@]}" init -q --bare "$tmp/git-bare" || { fail "git: a repository"; return; }
	export GIT_SSH="$tmp/via" GIT_SSH_VARIANT=simple
	"${g[@]}" -C "$tmp/git-in" push -q "x:$tmp/git-bare" main || fail "git push: $?"
	"${g[@]}" clone -q "x:$tmp/git-bare" "$tmp/git-out" || fail "git clone: $?"
	unset GIT_SSH GIT_SSH_VARIANT
	start daemon tcp-listen:127.0.0.1:0 exec -- git -c safe.directory='*' daemon --inetd --export-all "--base-path=$tmp" "$tmp/git-bare" || return
	"${g[@]}" clone -q "git://127.0.0.1:$port/git-bare" "$tmp/git-daemon" || fail "git clone from a daemon: $?; $(tail -2 "$log")"
	cmp "$tmp/git-in/large" "$tmp/git-daemon/large" && say "git: clone from git daemon --inetd"
	rm -rf "$tmp/git-in/.git" "$tmp/git-out/.git"
	same "$tmp/git-in" "$tmp/git-out" "git: push to git receive-pack, clone from git upload-pack"
}

test_tar() {
	have tar || return
	tree "$tmp/tar-in"
	mkdir -p "$tmp/tar-there" "$tmp/tar-back"
	start untar tcp-listen:127.0.0.1:0 "exec,dir=$tmp/tar-there" -- tar xf - || return
	tar cf - -C "$tmp/tar-in" . | "$tmp/weir" -q - "127.0.0.1:$port" || fail "tar, there: $?"
	same "$tmp/tar-in" "$tmp/tar-there" "tar: to a tar of weir's"
	start tar tcp-listen:127.0.0.1:0 "exec,dir=$tmp/tar-there" -- tar cf - . || return
	# tar leaves the padding after the archive's end unread.
	"$tmp/weir" -q - "127.0.0.1:$port" </dev/null | { tar xf - -C "$tmp/tar-back" && cat >/dev/null; } || fail "tar, back: $?"
	same "$tmp/tar-in" "$tmp/tar-back" "tar: and back"
	# The child's exit code is weir's.
	echo no archive | "$tmp/weir" -q - exec -- tar xf - 2>/dev/null
	[ $? -eq 2 ] || fail "tar: its exit code is lost"
}

test_lsp() {
	have python3 pylsp || return
	local how
	python3 scripts/lspclient.py pylsp >"$tmp/lsp-plain" 2>/dev/null || { fail "lsp: pylsp by itself: $?"; return; }
	start lsp tcp-listen:127.0.0.1:0 exec,stderr=null -- pylsp || return
	for how in "localhost:$port" "exec,stderr=null -- pylsp" "exec,socket,stderr=null -- pylsp"; do
		# shellcheck disable=SC2086
		python3 scripts/lspclient.py "$tmp/weir" -q - $how >"$tmp/lsp-got" || { fail "lsp: $how: $?"; continue; }
		if cmp -s "$tmp/lsp-plain" "$tmp/lsp-got"; then say "lsp: $(wc -c <"$tmp/lsp-got") bytes of answers by weir - $how"; else fail "lsp: $how: other answers"; fi
	done
}

# Sums are taken beside, so that nothing is stored.
test_bulk() {
	local n=${BULK:-1073741824} began=$SECONDS how
	for how in exec exec,socket; do
		start bulk tcp-listen:127.0.0.1:0 "$how" -- cat || return
		began=$SECONDS
		head -c "$n" /dev/zero | openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 2>/dev/null | tee >(sha256sum >"$tmp/sent") | "$tmp/weir" -q - "127.0.0.1:$port" | sha256sum >"$tmp/came"
		until [ -s "$tmp/sent" ]; do sleep 0.02; done
		if cmp -s "$tmp/sent" "$tmp/came"; then say "bulk: $n bytes through $how and back at once in $((SECONDS - began)) s"; else fail "bulk: other bytes came back through $how"; fi
	done
}

# issue NAME CN: a certificate of the authority corp.pem, NAME.pem with its key in NAME.key.
issue() {
	[ -s "$tmp/corp.pem" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$tmp/corp.key" -out "$tmp/corp.pem" -subj /CN=corp -days 30 2>/dev/null || return 1
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$tmp/$1.key" -subj "/CN=$2" -out "$tmp/$1.csr" 2>/dev/null &&
		openssl x509 -req -in "$tmp/$1.csr" -CA "$tmp/corp.pem" -CAkey "$tmp/corp.key" -CAcreateserial -days 30 -extfile <(echo "subjectAltName=DNS:localhost") -out "$tmp/$1.pem" 2>/dev/null
}

# Two examples of the command's, in the directory of their files: a daemon of rsync's behind
# TLS on the standard streams, and a shell for whoever has a certificate.
test_examples() {
	have openssl rsync bash || return
	issue s localhost && issue me someone && issue other someone || { fail "examples: openssl"; return; }
	cat "$tmp/s.key" >>"$tmp/s.pem"
	tree "$tmp/example-in"
	printf 'use chroot = no\n[m]\npath = %s\nread only = yes\n' "$tmp/example-in" >"$tmp/example.conf"
	cat >"$tmp/example10" <<-SH
		#!/bin/sh
		cd "$tmp" && exec "$tmp/weir" -q stdio+tls-server,cert=s.pem,key=s.key exec -- rsync --server --daemon --config=example.conf .
	SH
	chmod +x "$tmp/example10"
	start inetd tcp-listen:127.0.0.1:0 exec,socket -- "$tmp/example10" || return
	start unwrap tcp-listen:127.0.0.1:0 "localhost:$port+tls,ca=$tmp/corp.pem" || return
	rsync -a "rsync://127.0.0.1:$port/m/" "$tmp/example-out/" || fail "examples: rsync over TLS: $?; $(tail -2 "$log")"
	same "$tmp/example-in" "$tmp/example-out" "examples: rsync --server --daemon behind stdio+tls-server"
	local was=$PWD out
	cd "$tmp" || return
	start shell-for :0+tls,cert=s.pem,client-ca=corp.pem pty -- bash -l || { cd "$was" || exit; return; }
	cd "$was" || return
	out=$(printf 'stty -echo; PS1=\necho it is $((6 * 7)) for $WEIR_CERTIFICATE by $WEIR_TLS_VERSION; tty\nexit 0\n' |
		timeout 60 "$tmp/weir" -q - "localhost:$port+tls,ca=$tmp/corp.pem,cert=$tmp/me.pem,key=$tmp/me.key" | tr -d '\r')
	case $out in
	*'it is 42 for CN=someone by TLS 1.3'*/dev/pts/*) say "examples: a shell in a pty over TLS, for a client with a certificate" ;;
	*) fail "examples: a shell over TLS: $out" ;;
	esac
	if out=$(echo 'echo let in' | timeout 60 "$tmp/weir" -q - "localhost:$port+tls,ca=$tmp/corp.pem" 2>/dev/null) || [ "$out" ]; then
		fail "examples: a client without a certificate got a shell: $out"
	fi
}

# terminal NAME ARGV...: a pty with the program behind TLS, and tmux's sessions NAME, in
# front of weir, and NAME-plain, with the program itself.
terminal() {
	local name=$1
	shift
	[ -s "$tmp/server.pem" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$tmp/server.key" -out "$tmp/server.pem" \
		-subj /CN=localhost -addext subjectAltName=DNS:localhost -days 30 2>/dev/null || { fail "$name: openssl"; return 1; }
	start "$name" "tcp-listen:127.0.0.1:0+tls,cert=$tmp/server.pem,key=$tmp/server.key" pty -- "$@" || return 1
	mux -f /dev/null new-session -d -x 80 -y 24 -s "$name" env TERM=screen "$tmp/weir" -q stdio,raw "localhost:$port+tls,ca=$tmp/server.pem" || { fail "$name: tmux"; return 1; }
	mux new-session -d -x 80 -y 24 -s "$name-plain" env TERM=screen "$@"
	# The size of a terminal does not travel over TLS: it is typed, as over a serial line.
}

mux() { tmux -S "$tmp/tmux" "$@"; }
screen() { mux capture-pane -p -t "=$1:"; }
type_in() { mux send-keys -t "=$1:" "${@:2}"; }

# shows NAME TEXT WHAT: waits until the screen of a session has the text.
shows() {
	local i
	for i in $(seq 300); do
		screen "$1" | grep -qF -- "$2" && return
		sleep 0.05
	done
	fail "$3: it does not show '$2':
$(screen "$1")"
	return 1
}

test_shell() {
	have tmux openssl bash || return
	terminal shell bash --norc --noprofile -i || return
	local s
	shows shell 'bash-' "shell: a prompt" || return
	type_in shell 'PS1="now> "; stty rows 24 cols 80' Enter
	type_in shell 'sleep 1000' Enter
	sleep 0.5
	type_in shell C-z
	shows shell Stopped "shell: Ctrl-Z" || return
	type_in shell 'jobs; bg' Enter
	shows shell 'sleep 1000 &' "shell: bg" || return
	type_in shell 'fg' Enter
	sleep 0.5
	type_in shell C-c
	type_in shell 'echo code $?' Enter
	shows shell 'code 130' "shell: Ctrl-C of a job in the foreground" || return
	type_in shell 'cat & sleep 0.2; jobs' Enter # SIGTTIN
	shows shell 'Stopped                 cat' "shell: a job in the background that reads" || return
	type_in shell 'kill %cat; stty tostop; (echo from behind) & sleep 0.2; jobs' Enter # SIGTTOU
	shows shell 'Stopped                 ( echo from behind )' "shell: a job in the background that writes" || return
	type_in shell 'kill -9 %%; exit 0' Enter
	sleep 0.5
	type_in shell 'exit 0' Enter
	for s in $(seq 100); do
		mux has-session -t '=shell' 2>/dev/null || break
		sleep 0.05
	done
	if mux has-session -t '=shell' 2>/dev/null; then fail "shell: it does not end"; else say "shell: Ctrl-Z, bg, fg, Ctrl-C, SIGTTIN and SIGTTOU in a pty over TLS"; fi
	mux kill-session -t '=shell-plain' 2>/dev/null
}

# weir itself is a job of a shell, and shares the shell's terminal.
test_background() {
	have tmux bash || return
	mux -f /dev/null new-session -d -x 80 -y 24 -s jobs env "PS1=now> " bash --norc --noprofile -i
	shows jobs 'now>' "background: a prompt" || return
	type_in jobs "weir='$tmp/weir -q'; clear" Enter
	type_in jobs '$weir - echo &' Enter
	# It reads only what is there, so it may never be stopped; either way the shell gets
	# every byte that is meant for it.
	local i
	for i in $(seq 20); do type_in jobs "echo for the shell $i" Enter; done
	shows jobs 'for the shell 20' "background: a shell beside weir" || return
	sleep 0.5
	[ "$(screen jobs | grep -c '^for the shell')" -ge 10 ] || fail "background: the shell lost what was typed: $(screen jobs)"
	type_in jobs 'clear' Enter 'fg' Enter
	sleep 0.5
	type_in jobs 'said twice' Enter
	for i in $(seq 100); do
		[ "$(screen jobs | grep -c '^said twice')" = 2 ] && break
		sleep 0.05
	done
	[ "$i" -lt 100 ] || fail "background: after fg: $(screen jobs)"
	type_in jobs C-d
	type_in jobs 'clear; stty tostop; $weir text:late - &' Enter
	sleep 0.5
	type_in jobs 'jobs' Enter
	shows jobs 'Stopped' "background: weir that writes to the terminal" || return
	type_in jobs 'clear; fg' Enter
	shows jobs 'late' "background: its text after fg" || return
	type_in jobs C-c
	# Setting the terminal raw stops it too.
	type_in jobs 'stty -tostop; clear; $weir - pty -- cat -v &' Enter
	sleep 0.5
	type_in jobs 'jobs' Enter
	shows jobs 'Stopped' "background: weir that sets the terminal raw" || return
	type_in jobs 'clear; fg' Enter
	sleep 0.5
	type_in jobs C-a
	type_in jobs Enter
	shows jobs '^A' "background: raw after fg" || return
	type_in jobs 'C-]'
	sleep 0.5
	type_in jobs 'clear; stty -a | grep -o " icanon"' Enter
	shows jobs ' icanon' "background: the terminal is set back" || return
	mux kill-session -t '=jobs'
	say "background: stopped by SIGTTIN and SIGTTOU, and goes on after fg"
}

# alike NAME WHAT: waits until the screen is as without weir.
alike() {
	local i
	for i in $(seq 100); do
		[ "$(screen "$1")" = "$(screen "$1-plain")" ] && { say "$2"; return; }
		sleep 0.05
	done
	fail "$2: $(diff <(screen "$1") <(screen "$1-plain") | head -5)"
}

test_vim() {
	have tmux openssl vim || return
	seq -f 'line %g' 500 >"$tmp/text"
	# The size of a terminal does not travel over TLS, so the program is told.
	terminal vim sh -c "stty rows 24 cols 80; exec vim -u NONE -N -n $tmp/text" || return
	shows vim 'line 20' "vim: a text" || return
	alike vim "vim: the first screen is as without weir"
	local s
	for s in vim vim-plain; do
		type_in "$s" 250G
		type_in "$s" 'Ohello from weir' Escape
		type_in "$s" ':split' Enter
	done
	shows vim 'hello from weir' "vim: what was typed"
	alike vim "vim: after moving, typing and splitting too"
	# Without TLS the window's size follows: weir is on the terminal itself.
	mux new-session -d -x 80 -y 24 -s sized env TERM=screen "$tmp/weir" -q - pty -- vim -u NONE -N -n "$tmp/text"
	mux new-session -d -x 80 -y 24 -s sized-plain env TERM=screen vim -u NONE -N -n "$tmp/text"
	shows sized 'line 20' "vim: weir - pty" || return
	alike sized "vim: weir - pty is as without weir"
	for s in sized sized-plain; do mux resize-window -t "=$s:" -x 100 -y 40; done
	shows sized 'line 39' "vim: a larger window"
	alike sized "vim: a window of another size too"
	for s in vim vim-plain sized sized-plain; do
		type_in "$s" Escape
		type_in "$s" ':qa!' Enter
	done
}

test_htop() {
	have tmux openssl htop || return
	terminal htop sh -c 'stty rows 24 cols 80; exec htop' || return
	shows htop 'F10' "htop: its last line" || return
	shows htop 'Load average' "htop: its meters" || return
	type_in htop F1
	shows htop 'htop' "htop: its help" || return
	type_in htop q
	type_in htop q
	local i
	for i in $(seq 100); do
		mux has-session -t '=htop' 2>/dev/null || { say "htop: in a pty over TLS"; break; }
		type_in htop q
		sleep 0.05
	done
	mux has-session -t '=htop' 2>/dev/null && fail "htop: it does not end"
	mux kill-session -t '=htop-plain' 2>/dev/null
}

# sshd_of_ours: a daemon of our own; ssh is set to the words that reach it.
sshd_of_ours() {
	local d=$tmp/sshd
	mkdir -p "$d"
	[ -d /run/sshd ] || mkdir -p /run/sshd 2>/dev/null
	ssh-keygen -q -t ed25519 -N '' -f "$d/host" && ssh-keygen -q -t ed25519 -N '' -f "$d/user" && cp "$d/user.pub" "$d/authorized" || { fail "ssh: keys"; return 1; }
	free
	printf 'ListenAddress 127.0.0.1:%s\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\nStrictModes no\nPidFile none\nPasswordAuthentication no\n' "$port" "$d" "$d" >"$d/config"
	"$(command -v sshd)" -D -e -f "$d/config" 2>"$d/log" &
	pids+=("$!")
	ssh=(ssh -tt -F /dev/null -i "$d/user" -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR -p "$port" 127.0.0.1)
	local i
	for i in $(seq 100); do
		"${ssh[@]}" true </dev/null >/dev/null 2>&1 && return
		sleep 0.1
	done
	fail "ssh: sshd: $(tail -3 "$d/log")"
	return 1
}

test_ssh() {
	have tmux openssl ssh ssh-keygen bash || return
	command -v sshd >/dev/null || { say "skipped: sshd is not installed"; return; }
	sshd_of_ours || return
	local s inner="exec env PS1='there> ' bash --norc --noprofile -i"
	terminal ssh sh -c 'stty rows 24 cols 80; exec "$@"' sh "${ssh[@]}" "$inner" || return
	shows ssh 'there>' "ssh: a prompt" || return
	shows ssh-plain 'there>' "ssh: a prompt without weir" || return
	for s in ssh ssh-plain; do
		type_in "$s" "seq 1 30; printf '\\033[3;10Hmoved\\033[30;1H'; stty size" Enter
		shows "$s" '24 80' "ssh: what was typed in $s" || return
	done
	alike ssh "ssh: in a pty over TLS, the screen is as without weir"
	# The size goes all the way where weir is on the terminal itself: weir's, the pty's, ssh's.
	mux new-session -d -x 80 -y 24 -s far env TERM=screen "$tmp/weir" -q - pty -- "${ssh[@]}" "$inner"
	shows far 'there>' "ssh: weir - pty" || return
	mux resize-window -t '=far:' -x 100 -y 40
	type_in far 'clear; stty size' Enter
	shows far '40 100' "ssh: a window of another size" && say "ssh: weir - pty -- ssh, and its size follows"
	for s in ssh ssh-plain far; do type_in "$s" 'exit' Enter; done
}

# box: a device with a console, on one of two terminals that socat joins, a weir that has the
# other as a serial line, and a weir whose terminal $tmp/modem leads to that one.
box() {
	local i
	cat >"$tmp/box" <<-'BOX'
		printf 'login: '
		while IFS= read -r -d $'\r' line; do
			case $line in
			version) printf '\r\nbox 1.0\r\n# ' ;;
			dump) printf '\r\n'; seq -f 'line %04g' -s $'\r\n' 1 2000; printf '\r\nend of it\r\n# ' ;;
			*) printf '\r\nhello %s\r\n# ' "$line" ;;
			esac
		done
	BOX
	socat "pty,raw,echo=0,link=$tmp/$1-line" "exec:bash $tmp/box" &
	pids+=("$!")
	for i in $(seq 100); do [ ! -e "$tmp/$1-line" ] || break; sleep 0.05; done
	start "$1" tcp-listen:127.0.0.1:0 "serial:$tmp/$1-line,115200,8n1" || return
	"$tmp/weir" -q "pty,link=$tmp/$1-modem" "127.0.0.1:$port" 2>"$tmp/$1-log" &
	pids+=("$!")
	for i in $(seq 100); do [ ! -e "$tmp/$1-modem" ] || return 0; sleep 0.05; done
	fail "$1: no terminal: $(cat "$tmp/$1-log")"
	return 1
}

# typed NAME: a session with the device, in a terminal program that is in the foreground of NAME.
typed() {
	type_in "$1" Enter
	shows "$1" 'hello' "$1: a greeting" || return
	type_in "$1" version Enter
	shows "$1" 'box 1.0' "$1: an answer" || return
	type_in "$1" dump Enter
	shows "$1" 'end of it' "$1: the end of a long answer" || return
	screen "$1" | grep -q 'line 1999' || { fail "$1: the long answer is cut: $(screen "$1")"; return 1; }
}

test_picocom() {
	have tmux socat bash picocom || return
	box picocom || return
	local turn
	for turn in first second; do # programs come and go
		mux -f /dev/null new-session -d -x 80 -y 24 -s "pico-$turn" picocom -q -b 115200 "$tmp/picocom-modem" || { fail "picocom: tmux"; return; }
		typed "pico-$turn" || return
		type_in "pico-$turn" C-a C-x
		local i
		for i in $(seq 100); do mux has-session -t "=pico-$turn" 2>/dev/null || break; sleep 0.05; done
	done
	say "picocom: two sessions with a serial device, one after the other"
}

test_minicom() {
	have tmux socat bash minicom || return
	box minicom || return
	mux -f /dev/null new-session -d -x 80 -y 24 -s mini env TERM=screen LANG=C minicom -o -D "$tmp/minicom-modem" -b 115200 || { fail "minicom: tmux"; return; }
	shows mini 'Welcome to minicom' "minicom: its start" || return
	typed mini && say "minicom: a session with a serial device"
	mux kill-session -t '=mini' 2>/dev/null
}

trap 'mux kill-server 2>/dev/null; cleanup' EXIT
# tmux ends with its last session, and a session that begins just then is lost: one stays.
if command -v tmux >/dev/null; then mux -f /dev/null new-session -d -x 80 -y 24 -s stays sleep 7200; fi
run_tests "scp rsync git tar lsp bulk examples shell background vim htop ssh minicom picocom" "$@"
