package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// A peer is a server that is measured.
type peer struct {
	name  string
	build string // what it is made from: "c/epoll", "servers/gnet"; "" for a program of the system
	prog  string // of the system
	extra bool   // only in cases of framed messages, or of one flow
	side  bool   // it answers questions about its memory (package side)
	procs int    // its GOMAXPROCS, if not as many as there are CPUs
	// argv makes the arguments. dir is for files.
	argv func(s start) []string
}

func (p peer) gomaxprocs() int {
	if p.procs > 0 {
		return p.procs
	}
	return runtime.NumCPU()
}

// start is how a peer is started.
type start struct {
	addr, target, dir string
	loops, buf, frame int
}

func goArgs(more ...string) func(start) []string {
	return func(s start) []string {
		a := append([]string{"-addr", s.addr, "-loops", strconv.Itoa(s.loops), "-buf", strconv.Itoa(s.buf)}, more...)
		if s.frame > 0 {
			a = append(a, "-frame", strconv.Itoa(s.frame))
		}
		if s.target != "" {
			a = append(a, "-target", s.target)
		}
		return a
	}
}

func cEpoll(s start) []string { return []string{s.addr, strconv.Itoa(s.loops)} }

func cUring(s start) []string { return append(cEpoll(s), strconv.Itoa(s.buf)) }

func splicePipe(bytes string) func(start) []string {
	return func(s start) []string { return []string{s.addr, s.target, bytes} }
}

const weirServer, weirCommand = "servers/weir", "../cmd/weir"

func weirPeer(backend string) peer {
	return peer{name: "weir-" + backend, build: weirServer, side: true, argv: goArgs("-backend", backend)}
}

// echoPeers are in the order of the tables.
var echoPeers = []peer{
	{name: "c-epoll", build: "c/epoll", argv: cEpoll},
	{name: "c-uring", build: "c/uring", argv: cUring},
	weirPeer("epoll"),
	weirPeer("epoll-et"),
	weirPeer("uring"),
	weirPeer("portable"),
	{name: "std", build: "servers/std", side: true, argv: goArgs()},
	{name: "std-joined", build: "servers/std", side: true, extra: true, argv: goArgs("-join")},
	{name: "gnet", build: "servers/gnet", side: true, argv: goArgs()},
	{name: "nbio", build: "servers/nbio", side: true, argv: goArgs()},
	{name: "netpoll", build: "servers/netpoll", side: true, argv: goArgs()},
	{name: "evio", build: "servers/evio", side: true, argv: goArgs()},
}

func weirRelay(backend, suffix string, more ...string) peer {
	p := weirPeer(backend)
	p.name += suffix
	p.argv = goArgs(append([]string{"-backend", backend}, more...)...)
	return p
}

var relayPeers = []peer{
	{name: "c-splice-1m", build: "c/relay", argv: splicePipe("1048576")},
	{name: "c-splice-64k", build: "c/relay", argv: splicePipe("65536")},
	weirRelay("epoll", "-splice"),
	weirRelay("epoll", "-copy", "-copy"),
	weirRelay("uring", "-splice"),
	weirRelay("uring", "-copy", "-copy"),
	{name: "cmd-weir", build: weirCommand, argv: func(s start) []string {
		return []string{"tcp-listen:" + s.addr, "tcp:" + s.target, "--quiet", "--loops", strconv.Itoa(max(s.loops, 1))}
	}},
	{name: "go-iocopy", build: "servers/std", argv: goArgs()},
	{name: "go-copy-64k", build: "servers/std", argv: goArgs("-copy", "-buf", "65536")},
	{name: "haproxy-splice", prog: "haproxy", argv: haproxy("option splice-request\n    option splice-response\n    ")},
	{name: "haproxy", prog: "haproxy", argv: haproxy("")},
	{name: "nginx", prog: "nginx", argv: nginx},
	{name: "socat-64k", prog: "socat", argv: socat("-b", "65536")},
	{name: "socat", prog: "socat", argv: socat()},
}

// manyPeers are the relays that take thousands of connections at one time: socat's take a
// process each. HAProxy is the measure.
func manyPeers() []peer {
	var all []peer
	for _, name := range []string{"haproxy", "nginx", "weir-epoll-copy", "other-weir-epoll-copy", "weir-uring-copy", "other-weir-uring-copy", "cmd-weir", "other-cmd-weir", "go-iocopy"} {
		for _, p := range relayPeers {
			if p.name == name {
				all = append(all, p)
			}
		}
	}
	return all
}

