package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// outcome is the result of an ask.
type outcome struct {
	calls  int
	answer string
	err    error
}

func (o *outcome) done(answer []byte, err error) {
	o.calls++
	o.answer, o.err = string(answer), err
}

// listen serves each connection with f, over package net, until the test ends.
func listen(t *testing.T, f func(c net.Conn, question string)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			question, err := bufio.NewReader(c).ReadString('\n')
			if err == nil {
				f(c, question)
			}
			c.Close()
		}
	}()
	return ln.Addr().String()
}

func answering(c net.Conn, question string) { fmt.Fprintf(c, "answer to %s", question) }

// silent waits until the other side gives up.
func silent(c net.Conn, _ string) { c.Read(make([]byte, 1)) }

func leaving(net.Conn, string) {}

// refused is an address where nothing listens: the system hands out no port so low.
const refused = "127.0.0.1:1"

// Over real sockets.
func TestAsk(t *testing.T) {
	for _, c := range []struct {
		name     string
		servers  func(t *testing.T) []string
		patience time.Duration
		answer   string
		errs     []error
	}{
		{"one answers", func(t *testing.T) []string { return []string{listen(t, answering)} }, time.Hour, "answer to why", nil},
		{"the first is refused", func(t *testing.T) []string { return []string{refused, listen(t, answering)} }, time.Hour, "answer to why", nil},
		{"the first leaves", func(t *testing.T) []string { return []string{listen(t, leaving), listen(t, answering)} }, time.Hour, "answer to why", nil},
		{"the first is silent", func(t *testing.T) []string { return []string{listen(t, silent), listen(t, answering)} }, 20 * time.Millisecond, "answer to why", nil},
		{"all fail", func(t *testing.T) []string { return []string{refused, listen(t, leaving)} }, time.Hour, "", []error{syscall.ECONNREFUSED, errNoReply}},
		{"nobody to ask", func(*testing.T) []string { return nil }, time.Hour, "", []error{nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			weirtest.CheckLeaks(t)
			servers := c.servers(t)
			l, err := weir.NewLoop()
			if err != nil {
				t.Fatal(err)
			}
			late := l.After(time.Minute, func() {
				t.Error("no end")
				l.Stop()
			})
			var o outcome
			startAsk(l, servers, []byte("why"), c.patience, func(answer []byte, err error) {
				o.done(answer, err)
				l.Stop()
			})
			if err := errors.Join(l.Run(), l.Close()); err != nil {
				t.Fatal(err)
			}
			late.Stop()
			if o.calls != 1 || o.answer != c.answer || (o.err != nil) != (c.errs != nil) {
				t.Errorf("called %d times, with %q, %v", o.calls, o.answer, o.err)
			}
			for i, want := range c.errs {
				if want != nil && !errors.Is(o.err, want) || i < len(servers) && !strings.Contains(o.err.Error(), servers[i]) {
					t.Errorf("%v: server %d failed with something else than %v", o.err, i, want)
				}
			}
		})
	}
}
