package ws_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
	"github.com/weir-io/weir/weirtest"
)

const wsRequest = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// zeroes is a source of randomness that is not random, so that a server can
// know the client's key.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// wsAnswer is the answer to a client with zeroes for Rand: its key is 16 zeros.
const wsAnswer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n"

// foreign is a server that is not weir's: it answers the upgrade with answer,
// and then runs then.
func foreign(t *testing.T, client weir.Protocol, c ws.Config, answer string, then func(*person)) (*person, *weirtest.Sim) {
	t.Helper()
	server := &person{}
	c.Rand = zeroes{}
	server.onData = func(p *person) {
		if !p.answered && strings.HasSuffix(p.got.String(), "\r\n\r\n") {
			p.answered = true
			p.got.Reset()
			_, _ = p.t.Write([]byte(answer))
			if then != nil {
				then(p)
			}
		}
	}
	s, _ := pair(t, server, client, nil, &c)
	return server, s
}

// after runs the simulation for d.
func after(s *weirtest.Sim, d time.Duration) {
	past := false
	s.Host("server").Loop().After(d, func() { past = true })
	s.Until("some time", func() bool { return past })
}

// TestEndWithoutExtension: if the peer knows no end of one direction, the
// connection stays open after WriteEOF while something comes, and is closed
// both ways once nothing has come for EOFWait.
func TestEndWithoutExtension(t *testing.T) {
	client := &person{}
	client.made = func(p *person) {
		if !p.t.CanWriteEOF() {
			t.Error("the end cannot be written")
		}
		_, _ = p.t.Write([]byte("ask"))
		_ = p.t.WriteEOF()
	}
	server, s := foreign(t, client, ws.Config{EOFWait: 3 * time.Second}, wsAnswer+"\r\n", nil)
	s.Until("the request", func() bool { return strings.HasSuffix(server.got.String(), "ask") })
	after(s, 2*time.Second)
	_, _ = server.t.Write([]byte("\x82\x05reply"))
	after(s, 2*time.Second) // more than 3 s in all, but not of silence
	if client.got.String() != "reply" || client.lost {
		t.Fatalf("got %q, lost %v", client.got.String(), client.lost)
	}
	if strings.Contains(server.got.String(), "\x88") {
		t.Fatal("closed while the server was answering")
	}
	from := s.Now()
	s.Until("the close", func() bool { return strings.Contains(server.got.String(), "\x88\x82\x00\x00\x00\x00\x03\xe8") })
	if waited := s.Now() - from; waited > 2*time.Second {
		t.Errorf("closed %v after the last bytes", waited+2*time.Second)
	}
	_, _ = server.t.Write([]byte("\x82\x04last\x88\x02\x03\xe8")) // it was already on its way
	s.Until("the end", func() bool { return client.lost })
	if client.got.String() != "replylast" || !client.eof || client.err != nil {
		t.Errorf("got %q, eof %v, lost with %v", client.got.String(), client.eof, client.err)
	}
}

// TestEndWithoutAnswer: if the peer does not answer the close either, we wait
// for it at most as long again, and pongs then do not count as signs of life.
func TestEndWithoutAnswer(t *testing.T) {
	client := &person{made: func(p *person) { _ = p.t.WriteEOF() }}
	server, s := foreign(t, client, ws.Config{EOFWait: time.Second, PingEvery: 500 * time.Millisecond}, wsAnswer+"\r\n", func(p *person) {
		p.t.Loop().NewTimer(func() { _, _ = p.t.Write([]byte("\x8a\x00")) }).Repeat(100 * time.Millisecond)
	})
	s.Until("the end", func() bool { return client.lost })
	if s.Now() > 4*time.Second || client.err == nil {
		t.Errorf("lost after %v with %v", s.Now(), client.err)
	}
	_ = server
}

