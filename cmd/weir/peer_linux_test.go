package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
			if l := p.line("no connection", 1); !strings.Contains(l, "a client of "+path+": ") || !strings.Contains(l, "user "+strconv.Itoa(own)+" may not connect here") {
				t.Error(l)
			}
			p.line("add to the listener: ,allow-user="+strconv.Itoa(own), 1)
		}
	}
	r := call(t, "unix-listen:/tmp/s,allow-user=no-such-user", "null")
	if r.code != exitFailure || !strings.Contains(r.err, "allow-user=no-such-user") {
		t.Errorf("%+v", r)
	}
}

// TestAllowGroup: with allow-group= a client's own group counts, its supplementary ones,
// and beside them its user.
func TestAllowGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("choosing the groups of a client takes privileges")
	}
	many := make([]uint32, 200) // more than are asked for at first
	for i := range many {
		many[i] = uint32(6000 + i)
	}
	for _, c := range []struct {
		allow  string
		groups []uint32
		reply  bool
	}{
		{"allow-group=5000", nil, true},
		{"allow-group=5001", nil, false},
		{"allow-group=5001", []uint32{4000, 5001}, true},
		{"allow-group=6199", many, true},
		{"allow-group=6200", many, false},
		{"allow-user=1,allow-group=5002", []uint32{5001}, false},
		{"allow-user=1,allow-group=5002", []uint32{5001, 5002}, true},
		{"allow-user=0,allow-group=5002", nil, true},
	} {
		path := filepath.Join(t.TempDir(), "s")
		p := start(t, "unix-listen:"+path+","+c.allow, "text:hello")
		p.line("ready", 1)
		q := prepare(t, "weir", "unix:"+path, "-")
		q.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: 5000, Groups: c.groups}}
		var got strings.Builder
		q.Stdout = &got
		q.begin()
		q.end()
		if (got.String() == "hello") != c.reply {
			t.Errorf("%s, groups %v: got %q", c.allow, c.groups, got.String())
		}
		if !c.reply {
			p.line("may not connect here", 1)
		}
	}
	r := call(t, "unix-listen:/tmp/s,allow-group=no-such-group", "null")
	if r.code != exitFailure || !strings.Contains(r.err, "allow-group=no-such-group") {
		t.Errorf("%+v", r)
	}
}
