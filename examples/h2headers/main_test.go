package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// TestRequests: net/http's client gets back the fields that it sent, of several requests
// on one connection, one of them too long for one frame.
func TestRequests(t *testing.T) {
	weirtest.CheckLeaks(t)
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := l.Listen("tcp", "127.0.0.1:0", serve)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- l.Run() }()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: tr}
	long := strings.Repeat("0123456789abcdef", 1500) // 24,000 bytes: HEADERS and CONTINUATION
	for _, value := range []string{"first", long, "first"} {
		req, err := http.NewRequest(http.MethodGet, "http://"+ln.Addr().String()+"/path?q=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Value", value)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
			t.Fatalf("%s %s, %v", res.Proto, res.Status, err)
		}
		for _, want := range []string{":method: GET\n", ":path: /path?q=1\n", "x-value: " + value + "\n"} {
			if !strings.Contains(string(body), want) {
				t.Errorf("%.40q is not in the %d bytes of the answer", want, len(body))
			}
		}
	}
	tr.CloseIdleConnections()
	l.Stop()
	if err := errors.Join(<-ran, l.Close()); err != nil {
		t.Error(err)
	}
}

// request is a connection's bytes: a request with padding, a priority and a block that
// goes on in a second frame.
func request() []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: "x-name", Value: strings.Repeat("v", 300)}} {
		_ = enc.WriteField(f)
	}
	half := block.Len() / 2
	frame := func(kind, flags byte, payload []byte) []byte {
		h := [9]byte{0, byte(len(payload) >> 8), byte(len(payload)), kind, flags}
		binary.BigEndian.PutUint32(h[5:], 1)
		return append(h[:], payload...)
	}
	all := []byte(preface)
	all = append(all, frame(framePing, 0, []byte("12345678"))...)
	first := append([]byte{3, 0, 0, 0, 0, 16}, block.Bytes()[:half]...)
	all = append(all, frame(frameHeaders, flagPadded|flagPriority, append(first, 0, 0, 0))...)
	all = append(all, frame(frameContinuation, flagEndHeaders, block.Bytes()[half:])...)
	return all
}

// TestEveryChop: however the bytes are cut, the answer is the same.
func TestEveryChop(t *testing.T) {
	weirtest.EveryChop(t, request(), func(func(string, ...any)) weir.Protocol { return serve(nil) })
	rec := weirtest.NewRecorder(t)
	rec.Connect(serve(rec))
	weirtest.Feed(rec, request(), weirtest.ByteByByte())
	if got := string(rec.Written()); !strings.Contains(got, "x-name: "+strings.Repeat("v", 300)+"\n") || !strings.Contains(got, "12345678") {
		t.Errorf("the answer is %q", got)
	}
}

// TestNonsense: what is not HTTP/2 loses the connection, and nothing panics.
func TestNonsense(t *testing.T) {
	for name, text := range map[string]string{
		"HTTP/1":            "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"long frame":        preface + "\xff\xff\xff\x00\x00\x00\x00\x00\x00",
		"short ping":        preface + "\x00\x00\x01\x06\x00\x00\x00\x00\x00x",
		"all padding":       preface + "\x00\x00\x02\x01\x0c\x00\x00\x00\x01\x09x",
		"no room":           preface + "\x00\x00\x02\x01\x2c\x00\x00\x00\x01\x00x",
		"between":           preface + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82\x00\x00\x00\x00\x00\x00\x00\x00\x01",
		"continues nothing": preface + "\x00\x00\x01\x09\x04\x00\x00\x00\x01\x82",
		"no such field":     preface + "\x00\x00\x01\x01\x04\x00\x00\x00\x01\xff",
		"half a field":      preface + "\x00\x00\x02\x01\x04\x00\x00\x00\x01\x00\x05",
	} {
		rec := weirtest.NewRecorder(t)
		rec.SetErrorHandler(func(error) {})
		rec.Connect(serve(rec))
		weirtest.Feed(rec, []byte(text), weirtest.ByteByByte())
		if lost, reason := rec.Lost(); !lost || reason == nil {
			t.Errorf("%s: the connection goes on, or ended cleanly: %v", name, reason)
		}
	}
}
