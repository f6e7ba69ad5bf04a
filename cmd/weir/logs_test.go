package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHealthChecks: a client that only checks whether it can connect causes no
// warning, whatever layers the listener has; one that says something and then leaves
// does.
func TestHealthChecks(t *testing.T) {
	a := newAuthority(t)
	cert := a.issue("server", time.Now().Add(time.Hour), "server.test")
	back := server(t, answer(strings.ToUpper))
	for _, c := range []struct{ layers, target, some string }{
		{"+tls" + cert, back, "\x16\x03\x01"},
		{"+proxy-in", back, "PROXY"},
		{"+proxy-in+tls" + cert, back, "PROXY UNKNOWN\r\n\x16\x03\x01"},
		{"+ws", back, "GET"},
		{"+socks5", "dial", "\x05"},
		{"+socks4", "dial", "\x04"},
		{"+connect", "dial", "CONNECT"},
		{"+connect,user=ann,password=env:PW", "dial", "CONNECT"},
	} {
		for _, quiet := range []string{"--quiet", "--log=text", "--log=json"} {
			t.Run(c.layers[:min(len(c.layers), 13)]+quiet, func(t *testing.T) {
				at := freePort(t)
				_, port, _ := strings.Cut(at, ":")
				p := prepare(t, "weir", quiet, port+c.layers, c.target)
				p.Env = append(p.Env, "PW=secret")
				p.begin()
				for i := range 6 {
					conn := dialSoon(t, at)
					switch i % 3 {
					case 0:
						_ = conn.SetLinger(0) // a reset
					case 1:
						if err := conn.CloseWrite(); err != nil {
							t.Fatal(err)
						}
						_, _ = io.Copy(io.Discard, conn)
					}
					_ = conn.Close()
				}
				conn := dial(t, at)
				if err := errors.Join(write(conn, c.some), conn.CloseWrite()); err != nil {
					t.Fatal(err)
				}
				p.line(conn.LocalAddr().String(), 1)
				if n := strings.Count(p.said(), "no connection with"); n != 1 {
					t.Errorf("%d warnings, want that of who said something:\n%s", n, p.said())
				}
			})
		}
	}
}

// dialSoon connects once something listens.
func dialSoon(t *testing.T, at string) *net.TCPConn {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", at)
		if err == nil {
			return c.(*net.TCPConn)
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // with -q nothing says when
	}
}

// TestInsecureIsLoud: -q does not silence it.
func TestInsecureIsLoud(t *testing.T) {
	p := start(t, "-q", "0+tls,insecure", server(t, answer(strings.ToUpper))+"+tls,insecure")
	if code := p.end(); code != exitUsage { // a server verifies no one's name
		t.Fatalf("code %d", code)
	}
	q := prepare(t, "weir", "-q", "-", server(t, answer(strings.ToUpper))+"+tls,insecure")
	q.Stdin = strings.NewReader("")
	q.begin()
	q.line("INSECURE", 1)
}

// roundTrip sends the request to a server that answers in capitals, and compares.
func roundTrip(at, request string) error {
	c, err := net.Dial("tcp", at)
	if err != nil {
		return err
	}
	defer c.Close()
	conn := c.(*net.TCPConn)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := write(conn, request); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(conn)
	if err == nil && string(got) != strings.ToUpper(request) {
		err = fmt.Errorf("%d bytes of %d", len(got), len(request))
	}
	return err
}

