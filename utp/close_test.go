package utp_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/utp"
)

// TestLoopClose: what was written before a loop's Close still leaves, and Close does not
// wait for acknowledgements that it could not read.
func TestLoopClose(t *testing.T) {
	newLoop := func() *weir.Loop {
		l, err := weir.New()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b := newLoop(), newLoop()
	defer a.Close()
	server := &ear{}
	ln, err := utp.Listen(a, "udp4", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return server }, utp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	client := &ear{}
	c := utp.Connect(b, "udp4", ln.Endpoint().Packets().Local().IP.String(), client, utp.Config{})
	defer c.Stop()
	until := func(what string, done func() bool) {
		t.Helper()
		for end := a.Now().Add(20 * time.Second); !done(); {
			if a.Now().After(end) {
				t.Fatal("waited in vain for ", what)
			}
			for _, l := range []*weir.Loop{a, b} {
				if err := l.Turn(time.Millisecond); err != nil && l == a {
					t.Fatal(err)
				}
			}
		}
	}
	until("both ends connected", func() bool { return client.made+server.made == 2 })
	client.t.Loop().Soon(func() { _, _ = client.t.Write(noise(1500)) })
	until("the write", func() bool { return len(server.got) > 0 })
	b.Soon(func() { _, _ = client.t.Write([]byte("and the last of it")); b.Stop() })
	if err := b.Run(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
	until("the end", func() bool { return server.lost == 1 })
	if want := append(noise(1500), "and the last of it"...); !bytes.Equal(server.got, want) || server.err != nil {
		t.Errorf("the server got %d bytes, lost with %v", len(server.got), server.err)
	}
}
