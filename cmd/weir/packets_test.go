package main

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir/address"
)

// lines is a writer that hands over each line that was written.
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
		stderr: said, lookupEnv: func(string) (string, bool) { return "", false }, table: address.Default(),
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
	await("refused")
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

// TestDatagramsLogRate: what is left out of the log of datagrams is counted at the
// end, as that of connections is.
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

// askUDP sends a datagram and returns the answer, or the error of a wait for it.
func askUDP(t *testing.T, c net.Conn, text string, wait time.Duration) (string, error) {
	t.Helper()
	if err := write(c, text); err != nil {
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
		if got, err := askUDP(t, c, "x", patience); got != "re:x" {
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
	if got, err := askUDP(t, dialUDP(t, p.listening()), "x", 500*time.Millisecond); err == nil {
		t.Errorf("what is denied answers %q", got)
	}
	p.signal(os.Interrupt)
	p.end()
	denies.line("1 refused by the rules", 1)
	denies.signal(os.Interrupt)
	denies.end()
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
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	socks.signal(os.Interrupt)
	socks.end()
}

// TestDatagramsTargets: each peer has a target of its own; one that refuses is left
// out, said once, and is back when checks find it.
func TestDatagramsTargets(t *testing.T) {
	if os.Getenv("WEIR_BACKEND") == "portable" {
		t.Skip("the portable backend does not hear of refusals")
	}
	one, stop := echoUDP(t, "1:")
	two, _ := echoUDP(t, "2:")
	p := start(t, "udp-listen:127.0.0.1:0", "udp:"+one, "udp:"+two, "--pick", "turn", "--check", "100ms")
	at := p.listening()
	seen := map[string]bool{}
	for range 2 {
		got, err := askUDP(t, dialUDP(t, at), "x", patience)
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
		if got, err := askUDP(t, dialUDP(t, at), "x", patience); got != "2:x" {
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

func TestDatagramsUsage(t *testing.T) {
	for args, want := range map[string]string{
		"udp-listen:5353 localhost:80":                    "datagrams go to datagrams only",
		"- udp:localhost:53":                              "datagrams go to datagrams only",
		"udp-listen:1 udp-listen:2":                       "one side that listens and one that sends",
		"udp:a:1 udp:b:2":                                 "one side that listens and one that sends",
		"udp-listen:1 udp:b:2+socks5":                     "no layer takes those",
		"udp-listen:1 udp:b:2+socks5:c:3 udp:d:4":         "or none",
		"1080+socks5,udp localhost:1":                     "not dial alone",
		"- a:1+socks5:b:2,udp":                            "for a server",
		"udp-listen:1 udp:b:2 localhost:3":                "datagrams go to datagrams only",
		"udp-listen:1,interface=lo udp:b:2":               "no multicast group",
		"udp-listen:1 udp:b:2+tls":                        "no layer takes those",
		"udp-listen:1 udp:b:2,idle=x":                     "idle",
		"udp-listen:127.0.0.1:1,family=6 udp:127.0.0.1:2": "family=6",
	} {
		if r := call(t, strings.Fields(args)...); r.code != exitUsage || !strings.Contains(r.err, want) {
			t.Errorf("weir %s: %+v, want %q", args, r, want)
		}
	}
	r := call(t, "explain", "udp-listen:5353", "udp:9.9.9.9:53,idle=30s")
	if r.code != exitOK || !strings.Contains(r.out, "datagrams both ways") || !strings.Contains(r.out, "udp:9.9.9.9:53") {
		t.Errorf("%+v", r)
	}
}
