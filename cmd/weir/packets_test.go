package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir/endpoint"
)

// lines is a writer that passes on each line that is written to it.
type lines struct {
	c    chan string
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.c <- string(l.rest[:i])
		l.rest = l.rest[i+1:]
	}
}

// TestDatagrams: a real client and a real server of package net, with weir
// between them: each datagram arrives whole, and so does its answer (R50, and
// example 9 of the command).
func TestDatagrams(t *testing.T) {
	if os.Getenv("WEIR_BACKEND") == "portable" {
		t.Skip("the portable backend does not hear of refusals")
	}
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the server
		buf := make([]byte, 1<<16)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(append([]byte("re:"), buf[:n]...), from)
		}
	}()
	said := &lines{c: make(chan string, 1000)}
	c := &command{
		args:   []string{"udp-listen:0", "udp:" + server.LocalAddr().String() + ",idle=3s"},
		stderr: said, lookupEnv: func(string) (string, bool) { return "", false }, table: endpoint.Default(),
	}
	code := make(chan int, 1)
	go func() { code <- c.run() }()
	await := func(what string) string {
		t.Helper()
		late := time.After(patience)
		for {
			select {
			case line := <-said.c:
				if strings.Contains(line, what) {
					return line
				}
			case <-late:
				t.Fatalf("no %q was said", what)
			}
		}
	}
	ready := await("ready ")
	at, _, _ := strings.Cut(strings.TrimPrefix(ready, "weir: ready "), ",")
	at, _, _ = strings.Cut(at, " ")
	client, err := net.Dial("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<16)
	for _, n := range []int{0, 1, 1400, 60000} {
		p := bytes.Repeat([]byte{byte(n)}, n)
		if _, err := client.Write(p); err != nil {
			t.Fatal(err)
		}
		k, err := client.Read(buf)
		if err != nil || !bytes.Equal(buf[:k], append([]byte("re:"), p...)) {
			t.Fatalf("datagram of %d bytes: %d back, %v", n, k, err)
		}
	}
	if line := await("closed "); !strings.Contains(line, "4 datagrams, 61 kB out, 4 datagrams, 61 kB back") {
		t.Error(line)
	}
	server.Close()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	await("dropped 1 datagram (refused 1)")
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if line := await("done "); !strings.Contains(line, "2 peers") {
		t.Error(line)
	}
	if n := <-code; n != exitOK {
		t.Errorf("code %d", n)
	}
}

