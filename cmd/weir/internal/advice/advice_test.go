package advice

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer"
)

// TestWhy: the reason for an error does not depend on its wrappers, and if several
// rules apply the first in the table decides.
func TestWhy(t *testing.T) {
	silent := &net.DNSError{Err: "no answer", Name: "a.test", IsTimeout: true}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "closed"},
		{syscall.ECONNREFUSED, "refused"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNRESET)}, "reset"},
		{errors.Join(os.ErrDeadlineExceeded, silent), "the name servers do not answer"},
		{&fs.PathError{Op: "open", Path: "p", Err: fs.ErrNotExist}, "no such file"},
		{&fs.PathError{Op: "open", Path: "p", Err: errors.New("odd")}, "odd"},
		{&weir.PanicError{Where: "DataReceived", Value: "v"}, "a bug in weir: "},
		{&layer.CertificateError{Problem: layer.Expired}, "the certificate has expired"},
		{&layer.CertificateError{Problem: layer.Unacceptable, Err: errors.New("v1")}, `the certificate cannot be used: "v1"`},
		{errors.New("weir: something else"), "something else"},
	} {
		for i, err := range []error{c.err, fmt.Errorf("around it: %w", c.err)} {
			if wrapped := i > 0; wrapped && (c.err == nil || c.want == "something else") {
				continue // it is empty, or no rule applies
			}
			if got := Why(err); !strings.HasPrefix(got, c.want) {
				t.Errorf("%v: %q, want %q", err, got, c.want)
			}
		}
	}
}

// TestPortsUsedUp: running out of local ports is told apart from a local address
// that does not exist.
func TestPortsUsedUp(t *testing.T) {
	for call, want := range map[string]string{"connect": "no local port is free", "bind": "not an address of this machine"} {
		err := &net.OpError{Op: call, Net: "tcp", Err: os.NewSyscallError(call, syscall.EADDRNOTAVAIL)}
		if got := Why(err); got != want {
			t.Errorf("%s: %q, want %q", call, got, want)
		}
	}
}

// TestNextForTimeout: a host that does not answer is down, and one whose layer does not
// answer is up.
func TestNextForTimeout(t *testing.T) {
	e, err := endpoint.Default().Parse("localhost:443+tls")
	if err != nil {
		t.Fatal(err)
	}
	const down = "the host is down"
	for _, cause := range []error{os.ErrDeadlineExceeded, syscall.ETIMEDOUT} {
		if got := nextForConnect(e, cause); !strings.Contains(got, down) {
			t.Errorf("%v: %q", cause, got)
		}
	}
	if got := nextForConnect(e, &layer.Error{Layer: "tls", Err: layer.ErrTimeout}); strings.Contains(got, down) {
		t.Errorf("a handshake that takes too long: %q", got)
	}
}

// TestNextForLocation: a redirect's target as an endpoint, unless it could be
// more than one word in a shell.
func TestNextForLocation(t *testing.T) {
	for where, want := range map[string]string{
		"https://h.example/chat": "h.example:443+tls+ws:/chat",
		"http://h.example":       "h.example:80+ws",
		"wss://h.example:8443/a": "h.example:8443+tls+ws:/a",
		"/other":                 "+ws:/other",
		"/a%2Bb":                 "+ws:/a%252Bb",
		"http://h/;rm%20-rf":     "elsewhere.",
		"http://h/$(id)":         "elsewhere.",
		"http://h/?a=1&b":        "elsewhere.",
		"http://h/\x1b[31m":      "elsewhere.",
		"://":                    "elsewhere.",
	} {
		if got := nextForLocation(where); !strings.HasSuffix(got, want) {
			t.Errorf("%q: %q", where, got)
		}
	}
	if _, err := endpoint.Default().Parse("h.example:443+tls+ws:/a%252Bb"); err != nil {
		t.Error(err)
	}
}