// TestEndAtOnceAndNever: an EOFWait of 1 ns closes the connection with the end
// of the input; with a negative one the connection stays until the peer ends
// it.
func TestEndAtOnceAndNever(t *testing.T) {
	client := &person{made: func(p *person) { _ = p.t.WriteEOF() }}
	server, s := foreign(t, client, ws.Config{EOFWait: 1}, wsAnswer+"\r\n", nil)
	s.Until("the close", func() bool { return strings.Contains(server.got.String(), "\x88\x82") })
	if s.Now() > 100*time.Millisecond {
		t.Errorf("closed after %v", s.Now())
	}
	after(s, time.Second)
	_, _ = server.t.Write([]byte("\x88\x02\x03\xe8")) // within CloseTimeout
	s.Until("the end", func() bool { return client.lost })
	if client.err != nil {
		t.Errorf("lost with %v", client.err)
	}
	client = &person{made: func(p *person) {
		if p.t.CanWriteEOF() {
			t.Error("the end can be written where it never is")
		}
	}}
	_, s = foreign(t, client, ws.Config{EOFWait: -1}, wsAnswer+"\r\n", nil)
	s.Until("the connection", func() bool { return client.t != nil })
	after(s, time.Hour)
	if client.lost {
		t.Errorf("lost with %v", client.err)
	}
}

// TestCloseIsAnswered: a peer's close is answered at once, after what was written
// before, whatever the protocol above does about the end.
func TestCloseIsAnswered(t *testing.T) {
	for _, c := range []struct{ frame, answer string }{
		{"\x88\x82\x00\x00\x00\x00\x03\xe8", "\x82\x06before\x88\x02\x03\xe8"},
		{"\x88\x80\x00\x00\x00\x00", "\x82\x06before\x88\x00"},
	} {
		server, client := &person{}, &person{}
		server.made = func(p *person) { _, _ = p.t.Write([]byte("before")) }
		client.made = func(p *person) { _, _ = p.t.Write([]byte(wsRequest + c.frame)) }
		s, _ := pair(t, server, client, &ws.Config{}, nil)
		s.Until("the end", func() bool { return server.lost && client.eof })
		_, got, _ := strings.Cut(client.got.String(), "\r\n\r\n")
		if got != c.answer || s.Now() > 100*time.Millisecond || !server.eof || server.err != nil {
			t.Errorf("%q: answered with %q after %v; eof %v, lost with %v", c.frame, got, s.Now(), server.eof, server.err)
		}
	}
	// A peer that reads nothing is not waited for longer than CloseTimeout.
	server, client, s := raw(t, ws.Config{CloseTimeout: time.Second}, "")
	client.t.PauseReading()
	_, _ = server.t.Write(make([]byte, 8<<20))
	_, _ = client.t.Write([]byte("\x88\x80\x00\x00\x00\x00"))
	from := s.Now()
	s.Until("the end", func() bool { return server.lost })
	if waited := s.Now() - from; waited > 1100*time.Millisecond || server.err == nil {
		t.Errorf("lost %v after the close, with %v", waited, server.err)
	}
}

// TestEmptyMessagesCount: the number of waiting messages is bounded too (the
// writer is paused), and the accounting sends the peer no byte.
func TestEmptyMessagesCount(t *testing.T) {
	server, client := &talker{}, &talker{}
	s, _ := pair(t, server, client, &ws.Config{}, &ws.Config{})
	s.Until("the connection", func() bool { return server.t != nil && client.t != nil })
	client.t.PauseReading()
	sent := 0
	for ; sent < 500_000 && server.t.Buffered() < 64<<10; sent++ {
		if err := server.m.SendMessage(ws.Binary, nil); err != nil {
			t.Fatal(err)
		}
	}
	if sent == 500_000 {
		t.Fatal("500,000 empty messages wait, and Buffered is", server.t.Buffered())
	}
	_ = server.m.SendMessage(ws.Text, []byte("short"))
	_ = server.m.SendMessage(ws.Text, []byte(strings.Repeat("long ", 20)))
	_, _ = server.t.Write([]byte("stream"))
	_ = server.m.SendMessage(ws.Text, nil)
	client.t.ResumeReading()
	s.Until("all of them", func() bool { return len(client.messages) == sent+4 })
	for i, m := range client.messages[:sent] {
		if m != "binary " {
			t.Fatalf("message %d is %q", i, m)
		}
	}
	if got := strings.Join(client.messages[sent:], "|"); got != "text short|text "+strings.Repeat("long ", 20)+"|binary stream|text " || server.t.Buffered() != 0 {
		t.Errorf("then %q; %d bytes are left", got, server.t.Buffered())
	}
}

