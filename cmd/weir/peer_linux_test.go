package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestAllowUser: a UNIX listener with allow-user= accepts processes of that user, and
// refuses others in words.
func TestAllowUser(t *testing.T) {
	own := os.Getuid()
	for _, c := range []struct {
		allow string
		reply bool
	}{
		{"allow-user=" + strconv.Itoa(own), true},
		{"allow-user=" + strconv.Itoa(own+1), false},
		{"allow-user=" + strconv.Itoa(own+1) + ",allow-user=" + strconv.Itoa(own), true},
	} {
		path := filepath.Join(t.TempDir(), "s")
		p := start(t, "unix-listen:"+path+","+c.allow, "text:hello")
		p.line("ready", 1)
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		got, err := io.ReadAll(conn)
		if c.reply && (err != nil || string(got) != "hello") {
			t.Errorf("%s: %q, %v", c.allow, got, err)
		}
		if !c.reply {
			if len(got) > 0 {
				t.Errorf("%s: got %q", c.allow, got)
			}
			if l := p.line("no connection", 1); !strings.Contains(l, "user "+strconv.Itoa(own)+" may not connect here") {
				t.Error(l)
			}
		}
	}
	r := call(t, "unix-listen:/tmp/s,allow-user=no-such-user", "null")
	if r.code != exitFailure || !strings.Contains(r.err, "allow-user=no-such-user") {
		t.Errorf("%+v", r)
	}
}
