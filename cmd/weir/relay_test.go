package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// TestReplyAfterInput: printf request | weir - host:port prints the whole reply
// although the input ended first, however long the server thinks.
func TestReplyAfterInput(t *testing.T) {
	reply := strings.Repeat("all of the reply\n", 1000)
	addr := server(t, answer(func(request string) string {
		if request != "request" {
			return "bad request"
		}
		<-time.After(600 * time.Millisecond) // longer than socat waits
		return reply
	}))
	p := prepare(t, "weir", "-", addr)
	p.Stdin = strings.NewReader("request")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	if code := p.end(); code != exitOK || out.String() != reply {
		t.Errorf("code %d, %d of %d bytes: %.40q", code, out.Len(), len(reply), out.String())
	}
	p.line("close #1 stdio -> "+addr+": 7 B out, 17 kB back", 1)
}

// TestFiles: standard input and output can be plain files (behaviour 61).
func TestFiles(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	text := strings.Repeat("abc\n", 100_000)
	if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := prepare(t, "weir", addr, "-")
	var err error
	var stdin, stdout *os.File
	if stdin, err = os.Open(in); err != nil {
		t.Fatal(err)
	}
	if stdout, err = os.Create(out); err != nil {
		t.Fatal(err)
	}
	p.Stdin, p.Stdout = stdin, stdout
	p.begin()
	code := p.end()
	got, err := os.ReadFile(out)
	if code != exitOK || err != nil || string(got) != strings.ToUpper(text) {
		t.Errorf("code %d, %d of %d bytes, %v", code, len(got), len(text), err)
	}
	_, _ = stdin.Close(), stdout.Close()
}

// TestHalfCloseBothWays: each direction ends by itself, in either order.
func TestHalfCloseBothWays(t *testing.T) {
	for _, first := range []string{"client", "server"} {
		t.Run(first, func(t *testing.T) {
			errs := make(chan error, 1)
			addr := server(t, func(c *net.TCPConn) {
				errs <- func() error {
					if first == "server" {
						if err := errors.Join(write(c, "early"), c.CloseWrite()); err != nil {
							return err
						}
						return want(c, "late")
					}
					return errors.Join(want(c, "early"), write(c, "late"), c.CloseWrite())
				}()
			})
			p := start(t, "tcp-listen:127.0.0.1:0", addr)
			c := dial(t, p.listening())
			var err error
			if first == "server" {
				err = errors.Join(want(c, "early"), write(c, "late"), c.CloseWrite())
			} else {
				err = errors.Join(write(c, "early"), c.CloseWrite(), want(c, "late"))
			}
			if err := errors.Join(err, <-errs); err != nil {
				t.Fatal(err)
			}
			p.line("close #1", 1)
		})
	}
}

func write(c net.Conn, s string) error {
	_, err := io.WriteString(c, s)
	return err
}

// want reads to the end and compares.
func want(c net.Conn, s string) error {
	got, err := io.ReadAll(c)
	if err == nil && string(got) != s {
		return errors.New("got " + string(got) + ", want " + s)
	}
	return err
}

// TestFourMegabytes: each way, at once, through TCP and through a UNIX socket.
func TestFourMegabytes(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	for _, listen := range []string{"tcp-listen:127.0.0.1:0", "unix-listen:" + filepath.Join(t.TempDir(), "s")} {
		addr := server(t, func(c *net.TCPConn) {
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = c.Write(data); _ = c.CloseWrite() })
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("the server got %d bytes, %v", len(got), err)
			}
			wg.Wait()
		})
		p := start(t, listen, addr)
		p.line("ready", 1)
		var c net.Conn
		var err error
		if path, ok := strings.CutPrefix(listen, "unix-listen:"); ok {
			c, err = net.Dial("unix", path)
		} else {
			c, err = net.Dial("tcp", p.listening())
		}
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Write(data); _ = c.(interface{ CloseWrite() error }).CloseWrite() })
		got, err := io.ReadAll(c)
		wg.Wait()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: the client got %d bytes, %v", listen, len(got), err)
		}
		_ = c.Close() // it has ended both ways
		p.line("4.2 MB out, 4.2 MB back", 1)
	}
}

