package proxy

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
)

// run feeds a stream to a wire in pieces of piece bytes, each preceded by what
// was not used before, as a transport does. It returns everything that came
// out, and how much of the stream was used.
func run(t *testing.T, w wire, stream []byte, piece int) (out string, used int) {
	first, err := w.start()
	out = fmt.Sprintf("start %q %v\n", first, err)
	if err != nil {
		return out, 0
	}
	var held []byte
	for len(stream) > 0 {
		k := min(piece, len(stream))
		held = append(held, stream[:k]...)
		stream = stream[k:]
		for len(held) > 0 {
			n, reply, e, err := w.next(held)
			if n < 0 || n > len(held) {
				t.Fatalf("used %d of %d bytes", n, len(held))
			}
			used += n
			held = held[n:]
			if err != nil {
				return out + fmt.Sprintf("reply %q error %v", reply, err), used
			}
			if len(reply) > 0 || e != eventNone {
				out += fmt.Sprintf("reply %q event %d\n", reply, e)
			}
			if e != eventNone && e != eventBound && e != eventRefused {
				return out, used
			}
			if n == 0 {
				break
			}
		}
	}
	if r, ok := w.(refuser); ok { // the stream ends while the refusal's body is coming
		out += fmt.Sprintf("end error %v", r.refused())
	}
	return out, used
}

// sameInPieces checks that a wire does the same however the stream is cut, and
// that what it leaves unused is bounded (behaviours 90 and 92).
func sameInPieces(t *testing.T, stream []byte, limit int, newWire func() wire, more func(w wire) string) {
	w := newWire()
	whole, used := run(t, w, stream, len(stream)+1)
	whole += more(w)
	for _, piece := range []int{1, 7} {
		w := newWire()
		got, n := run(t, w, stream, piece)
		got += more(w)
		if got != whole || n != used {
			t.Fatalf("whole, %d used:\n%s\nin pieces of %d, %d used:\n%s", used, whole, piece, n, got)
		}
	}
	if !bytes.Contains([]byte(whole), []byte("error")) && used == 0 && len(stream) > limit {
		t.Fatalf("%d bytes are held back, the limit is %d", len(stream), limit)
	}
}

func requestText(w wire) string {
	s, ok := w.(serverWire)
	if !ok {
		return ""
	}
	r := s.request()
	return fmt.Sprintf("%s %s %q %q", r.protocol, r.command, r.dest, r.user)
}

func FuzzSOCKSServer(f *testing.F) {
	for _, s := range []string{
		"\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x00\x50GET",
		"\x05\x02\x00\x02\x01\x01u\x01p\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50x",
		"\x05\x01\x02\x01\x01u\x01q",
		"\x04\x01\x00\x50\x7f\x00\x00\x01user\x00data",
		"\x04\x02\x00\x50\x00\x00\x00\x01user\x00example.com\x00data",
		"\x05\x01\x00\x05\x03\x00\x04abcdefghijklmnop\x00\x50",
		"\x05\x00", "\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50",
	} {
		f.Add([]byte(s), true, true)
		f.Add([]byte(s), false, false)
	}
	users := NewUsers(map[string]string{"u": "p"})
	f.Fuzz(func(t *testing.T, stream []byte, auth, bind bool) {
		c := &serverConfig{bind: bind}
		if auth {
			c.users = users
		}
		sameInPieces(t, stream, 9+2*(socks4Longest+1), func() wire { return &socksServer{c: c, versions: AnyVersion} }, requestText)
		w := &socksServer{c: c, versions: AnyVersion}
		if out, _ := run(t, w, stream, 3); auth && bytes.Contains([]byte(out), []byte(fmt.Sprintf("event %d", eventAsked))) &&
			!bytes.Contains(stream, []byte("\x01\x01u\x01p")) {
			t.Fatalf("asked without authentication: %s", out)
		}
	})
}

func FuzzSOCKSClient(f *testing.F) {
	f.Add([]byte("\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50data"), false)
	f.Add([]byte("\x05\x02\x01\x00\x05\x00\x00\x03\x04name\x00\x50\x05\x00\x00\x04aaaabbbbccccdddd\x00\x50data"), true)
	f.Add([]byte("\x05\x02\x01\x01"), true)
	f.Add([]byte("\x00\x5a\x00\x50\x7f\x00\x00\x01data"), false)
	f.Add([]byte("\x00\x5b\x00\x50\x7f\x00\x00\x01"), false)
	f.Fuzz(func(t *testing.T, stream []byte, bind bool) {
		c := &clientConfig{user: "u", password: "p", auth: true, bind: bind}
		answered := func(w wire) string { return fmt.Sprint(w.(clientWire).answered()) }
		sameInPieces(t, stream, 300, func() wire { return &client5{c: c, host: "example.com", port: 80} }, answered)
		c = &clientConfig{bind: bind}
		sameInPieces(t, stream, 8, func() wire { return &client4{c: c, host: "example.com", port: 80, names: true} }, answered)
	})
}