// TestTooLongFromItsHead: a message that can never be accepted is refused as
// soon as that is known, and one that can is not.
func TestTooLongFromItsHead(t *testing.T) {
	const key = "\x00\x00\x00\x00"
	for _, c := range []struct {
		frames string
		ok     bool
	}{
		{"\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00" + key, false},
		{"\xc2\xff\x40\x00\x00\x00\x00\x00\x00\x00" + key, false},
		{"\x02\x81" + key + "x" + "\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + key, false},
		{"\x82\xfe\x03\xe8" + key, true}, // 1000 bytes, of which none has come
		{"\x82\xfe\x03\xe9" + key, false},
	} {
		server, client, s := raw(t, ws.Config{MaxMessage: 1000, Compress: true}, c.frames)
		after(s, time.Second)
		_, answer, _ := bytes.Cut(client.got.Bytes(), []byte("\r\n\r\n"))
		if c.ok != (len(answer) == 0) || !c.ok && (!bytes.HasPrefix(answer, []byte("\x88")) || !bytes.Contains(answer, []byte("\x03\xf1"))) {
			t.Errorf("%q: answered with %q, lost %v", c.frames, answer, server.lost)
		}
	}
}

// TestMessageTimeout: each message that is kept has a deadline of its own; a
// stream of messages, each begun before the last read ended, has none.
func TestMessageTimeout(t *testing.T) {
	const key = "\x00\x00\x00\x00"
	server, client, s := raw(t, ws.Config{MessageTimeout: 10 * time.Second}, "\x02\x81"+key+"x")
	client.t.Loop().NewTimer(func() { _, _ = client.t.Write([]byte("\x00\x81" + key + "x")) }).Repeat(time.Second)
	s.Until("the end", func() bool { return server.lost })
	var slow *ws.MessageError
	if !errors.As(server.err, &slow) || !errors.Is(server.err, layer.ErrTimeout) || s.Now() > 11*time.Second {
		t.Errorf("lost after %v with %v", s.Now(), server.err)
	}
	server, client, s = raw(t, ws.Config{MessageTimeout: 10 * time.Second}, "\x02\x81"+key+"x")
	client.t.Loop().NewTimer(func() { _, _ = client.t.Write([]byte("\x80\x80" + key + "\x02\x81" + key + "x")) }).Repeat(time.Second)
	after(s, time.Minute)
	if server.lost || len(server.messages) < 50 {
		t.Errorf("lost %v with %v, after %d messages", server.lost, server.err, len(server.messages))
	}
}

// TestText: what is written as a stream leaves in text messages, without
// splitting characters.
func TestText(t *testing.T) {
	server, client := &talker{}, &person{}
	client.made = func(p *person) {
		for i, b := range []string{"{\"id\":1}\n", "\xce", "\xba\xcf", "\x8c", "\xf0\x9f\x98", "\x80!"} {
			p.t.Loop().After(time.Duration(i)*time.Millisecond, func() { _, _ = p.t.Write([]byte(b)) })
		}
	}
	s, _ := pair(t, server, client, &ws.Config{}, &ws.Config{Text: true})
	s.Until("the messages", func() bool { return strings.HasSuffix(strings.Join(server.messages, ""), "!") })
	if got := strings.ReplaceAll(strings.Join(server.messages, ""), "text ", ""); got != "{\"id\":1}\nκό😀!" {
		t.Errorf("got %q", server.messages)
	}
	for _, m := range server.messages {
		if !strings.HasPrefix(m, "text ") {
			t.Errorf("%q is no text", m)
		}
	}
	_, _ = client.t.Write([]byte("\xff"))
	s.Until("the end", func() bool { return client.lost })
	if !errors.Is(client.err, ws.ErrNotUTF8) {
		t.Errorf("lost with %v", client.err)
	}
}

// TestInterimAnswers: interim answers before the final one are skipped (RFC
// 9110, 15.2).
func TestInterimAnswers(t *testing.T) {
	client := &person{}
	_, s := foreign(t, client, ws.Config{}, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"+wsAnswer+"\r\n\x81\x02hi", nil)
	s.Until("the message", func() bool { return client.over() || client.got.String() == "hi" })
	if client.over() {
		t.Error(client.failed)
	}
}

// TestRefusalIsShown: the error has where a refusal sends a client, and what it
// says.
func TestRefusalIsShown(t *testing.T) {
	for _, c := range []struct{ answer, location, body string }{
		{"HTTP/1.1 301 Moved\r\nLocation: https://h/x\r\nContent-Length: 0\r\n\r\n", "https://h/x", ""},
		{"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 32\r\n\r\n<h1>no\r\n\tway</h1>\x1b[31mforever xx", "", "<h1>no way</h1>\x1b[31mforever xx"},
		{"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nchunk!\r\n0\r\n\r\n", "", "chunk!"},
		{"HTTP/1.1 500 Oh\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\nPNG", "", ""},
		{"HTTP/1.1 500 Oh\r\n\r\n" + strings.Repeat("so ", 1000), "", strings.TrimSpace(strings.Repeat("so ", 256)[:256])},
		{"HTTP/1.1 500 Oh\r\n\r\nnever whole", "", "never whole"},
		{"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffffff\r\n", "", ""},
	} {
		client := &person{}
		_, s := foreign(t, client, ws.Config{}, c.answer, nil)
		s.Until("the end", client.over)
		var e *ws.UpgradeError
		if !errors.As(client.failed, &e) || e.Location != c.location || e.Body != c.body || strings.ContainsAny(e.Error(), "\x1b\r\n") || s.Now() > 2*time.Second {
			t.Errorf("%.80q: %#v", c.answer, e)
		}
	}
}

// TestRefusedInPieces: what a refusal says does not depend on the pieces in
// which it arrives. We wait for its text until the server ends the stream,
// resets it, or has sent nothing for a second, but not beyond the upgrade's own
// deadline.
func TestRefusedInPieces(t *testing.T) {
	const open = "HTTP/1.1 403 No\r\n\r\nask"
	for _, c := range []struct {
		name, answer string
		then         func(weir.Transport)
		limit, after time.Duration
		body         string
	}{
		{"whole", "HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nask", nil, time.Minute, 0, "ask"},
		{"chunked", "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n0\r\n\r\nas\r\n1\r\nk\r\n0\r\n\r\n", nil, time.Minute, 0, "0 ask"},
		{"ended", open, func(t weir.Transport) { _ = t.Close() }, time.Minute, 0, "ask"},
		{"reset", open, weir.Transport.Abort, time.Minute, 0, "ask"},
		{"open", open, nil, time.Minute, time.Second, "ask"},
		{"late", open, nil, 500 * time.Millisecond, 500 * time.Millisecond, "ask"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := &person{}
			server, s := foreign(t, client, ws.Config{Timeout: c.limit}, "", nil)
			s.Until("the request", func() bool { return server.answered })
			begun := s.Now()
			for i := range len(c.answer) {
				_, _ = server.t.Write([]byte(c.answer[i : i+1]))
				if client.over() {
					t.Fatalf("it failed before byte %d: %v", i, client.failed)
				}
				s.Until("the byte", func() bool { return server.t.Buffered() == 0 })
			}
			if c.then != nil {
				c.then(server.t)
			}
			s.Until("the failure", client.over)
			var e *ws.UpgradeError
			if !errors.As(client.failed, &e) || e.Status != 403 || e.Body != c.body {
				t.Errorf("failed %v", client.failed)
			}
			if took := s.Now() - begun; took < c.after-100*time.Millisecond || took > c.after+100*time.Millisecond {
				t.Errorf("it took %v, want %v", took, c.after)
			}
		})
	}
}

// TestEchoedOffer: a server that repeats what it was offered has agreed to
// nothing.
func TestEchoedOffer(t *testing.T) {
	for _, c := range []struct {
		extensions string
		ok, ends   bool
	}{
		{"weir-end", true, false},
		{"weir-end, permessage-deflate; client_no_context_takeover; server_no_context_takeover", true, false},
		{"weir-end; agreed", true, true},
		{"weir-end; agreed, permessage-deflate; server_no_context_takeover", true, true},
		{"permessage-deflate; server_no_context_takeover", true, false},
		{"weir-end; other", false, false},
	} {
		client := &person{made: func(p *person) { _ = p.t.WriteEOF() }}
		server, s := foreign(t, client, ws.Config{Compress: true}, wsAnswer+"Sec-WebSocket-Extensions: "+c.extensions+"\r\n\r\n", nil)
		after(s, time.Second)
		if ends := strings.Contains(server.got.String(), "\xa2\x80"); ends != c.ends || c.ok == (client.failed != nil) {
			t.Errorf("%q: wrote %q, failed with %v", c.extensions, server.got.String(), client.failed)
		}
	}
}

// TestHostOf: RFC 9110, 7.2; scopes mean something only on this machine; a port
// is a default only for its own scheme.
func TestHostOf(t *testing.T) {
	for _, c := range []struct {
		addr string
		tls  bool
		want string
	}{
		{"example.com:80", false, "example.com"},
		{"example.com:80", true, "example.com:80"},
		{"example.com:443", true, "example.com"},
		{"example.com:443", false, "example.com:443"},
		{"example.com:8080", false, "example.com:8080"},
		{"::1:9000", false, "[::1]:9000"},
		{"[::1]:9000", false, "[::1]:9000"},
		{"[::1]:80", false, "[::1]"},
		{"[fe80::77%eth0]:9000", false, "[fe80::77]:9000"},
		{"fe80::77%eth0:443", true, "[fe80::77]"},
		{"/run/x:80", false, "localhost"},
		{"@x", false, "localhost"},
		{"", false, "localhost"},
	} {
		if got := ws.HostOf(c.addr, c.tls); got != c.want {
			t.Errorf("%q, TLS %v: %q, want %q", c.addr, c.tls, got, c.want)
		}
	}
}

// TestGuardLoopback: over loopback only names of loopback and those that were
// listed are served, so that a page cannot reach a server there by a name of
// its own.
func TestGuardLoopback(t *testing.T) {
	for _, c := range []struct {
		to, host string
		hosts    []string
		ok       bool
	}{
		{"127.0.0.1", "evil.com", nil, false},
		{"127.0.0.1", "localhost.evil.com:7", nil, false},
		{"127.0.0.1", "127.0.0.1.evil.com", nil, false},
		{"127.0.0.1", "10.0.0.1", nil, false},
		{"127.0.0.1", "[::]:7", nil, false},
		{"127.0.0.1", "localhost", nil, true},
		{"127.0.0.1", "LOCALHOST.:7", nil, true},
		{"127.0.0.1", "a.localhost:7", nil, true},
		{"127.0.0.1", "127.0.0.1:7", nil, true},
		{"127.0.0.1", "[::1]:7", nil, true},
		{"127.0.0.1", "[::1]", nil, true},
		{"127.0.0.1", "www.example.com", []string{"www.example.com"}, true},
		{"127.0.0.1", "www.example.com:443", []string{"other", "WWW.example.com"}, true},
		{"127.0.0.1", "evil.com", []string{"www.example.com"}, false},
		{"127.0.0.1", "evil.com", []string{"*"}, true},
		{"server", "anything", nil, true},
		{"server", "anything", []string{"www.example.com"}, false},
		{"server", "localhost", []string{"www.example.com"}, false},
	} {
		s := weirtest.NewSim(t, 1)
		server, client := &person{}, &person{}
		client.made = func(p *person) {
			_, _ = p.t.Write([]byte(strings.Replace(wsRequest, "Host: h", "Host: "+c.host+"\r\nOrigin: http://"+c.host, 1)))
		}
		l := s.Host("server").Loop()
		if _, err := l.Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol { return server }, ws.Server(ws.Config{GuardLoopback: true, Hosts: c.hosts}))); err != nil {
			t.Fatal(err)
		}
		if c.to == "server" {
			l = s.Host("client").Loop()
		}
		l.Connect("tcp", c.to+":7", client)
		s.Until("an answer", func() bool { return bytes.Contains(client.got.Bytes(), []byte("\r\n\r\n")) })
		if status := client.got.String(); strings.HasPrefix(status, "HTTP/1.1 101") != c.ok || !c.ok && !strings.HasPrefix(status, "HTTP/1.1 403") {
			t.Errorf("%s, asked for as %s: %q", c.to, c.host, status)
		}
	}
}

