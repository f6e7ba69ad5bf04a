package ws_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
	"github.com/weir-io/weir/weirtest"
)

// person is a protocol that takes messages above a WebSocket, or bytes below
// one.
type person struct {
	t        weir.Transport
	m        ws.Messenger
	made     func(*person)
	onData   func(*person)
	answered bool
	messages []string
	onMsg    func(*person, string) error
	got      bytes.Buffer
	eof      bool
	lost     bool
	err      error
	failed   error
}

func (p *person) ConnectionMade(t weir.Transport) {
	p.t = t
	p.m, _ = weir.As[ws.Messenger](t)
	if p.made != nil {
		p.made(p)
	}
}

func (p *person) DataReceived(b []byte) (int, error) {
	p.got.Write(b)
	if p.onData != nil {
		p.onData(p)
	}
	return len(b), nil
}
func (p *person) EOFReceived(int) (bool, error)        { p.eof = true; return true, nil }
func (p *person) ConnectionLost(err error)             { p.lost, p.err = true, err }
func (p *person) ConnectFailed(err *weir.ConnectError) { p.failed = err }
func (p *person) over() bool                           { return p.lost || p.failed != nil }

// talker is a person that takes messages.
type talker struct{ person }

func (p *talker) MessageReceived(k ws.Kind, b []byte) error {
	p.messages = append(p.messages, k.String()+" "+string(b))
	if p.onMsg != nil {
		return p.onMsg(&p.person, string(b))
	}
	return nil
}

// pair connects protocols over a WebSocket in the simulator.
func pair(t *testing.T, server, client weir.Protocol, sc, cc *ws.Config) (*weirtest.Sim, *error) {
	t.Helper()
	s := weirtest.NewSim(t, 1)
	var refused error
	layers := func(c *ws.Config, f func(ws.Config) layer.Layer) []layer.Layer {
		if c == nil {
			return nil
		}
		return []layer.Layer{f(*c)}
	}
	if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.ServerFunc(func(weir.Transport) weir.Protocol { return server },
		func(_ weir.Transport, err *weir.AttemptError) { refused = err }, layers(sc, ws.Server)...)); err != nil {
		t.Fatal(err)
	}
	s.Host("client").Loop().Connect("tcp", "server:7", layer.Client(client, layers(cc, ws.Client)...))
	return s, &refused
}

// TestMessages: kinds, empty and long messages, and bytes between messages, in
// their order; also compressed.
func TestMessages(t *testing.T) {
	long := strings.Repeat("long ", 1<<18)
	want := []string{"text ", "text one", "binary \x00\xff", "binary plain", "text " + long, "binary ", "text κόσμε"}
	for _, compress := range []bool{false, true} {
		server, client := &talker{}, &talker{}
		client.made = func(p *person) {
			for i, m := range want {
				kind, body, _ := strings.Cut(m, " ")
				switch {
				case i == 3:
					_, _ = p.t.Write([]byte(body))
				case kind == "text":
					_ = p.m.SendMessage(ws.Text, []byte(body))
				default:
					_ = p.m.SendMessage(ws.Binary, []byte(body))
				}
			}
			if err := p.m.SendMessage(ws.Text, []byte("\xff")); !errors.Is(err, ws.ErrNotUTF8) {
				t.Errorf("text that is none: %v", err)
			}
			_ = p.m.CloseWith(ws.CodeNormal, "bye")
		}
		c := &ws.Config{Compress: compress, Subprotocols: []string{"a", "b"}, Path: "/x"}
		s, _ := pair(t, server, client, c, &ws.Config{Compress: compress, Subprotocols: []string{"c", "b"}, Path: "/x?q"})
		s.Until("the end", func() bool { return server.eof })
		_ = server.t.Close()
		s.Until("both lost", func() bool { return server.lost && client.lost })
		if strings.Join(server.messages, "|") != strings.Join(want, "|") {
			t.Errorf("compress %v: %d messages of %d, or others", compress, len(server.messages), len(want))
		}
		code, text := server.m.PeerClose()
		if code != ws.CodeNormal || text != "bye" || server.m.Subprotocol() != "b" || client.m.Subprotocol() != "b" || server.m.RequestPath() != "/x?q" {
			t.Errorf("closed with %v %q, subprotocol %q, path %q", code, text, server.m.Subprotocol(), server.m.RequestPath())
		}
		if server.err != nil || client.err != nil {
			t.Errorf("lost with %v and %v", server.err, client.err)
		}
	}
}