// TestDatagramLayersTold: what a layer drops is said while weir runs, each time that it is more.
func TestDatagramLayersTold(t *testing.T) {
	said := &lines{c: make(chan string, 1000)}
	c := &command{
		args:   []string{"udp-listen:127.0.0.1:0+loss:1", "udp:127.0.0.1:9"},
		stderr: said, lookupEnv: func(string) (string, bool) { return "", false }, table: endpoint.Default(),
		layersEvery: 10 * time.Millisecond,
	}
	code := make(chan int, 1)
	go func() { code <- c.run() }()
	// next is the next line with a word, without what comes before its sentence.
	next := func(word string) string {
		t.Helper()
		late := time.After(patience)
		for {
			select {
			case line := <-said.c:
				if sentence, ok := strings.CutPrefix(line, "weir: "+word+" "); ok {
					return sentence
				}
			case <-late:
				t.Fatalf("no %q was said", word)
			}
		}
	}
	at, _, _ := strings.Cut(next("ready"), " ")
	client := dialUDP(t, at)
	for n := 1; n <= 3; n++ {
		if err := write(client, "x"); err != nil {
			t.Fatal(err)
		}
		if line, want := next("layer"), fmt.Sprintf("udp-listen+loss: of %d datagrams %d lost", n, n); line != want {
			t.Errorf("%q was said, want %q", line, want)
		}
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if n := <-code; n != exitOK {
		t.Errorf("code %d", n)
	}
}

// TestDatagramsLogRate: lines left out of the log of datagrams are counted at the
// end, like those of connections.
func TestDatagramsLogRate(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	p := start(t, "--log-rate", "1", "udp-listen:127.0.0.1:0", "udp:"+server.LocalAddr().String())
	at := p.listening()
	for range 100 {
		c, err := net.Dial("udp4", at)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if err := write(c, "x"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := server.ReadFrom(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	p.line(`more lines "open"`, 1)
}

// echoUDP is a server of datagrams that puts a text in front of what it answers, until
// the test ends.
func echoUDP(t *testing.T, text string) (at string, stop func()) {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(append([]byte(text), buf[:n]...), from)
		}
	}()
	stop = func() {
		_ = server.Close()
		<-done
	}
	t.Cleanup(stop)
	return server.LocalAddr().String(), stop
}

// askUDP sends the datagram "x" and returns the answer, or the error of a wait for it.
func askUDP(t *testing.T, c net.Conn, wait time.Duration) (string, error) {
	t.Helper()
	if err := write(c, "x"); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func dialUDP(t *testing.T, at string) net.Conn {
	t.Helper()
	c, err := net.Dial("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestDatagramsThroughProxy: datagrams through a SOCKS5 proxy, both ends of it being
// weir, an association for each peer; the rules of --deny hold for them.
func TestDatagramsThroughProxy(t *testing.T) {
	server, _ := echoUDP(t, "re:")
	socks := start(t, "tcp-listen:127.0.0.1:0+socks5,udp", "dial")
	p := start(t, "udp-listen:127.0.0.1:0", "udp:"+socks.listening()+"+socks5:"+server+",timeout=5s")
	at := p.listening()
	a, b := dialUDP(t, at), dialUDP(t, at)
	for _, c := range []net.Conn{a, b, a} {
		if got, err := askUDP(t, c, patience); got != "re:x" {
			t.Errorf("%q, %v", got, err)
		}
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	socks.line("datagrams: 2 out, 2 B, 2 back, 8 B", 1)
	socks.signal(os.Interrupt)
	if code := socks.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	denies := start(t, "tcp-listen:127.0.0.1:0+socks5,udp", "dial", "--deny", "127.0.0.0/8")
	p = start(t, "udp-listen:127.0.0.1:0", "udp:"+denies.listening()+"+socks5:"+server)
	if got, err := askUDP(t, dialUDP(t, p.listening()), 500*time.Millisecond); err == nil {
		t.Errorf("what is denied answers %q", got)
	}
	p.signal(os.Interrupt)
	p.end()
	denies.line("1 refused by the rules", 1)
	denies.signal(os.Interrupt)
	denies.end()
}

// TestDatagramLayersThroughProxy: layers on the side that listens, and a proxy on the way
// out: what the layers let pass is answered through the proxy.
func TestDatagramLayersThroughProxy(t *testing.T) {
	server, _ := echoUDP(t, "re:")
	socks := start(t, "tcp-listen:127.0.0.1:0+socks5,udp", "dial")
	p := start(t, "udp-listen:127.0.0.1:0+loss:0.5,seed=5,direction=in", "udp:"+socks.listening()+"+socks5:"+server)
	c := dialUDP(t, p.listening())
	answers := 0
	for range 20 {
		if err := write(c, "x"); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 16)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for n, err := c.Read(buf); err == nil; n, err = c.Read(buf) {
		if string(buf[:n]) != "re:x" {
			t.Errorf("%q", buf[:n])
		}
		answers++
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	}
	if answers == 0 || answers >= 20 {
		t.Errorf("%d answers to 20 datagrams", answers)
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	p.line("udp-listen+loss: of ", 1)
	socks.signal(os.Interrupt)
	socks.end()
}

// TestDatagramLayersOfTargets: each target's datagrams pass that target's layers only.
func TestDatagramLayersOfTargets(t *testing.T) {
	one, _ := echoUDP(t, "1:")
	two, _ := echoUDP(t, "2:")
	p := start(t, "udp-listen:127.0.0.1:0", "udp:"+one+"+duplicate:1,direction=out,seed=1", "udp:"+two, "--pick", "turn")
	at := p.listening()
	seen := map[string]int{}
	for range 2 {
		c := dialUDP(t, at)
		got, err := askUDP(t, c, patience)
		if err != nil {
			t.Fatal(err)
		}
		seen[got]++
		if got == "1:x" { // sent twice
			_ = c.SetReadDeadline(time.Now().Add(patience))
			buf := make([]byte, 16)
			if n, err := c.Read(buf); string(buf[:n]) != "1:x" {
				t.Errorf("%q, %v", buf[:n], err)
			}
		}
	}
	if seen["1:x"] != 1 || seen["2:x"] != 1 {
		t.Errorf("answers %v", seen)
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	p.line("layer udp:"+one+"+duplicate: of 3 datagrams 1 duplicated", 1)
}

// TestDatagramsIdle: idle on what listens forgets peers, and the relay goes on.
func TestDatagramsIdle(t *testing.T) {
	server, _ := echoUDP(t, "re:")
	p := start(t, "udp-listen:127.0.0.1:0+idle:100ms", "udp:"+server+",idle=1h")
	c := dialUDP(t, p.listening())
	for i := range 2 {
		if got, err := askUDP(t, c, patience); got != "re:x" {
			t.Errorf("%q, %v", got, err)
		}
		p.line("1 datagram, 1 B out, 1 datagram, 4 B back", i+1)
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	p.line("done 2 peers", 1)
}

// TestDatagramLayersBesideProxy: layers on the way through a proxy see what it carries,
// both ways, for a destination with an address and for a name; what they did is said at
// the end.
func TestDatagramLayersBesideProxy(t *testing.T) {
	server, _ := echoUDP(t, "re:")
	_, port, err := net.SplitHostPort(server)
	if err != nil {
		t.Fatal(err)
	}
	socks := start(t, "tcp-listen:127.0.0.1:0+socks5,udp", "dial", "--allow", "127.0.0.0/8")
	for _, to := range []string{server, "localhost:" + port} {
		file := filepath.Join(t.TempDir(), "seen.log")
		p := start(t, "udp-listen:127.0.0.1:0", "udp:"+socks.listening()+"+socks5:"+to+"+log,to="+file+"+duplicate:1,direction=out,seed=1+latency:20ms+idle:2s")
		c := dialUDP(t, p.listening())
		if err := write(c, "x"); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			buf := make([]byte, 16)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != "re:x" {
				t.Errorf("to %s: %q, %v", to, buf[:n], err)
			}
		}
		p.line("closed", 1) // it was idle; a slow machine needs a good part of that for the proxy
		p.signal(os.Interrupt)
		if code := p.end(); code != exitOK {
			t.Errorf("code %d", code)
		}
		p.line("udp+duplicate: ", 1)
		if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "+  "+to+"\n") || strings.Count(string(b), "re:x") != 2 {
			t.Errorf("to %s: %v, the log has %s", to, err, b)
		}
	}
	socks.signal(os.Interrupt)
	socks.end()
}

// TestDatagramsProxyAway: a peer's datagrams without a proxy to take them end its flow
// with a word of why, and weir stays.
func TestDatagramsProxyAway(t *testing.T) {
	socks := start(t, "tcp-listen:127.0.0.1:0+socks5", "dial")
	p := start(t, "udp-listen:127.0.0.1:0", "udp:"+socks.listening()+"+socks5:192.0.2.1:9")
	if err := write(dialUDP(t, p.listening()), "x"); err != nil {
		t.Fatal(err)
	}
	p.line("command not supported", 1)
	p.line("0 datagrams, 0 B out, 0 datagrams, 0 B back, 1 dropped (", 1)
	p.line("dropped 1 datagram (other failures 1)", 1) // while it runs
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	at := socks.listening()
	socks.signal(os.Interrupt)
	socks.end()
	p = start(t, "udp-listen:127.0.0.1:0", "udp:"+at+"+socks5:192.0.2.1:9")
	if err := write(dialUDP(t, p.listening()), "x"); err != nil {
		t.Fatal(err)
	}
	p.line("cannot connect to the proxy "+at+": refused", 1)
	p.line("1 dropped (refused 1)", 1)
	p.line("dropped 1 datagram (refused 1)", 1)
	p.signal(os.Interrupt)
	p.end()
}

// TestDatagramsTargets: each peer has a target of its own; one that refuses is left
// out, said once, and is back when checks find it.
func TestDatagramsTargets(t *testing.T) {
	one, stop := echoUDP(t, "1:")
	two, _ := echoUDP(t, "2:")
	p := start(t, "udp-listen:127.0.0.1:0", "udp:"+one, "udp:"+two, "--pick", "turn", "--check", "100ms")
	at := p.listening()
	seen := map[string]bool{}
	for range 2 {
		got, err := askUDP(t, dialUDP(t, at), patience)
		if err != nil {
			t.Fatal(err)
		}
		seen[got] = true
	}
	if !seen["1:x"] || !seen["2:x"] {
		t.Errorf("answers %v", seen)
	}
	stop()
	p.line("cannot send to udp:"+one, 1)
	for range 4 {
		if got, err := askUDP(t, dialUDP(t, at), patience); got != "2:x" {
			t.Errorf("%q, %v", got, err)
		}
	}
	server, err := net.ListenPacket("udp4", one)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	p.line("back udp:"+one, 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestDatagramsFamilies: family= holds for its own target, in relaying and in checks, and a check
// tries each address of a name: one that nothing is at does not make the target away.
func TestDatagramsFamilies(t *testing.T) {
	var targets []string
	var probed, strays []chan struct{}
	for i, hosts := range [][2]string{{"127.0.0.1", "::1"}, {"::1", "127.0.0.1"}, {"127.0.0.1"}, {"::1"}} {
		port, heard := familyServer(t, hosts[0], "0")
		target := "udp:localhost:" + port
		probed = append(probed, heard)
		if hosts[1] != "" { // the other family has a server too, which is to hear nothing
			target += ",family=" + []string{"4", "6"}[i]
			_, heard := familyServer(t, hosts[1], port)
			strays = append(strays, heard)
		}
		targets = append(targets, target)
	}
	p := start(t, "udp-listen:127.0.0.1:0", targets[0], targets[1], "--pick", "turn")
	at := p.listening()
	seen := map[string]bool{}
	for range 2 {
		got, err := askUDP(t, dialUDP(t, at), patience)
		if err != nil {
			t.Fatal(err)
		}
		seen[got] = true
	}
	if !seen["127.0.0.1:x"] || !seen["::1:x"] {
		t.Errorf("answers %v", seen)
	}
	p.signal(os.Interrupt)
	p.end()
	p = start(t, append([]string{"udp-listen:127.0.0.1:0", "--pick", "turn", "--check", "100ms"}, targets...)...)
	p.listening()
	late := time.After(patience)
	for i, heard := range probed {
		for range 3 {
			select {
			case <-heard:
			case <-late:
				t.Fatalf("%s was not checked", targets[i])
			}
		}
	}
	if said := p.said(); strings.Contains(said, "cannot send") {
		t.Error(said)
	}
	for i, heard := range strays {
		if n := len(heard); n > 0 {
			t.Errorf("%d checks of %s went to the other family", n, targets[i])
		}
	}
}

// familyServer starts a server that answers what is not empty with its host before it. heard
// has an element for each empty datagram that comes, up to 100.
func familyServer(t *testing.T, host, port string) (at string, heard chan struct{}) {
	t.Helper()
	server, err := net.ListenPacket("udp", net.JoinHostPort(host, port))
	if err != nil {
		t.Skip(err) // a machine without IPv6, or the port is another program's there
	}
	heard = make(chan struct{}, 100)
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		buf := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			if n > 0 {
				_, _ = server.WriteTo(append([]byte(host+":"), buf[:n]...), from)
				continue
			}
			select {
			case heard <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	_, at, _ = net.SplitHostPort(server.LocalAddr().String())
	return at, heard
}

func TestDatagramsUsage(t *testing.T) {
	for args, want := range map[string]string{
		"udp-listen:5353 localhost:80":                    "datagrams go to datagrams only",
		"- udp:localhost:53":                              "datagrams go to datagrams only",
		"udp-listen:1 udp-listen:2":                       "one side that listens and one that sends",
		"udp:a:1 udp:b:2":                                 "one side that listens and one that sends",
		"udp-listen:1 udp:b:2+tls":                        `layer "tls" is for streams, but udp carries datagrams`,
		"udp-listen:1+log,to=f,lossless udp:b:2":          `option "lossless" of log is for streams`,
		"8080+loss:0.1 localhost:80":                      `layer "loss" is for datagrams, but tcp-listen carries a stream`,
		"udp-listen:1 udp:b:2+socks5":                     `layer "socks5" on udp needs a destination`,
		"udp-listen:1+socks5 udp:b:2":                     `layer "socks5" cannot be used on udp-listen`,
		"udp-listen:1 udp:b:2+socks5:c:3+access":          "access cannot check an address that only the proxy knows",
		"udp-listen:1 udp:b:2+loss:0.1+socks5:c:3":        `layer "socks5" must come first on udp`,
		"udp-listen:1 udp:b:2+socks5:c:3+socks5:d:4":      `layer "socks5" must come first on udp`,
		"udp-listen:1 udp:b:2+socks5:c:3 udp:d:4":         "or none",
		"1080+socks5,udp localhost:1":                     "must be dial alone",
		"- a:1+socks5:b:2,udp":                            "for a server",
		"udp-listen:1 udp:b:2 localhost:3":                "datagrams go to datagrams only",
		"udp-listen:1,interface=lo udp:b:2":               "needs a multicast group",
		"udp-listen:1 udp:b:2,idle=x":                     "idle",
		"udp-listen:127.0.0.1:1,family=6 udp:127.0.0.1:2": "family=6",
	} {
		if r := call(t, strings.Fields(args)...); r.code != exitUsage || !strings.Contains(r.err, want) {
			t.Errorf("weir %s: %+v, want %q", args, r, want)
		}
	}
}

// TestDatagramsExplain: what explain says of datagrams, and of names, is what they do.
func TestDatagramsExplain(t *testing.T) {
	for args, wants := range map[string][]string{
		"udp-listen:5353 udp:9.9.9.9:53,idle=30s":                                   {"datagrams both ways", "udp:9.9.9.9:53", "passed for 30s", "until Ctrl-C"},
		"udp:9.9.9.9:53 udp-listen:5353":                                            {"passed for 1m", "until Ctrl-C"},
		"udp-listen:5353+idle:5s udp:a:53,idle=1h udp:b:53 --pick peer --check 10s": {"passed for 5s", "always the same for one address", "tried every 10s"},
		"udp-listen:5353 udp:proxy:1080+socks5:9.9.9.9:53+idle:5s+loss:0.1":         {"send to 9.9.9.9:53", "passed for 5s", "chance of 0.1"},
		"udp-listen:5353+loss:0.1 udp:proxy:1080+socks5:9.9.9.9:53":                 {"connects to TCP proxy:1080", "send to 9.9.9.9:53", "an association of its own", "chance of 0.1"},
		"udp-listen:239.1.2.3:5000,interface=eth0 udp:a:9":                          {"group 239.1.2.3:5000, on eth0"},
		"udp-listen:5353 udp:239.1.2.3:5000,interface=eth0":                         {"UDP 239.1.2.3:5000 by eth0"},
		"udp-replay:x udp:a:1":                                                      {"ends with the recording"},
		"1080+socks5,udp dial":                                                      {"and it relays their datagrams"},
		"dns-listen:5353 9.9.9.9:853+tls":                                           {"answer", "a cache", "Every question"},
		"dns-listen:5353 resolver":                                                  {"answer", "a cache", "Every question"},
	} {
		r := call(t, append([]string{"explain"}, strings.Fields(args)...)...)
		for _, want := range wants {
			if r.code != exitOK || !strings.Contains(r.out, want) {
				t.Errorf("weir explain %s: %+v, want %q", args, r, want)
			}
		}
	}
}

// TestDatagramLayers: the words of layers work on both sides of a relay of datagrams,
// from the first datagram on, and what they did is said at the end.
func TestDatagramLayers(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	_ = server.SetDeadline(time.Now().Add(patience))
	file := filepath.Join(t.TempDir(), "seen.log")
	// lost sends 40 datagrams and returns those that did not come.
	lost := func(seed string) string {
		t.Helper()
		p := start(t, "udp-listen:127.0.0.1:0+record:"+file+"+loss:0.3,seed="+seed+",direction=in", "udp:"+server.LocalAddr().String()+"+duplicate:1,direction=out,seed=1+log,to="+file+".out")
		c, err := net.Dial("udp4", p.listening())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		var gone strings.Builder
		buf := make([]byte, 10)
		came := map[byte]int{}
		n := 0
		for i := range byte(40) {
			if _, err := c.Write([]byte{i}); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "a recording of all", func() bool {
			text, err := os.ReadFile(file)
			return err == nil && strings.Count(string(text), " < 1 ") == 40
		})
		p.signal(os.Interrupt)
		if code := p.end(); code != exitOK {
			t.Errorf("code %d", code)
		}
		_ = server.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		for {
			if _, _, err := server.ReadFrom(buf); err != nil {
				break
			}
			came[buf[0]]++
			n++
		}
		for i := range byte(40) {
			switch came[i] {
			case 0:
				gone.WriteByte('a' + i)
			case 2:
			default:
				t.Errorf("datagram %d came %d times", i, came[i])
			}
		}
		p.line("+loss: of 40 datagrams ", 1)
		p.line("+duplicate: of ", 1)
		return gone.String()
	}
	first := lost("7")
	if first == "" || first != lost("7") {
		t.Errorf("with one seed %q was lost first", first)
	}
	if first == lost("8") {
		t.Error("another seed lost the same")
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), `< 1 "\x00"`) || !strings.HasPrefix(string(text), "1 +0.") {
		t.Errorf("recorded %q, %v", text, err)
	}
	replayed := start(t, "udp-replay:"+file+",fast,linger=10ms", "udp:"+server.LocalAddr().String())
	if code := replayed.end(); code != exitOK {
		t.Errorf("replay: code %d", code)
	}
	replayed.line("40 datagrams, 40 B out", 1)
	r := call(t, "explain", "udp-listen:5353+loss:0.05+reorder:0.1+limit:9", "udp:127.0.0.1:53+ratelimit:1m")
	for _, want := range []string{"drops datagrams with a chance of 0.05", "overtake", "at most 9 peers at once", "drops what exceeds 1m"} {
		if r.code != exitOK || !strings.Contains(r.out, want) {
			t.Errorf("no %q in %+v", want, r)
		}
	}
	if r := call(t, "help", "loss"); !strings.Contains(r.out, "on datagrams only") {
		t.Errorf("%+v", r)
	}
}

// await looks until cond holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	late := time.After(patience)
	for !cond() {
		select {
		case <-look.C:
		case <-late:
			t.Fatal("waited in vain for ", what)
		}
	}
}

// TestDatagramsReceiveBuffer: a receive buffer that the system makes smaller is told of, once
// for each of the command's endpoints.
func TestDatagramsReceiveBuffer(t *testing.T) {
	most, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if n, perr := strconv.Atoi(strings.TrimSpace(string(most))); err != nil || perr != nil || n >= 1<<30 {
		t.Skip("the system's bound is not known")
	}
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p := start(t, "udp-listen:127.0.0.1:0,receive-buffer=1g", "udp:"+server.LocalAddr().String()+",receive-buffer=1g")
	p.line("udp-listen:127.0.0.1:0: the receive buffer is ", 1)
	for range 2 {
		if err := write(dialUDP(t, p.listening()), "x"); err != nil {
			t.Fatal(err)
		}
	}
	p.line("open ", 2)
	p.signal(os.Interrupt)
	p.end()
	if n := strings.Count(p.said(), "the receive buffer is "); n != 2 {
		t.Errorf("told of %d times", n)
	}
}