var _ io.Reader = zeroes{}

// framed returns a client's frame, whose mask is zero.
func framed(first byte, p []byte) string {
	b := []byte{first, 0x80 | 127}
	b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
	switch {
	case len(p) < 126:
		b = []byte{first, 0x80 | byte(len(p))}
	case len(p) < 1<<16:
		b = binary.BigEndian.AppendUint16([]byte{first, 0x80 | 126}, uint16(len(p)))
	}
	return string(append(b, 0, 0, 0, 0)) + string(p)
}

// packed returns p deflated as a message is, or, if end is false, as the
// beginning of one.
func packed(p []byte, end bool) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 1)
	_, _ = w.Write(p)
	_ = w.Flush()
	if end {
		b.Truncate(b.Len() - 4)
	}
	return b.Bytes()
}

// noise returns bytes that do not compress.
func noise(n int) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// TestInflatedAsItComes: a compressed message is not kept until it ends (S2):
// what has come is handed over, across frames as well as within one, and a
// message that grows without end is refused at the limit.
func TestInflatedAsItComes(t *testing.T) {
	p := noise(100_000)
	for _, frames := range []string{
		framed(0x42, packed(p, false)),
		framed(0x42, packed(p[:1000], false)) + framed(0, packed(p[1000:], false)),
		framed(0x42, append(packed(p, false), make([]byte, 60_000)...))[:14+len(packed(p, false))],
	} {
		server, client := &person{}, &person{}
		client.made = func(c *person) {
			_, _ = c.t.Write([]byte(strings.Replace(wsRequest, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1) + frames))
		}
		s, _ := pair(t, server, client, &ws.Config{Compress: true}, nil)
		after(s, time.Second)
		if !bytes.Equal(server.got.Bytes(), p) || server.lost {
			t.Errorf("%d bytes of %d came; lost %v", server.got.Len(), len(p), server.err)
		}
	}
	server, client, s := raw(t, ws.Config{Compress: true, MaxMessage: 1 << 20}, framed(0x42, packed(make([]byte, 1<<19), false)))
	client.t.Loop().NewTimer(func() { _, _ = client.t.Write([]byte(framed(0, packed(make([]byte, 1<<17), false)))) }).Repeat(time.Millisecond)
	s.Until("the end", func() bool { return server.lost })
	var e *ws.ProtocolError
	if !errors.As(server.err, &e) || e.Code != ws.CodeTooBig || s.Now() > time.Second {
		t.Errorf("lost after %v with %v", s.Now(), server.err)
	}
}