// TestPauseInMessage: pausing inside a message's callback holds back further
// messages until reading is resumed (behaviour 84), although they have arrived.
func TestPauseInMessage(t *testing.T) {
	for _, compress := range []bool{false, true} {
		server, client := &talker{}, &talker{}
		client.made = func(p *person) {
			for range 5 {
				_ = p.m.SendMessage(ws.Binary, make([]byte, 200))
			}
		}
		server.onMsg = func(p *person, _ string) error { p.t.PauseReading(); return nil }
		s, _ := pair(t, server, client, &ws.Config{Compress: compress}, &ws.Config{Compress: compress})
		for i := 1; i <= 5; i++ {
			s.Until("a message", func() bool { return len(server.messages) >= i })
			past := false
			s.Host("server").Loop().After(time.Second, func() { past = true })
			s.Until("a second", func() bool { return past })
			if len(server.messages) != i {
				t.Fatalf("compress %v: %d messages after %d resumes", compress, len(server.messages), i-1)
			}
			server.t.ResumeReading()
		}
	}
}

// TestUpgradeRefused: a request that is not an upgrade is refused with the
// status that says why, and never becomes a connection.
func TestUpgradeRefused(t *testing.T) {
	const good = "GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	for _, c := range []struct{ request, status string }{
		{good, "HTTP/1.1 101"},
		{good + "Origin: http://h\r\n", "HTTP/1.1 101"},
		{good + "Origin: https://friend.example\r\n", "HTTP/1.1 101"},
		{good + "Origin: https://evil.example\r\n", "HTTP/1.1 403"},
		{strings.Replace(good, "/a", "/b", 1), "HTTP/1.1 404"},
		{strings.Replace(good, "GET", "POST", 1), "HTTP/1.1 405"},
		{strings.Replace(good, "Upgrade: websocket", "Upgrade: h2c", 1), "HTTP/1.1 426"},
		{strings.Replace(good, "Version: 13", "Version: 8", 1), "HTTP/1.1 426"},
		{strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "eA==", 1), "HTTP/1.1 400"},
		{strings.Replace(good, "HTTP/1.1", "HTTP/1.0", 1), "HTTP/1.1 400"},
		{strings.Replace(good, "Host: h\r\n", "", 1), "HTTP/1.1 400"},
		{good + "Host: g\r\n", "HTTP/1.1 400"},
		{good + "Bad name: x\r\n", "HTTP/1.1 400"},
		{good + "Cookie: " + strings.Repeat("x", 15<<10) + "\r\n", "HTTP/1.1 101"},
		{good + "X: " + strings.Repeat("x", 64<<10) + "\r\n", "HTTP/1.1 431"},
		{"\r\n\r\n" + good, "HTTP/1.1 101"},
		{strings.Replace(good, "/a", "http://h/a?q", 1), "HTTP/1.1 101"},
		{strings.Replace(good, "/a", "wss://h:1/a", 1), "HTTP/1.1 101"},
		{strings.Replace(good, "/a", "http://h/b", 1), "HTTP/1.1 404"},
		{strings.Replace(good, "/a", "ftp://h/a", 1), "HTTP/1.1 400"},
		{good + "Content-Length: 0\r\n", "HTTP/1.1 101"},
		{good + "Content-Length: 7\r\n", "HTTP/1.1 400"},
		{good + "Content-Length: +0\r\n", "HTTP/1.1 400"},
		{good + "Content-Length:\r\n", "HTTP/1.1 400"},
		{good + "Transfer-Encoding: chunked\r\n", "HTTP/1.1 400"},
		{good + "Expect: something-else\r\n", "HTTP/1.1 417"},
		{good + "Expect: 100-continue\r\nExpect: 100-continue\r\n", "HTTP/1.1 417"},
		{good + "Expect: 100-continue\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101"},
		{"\x16\x03\x01\x00\x00", "HTTP/1.1 400"},
	} {
		server, client := &person{}, &person{}
		client.made = func(p *person) { _, _ = p.t.Write([]byte(c.request + "\r\n")) }
		s, refused := pair(t, server, client, &ws.Config{Path: "/a", Origins: []string{"https://friend.example"}}, nil)
		s.Until("an answer", func() bool {
			return strings.Count(client.got.String(), "\r\n\r\n") >= 1+strings.Count(c.status, "\r\n\r\n")
		})
		if !strings.HasPrefix(client.got.String(), c.status) {
			t.Errorf("%.300q: %q", c.request, client.got.String())
		}
		if ok := strings.HasSuffix(c.status, "101"); ok != (server.t != nil) || ok == (*refused != nil) {
			t.Errorf("%.300q: made %v, refused with %v", c.request, server.t != nil, *refused)
		}
	}
	// A client that sends nothing is not waited for.
	server, client := &person{}, &person{}
	s, refused := pair(t, server, client, &ws.Config{}, nil)
	s.Until("the end", func() bool { return client.over() || client.eof })
	if !errors.Is(*refused, layer.ErrTimeout) || s.Now() < 10*time.Second || s.Now() > 11*time.Second {
		t.Errorf("after %v: %v", s.Now(), *refused)
	}
}