// beside returns weir's servers from another checkout, after those of this one. part is
// where a peer has its name and what it is built from.
func beside[P any](dir, server string, peers []P, part func(*P) (name, build *string)) []P {
	var all []P
	for _, p := range peers {
		all = append(all, p)
		if name, build := part(&p); *build == server {
			*name = "other-" + *name
			*build = filepath.Join(dir, "bench", server)
			all = append(all, p)
		}
	}
	return all
}

func (p *peer) part() (name, build *string)    { return &p.name, &p.build }
func (p *tlsPeer) part() (name, build *string) { return &p.name, &p.build }

func haproxy(more string) func(start) []string {
	return func(s start) []string { return haproxyRelay(s, more, s.addr) }
}

// haproxyRelay is haproxy with further settings, and the address it binds.
func haproxyRelay(s start, more, bind string) []string {
	conf := filepath.Join(s.dir, "haproxy.cfg")
	write(conf, fmt.Sprintf(`global
    nbthread 1
    maxconn 6000
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    %s
listen relay
    bind %s
    server backend %s
`, more, bind, s.target))
	return []string{"-db", "-f", conf}
}

func nginx(s start) []string { return nginxRelay(s, "", s.addr) }

// nginxRelay is nginx with further settings, and the address it listens on.
func nginxRelay(s start, more, listen string) []string {
	conf := filepath.Join(s.dir, "nginx.conf")
	module := ""
	if m := "/usr/lib/nginx/modules/ngx_stream_module.so"; exists(m) {
		module = "load_module " + m + ";"
	}
	write(conf, fmt.Sprintf(`%s
daemon off;
master_process off;
worker_processes 1;
pid %s/nginx.pid;
error_log stderr crit;
events { worker_connections 16384; }
stream {
    access_log off;
    %s
    server { listen %s; proxy_pass %s; tcp_nodelay on; }
}
`, module, s.dir, more, listen, s.target))
	return []string{"-c", conf, "-p", s.dir, "-e", "stderr"}
}

func socat(opts ...string) func(start) []string {
	return func(s start) []string {
		host, port, _ := strings.Cut(s.addr, ":")
		return append(append([]string{}, opts...),
			"TCP4-LISTEN:"+port+",bind="+host+",reuseaddr,fork,backlog=1024,nodelay", "TCP4:"+s.target+",nodelay")
	}
}

func write(path, text string) {
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A builder makes each program once.
type builder struct {
	root string // of the module
	dir  string // for the built programs
	made map[string]string
	lost map[string]error
}

// program returns the path of the program built from src, or why there is none.
func (b *builder) program(src string) (string, error) {
	if p, ok := b.made[src]; ok {
		return p, nil
	}
	if err, ok := b.lost[src]; ok {
		return "", err
	}
	out := filepath.Join(b.dir, strings.ReplaceAll(strings.Trim(src, "./"), "/", "-"))
	if err := b.make(src, out); err != nil {
		b.lost[src] = err
		return "", err
	}
	b.made[src] = out
	return out, nil
}

func (b *builder) make(src, out string) error {
	var cmd *exec.Cmd
	if strings.HasPrefix(src, "c/") {
		cc, err := exec.LookPath("cc")
		if err != nil {
			return fmt.Errorf("no C compiler: %w", err)
		}
		cmd = exec.Command(cc, "-O2", "-pthread", "-o", out, src+".c")
		cmd.Dir = b.root
	} else {
		dir := src
		if !filepath.IsAbs(src) {
			dir = filepath.Join(b.root, src)
		}
		if !exists(dir) {
			return fmt.Errorf("%s is not there", src)
		}
		cmd = exec.Command("go", "build", "-o", out, ".")
		cmd.Dir = dir
	}
	if msg, err := cmd.CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(string(msg)), "\n")
		return fmt.Errorf("building %s: %w: %s", src, err, first)
	}
	return nil
}

// path is the program of a peer.
func (b *builder) path(p peer) (string, error) {
	if p.build != "" {
		return b.program(p.build)
	}
	path, err := exec.LookPath(p.prog)
	if err != nil {
		return "", fmt.Errorf("%s is not installed", p.prog)
	}
	return path, nil
}