// TestIncompressibleAtTheLimit: the length of a message's content counts, not
// that of its compressed form.
func TestIncompressibleAtTheLimit(t *testing.T) {
	for n, ok := range map[int]bool{999: true, 1000: true, 1001: false} {
		server, client, s := raw(t, ws.Config{Compress: true, MaxMessage: 1000}, framed(0xc2, packed(noise(n), true)))
		after(s, time.Second)
		if (len(server.messages) == 1) != ok || ok == server.lost {
			t.Errorf("%d bytes: %d messages, lost %v", n, len(server.messages), server.err)
		}
		_ = client
	}
}

// TestInflateTakesTurns: a message that is far longer than its compressed form
// is inflated over several turns, whoever takes it, and inflating stops while
// reading is paused.
func TestInflateTakesTurns(t *testing.T) {
	server, client, s := raw(t, ws.Config{Compress: true}, "")
	_, _ = client.t.Write([]byte(framed(0xc2, packed(make([]byte, 8<<20), true))))
	s.Until("the message", func() bool { return len(server.messages) > 0 })
	if len(server.messages[0]) != 8<<20+len("binary ") {
		t.Errorf("%d bytes", len(server.messages[0]))
	}
	stream, client := &person{}, &person{}
	most, before := 0, 0
	stream.onData = func(p *person) {
		if p.got.Len() > 4<<20 {
			p.t.PauseReading() // from here on
		}
		if before == 0 { // the first in a turn
			before = p.got.Len()
			p.t.Loop().Post(func() { most, before = max(most, p.got.Len()-before), 0 })
		}
	}
	client.made = func(c *person) {
		_, _ = c.t.Write([]byte(strings.Replace(wsRequest, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1) + framed(0xc2, packed(make([]byte, 8<<20), true)) + framed(0x82, []byte("last"))))
	}
	s, _ = pair(t, stream, client, &ws.Config{Compress: true}, nil)
	s.Until("the half", func() bool { return stream.got.Len() > 4<<20 })
	if most > 128<<10 || most == 0 {
		t.Errorf("%d bytes in one turn", most)
	}
	for range 3 {
		before := stream.got.Len()
		after(s, time.Second)
		if stream.got.Len() != before {
			t.Fatal("it goes on while reading is paused")
		}
		stream.t.ResumeReading()
		s.Until("more", func() bool { return stream.got.Len() > before })
	}
	stream.onData = nil
	stream.t.ResumeReading()
	s.Until("the rest", func() bool { return strings.HasSuffix(stream.got.String(), "last") })
	if stream.got.Len() != 8<<20+4 {
		t.Errorf("%d bytes", stream.got.Len())
	}
}
