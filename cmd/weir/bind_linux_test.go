package main

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/proxy"
)

// binder is a client of a proxy that has the proxy wait for a connection. It
// answers its peer in capitals.
type binder struct {
	loop   *weir.Loop
	tr     weir.Transport
	got    []byte
	failed error
	lost   bool
}

func (b *binder) ConnectionMade(t weir.Transport) { b.tr = t }

func (b *binder) DataReceived(p []byte) (int, error) {
	b.got = append(b.got, p...)
	return len(p), nil
}

func (b *binder) EOFReceived(int) (keepOpen bool, err error) {
	_, err = b.tr.Write([]byte(strings.ToUpper(string(b.got))))
	return false, err
}

func (b *binder) ConnectionLost(err error) {
	b.failed, b.lost = err, true
	b.loop.Stop()
}

func (b *binder) ConnectFailed(err *weir.ConnectError) {
	b.failed = err
	b.loop.Stop()
}

// bindThrough asks a proxy for BIND; bound is told, on a goroutine of its own,
// where the proxy waits.
func bindThrough(t *testing.T, at string, client func(string, ...proxy.ClientOption) layer.Layer, dest string, bound func(at string)) *binder {
	t.Helper()
	loop, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	b := &binder{loop: loop}
	done := make(chan struct{})
	var waits string
	loop.Connect("tcp", at, layer.Client(b, client(dest, proxy.WithBindRequest(func(a net.Addr) {
		waits = a.String()
		go func() { defer close(done); bound(waits) }()
	}))))
	loop.After(patience, func() { t.Error("it takes too long"); loop.Stop() })
	if err := errors.Join(loop.Run(), loop.Close()); err != nil {
		t.Fatal(err)
	}
	if waits != "" {
		<-done
	}
	return b
}

// come connects to at from an address, sends a text, and returns the reply.
func come(at, from, text string) (reply string, local string, err error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	c, err := d.Dial("tcp", at)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = c.Close() }()
	tcp, _ := c.(*net.TCPConn)
	all, err := []byte(nil), errors.Join(c.SetDeadline(time.Now().Add(patience)), write(c, text), tcp.CloseWrite())
	if err == nil {
		all, err = io.ReadAll(c)
	}
	return string(all), c.LocalAddr().String(), err
}

// TestBind: with bind a client of the proxy waits for the host that it names, and
// for no other; it is told where, then who came, and bytes pass both ways.
func TestBind(t *testing.T) {
	for _, c := range []struct {
		word, dest string
		client     func(string, ...proxy.ClientOption) layer.Layer
		stranger   string // who is turned away; "": no one
	}{
		{"socks5", "127.0.0.9:20", proxy.SOCKS5, "127.0.0.1"},
		{"socks5", "localhost:20", proxy.SOCKS5, "127.0.0.9"},
		{"socks5", "0.0.0.0:0", proxy.SOCKS5, ""},
		{"socks4a", "127.0.0.9:20", proxy.SOCKS4a, "127.0.0.1"},
		{"socks4", "127.0.0.9:20", proxy.SOCKS4, "127.0.0.1"},
	} {
		t.Run(c.word+" "+c.dest, func(t *testing.T) {
			p := start(t, "tcp-listen:127.0.0.1:0+"+c.word+",bind=127.0.0.1", "dial")
			from := "127.0.0.9"
			if strings.HasPrefix(c.dest, "localhost") {
				from = "127.0.0.1"
			}
			var reply, came string
			b := bindThrough(t, p.listening(), c.client, c.dest, func(at string) {
				if c.stranger != "" {
					if reply, _, _ := come(at, c.stranger, "x"); reply != "" { // it may be reset, or end
						t.Errorf("%s was answered %q", c.stranger, reply)
					}
					p.line("no connection with "+c.stranger, 1)
				}
				var err error
				if reply, came, err = come(at, from, "from afar"); err != nil {
					t.Error(err)
				}
				if _, _, err := come(at, from, "again"); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("a second connection: %v", err)
				}
			})
			if b.failed != nil || string(b.got) != "from afar" || reply != "FROM AFAR" || b.tr == nil || b.tr.RemoteAddr().String() != came {
				t.Errorf("the client got %q of %q, the peer %q; it ended with %v", b.got, came, reply, b.failed)
			}
			p.line("waits on 127.0.0.1:", 1)
			p.line("close #1 ", 1)
		})
	}
}

