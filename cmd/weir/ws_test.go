package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestWSRequest: what a client's options put into the request, with secrets read
// from where they are named, and the host that is asked for.
func TestWSRequest(t *testing.T) {
	t.Setenv("WS_COOKIE", "a=1; b=2")
	t.Setenv("WS_PASSWORD", "pa:ss")
	t.Setenv("WS_TOKEN", "Bearer xyz")
	for _, c := range []struct {
		options string
		want    []string
	}{
		{"", []string{"Host: ADDR"}},
		{",host=other.example", []string{"Host: other.example"}},
		{",header=X-One:1,header=X-Two: two words", []string{"X-One: 1", "X-Two: two words"}},
		{",cookie=env:WS_COOKIE", []string{"Cookie: a=1; b=2"}},
		{",user=me,password=env:WS_PASSWORD", []string{"Authorization: Basic bWU6cGE6c3M="}},
		{",header=Authorization:env:WS_TOKEN", []string{"Authorization: Bearer xyz"}},
		{",origin=https://page.example,protocol=a,protocol=b", []string{"Origin: https://page.example", "Sec-WebSocket-Protocol: a, b"}},
	} {
		heads := make(chan string, 1)
		addr := server(t, func(c *net.TCPConn) {
			var head strings.Builder
			_, _ = http.ReadRequest(bufio.NewReader(io.TeeReader(c, &head)))
			heads <- head.String()
			_, _ = c.Write([]byte("HTTP/1.1 401 Who are you?\r\nContent-Length: 10\r\n\r\nfor\tadmins"))
		})
		r := run(t, "", "-", addr+"+ws"+c.options)
		head := <-heads
		for _, want := range c.want {
			if want = strings.ReplaceAll(want, "ADDR", addr); !strings.Contains(head, "\r\n"+want+"\r\n") {
				t.Errorf("%s: %q is not in %q", c.options, want, head)
			}
		}
		if r.code != exitFailure || !strings.Contains(r.err, `"401 Who are you?", and says "for admins"`) || !strings.Contains(r.err, ",user=NAME") {
			t.Errorf("%s: code %d, said %q", c.options, r.code, r.err)
		}
		for _, secret := range []string{"a=1", "pa:ss", "xyz", "bWU6"} {
			if strings.Contains(r.err, secret) {
				t.Errorf("%s: the secret is in %q", c.options, r.err)
			}
		}
	}
}

// TestWSHost: IPv6 in brackets, however it was written.
func TestWSHost(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	port := l.Addr().String()[len("[::1]:"):]
	for _, target := range []string{"tcp:::1:" + port, "[::1]:" + port} {
		heads := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				heads <- r.Host
			}
			_ = c.Close()
		}()
		run(t, "", "-", target+"+ws")
		if host := <-heads; host != "[::1]:"+port {
			t.Errorf("%s: Host: %s", target, host)
		}
	}
}

// TestWSGuard: a page of another site whose name leads to 127.0.0.1 does not reach
// a server that listens there, and the log says how to let one in.
func TestWSGuard(t *testing.T) {
	back := server(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	for _, c := range []struct{ options, fields, status, says string }{
		{"", "Host: evil.example\r\nOrigin: http://evil.example\r\n", "403", ",host=evil.example"},
		{"", "Host: localhost\r\nOrigin: http://evil.example\r\n", "403", ",origin=http://evil.example"},
		{"", "Host: localhost:1\r\nOrigin: http://localhost:1\r\n", "101", ""},
		{",host=good.example,origin=https://page.example", "Host: good.example\r\nOrigin: https://page.example\r\n", "101", ""},
		{",host=*", "Host: evil.example\r\n", "101", ""},
	} {
		p := start(t, "0+ws"+c.options, back)
		conn := dial(t, p.listening())
		if err := write(conn, "GET / HTTP/1.1\r\n"+c.fields+"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		status, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(status, "HTTP/1.1 "+c.status) {
			t.Errorf("%s, %q: %q, %v", c.options, c.fields, status, err)
		}
		if c.says != "" {
			p.line(c.says, 1)
		}
		_ = conn.Close()
		p.signal(os.Interrupt)
		p.end()
	}
}

// TestWSOneShot: against a server other than weir, a pipe's input ends, its reply
// comes, and the command ends.
func TestWSOneShot(t *testing.T) {
	for _, option := range []string{",eof-wait=2s", ",eof-close"} {
		addr := server(t, foreignEcho)
		r := run(t, "hi", "-", addr+"+ws,text"+option)
		if r.code != exitOK || option != ",eof-close" && r.out != "hi" {
			t.Errorf("%s: %+v", option, r)
		}
	}
}

// foreignEcho is a WebSocket server that knows no extension: it sends every frame
// back, a close too, and then ends.
func foreignEcho(c *net.TCPConn) {
	b := bufio.NewReader(c)
	req, err := http.ReadRequest(b)
	if err != nil {
		return
	}
	_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptOf(req.Header.Get("Sec-WebSocket-Key")) + "\r\n\r\n"))
	for {
		var head [6]byte
		if _, err := io.ReadFull(b, head[:]); err != nil {
			return
		}
		p := make([]byte, head[1]&0x7f) // the frames of these tests are short
		if _, err := io.ReadFull(b, p); err != nil {
			return
		}
		for i := range p {
			p[i] ^= head[2+i%4]
		}
		_, _ = c.Write(append([]byte{head[0], head[1] & 0x7f}, p...))
		if head[0]&0x0f == 8 {
			return
		}
	}
}

// run runs weir with an input until it ends.
func run(t *testing.T, input string, args ...string) result {
	t.Helper()
	p := prepare(t, "weir", args...)
	var out bytes.Buffer
	p.Stdin, p.Stdout = strings.NewReader(input), &out
	p.begin()
	code := p.end()
	return result{code, out.String(), p.said()}
}

// acceptOf is the answer to a Sec-WebSocket-Key (RFC 6455, 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
