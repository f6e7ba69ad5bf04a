package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-io/weir/examples/internal/program"
)

// TestServe fetches a file many times at once, over TLS (R57: net/http serves
// over weir unchanged).
func TestServe(t *testing.T) {
	addr := program.Start(t)
	want, err := os.ReadFile("main_test.go")
	if err != nil {
		t.Fatal(err)
	}
	// The program's certificate is self-signed.
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
	errs := make(chan error, 20)
	for range cap(errs) {
		go func() {
			resp, err := client.Get("https://" + addr + "/main_test.go")
			if err != nil {
				errs <- err
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Equal(got, want)) {
				err = fmt.Errorf("%s, %d bytes of %d", resp.Status, len(got), len(want))
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestTerminated: a request that is under way when SIGTERM comes is answered
// completely, and then the program ends (R78).
func TestTerminated(t *testing.T) {
	dir := t.TempDir()
	want := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	if err := os.WriteFile(filepath.Join(dir, "large"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	p := program.Run(t, "-dir", dir)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
	resp, err := client.Get("https://" + p.Addr + "/large")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p.Terminate(t)
	for { // until nothing more is accepted
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			break
		}
		_ = c.Close()
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	p.Ended(t)
}