func FuzzConnect(f *testing.F) {
	for _, s := range []string{
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\ndata",
		"CONNECT [::1]:1 HTTP/1.0\n\ndata",
		"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n", "\r\n\r\nCONNECT a:0 HTTP/1.1\r\n\r\n",
		"HTTP/1.1 403 no\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n0\r\n\r\nX\r\n0\r\n\r\n",
		"HTTP/1.1 403 no\r\nContent-Length: 3\r\n\r\naskmore",
		"HTTP/1.1 200 OK\r\n\r\ndata", "HTTP/1.0 407 no\n\n", "HTTP/1.1 100 c\r\n\r\nHTTP/1.1 200\r\nX: y\r\n\r\nz",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	users := NewUsers(map[string]string{"u": "p"})
	f.Fuzz(func(t *testing.T, stream []byte, auth bool) {
		c := &serverConfig{}
		if auth {
			c.users = users
		}
		sameInPieces(t, stream, connectLongest, func() wire { return &connectServer{c: c} }, requestText)
		sameInPieces(t, stream, connectLongest, func() wire { return &connectClient{c: &clientConfig{}, dest: "a:1"} }, requestText)
		w := &connectServer{c: c}
		if out, _ := run(t, w, stream, 3); auth && bytes.Contains([]byte(out), []byte(fmt.Sprintf("event %d", eventAsked))) && w.r.user != "u" {
			t.Fatalf("asked without authentication: %s", out)
		}
	})
}

func FuzzHeader(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\ndata", "PROXY UNKNOWN whatever\r\n",
		"PROXY TCP6 2001:db8::1 2001:db8::2 65535 65535\r\n",
		header2Signature + "\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02data",
		header2Signature + "\x20\x00\x00\x00", header2Signature + "\x21\x00\x00\x03\x04\x00\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		header := func(w wire) string { return fmt.Sprintf("%+v", w.(*headerWire).h) }
		sameInPieces(t, stream, header2Longest, func() wire { return &headerWire{} }, header)
		w := &headerWire{}
		if _, used := run(t, w, stream, len(stream)+1); used == 0 || w.h.Local || w.h.Source.Network() == "udp" {
			return
		}
		// What was read is written again, and reads the same.
		for v := HeaderV1; v <= HeaderV2; v++ {
			if w.h.Source.Network() == "unix" && v == HeaderV1 {
				continue
			}
			again := &headerWire{}
			b := appendHeader2(nil, w.h.Source, w.h.Destination)
			if v == HeaderV1 {
				b = appendHeader1(nil, w.h.Source, w.h.Destination)
			}
			if n, err := again.h.parse(b); n != len(b) || err != nil {
				t.Fatalf("%q reads as %d bytes, %v", b, n, err)
			}
			if again.h.Source.String() != w.h.Source.String() || again.h.Destination.String() != w.h.Destination.String() {
				t.Fatalf("%v -> %v was written as %q", w.h.Source, w.h.Destination, b)
			}
		}
	})
}

// FuzzUDPHead: what stands in front of a datagram is read to its last byte or not at all,
// and is written back the same (RFC 1928, 7).
func FuzzUDPHead(f *testing.F) {
	for _, s := range []string{
		"\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x35data",
		"\x00\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x35",
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01\x00\x35mapped",
		"\x00\x00\x00\x03\x09localhost\x00\x35q",
		"\x00\x00\x00\x03\x00\x00\x35",
		"\x00\x00\x01\x01\x7f\x00\x00\x01\x00\x35a fragment",
		"\x00\x00\x00\x02\x00\x00\x00\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		to, name, data, ok := udpHead(p)
		if !ok {
			if to.IsValid() || name != nil || data != nil {
				t.Fatalf("%q is refused, and gives %v, %q, %q", p, to, name, data)
			}
			return
		}
		if !bytes.HasSuffix(p, data) || to.Addr().IsValid() == (name != nil) || name != nil && len(name) == 0 {
			t.Fatalf("%q: %v, name %q, data %q", p, to, name, data)
		}
		head := p[:len(p)-len(data)]
		for n := range head {
			if _, _, _, ok := udpHead(p[:n]); ok {
				t.Fatalf("%q is taken when it ends after %d bytes", p, n)
			}
		}
		for i := range 3 { // reserved, and the number of a fragment
			other := bytes.Clone(p)
			other[i]++
			if _, _, _, ok := udpHead(other); ok {
				t.Fatalf("%q is taken", other)
			}
		}
		var again []byte
		switch {
		case name == nil:
			again = putUDPHead(nil, to)
		case checkName(string(name)) == nil && len(name) < 256:
			again = putAddr5([]byte{0, 0, 0}, string(name), to.Port())
		default:
			return
		}
		mapped := p[3] == atypIPv6 && to.Addr().Is4()
		if !mapped && !literal(string(name)) && !bytes.Equal(again, head) {
			t.Fatalf("%q is written back as %q", head, again)
		}
		to2, name2, rest, ok := udpHead(append(again, data...))
		if !ok || to2.Port() != to.Port() || !literal(string(name)) && (to2 != to || !bytes.Equal(name2, name)) || !bytes.Equal(rest, data) {
			t.Fatalf("%q came back as %v, %q, %q", p, to2, name2, rest)
		}
	})
}

// literal reports whether a name is an address, which is written as one.
func literal(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