// TestLogRate: a flood of one kind of event is reported up to a rate, and then how
// many more there were; other kinds are reported as before.
func TestLogRate(t *testing.T) {
	for _, form := range []string{"text", "json"} {
		began := time.Now()
		p := start(t, "--log", form, "--log-rate", "1", "tcp-listen:127.0.0.1:0", server(t, answer(strings.ToUpper)))
		at := ""
		if form == "json" {
			at = p.listeningJSON()
		} else {
			at = p.listening()
		}
		const many = 300
		for range many {
			if err := roundTrip(at, "x"); err != nil {
				t.Fatal(err)
			}
		}
		p.signal(os.Interrupt)
		if code := p.end(); code != exitOK {
			t.Errorf("code %d", code)
		}
		opened, left := 0, 0
		for line := range strings.Lines(p.said()) {
			var ev struct {
				Msg, Kind string
				Entries   int
			}
			n := 0
			switch err := json.Unmarshal([]byte(line), &ev); {
			case form == "json" && err != nil:
				t.Fatalf("%s: %v", line, err)
			case strings.HasPrefix(line, "weir: open "), ev.Msg == "open":
				opened++
			case ev.Msg == "left out" && ev.Kind == "open":
				left += ev.Entries
			case form == "text":
				if k, _ := fmt.Sscanf(line, `weir: … and %d more`, &n); k == 1 && strings.Contains(line, `"open"`) {
					left += n
				}
			}
		}
		most := min(many, logBurst+1+int(time.Since(began)/time.Second))
		if opened < logBurst || opened > most || opened+left != many {
			t.Errorf("%s: %d lines, at most %d were due, %d were left out, of %d", form, opened, most, left, many)
		}
		if !strings.Contains(p.said(), "done") {
			t.Errorf("%s: it does not say done", form)
		}
	}
}

// TestRates: a burst, then a rate, and the count of the rest.
func TestRates(t *testing.T) {
	var now time.Duration
	var left []string
	r := newRates(2, func(kind string, n int64) { left = append(left, fmt.Sprintf("%s %d", kind, n)) })
	r.now = func() time.Duration { return now }
	said := 0
	for range 1000 {
		if r.allow("a") {
			said++
		}
	}
	if said != 2*logBurst || !r.allow("b") {
		t.Errorf("%d at once", said)
	}
	now += 3 * time.Second
	for range 1000 {
		if r.allow("a") {
			said++
		}
	}
	r.flush()
	if said != 2*logBurst+6 || len(left) != 1 || left[0] != fmt.Sprintf("a %d", 2000-said) {
		t.Errorf("%d said, %v", said, left)
	}
	if r = newRates(0, nil); !r.allow("a") {
		t.Error("0 is no bound")
	}
	if d := r.now(); d < 0 || d > time.Hour {
		t.Errorf("its time, which no one sets, is %v at the start", d)
	}
	if grouped(1234567) != "1,234,567" || grouped(999) != "999" {
		t.Error(grouped(1234567), grouped(999))
	}
}

// TestTrafficJSON: +log on standard error is JSON if the rest of it is.
func TestTrafficJSON(t *testing.T) {
	for _, format := range []string{"text", "hex", "count"} {
		p := start(t, "--log=json", "tcp-listen:127.0.0.1:0+log,format="+format, server(t, answer(strings.ToUpper)))
		if err := roundTrip(p.listeningJSON(), "a \"quoted\\\" \x1b[2J\nline é"); err != nil {
			t.Fatal(err)
		}
		p.signal(os.Interrupt)
		if code := p.end(); code != exitOK {
			t.Errorf("code %d", code)
		}
		got := ""
		for line := range strings.Lines(p.said()) {
			var ev struct {
				Time      time.Time
				Level     string
				Msg       string
				Conn      int
				Event     string
				Data, Hex *string
				Bytes     int
			}
			if err := json.Unmarshal([]byte(line), &ev); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if ev.Time.IsZero() || ev.Level == "" {
				t.Errorf("%s", line)
			}
			if ev.Msg == "traffic" {
				got += ev.Event + " "
				if ev.Event == "received" && format == "text" && *ev.Data != `a \"quoted\\\" \x1b[2J\nline \xc3\xa9` {
					t.Errorf("data %s", *ev.Data)
				}
				if (ev.Event == "received") && (ev.Bytes != 24 || (ev.Data == nil) != (format == "count") || (ev.Hex == nil) != (format != "hex")) {
					t.Errorf("%s: %s", format, line)
				}
			}
		}
		if got != "made received peer ended sent we ended lost " {
			t.Errorf("events %q", got)
		}
	}
}

