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

func TestDatagramsUsage(t *testing.T) {
	for args, want := range map[string]string{
		"udp-listen:5353 localhost:80":                    "datagrams go to datagrams only",
		"- udp:localhost:53":                              "datagrams go to datagrams only",
		"udp-listen:1 udp-listen:2":                       "one side that listens and one that sends",
		"udp:a:1 udp:b:2":                                 "one side that listens and one that sends",
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