// TestBindRefused: there is no BIND unless it is turned on, none against the
// rules, and no wait lasts forever.
func TestBindRefused(t *testing.T) {
	for _, c := range []struct {
		word, other, dest string
		want              error
		says              string
		flags             []string
	}{
		{"socks5", "dial", "127.0.0.9:20", proxy.ErrCommand, "command not supported", nil},
		{"socks5,bind=127.0.0.1", "dial", "127.0.0.9:20", proxy.ErrNotAllowed, "--deny refuses it", []string{"--deny", "127.0.0.9"}},
		{"socks5,bind=127.0.0.1", "dial", "169.254.1.1:20", proxy.ErrNotAllowed, "add --allow 169.254.1.1", nil},
		{"socks5,bind=127.0.0.1", "dial,timeout=100ms", "127.0.0.9:20", syscall.ETIMEDOUT, "no connection came from 127.0.0.9:20, for which a client of the proxy waited", nil},
		{"socks5,bind=192.0.2.1", "dial", "127.0.0.9:20", nil, "cannot wait for 127.0.0.9:20 (BIND): not an address of this machine", nil},
	} {
		t.Run(c.word+" "+c.other+" "+c.dest, func(t *testing.T) {
			p := start(t, append([]string{"tcp-listen:127.0.0.1:0+" + c.word, c.other}, c.flags...)...)
			b := bindThrough(t, p.listening(), proxy.SOCKS5, c.dest, func(string) {})
			var refused *proxy.Error
			if b.tr != nil || !errors.As(b.failed, &refused) || c.want != nil && !errors.Is(b.failed, c.want) {
				t.Errorf("made %v, failed %v", b.tr, b.failed)
			}
			p.line(c.says, 1)
		})
	}
}

// TestBindGivenUp: the port is closed when the time is up, even if the client
// left before. What the client sent waits to be read until its peer is there, so
// its end need not be noticed earlier; a reset may be.
func TestBindGivenUp(t *testing.T) {
	p := start(t, "tcp-listen:127.0.0.1:0+socks5,bind=127.0.0.1", "dial,timeout=200ms")
	c := dial(t, p.listening())
	if err := write(c, "\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x09\x00\x14"); err != nil {
		t.Fatal(err)
	}
	_, at, _ := strings.Cut(p.line("waits on ", 1), "waits on ")
	at, _, _ = strings.Cut(at, " ")
	_ = c.Close()
	for deadline := time.Now().Add(patience); ; {
		_, _, err := come(at, "127.0.0.1", "") // a stranger, who is turned away
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still open: %v", at, err)
		}
	}
}

// TestBindUsage: bind is accepted where it can be served, and nowhere else.
func TestBindUsage(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"1080+socks5,bind=127.0.0.1", "localhost:80", "must be dial alone"},
		{"1080+socks5,bind=127.0.0.1", "dial+tls", "must be dial alone"},
		{"1080+socks5,bind=127.0.0.1", "proxy:1080+socks5", "must be dial alone"},
		{"1080+socks5,bind=127.0.0.1+connect", "dial", "put it on the last one"},
		{"1080+socks4,bind=::1", "dial", "SOCKS4 has no IPv6 addresses"},
		{"8080", "p:1080+socks5:d:1,bind=127.0.0.1", "is for a server"},
		{"1080+connect,bind=127.0.0.1", "dial", "unknown option"},
	} {
		r := call(t, "explain", c.a, c.b)
		if r.code != exitUsage || !strings.Contains(r.err, c.want) {
			t.Errorf("%s %s: code %d\n%s", c.a, c.b, r.code, r.err)
		}
	}
}