// TestNettest runs golang.org/x/net's stream tests between two
// standard-library ends with a whole weir process in between, on each backend.
func TestNettest(t *testing.T) {
	onBackends(t, func(t *testing.T, relay func(string) *process) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		addr := relay(l.Addr().String()).listening()
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			if c1, err = net.Dial("tcp", addr); err != nil {
				return nil, nil, nil, err
			}
			if c2, err = l.Accept(); err != nil {
				return nil, nil, nil, err
			}
			return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, nil
		})
	})
}

// TestTwoListeners: each waits for one peer, whichever comes first.
func TestTwoListeners(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, order := range [][2]string{{a, b}, {b, a}} {
		p := start(t, "unix-listen:"+a, "unix-listen:"+b)
		p.line("ready", 1)
		first, err := net.Dial("unix", order[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := write(first, "early"); err != nil {
			t.Fatal(err)
		}
		second, err := net.Dial("unix", order[1])
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(first.(*net.UnixConn).CloseWrite(), want(second, "early"), write(second, "late"), second.Close(), want(first, "late"), first.Close()); err != nil {
			t.Error(err)
		}
		if code := p.end(); code != exitOK {
			t.Errorf("code %d", code)
		}
		for _, path := range []string{a, b} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left behind: %v", path, err)
			}
		}
	}
}

// TestListenerAndStdio: standard input and output go to the first peer only.
func TestListenerAndStdio(t *testing.T) {
	p := prepare(t, "weir", "tcp-listen:127.0.0.1:0", "-")
	p.Stdin = strings.NewReader("to the peer")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	at := p.listening()
	c := dial(t, at)
	if err := errors.Join(write(c, "from the peer"), c.CloseWrite(), want(c, "to the peer")); err != nil {
		t.Error(err)
	}
	if code := p.end(); code != exitOK || out.String() != "from the peer" {
		t.Errorf("code %d, got %q", code, out.String())
	}
}

// TestBulk sends a stream of pseudo-random bytes each way at once and compares
// every byte as it comes out; WEIR_TEST_BULK sets how many, by default 64 MiB.
func TestBulk(t *testing.T) {
	n := int64(64 << 20)
	if s := os.Getenv("WEIR_TEST_BULK"); s != "" {
		var err error
		if n, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	limit := time.Now().Add(patience + time.Duration(n>>20)*100*time.Millisecond)
	both := func(c *net.TCPConn, say, hear byte) error {
		if err := c.SetDeadline(limit); err != nil {
			return err
		}
		sent := make(chan error, 1)
		go func() {
			_, err := io.CopyN(c, rand.NewChaCha8([32]byte{say}), n)
			sent <- errors.Join(err, c.CloseWrite())
		}()
		return errors.Join(same(c, rand.NewChaCha8([32]byte{hear}), n), <-sent)
	}
	errs := make(chan error, 1)
	addr := server(t, func(c *net.TCPConn) { errs <- both(c, 'b', 'a') })
	p := start(t, "tcp-listen:127.0.0.1:0", addr)
	c := dial(t, p.listening())
	began := time.Now()
	if err := errors.Join(both(c, 'a', 'b'), <-errs); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	p.line(size(n)+" out, "+size(n)+" back", 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	cpu := p.ProcessState.UserTime() + p.ProcessState.SystemTime()
	t.Logf("%s each way in %s, byte for byte: %.2f GB/s in all, the relay took %s of CPU, %.3f s per GB",
		size(n), span(took), 2*float64(n)/1e9/took.Seconds(), span(cpu), cpu.Seconds()/(2*float64(n)/1e9))
}

// same reads r to its end and compares it with n bytes of want.
func same(r, want io.Reader, n int64) error {
	a, b := make([]byte, 256<<10), make([]byte, 256<<10)
	var total int64
	for {
		k, err := r.Read(a)
		if _, werr := io.ReadFull(want, b[:k]); werr != nil {
			return werr
		}
		if !bytes.Equal(a[:k], b[:k]) {
			return fmt.Errorf("other bytes come out after byte %d", total)
		}
		total += int64(k)
		if err == io.EOF && total == n {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w after %d of %d bytes", err, total, n)
		}
	}
}
