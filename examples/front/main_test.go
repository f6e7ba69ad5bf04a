package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/examples/internal/program"
	"github.com/weir-io/weir/frame"
)

// behind serves lines, which it sends back in capitals.
func behind(t *testing.T) net.Addr {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(tr weir.Transport) weir.Protocol {
		return frame.Lines(func(line []byte) error {
			_, err := fmt.Fprintf(tr, "%s\n", strings.ToUpper(string(line)))
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- l.Run() }()
	t.Cleanup(func() {
		l.Stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		_ = l.Close()
	})
	return ln.Addr()
}

// TestFront sends many requests at once, and ends the program by SIGTERM.
func TestFront(t *testing.T) {
	p := program.Run(t, "-behind", behind(t).String())
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	ask := func(line string) (int, string, error) {
		resp, err := client.Get("http://" + p.Addr + "/?line=" + url.QueryEscape(line))
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, strings.TrimSuffix(string(b), "\n"), err
	}
	for { // until the pool is connected
		code, _, err := ask("ready?")
		if err != nil {
			t.Fatal(err)
		}
		if code == http.StatusOK {
			break
		}
	}
	errs := make(chan error, 50)
	for i := range cap(errs) {
		go func() {
			code, got, err := ask(fmt.Sprint("line ", i))
			if err == nil && (code != http.StatusOK || got != fmt.Sprint("LINE ", i)) {
				err = fmt.Errorf("line %d: %d %q", i, code, got)
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if code, got, err := ask("two\nlines"); code != http.StatusBadRequest || err != nil {
		t.Errorf("two lines: %d %q %v", code, got, err)
	}
	p.Terminate(t)
	if said := p.Ended(t); said != "" {
		t.Errorf("it said %q", said)
	}
}
