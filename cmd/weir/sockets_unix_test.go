//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStaleSocket: a socket on which nothing answers is replaced, and nothing
// else is (docs/promises.md, Descriptors).
func TestStaleSocket(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := start(t, "unix-listen:"+stale+",mode=0600", addr)
	p.line("note replaced "+stale, 1)
	p.line("ready", 1)
	if st, err := os.Lstat(stale); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	c, err := net.Dial("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(write(c, "abc"), c.(*net.UnixConn).CloseWrite(), want(c, "ABC"), c.Close()); err != nil {
		t.Error(err)
	}
	// A second weir finds the first answering.
	second := start(t, "unix-listen:"+stale, addr)
	if code := second.end(); code != exitFailure || !strings.Contains(second.said(), "cannot listen on "+stale+": already in use by weir.test (pid ") {
		t.Errorf("code %d: %s", code, second.said())
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	// A file and a link, even to a stale socket, are left alone.
	if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: stale}); err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "file")
	if err := errors.Join(l.Close(), os.Symlink(stale, link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, what := range map[string]string{link: "a symbolic link", file: "a file", dir: "a directory"} {
		p := start(t, "unix-listen:"+path, addr)
		if code := p.end(); code != exitFailure || !strings.Contains(p.said(), what+" is in the way") {
			t.Errorf("code %d: %s", code, p.said())
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("it is gone: %v", err)
		}
	}
}

// TestDescriptors: listening sockets by number and by a service manager's name,
// and connections by number, alone and in pairs.
func TestDescriptors(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	listen := func() (*os.File, string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err := errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() }) // the test may have closed it
		return f, l.Addr().String()
	}
	f, at := listen()
	p := prepare(t, "weir", "fd:3", addr)
	p.ExtraFiles = []*os.File{f}
	p.begin()
	p.line("ready "+at, 1)
	c := dial(t, at)
	if err := errors.Join(write(c, "abc"), c.CloseWrite(), want(c, "ABC")); err != nil {
		t.Error(err)
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}

	// The shell sets LISTEN_PID, as a service manager does.
	other, _ := listen()
	named, at := listen()
	p = prepare(t, "weir")
	p.Path, p.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=other:web exec "$0" "$@"`, p.Path, "fd:web", addr}
	p.ExtraFiles = []*os.File{other, named}
	p.begin()
	p.line("ready "+at, 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}

	// All sockets of a unit have one name.
	web, first := listen()
	more, second := listen()
	p = prepare(t, "weir")
	p.Path, p.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:web exec "$0" "$@"`, p.Path, "fd:web,connections=1", addr}
	p.ExtraFiles = []*os.File{web, more}
	p.begin()
	if l := p.line("ready "+first, 1); !strings.Contains(l, second) {
		t.Fatalf("it takes one of two sockets: %s", l)
	}
	for i, at := range []string{first, second} {
		c := dial(t, at)
		if err := errors.Join(write(c, "abc"), c.CloseWrite(), want(c, "ABC")); err != nil {
			t.Error(err)
		}
		p.line(fmt.Sprintf("close #%d", i+1), 1) // else the next one may find no place: they share the bound
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}

	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p = prepare(t, "weir", "fd:3,out=4", addr)
	p.ExtraFiles = []*os.File{inR, outW}
	p.begin()
	if err := errors.Join(inR.Close(), outW.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = inW.WriteString("abc")
	if err := errors.Join(err, inW.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(outR)
	if err != nil || string(got) != "ABC" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = outR.Close() // read to its end
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestNamedPipes: both ends may come late, in any order.
func TestNamedPipes(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := errors.Join(syscall.Mkfifo(in, 0o600), syscall.Mkfifo(out, 0o600)); err != nil {
		t.Fatal(err)
	}
	p := start(t, "pipe:"+in+",out="+out, addr)
	r, err := os.Open(out) // waits for weir
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(in, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.WriteString("abc")
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "ABC" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = r.Close() // read to its end
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	// One way only, into a pipe that a client fills through a socket.
	p = start(t, "tcp-listen:127.0.0.1:0", "pipe,out="+out)
	c := dial(t, p.listening())
	if err := errors.Join(write(c, "one way"), c.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if r, err = os.Open(out); err != nil {
		t.Fatal(err)
	}
	if got, err = io.ReadAll(r); err != nil || string(got) != "one way" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = r.Close() // read to its end
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
}

// TestNamedPipesBetween: two weirs joined by two named pipes do not wait for each
// other, whichever starts first, with TLS too (behaviour 55), and with nothing to
// send.
func TestNamedPipesBetween(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	a := newAuthority(t)
	layers := map[string][2]string{
		"plain": {},
		"TLS":   {"+tls-server" + a.issue("srv", time.Now().Add(time.Hour), "localhost"), "+tls-client,ca=" + a.ca() + ",name=localhost"},
	}
	for name, l := range layers {
		for _, first := range []bool{true, false} {
			for _, said := range []string{"abc", ""} {
				t.Run(fmt.Sprintf("%s/%v/%d", name, first, len(said)), func(t *testing.T) {
					dir := t.TempDir()
					there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
					if err := errors.Join(syscall.Mkfifo(there, 0o600), syscall.Mkfifo(back, 0o600)); err != nil {
						t.Fatal(err)
					}
					serve := prepare(t, "weir", "pipe:"+there+",out="+back+l[0], addr)
					say := prepare(t, "weir", "-", "pipe:"+back+",out="+there+l[1])
					var got bytes.Buffer
					say.Stdin, say.Stdout = strings.NewReader(said), &got
					if first {
						serve.begin()
						say.begin()
					} else {
						say.begin()
						serve.begin()
					}
					for who, p := range map[string]*process{"client": say, "server": serve} {
						if code := p.end(); code != exitOK {
							t.Errorf("the %s: code %d", who, code)
						}
					}
					if got.String() != strings.ToUpper(said) {
						t.Errorf("got %q", got.String())
					}
				})
			}
		}
	}
}
