package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
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
	// The program's certificate is of its own making.
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