// TestIdentity: the lines about a connection say who its peer has proved to be.
func TestIdentity(t *testing.T) {
	a := newAuthority(t)
	until := time.Now().Add(time.Hour)
	back := server(t, answer(strings.ToUpper))
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("ann:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name             string
		listen, to, from string
		want             []string
	}{
		{"certificate", "+tls,client-ca=" + a.ca() + a.issue("server", until, "server.test"), back, "+tls,name=server.test,ca=" + a.ca() + a.issue("billing", until), []string{`(certificate "CN=billing")`, `"certificate":"CN=billing"`}},
		{"socks5", "+socks5,users=file:" + users, "dial", "+socks5:" + back + ",user=ann,password=env:PW", []string{`(user "ann")`, `"user":"ann"`}},
		{"connect", "+connect,users=file:" + users, "dial", "+connect:" + back + ",user=ann,password=env:PW", []string{`(user "ann")`, `"user":"ann"`}},
	} {
		for i, form := range []string{"text", "json"} {
			args := []string{"--log", form, "tcp-listen:127.0.0.1:0" + c.listen, c.to}
			if c.to == "dial" {
				args = append(args, "--allow", "127.0.0.0/8")
			}
			p := start(t, args...)
			at := ""
			if form == "json" {
				at = p.listeningJSON()
			} else {
				at = p.listening()
			}
			q := prepare(t, "weir", "-", at+c.from)
			q.Env = append(q.Env, "PW=secret")
			q.Stdin = strings.NewReader("x")
			q.begin()
			if code := q.end(); code != exitOK {
				t.Fatalf("%s: code %d: %s", c.name, code, q.said())
			}
			for _, word := range []string{"open", "close"} {
				if line := p.line(word, 1); !strings.Contains(line, c.want[i]) {
					t.Errorf("%s: %s", c.name, line)
				}
			}
		}
	}
}

// TestPlainProxyRequest: a client that takes +connect for a proxy for plain http
// is told what it is, and so are readers of the log; a header's value is never
// shown.
func TestPlainProxyRequest(t *testing.T) {
	const secret = "c2VjcmV0OnNlY3JldA=="
	p := start(t, "0+connect", "dial")
	at := p.listening()
	for i, c := range []struct{ request, status, log, next string }{
		{"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", "405", `sent "GET" with a URL, as to a proxy for plain http`, "have the client tunnel (curl -p"},
		{"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "405", `sent "GET", as to a web server`, "only for clients that have it set as their proxy"},
		{"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization : Basic " + secret + "\r\n\r\n", "400", `has a blank in the header name "Proxy-Authorization "`, ""},
		{"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization:\r\n Basic " + secret + "\r\n\r\n", "400", "line 3 of the client's request begins with a blank", ""},
		{"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization Basic " + secret + "\r\n\r\n", "400", "it has no colon", ""},
		{"CONNECT a:1 HTTP/1.1\r\n:" + secret + "\r\n\r\n", "400", "a header without a name", ""},
		{"CONNECT http://u:" + secret + "@h:1/ x HTTP/1.1\r\n\r\n", "400", `it begins with "CONNECT"`, ""},
		{"CONNECT u:" + secret + "@h:1 HTTP/1.1\r\nHost: h\r\n\r\n", "400", "too many colons in address", ""},
	} {
		conn := dial(t, at)
		if err := errors.Join(write(conn, c.request), conn.CloseWrite()); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 "+c.status) {
			t.Errorf("%q: %.40q, %v", c.request, got, err)
		}
		if line := p.line("no connection with", i+1); !strings.Contains(line, c.log) {
			t.Errorf("%q: %s", c.request, line)
		}
		if c.next != "" {
			p.line(c.next, 1)
		}
	}
	if strings.Contains(p.said(), secret) {
		t.Errorf("a secret is shown:\n%s", p.said())
	}
}