// TestAnswerRefused: a client accepts only an answer to its own request.
func TestAnswerRefused(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
		"SSH-2.0-x\r\n\r\n",
		"\x00",
	} {
		server, client := &person{}, &person{}
		server.made = func(p *person) { _, _ = p.t.Write([]byte(answer)) }
		s, _ := pair(t, server, client, nil, &ws.Config{})
		s.Until("the end", client.over)
		var e *ws.UpgradeError
		if client.t != nil || !errors.As(client.failed, &e) {
			t.Errorf("%q: made %v, %v", answer, client.t != nil, client.failed)
		}
	}
	client := &person{}
	s, _ := pair(t, &person{}, client, nil, &ws.Config{Path: "/x HTTP/1.1\r\nEvil: 1"})
	s.Until("the end", client.over)
	if client.failed == nil {
		t.Error("a path with a line break was asked for")
	}
}

// raw is a peer below a server's WebSocket: it upgrades and then sends frames.
func raw(t *testing.T, c ws.Config, frames string) (server *talker, client *person, s *weirtest.Sim) {
	t.Helper()
	server, client = &talker{}, &person{}
	client.made = func(p *person) {
		_, _ = p.t.Write([]byte("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n" + frames))
	}
	s, _ = pair(t, server, client, &c, nil)
	s.Until("the upgrade", func() bool { return bytes.Contains(client.got.Bytes(), []byte("\r\n\r\n")) })
	return server, client, s
}

// TestWrongFrames: a violation of the protocol is answered by a close with the
// right code, and is the reason for the loss.
func TestWrongFrames(t *testing.T) {
	const key = "\x00\x00\x00\x00"
	for _, c := range []struct {
		frames string
		code   ws.Code
	}{
		{"\x81\x01x", ws.CodeProtocolError},                       // not masked
		{"\x83\x80" + key, ws.CodeProtocolError},                  // an unknown kind
		{"\x81\x81" + key + "\xff", ws.CodeInvalid},               // not UTF-8
		{"\x81\x82" + key + "\xc3\x28", ws.CodeInvalid},           //
		{"\x01\x81" + key + "\xc3\x80\x80" + key, ws.CodeInvalid}, // a character cut off
		{"\x82\xfe\x03\xe9" + key + strings.Repeat("x", 1001), ws.CodeTooBig},
		{"\xc2\x81" + key + "\xff", ws.CodeInvalid},           // does not inflate
		{"\x88\x81" + key + "x", ws.CodeProtocolError},        // a close of one byte
		{"\x88\x82" + key + "\x03\xed", ws.CodeProtocolError}, // 1005
	} {
		server, client, s := raw(t, ws.Config{MaxMessage: 1000, Compress: true}, c.frames)
		s.Until("the end", func() bool { return server.lost && (client.eof || client.lost) })
		_, answer, _ := bytes.Cut(client.got.Bytes(), []byte("\r\n\r\n"))
		if len(answer) < 4 || answer[0] != 0x88 || ws.Code(int(answer[2])<<8|int(answer[3])) != c.code {
			t.Errorf("%.40q: answered with %q, want code %v", c.frames, answer, c.code)
		}
		var e *ws.ProtocolError
		if !errors.As(server.err, &e) || e.Code != c.code {
			t.Errorf("%.40q: lost with %v", c.frames, server.err)
		}
	}
	// An end without a close is a truncated stream; a code that does not mean a
	// regular end is a reason.
	server, client, s := raw(t, ws.Config{}, "")
	_ = client.t.WriteEOF()
	s.Until("the end", func() bool { return server.lost })
	if !errors.Is(server.err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", server.err)
	}
	server, _, s = raw(t, ws.Config{}, "\x88\x86"+key+"\x03\xf3oops")
	s.Until("the end", func() bool { return server.lost })
	var e *ws.CloseError
	if !errors.As(server.err, &e) || e.Code != ws.CodeInternal || e.Reason != "oops" {
		t.Errorf("closed with 1011: %v", server.err)
	}
}

// TestPingFlood: a peer that pings and reads nothing does not fill our memory
// (G3), and one that does not answer pings is lost.
func TestPingFlood(t *testing.T) {
	ping := "\x89\xfd\x00\x00\x00\x00" + strings.Repeat("p", 125)
	server, client, s := raw(t, ws.Config{}, "")
	client.t.PauseReading()
	most := 0
	below, _ := weir.As[interface{ Unwrap() weir.Transport }](server.t)
	for range 200 {
		_, _ = client.t.Write([]byte(strings.Repeat(ping, 100)))
		past := false
		s.Host("client").Loop().After(10*time.Millisecond, func() { past = true })
		s.Until("some time", func() bool { return past })
		most = max(most, below.Unwrap().Buffered())
	}
	if most > 64<<10+127 || most == 0 {
		t.Errorf("%d bytes of pongs wait, the mark is 64 KiB", most)
	}
	server, _, s = raw(t, ws.Config{PingEvery: 10 * time.Second}, "")
	s.Until("the end", func() bool { return server.lost })
	var pong *ws.PongError
	if !errors.As(server.err, &pong) || pong.After != 10*time.Second || !errors.Is(server.err, layer.ErrTimeout) || s.Now() > 31*time.Second {
		t.Errorf("lost after %v with %v", s.Now(), server.err)
	}
}
