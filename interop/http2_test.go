package interop

//lint:file-ignore SA1019 x/net's own client and server are what is tested here.

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	h2cases "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
	"golang.org/x/net/http2"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// serveHTTP2 serves HTTP/2 in the clear on the connections that ln accepts, until it is closed.
func serveHTTP2(ln net.Listener, h http.Handler) {
	srv := &http2.Server{}
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go srv.ServeConn(c, &http2.ServeConnOpts{Handler: h})
	}
}

// TestHTTP2: x/net's client and server, both over netconn: a large body each
// way in many streams at once.
func TestHTTP2(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		ln := listen(t, l)
		go serveHTTP2(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(w, r.Body); err != nil {
				t.Error(err)
			}
		}))
		d := &netconn.Dialer{Loop: l}
		tr := &http2.Transport{
			AllowHTTP: true,
			DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
				return d.DialContext(ctx, network, addr)
			},
		}
		defer tr.CloseIdleConnections()
		client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
		errs := make(chan error, 8)
		for i := range cap(errs) {
			go func() { errs <- echo(client, "http://"+ln.Addr().String(), pattern(300_000+i)) }()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// echo posts a body and checks that it comes back.
func echo(client *http.Client, url string, body []byte) error {
	resp, err := client.Post(url, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Equal(got, body) {
		err = fmt.Errorf("%d bytes came back of %d, or wrong ones", len(got), len(body))
	}
	return err
}

// TestH2spec runs h2spec's 146 cases against x/net's server over netconn, and
// compares the result with that over package net: a case that fails must fail
// there too, since then it is x/net's fault.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go serveHTTP2(plain, http.HandlerFunc(hello))
	want, cases := h2spec(plain.Addr())
	if cases < 100 {
		t.Fatalf("only %d cases ran", cases)
	}
	t.Logf("over package net: %d of %d fail: %q", len(want), cases, want)
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		ln := listen(t, l)
		go serveHTTP2(ln, http.HandlerFunc(hello))
		agrees(t, func(sections ...string) ([]string, int) { return h2spec(ln.Addr(), sections...) }, want, cases)
	})
}

// agrees runs h2spec by run and compares the result with what fails elsewhere.
func agrees(t *testing.T, run func(sections ...string) ([]string, int), want []string, cases int) {
	t.Helper()
	got, n := run()
	if n != cases {
		t.Errorf("%d cases ran, %d over package net", n, cases)
	}
	for _, name := range got {
		if slices.Contains(want, name) {
			continue
		}
		// Some cases race with the server's answer, or with h2spec's own
		// timeout on a busy machine. What weir breaks fails each time.
		section, _, _ := strings.Cut(name, " ")
		for try := 1; ; try++ {
			if failed, _ := run(section); len(failed) == 0 {
				break
			}
			if try == 10 {
				t.Errorf("fails over weir alone, each of %d times: %s", try+1, name)
				break
			}
		}
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "hello")
}

// h2spec runs the cases of some sections, or all, against a server, and returns
// which failed and how many there were.
func h2spec(a net.Addr, sections ...string) (failed []string, cases int) {
	return h2specWith(config.Config{}, a, sections)
}

// h2specTLS is h2spec over TLS, with ALPN.
func h2specTLS(a net.Addr, sections ...string) (failed []string, cases int) {
	return h2specWith(config.Config{TLS: true, Insecure: true}, a, sections)
}

func h2specWith(c0 config.Config, a net.Addr, sections []string) (failed []string, cases int) {
	addr := a.(*net.TCPAddr)
	c := &c0
	c.Host, c.Port, c.Path = addr.IP.String(), addr.Port, "/"
	c.Timeout, c.MaxHeaderLen, c.Sections = 2*time.Second, 4000, sections
	for _, g := range []*spec.TestGroup{generic.Spec(), h2cases.Spec(), hpack.Spec()} {
		g.Test(c)
		collect(g, &failed, &cases)
	}
	return failed, cases
}

func collect(g *spec.TestGroup, failed *[]string, cases *int) {
	for i, tc := range g.Tests {
		*cases++
		if tc.Result != nil && tc.Result.Failed {
			*failed = append(*failed, fmt.Sprintf("%s/%d %s", g.ID(), i+1, tc.Desc))
		}
	}
	for _, sub := range g.Groups {
		collect(sub, failed, cases)
	}
}
